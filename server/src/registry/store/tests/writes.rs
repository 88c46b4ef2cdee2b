//! What writes do, refuse and leave alone.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};

use super::*;
use crate::registry::store::{FieldValidation, Propagation, decode, yaml_to_json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_fills_metadata_in_and_answers_with_what_is_stored() {
    let world = World::start().await;
    let written = world.create("configmaps", config_map("a", &[("k", "v")])).await.unwrap();
    let answered = json(&written.entry);
    assert!(written.created);
    assert_eq!(answered["metadata"]["namespace"], "ns");
    assert_eq!(answered["metadata"]["resourceVersion"], written.entry.revision.to_string());
    assert_eq!(answered["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(answered["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(world.get("configmaps", "ns", "a").await.unwrap(), answered);
    let raw = world.store.storage().get("/registry/configmaps/ns/a").await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&raw.value.unwrap()).contains("resourceVersion"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_refuses_with_upstreams_words() {
    let world = World::start().await;
    world.create("configmaps", config_map("a", &[])).await.unwrap();
    let refusal = |object: Object| {
        let world = &world;
        async move { world.create("configmaps", object).await.unwrap_err() }
    };
    let error = refusal(config_map("a", &[])).await;
    assert_eq!((error.code(), error.to_string().as_str()), (409, "configmaps \"a\" already exists"));
    let mut object = config_map("b", &[]);
    object.meta_mut().resource_version = Some("5".into());
    let error = refusal(object).await;
    assert_eq!((error.code(), error.to_string().as_str()), (500, "resourceVersion should not be set on objects to be created"));
    let mut object = config_map("b", &[]);
    object.meta_mut().namespace = Some("other".into());
    let error = refusal(object).await;
    assert_eq!(error.to_string(), "the namespace of the provided object does not match the namespace sent on the request");
    let error = refusal(config_map("B_", &[])).await;
    assert_eq!(error.code(), 422);
    assert!(error.to_string().starts_with("ConfigMap \"B_\" is invalid: metadata.name: Invalid value: \"B_\": a lowercase RFC 1123 subdomain"));
    let error = refusal(config_map("", &[])).await;
    assert_eq!(error.to_string(), "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required");
    let error = refusal(config_map("c", &[("a b", "")])).await;
    assert_eq!(error.to_string(), "ConfigMap \"c\" is invalid: data: Invalid value: \"a b\": no blanks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_names_are_unique() {
    let world = World::start().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let mut object = config_map("", &[]);
        object.meta_mut().generate_name = Some("g-".into());
        names.insert(world.create("configmaps", object).await.unwrap().entry.name.clone());
    }
    assert_eq!(names.len(), 50);
    assert!(names.iter().all(|n| n.starts_with("g-") && n.len() == 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_stores_nothing() {
    let world = World::start().await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::new(&USER) };
    let written = world.store.create(kind("configmaps"), "ns", config_map("a", &[]), &options, &AdmitAll).await.unwrap();
    assert_eq!(json(&written.entry)["metadata"].get("resourceVersion"), None);
    assert_eq!(world.get("configmaps", "ns", "a").await.unwrap_err().code(), 404);
    let stored = world.create("configmaps", config_map("a", &[])).await.unwrap();
    let change = |current: Option<&Current>| Ok(with_data(&current.unwrap().object, "k", "v").into());
    let written = world.store.update(kind("configmaps"), "ns", "a", &options, &change, &AdmitAll).await.unwrap();
    assert_eq!((json(&written.entry)["data"]["k"].as_str(), written.entry.revision), (Some("v"), stored.entry.revision));
    let deleted = world.delete("configmaps", "a", DeleteOptions { dry_run: true, ..DeleteOptions::default() }).await.unwrap();
    assert!(deleted.gone);
    assert_eq!(world.get("configmaps", "ns", "a").await.unwrap()["metadata"]["resourceVersion"], stored.entry.revision.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_checks_version_uid_and_name_and_skips_what_changes_nothing() {
    let world = World::start().await;
    let first = world.create("configmaps", config_map("a", &[("k", "1")])).await.unwrap().entry;
    let second = world.update("configmaps", "a", |c| Ok(with_data(&c.object, "k", "2"))).await.unwrap().entry;
    assert!(second.revision > first.revision);
    let same = world.update("configmaps", "a", |c| Ok(c.object.clone())).await.unwrap().entry;
    assert_eq!(same.revision, second.revision, "an update that changes nothing writes nothing");
    let unconditional = world.update("configmaps", "a", |_| Ok(config_map("a", &[("k", "3")]))).await.unwrap().entry;
    assert_eq!(json(&unconditional)["metadata"]["uid"], json(&first)["metadata"]["uid"]);
    let edit = |change: fn(&mut ObjectMeta)| {
        let world = &world;
        async move {
            let update = world.update("configmaps", "a", move |c| {
                let mut object = c.object.clone();
                change(object.meta_mut());
                Ok(object)
            });
            update.await.unwrap_err()
        }
    };
    let error = edit(|m| m.resource_version = Some("1".into())).await;
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.to_string(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let error = edit(|m| m.uid = Some("other".into())).await;
    assert!(error.to_string().contains("Precondition failed: UID in precondition: other, UID in object meta: "), "{error}");
    let error = edit(|m| m.name = Some("b".into())).await;
    assert_eq!((error.code(), error.to_string().as_str()), (400, "the name of the object (b) does not match the name on the URL (a)"));
    let error = edit(|m| m.deletion_timestamp = Some(super::super::meta::now())).await;
    assert!(error.to_string().contains("metadata.deletionTimestamp: Invalid value"), "{error}");
    let error = world.update("configmaps", "none", |c| Ok(c.object.clone())).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (404, "configmaps \"none\" not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_and_status_are_written_apart_and_generation_counts_the_spec() {
    let world = World::start().await;
    world.create("pods", pod("p", "")).await.unwrap();
    let both = |c: &Current| {
        let mut object = c.object.clone();
        let pod: &mut Pod = object.downcast_mut().unwrap();
        pod.spec.get_or_insert_default().node_name = Some("n1".into());
        pod.status.get_or_insert_default().phase = Some("Running".into());
        Ok(object)
    };
    let main = json(&world.update("pods", "p", both).await.unwrap().entry);
    assert_eq!((&main["spec"]["nodeName"], &main["status"]["phase"], &main["metadata"]["generation"]), (&"n1".into(), &Value::Null, &2.into()));
    let other = |c: &Current| {
        let mut object = both(c)?;
        object.downcast_mut::<Pod>().unwrap().spec.get_or_insert_default().node_name = Some("n2".into());
        Ok(object)
    };
    let status = json(&update(&world.store, "pods", "p", "status", other).await.unwrap().entry);
    assert_eq!(
        (&status["spec"]["nodeName"], &status["status"]["phase"], &status["metadata"]["generation"]),
        (&"n1".into(), &"Running".into(), &2.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finalizers_hold_a_deletion_until_the_last_one_goes() {
    let world = World::start().await;
    let mut object = config_map("a", &[]);
    object.meta_mut().finalizers = Some(vec!["example.com/x".into()]);
    world.create("configmaps", object).await.unwrap();
    let marked = world.delete("configmaps", "a", DeleteOptions::default()).await.unwrap();
    assert!(!marked.gone);
    assert!(json(&marked.entry)["metadata"]["deletionTimestamp"].is_string());
    let again = world.delete("configmaps", "a", DeleteOptions::default()).await.unwrap();
    assert_eq!((again.gone, again.entry.revision), (false, marked.entry.revision));
    let error = world.create("configmaps", config_map("a", &[])).await.unwrap_err();
    assert_eq!(error.to_string(), "object is being deleted: configmaps \"a\" already exists");
    let set = |finalizers: &'static [&'static str]| {
        move |c: &Current| {
            let mut object = c.object.clone();
            object.meta_mut().finalizers = Some(finalizers.iter().map(|f| (*f).to_owned()).collect());
            Ok(object)
        }
    };
    let error = world.update("configmaps", "a", set(&["example.com/x", "example.com/y"])).await.unwrap_err();
    assert!(
        error.to_string().contains("no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/y\"}"),
        "{error}"
    );
    world.update("configmaps", "a", set(&[])).await.unwrap();
    assert_eq!(world.get("configmaps", "ns", "a").await.unwrap_err().code(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagation_adds_the_collectors_finalizers() {
    let world = World::start().await;
    world.create("configmaps", config_map("a", &[])).await.unwrap();
    let options = DeleteOptions { propagation_policy: Some(Propagation::Foreground), ..DeleteOptions::default() };
    let marked = world.delete("configmaps", "a", options).await.unwrap();
    assert_eq!(json(&marked.entry)["metadata"]["finalizers"], serde_json::json!(["foregroundDeletion"]));
    let background = DeleteOptions { propagation_policy: Some(Propagation::Background), ..DeleteOptions::default() };
    assert!(world.delete("configmaps", "a", background).await.unwrap().gone);
    let both = DeleteOptions { propagation_policy: Some(Propagation::Orphan), orphan_dependents: Some(true), ..DeleteOptions::default() };
    assert_eq!(world.delete("configmaps", "a", both).await.unwrap_err().code(), 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grace_period_is_waited_for_and_can_only_be_shortened() {
    let world = World::start().await;
    let grace = |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() };
    world.create("pods", pod("unbound", "")).await.unwrap();
    assert!(world.delete("pods", "unbound", DeleteOptions::default()).await.unwrap().gone, "nobody runs it");
    world.create("pods", pod("p", "n1")).await.unwrap();
    let first = world.delete("pods", "p", DeleteOptions::default()).await.unwrap();
    assert_eq!((first.gone, &json(&first.entry)["metadata"]["deletionGracePeriodSeconds"]), (false, &30.into()));
    assert_eq!(json(&first.entry)["metadata"]["generation"], 2);
    let longer = world.delete("pods", "p", grace(60)).await.unwrap();
    assert_eq!(longer.entry.revision, first.entry.revision);
    let shorter = world.delete("pods", "p", grace(5)).await.unwrap();
    assert_eq!(json(&shorter.entry)["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(json(&shorter.entry)["metadata"]["deletionTimestamp"].as_str() < json(&first.entry)["metadata"]["deletionTimestamp"].as_str());
    assert!(world.delete("pods", "p", grace(0)).await.unwrap().gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preconditions_of_a_deletion_are_checked() {
    let world = World::start().await;
    let entry = world.create("configmaps", config_map("a", &[])).await.unwrap().entry;
    let uid = json(&entry)["metadata"]["uid"].as_str().unwrap().to_owned();
    let error = world.delete("configmaps", "a", DeleteOptions { uid: Some("x".into()), ..DeleteOptions::default() }).await.unwrap_err();
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.to_string(),
        format!("Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in precondition: x, UID in object meta: {uid}")
    );
    let stale = DeleteOptions { resource_version: Some("1".into()), ..DeleteOptions::default() };
    assert_eq!(world.delete("configmaps", "a", stale).await.unwrap_err().code(), 409);
    let right = DeleteOptions { uid: Some(uid), resource_version: Some(entry.revision.to_string()), ..DeleteOptions::default() };
    let deleted = world.delete("configmaps", "a", right).await.unwrap();
    assert!(deleted.gone && deleted.entry.revision > entry.revision);
    assert_eq!(json(&deleted.entry)["metadata"]["resourceVersion"], deleted.entry.revision.to_string());
    assert_eq!(world.delete("configmaps", "a", DeleteOptions::default()).await.unwrap_err().code(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_waits_for_the_finalizers_of_its_spec() {
    let world = World::start().await;
    world.create("namespaces", namespace("ns")).await.unwrap();
    let marked = world.delete("namespaces", "ns", DeleteOptions::default()).await.unwrap();
    assert_eq!((marked.gone, &json(&marked.entry)["status"]["phase"]), (false, &"Terminating".into()));
    let finalize = |c: &Current| {
        let mut object = c.object.clone();
        object.downcast_mut::<Namespace>().unwrap().spec = None;
        Ok(object)
    };
    update(&world.store, "namespaces", "ns", "finalize", finalize).await.unwrap();
    assert_eq!(world.get("namespaces", "", "ns").await.unwrap_err().code(), 404);
    world.create("namespaces", namespace("ns")).await.unwrap();
    let error = world.update("namespaces", "ns", |_| Ok(namespace("ns"))).await.unwrap_err();
    assert_eq!(error.to_string(), "namespaces \"ns\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_unique_and_given_back() {
    let world = World::start().await;
    let ip = |written: Written| json(&written.entry)["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let first = ip(world.create("services", service("a", None, Some(30080))).await.unwrap());
    let second = ip(world.create("services", service("b", None, None)).await.unwrap());
    assert_ne!(first, second);
    let error = world.create("services", service("c", Some(&first), None)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "Service \"c\" is invalid: spec.clusterIPs: Invalid value: [\"{first}\"]: failed to allocate IP {first}: provided IP is already allocated"
        )
    );
    let error = world.create("services", service("c", None, Some(30080))).await.unwrap_err();
    assert_eq!(error.to_string(), "Service \"c\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated");
    let port = |port: Option<i32>| {
        move |c: &Current| {
            let mut object = c.object.clone();
            object.downcast_mut::<Service>().unwrap().spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = port;
            Ok(object)
        }
    };
    world.update("services", "a", port(Some(30081))).await.unwrap();
    world.create("services", service("c", None, Some(30080))).await.unwrap();
    world.delete("services", "a", DeleteOptions::default()).await.unwrap();
    world.create("services", service("d", Some(&first), Some(30081))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_creates_where_the_kind_allows_it() {
    let world = World::start().await;
    let change = |current: Option<&Current>| {
        assert!(current.is_none());
        Ok(service("a", None, None).into())
    };
    let written = world.store.update(kind("services"), "ns", "a", &WriteOptions::new(&USER), &change, &AdmitAll).await.unwrap();
    assert!(written.created);
    assert!(json(&written.entry)["metadata"]["uid"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_is_deleted_as_selected() {
    let world = World::start().await;
    for i in 0..30 {
        let app = if i % 3 == 0 { "x" } else { "y" };
        world.create("configmaps", labelled(&format!("c{i:02}"), &[("app", app)])).await.unwrap();
    }
    let list = ListOptions { namespace: "ns".into(), labels: "app=x".parse_selector(), ..ListOptions::default() };
    let deleted = world.store.delete_collection(kind("configmaps"), &list, &DeleteOptions::default(), &USER, &AdmitAll).await.unwrap();
    assert_eq!(deleted.items.len(), 10);
    assert_eq!(world.list("configmaps", |_| {}).await.unwrap().items.len(), 20);
}

trait ParseSelector {
    fn parse_selector(self) -> shared::selector::Selector;
}
impl ParseSelector for &str {
    fn parse_selector(self) -> shared::selector::Selector {
        shared::selector::Selector::parse(self).unwrap()
    }
}

#[test]
fn decoding_finds_unknown_and_duplicate_fields() {
    let body = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","lables":{}},"data":{"k":"1","k":"2"},"foo":{"bar":1}}"#;
    let resource = kind("configmaps");
    let warned = decode(resource, body, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, ["unknown field \"metadata.lables\"", "unknown field \"foo\"", "duplicate field \"data.k\""]);
    let error = decode(resource, body, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"metadata.lables\", unknown field \"foo\", duplicate field \"data.k\""
    );
    assert!(decode(resource, body, FieldValidation::Ignore).unwrap().warnings.is_empty());
    assert!(decode(resource, br#"{"metadata":{"name":"a"}}"#, FieldValidation::Strict).is_ok(), "a missing kind is the request's");
}

#[test]
fn decoding_says_where_the_wrong_type_is() {
    let decoded = |body: &str| decode(kind("pods"), body.as_bytes(), FieldValidation::Warn).unwrap_err().to_string();
    assert_eq!(
        decoded(r#"{"spec":{"terminationGracePeriodSeconds":"x"}}"#),
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64"
    );
    assert_eq!(
        decoded(r#"{"spec":{"containers":[{"name":"a","ports":[{"containerPort":"http"}]}]}}"#),
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32"
    );
    assert_eq!(decoded(r#"{"apiVersion":"apps/v1"}"#), "the API version in the data (apps/v1) does not match the expected API version (v1)");
    assert!(decoded(r#"{"kind":"Service"}"#).starts_with("Service in version \"v1\" cannot be handled as a Pod"));
    assert!(decoded("{").starts_with("the object provided is unrecognized (must be of type Pod): "));
    let bomb = format!("{{\"spec\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(!decoded(&bomb).is_empty());
}

#[test]
fn yaml_is_decoded_and_its_bombs_are_refused() {
    let json = yaml_to_json(b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n").unwrap();
    let decoded = decode(kind("configmaps"), &json, FieldValidation::Strict);
    assert_eq!(decoded.unwrap().object.downcast_ref::<ConfigMap>().unwrap().data.as_ref().unwrap()["k"], "v");
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(",")));
    }
    let began = std::time::Instant::now();
    assert_eq!(yaml_to_json(bomb.as_bytes()).unwrap_err().code(), 400);
    // Written out it would be 10^12 values: hours, whatever the machine is busy with.
    assert!(began.elapsed() < Duration::from_secs(20));
}
