//! Conversion of objects between versions by a webhook (`apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`).
//!
//! Owns the ConversionReview. Whatever the webhook answers, an object keeps its identity: only labels and annotations of its metadata may
//! come out changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{ServiceReference, WebhookClientConfig};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use shared::status::ApiError;

use crate::api::admission::dynamic::transport::{Address, Pool};
use crate::api::objects::Reader;
use crate::registry::apiextensions::Convert;

/// How long a webhook may take, in seconds.
const TIMEOUT: u64 = 30;

/// What converts a definition's objects; `None` when only the version's name changes.
pub(in crate::api) fn converter(crd: &CustomResourceDefinition, reader: &Reader, pool: &Pool) -> Option<Arc<dyn Convert>> {
    let conversion = crd.spec.conversion.as_ref().filter(|c| c.strategy == "Webhook")?;
    let client = conversion.webhook.as_ref()?.client_config.as_ref()?;
    let service = client.service.as_ref().map(|s| ServiceReference {
        name: s.name.clone(),
        namespace: s.namespace.clone(),
        path: s.path.clone(),
        port: s.port,
    });
    let config = WebhookClientConfig { ca_bundle: client.ca_bundle.clone(), service, url: client.url.clone() };
    let kind = crd.spec.names.kind.clone();
    Some(Arc::new(Webhook { address: Address::of(&config), kind, reader: reader.clone(), pool: pool.clone() }))
}

struct Webhook {
    /// What is wrong with it, is told to whoever needs a conversion.
    address: Result<Address, String>,
    kind: String,
    reader: Reader,
    pool: Pool,
}

#[async_trait]
impl Convert for Webhook {
    async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError> {
        let failed = |why: String| ApiError::internal(format!("conversion webhook for {}, Kind={} failed: {why}", of(&objects), self.kind));
        let address = self.address.as_ref().map_err(|e| failed(e.clone()))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let call = self.pool.post(&self.reader, address, TIMEOUT, review.to_string().into());
        let answer = tokio::time::timeout(Duration::from_secs(TIMEOUT), call).await;
        let answer = answer.unwrap_or_else(|_| Err("context deadline exceeded".into()));
        let answer = answer.map_err(|e| failed(format!("Post {:?}: {e}", address.url(TIMEOUT))))?;
        if !answer.status.is_success() {
            return Err(failed(format!("the server responded with the status code {} but did not return more information", answer.status.as_u16())));
        }
        let review: Value = serde_json::from_slice(&answer.body).map_err(|e| failed(e.to_string()))?;
        converted(&review["response"], &uid, &objects, to, &self.kind).map_err(failed)
    }
}

/// The version that objects come from.
fn of(objects: &[Value]) -> &str {
    objects.first().and_then(|o| o["apiVersion"].as_str()).unwrap_or_default()
}

/// The objects of a response, if they are what was asked for.
fn converted(response: &Value, uid: &str, objects: &[Value], to: &str, kind: &str) -> Result<Vec<Value>, String> {
    if response["uid"] != *uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].as_str().unwrap_or_default()));
    }
    if response["result"]["status"] != "Success" {
        let message = response["result"]["message"].as_str().filter(|m| !m.is_empty());
        return Err(message.unwrap_or("the webhook gave no reason").to_owned());
    }
    let answered = response["convertedObjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if answered.len() != objects.len() {
        return Err(format!("webhook returned {} objects, expected {}", answered.len(), objects.len()));
    }
    let one = |(index, (before, after)): (usize, (&Value, &Value))| {
        let invalid = |what: String| format!("webhook returned invalid converted object at index {index}: {what}");
        if after["apiVersion"] != *to {
            return Err(invalid(format!("invalid apiVersion: expected {to}, got {}", after["apiVersion"])));
        }
        if after["kind"] != *kind {
            return Err(invalid(format!("invalid kind: expected {kind}, got {}", after["kind"])));
        }
        let mut object = after.clone();
        let mut metadata = before["metadata"].clone();
        for field in ["labels", "annotations"] {
            match after["metadata"].get(field) {
                Some(value) => metadata[field] = value.clone(),
                None => drop(metadata.as_object_mut().map(|m| m.remove(field))),
            }
        }
        object["metadata"] = metadata;
        Ok(object)
    };
    objects.iter().zip(answered).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_taken_and_identity_is_kept() {
        let before = [json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "uid": "u", "labels": {"a": "1"}}, "spec": {"x": 1}})];
        let after = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "other", "annotations": {"b": "2"}}, "spec": {"y": 1}});
        let response = |objects: Value| json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects});
        let of = |response: &Value| converted(response, "1", &before, "g/v2", "K");
        assert_eq!(
            of(&response(json!([after]))).unwrap(),
            [json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "n", "uid": "u", "annotations": {"b": "2"}}, "spec": {"y": 1}})]
        );
        assert!(of(&response(json!([]))).unwrap_err().contains("0 objects, expected 1"));
        assert!(of(&response(json!([before[0]]))).unwrap_err().contains("invalid apiVersion"));
        let refused = json!({"uid": "1", "result": {"status": "Failure", "message": "no way"}});
        assert_eq!(of(&refused).unwrap_err(), "no way");
    }
}
