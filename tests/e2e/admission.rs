//! What users put between a request and the store: webhooks and policies.

use serde_json::{Value, json};
use tests::hook::patching;
use tests::{Cluster, Hook, eventually};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("admission::a_webhook_denies_in_its_own_words", a_webhook_denies_in_its_own_words),
    ("admission::a_webhook_changes_what_is_stored", a_webhook_changes_what_is_stored),
    ("admission::an_unreachable_webhook_closes_or_opens_the_way", an_unreachable_webhook_closes_or_opens_the_way),
    ("admission::conditions_of_a_webhook_are_compiled_when_it_is_stored", conditions_of_a_webhook_are_compiled_when_it_is_stored),
    ("admission::a_policy_denies_and_warns", a_policy_denies_and_warns),
    ("admission::a_policy_s_types_are_checked", a_policy_s_types_are_checked),
    ("admission::a_mutating_policy_changes_what_is_stored", a_mutating_policy_changes_what_is_stored),
];

fn a_webhook_denies_in_its_own_words(c: &Cluster) {
    let n = c.namespace("hook-denies");
    let hook = Hook::start(&c.machine, |request| {
        let bad = request["object"]["data"]["bad"].is_string();
        json!({"allowed": !bad, "status": {"message": "nothing bad here", "code": 403}, "warnings": ["looked at closely"]})
    });
    c.create(&hook.configuration("Validating", "hook-denies", n, &json!({}))).ok();
    let denied = "admission webhook \"hook-denies.example.com\" denied the request: nothing bad here";
    for output in [
        c.kubectl(&format!("-n {n} create configmap x --from-literal=bad=yes")),
        c.kctl(&format!("-n {n} create configmap x --from-literal=bad=yes")),
        c.kubectl(&format!("-n {n} create configmap x --from-literal=bad=yes --dry-run=server")),
    ] {
        let said = output.fails();
        assert!(said.contains(denied), "{said}");
    }
    let made = c.kubectl(&format!("-n {n} create configmap x --from-literal=good=yes"));
    assert_eq!((made.stderr.as_str(), made.stdout.as_str()), ("Warning: looked at closely\n", "configmap/x created\n"));
    let patched = c.kctl(&format!("-n {n} patch configmap x --type=merge -p '{{\"data\":{{\"bad\":\"yes\"}}}}'")).fails();
    assert!(patched.contains(denied), "{patched}");
    c.kubectl("delete validatingwebhookconfiguration hook-denies").ok();
    c.kubectl(&format!("-n {n} create configmap y --from-literal=bad=yes")).ok();
}

fn a_webhook_changes_what_is_stored(c: &Cluster) {
    let n = c.namespace("hook-changes");
    let hook = Hook::start(&c.machine, |request| {
        let value =
            format!("{} by {}", request["operation"].as_str().unwrap_or_default(), request["userInfo"]["username"].as_str().unwrap_or_default());
        patching(&json!([{"op": "add", "path": "/data/seen", "value": value}]))
    });
    c.create(&hook.configuration("Mutating", "hook-changes", n, &json!({}))).ok();
    c.kubectl(&format!("-n {n} create configmap x --from-literal=k=v")).ok();
    let seen = c.path(&format!("-n {n} configmap x"), "{.data.seen}");
    assert!(seen.starts_with("CREATE by "), "{seen}");
    c.kctl(&format!("-n {n} patch configmap x --type=merge -p '{{\"data\":{{\"k\":\"w\"}}}}'")).ok();
    let seen = c.path(&format!("-n {n} configmap x"), "{.data.seen}");
    assert!(seen.starts_with("UPDATE by "), "{seen}");
    c.kubectl("delete mutatingwebhookconfiguration hook-changes").ok();
}

fn an_unreachable_webhook_closes_or_opens_the_way(c: &Cluster) {
    let n = c.namespace("hook-dead");
    let hook = Hook::start(&c.machine, |_| json!({"allowed": true}));
    let dead = |policy: &str| json!({"clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": policy});
    c.create(&hook.configuration("Validating", "hook-dead", n, &dead("Fail"))).ok();
    let refused = c.kubectl(&format!("-n {n} create configmap x --from-literal=k=v")).fails();
    assert_eq!(
        refused,
        "error: failed to create configmap: Internal error occurred: failed calling webhook \"hook-dead.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused\n"
    );
    c.kubectl("delete validatingwebhookconfiguration hook-dead").ok();
    c.create(&hook.configuration("Validating", "hook-dead", n, &dead("Ignore"))).ok();
    c.kctl(&format!("-n {n} create configmap x --from-literal=k=v")).ok();
    c.kubectl("delete validatingwebhookconfiguration hook-dead").ok();
}

fn conditions_of_a_webhook_are_compiled_when_it_is_stored(c: &Cluster) {
    let hook = Hook::start(&c.machine, |_| json!({"allowed": true}));
    let bad = json!({"matchConditions": [{"name": "x", "expression": "object.metadata.name == nope"}]});
    let refused = c.create(&hook.configuration("Validating", "hook-condition", "default", &bad)).fails();
    assert!(refused.contains("compilation failed: ERROR: <input>:1:25: undeclared reference to 'nope' (in container '')"), "{refused}");
}

/// A policy and its binding, as one manifest.
fn policy(sort: &str, name: &str, namespace: &str, resource: (&str, &str), spec: &Value, binding: &Value) -> String {
    let (group, resource) = resource;
    let mut spec = spec.clone();
    spec["matchConstraints"] = json!({
        "resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    });
    let mut bound = binding.clone();
    bound["policyName"] = name.into();
    let of =
        |kind: &str, spec: &Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        of(&format!("{sort}AdmissionPolicy"), &spec),
        of(&format!("{sort}AdmissionPolicyBinding"), &bound),
    ]})
    .to_string()
}

fn a_policy_denies_and_warns(c: &Cluster) {
    let n = c.namespace("policy-denies");
    let spec = json!({"validations": [{"expression": "object.spec.replicas <= 3", "message": "three are enough"}]});
    c.create(&policy("Validating", "few", n, ("apps", "deployments"), &spec, &json!({"validationActions": ["Deny"]}))).ok();
    let spec = json!({"validations": [{"expression": "object.spec.replicas >= 2", "messageExpression": "'only ' + string(object.spec.replicas)"}]});
    c.create(&policy("Validating", "many", n, ("apps", "deployments"), &spec, &json!({"validationActions": ["Warn"]}))).ok();
    let create = |replicas: u32| format!("-n {n} create deployment d --image=i:1 --replicas={replicas}");
    for output in [c.kubectl(&create(4)), c.kctl(&create(4))] {
        assert_eq!(
            output.fails(),
            "error: failed to create deployment: deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' denied request: three are enough\n"
        );
    }
    let warned = c.kubectl(&create(1));
    assert_eq!(warned.stderr, "Warning: Validation failed for ValidatingAdmissionPolicy 'many' with binding 'many': only 1\n");
    warned.prints("deployment.apps/d created\n");
    c.kubectl("delete validatingadmissionpolicy,validatingadmissionpolicybinding few many").ok();
}

fn a_policy_s_types_are_checked(c: &Cluster) {
    let n = c.namespace("policy-types");
    for (name, expression) in [("types-good", "object.spec.replicas > 1"), ("types-bad", "object.spec.replica > 1")] {
        let spec = json!({"validations": [{"expression": expression}]});
        c.create(&policy("Validating", name, n, ("apps", "deployments"), &spec, &json!({"validationActions": ["Deny"]}))).ok();
    }
    let status = |name: &str, path: &str| c.path(&format!("validatingadmissionpolicy {name}"), &format!("{{.status{path}}}"));
    let warning = eventually("the bad one is warned of", || {
        let warning = status("types-bad", ".typeChecking.expressionWarnings[0].warning");
        if warning.is_empty() { Err("no warning".to_owned()) } else { Ok(warning) }
    });
    assert_eq!(warning, "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n | object.spec.replica > 1\n | ...........^\n");
    assert_eq!(status("types-bad", ".typeChecking.expressionWarnings[0].fieldRef"), "spec.validations[0].expression");
    eventually("the good one is found good", || {
        let (observed, checked) = (status("types-good", ".observedGeneration"), status("types-good", ".typeChecking"));
        if (observed.as_str(), checked.as_str()) == ("1", "{}") { Ok(()) } else { Err(format!("{observed} {checked}")) }
    });
    c.kubectl("delete validatingadmissionpolicy,validatingadmissionpolicybinding types-good types-bad").ok();
}

fn a_mutating_policy_changes_what_is_stored(c: &Cluster) {
    let n = c.namespace("policy-changes");
    let expression = "Object{metadata: Object.metadata{labels: {'policy': 'was-here'}}}";
    let spec = json!({
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    });
    c.create(&policy("Mutating", "marks", n, ("", "configmaps"), &spec, &json!({}))).ok();
    c.kubectl(&format!("-n {n} create configmap x --from-literal=k=v")).ok();
    assert_eq!(c.path(&format!("-n {n} configmap x"), "{.metadata.labels.policy}"), "was-here");
    c.kubectl("delete mutatingadmissionpolicy,mutatingadmissionpolicybinding marks").ok();
}
