//! Webhooks, called by the whole chain over a real store.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use serde_json::{Value, json};

use super::hook::{Hook, patched};
use super::{World, admin, from, row};
use crate::registry::Object;
use crate::registry::admit::{Admit, Attributes, Operation};
use crate::registry::store::WriteOptions;

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}})
}

async fn world() -> World {
    let world = World::start().await;
    world.namespace("team").await;
    world
}

#[tokio::test]
async fn what_a_webhook_patches_is_decoded_and_defaulted_again() {
    let world = world().await;
    let container = json!({"name": "sidecar", "image": "s:1"});
    let hook = Hook::patching(json!([
        {"op": "add", "path": "/metadata/labels", "value": {"patched": "yes"}},
        {"op": "add", "path": "/spec/containers/-", "value": container},
    ]))
    .await;
    world.put::<MutatingWebhookConfiguration>("", hook.configuration("mutate", &["pods"], json!({}))).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let pod: Pod = world.create("team", pod).await.unwrap();
    assert_eq!(pod.metadata.labels.unwrap()["patched"], "yes");
    let sidecar = &pod.spec.unwrap().containers[1];
    assert_eq!(sidecar.termination_message_policy.as_deref(), Some("File"), "the added container has defaults");
    let request = &hook.seen()[0];
    assert_eq!(
        (&request["operation"], &request["kind"], &request["resource"], &request["namespace"], &request["name"]),
        (
            &json!("CREATE"),
            &json!({"group": "", "version": "v1", "kind": "Pod"}),
            &json!({"group": "", "version": "v1", "resource": "pods"}),
            &json!("team"),
            &json!("p")
        )
    );
    assert_eq!((&request["userInfo"]["username"], &request["dryRun"], &request["oldObject"]), (&json!("admin"), &json!(false), &Value::Null));
    assert_eq!((&request["object"]["apiVersion"], &request["object"]["kind"]), (&json!("v1"), &json!("Pod")));
}

#[tokio::test]
async fn a_denial_carries_the_webhooks_words_code_and_reason() {
    let world = world().await;
    let hook =
        Hook::saying(json!({"allowed": false, "status": {"message": "not here", "code": 403, "reason": "Forbidden"}, "warnings": ["careful"]})).await;
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("deny", &["configmaps"], json!({}))).await;
    let error = world.create::<ConfigMap>("team", config_map("x")).await.unwrap_err();
    assert_eq!(error.to_string(), "admission webhook \"deny.example.com\" denied the request: not here");
    assert_eq!((error.code(), error.reason()), (403, "Forbidden"));
    assert_eq!(error.warnings(), ["careful"], "a refusal says what was found before it");
}

#[tokio::test]
async fn an_unreachable_webhook_fails_the_write_unless_it_is_to_be_ignored() {
    let world = world().await;
    let hook = Hook::saying(json!({"allowed": true})).await;
    let dead = json!({"clientConfig": {"url": "https://127.0.0.1:1/x"}});
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("dead", &["configmaps"], dead.clone())).await;
    let error = world.create::<ConfigMap>("team", config_map("x")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Internal error occurred: failed calling webhook \"dead.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/x?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    assert_eq!((error.code(), error.reason()), (500, "InternalError"));
    world.delete_as::<ValidatingWebhookConfiguration>(&admin(), "", "dead").await.unwrap();
    world.refresh().await;
    let ignored = hook.configuration("dead", &["configmaps"], json!({"clientConfig": dead["clientConfig"], "failurePolicy": "Ignore"}));
    world.put::<ValidatingWebhookConfiguration>("", ignored).await;
    world.create::<ConfigMap>("team", config_map("x")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_not_spoken_to() {
    let world = world().await;
    let (hook, other) = (Hook::saying(json!({"allowed": true})).await, Hook::saying(json!({"allowed": true})).await);
    let mut configuration = hook.configuration("wrong-ca", &["configmaps"], json!({}));
    configuration["webhooks"][0]["clientConfig"]["caBundle"] =
        other.configuration("x", &[], json!({}))["webhooks"][0]["clientConfig"]["caBundle"].clone();
    world.put::<ValidatingWebhookConfiguration>("", configuration).await;
    let error = world.create::<ConfigMap>("team", config_map("x")).await.unwrap_err().to_string();
    assert!(error.contains("tls: failed to verify certificate: x509: "), "{error}");
    assert!(hook.seen().is_empty());
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_waited_for_as_long_as_it_says() {
    let world = world().await;
    let hook = Hook::start(|_| None).await;
    world.put::<MutatingWebhookConfiguration>("", hook.configuration("slow", &["configmaps"], json!({"timeoutSeconds": 1}))).await;
    let error = world.create::<ConfigMap>("team", config_map("x")).await.unwrap_err().to_string();
    assert!(error.ends_with("?timeout=1s\": context deadline exceeded"), "{error}");
}

#[tokio::test]
async fn dry_runs_are_shown_to_webhooks_without_side_effects_only() {
    let world = world().await;
    let hook = Hook::saying(json!({"allowed": true, "warnings": ["from the hook"]})).await;
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("dry", &["configmaps"], json!({}))).await;
    let create = |name: &'static str| {
        let world = &world;
        async move {
            let object = Object::new(from::<ConfigMap>(config_map(name)));
            let user = admin();
            let options = WriteOptions { dry_run: true, ..WriteOptions::new(&user) };
            world.store.create(row::<ConfigMap>(), "team", object, &options, &*world.admission).await
        }
    };
    let written = create("x").await.unwrap();
    assert_eq!(written.warnings, ["from the hook"]);
    assert_eq!(hook.seen()[0]["dryRun"], true);
    let some = hook.configuration("some", &["configmaps"], json!({"sideEffects": "Some"}));
    world.put_unchecked::<ValidatingWebhookConfiguration>("", some).await;
    let error = create("y").await.unwrap_err();
    assert_eq!((error.code(), error.to_string()), (400, "admission webhook \"some.example.com\" does not support dry run".into()));
}

#[tokio::test]
async fn selectors_and_conditions_decide_who_is_asked() {
    let world = world().await;
    let hook = Hook::saying(json!({"allowed": false})).await;
    for (name, more) in [
        ("other-ns", json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}})),
        ("other-object", json!({"objectSelector": {"matchLabels": {"a": "c"}}})),
        ("condition", json!({"matchConditions": [{"name": "x", "expression": "object.data.k == 'w'"}]})),
        ("exempted", json!({"matchConditions": [{"name": "x", "expression": "!('system:masters' in request.userInfo.groups)"}]})),
        ("allowed", json!({"matchConditions": [{"name": "x", "expression": "!authorizer.group('').resource('pods').check('delete').allowed()"}]})),
    ] {
        world.put::<ValidatingWebhookConfiguration>("", hook.configuration(name, &["configmaps"], more)).await;
    }
    world.create::<ConfigMap>("team", config_map("x")).await.unwrap();
    assert!(hook.seen().is_empty());
    let broken = json!({"matchConditions": [{"name": "x", "expression": "object.data.missing == 'w'"}]});
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("broken", &["configmaps"], broken)).await;
    let error = world.create::<ConfigMap>("team", config_map("y")).await.unwrap_err();
    assert_eq!(error.to_string(), "configmaps \"y\" is forbidden: expression 'object.data.missing == 'w'' resulted in error: no such key: missing");
}

#[tokio::test]
async fn a_namespace_is_selected_by_its_own_labels() {
    let world = world().await;
    let hook = Hook::saying(json!({"allowed": false})).await;
    let selector = json!({"namespaceSelector": {"matchLabels": {"guard": "on"}}});
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("ns", &["namespaces"], selector)).await;
    world.create::<Namespace>("", json!({"metadata": {"name": "free"}})).await.unwrap();
    let error = world.create::<Namespace>("", json!({"metadata": {"name": "guarded", "labels": {"guard": "on"}}})).await.unwrap_err();
    assert_eq!(error.to_string(), "admission webhook \"ns.example.com\" denied the request without explanation");
}

#[tokio::test]
async fn deletions_subresources_and_connections_are_asked_about_too() {
    let world = world().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    world.create::<Pod>("team", pod).await.unwrap();
    let hook = Hook::start(|request| Some(json!({"allowed": request["operation"] != "DELETE" && request["operation"] != "CONNECT"}))).await;
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("all", &["pods", "pods/*"], json!({}))).await;
    world.update_as::<Pod>(&admin(), "team", "p", "status", |pod| pod.status.get_or_insert_default().message = Some("hello".into())).await.unwrap();
    world.delete_as::<Pod>(&admin(), "team", "p").await.unwrap_err();
    let seen = hook.seen();
    assert_eq!(
        (&seen[0]["operation"], &seen[0]["subResource"], &seen[0]["object"]["status"]["message"]),
        (&json!("UPDATE"), &json!("status"), &json!("hello"))
    );
    let deletion = seen.iter().find(|r| r["operation"] == "DELETE").unwrap();
    assert_eq!((&deletion["object"], &deletion["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("p")));

    let options = json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["sh"], "container": "c"});
    let (mut writes, mut held, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let user = admin();
    let mut attributes = Attributes {
        operation: Operation::Connect,
        resource: row::<Pod>(),
        subresource: "exec",
        namespace: "team",
        name: "p",
        user: &user,
        dry_run: false,
        field_manager: "",
        options: Some(&options),
        object: None,
        old: None,
        writes: &mut writes,
        held: &mut held,
        warnings: &mut warnings,
        reinvocation: Default::default(),
    };
    world.admission.validate(&mut attributes).await.unwrap_err();
    let seen = hook.seen();
    let connect = seen.iter().find(|r| r["operation"] == "CONNECT").unwrap();
    assert_eq!(connect["object"], options);
    assert_eq!(connect["kind"]["kind"], "PodExecOptions");
}

#[tokio::test]
async fn a_webhook_may_ask_to_be_called_again_after_others() {
    let world = world().await;
    // The first copies what the second adds, which it can only do when it is asked again.
    let first = Hook::start(|request| {
        let labels = &request["object"]["metadata"]["labels"];
        let copy = json!([{"op": "add", "path": "/metadata/labels/copied", "value": labels["late"]}]);
        Some(if labels["late"].is_string() && !labels["copied"].is_string() { patched(&copy) } else { json!({"allowed": true}) })
    })
    .await;
    let second = Hook::patching(json!([{"op": "add", "path": "/metadata/labels/late", "value": "x"}])).await;
    world.put::<MutatingWebhookConfiguration>("", first.configuration("a-first", &["configmaps"], json!({"reinvocationPolicy": "IfNeeded"}))).await;
    world.put::<MutatingWebhookConfiguration>("", second.configuration("b-second", &["configmaps"], json!({}))).await;
    let map: ConfigMap = world.create("team", config_map("x")).await.unwrap();
    assert_eq!(map.metadata.labels.unwrap()["copied"], "x");
    assert_eq!((first.seen().len(), second.seen().len()), (2, 1));
}

#[tokio::test]
async fn webhook_configurations_themselves_are_nobodys_business() {
    let world = world().await;
    let hook = Hook::saying(json!({"allowed": false})).await;
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    world.put::<ValidatingWebhookConfiguration>("", hook.configuration("all", &[], all)).await;
    world.create::<ConfigMap>("team", config_map("x")).await.unwrap_err();
    world.delete_as::<ValidatingWebhookConfiguration>(&admin(), "", "all").await.unwrap();
    assert!(hook.seen().iter().all(|r| r["kind"]["kind"] != "ValidatingWebhookConfiguration"));
}
