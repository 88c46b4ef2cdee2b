//! Kinds that are stored in one version and served in another as well: `events.k8s.io/v1` shows the core group's Events under other names
//! (`pkg/apis/events/v1/conversion.go`), `autoscaling/v1` the autoscalers of v2.
//!
//! Owns the translation of bodies at the edge. The stored kind does all the rest.

mod autoscaling;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};
use shared::patch::strategic;
use shared::status::ApiError;

use super::chain::Call;
use super::negotiate::{self, Accepted, Shape};
use super::request_info::RequestInfo;
use super::{Body, Response, respond, verbs};
use crate::registry::store::yaml_to_json;
use crate::registry::{RESOURCES, Resource, STATUS, Subresource};
use verbs::Patch;

/// Another version of a stored kind. Verbs, scope and names are the stored kind's.
pub struct View {
    /// API group that it is served in.
    pub group: &'static str,
    /// API version that it is served in.
    pub version: &'static str,
    /// Group, version and plural of the stored kind.
    pub stored: (&'static str, &'static str, &'static str),
    /// Its OpenAPI schema.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// Fields with other names: as they are served, and as they are stored.
    fields: &'static [(&'static str, &'static str)],
    /// Fields that are served as `null` when nothing is stored: Go has no way to leave them out.
    nulls: &'static [&'static str],
    /// Where more than names differ.
    convert: Option<Convert>,
    /// Subresources that it has of the stored kind's.
    pub subresources: &'static [Subresource],
}

/// A translation of whole objects.
struct Convert {
    store: fn(&mut Map<String, Value>),
    serve: fn(&mut Map<String, Value>),
}

/// Every view. One entry each.
pub static VIEWS: &[View] = &[
    View {
        group: "events.k8s.io",
        version: "v1",
        stored: ("", "v1", "events"),
        schema: |generator| generator.subschema_for::<k8s_openapi::api::events::v1::Event>(),
        fields: &[
            ("note", "message"),
            ("regarding", "involvedObject"),
            ("reportingController", "reportingComponent"),
            ("deprecatedSource", "source"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
        ],
        nulls: &["eventTime"],
        convert: None,
        subresources: &[],
    },
    View {
        group: "autoscaling",
        version: "v1",
        stored: ("autoscaling", "v2", "horizontalpodautoscalers"),
        schema: |generator| generator.subschema_for::<k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler>(),
        fields: &[],
        nulls: &[],
        convert: Some(Convert { store: autoscaling::store, serve: autoscaling::serve }),
        subresources: &[STATUS],
    },
];

impl View {
    /// The view that a path names.
    pub fn find(info: &RequestInfo) -> Option<&'static View> {
        VIEWS.iter().find(|v| v.group == info.group && v.version == info.version && v.stored.2 == info.resource)
    }

    /// The stored kind.
    pub fn row(&self) -> Option<&'static Resource> {
        let (group, version, plural) = self.stored;
        RESOURCES.find(group, version, plural)
    }

    fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// A whole object, or a patch of one, as it is stored.
    fn store(&self, row: &Resource, value: &mut Value) {
        if let Some(map) = value.as_object_mut() {
            rename(map, self.fields.iter().copied());
            if let Some(convert) = &self.convert {
                (convert.store)(map);
            }
            version(map, &self.api_version(), &row.api_version());
        }
    }

    /// An object, or the items of a list, as they are served.
    fn serve(&self, row: &Resource, value: &mut Value) {
        let Some(map) = value.as_object_mut() else { return };
        if map.get("kind").is_some_and(|k| k == "Status") {
            return;
        }
        match map.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => items.iter_mut().for_each(|item| self.serve(row, item)),
            None => {
                rename(map, self.fields.iter().map(|(served, stored)| (*stored, *served)));
                for name in self.nulls {
                    map.entry(*name).or_insert(Value::Null);
                }
                if let Some(convert) = &self.convert {
                    (convert.serve)(map);
                }
            }
        }
        version(map, &row.api_version(), &self.api_version());
    }

    /// A path of a JSON patch, or of a field selector with dots.
    fn store_path(&self, path: &str, separator: char) -> String {
        let (first, rest) = path.split_once(separator).map_or((path, None), |(first, rest)| (first, Some(rest)));
        let stored = self.fields.iter().find(|(served, _)| *served == first).map_or(first, |(_, stored)| stored);
        rest.map_or_else(|| stored.to_owned(), |rest| format!("{stored}{separator}{rest}"))
    }
}

fn rename<'a>(map: &mut Map<String, Value>, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn version(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(found) = map.get_mut("apiVersion").filter(|v| *v == from) {
        *found = to.into();
    }
}

/// Answers a request for a view.
///
/// # Errors
/// Whatever the stored kind's verb says.
pub async fn handle(call: &Call<'_>, view: &'static View, body: Body) -> Result<Response, ApiError> {
    let row = view.row().ok_or_else(ApiError::unknown_path)?;
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let mut info = call.info.clone();
    (info.group, info.version) = (row.group.to_owned(), row.version.to_owned());
    for (_, value) in info.query.iter_mut().filter(|(name, _)| name == "fieldSelector") {
        *value = value.split(',').map(|term| view.store_path(term, '.')).collect::<Vec<_>>().join(",");
    }
    let mut parts = call.parts.clone();
    // Tables and metadata are the same in both versions.
    let same = accepted.shape != Shape::Object;
    if !same {
        parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    }
    let response = if info.verb == "patch" && view.convert.is_some() && negotiate::media_type(&parts.headers) != "application/apply-patch+yaml" {
        let patch = Patch::read(call, body).await?;
        patched(call, view, row, &patch, info.clone(), parts).await?
    } else {
        let body = incoming(view, row, info.verb, &mut parts.headers, body).await?;
        inner(&Call { server: call.server, info: &info, user: call.user, parts: &parts }, row, body).await?
    };
    match info.verb {
        _ if same => Ok(response),
        "watch" => Ok(watched(view, row, accepted, response)),
        _ => answered(view, row, accepted, response),
    }
}

/// The stored kind's verb.
async fn inner(call: &Call<'_>, row: &'static Resource, body: Body) -> Result<Response, ApiError> {
    if call.info.subresource == "status" { verbs::handle_status(call, row, body).await } else { verbs::handle(call, row, body).await }
}

/// How often a patch is tried again when somebody else wrote in between (upstream's `MaxRetryWhenPatchConflicts`).
const PATCH_TRIES: usize = 5;

/// Patches an object in a version that differs by more than names: what is stored is shown, patched, and taken back.
async fn patched(
    call: &Call<'_>,
    view: &View,
    row: &'static Resource,
    patch: &Patch,
    mut info: RequestInfo,
    mut parts: http::request::Parts,
) -> Result<Response, ApiError> {
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut tries = 1;
    loop {
        info.verb = "get";
        let stored = inner(&Call { server: call.server, info: &info, user: call.user, parts: &parts }, row, Body::empty()).await?;
        let mut shown: Value = serde_json::from_slice(&stored.into_body().read().await?).map_err(ApiError::internal)?;
        view.serve(row, &mut shown);
        let before = shown["metadata"]["resourceVersion"].clone();
        let mut wanted = patch.apply_to(shown, strategic::Type::of(&view.api_version(), row.kind))?;
        let ours = wanted["metadata"]["resourceVersion"] == before;
        view.store(row, &mut wanted);
        info.verb = "update";
        let body = Body::from(wanted.to_string());
        match inner(&Call { server: call.server, info: &info, user: call.user, parts: &parts }, row, body).await {
            Err(error) if error.code() == 409 && ours && tries < PATCH_TRIES => tries += 1,
            answer => return answer,
        }
    }
}

/// The body in the stored kind's terms.
async fn incoming(view: &View, row: &Resource, verb: &str, headers: &mut HeaderMap, body: Body) -> Result<Body, ApiError> {
    let bytes = match verb {
        "create" | "update" => {
            let json = negotiate::request_json(headers, body.read().await?)?;
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            json
        }
        "patch" if negotiate::media_type(headers) == "application/apply-patch+yaml" => yaml_to_json(&body.read().await?)?.into(),
        "patch" => body.read().await?,
        _ => return Ok(body),
    };
    // What is not JSON is refused where that is said in the right words.
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else { return Ok(bytes.into()) };
    match value.as_array_mut() {
        Some(operations) => {
            let members = operations.iter_mut().filter_map(Value::as_object_mut).flatten();
            for (_, value) in members.filter(|(key, _)| matches!(key.as_str(), "path" | "from")) {
                if let Some(path) = value.as_str().and_then(|p| p.strip_prefix('/')) {
                    *value = format!("/{}", view.store_path(path, '/')).into();
                }
            }
        }
        None => view.store(row, &mut value),
    }
    serde_json::to_vec(&value).map(Body::from).map_err(ApiError::internal)
}

/// An answer in the view's terms.
fn answered(view: &View, row: &Resource, accepted: Accepted, response: Response) -> Result<Response, ApiError> {
    let (head, body) = response.into_parts();
    let bytes: Vec<u8> = body.into_chunks().iter().flatten().copied().collect();
    let mut value: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    view.serve(row, &mut value);
    let bytes = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    let mut response = respond::negotiated(head.status, accepted, bytes.into())?;
    for warning in head.headers.get_all(header::WARNING) {
        response.headers_mut().append(header::WARNING, warning.clone());
    }
    Ok(response)
}

/// A watch in the view's terms, event by event.
fn watched(view: &'static View, row: &'static Resource, accepted: Accepted, response: Response) -> Response {
    respond::watch(accepted, respond::each_line(response.into_body(), move |line| event(view, row, line)))
}

fn event(view: &View, row: &Resource, line: &[u8]) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(line) else { return Bytes::copy_from_slice(line) };
    if let Some(object) = value.get_mut("object") {
        view.serve(row, object);
    }
    Bytes::from(format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_versions_under_other_names() {
        let view = &VIEWS[0];
        let row = view.row().unwrap();
        let served = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "n", "reason": "r",
            "regarding": {"kind": "Pod"}, "reportingController": "c", "deprecatedCount": 2, "eventTime": null,
        });
        let stored = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "n", "reason": "r",
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "c", "count": 2, "eventTime": null,
        });
        let mut value = served.clone();
        view.store(row, &mut value);
        assert_eq!(value, stored);
        view.serve(row, &mut value);
        assert_eq!(value, served);
        let mut list = json!({"apiVersion": "v1", "kind": "EventList", "items": [{"message": "n"}]});
        view.serve(row, &mut list);
        assert_eq!(list, json!({"apiVersion": "events.k8s.io/v1", "kind": "EventList", "items": [{"note": "n", "eventTime": null}]}));
        let mut status = json!({"apiVersion": "v1", "kind": "Status", "message": "m"});
        view.serve(row, &mut status);
        assert_eq!(status, json!({"apiVersion": "v1", "kind": "Status", "message": "m"}));
        assert_eq!(view.store_path("regarding.kind=Pod", '.'), "involvedObject.kind=Pod");
        assert_eq!(view.store_path("note", '/'), "message");
        let line = event(view, row, b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Event\",\"apiVersion\":\"v1\",\"message\":\"n\"}}\n");
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["object"], json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "note": "n", "eventTime": null}));
    }
}
