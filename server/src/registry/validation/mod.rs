//! Rules that the validations of several kinds share, with upstream's wording
//! (`k8s.io/apimachinery/pkg/util/validation/validation.go`, `pkg/apis/core/validation/validation.go`).
//!
//! Owns rules about single values and small shared types. A rule of one kind belongs into that kind's file.

pub mod diff;
pub mod meta;
pub mod resources;
pub mod selectors;

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use shared::field::{Error, ErrorList, Path};

pub use super::{DNS1123_LABEL, DNS1123_SUBDOMAIN};

/// Upstream's `FieldImmutableErrorMsg`.
pub const IMMUTABLE: &str = "field is immutable";
/// Upstream's `IsNegativeErrorMsg`.
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's message for what is neither an IPv4 nor an IPv6 address.
pub const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// Upstream's message for what is no CIDR.
pub const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const PERCENT: &str =
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// What is wrong with a value, in upstream's words; empty when nothing is.
pub type Messages = Vec<String>;

fn max_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// `must be between A and B, inclusive`
pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// An RFC 1123 label.
pub fn dns1123_label(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push(max_bytes(63));
    }
    if !is_label_body(value) {
        messages.push(DNS1123_LABEL.into());
    }
    messages
}

/// A label but for its length.
fn is_label_body(value: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = value.bytes().next().is_some_and(alphanumeric) && value.bytes().last().is_some_and(alphanumeric);
    edges && value.bytes().all(|c| alphanumeric(c) || c == b'-')
}

/// An RFC 1123 subdomain.
pub fn dns1123_subdomain(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max_bytes(253));
    }
    if !value.split('.').all(is_label_body) {
        messages.push(DNS1123_SUBDOMAIN.into());
    }
    messages
}

/// An RFC 1035 label, as Service names were until 1.34 and port-like names still are.
pub fn dns1035_label(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push(max_bytes(63));
    }
    if !is_label_body(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        messages.push(DNS1035_LABEL.into());
    }
    messages
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 253 {
        messages.push(max_bytes(253));
    }
    if value.is_empty() || !value.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c)) {
        messages.push(CONFIG_KEY.into());
    }
    match value {
        "." => messages.push("must not be '.'".into()),
        ".." => messages.push("must not be '..'".into()),
        other if other.starts_with("..") => messages.push("must not start with '..'".into()),
        _ => {}
    }
    messages
}

/// The name of an environment variable.
pub fn env_name(value: &str) -> Messages {
    let good = !value.is_empty() && value.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=');
    if good { Vec::new() } else { vec![ENV_NAME.into()] }
}

/// A port number.
pub fn port_number(port: i64) -> Messages {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![inclusive_range(1, 65535)] }
}

/// The name of a container port (an IANA service name).
pub fn port_name(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 15 {
        messages.push(max_bytes(15));
    }
    if !value.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".into());
    }
    messages
}

/// A port given by number or by name.
pub fn port_number_or_name(path: &Path, port: &IntOrString, errors: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => check(path, number, port_number(i64::from(*number)), errors),
        IntOrString::String(name) => check(path, name, port_name(name), errors),
    }
}

/// What a name must be to be part of a path (`path.IsValidPathSegmentName`).
pub fn path_segment(name: &str) -> Messages {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// An IPv4 or IPv6 address.
pub fn ip(value: &str) -> Option<IpAddr> {
    value.parse().ok()
}

/// An address with a prefix length that fits it.
pub fn cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    if prefix.is_empty() || !prefix.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

/// Adds an `Invalid value` error for each message.
pub fn check(path: &Path, value: impl Serialize, messages: Messages, errors: &mut ErrorList) {
    errors.extend(messages.iter().map(|m| Error::invalid(path, &value, m)));
}

/// Adds an error for a negative number.
pub fn not_negative(path: &Path, value: Option<i64>, errors: &mut ErrorList) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.push(Error::invalid(path, value, NOT_NEGATIVE));
    }
}

/// Adds `field is immutable` when the two differ.
pub fn immutable<T: PartialEq + Serialize>(path: &Path, new: &T, old: &T, errors: &mut ErrorList) {
    if new != old {
        errors.push(Error::invalid(path, new, IMMUTABLE));
    }
}

/// Adds an error when a set value is none of those supported.
pub fn one_of(path: &Path, value: Option<&str>, supported: &[&str], errors: &mut ErrorList) {
    if let Some(value) = value.filter(|v| !supported.contains(v)) {
        errors.push(Error::not_supported(path, value, supported));
    }
}

/// Adds an error when a value is missing, or none of those supported.
pub fn required_one_of(path: &Path, value: Option<&str>, supported: &[&str], errors: &mut ErrorList) {
    match value.unwrap_or_default() {
        "" => errors.push(Error::required(path, "")),
        value => one_of(path, Some(value), supported, errors),
    }
}

/// A percentage such as `25%`, as a number.
pub fn percent(value: &str) -> Option<i32> {
    let digits = value.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Adds errors for what is neither a number from zero on nor a percentage.
pub fn positive_int_or_percent(path: &Path, value: &IntOrString, errors: &mut ErrorList) {
    match value {
        IntOrString::String(text) if percent(text).is_none() => errors.push(Error::invalid(path, text, PERCENT)),
        IntOrString::String(_) => {}
        IntOrString::Int(number) => not_negative(path, Some(i64::from(*number)), errors),
    }
}

/// Adds an error for a percentage above 100.
pub fn not_more_than_100_percent(path: &Path, value: &IntOrString, errors: &mut ErrorList) {
    if let IntOrString::String(text) = value
        && percent(text).is_some_and(|p| p > 100)
    {
        errors.push(Error::invalid(path, text, "must not be greater than 100%"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_follow_the_rfc() {
        for good in ["a", "my-name", "123-abc", &"a".repeat(63)] {
            assert_eq!(dns1123_label(good), Messages::new(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b"] {
            assert_eq!(dns1123_label(bad), [DNS1123_LABEL], "{bad}");
        }
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(dns1123_subdomain("a.b-c.1").is_empty());
        assert_eq!(dns1123_subdomain("a..b"), [DNS1123_SUBDOMAIN]);
        assert_eq!(dns1035_label("1a"), [DNS1035_LABEL]);
    }

    #[test]
    fn port_names_are_iana_service_names() {
        assert!(port_name("http-alt2").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("-a"), ["must not begin or end with a hyphen"]);
        assert_eq!(port_name("a-name-of-16-chr"), ["must be no more than 15 bytes"]);
        assert_eq!(port_name("HTTP")[0], "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }

    #[test]
    fn config_keys_cannot_leave_their_directory() {
        assert!(config_key("..data").contains(&"must not start with '..'".to_owned()));
        assert_eq!(config_key("a/b"), [CONFIG_KEY]);
        assert!(config_key(".hidden").is_empty());
    }

    #[test]
    fn percentages_are_whole_numbers() {
        assert_eq!(percent("25%"), Some(25));
        for bad in ["25", "%", "-1%", "2.5%"] {
            assert_eq!(percent(bad), None, "{bad}");
        }
    }

    #[test]
    fn cidrs_need_a_prefix_that_fits() {
        assert!(cidr("10.0.0.0/8").is_some() && cidr("fd00::/64").is_some());
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8"] {
            assert!(cidr(bad).is_none(), "{bad}");
        }
    }
}
