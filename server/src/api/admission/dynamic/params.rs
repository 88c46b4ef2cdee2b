//! The parameters that a binding gives to a policy: objects of any stored kind (`k8s.io/apiserver/pkg/admission/plugin/policy/generic`).

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use serde_json::Value;
use shared::selector::Selector;

use super::matching::Target;
use crate::api::admission::Context;
use crate::cache::Entry;
use crate::registry::{RESOURCES, Resource};

/// The parameters to evaluate with, `None` for an evaluation without. Empty when there are none and that is no reason to refuse.
///
/// # Errors
/// What is wrong with the configuration, in upstream's words.
pub(in crate::api::admission) async fn collect(
    context: &Context,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    target: &Target<'_>,
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let (api_version, name) = (kind.api_version.as_deref().unwrap_or_default(), kind.kind.as_deref().unwrap_or_default());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let rows: &'static crate::registry::Registry = &RESOURCES;
    let row = rows.find_kind(group, version, name);
    let row = row.ok_or_else(|| format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{name},}}` not known"))?;
    let namespace = namespace(row, reference, target)?;
    let params = match (reference.name.as_deref().filter(|n| !n.is_empty()), &reference.selector) {
        (Some(_), Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (Some(name), None) => named(context, row, namespace, name).await?.into_iter().collect(),
        (None, Some(selector)) => {
            let selector = Selector::from_label_selector(Some(selector)).map_err(|e| e.to_string())?;
            selected(context, row, namespace, &selector)?
        }
        (None, None) => return Err("one of name or selector must be provided".into()),
    };
    if params.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(params.into_iter().map(Some).collect())
}

fn namespace<'a>(row: &Resource, reference: &'a ParamRef, target: &Target<'a>) -> Result<&'a str, String> {
    let given = reference.namespace.as_deref().unwrap_or_default();
    match (row.namespaced, given) {
        (false, "") => Ok(""),
        (false, _) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if target.namespace.is_empty() => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into())
        }
        (true, "") => Ok(target.namespace),
        (true, given) => Ok(given),
    }
}

async fn named(context: &Context, row: &'static Resource, namespace: &str, name: &str) -> Result<Option<Value>, String> {
    let objects = context.reader.objects();
    let get = || objects.get(row, namespace, name).map_err(|e| e.to_string());
    let found = match get()? {
        Some(found) => Some(found),
        None => {
            // Parameters are often made just before what they are for.
            objects.refresh().await.map_err(|e| e.to_string())?;
            get()?
        }
    };
    found.map(|entry| decode(&entry)).transpose()
}

fn selected(context: &Context, row: &'static Resource, namespace: &str, selector: &Selector) -> Result<Vec<Value>, String> {
    let mut out = Vec::new();
    for entry in context.reader.objects().list(row, namespace).map_err(|e| e.to_string())? {
        let object = decode(&entry)?;
        let labels: std::collections::BTreeMap<String, String> = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
        if selector.matches(&labels) {
            out.push(object);
        }
    }
    Ok(out)
}

fn decode(entry: &Entry) -> Result<Value, String> {
    serde_json::from_slice(&entry.bytes).map_err(|e| e.to_string())
}
