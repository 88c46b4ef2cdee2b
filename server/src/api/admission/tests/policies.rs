//! Policies, evaluated by the whole chain over a real store.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::{World, admin, from, row};
use crate::registry::Object;
use crate::registry::store::{WriteOptions, Written};

fn rules(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]})
}

fn deployment(name: &str, replicas: i32) -> Value {
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": pod}})
}

impl World {
    async fn validating(&self, name: &str, spec: Value, binding: Value) {
        let mut spec = spec;
        if spec["matchConstraints"].is_null() {
            spec["matchConstraints"] = rules("apps", "deployments");
        }
        let mut bound = json!({"policyName": name, "validationActions": ["Deny"]});
        for (field, value) in binding.as_object().unwrap() {
            bound[field] = value.clone();
        }
        self.create::<ValidatingAdmissionPolicy>("", json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
        self.create::<ValidatingAdmissionPolicyBinding>("", json!({"metadata": {"name": format!("{name}-b")}, "spec": bound})).await.unwrap();
        self.refresh().await;
    }

    async fn mutating(&self, name: &str, resource: (&str, &str), mutation: Value) {
        let spec = json!({"matchConstraints": rules(resource.0, resource.1), "reinvocationPolicy": "Never", "mutations": [mutation]});
        self.create::<MutatingAdmissionPolicy>("", json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
        let binding = json!({"metadata": {"name": format!("{name}-b")}, "spec": {"policyName": name}});
        self.create::<MutatingAdmissionPolicyBinding>("", binding).await.unwrap();
        self.refresh().await;
    }

    async fn written(&self, replicas: i32) -> Result<Written, shared::status::ApiError> {
        let object = Object::new(from::<Deployment>(deployment("d", replicas)));
        self.store.create(row::<Deployment>(), "team", object, &WriteOptions::new(&admin()), &*self.admission).await
    }
}

async fn world() -> World {
    let world = World::start().await;
    world.namespace("team").await;
    world
}

#[tokio::test]
async fn a_validation_that_does_not_hold_denies_in_upstreams_words() {
    let world = world().await;
    let spec = json!({
        "variables": [{"name": "most", "expression": "5"}],
        "validations": [{
            "expression": "object.spec.replicas <= variables.most",
            "messageExpression": "'no more than ' + string(variables.most) + ' replicas, not ' + string(object.spec.replicas)",
        }]
    });
    world.validating("few", spec, json!({})).await;
    let error = world.written(6).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few-b' denied request: no more than 5 replicas, not 6"
    );
    assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    world.written(5).await.unwrap();
}

#[tokio::test]
async fn messages_and_reasons_have_upstreams_defaults() {
    let world = world().await;
    let spec = json!({"validations": [{"expression": "object.spec.replicas == 1", "reason": "Forbidden"}]});
    world.validating("one", spec, json!({})).await;
    let error = world.written(2).await.unwrap_err();
    assert!(error.to_string().ends_with("denied request: failed expression: object.spec.replicas == 1"), "{error}");
    assert_eq!(error.code(), 403);
}

#[tokio::test]
async fn a_binding_may_only_warn() {
    let world = world().await;
    let spec = json!({"validations": [{"expression": "object.spec.replicas > 1", "message": "one replica is none"}]});
    world.validating("many", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let written = world.written(1).await.unwrap();
    assert_eq!(written.warnings, ["Validation failed for ValidatingAdmissionPolicy 'many' with binding 'many-b': one replica is none"]);
}

#[tokio::test]
async fn parameters_come_from_any_stored_kind() {
    let world = world().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)"}]
    });
    let reference = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    world.validating("param", spec, reference).await;
    let error = world.written(1).await.unwrap_err().to_string();
    assert!(error.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"), "{error}");
    world.create::<ConfigMap>("team", json!({"metadata": {"name": "limits"}, "data": {"most": "2"}})).await.unwrap();
    world.written(3).await.unwrap_err();
    world.written(2).await.unwrap();
}

#[tokio::test]
async fn errors_count_unless_the_failure_policy_ignores_them() {
    let world = world().await;
    let validations = json!([{"expression": "object.spec.missing == 1"}]);
    world.validating("lenient", json!({"failurePolicy": "Ignore", "validations": validations}), json!({})).await;
    world.written(1).await.unwrap();
    world.delete_as::<Deployment>(&admin(), "team", "d").await.unwrap();
    world.validating("strict", json!({"validations": validations}), json!({})).await;
    let error = world.written(1).await.unwrap_err().to_string();
    assert!(error.ends_with("expression 'object.spec.missing == 1' resulted in error: no such key: missing"), "{error}");
}

#[tokio::test]
async fn conditions_and_excluded_rules_keep_a_policy_out() {
    let world = world().await;
    let never = json!([{"expression": "false"}]);
    let condition = json!([{"name": "not-admins", "expression": "request.userInfo.username != 'admin'"}]);
    world.validating("not-admins", json!({"matchConditions": condition, "validations": never}), json!({})).await;
    let mut constraints = rules("apps", "*");
    constraints["excludeResourceRules"] = rules("apps", "deployments")["resourceRules"].clone();
    world.validating("excluded", json!({"matchConstraints": constraints, "validations": never}), json!({})).await;
    world.written(1).await.unwrap();
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused_when_they_are_stored() {
    let world = world().await;
    let spec = json!({"matchConstraints": rules("apps", "deployments"), "validations": [{"expression": "object.spec.replicas > foo"}]});
    let error = world.create::<ValidatingAdmissionPolicy>("", json!({"metadata": {"name": "bad"}, "spec": spec})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"bad\" is invalid: spec.validations[0].expression: Invalid value: \"object.spec.replicas > foo\": compilation failed: ERROR: <input>:1:24: undeclared reference to 'foo' (in container '')\n | object.spec.replicas > foo\n | .......................^"
    );
}

#[tokio::test]
async fn a_mutating_policy_applies_configurations_and_patches() {
    let world = world().await;
    let apply = "Object{metadata: Object.metadata{labels: {'added': object.metadata.name}}, spec: Object.spec{replicas: object.spec.replicas + 1}}";
    world.mutating("apply", ("apps", "deployments"), json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}})).await;
    let sidecar = "[JSONPatch{op: 'add', path: '/spec/template/spec/containers/-', value: Object.spec.template.spec.containers{name: 'side', image: 's:1'}}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}]";
    world.mutating("patch", ("apps", "deployments"), json!({"patchType": "JSONPatch", "jsonPatch": {"expression": sidecar}})).await;
    let made: Deployment = world.create("team", deployment("d", 1)).await.unwrap();
    let labels = made.metadata.labels.unwrap();
    assert_eq!((labels["added"].as_str(), labels["example.com/x"].as_str()), ("d", "y"));
    let spec = made.spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    let containers = spec.template.spec.unwrap().containers;
    assert_eq!((containers.len(), containers[1].termination_message_path.as_deref()), (2, Some("/dev/termination-log")));
}

#[tokio::test]
async fn a_patch_whose_test_does_not_hold_is_left_out() {
    let world = world().await;
    let patch = "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'a': 'b'}}, JSONPatch{op: 'test', path: '/spec/replicas', value: 7}]";
    world.mutating("tested", ("apps", "deployments"), json!({"patchType": "JSONPatch", "jsonPatch": {"expression": patch}})).await;
    for (name, replicas, annotated) in [("d", 1, false), ("e", 7, true)] {
        let made: Deployment = world.create("team", deployment(name, replicas)).await.unwrap();
        assert_eq!(made.metadata.annotations.is_some(), annotated, "{name}");
    }
}

#[tokio::test]
async fn a_mutation_that_fails_denies_and_names_its_policy() {
    let world = world().await;
    let apply = "Object{metadata: Object.metadata{finalizers: ['a/b']}, spec: Object.wrong{replicas: 1}}";
    world.mutating("wrong", ("apps", "deployments"), json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}})).await;
    let error = world.written(1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy 'wrong' with binding 'wrong-b' denied request: type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type"
    );
    assert_eq!((error.code(), error.reason()), (403, "Forbidden"));
}
