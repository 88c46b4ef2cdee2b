//! Calls the authorizer's escalation checks on every write of a role or binding, and keeps a binding's role as it is.
//!
//! Upstream has these in the registry (`pkg/registry/rbac/*/policybased`); here they sit where the user is known.

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use shared::field;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, new_object, old_object};

pub(super) struct RbacEscalation;

type Bound<'a> = (&'a RoleRef, Option<&'a Vec<Subject>>);

fn bound<'a>(cluster: Option<&'a ClusterRoleBinding>, local: Option<&'a RoleBinding>) -> Option<Bound<'a>> {
    cluster.map(|b| (&b.role_ref, b.subjects.as_ref())).or_else(|| local.map(|b| (&b.role_ref, b.subjects.as_ref())))
}

fn rules(role: &Option<Vec<PolicyRule>>) -> &[PolicyRule] {
    role.as_deref().unwrap_or_default()
}

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.group == "rbac.authorization.k8s.io" && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let (authorizer, user, namespace) = (&context.authorizer, attributes.user, attributes.namespace);
        let resource = attributes.resource.plural;
        let name = attributes.object.as_deref().map(|o| o.name().to_owned()).unwrap_or_default();
        if let Some(role) = new_object::<Role>(attributes) {
            let same = old_object::<Role>(attributes).is_some_and(|old| old.rules == role.rules);
            return if same { Ok(()) } else { authorizer.check_role(user, resource, namespace, &name, rules(&role.rules)) };
        }
        if let Some(role) = new_object::<ClusterRole>(attributes) {
            let old = old_object::<ClusterRole>(attributes);
            if old.is_some_and(|old| old.rules == role.rules && old.aggregation_rule == role.aggregation_rule) {
                return Ok(());
            }
            if role.aggregation_rule.is_some() || old.is_some_and(|o| o.aggregation_rule.is_some()) {
                authorizer.check_aggregation(user, &name)?;
            }
            return authorizer.check_role(user, resource, "", &name, rules(&role.rules));
        }
        let Some((role, subjects)) = bound(new_object(attributes), new_object(attributes)) else { return Ok(()) };
        if let Some((old_role, old_subjects)) = bound(old_object(attributes), old_object(attributes)) {
            if old_role != role {
                let error = field::Error::invalid(&field::Path::new("roleRef"), role, "cannot change roleRef");
                return Err(ApiError::invalid(attributes.resource.group_kind(), &name, &[error]));
            }
            if old_subjects == subjects {
                return Ok(());
            }
        }
        authorizer.check_binding(user, resource, namespace, &name, role)
    }
}
