//! Named text formats (`k8s.io/apiserver/pkg/cel/library/format.go`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Function, Result, charge_text, no_overload};
use crate::cel::value::Value;
use crate::cel::{Budget, time};
use crate::selector::{is_dns1123_label, is_dns1123_subdomain, label_value_errors, qualified_name_errors};

/// Every format's name.
pub(in crate::cel) const NAMES: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

pub(super) fn find(name: &str) -> Option<Function> {
    macro_rules! constants {
        ($($format:literal),*) => {
            match name {
                $(concat!("format.", $format) => Some((|_, _| Ok(Value::Format($format))) as Function),)*
                _ => None,
            }
        };
    }
    match name {
        "format.named" => Some(|_, a| match a {
            [Value::String(s)] => Ok(Value::Optional(NAMES.iter().copied().find(|n| *n == s.as_ref()).map(|n| Value::Format(n).into()))),
            _ => no_overload(),
        }),
        "validate" => Some(validate),
        _ => constants!(
            "dns1123Label",
            "dns1123Subdomain",
            "dns1035Label",
            "qualifiedName",
            "dns1123LabelPrefix",
            "dns1123SubdomainPrefix",
            "dns1035LabelPrefix",
            "labelValue",
            "uri",
            "uuid",
            "byte",
            "date",
            "datetime"
        ),
    }
}

fn validate(budget: &Budget, args: &[Value]) -> Result {
    let [Value::Format(name), Value::String(text)] = args else { return no_overload() };
    charge_text(budget, text.len())?;
    let errors = errors(name, text);
    if errors.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(errors.into_iter().map(Value::from).collect::<Vec<_>>().into()))
}

fn errors(name: &str, text: &str) -> Vec<String> {
    let one = |valid: bool, message: &str| if valid { Vec::new() } else { vec![message.to_owned()] };
    // A prefix may end in a dash, for the generated part comes after it.
    let prefix = text.strip_suffix('-').unwrap_or(text);
    match name {
        "dns1123Label" => limited(text, 63, is_dns1123_label(text), LABEL),
        "dns1123LabelPrefix" => limited(text, 63, is_dns1123_label(prefix), LABEL),
        "dns1123Subdomain" => limited(text, 253, is_dns1123_subdomain(text), SUBDOMAIN),
        "dns1123SubdomainPrefix" => limited(text, 253, is_dns1123_subdomain(prefix), SUBDOMAIN),
        "dns1035Label" => limited(text, 63, is_dns1123_label(text) && starts_with_letter(text), LABEL_1035),
        "dns1035LabelPrefix" => limited(text, 63, is_dns1123_label(prefix) && starts_with_letter(prefix), LABEL_1035),
        "qualifiedName" => qualified_name_errors(text),
        "labelValue" => label_value_errors(text),
        "uri" => one(super::url::Url::parse(text).is_some(), &format!("parse {text:?}: invalid URI for request")),
        "uuid" => one(uuid(text), "does not match the UUID format"),
        "byte" => one(STANDARD.decode(text).is_ok(), "invalid base64"),
        "date" => one(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
        _ => one(time::parse_timestamp(text).is_some(), "invalid datetime"),
    }
}

fn limited(text: &str, most: usize, valid: bool, message: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > most {
        out.push(format!("must be no more than {most} characters"));
    }
    // The check knows the length as well: only what is of a legal length is told what else is wrong.
    if !valid && text.len() <= most {
        out.push(message.to_owned());
    }
    out
}

fn starts_with_letter(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
}

fn uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36 && text.bytes().enumerate().all(|(at, b)| if dashes.contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() })
}
