//! Who may do what, and what a namespace imposes.

use tests::{Cluster, eventually};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("policy::a_user_of_one_namespace_is_kept_out_of_the_others", a_user_of_one_namespace_is_kept_out_of_the_others),
    ("policy::a_path_through_one_namespace_leads_to_no_other", a_path_through_one_namespace_leads_to_no_other),
    ("policy::an_update_that_creates_needs_the_right_to_create", an_update_that_creates_needs_the_right_to_create),
    ("policy::nobody_gets_in_without_credentials", nobody_gets_in_without_credentials),
    ("policy::limit_ranges_fill_in_and_refuse", limit_ranges_fill_in_and_refuse),
    ("policy::invalid_objects_are_refused_with_the_field", invalid_objects_are_refused_with_the_field),
    ("policy::owners_take_their_dependents_along", owners_take_their_dependents_along),
    ("policy::lost_updates_are_refused", lost_updates_are_refused),
];

fn a_user_of_one_namespace_is_kept_out_of_the_others(c: &Cluster) {
    let n = c.namespace("team-a");
    c.kctl(&format!("-n {n} create serviceaccount dev")).ok();
    c.kctl(&format!("-n {n} create rolebinding dev --clusterrole=edit --serviceaccount={n}:dev")).ok();
    let who = format!("--as=system:serviceaccount:{n}:dev");
    eventually("the binding works", || {
        let may = c.kubectl(&format!("auth can-i create deployments -n {n} {who}"));
        if may.stdout == "yes\n" { Ok(()) } else { Err(may.to_string()) }
    });
    c.kubectl(&format!("-n {n} create configmap mine {who}")).ok();
    let refused = c.kubectl(&format!("-n default get pods {who}")).fails();
    assert_eq!(
        refused,
        format!(
            "Error from server (Forbidden): pods is forbidden: User \"system:serviceaccount:{n}:dev\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"\n"
        )
    );
    c.kubectl(&format!("auth can-i get nodes {who}")).fails();
    c.kubectl(&format!("-n {n} create rolebinding up --clusterrole=cluster-admin --user=x {who}")).fails();
}

fn a_path_through_one_namespace_leads_to_no_other(c: &Cluster) {
    let (own, other) = (c.namespace("path-own"), c.namespace("path-other"));
    c.kctl(&format!("-n {own} create serviceaccount admin")).ok();
    c.kctl(&format!("-n {own} create role all --verb=* --resource=namespaces")).ok();
    c.kctl(&format!("-n {own} create rolebinding all --role=all --serviceaccount={own}:admin")).ok();
    let who = format!("--as=system:serviceaccount:{own}:admin");
    eventually("the role works", || {
        let read = c.kubectl(&format!("get --raw /api/v1/namespaces/{own} {who}"));
        if read.succeeded() { Ok(()) } else { Err(read.to_string()) }
    });
    let refused = c.kubectl(&format!("get --raw /api/v1/namespaces/{own}/namespaces/{other} {who}")).fails();
    assert!(refused.contains("the server could not find the requested resource"), "{refused}");
    c.kubectl(&format!("delete --raw /api/v1/namespaces/{own}/namespaces/{other} {who}")).fails();
    c.kubectl(&format!("get --raw /api/v1/namespaces/{own}/namespaces {who}")).fails();
    assert_eq!(c.path(&format!("namespace {other}"), "{.status.phase}"), "Active");
}

fn an_update_that_creates_needs_the_right_to_create(c: &Cluster) {
    let n = c.namespace("put-creates");
    c.kctl(&format!("-n {n} create serviceaccount writer")).ok();
    c.kctl(&format!("-n {n} create role writer --verb=get,update --resource=services")).ok();
    c.kctl(&format!("-n {n} create rolebinding writer --role=writer --serviceaccount={n}:writer")).ok();
    let service = c.file(
        "put-creates.json",
        &format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"s","namespace":"{n}"}},"spec":{{"ports":[{{"port":80}}]}}}}"#),
    );
    let put = |user: &str, part: &str| c.kubectl(&format!("replace --raw /api/v1/namespaces/{n}/services/s{part} -f {} {user}", service.display()));
    let who = format!("--as=system:serviceaccount:{n}:writer");
    eventually("the role works, and creates nothing", || {
        let refused = put(&who, "");
        if refused.stderr.contains("cannot create resource \"services\"") { Ok(()) } else { Err(refused.to_string()) }
    });
    put("", "/status").fails();
    put("", "").ok();
    put(&who, "").ok();
}

fn nobody_gets_in_without_credentials(c: &Cluster) {
    let server = c.kctl("config view --minify -o jsonpath={.clusters[0].cluster.server}").ok();
    for (path, code) in [
        ("/api/v1/namespaces", "403"),
        ("/apis", "403"),
        ("/version", "403"),
        ("/metrics", "403"),
        ("/openapi/v3", "403"),
        ("/livez", "200"),
        ("/readyz", "200"),
    ] {
        let answer = c.machine.sh(&format!("curl -sk -o /dev/null -w '%{{http_code}}' {server}{path}")).ok();
        // 401 and 403 both keep them out; upstream gives 401 with anonymous access off.
        assert!(answer == code || (code == "403" && answer == "401"), "{path}: {answer}");
    }
    let answer = c.machine.sh(&format!("curl -sk -H 'Authorization: Bearer nonsense' {server}/api/v1/pods")).ok();
    assert!(answer.contains("Unauthorized"), "{answer}");
}

fn limit_ranges_fill_in_and_refuse(c: &Cluster) {
    let n = c.namespace("limits");
    c.create("apiVersion: v1\nkind: LimitRange\nmetadata: {name: l, namespace: limits}\nspec:\n  limits:\n  - {type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}, max: {cpu: 500m}}\n").ok();
    eventually("defaults are filled in", || {
        c.kctl(&format!("-n {n} delete pod small --ignore-not-found --now")).ok();
        c.kctl(&format!("-n {n} run small --image=busybox:1")).ok();
        let request = c.path(&format!("-n {n} pod small"), "{.spec.containers[0].resources.requests.cpu}");
        if request == "100m" { Ok(()) } else { Err(request) }
    });
    let refused = c.create("apiVersion: v1\nkind: Pod\nmetadata: {name: big, namespace: limits}\nspec:\n  containers: [{name: a, image: x, resources: {limits: {cpu: '1'}}}]\n").fails();
    assert!(refused.contains("pods \"big\" is forbidden: maximum cpu usage per Container is 500m, but limit is 1"), "{refused}");
}

fn invalid_objects_are_refused_with_the_field(c: &Cluster) {
    let n = c.namespace("invalid");
    let create = |text: &str| c.pipe(tests::stock("kubectl"), &format!("-n {n} create -f -"), text).fails();
    let error = create("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: A_B, image: ''}]}\n");
    assert!(
        error.contains("The Pod \"p\" is invalid:")
            && error.contains("spec.containers[0].name: Invalid value: \"A_B\"")
            && error.contains("spec.containers[0].image: Required value"),
        "{error}"
    );
    let error = create(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: c}}, spec: {containers: [{name: x, image: x}]}}\n",
    );
    assert!(error.contains("`selector` does not match template `labels`"), "{error}");
    let error = create("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n");
    assert!(error.contains("spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive"), "{error}");
    let error = create("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: {}}\n");
    assert!(error.contains("cannot unmarshal") || error.contains("spec.containers"), "{error}");
}

fn owners_take_their_dependents_along(c: &Cluster) {
    let n = c.namespace("owners");
    c.kctl(&format!("-n {n} create deployment web --image=nginx:live")).ok();
    eventually("a pod", || {
        let pods = c.kctl(&format!("-n {n} get pods -o name")).stdout;
        if pods.is_empty() { Err("none yet".into()) } else { Ok(()) }
    });
    c.kubectl(&format!("-n {n} delete deployment web --cascade=orphan")).ok();
    assert!(c.kctl(&format!("-n {n} get replicasets -o name")).ok().contains("replicaset.apps/web-"));
    let set = c.path(&format!("-n {n} replicasets"), "{.items[0].metadata.name}");
    eventually("it is an orphan", || {
        let owners = c.path(&format!("-n {n} replicaset {set}"), "{.metadata.ownerReferences}");
        if owners.is_empty() { Ok(()) } else { Err(owners) }
    });
    c.kubectl(&format!("-n {n} delete replicaset {set} --cascade=foreground")).ok();
    eventually("the pods are gone too", || {
        let pods = c.kctl(&format!("-n {n} get pods -o name")).stdout;
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}

fn lost_updates_are_refused(c: &Cluster) {
    let n = c.namespace("conflicts");
    c.kctl(&format!("-n {n} create configmap shared")).ok();
    let old = c.kctl(&format!("-n {n} get configmap shared -o json")).ok();
    c.kctl(&format!("-n {n} label configmap shared a=b")).ok();
    let refused = c.pipe(tests::stock("kubectl"), &format!("-n {n} replace -f -"), &old).fails();
    assert!(refused.contains("Operation cannot be fulfilled on configmaps \"shared\": the object has been modified; please apply your changes to the latest version and try again"), "{refused}");
}
