//! patch: JSON patch, merge patch, strategic merge patch and server-side apply
//! (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).
//!
//! Owns the media types and the errors. The patches themselves are pure functions in `shared`.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use shared::patch::{PatchError, json, strategic};
use shared::status::ApiError;

use super::options::Writing;
use super::{answer, options};
use crate::api::chain::Call;
use crate::api::negotiate::{self, Accepted};
use crate::api::{Body, Response};
use crate::registry::Resource;
use crate::registry::store::{self, Current, Decoded, decode, yaml_to_json};

/// Media types of patches.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json";

/// How a patch is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A patch as it was sent.
pub struct Patch {
    kind: Kind,
    bytes: Bytes,
}

impl Patch {
    /// Reads a request's patch.
    ///
    /// # Errors
    /// 415 for another media type, 400 for YAML that cannot be read, 413.
    pub async fn read(call: &Call<'_>, body: Body) -> Result<Self, ApiError> {
        let kind = match negotiate::media_type(&call.parts.headers) {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            "application/apply-patch+yaml" => Kind::Apply,
            _ => {
                let text = format!("the body of the request was in an unknown format - accepted media types include: {ACCEPTED}");
                return Err(ApiError::unsupported_media_type(text));
            }
        };
        let bytes = body.read().await?;
        let bytes = if kind == Kind::Apply { yaml_to_json(&bytes)?.into() } else { bytes };
        Ok(Patch { kind, bytes })
    }

    /// Whether it is a server-side apply.
    pub fn is_apply(&self) -> bool {
        self.kind == Kind::Apply
    }

    /// The patch itself; of a server-side apply, as JSON.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The object that the patch makes of the stored one.
    ///
    /// # Errors
    /// 404 without one (but for a server-side apply), 400 for a patch that is none, 422 for one that does not fit, 409 for an apply that
    /// changes what others own.
    pub fn apply(&self, row: &'static Resource, current: Option<&Current>, name: &str, writing: &Writing<'_>) -> Result<Decoded, ApiError> {
        if self.is_apply() {
            return store::apply(row, &writing.store, current, &self.bytes);
        }
        let current = current.ok_or_else(|| ApiError::not_found(row.group_resource(), name))?;
        let document: Value = serde_json::from_slice(&current.entry.bytes).map_err(ApiError::internal)?;
        let patched = self.apply_to(document, strategic::Type::of(&row.api_version(), row.kind))?;
        decode(row, &serde_json::to_vec(&patched).map_err(ApiError::internal)?, writing.validation)
    }

    /// The same for an object that is not stored, such as a Scale.
    ///
    /// # Errors
    /// 400 for a patch that is none, 422 for one that does not fit, 415 for a server-side apply.
    pub fn apply_to(&self, document: Value, of: strategic::Type) -> Result<Value, ApiError> {
        let patched = match self.kind {
            Kind::Json => json::apply_json_patch(document, &self.bytes),
            Kind::Merge => json::apply_merge_patch(document, &self.bytes),
            Kind::Strategic => {
                let patch = serde_json::from_slice(&self.bytes).map_err(|e| malformed(&e))?;
                strategic::apply(document, patch, of)
            }
            Kind::Apply => return Err(ApiError::unsupported_media_type("server-side apply is not supported on this subresource")),
        };
        patched.map_err(|error| match error {
            PatchError::Malformed(text) => malformed(&text),
            PatchError::Rejected(_) => rejected(),
        })
    }
}

fn malformed(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// What upstream's generic response says of a patch that does not fit: not why.
fn rejected() -> ApiError {
    ApiError::new(422, "Invalid", "the server rejected our request due to an error in our request")
}

pub(super) async fn handle(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let patch = Patch::read(call, body).await?;
    let writing = options::writing(call, "PatchOptions", patch.is_apply())?;
    let (server, info) = (call.server, call.info);
    let change = |current: Option<&Current>| patch.apply(row, current, &info.name, &writing);
    let written = server.store.update(row, &info.namespace, &info.name, &writing.store, &change, &*server.admit).await?;
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(code, accepted, row, &written.entry, &written.warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patch(kind: Kind, body: &Value) -> Patch {
        Patch { kind, bytes: body.to_string().into() }
    }

    #[test]
    fn each_kind_of_patch_does_what_it_says() {
        let pod = strategic::Type::of("v1", "Pod");
        let document = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
        let one = json!({"spec": {"containers": [{"name": "b", "image": "z"}]}});
        let merged = patch(Kind::Merge, &one).apply_to(document.clone(), pod).unwrap();
        assert_eq!(merged, one, "a merge patch replaces lists");
        let strategic = patch(Kind::Strategic, &one).apply_to(document.clone(), pod).unwrap();
        assert_eq!(strategic["spec"]["containers"][0]["name"], "a");
        assert_eq!(strategic["spec"]["containers"][1]["image"], "z");
        let json = patch(Kind::Json, &json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "n"}])).apply_to(document.clone(), pod);
        assert_eq!(json.unwrap()["spec"]["containers"][0]["image"], "n");
    }

    #[test]
    fn a_patch_that_is_none_is_400_and_one_that_does_not_fit_is_422() {
        let pod = strategic::Type::of("v1", "Pod");
        for kind in [Kind::Merge, Kind::Json, Kind::Strategic] {
            let broken = Patch { kind, bytes: "{".into() };
            assert_eq!(broken.apply_to(json!({}), pod).unwrap_err().code(), 400, "{kind:?}");
        }
        let failing = json!([{"op": "test", "path": "/a", "value": 1}]);
        let error = patch(Kind::Json, &failing).apply_to(json!({"a": 2}), pod).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (422, "the server rejected our request due to an error in our request"));
    }
}
