//! Named forms of strings (`k8s.io/kube-openapi/pkg/validation/strfmt`). Unknown names are no constraint, as upstream has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use regex::Regex;

macro_rules! patterns {
    ($($name:literal => $pattern:literal),* $(,)?) => {
        fn pattern(format: &str) -> Option<&'static Regex> {
            match format {
                $($name => {
                    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
                    PATTERN.as_ref()
                })*
                _ => None,
            }
        }
    };
}

patterns! {
    "bsonobjectid" => "^[0-9a-fA-F]{24}$",
    "creditcard" => r"^(?:\d[ -]*?){13,16}$",
    "email" => r"^[^@\s<>]+@[^@\s<>]+$",
    "hexcolor" => "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
    "hostname" => r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z0-9\p{L}]){2,63})$",
    "isbn" => r"^(?:(?:\d[ -]?){9}[\dX]|(?:\d[ -]?){13})$",
    "isbn10" => r"^(?:\d[ -]?){9}[\dX]$",
    "isbn13" => r"^(?:\d[ -]?){13}$",
    "mac" => r"^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-]?){1,15}$|^([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}$",
    "rgbcolor" => r"^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$",
    "ssn" => r"^\d{3}[- ]?\d{2}[- ]?\d{4}$",
    "uuid" => "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    "uuid3" => "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    "uuid4" => "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    "uuid5" => "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    "duration" => r"^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w)|\d+\s*(hours?|minutes?|seconds?|days?|weeks?|milliseconds?|nanoseconds?))+$|^0$",
}

/// Whether a text has a format.
pub fn valid(format: &str, text: &str) -> bool {
    match format {
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let most = match address.parse() {
                Ok(IpAddr::V4(_)) => 32,
                Ok(IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|b| b <= most)
        }),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok_and(|u| u.scheme().is_some() || u.path().starts_with('/')),
        "k8s-short-name" => shared::selector::is_dns1123_label(text),
        "k8s-long-name" => shared::selector::is_dns1123_subdomain(text),
        named => pattern(named).is_none_or(|p| p.is_match(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_they_name_and_nothing_else() {
        for (format, good, bad) in [
            ("date", "2024-02-29", "2024-02-30"),
            ("date-time", "2024-01-02T03:04:05Z", "2024-01-02"),
            ("email", "a@b.c", "a"),
            ("hostname", "example.com", "-"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d"),
            ("byte", "aGVsbG8=", "!"),
            ("duration", "1h30m", "soon"),
            ("uri", "https://example.com/x", "no spaces please"),
            ("hexcolor", "#ffaa00", "red"),
        ] {
            assert!(valid(format, good), "{format} {good}");
            assert!(!valid(format, bad), "{format} {bad}");
        }
        assert!(valid("anything-else", "x"));
    }
}
