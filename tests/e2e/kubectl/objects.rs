//! Commands that write objects, and what has become of the objects.

use serde_json::Value;
use tests::Cluster;

use super::Kubectl;
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubectl::creates_diffs_applies_edits_and_replaces", creates_diffs_applies_edits_and_replaces),
    ("kubectl::patches_in_three_ways", patches_in_three_ways),
    ("kubectl::labels_and_annotates", labels_and_annotates),
    ("kubectl::waits_for_what_others_do", waits_for_what_others_do),
    ("kubectl::deletes_with_or_without_dependents", deletes_with_or_without_dependents),
];

fn map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{{data}}}\n")
}

fn creates_diffs_applies_edits_and_replaces(c: &Cluster) {
    let k = Kubectl::new(c, "k-written");
    let data = || k.path("configmap m", "{.data}");
    k.pipe("create -f -", &map("a: '1'")).prints("configmap/m created\n");
    let again = k.pipe("create -f -", &map("a: '1'")).fails();
    assert!(again.contains("Error from server (AlreadyExists)") && again.contains("configmaps \"m\" already exists"), "{again}");

    let diff = k.pipe("diff -f -", &map("a: '2'"));
    assert!(diff.code == 1 && diff.stdout.contains("\n-  a: \"1\"\n") && diff.stdout.contains("\n+  a: \"2\"\n"), "{diff}");
    assert_eq!(data(), r#"{"a":"1"}"#, "a diff changes nothing");
    let applied = k.pipe("apply -f -", &map("a: '2', b: x"));
    assert!(applied.stderr.contains("missing the kubectl.kubernetes.io/last-applied-configuration annotation"), "{applied}");
    applied.prints("configmap/m configured\n");
    k.pipe("diff -f -", &map("a: '2', b: x")).prints("");
    k.pipe("apply -f -", &map("a: '2'")).prints("configmap/m configured\n");
    assert_eq!(data(), r#"{"a":"2"}"#, "what is applied no more is gone");
    k.run("apply view-last-applied configmap m").contains("a: \"2\"");
    let diff = k.pipe("diff --server-side -f -", &map("a: '2', c: new").replace("name: m", "name: other"));
    assert!(diff.code == 1 && diff.stdout.contains("\n+  c: new\n"), "{diff}");
    k.run("get configmap other").fails();

    k.edit("edit configmap m", "sed -i 's/\"2\"/\"3\"/' \"$1\"").prints("configmap/m edited\n");
    assert_eq!(data(), r#"{"a":"3"}"#);
    let untouched = k.edit("edit configmap m", "true");
    assert!(untouched.stderr.contains("Edit cancelled, no changes made."), "{untouched}");
    let refused = k.edit("edit configmap m", "sed -i 's/name: m$/name: n/' \"$1\"").fails();
    assert!(refused.contains("error: Edit cancelled, no valid changes were saved."), "a rename is none: {refused}");
    k.edit("edit configmap m --output-patch", "sed -i 's/\"3\"/\"4\"/' \"$1\"").contains(r#"Patch: {"data":{"a":"4"}"#);

    let uid = || k.path("configmap m", "{.metadata.uid}");
    let first = uid();
    k.pipe("replace -f -", &map("b: '1'")).prints("configmap/m replaced\n");
    assert_eq!((data(), uid()), (r#"{"b":"1"}"#.to_owned(), first.clone()));
    k.pipe("replace --force -f -", &map("b: '2'")).prints("configmap \"m\" deleted from k-written namespace\nconfigmap/m replaced\n");
    assert_eq!(data(), r#"{"b":"2"}"#);
    assert_ne!(uid(), first, "a forced replacement is another object");
    k.pipe("replace -f -", &map("b: '1'").replace("name: m", "name: absent")).fails();
    k.run("delete configmap m --dry-run=server").prints("configmap \"m\" deleted from k-written namespace (server dry run)\n");
    k.pipe("delete -f -", &map("")).prints("configmap \"m\" deleted from k-written namespace\n");
    k.run("delete configmap m").fails();
    k.run("delete configmap m --ignore-not-found").prints("");
}

fn patches_in_three_ways(c: &Cluster) {
    let k = Kubectl::new(c, "k-patched");
    k.run("create deployment d --image=busybox:1 --replicas=0").prints("deployment.apps/d created\n");
    let containers = || {
        let mut all: Vec<String> =
            k.path("deployment d", "{range .spec.template.spec.containers[*]}{.name}={.image} {end}").split_whitespace().map(Into::into).collect();
        all.sort();
        all.join(" ")
    };
    let patch = |kind: &str, patch: &str| k.run(&format!("patch deployment d --type={kind} -p '{patch}'"));
    // Strategic: lists are merged by name, and directives are followed.
    let list = |item: &str| format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{item}]}}}}}}}}"#);
    patch("strategic", &list(r#"{"name":"side","image":"nginx:live"}"#)).prints("deployment.apps/d patched\n");
    assert_eq!(containers(), "busybox=busybox:1 side=nginx:live");
    patch("strategic", &list(r#"{"name":"side","image":"nginx:live"}"#)).prints("deployment.apps/d patched (no change)\n");
    patch("strategic", &list(r#"{"name":"busybox","$patch":"delete"}"#)).ok();
    assert_eq!(containers(), "side=nginx:live");
    // Merge: a list is one value, null removes.
    patch("merge", &list(r#"{"name":"one","image":"busybox:1"}"#)).ok();
    assert_eq!(containers(), "one=busybox:1");
    patch("merge", r#"{"metadata":{"labels":{"app":null}},"spec":{"minReadySeconds":3}}"#).ok();
    assert_eq!(k.path("deployment d", "{.metadata.labels} {.spec.minReadySeconds}"), " 3");
    // JSON: all or nothing.
    let image = "/spec/template/spec/containers/0/image";
    let refused =
        patch("json", &format!(r#"[{{"op":"replace","path":"{image}","value":"no"}},{{"op":"test","path":"/spec/minReadySeconds","value":4}}]"#))
            .fails();
    assert_eq!(refused, "The request is invalid: the server rejected our request due to an error in our request\n");
    assert_eq!(containers(), "one=busybox:1");
    patch(
        "json",
        &format!(
            r#"[{{"op":"test","path":"/spec/minReadySeconds","value":3}},{{"op":"copy","from":"{image}","path":"/metadata/annotations/image"}}]"#
        ),
    )
    .ok();
    assert_eq!(k.path("deployment d", "{.metadata.annotations.image}"), "busybox:1");
    // A subresource keeps to its own part.
    k.run(r#"patch deployment d --subresource=scale --type=merge -p '{"spec":{"replicas":2,"paused":true}}' --dry-run=server -o 'jsonpath={.kind} {.spec}'"#)
        .prints(r#"Scale {"replicas":2}"#);
    k.run(r#"patch deployment d --subresource=status --type=merge -p '{"spec":{"replicas":7},"status":{"collisionCount":1}}'"#)
        .prints("deployment.apps/d patched\n");
    k.becomes("deployment d", "{.spec.replicas} {.status.collisionCount}", "0 1");
    let file = c.file("k-patch.yaml", "spec: {paused: true}\n");
    k.run(&format!("patch deployment d --patch-file {}", file.display())).ok();
    assert_eq!(k.path("deployment d", "{.spec.paused}"), "true");
}

fn labels_and_annotates(c: &Cluster) {
    let k = Kubectl::new(c, "k-labelled");
    for name in ["one", "two"] {
        k.run(&format!("create configmap {name}")).ok();
    }
    k.run("label configmaps one two tier=front").prints("configmap/one labeled\nconfigmap/two labeled\n");
    let refused = k.run("label configmap one tier=back").fails();
    assert!(refused.contains("'tier' already has a value (front), and --overwrite is false"), "{refused}");
    k.run("label configmap one tier=back --overwrite").prints("configmap/one labeled\n");
    k.run("get configmaps -l tier=front -o name").prints("configmap/two\n");
    k.run("get configmaps -l 'tier in (front,back),!gone' -L tier --no-headers").contains("back");
    k.run("label configmap -l tier=front gone=yes").prints("configmap/two labeled\n");
    k.run("label configmap tier- --field-selector metadata.name=two").prints("configmap/two unlabeled\n");
    assert_eq!(k.path("configmaps one two", "{.items[*].metadata.labels}"), r#"{"tier":"back"} {"gone":"yes"}"#);
    k.run("annotate configmap one note='a b' other=c").prints("configmap/one annotated\n");
    k.run("annotate configmap one note- other=d --overwrite").prints("configmap/one annotated\n");
    assert_eq!(k.path("configmap one", "{.metadata.annotations}"), r#"{"other":"d"}"#);
    let refused = k.run("annotate configmap one late=yes --resource-version=1").fails();
    assert!(refused.contains("the object has been modified"), "{refused}");
    k.run("label configmap one -l a=b").fails();
}

fn waits_for_what_others_do(c: &Cluster) {
    let k = Kubectl::new(c, "k-waited");
    let late = k.run("wait --for=create configmap/late --timeout=300ms").fails();
    assert_eq!(late, "error: timed out waiting for the condition\n");
    let created = k.start("wait --for=create configmap/late --timeout=30s");
    k.run("create configmap late --from-literal=a=1").ok();
    assert_eq!(created.ends(), (0, "configmap/late condition met\n".to_owned()));

    let path = "wait --for='jsonpath={.data.a}'=2 configmap/late";
    k.run(&format!("{path} --timeout=300ms")).fails();
    let changed = k.start(&format!("{path} --timeout=30s"));
    k.run(r#"patch configmap late -p '{"data":{"a":"2"}}'"#).ok();
    assert_eq!(changed.ends(), (0, "configmap/late condition met\n".to_owned()));

    // A pod that no node takes: its conditions are what this story says.
    k.pipe(
        "create -f -",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: still}\nspec:\n  nodeSelector: {no: such}\n  containers: [{name: a, image: 'busybox:1'}]\n",
    )
    .ok();
    k.run("wait --for=condition=PodScheduled=false pod/still --timeout=30s").prints("pod/still condition met\n");
    let told = k.start("wait --for=condition=example.com/told pod/still --timeout=30s");
    k.run(r#"patch pod still --subresource=status -p '{"status":{"conditions":[{"type":"example.com/told","status":"True"}]}}'"#).ok();
    assert_eq!(told.ends(), (0, "pod/still condition met\n".to_owned()));

    // A finalizer holds it: to be deleted is not to be gone.
    k.run(r#"patch configmap late -p '{"metadata":{"finalizers":["example.com/held"]}}'"#).ok();
    k.run("delete configmap/late --wait=false").ok();
    let held = k.run("wait --for=delete configmap/late --timeout=300ms").fails();
    assert!(held.contains("timed out waiting for the condition on configmaps/late"), "{held}");
    let deleted = k.start("wait --for=delete configmap/late --timeout=30s");
    k.run(r#"patch configmap late --type=merge -p '{"metadata":{"finalizers":null}}'"#).ok();
    assert_eq!(deleted.ends().0, 0);
    k.run("get configmap late").fails();
}

/// A replica set whose pod no node takes: nothing runs, everything is owned.
fn set(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{set: {name}}}}}\n  template:\n    metadata: {{labels: {{set: {name}}}}}\n    spec: {{nodeSelector: {{no: such}}, containers: [{{name: a, image: 'busybox:1'}}]}}\n---\n"
    )
}

fn deletes_with_or_without_dependents(c: &Cluster) {
    let k = Kubectl::new(c, "k-cascades");
    let sets = ["background", "foreground", "orphan"];
    k.pipe("create -f -", &sets.map(set).concat()).ok();
    for name in sets {
        k.becomes(&format!("replicaset {name}"), "{.status.replicas}", "1");
    }
    let pods = |name: &str| k.run(&format!("get pods -l set={name} -o name")).ok();
    k.run("delete replicaset background --cascade=background").prints("replicaset.apps \"background\" deleted from k-cascades namespace\n");
    k.becomes("pods -l set=background", "{.items}", "[]");
    // Foreground: dependents first, and kubectl waits for their owner to go.
    k.run("delete replicaset foreground --cascade=foreground").prints("replicaset.apps \"foreground\" deleted from k-cascades namespace\n");
    assert_eq!(pods("foreground"), "");
    // Foreground while a dependent is held: the owner stays, and says what it waits for.
    let pod = pods("orphan");
    k.run(&format!(r#"patch {} --type=merge -p '{{"metadata":{{"finalizers":["example.com/held"]}}}}'"#, pod.trim())).ok();
    k.run("delete replicaset orphan --cascade=orphan").ok();
    k.becomes("pods -l set=orphan", "{.items[*].metadata.ownerReferences}", "");
    assert_eq!(pods("orphan"), pod, "the orphan lives on");
    // A new set with the same selector takes it in.
    k.pipe("create -f -", &set("orphan")).ok();
    k.becomes("pods -l set=orphan", "{.items[*].metadata.ownerReferences[*].name}", "orphan");
    assert_eq!(pods("orphan"), pod);
    k.run("delete replicaset orphan --cascade=foreground --wait=false").ok();
    k.becomes("replicaset orphan", "{.metadata.finalizers}", r#"["foregroundDeletion"]"#);
    k.becomes("pods -l set=orphan", "{.items[*].metadata.finalizers}", r#"["example.com/held"]"#);
    let held: Value = serde_json::from_str(&k.run("get pods -l set=orphan -o json").ok()).expect("kubectl prints JSON");
    assert!(held["items"][0]["metadata"]["deletionTimestamp"].is_string(), "{held}");
    k.run(&format!(r#"patch {} --type=merge -p '{{"metadata":{{"finalizers":null}}}}'"#, pod.trim())).ok();
    k.run("wait --for=delete replicaset/orphan --timeout=30s").ok();
    assert_eq!(pods("orphan"), "");
}
