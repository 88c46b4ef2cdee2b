use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::*;

fn rule(json: Value) -> PolicyRule {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_rule_allows_exactly_what_it_says() {
    let pods = |verbs: Value| rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs}));
    let get = |resource, subresource, name| Access { verb: "get", resource, subresource, name, namespace: "ns", ..Access::default() };
    let path = |path| Access { verb: "get", path, ..Access::default() };
    for (rule, access, allowed) in [
        (pods(json!(["get"])), get("pods", "", "x"), true),
        (pods(json!(["list"])), get("pods", "", "x"), false),
        (pods(json!(["*"])), get("pods", "", "x"), true),
        (pods(json!(["get"])), get("pods", "log", "x"), false),
        (pods(json!(["get"])), get("secrets", "", "x"), false),
        (pods(json!(["get"])), Access { group: "apps", ..get("pods", "", "x") }, false),
        (rule(json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})), get("pods", "log", "x"), true),
        (rule(json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})), get("pods", "", "x"), false),
        (
            rule(json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["get"]})),
            Access { group: "apps", ..get("deployments", "scale", "x") },
            true,
        ),
        (
            rule(json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["get"]})),
            Access { group: "apps", ..get("deployments", "", "x") },
            false,
        ),
        (rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]})), get("pods", "exec", "x"), true),
        (rule(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"]})), get("pods", "", "x"), true),
        (rule(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"]})), get("pods", "", "y"), false),
        (rule(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"]})), get("pods", "", ""), false),
        (rule(json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]})), path("/healthz"), true),
        (rule(json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]})), path("/healthz/etcd"), false),
        (rule(json!({"nonResourceURLs": ["/healthz/*"], "verbs": ["get"]})), path("/healthz/etcd"), true),
        (rule(json!({"nonResourceURLs": ["*"], "verbs": ["get"]})), path("/anything"), true),
        (rule(json!({"nonResourceURLs": ["*"], "verbs": ["*"]})), get("pods", "", "x"), false),
        (rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})), path("/metrics"), false),
    ] {
        assert_eq!(rules::allows(&rule, &access), allowed, "{rule:?} {access:?}");
    }
}

#[test]
fn missing_rights_are_found_piece_by_piece_and_printed_compactly() {
    let held = [
        rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]})),
        rule(json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]})),
        rule(json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]})),
        rule(json!({"nonResourceURLs": ["/apis/*"], "verbs": ["get"]})),
    ];
    for (wanted, missing) in [
        (json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}), ""),
        (json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["list"]}), ""),
        (json!({"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["update"]}), ""),
        (json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]}), ""),
        (json!({"nonResourceURLs": ["/apis/apps", "/apis/*"], "verbs": ["get"]}), ""),
        (json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}), "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"),
        (json!({"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}), "{APIGroups:[\"*\"], Resources:[\"pods\"], Verbs:[\"get\"]}"),
        (json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}), "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"*\"]}"),
        (json!({"nonResourceURLs": ["/api"], "verbs": ["get"]}), "{NonResourceURLs:[\"/api\"], Verbs:[\"get\"]}"),
        (
            json!({"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "delete", "create"]}),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}\n{APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\" \"create\"]}",
        ),
    ] {
        assert_eq!(rules::describe_missing(rules::missing(&held, &[rule(wanted.clone())])), missing, "{wanted}");
    }
}

/// An authorizer fed with objects as the cache would feed it.
struct World(Authorizer);

impl World {
    fn new() -> Self {
        World(Authorizer::new())
    }

    fn change(&self, json: &Value, deleted: bool) -> &Self {
        let (group, kind) = json["apiVersion"].as_str().unwrap().rsplit_once('/').map_or(("", ""), |(g, _)| (g, ""));
        let kind = if kind.is_empty() { json["kind"].as_str().unwrap() } else { kind };
        let resource = RESOURCES.iter().find(|r| r.group == group && r.kind == kind).unwrap();
        let entry = Entry::parse(resource, &serde_json::to_vec(json).unwrap(), 1).unwrap();
        self.0.observe(resource, &Event::new(Arc::new(entry), None, deleted));
        self
    }

    fn role(&self, namespace: &str, name: &str, rules: Value) -> &Self {
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        self.change(
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}, "rules": rules}),
            false,
        )
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
        let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": [subject]})
    }

    fn may(&self, user: &User, verb: &str, resource: &str, namespace: &str) -> bool {
        self.0.authorize(user, &Access::resource(verb, "", resource, namespace, "x")).allowed
    }
}

#[test]
fn a_user_bound_in_one_namespace_can_use_only_that_one() {
    let world = World::new();
    world.role("", "edit", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "create"]}]));
    world.role("a", "own", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]));
    let ann = json!({"kind": "User", "name": "ann"});
    let edit = World::binding("a", "ann-edit", ("ClusterRole", "edit"), ann.clone());
    world.change(&edit, false);
    world.change(&World::binding("a", "ann-own", ("Role", "own"), ann.clone()), false);
    world.change(&World::binding("b", "wrong", ("Role", "own"), ann), false);
    let robot = json!({"kind": "ServiceAccount", "name": "robot"});
    world.change(&World::binding("a", "robot", ("ClusterRole", "edit"), robot), false);
    world.change(&World::binding("", "staff", ("ClusterRole", "edit"), json!({"kind": "Group", "name": "staff"})), false);
    let (ann, staff) = (User::new("ann", &[]), User::new("bob", &["staff"]));
    let (robot, other) = (User::new("system:serviceaccount:a:robot", &[]), User::new("system:serviceaccount:b:robot", &[]));
    for (user, resource, namespace, allowed) in [
        (&ann, "pods", "a", true),
        (&ann, "pods", "b", false),
        (&ann, "pods", "", false),
        (&ann, "configmaps", "a", true),
        (&ann, "configmaps", "b", false),
        (&ann, "secrets", "a", false),
        (&robot, "pods", "a", true),
        (&other, "pods", "a", false),
        (&staff, "pods", "a", true),
        (&staff, "pods", "", true),
        (&User::new("root", &["system:masters"]), "secrets", "", true),
        (&User::anonymous(), "pods", "a", false),
    ] {
        assert_eq!(world.may(user, "get", resource, namespace), allowed, "{} {resource} in {namespace:?}", user.name);
    }
    let access = Access::resource("get", "", "pods", "a", "x");
    assert_eq!(world.0.authorize(&ann, &access).reason, "RBAC: allowed by RoleBinding \"ann-edit/a\" of ClusterRole \"edit\" to User \"ann\"");
    let denied = Access::resource("get", "", "configmaps", "b", "x");
    let error = world.0.require(&ann, &denied).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configmaps \"x\" is forbidden: User \"ann\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"b\": RBAC: role.rbac.authorization.k8s.io \"own\" not found"
    );
    assert_eq!(world.0.rules_for(&ann, "a").resource_rules.len(), 2);
    world.change(&edit, true);
    assert!(!world.may(&ann, "get", "pods", "a"), "a deleted binding gives nothing");
    world.role("", "edit", json!([]));
    assert!(!world.may(&staff, "get", "pods", "a"), "nor does an emptied role");
}

#[test]
fn an_object_that_cannot_be_decoded_leaves_no_rights_in_force() {
    let world = World::new();
    world.role("", "edit", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
    world.change(&World::binding("", "b", ("ClusterRole", "edit"), json!({"kind": "User", "name": "ann"})), false);
    assert!(world.may(&User::new("ann", &[]), "get", "pods", "a"));
    world.role("", "edit", json!("garbage"));
    assert!(!world.may(&User::new("ann", &[]), "get", "pods", "a"));
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let user = User::new("ann", &[]);
    for (access, text) in [
        (
            Access::resource("list", "", "nodes", "", ""),
            "nodes is forbidden: User \"ann\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            Access { subresource: "log", ..Access::resource("get", "", "pods", "ns", "p") },
            "pods \"p\" is forbidden: User \"ann\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"ns\"",
        ),
        (
            Access::resource("create", "apps", "deployments", "ns", ""),
            "deployments.apps is forbidden: User \"ann\" cannot create resource \"deployments\" in API group \"apps\" in the namespace \"ns\"",
        ),
        (Access { verb: "get", path: "/metrics", ..Access::default() }, "forbidden: User \"ann\" cannot get path \"/metrics\""),
    ] {
        assert_eq!(forbidden(&user, &access, "").to_string(), text);
    }
}

#[test]
fn a_kubelet_reads_only_what_its_pods_use() {
    let world = World::new();
    let pod = |name: &str, node: &str, extra: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "ns", "name": name}, "spec": {
            "nodeName": node, "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "volumes": [{"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}]}}, {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]
        }});
        pod["metadata"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        pod
    };
    let mine = pod("mine", "n1", json!({}));
    world.change(&mine, false);
    world.change(&pod("mirror", "n2", json!({"annotations": {"kubernetes.io/config.mirror": "x"}})), false);
    world.change(
        &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
            "claimRef": {"namespace": "ns", "name": "claim"}, "csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"namespace": "csi", "name": "publish"}}}}),
        false,
    );
    let (n1, n2) = (User::new("system:node:n1", &["system:nodes"]), User::new("system:node:n2", &["system:nodes"]));
    let impostor = User::new("system:node:n1", &[]);
    let access =
        |verb, group, resource, subresource, namespace, name| Access { verb, group, resource, subresource, namespace, name, ..Access::default() };
    for (access, first) in [
        (access("get", "", "secrets", "", "ns", "env"), true),
        (access("get", "", "secrets", "", "ns", "pull"), true),
        (access("watch", "", "secrets", "", "ns", "projected"), true),
        (access("get", "", "configmaps", "", "ns", "all"), true),
        (access("get", "", "secrets", "", "csi", "publish"), true),
        (access("get", "", "persistentvolumeclaims", "", "ns", "claim"), true),
        (access("get", "", "persistentvolumes", "", "", "pv"), true),
        (access("create", "", "serviceaccounts", "token", "ns", "sa"), true),
        (access("get", "", "pods", "", "ns", "mine"), true),
        (access("get", "", "nodes", "", "", "n1"), true),
        (access("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1"), true),
        (access("get", "", "secrets", "", "ns", "other"), false),
        (access("list", "", "secrets", "", "ns", ""), false),
        (access("update", "", "secrets", "", "ns", "env"), false),
        (access("get", "", "secrets", "", "other", "env"), false),
        (access("update", "coordination.k8s.io", "leases", "", "kube-system", "n1"), false),
        (access("list", "", "pods", "", "", ""), false),
        (access("delete", "", "nodes", "", "", "n1"), false),
    ] {
        assert_eq!(world.0.authorize(&n1, &access).allowed, first, "{access:?}");
        assert!(!world.0.authorize(&n2, &access).allowed, "a mirror pod gives nothing: {access:?}");
        assert!(!world.0.authorize(&impostor, &access).allowed, "{access:?}");
    }
    let own = Access { field_selector: "spec.nodeName=n1", ..Access::resource("watch", "", "pods", "", "") };
    assert!(world.0.authorize(&n1, &own).allowed && !world.0.authorize(&n2, &own).allowed);
    assert!(world.0.authorize(&n1, &Access::resource("watch", "", "services", "", "")).allowed);
    world.change(&mine, true);
    assert!(!world.may(&n1, "get", "secrets", "ns"));
    assert!(!world.0.authorize(&n1, &access("get", "", "secrets", "", "ns", "env")).allowed, "the pod is gone");
    assert!(!world.0.authorize(&n1, &access("get", "", "secrets", "", "csi", "publish")).allowed);
}

#[test]
fn field_selectors_pin_names_and_nodes_only_by_equality() {
    for (selector, field, value) in [
        ("metadata.name=x", "metadata.name", Some("x")),
        ("a=b, metadata.name==x", "metadata.name", Some("x")),
        ("metadata.name!=x", "metadata.name", None),
        ("spec.nodeName=n1", "spec.nodeName", Some("n1")),
        ("", "metadata.name", None),
    ] {
        assert_eq!(equality(selector, field), value, "{selector}");
    }
}
