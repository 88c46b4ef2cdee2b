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
        schema: |generator| generator.subschema_for::<Deployment>(),
    }
}

fn document() -> Value {
    group_version(&[&deployments()])
}

#[test]
fn kubectl_finds_the_field_validation_parameter_of_a_kinds_patch() {
    let document = document();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
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
    let info = RequestInfo::parse(&http::Method::GET, &"/openapi/v2".parse().unwrap()).unwrap();
    assert_eq!(answer(&info, &HeaderMap::new()).await.unwrap().unwrap_err().code(), 406);
}
