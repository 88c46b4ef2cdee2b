//! Admission of what is no write of an object in the store: evictions, tokens, connections (`rest.CreaterUpdater` of subresources,
//! `k8s.io/apiserver/pkg/endpoints/handlers/rest.go`, `ConnectResource`).
//!
//! Owns what such a request looks like to admission. Must never decide anything.

use serde_json::{Map, Value, json};
use shared::status::ApiError;

use crate::api::chain::Call;
use crate::registry::admit::{Attributes, Operation, Reinvocation};
use crate::registry::{Object, Resource};

/// A request on a part of an object.
pub(super) struct Part<'a> {
    pub(super) operation: Operation,
    pub(super) subresource: &'a str,
    pub(super) dry_run: bool,
    /// The object that is sent, e.g. an Eviction.
    pub(super) object: Option<&'a mut Object>,
    /// What a connection is asked for.
    pub(super) options: Option<&'a Value>,
}

/// Asks admission, both phases. Returns its warnings.
///
/// # Errors
/// The refusal.
pub(super) async fn admitted(call: &Call<'_>, row: &'static Resource, part: Part<'_>) -> Result<Vec<String>, ApiError> {
    let (mut writes, mut held, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut attributes = Attributes {
        operation: part.operation,
        resource: row,
        subresource: part.subresource,
        namespace: &call.info.namespace,
        name: &call.info.name,
        user: call.user,
        dry_run: part.dry_run,
        field_manager: "",
        options: part.options,
        object: part.object,
        old: None,
        writes: &mut writes,
        held: &mut held,
        warnings: &mut warnings,
        reinvocation: Reinvocation::default(),
    };
    let asked = match call.server.admit.mutate(&mut attributes).await {
        Ok(()) => call.server.admit.validate(&mut attributes).await,
        refused => refused,
    };
    drop(attributes);
    asked.map_err(|error| error.warned(std::mem::take(&mut warnings)))?;
    Ok(warnings)
}

/// Asks admission whether a connection may be opened.
///
/// # Errors
/// The refusal.
pub(super) async fn connection(call: &Call<'_>, row: &'static Resource, subresource: &str) -> Result<(), ApiError> {
    let options = options(call, row, subresource);
    let part = Part { operation: Operation::Connect, subresource, dry_run: false, object: None, options: Some(&options) };
    admitted(call, row, part).await.map(drop)
}

/// The query of a connection as its options object.
fn options(call: &Call<'_>, row: &Resource, subresource: &str) -> Value {
    let mut out = Map::new();
    let kind = match (row.plural, subresource) {
        (_, "exec") => "PodExecOptions",
        (_, "attach") => "PodAttachOptions",
        (_, "portforward") => "PodPortForwardOptions",
        ("pods", _) => "PodProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    out.insert("kind".into(), kind.into());
    out.insert("apiVersion".into(), "v1".into());
    let info = call.info;
    match subresource {
        "exec" | "attach" => {
            for flag in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|f| info.flag(f)) {
                out.insert(flag.into(), true.into());
            }
            if let Some(container) = info.param("container").filter(|c| !c.is_empty()) {
                out.insert("container".into(), container.into());
            }
            let command: Vec<&str> = info.params("command").collect();
            if subresource == "exec" {
                out.insert("command".into(), json!(command));
            }
        }
        "portforward" => {
            let ports: Vec<i32> = info.params("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            if !ports.is_empty() {
                out.insert("ports".into(), json!(ports));
            }
        }
        _ if !info.rest.is_empty() => drop(out.insert("path".into(), info.rest.as_str().into())),
        _ => {}
    }
    Value::Object(out)
}
