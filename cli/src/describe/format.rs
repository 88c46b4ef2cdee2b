//! Pieces every description is made of. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How long ago a time was, as tables show it.
pub fn age(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(then) => shared::age::human_duration(now.as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// As [`age`], of a typed time.
pub fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".into(), |then| shared::age::human_duration(now.as_second() - then.as_second()))
}

/// `Mon, 02 Jan 2006 15:04:05 -0700` in the local time zone.
pub fn rfc1123(time: &Time) -> String {
    time.0.to_zoned(jiff::tz::TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

/// Text, or `<none>` for nothing.
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// `True` or `False`
pub fn capital(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A number or text.
pub fn int_or_string(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(i) => i.to_string(),
        IntOrString::String(s) => s.clone(),
    }
}

/// `a=b,c in (d)`, or `<none>`.
pub fn selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "<unset>".into() };
    match shared::selector::Selector::from_label_selector(Some(selector)) {
        Ok(parsed) => {
            let text = parsed.to_string();
            if text.is_empty() { "<none>".into() } else { text }
        }
        Err(_) => "<error>".into(),
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    match labels.filter(|l| !l.is_empty()) {
        Some(labels) => labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        None => "<none>".into(),
    }
}

/// `ReplicaSet/x` of the controlling owner, empty without one.
pub fn controller(meta: &ObjectMeta) -> String {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    owner.map_or_else(String::new, |o| format!("{}/{}", o.kind, o.name))
}

/// A quantity in canonical notation.
pub fn quantity(quantity: &Quantity) -> String {
    shared::quantity::Quantity::of(quantity).to_string()
}

/// `RWO,ROX`
pub fn access_modes(modes: Option<&Vec<String>>) -> String {
    let short = |mode: &String| match mode.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    modes.into_iter().flatten().map(short).collect::<Vec<_>>().join(",")
}
