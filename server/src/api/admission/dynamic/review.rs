//! The conversation with a webhook: an AdmissionReview each way (`k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`,
//! `…/errors/statuserror.go`).
//!
//! Owns what is asked, what counts as an answer, and the errors' words. Must never change the object: it returns the patch.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::json;
use shared::status::ApiError;

use super::metrics;
use super::request::Request;
use super::transport::{Address, Answer, Pool};
use crate::api::objects::Reader;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;

/// One webhook, of either sort.
#[derive(Clone, Copy)]
pub(in crate::api::admission) struct Hook<'a> {
    pub(in crate::api::admission) name: &'a str,
    pub(in crate::api::admission) client: &'a WebhookClientConfig,
    pub(in crate::api::admission) timeout: Option<i32>,
    pub(in crate::api::admission) side_effects: &'a str,
    pub(in crate::api::admission) mutating: bool,
}

/// How a call ended when it did not let the write through.
#[derive(Debug)]
pub(in crate::api::admission) enum Refusal {
    /// The webhook said no.
    Denied(ApiError),
    /// It could not be asked, or its answer is none: the failure policy decides.
    Failed(String),
    /// It is not to be asked, or wanted what cannot be, whatever the failure policy.
    Error(ApiError),
}

/// What a webhook that lets the write through has to say.
#[derive(Debug, Default)]
pub(in crate::api::admission) struct Verdict {
    /// A JSON patch.
    pub(in crate::api::admission) patch: Option<Vec<u8>>,
    pub(in crate::api::admission) warnings: Vec<String>,
    /// `<webhook>/<key>` and text, for the audit log.
    pub(in crate::api::admission) annotations: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    audit_annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

/// Asks a webhook. Its warnings count whether it allows or denies.
pub(in crate::api::admission) async fn call(
    pool: &Pool,
    reader: &Reader,
    hook: Hook<'_>,
    request: &Request,
    warnings: &mut Vec<String>,
) -> Result<Verdict, Refusal> {
    let dry_run = request.head["dryRun"] == true;
    if dry_run && !matches!(hook.side_effects, "None" | "NoneOnDryRun") {
        return Err(Refusal::Error(ApiError::bad_request(format!("admission webhook {:?} does not support dry run", hook.name))));
    }
    let started = tokio::time::Instant::now();
    let asked = ask(pool, reader, hook, request).await;
    let result = asked.map_err(|reason| Refusal::Failed(format!("failed calling webhook {:?}: {reason}", hook.name))).and_then(|response| {
        let verdict = Verdict {
            annotations: response.audit_annotations.into_iter().flatten().map(|(k, v)| (format!("{}/{k}", hook.name), v)).collect(),
            warnings: response.warnings.unwrap_or_default(),
            patch: None,
        };
        warnings.extend(verdict.warnings.iter().cloned());
        if !response.allowed {
            return Err(Refusal::Denied(denied(hook.name, response.status)));
        }
        let patch = response.patch.map(|p| STANDARD.decode(p)).transpose();
        let patch = patch.map_err(|e| Refusal::Error(ApiError::internal(e)))?;
        Ok(Verdict { patch: patch.filter(|p| !p.is_empty()), ..verdict })
    });
    metrics::observe(hook.name, if hook.mutating { "admit" } else { "validate" }, &request.head["operation"], result.is_err(), started.elapsed());
    result
}

async fn ask(pool: &Pool, reader: &Reader, hook: Hook<'_>, request: &Request) -> Result<Response, String> {
    let address = Address::of(hook.client).map_err(|e| format!("could not get REST client: {e}"))?;
    let uid = uuid::Uuid::new_v4().to_string();
    let body = encode(&uid, request).map_err(|e| format!("could not create admission objects: {e}"))?;
    let seconds = u64::try_from(hook.timeout.unwrap_or(10)).unwrap_or(10);
    let posted = tokio::time::timeout(Duration::from_secs(seconds), pool.post(reader, &address, seconds, body)).await;
    let failed = |why: &str| format!("failed to call webhook: Post {:?}: {why}", address.url(seconds));
    let answer = posted.map_err(|_| failed("context deadline exceeded"))?.map_err(|e| failed(&e))?;
    let review = decode(&answer).map_err(|e| format!("failed to call webhook: {e}"))?;
    verify(&uid, hook.mutating, review).map_err(|e| format!("received invalid webhook response: {e}"))
}

fn encode(uid: &str, request: &Request) -> Result<Bytes, serde_json::Error> {
    let mut inner = request.head.clone();
    inner["uid"] = uid.into();
    inner["object"] = request.object.clone();
    inner["oldObject"] = request.old.clone();
    serde_json::to_vec(&json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": inner})).map(Bytes::from)
}

/// An answer as client-go reads it.
fn decode(answer: &Answer) -> Result<Review, String> {
    let text = String::from_utf8_lossy(&answer.body);
    if !answer.status.is_success() {
        return Err(match answer.status.as_u16() {
            404 => "the server could not find the requested resource".into(),
            429 => "the server has received too many requests and has asked us to try again later".into(),
            500.. => format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim()),
            _ => format!("the server rejected our request for an unknown reason ({})", answer.status),
        });
    }
    serde_json::from_slice(&answer.body).map_err(|e| {
        let start: String = text.chars().take(64).collect();
        format!("couldn't get version/kind; json parse error: {e}, in {start:?}")
    })
}

fn verify(uid: &str, mutating: bool, review: Review) -> Result<Response, String> {
    let Some(response) = review.response else { return Err("webhook response was absent".into()) };
    if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
        let (group, version) = review.api_version.split_once('/').unwrap_or(("", &review.api_version));
        let got = format!("{group}/{version}, Kind={}", review.kind);
        return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}"));
    }
    if response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    let patch = response.patch.as_deref().is_some_and(|p| !p.is_empty());
    match (mutating, patch, response.patch_type.as_deref()) {
        (false, true, _) => Err("validating webhook may not return response.patch".into()),
        (false, _, Some(_)) => Err("validating webhook may not return response.patchType".into()),
        (true, true, None) => Err("webhook returned response.patch but not response.patchType".into()),
        (true, true, Some(other)) if other != "JSONPatch" => Err(format!("webhook returned invalid response.patchType of {other:?}")),
        (true, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".into()),
        _ => Ok(response),
    }
}

/// Upstream's `ToStatusErr`.
fn denied(name: &str, status: Option<Status>) -> ApiError {
    let mut status = status.unwrap_or_default();
    if status.code.is_none_or(|c| c < 400) {
        status.code = Some(400);
    }
    if status.status.as_deref().is_none_or(|s| s.is_empty() || s == "Success") {
        status.status = Some("Failure".into());
    }
    let text = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let by = format!("admission webhook {name:?} denied the request");
    status.message = Some(match text(&status.message).or_else(|| text(&status.reason)) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    });
    Box::new(status).into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn checked(mutating: bool, review: Value) -> Result<bool, String> {
        verify("u", mutating, serde_json::from_value(review).unwrap()).map(|r| r.allowed)
    }

    fn review(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn answers_are_checked_as_upstream_does() {
        assert_eq!(checked(true, review(json!({"uid": "u", "allowed": true}))), Ok(true));
        for (mutating, given, expected) in [
            (true, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}), "webhook response was absent"),
            (true, review(json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (
                true,
                json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u"}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod",
            ),
            (true, review(json!({"uid": "u", "patch": "W10="})), "webhook returned response.patch but not response.patchType"),
            (true, review(json!({"uid": "u", "patch": "W10=", "patchType": "X"})), "webhook returned invalid response.patchType of \"X\""),
            (false, review(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"})), "validating webhook may not return response.patch"),
        ] {
            assert_eq!(checked(mutating, given), Err(expected.to_owned()));
        }
    }

    #[test]
    fn denials_keep_the_webhooks_code_and_reason() {
        let of = |status: Option<Value>| {
            let error = denied("h.example.com", status.map(|s| serde_json::from_value(s).unwrap()));
            (error.code(), error.reason().to_owned(), error.to_string())
        };
        let by = "admission webhook \"h.example.com\" denied the request";
        assert_eq!(of(None), (400, String::new(), format!("{by} without explanation")));
        assert_eq!(of(Some(json!({"code": 403, "message": "no"}))), (403, String::new(), format!("{by}: no")));
        assert_eq!(of(Some(json!({"code": 200, "reason": "Bad"}))), (400, "Bad".into(), format!("{by}: Bad")));
    }
}
