//! What stock clients see of the API beyond the everyday: server-side apply, who owns which field, and requests that make no sense.

use serde_json::{Value, json};
use tests::{Cluster, eventually, stock};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("api::server_side_apply_shares_an_object_among_managers", server_side_apply_shares_an_object_among_managers),
    ("api::client_side_apply_migrates_to_server_side_apply", client_side_apply_migrates_to_server_side_apply),
    ("api::every_writer_is_named_as_the_manager_of_its_fields", every_writer_is_named_as_the_manager_of_its_fields),
    ("api::a_configuration_that_does_not_fit_is_refused", a_configuration_that_does_not_fit_is_refused),
    ("api::helm_manages_a_release_with_server_side_apply", helm_manages_a_release_with_server_side_apply),
    ("api::kubectl_debugs_a_running_pod", kubectl_debugs_a_running_pod),
    ("api::an_approved_certificate_request_is_signed", an_approved_certificate_request_is_signed),
    ("api::events_are_served_in_both_their_groups", events_are_served_in_both_their_groups),
    ("api::bodies_beyond_the_limit_are_refused_with_an_answer", bodies_beyond_the_limit_are_refused_with_an_answer),
    ("api::a_large_list_is_whole_in_every_form_and_for_every_client", a_large_list_is_whole_in_every_form_and_for_every_client),
    ("api::requests_that_make_no_sense_get_upstreams_answer", requests_that_make_no_sense_get_upstreams_answer),
];

fn manifest(replicas: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {{app: web}}}}\nspec:\n  {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      nodeSelector: {{no: such}}\n      containers:\n      - {{name: main, image: '{image}', ports: [{{containerPort: 80}}]}}\n"
    )
}

fn kubectl(c: &Cluster, namespace: &str, line: &str, input: &str) -> tests::Output {
    c.pipe(stock("kubectl"), &format!("-n {namespace} {line}"), input)
}

/// The object's entries as (manager, operation, subresource, fields).
fn managers(c: &Cluster, namespace: &str, resource: &str) -> Vec<(String, String, String, Value)> {
    let json = c.kubectl(&format!("-n {namespace} get {resource} -o json --show-managed-fields")).ok();
    let object: Value = serde_json::from_str(&json).expect("kubectl prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| (text(&e["manager"]), text(&e["operation"]), text(&e["subresource"]), e["fieldsV1"].clone())).collect()
}

fn fields(c: &Cluster, namespace: &str, resource: &str, manager: &str) -> Value {
    managers(c, namespace, resource).into_iter().find(|(name, ..)| name == manager).map(|(.., fields)| fields).unwrap_or_default()
}

fn server_side_apply_shares_an_object_among_managers(c: &Cluster) {
    let n = c.namespace("ssa");
    let apply = |flags: &str, input: &str| kubectl(c, n, &format!("apply --server-side {flags} -f -"), input);
    apply("", &manifest("replicas: 1", "nginx:live")).prints("deployment.apps/web serverside-applied\n");
    let expected = json!({
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:nodeSelector": {},
                    "f:containers": {"k:{\"name\":\"main\"}": {
                        ".": {}, "f:image": {}, "f:name": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                },
            },
        },
    });
    assert_eq!(fields(c, n, "deployment web", "kubectl"), expected);
    // Others may say the same, but not something else.
    let one = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3, paused: true}\n";
    let refused = apply("--field-manager=scaler", one).fails();
    assert!(refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"), "{refused}");
    apply("--field-manager=scaler --force-conflicts", one).prints("deployment.apps/web serverside-applied\n");
    assert_eq!(fields(c, n, "deployment web", "scaler"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    let refused = apply("", &manifest("replicas: 1", "nginx:live")).fails();
    assert!(refused.contains("conflict with \"scaler\": .spec.replicas"), "{refused}");
    // What a manager stops to apply goes, unless somebody else has it.
    apply("", &manifest("minReadySeconds: 1", "nginx:live")).prints("deployment.apps/web serverside-applied\n");
    assert_eq!(c.path(&format!("-n {n} deployment web"), "{.spec.replicas} {.spec.minReadySeconds}"), "3 1");
    apply("", &manifest("revisionHistoryLimit: 3", "guestbook:v1")).prints("deployment.apps/web serverside-applied\n");
    assert_eq!(c.path(&format!("-n {n} deployment web"), "{.spec.minReadySeconds} {.spec.revisionHistoryLimit}"), " 3");
    apply("--field-manager=scaler", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n")
        .prints("deployment.apps/web serverside-applied\n");
    assert_eq!(c.path(&format!("-n {n} deployment web"), "{.spec.replicas} {.spec.paused}"), "1 ", "the default is back");
    // Nothing changes, nothing is written.
    let version = || c.path(&format!("-n {n} deployment web"), "{.metadata.resourceVersion}");
    let before = eventually("the controllers are done", || {
        let (first, second) = (version(), version());
        let observed = c.path(&format!("-n {n} deployment web"), "{.metadata.generation} {.status.observedGeneration}");
        let same = observed.split_once(' ').is_some_and(|(a, b)| a == b);
        if first == second && same { Ok(first) } else { Err(observed) }
    });
    apply("", &manifest("revisionHistoryLimit: 3", "guestbook:v1")).prints("deployment.apps/web serverside-applied\n");
    assert_eq!(version(), before);
    apply("--dry-run=server --force-conflicts", &manifest("replicas: 9", "nginx:live"))
        .prints("deployment.apps/web serverside-applied (server dry run)\n");
    assert_eq!(version(), before);
}

fn client_side_apply_migrates_to_server_side_apply(c: &Cluster) {
    let n = c.namespace("migrated");
    let map = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{{data}}}\n");
    kubectl(c, n, "apply -f -", &map("a: '1', b: '1'")).prints("configmap/m created\n");
    assert_eq!(fields(c, n, "configmap m", "kubectl-client-side-apply")["f:data"], json!({".": {}, "f:a": {}, "f:b": {}}));
    kubectl(c, n, "apply --server-side -f -", &map("a: '2'")).prints("configmap/m serverside-applied\n");
    assert_eq!(c.path(&format!("-n {n} configmap m"), "{.data}"), "{\"a\":\"2\"}");
    // kubectl keeps its annotation under a name of its own.
    let mut names: Vec<String> = managers(c, n, "configmap m").into_iter().map(|(name, operation, ..)| format!("{name} {operation}")).collect();
    names.sort();
    assert_eq!(names, ["kubectl Apply", "kubectl-last-applied Apply"]);
    // And back.
    kubectl(c, n, "apply -f -", &map("a: '3', c: '1'")).prints("configmap/m configured\n");
    assert_eq!(c.path(&format!("-n {n} configmap m"), "{.data}"), "{\"a\":\"3\",\"c\":\"1\"}");
}

fn every_writer_is_named_as_the_manager_of_its_fields(c: &Cluster) {
    let n = c.namespace("managers");
    kubectl(c, n, "create deployment web --image=nginx:live", "").ok();
    assert_eq!(
        fields(c, n, "deployment web", "kubectl-create")["f:spec"]["f:strategy"],
        json!({"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}})
    );
    kubectl(c, n, "scale deployment web --replicas=2", "").ok();
    kubectl(c, n, "label deployment web tier=a", "").ok();
    kubectl(c, n, "patch deployment web -p '{\"spec\":{\"minReadySeconds\":1}}'", "").ok();
    kubectl(c, n, "rollout status deployment web --timeout=90s", "").ok();
    let found = managers(c, n, "deployment web");
    let owns = |name: &str, operation: &str, subresource: &str, path: &str| {
        let entry =
            found.iter().find(|(m, o, s, f)| (m.as_str(), o.as_str(), s.as_str()) == (name, operation, subresource) && f.pointer(path).is_some());
        assert!(entry.is_some(), "{name} {operation} {subresource} {path} is not among {found:#?}");
    };
    owns("kubectl", "Update", "scale", "/f:spec/f:replicas");
    owns("kubectl-label", "Update", "", "/f:metadata/f:labels/f:tier");
    owns("kubectl-patch", "Update", "", "/f:spec/f:minReadySeconds");
    owns("kube-controller-manager", "Update", "status", "/f:status/f:readyReplicas");
    let pod = c.kubectl(&format!("-n {n} get pods -o name")).ok().lines().next().expect("a pod").to_owned();
    let found = managers(c, n, &pod);
    assert!(found.iter().any(|(m, _, s, f)| m == "kubelet" && s == "status" && f.pointer("/f:status/f:conditions").is_some()), "{found:#?}");
    assert!(
        found.iter().any(|(m, _, s, f)| m == "kube-controller-manager" && s.is_empty() && f.pointer("/f:spec/f:containers").is_some()),
        "{found:#?}"
    );
    assert!(found.iter().all(|(.., f)| f.pointer("/f:spec/f:volumes").is_none()), "what admission adds is nobody's: {found:#?}");
}

fn a_configuration_that_does_not_fit_is_refused(c: &Cluster) {
    let n = c.namespace("unfit");
    let apply = |input: &str| kubectl(c, n, "apply --server-side --validate=false -f -", input).fails();
    let unknown = apply(&manifest("replicsa: 1", "x").replace("image:", "imgae: x, image:"));
    for part in ["failed to create typed patch object (unfit/web; apps/v1, Kind=Deployment): errors:", ".spec.replicsa: field not declared in schema"]
    {
        assert!(unknown.contains(part), "{part:?} is missing from {unknown}");
    }
    assert!(unknown.contains(".spec.template.spec.containers[name=\"main\"].imgae: field not declared in schema"), "{unknown}");
    let twice = apply(&format!("{}      - {{name: main, image: y}}\n", manifest("replicas: 1", "x")));
    assert!(twice.contains(".spec.template.spec.containers: duplicate entries for key [name=\"main\"]"), "{twice}");
    let invalid = apply(&manifest("replicas: -1", "x"));
    assert!(invalid.contains("The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1"), "{invalid}");
}

fn helm_manages_a_release_with_server_side_apply(c: &Cluster) {
    let n = c.namespace("helmssa");
    let chart = c.file("unused", "").with_file_name("chart-ssa");
    std::fs::create_dir_all(chart.join("templates")).expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(chart.join(name), text).expect("a file");
    write("Chart.yaml", "apiVersion: v2\nname: small\nversion: 0.1.0\n");
    write("values.yaml", "greeting: hello\nextra: true\n");
    write(
        "templates/cm.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-cm\ndata:\n  greeting: {{ .Values.greeting | quote }}\n  {{- if .Values.extra }}\n  extra: given\n  {{- end }}\n",
    );
    write(
        "templates/test.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-test\n  annotations: {helm.sh/hook: test}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: t, image: 'busybox:1', command: ['true']}\n",
    );
    let helm = |line: &str| c.pipe(stock("helm"), &format!("-n {n} {line}"), "");
    let data = || c.path(&format!("-n {n} configmap rel-cm"), "{.data}");
    helm(&format!("install rel {}", chart.display())).contains("STATUS: deployed");
    assert_eq!(fields(c, n, "configmap rel-cm", "helm")["f:data"], json!({"f:extra": {}, "f:greeting": {}}));
    helm("test rel").contains("Phase:          Succeeded");
    helm(&format!("upgrade rel {} --set greeting=bye,extra=false", chart.display())).contains("REVISION: 2");
    assert_eq!(data(), "{\"greeting\":\"bye\"}");
    // A change by hand is a conflict, which is resolved on demand.
    c.kubectl(&format!("-n {n} patch configmap rel-cm -p '{{\"data\":{{\"greeting\":\"mine\"}}}}'")).ok();
    let refused = helm(&format!("upgrade rel {} --set greeting=theirs", chart.display())).fails();
    assert!(refused.contains("conflict with \"kubectl-patch\" using v1: .data.greeting"), "{refused}");
    helm(&format!("upgrade rel {} --set greeting=theirs --force-conflicts", chart.display())).contains("STATUS: deployed");
    assert_eq!(data(), "{\"extra\":\"given\",\"greeting\":\"theirs\"}");
    helm("rollback rel 1").contains("Rollback was a success");
    assert_eq!(data(), "{\"extra\":\"given\",\"greeting\":\"hello\"}");
    helm("uninstall rel").contains("uninstalled");
    c.kubectl(&format!("-n {n} get configmap rel-cm")).fails();
}

fn kubectl_debugs_a_running_pod(c: &Cluster) {
    let n = c.namespace("debugged");
    kubectl(c, n, "run p --image=busybox:1 -- sleep 1d", "").ok();
    kubectl(c, n, "wait --for=condition=Ready pod/p --timeout=90s", "").ok();
    kubectl(c, n, "debug p --image=busybox:1 --target=p --container=look -- sh -c 'echo seen; sleep 1d'", "").ok();
    eventually("the debug container has spoken", || {
        let log = kubectl(c, n, "logs p -c look", "");
        if log.stdout == "seen\n" { Ok(()) } else { Err(log.to_string()) }
    });
    assert_eq!(c.path(&format!("-n {n} pod p"), "{.spec.ephemeralContainers[*].imagePullPolicy}"), "IfNotPresent");
}

fn an_approved_certificate_request_is_signed(c: &Cluster) {
    let request = c
        .machine
        .sh("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=joe 2>/dev/null | base64 -w0")
        .ok();
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: joe}}\nspec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], username: somebody-else}}\n"
    );
    c.pipe(stock("kubectl"), "create -f -", &manifest).prints("certificatesigningrequest.certificates.k8s.io/joe created\n");
    assert_eq!(c.path("csr joe", "{.spec.username}"), "kubernetes-admin");
    c.kubectl("certificate approve joe").contains("approved");
    eventually("the certificate is issued", || {
        let shown = c.kubectl("get csr joe");
        if shown.stdout.contains("Approved,Issued") { Ok(()) } else { Err(shown.to_string()) }
    });
    let certificate = c.kubectl("get csr joe -o 'go-template={{.status.certificate | base64decode}}'").ok();
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    c.kubectl("delete csr joe").ok();
}

fn events_are_served_in_both_their_groups(c: &Cluster) {
    let n = c.namespace("events");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": n}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/test", "reportingInstance": "test-1", "action": "Testing", "reason": "Tested", "type": "Normal",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "namespace": n}, "note": "it works",
    });
    kubectl(c, n, "create -f -", &event.to_string()).prints("event.events.k8s.io/e created\n");
    assert_eq!(c.path(&format!("-n {n} events e"), "{.message} {.involvedObject.name} {.reportingComponent}"), "it works m example.com/test");
    let served = "{.note} {.regarding.name} {.reportingController} {.apiVersion}";
    let get = |resource: &str| kubectl(c, n, &format!("get {resource} -o 'jsonpath={served}'"), "").ok();
    assert_eq!(get("events.events.k8s.io e"), "it works m example.com/test events.k8s.io/v1");
    kubectl(c, n, "patch events.events.k8s.io e --type=merge -p '{\"note\":\"it still works\"}'", "").ok();
    kubectl(c, n, "patch events.events.k8s.io e --type=json -p '[{\"op\":\"replace\",\"path\":\"/regarding/fieldPath\",\"value\":\"data\"}]'", "")
        .fails();
    let listed = kubectl(c, n, "get events.events.k8s.io --field-selector regarding.name=m -o 'jsonpath={.items[*].note}'", "");
    listed.prints("it still works");
    kubectl(c, n, "get events", "").contains("it still works");
    let watched = c.kubectl(&format!("get --raw '/apis/events.k8s.io/v1/namespaces/{n}/events?watch=true&timeoutSeconds=1'")).ok();
    assert!(watched.contains("\"note\":\"it still works\"") && watched.contains("events.k8s.io/v1"), "{watched}");
    kubectl(c, n, "delete events.events.k8s.io e", "").ok();
}

fn bodies_beyond_the_limit_are_refused_with_an_answer(c: &Cluster) {
    let n = c.namespace("big");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(3_300_000)}});
    let file = c.file("big.json", &object.to_string());
    let refused = c.kubectl(&format!("create --raw /api/v1/namespaces/{n}/configmaps -f {}", file.display())).fails();
    assert!(refused.contains("Request entity too large: limit is 3145728"), "{refused}");
    c.kubectl("get --raw /readyz").prints("ok");
}

fn a_large_list_is_whole_in_every_form_and_for_every_client(c: &Cluster) {
    const OBJECTS: usize = 701;
    let n = c.namespace("large");
    // Some are large enough to be sent as they lie in memory, most are copied together.
    let object = |i: usize| {
        let filler = "x".repeat(if i.is_multiple_of(50) { 20_000 } else { i % 300 });
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{i:03}, namespace: {n}, labels: {{part: p{}}}}}\ndata: {{filler: \"{filler}\"}}\n",
            i % 7
        )
    };
    c.create(&(0..OBJECTS).map(object).collect::<String>()).ok();
    let names =
        |line: &str| c.kubectl(&format!("-n {n} get configmaps -o name {line}")).ok().lines().filter(|l| l.starts_with("configmap/c")).count();
    assert_eq!((names("--chunk-size=0"), names("--chunk-size=100"), names("-l part=p3")), (OBJECTS, OBJECTS, OBJECTS / 7));
    for form in ["json", "yaml", "wide --show-labels", "custom-columns=N:.metadata.name,V:.metadata.resourceVersion"] {
        let [ours, theirs] = c.both(&format!("-n {n} get configmaps --chunk-size=0 -o {form}")).map(tests::Output::ok);
        // Only ages may have moved on between the two.
        let age = |word: &&str| word.ends_with('s') && word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'm' | b's'));
        let still = |text: &str| text.split_whitespace().filter(|word| !age(word)).map(str::to_owned).collect::<Vec<_>>();
        assert!(still(&ours) == still(&theirs), "kctl and kubectl disagree about the list as {form}");
    }
    // The length that is announced is the length that comes, also over HTTP/1.1, where a client relies on it.
    let token = c.kctl("create token default").ok();
    c.kctl(&format!("-n {n} create rolebinding reads --clusterrole=view --serviceaccount=default:default")).ok();
    for protocol in ["--http1.1", "--http2"] {
        let list = c.machine.sh(&format!(
            "curl -sS {protocol} --cacert {} -H 'Authorization: Bearer {}' -w '\\n%header{{content-length}} %{{size_download}}' https://127.0.0.1:{}/api/v1/namespaces/{n}/configmaps",
            c.data_dir().join("pki/ca.crt").display(),
            token.trim(),
            c.path("endpoints kubernetes", "{.subsets[0].ports[0].port}"),
        ));
        let text = list.ok();
        let (body, lengths) = text.rsplit_once('\n').expect("curl prints the lengths last");
        let (announced, came) = lengths.split_once(' ').expect("two lengths");
        assert_eq!(announced, came, "{protocol}");
        let items = serde_json::from_str::<Value>(body).expect("the list is JSON")["items"].as_array().map_or(0, Vec::len);
        assert_eq!(items, OBJECTS + 1, "{protocol}: with kube-root-ca.crt");
    }
}

fn requests_that_make_no_sense_get_upstreams_answer(c: &Cluster) {
    let n = c.namespace("senseless");
    let get = |query: &str| c.kubectl(&format!("get --raw '/api/v1/namespaces/{n}/configmaps?{query}'")).fails();
    for (query, message) in [
        ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ("timeoutSeconds=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("resourceVersion=x", "Invalid value: \"x\""),
        ("resourceVersion=99999999999", "Too large resource version: 99999999999"),
        ("continue=x", "invalid continue token"),
        ("fieldSelector=spec.x=y", "field label not supported: spec.x"),
    ] {
        let refused = get(query);
        assert!(refused.contains(message), "{query}: {refused}");
    }
    let file = |name: &str, text: &str| c.file(name, text).display().to_string();
    let post = |text: &str| c.kubectl(&format!("create --raw /api/v1/namespaces/{n}/configmaps -f {}", file("body", text))).fails();
    for (body, message) in [
        ("{", "couldn't get version/kind; json parse error"),
        ("[]", "json: cannot unmarshal array into Go value of type struct"),
        (r#"{"metadata":{"name":"x"},"data":{"a":1}}"#, "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        (r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}"#, "Pod in version \"v1\" cannot be handled as a ConfigMap"),
    ] {
        let refused = post(body);
        assert!(refused.contains(message), "{body}: {refused}");
    }
    assert!(post(&"[".repeat(100_000)).contains("BadRequest"));
}
