//! Kinds that users define: from the definition to the last object, with both clients.

use tests::{Cluster, eventually, stock};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("extensions::a_defined_kind_is_used_like_any_other", a_defined_kind_is_used_like_any_other),
    ("extensions::objects_are_held_to_their_schema", objects_are_held_to_their_schema),
    ("extensions::defaults_and_versions_reach_what_is_stored_already", defaults_and_versions_reach_what_is_stored_already),
    ("extensions::a_definition_takes_its_objects_along", a_definition_takes_its_objects_along),
];

/// A definition of CronTabs in a group of their own; `more` goes into the properties of the spec.
fn crontabs(group: &str, more: &str) -> String {
    format!(
        r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: crontabs.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct{short}]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {{name: Spec, type: string, jsonPath: .spec.cronSpec}}
    - {{name: Replicas, type: integer, jsonPath: .spec.replicas}}
    - {{name: Age, type: date, jsonPath: .metadata.creationTimestamp}}
    schema:
      openAPIV3Schema:
        type: object
        description: CronTab runs something again and again.
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {{type: string, pattern: '^(\S+ ){{4}}\S+$', description: When it runs.}}
              replicas: {{type: integer, minimum: 1, maximum: 10, default: 1}}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {{name: {{type: string}}, port: {{type: integer}}}}
{more}
          status:
            type: object
            properties: {{replicas: {{type: integer}}}}
"#,
        short = group.split('.').next().unwrap_or_default()
    )
}

fn crontab(group: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// Creates a definition and waits until its kind is served.
fn define(c: &Cluster, group: &str, more: &str) {
    c.pipe(stock("kubectl"), "create -f -", &crontabs(group, more)).ok();
    c.kubectl(&format!("wait --for=condition=established --timeout=30s crd/crontabs.{group}")).ok();
}

fn create(c: &Cluster, namespace: &str, manifest: &str) -> tests::Output {
    c.pipe(stock("kubectl"), &format!("-n {namespace} create -f -"), manifest)
}

fn a_defined_kind_is_used_like_any_other(c: &Cluster) {
    let (n, group) = (c.namespace("defined"), "use.example.com");
    define(c, group, "");
    create(c, n, &crontab(group, "nightly", r#"{cronSpec: "0 0 * * *", ports: [{name: a, port: 1}]}"#))
        .prints("crontab.use.example.com/nightly created\n");
    for output in c.both(&format!("-n {n} get ctuse --no-headers")) {
        let line = output.ok();
        assert!(line.split_whitespace().take(7).eq(["nightly", "0", "0", "*", "*", "*", "1"]), "{line}");
    }
    c.kubectl(&format!("-n {n} scale crontabs.use.example.com nightly --replicas=3")).prints("crontab.use.example.com/nightly scaled\n");
    assert_eq!(c.path(&format!("-n {n} crontabs.use.example.com nightly"), "{.spec.replicas} {.metadata.generation}"), "3 2");
    c.kctl(&format!("-n {n} label crontabs.use.example.com nightly tier=db")).ok();
    c.kctl(&format!("-n {n} get crontabs.use.example.com -l tier=db -o name")).prints("crontab.use.example.com/nightly\n");
    c.kubectl(&format!("-n {n} patch crontabs.use.example.com nightly --subresource=status --type=merge -p '{{\"status\":{{\"replicas\":2}},\"spec\":{{\"replicas\":9}}}}'")).ok();
    assert_eq!(c.path(&format!("-n {n} crontabs.use.example.com nightly"), "{.spec.replicas} {.status.replicas} {.metadata.generation}"), "3 2 2");
    // Two appliers each own an item of the list.
    let ports = |port: &str| crontab(group, "nightly", &format!(r#"{{cronSpec: "0 0 * * *", ports: [{{name: {port}, port: 7}}]}}"#));
    for (manager, port) in [("one", "b"), ("two", "c")] {
        c.pipe(stock("kubectl"), &format!("-n {n} apply --server-side --force-conflicts --field-manager={manager} -f -"), &ports(port)).ok();
    }
    assert_eq!(c.path(&format!("-n {n} crontabs.use.example.com nightly"), "{.spec.ports[*].name}"), "a b c");
    for output in c.both("explain crontabs.spec.cronSpec --api-version=use.example.com/v1") {
        output.contains("When it runs.");
    }
    c.kubectl("api-resources --api-group=use.example.com -o name").prints("crontabs.use.example.com\n");
    c.kubectl(&format!("-n {n} patch crontabs.use.example.com nightly -p '{{}}'")).fails();
    c.kubectl(&format!("-n {n} delete crontabs.use.example.com nightly")).ok();
}

fn objects_are_held_to_their_schema(c: &Cluster) {
    let (n, group) = (c.namespace("schema"), "check.example.com");
    let rules = r#"              min: {type: integer}
            x-kubernetes-validations:
            - {rule: "!has(self.min) || self.min <= self.replicas", message: min must not be above replicas}
            - {rule: "self.cronSpec == oldSelf.cronSpec", messageExpression: "'cronSpec was ' + oldSelf.cronSpec"}"#;
    define(c, group, rules);
    for (spec, text) in [
        (r#"{cronSpec: "x"}"#, r#"spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\S+ ){4}\S+$'"#),
        (r#"{cronSpec: "* * * * *", replicas: 11}"#, "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"),
        ("{replicas: 1}", "spec.cronSpec: Required value"),
        (r#"{cronSpec: "* * * * *", min: 5}"#, r#"spec: Invalid value: "object": min must not be above replicas"#),
    ] {
        let refused = create(c, n, &crontab(group, "bad", spec)).fails();
        assert!(refused.contains(text), "{refused}");
    }
    let unknown = create(c, n, &crontab(group, "bad", r#"{cronSpec: "* * * * *", odd: 1}"#)).fails();
    assert!(unknown.contains(r#"strict decoding error: unknown field "spec.odd""#), "{unknown}");
    c.pipe(stock("kubectl"), &format!("-n {n} create --validate=ignore -f -"), &crontab(group, "good", r#"{cronSpec: "* * * * *", odd: 1}"#)).ok();
    assert_eq!(
        c.path(&format!("-n {n} crontabs.check.example.com good"), "{.spec.odd}{.spec.replicas}"),
        "1",
        "unknown fields are dropped, defaults filled in"
    );
    let changed =
        c.kubectl(&format!("-n {n} patch crontabs.check.example.com good --type=merge -p '{{\"spec\":{{\"cronSpec\":\"1 * * * *\"}}}}'")).fails();
    assert!(changed.contains("cronSpec was * * * * *"), "{changed}");
    let refused = c.pipe(stock("kubectl"), "create -f -", &crontabs("wrong.example.com", "              any: {}")).fails();
    assert!(refused.contains("properties[any].type: Required value: must not be empty for specified object fields"), "{refused}");
}

fn defaults_and_versions_reach_what_is_stored_already(c: &Cluster) {
    let (n, group) = (c.namespace("versions"), "versions.example.com");
    define(c, group, "");
    create(c, n, &crontab(group, "old", r#"{cronSpec: "* * * * *"}"#)).ok();
    let crd = format!("crd crontabs.{group}");
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/image";
    c.kubectl(&format!(
        "patch {crd} --type=json -p '[{{\"op\":\"add\",\"path\":\"{path}\",\"value\":{{\"type\":\"string\",\"default\":\"busybox\"}}}}]'"
    ))
    .ok();
    eventually("the new default is shown", || {
        let image = c.path(&format!("-n {n} crontabs.{group} old"), "{.spec.image}");
        if image == "busybox" { Ok(()) } else { Err(image) }
    });
    let add = r#"[{"op":"copy","from":"/spec/versions/0","path":"/spec/versions/1"},{"op":"replace","path":"/spec/versions/1/name","value":"v2"},{"op":"replace","path":"/spec/versions/0/storage","value":false}]"#;
    c.kubectl(&format!("patch {crd} --type=json -p '{add}'")).ok();
    eventually("the old object is served in the new version", || {
        let got = c.kubectl(&format!("get --raw /apis/{group}/v2/namespaces/{n}/crontabs/old"));
        if got.stdout.contains("\"versions.example.com/v2\"") { Ok(()) } else { Err(got.to_string()) }
    });
    assert_eq!(c.path(&crd, "{.status.storedVersions}"), r#"["v1","v2"]"#);
    c.kubectl(&format!("get --raw /apis/{group}/v1/namespaces/{n}/crontabs/old")).contains("\"versions.example.com/v1\"");
}

fn a_definition_takes_its_objects_along(c: &Cluster) {
    let (n, group) = (c.namespace("taken"), "taken.example.com");
    define(c, group, "");
    for name in ["a", "b"] {
        create(c, n, &crontab(group, name, r#"{cronSpec: "* * * * *"}"#)).ok();
    }
    let hold =
        |finalizers: &str| c.kubectl(&format!("-n {n} patch crontabs.{group} a --type=merge -p '{{\"metadata\":{{\"finalizers\":{finalizers}}}}}'"));
    hold("[\"example.com/hold\"]").ok();
    c.kubectl(&format!("delete crd crontabs.{group} --wait=false")).ok();
    eventually("the object that nothing holds is gone", || {
        let left = c.kubectl(&format!("-n {n} get crontabs.{group} -o name"));
        if left.stdout == format!("crontab.{group}/a\n") { Ok(()) } else { Err(left.to_string()) }
    });
    let refused = create(c, n, &crontab(group, "late", r#"{cronSpec: "* * * * *"}"#)).fails();
    assert!(refused.contains("create not allowed while custom resource definition is terminating"), "{refused}");
    hold("null").ok();
    c.kubectl(&format!("wait --for=delete crd/crontabs.{group} --timeout=30s")).ok();
    c.kubectl(&format!("get --raw /apis/{group}/v1/namespaces/{n}/crontabs")).fails();
}
