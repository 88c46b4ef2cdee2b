use super::*;
use crate::api::request_info::RequestInfo;
use prost::Message;

async fn get(accept: &str) -> Result<Response, ApiError> {
    let info = RequestInfo::parse(&http::Method::GET, &"/openapi/v2".parse().unwrap()).unwrap();
    let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
    crate::api::openapi::answer(&info, &headers).await.unwrap()
}

/// The whole body, which is larger than a request's may be.
fn bytes(response: Response) -> Bytes {
    response.into_body().into_chunks().iter().flatten().copied().collect()
}

#[tokio::test]
async fn kubectl_gets_the_document_as_protobuf_and_others_as_json() {
    let json: Value = serde_json::from_slice(&bytes(get("application/json").await.unwrap())).unwrap();
    assert_eq!(json["swagger"], "2.0");
    let pod = &json["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert_eq!(pod["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    // Some types have fields of these names.
    let of_that_name = ["JSONSchemaProps", "CapacityRequestPolicy", "LimitRangeItem"];
    let mut others = json.clone();
    others["definitions"].as_object_mut().unwrap().retain(|name, _| !of_that_name.iter().any(|part| name.contains(part)));
    let text = others.to_string();
    for absent in ["#/components", "\"allOf\"", "\"oneOf\"", "\"default\"", "requestBody"] {
        assert!(!text.contains(absent), "{absent}");
    }
    let either = &json["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&either["type"], &either["format"]), (&json!("string"), &json!("int-or-string")));
    let create = &json["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert_eq!(create["responses"]["201"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert!(create["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["type"] == "string"));

    let response = get("application/com.github.proto-openapi.spec.v2@v1.0+protobuf").await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROTOBUF[0]);
    let document = gnostic::Document::decode(bytes(response)).unwrap();
    let definitions = document.definitions.unwrap();
    assert_eq!(definitions.named.len(), json["definitions"].as_object().unwrap().len());
    let pod = definitions.named.iter().find(|d| d.name == "io.k8s.api.core.v1.Pod").unwrap().value.clone().unwrap();
    assert_eq!(pod.vendor_extension[0].name, "x-kubernetes-group-version-kind");
    assert_eq!(pod.properties.unwrap().named.len(), 5);
    assert_eq!(document.paths.unwrap().path.len(), json["paths"].as_object().unwrap().len());
}

#[tokio::test]
async fn a_document_that_is_known_is_not_sent_again() {
    let first = get("*/*").await.unwrap();
    assert!(first.headers().contains_key(header::LAST_MODIFIED));
    let info = RequestInfo::parse(&http::Method::GET, &"/openapi/v2".parse().unwrap()).unwrap();
    let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())]);
    assert_eq!(crate::api::openapi::answer(&info, &headers).await.unwrap().unwrap().status(), StatusCode::NOT_MODIFIED);
    assert_eq!(get("text/html").await.unwrap_err().code(), 406);
}

#[test]
fn what_may_be_null_has_no_type_that_an_old_client_could_check() {
    let mut definitions = serde_json::Map::new();
    let document = json!({"paths": {}, "components": {"schemas": {"example.com.v1.Thing": {"type": "object", "properties": {
        "a": {"type": "string", "nullable": true, "default": "x"},
        "b": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "c": {"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/example.com.v1.Other"}]}},
    }}}}});
    convert::document(document, &mut |_, _| {}, &mut |name, schema| drop(definitions.insert(name, schema)));
    let fields = &definitions["example.com.v1.Thing"]["properties"];
    assert_eq!(fields["a"], json!({}));
    assert_eq!(fields["b"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(fields["c"], json!({"type": "array", "items": {"$ref": "#/definitions/example.com.v1.Other"}}));
}
