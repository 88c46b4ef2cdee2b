//! How YAML 1.1 readers take a plain scalar (`sigs.k8s.io/yaml/goyaml.v2/resolve.go`).
//!
//! Owns the decision "string or not", which readers and writers of manifests must share. No parsing of documents here.

use serde_json::{Number, Value};

/// What a plain scalar means.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `yes`, `on`, `y` and their opposites.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// An integer beyond `i64`.
    Uint(u64),
    /// A floating point number.
    Float(f64),
    /// A date or time, which stays text in JSON.
    Timestamp,
    /// `<<`
    Merge,
    /// Text.
    Str,
}

/// Resolves a plain (unquoted) scalar.
pub fn resolve(text: &str) -> Resolved {
    let Some(first) = text.bytes().next() else { return Resolved::Null };
    match text {
        "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Resolved::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Resolved::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        "<<" => return Resolved::Merge,
        _ => {}
    }
    match first {
        b'.' if is_float(text) => text.parse().map_or(Resolved::Str, Resolved::Float),
        b'+' | b'-' | b'0'..=b'9' => number(text),
        _ => Resolved::Str,
    }
}

/// Whether a string written plain would be read back as something else, so that a writer must quote it.
pub fn needs_quotes(text: &str) -> bool {
    !matches!(resolve(text), Resolved::Str | Resolved::Merge) || is_base60(text)
}

fn number(text: &str) -> Resolved {
    if is_timestamp(text) {
        return Resolved::Timestamp;
    }
    let plain = text.replace('_', "");
    if let Some(integer) = integer(&plain) {
        return match (i64::try_from(integer), u64::try_from(integer)) {
            (Ok(i), _) => Resolved::Int(i),
            (_, Ok(u)) => Resolved::Uint(u),
            _ => Resolved::Float(integer as f64),
        };
    }
    match plain.parse::<f64>() {
        Ok(f) if is_float(&plain) && f.is_finite() => Resolved::Float(f),
        _ => Resolved::Str,
    }
}

/// Go's `ParseInt(s, 0, 64)`: a base prefix, with a leading zero meaning octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if body.is_empty() || !body.bytes().all(|b| b.is_ascii_alphanumeric()) || body.len() > 30 {
        return None;
    }
    let value = i128::from_str_radix(body, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(after) = rest.strip_prefix('.') {
        let fraction = digits(after);
        if whole == 0 && fraction == 0 {
            return false;
        }
        rest = &after[fraction..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// `12:30:45`, a number in YAML 1.1's base 60.
pub fn is_base60(text: &str) -> bool {
    let mut parts = text.split(':');
    let Some(head) = parts.next() else { return false };
    let head = head.strip_prefix(['-', '+']).unwrap_or(head);
    if !head.starts_with(|c: char| c.is_ascii_digit()) || !head.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return false;
    }
    let rest: Vec<&str> = parts.collect();
    let Some((last, middle)) = rest.split_last() else { return false };
    let sixty = |s: &str| (1..=2).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit()) && (s.len() == 1 || s.as_bytes()[0] < b'6');
    let (seconds, fraction) = last.split_once('.').unwrap_or((last, ""));
    middle.iter().all(|m| sixty(m)) && sixty(seconds) && fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// The dates and times YAML 1.1 knows: `2006-1-2`, with `T15:4:5Z` or ` 15:4:5` behind it.
pub fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((bytes[at], &text[at + 1..]))),
        None => (text, None),
    };
    let within = |part: Option<&str>, low: u32, high: u32| {
        part.is_some_and(|p| {
            (1..=2).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u32>().is_ok_and(|n| (low..=high).contains(&n))
        })
    };
    let mut parts = date.split('-').skip(1);
    let (month, day) = (parts.next(), parts.next());
    if !within(month, 1, 12) || !within(day, 1, 31) || parts.next().is_some() {
        return false;
    }
    let Some((separator, time)) = time else { return true };
    let clock_end = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(clock_end);
    let zone_ok = match zone {
        "" => separator == b' ',
        "Z" => separator != b' ',
        offset => {
            separator != b' '
                && offset[1..].split_once(':').is_some_and(|(h, m)| h.len() == 2 && m.len() == 2 && within(Some(h), 0, 24) && within(Some(m), 0, 59))
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut units = clock.split(':');
    let clock_ok = within(units.next(), 0, 23) && within(units.next(), 0, 59) && within(units.next(), 0, 59) && units.next().is_none();
    zone_ok && clock_ok && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit())
}

/// The JSON value a plain scalar becomes.
pub fn to_json(text: &str) -> Value {
    match resolve(text) {
        Resolved::Null => Value::Null,
        Resolved::Bool(b) => Value::Bool(b),
        Resolved::Int(i) => Value::from(i),
        Resolved::Uint(u) => Value::from(u),
        Resolved::Float(f) => Number::from_f64(f).map_or(Value::Null, Value::Number),
        Resolved::Timestamp | Resolved::Merge | Resolved::Str => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_yaml_1_1_would_misread() {
        for text in [
            "yes",
            "On",
            "y",
            "n",
            "~",
            "null",
            "",
            "1",
            "1e3",
            "0x1F",
            "0o17",
            "017",
            "089",
            "+1",
            ".5",
            "1_000",
            ".inf",
            "2020-01-01",
            "12:30:45",
            "1:2",
            "2024-01-01T00:00:00Z",
        ] {
            assert!(needs_quotes(text), "{text}");
        }
        for text in ["1.2.3", "a", "yess", "<<", "=", "0xZZ", "1a", "2020-13-01x", "a:b", "1e", "..", "-", "2020-99-99"] {
            assert!(!needs_quotes(text), "{text}");
        }
    }

    #[test]
    fn numbers_become_json_numbers() {
        assert_eq!(to_json("0x10"), Value::from(16));
        assert_eq!(to_json("010"), Value::from(8));
        assert_eq!(to_json("1.5"), Value::from(1.5));
        assert_eq!(to_json("18446744073709551615"), Value::from(u64::MAX));
        assert_eq!(to_json("1.2.3"), Value::from("1.2.3"));
    }
}
