//! Query parameters and option bodies, as the store takes them
//! (`k8s.io/apimachinery/pkg/apis/meta/internalversion`, `pkg/apis/meta/v1/validation/validation.go`).
//!
//! Owns their names, defaults and errors. Must never touch an object.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use rand::Rng;
use shared::field;
use shared::selector::{FieldSelector, Selector};
use shared::status::{ApiError, GroupResource};

use crate::api::chain::Call;
use crate::api::request_info::RequestInfo;
use crate::registry::Resource;
use crate::registry::store::{DeleteOptions, FieldValidation, ListOptions, Propagation, Tracking, WatchOptions, WriteOptions};

/// Longest watch, in seconds: a day. Clients come back by themselves.
const LONGEST_WATCH: u64 = 86_400;
/// Longest name of a field manager.
const MANAGER_LENGTH: usize = 128;

fn number<T: std::str::FromStr>(info: &RequestInfo, name: &str) -> Result<Option<T>, ApiError> {
    let Some(text) = info.param(name).filter(|t| !t.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

fn selectors(info: &RequestInfo) -> Result<(Selector, FieldSelector), ApiError> {
    let labels = Selector::parse(info.param("labelSelector").unwrap_or_default());
    let labels = labels.map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
    let fields = FieldSelector::parse(info.param("fieldSelector").unwrap_or_default());
    let mut fields = fields.map_err(|e| ApiError::bad_request(e.to_string()))?;
    // The deprecated `/watch/…/name` names its object in the path; that name was authorized, whatever else the selector says.
    let named = fields.terms.iter().any(|(path, value, equals)| path == "metadata.name" && *value == info.name && *equals);
    if !info.name.is_empty() && !named {
        fields.terms.push(("metadata.name".into(), info.name.clone(), true));
    }
    Ok((labels, fields))
}

/// Options of a list, or of a deletion of a collection.
///
/// # Errors
/// 400 for a selector or number that cannot be read.
pub fn list(info: &RequestInfo) -> Result<ListOptions, ApiError> {
    let (labels, fields) = selectors(info)?;
    let text = |name: &str| info.param(name).unwrap_or_default().to_owned();
    let limit = number::<i64>(info, "limit")?.unwrap_or(0);
    // Nothing here waits that long, but nonsense is refused all the same.
    number::<i64>(info, "timeoutSeconds")?;
    if info.param("sendInitialEvents").is_some_and(|v| !v.is_empty()) {
        invalid("ListOptions", &[field::Error::forbidden(&field::Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list")])?;
    }
    Ok(ListOptions {
        namespace: info.namespace.clone(),
        labels,
        fields,
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        limit: usize::try_from(limit).unwrap_or(0),
        continue_token: text("continue"),
    })
}

/// Options of a watch. Without `timeoutSeconds` it lasts between half an hour and an hour, so that clients do not all come back at once.
///
/// # Errors
/// 400 for a selector or number that cannot be read.
pub fn watch(info: &RequestInfo) -> Result<WatchOptions, ApiError> {
    let (labels, fields) = selectors(info)?;
    let text = |name: &str| info.param(name).unwrap_or_default().to_owned();
    let seconds = number::<i64>(info, "timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(|s| s.min(LONGEST_WATCH));
    Ok(WatchOptions {
        namespace: info.namespace.clone(),
        labels,
        fields,
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        allow_bookmarks: info.flag("allowWatchBookmarks"),
        send_initial_events: info.param("sendInitialEvents").map(|_| info.flag("sendInitialEvents")),
        timeout: Duration::from_secs(seconds.unwrap_or_else(|| rand::rng().random_range(1800..3600))),
    })
}

/// Refuses options with upstream's `Invalid`.
fn invalid(kind: &str, errors: &[field::Error]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GroupResource { group: "meta.k8s.io", resource: kind }, "", errors)) }
}

/// `dryRun=All`.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut field::ErrorList) -> bool {
    let mut dry = false;
    for value in values {
        if value != "All" {
            errors.push(field::Error::not_supported(&field::Path::new("dryRun"), [value], &["All"]));
        }
        dry = true;
    }
    dry
}

/// What a create, update or patch may say beside its object.
pub struct Writing<'a> {
    /// For the store.
    pub store: WriteOptions<'a>,
    /// What becomes of unknown and duplicate fields.
    pub validation: FieldValidation,
}

/// Options of a create (`CreateOptions`), update (`UpdateOptions`) or patch (`PatchOptions`); `apply` is whether it is a server-side apply.
///
/// # Errors
/// 422 with upstream's texts.
pub fn writing<'a>(call: &'a Call<'_>, kind: &str, apply: bool) -> Result<Writing<'a>, ApiError> {
    let info = call.info;
    let mut errors = field::ErrorList::new();
    let dry_run = dry_run(info.params("dryRun"), &mut errors);
    let manager = info.param("fieldManager").unwrap_or_default();
    let at = field::Path::new("fieldManager");
    if manager.chars().count() > MANAGER_LENGTH {
        errors.push(field::Error::too_long(&at, MANAGER_LENGTH));
    }
    if let Some((position, c)) = manager.chars().enumerate().find(|(_, c)| c.is_control()) {
        errors.push(field::Error::invalid(&at, manager, &format!("invalid character {c:?} (at position {position})")));
    }
    if apply && manager.is_empty() {
        errors.push(field::Error::required(&at, "is required for apply patch"));
    }
    if !apply && info.param("force").is_some() && kind == "PatchOptions" {
        errors.push(field::Error::forbidden(&field::Path::new("force"), "may not be specified for non-apply patch"));
    }
    let validation = match info.param("fieldValidation").unwrap_or_default() {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            errors.push(field::Error::not_supported(&field::Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        }
    };
    invalid(kind, &errors)?;
    let store = WriteOptions {
        user: call.user,
        dry_run,
        field_manager: if manager.is_empty() { agent(call) } else { manager.to_owned() },
        tracking: if apply { Tracking::Settled } else { Tracking::Update },
        subresource: &info.subresource,
        force: info.flag("force"),
        create: apply && info.subresource.is_empty(),
    };
    Ok(Writing { store, validation })
}

/// The manager of a client that names none: its User-Agent up to the first slash.
fn agent(call: &Call<'_>) -> String {
    let agent = call.parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    agent.split('/').next().unwrap_or_default().chars().take(MANAGER_LENGTH).collect()
}

/// Options of a deletion: the body where there is one, else the query.
///
/// # Errors
/// 400 for a body that is not DeleteOptions, 422 for values that do not go together.
pub fn delete(info: &RequestInfo, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let given = if body.iter().all(u8::is_ascii_whitespace) { from_query(info)? } else { from_body(body)? };
    validated(&given)
}

/// Options of a deletion that came with something else, as with an Eviction.
///
/// # Errors
/// 422 for values that do not go together.
pub fn validated(given: &meta::DeleteOptions) -> Result<DeleteOptions, ApiError> {
    let mut errors = field::ErrorList::new();
    let dry_run = dry_run(given.dry_run.iter().flatten().map(String::as_str), &mut errors);
    let at = field::Path::new("propagationPolicy");
    let propagation_policy = match given.propagation_policy.as_deref() {
        None => None,
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some(other) => {
            errors.push(field::Error::not_supported(&at, other, &["Foreground", "Background", "Orphan", "nil"]));
            None
        }
    };
    if given.propagation_policy.is_some() && given.orphan_dependents.is_some() {
        errors.push(field::Error::invalid(&at, &given.propagation_policy, "orphanDependents and deletionPropagation cannot be both set"));
    }
    invalid("DeleteOptions", &errors)?;
    let preconditions = given.preconditions.as_ref();
    Ok(DeleteOptions {
        grace_period_seconds: given.grace_period_seconds,
        propagation_policy,
        orphan_dependents: given.orphan_dependents,
        uid: preconditions.and_then(|p| p.uid.clone()),
        resource_version: preconditions.and_then(|p| p.resource_version.clone()),
        dry_run,
    })
}

fn from_body(body: &[u8]) -> Result<meta::DeleteOptions, ApiError> {
    let options: meta::DeleteOptions =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("unable to read DeleteOptions: {e}")))?;
    if options.kind.as_deref().is_some_and(|k| !k.is_empty() && k != "DeleteOptions") {
        let kind = options.kind.unwrap_or_default();
        return Err(ApiError::bad_request(format!("decoded object cannot be converted to DeleteOptions: it is a {kind}")));
    }
    Ok(options)
}

fn from_query(info: &RequestInfo) -> Result<meta::DeleteOptions, ApiError> {
    let dry_run: Vec<String> = info.params("dryRun").map(str::to_owned).collect();
    Ok(meta::DeleteOptions {
        grace_period_seconds: number(info, "gracePeriodSeconds")?,
        orphan_dependents: info.param("orphanDependents").map(|_| info.flag("orphanDependents")),
        propagation_policy: info.param("propagationPolicy").map(str::to_owned),
        dry_run: Some(dry_run),
        ..meta::DeleteOptions::default()
    })
}

/// Refuses a body that is about another object than the path.
///
/// # Errors
/// 400 with upstream's texts.
pub fn same_object(info: &RequestInfo, resource: &Resource, meta: &mut meta::ObjectMeta) -> Result<(), ApiError> {
    if resource.namespaced {
        match meta.namespace.as_deref() {
            None | Some("") => meta.namespace = Some(info.namespace.clone()),
            Some(other) if other != info.namespace => {
                return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
            }
            Some(_) => {}
        }
    } else if meta.namespace.as_deref().is_some_and(|n| !n.is_empty()) {
        return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    if info.name.is_empty() {
        return Ok(());
    }
    match meta.name.as_deref() {
        None | Some("") => meta.name = Some(info.name.clone()),
        Some(other) if other != info.name => {
            let text = format!("the name of the object ({other}) does not match the name on the URL ({})", info.name);
            return Err(ApiError::bad_request(text));
        }
        Some(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(uri: &str) -> RequestInfo {
        RequestInfo::parse(&http::Method::GET, &uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_list_takes_what_its_query_says() {
        let options = list(&info(
            "/api/v1/namespaces/a/pods?labelSelector=app%20in%20(x)&fieldSelector=spec.nodeName%3Dn&limit=5&continue=abc&resourceVersion=7",
        ))
        .unwrap();
        assert_eq!(
            (options.namespace.as_str(), options.limit, options.continue_token.as_str(), options.resource_version.as_str()),
            ("a", 5, "abc", "7")
        );
        assert_eq!(options.fields.terms, [("spec.nodeName".to_owned(), "n".to_owned(), true)]);
        for bad in ["limit=x", "labelSelector=a+b+c", "fieldSelector=a"] {
            assert_eq!(list(&info(&format!("/api/v1/pods?{bad}"))).unwrap_err().code(), 400, "{bad}");
        }
    }

    #[test]
    fn the_deprecated_watch_of_one_object_selects_it_by_name() {
        let options = watch(&info("/api/v1/watch/namespaces/a/pods/p?timeoutSeconds=9")).unwrap();
        assert_eq!(options.fields.terms, [("metadata.name".to_owned(), "p".to_owned(), true)]);
        assert_eq!(options.timeout, Duration::from_secs(9));
        let unlimited = watch(&info("/api/v1/pods?watch=1&timeoutSeconds=0")).unwrap().timeout.as_secs();
        assert!((1800..3600).contains(&unlimited), "{unlimited}");
    }

    #[test]
    fn deletions_take_the_body_before_the_query_and_refuse_contradictions() {
        let at = info("/api/v1/namespaces/a/pods/p?gracePeriodSeconds=3&propagationPolicy=Orphan");
        let query = delete(&at, b"").unwrap();
        assert_eq!((query.grace_period_seconds, query.propagation_policy), (Some(3), Some(Propagation::Orphan)));
        let body = delete(&at, br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"u"}}"#).unwrap();
        assert_eq!((body.grace_period_seconds, body.propagation_policy, body.uid.as_deref()), (Some(0), None, Some("u")));
        for (bad, code) in [
            (r#"{"propagationPolicy":"Backwards"}"#, 422),
            (r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#, 422),
            (r#"{"dryRun":["Some"]}"#, 422),
            (r#"{"kind":"Pod"}"#, 400),
            ("[]", 400),
        ] {
            assert_eq!(delete(&at, bad.as_bytes()).unwrap_err().code(), code, "{bad}");
        }
    }
}
