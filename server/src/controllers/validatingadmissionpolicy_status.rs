//! Type-checks the expressions of ValidatingAdmissionPolicies against the kinds they match, and says in their status what it found
//! (`pkg/controller/validatingadmissionpolicystatus/controller.go`,
//! `k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`).
//!
//! Owns `status.typeChecking` and `status.observedGeneration`. What it finds never changes what a policy does. Schemas are the API's own
//! published documents, so a CustomResourceDefinition's kind is checked as any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shared::cel::admission::{Objects, Scope, environment};
use shared::cel::{Definitions, Type, compile, type_of_schema};

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, synced};

/// Kinds that one policy is checked against at most.
const MOST: usize = 10;
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Group, version and kind.
type Gvk = (String, String, String);

/// Starts the controller.
pub fn start(ctx: Context) {
    let policies = ctx.informers.get::<ValidatingAdmissionPolicy>();
    let queue: Queue<Key> = Queue::new();
    ctx.enqueue_all(&policies, &queue);
    let client = ctx.client.clone();
    ctx.work(&queue, 1, vec![synced(&policies)], move |key| {
        let (client, policies) = (client.clone(), policies.clone());
        async move {
            let Some(policy) = policies.get("", &key.name) else { return Ok(()) };
            let generation = policy.metadata.generation.unwrap_or(0);
            let observed = policy.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
            if generation <= observed {
                return Ok(());
            }
            let warnings = check(&client, policy.spec.as_ref()).await?;
            let checked = TypeChecking { expression_warnings: (!warnings.is_empty()).then_some(warnings) };
            let status = json!({"status": {"observedGeneration": generation, "typeChecking": checked}});
            let api = Api::<ValidatingAdmissionPolicy>::all(client);
            found(
                api.patch_status(&key.name, &PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }, &Patch::Merge(status))
                    .await,
            )?;
            Ok(())
        }
    });
}

/// The warnings about a policy's expressions.
async fn check(client: &Client, spec: Option<&ValidatingAdmissionPolicySpec>) -> Result<Vec<ExpressionWarning>, Error> {
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let mut schemas = Schemas { client, documents: BTreeMap::new() };
    let mut kinds = Vec::new();
    for gvk in matched_kinds(client, spec).await? {
        if let Some(of) = schemas.type_of(&gvk).await? {
            kinds.push((gvk, of));
        }
    }
    let params = match &spec.param_kind {
        None => None,
        Some(kind) => {
            let api_version = kind.api_version.clone().unwrap_or_default();
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            schemas.type_of(&(group.into(), version.into(), kind.kind.clone().unwrap_or_default())).await?
        }
    };
    Ok(warnings(spec, &kinds, params.as_ref()))
}

/// What compiling each expression against each kind says.
fn warnings(spec: &ValidatingAdmissionPolicySpec, kinds: &[(Gvk, Type)], params: Option<&Type>) -> Vec<ExpressionWarning> {
    let mut out = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        let message = validation.message_expression.as_deref().filter(|m| !m.is_empty());
        for (field, expression) in [("expression", Some(validation.expression.as_str())), ("messageExpression", message)] {
            let Some(expression) = expression else { continue };
            let found: Vec<String> = kinds.iter().filter_map(|(gvk, of)| against(spec, gvk, of, params, expression)).collect();
            if !found.is_empty() {
                out.push(ExpressionWarning { field_ref: format!("spec.validations[{index}].{field}"), warning: found.join("\n") });
            }
        }
    }
    out
}

/// What compiling an expression against one kind says.
fn against(spec: &ValidatingAdmissionPolicySpec, gvk: &Gvk, of: &Type, params: Option<&Type>, expression: &str) -> Option<String> {
    let objects = Objects { object: of.clone(), params: params.cloned().unwrap_or(Type::Dyn) };
    let mut scope = Scope { params: spec.param_kind.is_some(), authorizer: true, ..Scope::default() };
    for variable in spec.variables.iter().flatten() {
        // A variable that does not compile may be anything to what uses it: it has been refused, or warned of, elsewhere.
        let result = compile(&variable.expression, &environment(&scope, &objects)).map_or(Type::Dyn, |p| p.result().clone());
        scope.variables.push((variable.name.clone(), result.into()));
    }
    let error = compile(expression, &environment(&scope, &objects)).err()?;
    let (group, version, kind) = gvk;
    let group_version = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
    Some(format!("{group_version}, Kind={kind}: {error}\n"))
}

/// The kinds that a policy's rules name; rules with stars are not followed.
async fn matched_kinds(client: &Client, spec: &ValidatingAdmissionPolicySpec) -> Result<Vec<Gvk>, Error> {
    let mut kinds = Vec::new();
    let rules = spec.match_constraints.iter().flat_map(|m| m.resource_rules.iter().flatten());
    for (group, version, resource) in rules.flat_map(named) {
        for kind in kinds_of(client, &group, &version, &resource).await? {
            if kinds.len() < MOST && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds.sort();
    Ok(kinds)
}

/// Every group, version and resource of a rule without stars.
fn named(rule: &NamedRuleWithOperations) -> Vec<Gvk> {
    let plain = |list: &Option<Vec<String>>| -> Vec<String> {
        let list = list.clone().unwrap_or_default();
        if list.iter().any(|item| item.contains('*')) { Vec::new() } else { list }
    };
    let (groups, versions) = (plain(&rule.api_groups), plain(&rule.api_versions));
    let resources = rule.resources.iter().flatten().filter(|r| !r.contains(['*', '/']));
    let mut out = Vec::new();
    for group in &groups {
        for version in &versions {
            out.extend(resources.clone().map(|resource| (group.clone(), version.clone(), resource.clone())));
        }
    }
    out.sort();
    out
}

/// The kind behind a resource, by discovery; none when it is not served.
async fn kinds_of(client: &Client, group: &str, version: &str, resource: &str) -> Result<Vec<Gvk>, Error> {
    let listed = if group.is_empty() {
        client.list_core_api_resources(version).await
    } else {
        client.list_api_group_resources(&format!("{group}/{version}")).await
    };
    let Some(list) = found(listed)? else { return Ok(Vec::new()) };
    let own = list.resources.iter().filter(|r| r.name == resource);
    Ok(own.map(|r| (group.to_owned(), version.to_owned(), r.kind.clone())).collect())
}

/// The API's published schemas, each document fetched once a check.
struct Schemas<'a> {
    client: &'a Client,
    documents: BTreeMap<String, Option<Arc<Value>>>,
}

impl Schemas<'_> {
    async fn type_of(&mut self, (group, version, kind): &Gvk) -> Result<Option<Type>, Error> {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        if !self.documents.contains_key(&path) {
            let request = http::Request::get(format!("/openapi/v3/{path}")).body(Vec::new()).map_err(|e| Error::Other(e.to_string()))?;
            let document = found(self.client.request::<Value>(request).await)?.map(Arc::new);
            self.documents.insert(path.clone(), document);
        }
        let Some(Some(document)) = self.documents.get(&path) else { return Ok(None) };
        Ok(type_in(document, group, version, kind))
    }
}

/// The type of a kind in a document.
fn type_in(document: &Arc<Value>, group: &str, version: &str, kind: &str) -> Option<Type> {
    let wanted = json!({"group": group, "version": version, "kind": kind});
    let schemas = document["components"]["schemas"].as_object()?;
    let schema = schemas.values().find(|s| s["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.contains(&wanted)))?;
    let all = document.clone();
    let definitions: Definitions = Arc::new(move |name| all["components"]["schemas"].get(name).cloned());
    Some(type_of_schema(kind, schema, &definitions, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Arc<Value> {
        Arc::new(json!({"components": {"schemas": {
            "io.k8s.api.apps.v1.Deployment": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string"}, "apiVersion": {"type": "string"},
                    "metadata": {"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}]},
                    "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}]},
                },
                "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
            },
            "ObjectMeta": {"type": "object", "properties": {"labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
            "Spec": {"type": "object", "properties": {"replicas": {"type": "integer", "format": "int32"}}},
        }}}))
    }

    fn checked(validations: Value) -> Vec<(String, String)> {
        let of = type_in(&document(), "apps", "v1", "Deployment").unwrap();
        let variables = json!([{"name": "n", "expression": "object.spec.replicas"}]);
        let spec = serde_json::from_value(json!({"validations": validations, "variables": variables})).unwrap();
        let gvk = ("apps".into(), "v1".into(), "Deployment".into());
        warnings(&spec, &[(gvk, of)], None).into_iter().map(|w| (w.field_ref, w.warning)).collect()
    }

    #[test]
    fn misspelt_fields_and_wrong_types_are_warned_of() {
        assert_eq!(
            checked(json!([{"expression": "object.spec.replicas > 1"}, {"expression": "variables.n > 1 && object.metadata.labels['a'] == 'b'"}])),
            []
        );
        assert_eq!(
            checked(json!([{"expression": "object.spec.replica > 1", "messageExpression": "object.spec.replicas + 'x'"}])),
            [
                (
                    "spec.validations[0].expression".into(),
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n | object.spec.replica > 1\n | ...........^\n".into()
                ),
                (
                    "spec.validations[0].messageExpression".into(),
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_+_' applied to '(int, string)'\n | object.spec.replicas + 'x'\n | .....................^\n"
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn rules_with_stars_are_not_followed() {
        let rule = |groups: &[&str], resources: &[&str]| {
            let rule: NamedRuleWithOperations =
                serde_json::from_value(json!({"apiGroups": groups, "apiVersions": ["v1"], "operations": ["*"], "resources": resources})).unwrap();
            named(&rule).into_iter().map(|(group, _, resource)| format!("{group}/{resource}")).collect::<Vec<_>>()
        };
        assert_eq!(rule(&["apps"], &["deployments", "deployments/scale", "*"]), ["apps/deployments"]);
        assert!(rule(&["*"], &["deployments"]).is_empty());
    }
}
