//! Subresources through which one part of an object is written and nothing else: ephemeral containers, in-place resize, a namespace's
//! finalizers, a certificate request's approval.
//!
//! Owns which part that is; a new one is one line in [`keep`].

use http::StatusCode;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shared::field::ErrorList;
use shared::status::{ApiError, GroupResource};

use crate::api::chain::Call;
use crate::api::negotiate::{self, Accepted};
use crate::api::verbs::{self, Patch, options};
use crate::api::{Body, Response};
use crate::registry::certificates::certificate_signing_request;
use crate::registry::core::pod::subresources as rules;
use crate::registry::store::{Current, Decoded, Tracking, decode};
use crate::registry::{ApiObject, Object, Resource};

/// get, update and patch of a part.
///
/// # Errors
/// 404, 409 for a stale resourceVersion, 422 for a change of anything that the part does not allow.
pub async fn handle(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let info = call.info;
    if info.verb == "get" {
        let version = info.param("resourceVersion").unwrap_or_default();
        let entry = call.server.store.get(row, &info.namespace, &info.name, version).await?;
        return verbs::answer(StatusCode::OK, accepted, row, &entry, &[]);
    }
    let (source, writing) = if info.verb == "patch" {
        let patch = Patch::read(call, body).await?;
        let writing = options::writing(call, "PatchOptions", patch.is_apply())?;
        (Source::Patch(patch), writing)
    } else {
        let writing = options::writing(call, "UpdateOptions", false)?;
        let json = negotiate::request_json(&call.parts.headers, body.read().await?)?;
        (Source::Put(decode(row, &json, writing.validation)?), writing)
    };
    let applied = writing.store.tracking == Tracking::Settled;
    let change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), &info.name))?;
        let mut wanted = match &source {
            Source::Put(decoded) => decoded.clone(),
            Source::Patch(patch) => patch.apply(row, Some(current), &info.name, &writing)?,
        };
        // What the part has been given is completed before it is checked.
        row.ops.default(&mut wanted.object);
        let mut object = current.object.clone();
        keep(&info.subresource, &mut object, &wanted.object)?;
        let version = wanted.object.meta_mut().resource_version.take();
        let meta = object.meta_mut();
        meta.resource_version = version.filter(|v| !v.is_empty()).or(meta.resource_version.take());
        if applied {
            meta.managed_fields = wanted.object.meta_mut().managed_fields.take();
        }
        Ok(Decoded { object, warnings: wanted.warnings })
    };
    let server = call.server;
    let written = server.store.update(row, &info.namespace, &info.name, &writing.store, &change, &*server.admit).await?;
    verbs::answer(StatusCode::OK, accepted, row, &written.entry, &written.warnings)
}

enum Source {
    Put(Decoded),
    Patch(Patch),
}

/// Takes the part that a subresource is about from `wanted` into `object`, which is otherwise as it is stored.
fn keep(subresource: &str, object: &mut Object, wanted: &Object) -> Result<(), ApiError> {
    match subresource {
        "ephemeralcontainers" => pod_part(object, wanted, rules::prepare_for_ephemeral_containers, rules::validate_ephemeral_containers),
        "resize" => pod_part(object, wanted, rules::prepare_for_resize, rules::validate_resize),
        "finalize" => {
            let (object, wanted) = both::<Namespace>(object, wanted)?;
            object.spec.get_or_insert_default().finalizers = wanted.spec.as_ref().and_then(|s| s.finalizers.clone());
            Ok(())
        }
        _ => {
            let (stored, wanted) = both::<CertificateSigningRequest>(object, wanted)?;
            let mut new = CertificateSigningRequest { metadata: stored.metadata.clone(), ..wanted.clone() };
            certificate_signing_request::prepare_for_approval(&mut new, stored);
            let now = Time(k8s_openapi::jiff::Timestamp::now());
            for condition in new.status.iter_mut().filter_map(|s| s.conditions.as_mut()).flatten() {
                condition.last_update_time.get_or_insert_with(|| now.clone());
                condition.last_transition_time.get_or_insert_with(|| now.clone());
            }
            let errors = certificate_signing_request::conditions(&new);
            if !errors.is_empty() {
                let kind = GroupResource { group: "certificates.k8s.io", resource: "CertificateSigningRequest" };
                return Err(ApiError::invalid(kind, stored.metadata.name.as_deref().unwrap_or_default(), &errors));
            }
            *stored = new;
            Ok(())
        }
    }
}

/// Both objects as what the row says they are.
fn both<'a, T: ApiObject>(object: &'a mut Object, wanted: &'a Object) -> Result<(&'a mut T, &'a T), ApiError> {
    let pair = object.downcast_mut().zip(wanted.downcast_ref());
    pair.ok_or_else(|| ApiError::internal("an object of another kind"))
}

/// A part of a pod, by the pod's own rules.
fn pod_part(object: &mut Object, wanted: &Object, prepare: fn(&mut Pod, &Pod), validate: fn(&Pod, &Pod) -> ErrorList) -> Result<(), ApiError> {
    let (stored, wanted) = both::<Pod>(object, wanted)?;
    let mut new = Pod { metadata: stored.metadata.clone(), ..wanted.clone() };
    prepare(&mut new, stored);
    let errors = validate(&new, stored);
    if !errors.is_empty() {
        let name = stored.metadata.name.as_deref().unwrap_or_default();
        return Err(ApiError::invalid(GroupResource { group: "", resource: "Pod" }, name, &errors));
    }
    if new.spec != stored.spec {
        new.metadata.generation = Some(new.metadata.generation.unwrap_or(0) + 1);
    }
    *stored = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(image: &str, ephemeral: serde_json::Value) -> Object {
        let spec = json!({"containers": [{"name": "a", "image": image}], "ephemeralContainers": ephemeral});
        let mut object = Object::new::<Pod>(serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap());
        crate::registry::RESOURCES.of::<Pod>().unwrap().ops.default(&mut object);
        object
    }

    #[test]
    fn ephemeral_containers_are_taken_and_nothing_else_is() {
        let mut stored = pod("x", json!([]));
        let debug = json!([{"name": "e", "image": "y", "terminationMessagePolicy": "File"}]);
        keep("ephemeralcontainers", &mut stored, &pod("changed", debug)).unwrap();
        let stored: &Pod = stored.downcast_ref().unwrap();
        let spec = stored.spec.as_ref().unwrap();
        assert_eq!((spec.containers[0].image.as_deref(), stored.metadata.generation), (Some("x"), Some(1)));
        assert_eq!(spec.ephemeral_containers.as_ref().unwrap()[0].name, "e");
    }

    #[test]
    fn an_ephemeral_container_that_is_there_stays() {
        let debug = json!([{"name": "e", "image": "y", "terminationMessagePolicy": "File"}]);
        let error = keep("ephemeralcontainers", &mut pod("x", debug), &pod("x", json!([]))).unwrap_err();
        assert!(error.to_string().contains("may not be removed"), "{error}");
    }

    #[test]
    fn finalizing_a_namespace_changes_its_finalizers_only() {
        let of = |value| Object::new::<Namespace>(serde_json::from_value(value).unwrap());
        let mut stored = of(json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"finalizers": ["kubernetes"]}}));
        keep("finalize", &mut stored, &of(json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}}))).unwrap();
        let stored: &Namespace = stored.downcast_ref().unwrap();
        assert_eq!(stored.spec.as_ref().unwrap().finalizers, Some(Vec::new()));
        assert_eq!(stored.metadata.labels.as_ref().unwrap().len(), 1);
    }
}
