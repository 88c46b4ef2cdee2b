//! Nobody grants what they do not hold: the checks on writes of roles and bindings
//! (`pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`, `pkg/registry/rbac/escalation_check.go`).

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use shared::status::{ApiError, GroupResource};

use super::{Access, Authorizer, rules};
use crate::api::user::User;

const GROUP: &str = "rbac.authorization.k8s.io";

impl Authorizer {
    /// Whether a user may write a Role (`resource` = `roles`) or ClusterRole (`clusterroles`) with these rules.
    ///
    /// # Errors
    /// 403 naming the rights the user does not hold.
    pub fn check_role(&self, user: &User, resource: &str, namespace: &str, name: &str, granted: &[PolicyRule]) -> Result<(), ApiError> {
        if user.in_group("system:masters") || self.authorize(user, &Access::resource("escalate", GROUP, resource, namespace, name)).allowed {
            return Ok(());
        }
        self.confirm(user, namespace, granted).map_err(|text| ApiError::forbidden(GroupResource { group: GROUP, resource }, name, &text))
    }

    /// Whether a user may write a ClusterRole with an aggregation rule: only who holds everything.
    ///
    /// # Errors
    /// 403
    pub fn check_aggregation(&self, user: &User, name: &str) -> Result<(), ApiError> {
        let all = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        let everything = [
            PolicyRule { api_groups: all(&["*"]), resources: all(&["*"]), verbs: vec!["*".into()], ..PolicyRule::default() },
            PolicyRule { non_resource_urls: all(&["*"]), verbs: vec!["*".into()], ..PolicyRule::default() },
        ];
        self.check_role(user, "clusterroles", "", name, &everything).map_err(|_| {
            let gr = GroupResource { group: GROUP, resource: "clusterroles" };
            ApiError::forbidden(gr, name, "must have cluster-admin privileges to use an aggregationRule")
        })
    }

    /// Whether a user may write a binding (`resource` = `rolebindings` or `clusterrolebindings`) to this role.
    ///
    /// # Errors
    /// 404 when the role does not exist, 403 when the user does not hold its rights.
    pub fn check_binding(&self, user: &User, resource: &str, namespace: &str, name: &str, role: &RoleRef) -> Result<(), ApiError> {
        let role_resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if user.in_group("system:masters") || self.authorize(user, &Access::resource("bind", GROUP, role_resource, namespace, &role.name)).allowed {
            return Ok(());
        }
        let granted = self.rbac.read().resolve(role, namespace).map(<[PolicyRule]>::to_vec);
        let granted = granted.map_err(|_| ApiError::not_found(GroupResource { group: GROUP, resource: role_resource }, &role.name))?;
        self.confirm(user, namespace, &granted).map_err(|text| ApiError::forbidden(GroupResource { group: GROUP, resource }, name, &text))
    }

    fn confirm(&self, user: &User, namespace: &str, granted: &[PolicyRule]) -> Result<(), String> {
        let (held, errors) = self.rbac.read().rules_for(user, namespace);
        let missing = rules::missing(&held, granted);
        if missing.is_empty() {
            return Ok(());
        }
        let groups = user.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" ");
        let lines = rules::describe_missing(missing);
        let mut text = format!("user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{lines}", user.name);
        if !errors.is_empty() {
            text = format!("{text}; resolution errors: [{}]", errors.join(" "));
        }
        Err(text)
    }
}
