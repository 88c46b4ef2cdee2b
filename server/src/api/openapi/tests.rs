use super::*;
use k8s_openapi::api::apps::v1::Deployment;

fn deployments() -> Kind {
    Kind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        namespaced: true,
        verbs: crate::registry::ALL_VERBS,
        subresources: &[crate::registry::STATUS, crate::registry::SCALE],
        schema: Source::Type(|generator| generator.subschema_for::<Deployment>()),
    }
}

fn document() -> Value {
    group_version("apps", "v1", &[&deployments()])
}

#[test]
fn kubectl_finds_the_field_validation_parameter_of_a_kinds_patch() {
    let document = document();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
}

#[test]
fn kubectl_explain_finds_the_kinds_schema_and_its_fields() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"], json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]));
    let spec = &deployment["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert!(spec["description"].as_str().unwrap().starts_with("Specification"));
    assert_eq!(schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"]["format"], "int32");
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference.clone());
                }
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(values) => values.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn a_document_is_found_by_the_root_and_kept_by_its_hash() {
    let get = |uri: String| async move {
        let info = RequestInfo::parse(&http::Method::GET, &uri.parse().unwrap()).unwrap();
        answer(&info, &HeaderMap::new()).await.unwrap().unwrap()
    };
    let root: Value = serde_json::from_slice(&get("/openapi/v3".into()).await.into_body().read().await.unwrap()).unwrap();
    let url = root["paths"]["apis/authorization.k8s.io/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let response = get(url).await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "public, immutable");
    let document: Value = serde_json::from_slice(&response.into_body().read().await.unwrap()).unwrap();
    assert_eq!(document["openapi"], "3.0.0");
}

#[test]
fn lists_and_maps_say_how_they_merge() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"], "atomic");
    let meta = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"];
    assert_eq!(meta["finalizers"]["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(meta["ownerReferences"]["x-kubernetes-patch-merge-key"], "uid");
}

#[test]
fn defaults_are_gos_zero_values_and_the_few_that_types_name() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"];
    assert_eq!(deployment["spec"]["default"], json!({}));
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert_eq!((&spec["template"]["default"], spec["selector"].get("default"), spec["replicas"].get("default")), (&json!({}), None, None));
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!((&port["containerPort"]["default"], &port["protocol"]["default"]), (&json!(0), &json!("TCP")));
    assert_eq!(schemas["io.k8s.api.core.v1.Container"]["properties"]["args"]["items"]["default"], "");
    assert_eq!(schemas["io.k8s.api.core.v1.Container"]["properties"]["securityContext"].get("default"), None);
    let either = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&either["format"], &either["oneOf"]), (&json!("int-or-string"), &json!([{"type": "integer"}, {"type": "string"}])));
}

#[test]
fn kinds_that_are_not_stored_name_their_group_versions_too() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let gvks = |name: &str| schemas[name]["x-kubernetes-group-version-kind"].as_array().unwrap().clone();
    assert_eq!(gvks("io.k8s.api.autoscaling.v1.Scale"), [json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})]);
    assert_eq!(gvks("io.k8s.apimachinery.pkg.apis.meta.v1.Status"), [json!({"group": "", "version": "v1", "kind": "Status"})]);
    assert!(gvks("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").contains(&json!({"group": "apps", "version": "v1", "kind": "DeleteOptions"})));
    assert!(gvks("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent").len() > 10);
}

#[test]
fn operations_have_ids_of_their_own() {
    let document = document();
    let mut ids = std::collections::HashSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for id in item.as_object().unwrap().values().filter_map(|o| o["operationId"].as_str()) {
            assert!(ids.insert(id), "{id}");
        }
    }
    for id in [
        "getAppsV1APIResources",
        "watchAppsV1NamespacedDeploymentList",
        "watchAppsV1DeploymentListForAllNamespaces",
        "patchAppsV1NamespacedDeploymentScale",
    ] {
        assert!(ids.contains(id), "{id}");
    }
}
