//! Go's `fmt` verbs for JSON values.

use serde_json::Value;

use super::eval::Maybe;

/// What an action prints.
pub(super) fn printed(value: &Maybe) -> String {
    match value {
        None | Some(Value::Null) => "<no value>".into(),
        Some(value) => plain(value),
    }
}

/// `%v`
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => super::super::yaml::number(n),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect::<Vec<_>>().join(" ")),
    }
}

/// `%s` of a list or object, whose numbers and truths are no text.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => format!("%!s({}={})", type_name(value), plain(value)),
        Value::Null => "%!s(<nil>)".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{}", as_text(v))).collect::<Vec<_>>().join(" ")),
    }
}

/// Go's name of a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `Sprint`: a space between operands when neither is a string.
pub(super) fn sprint(values: &[Maybe]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let is_text = |v: &Maybe| matches!(v, Some(Value::String(_)));
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            out.push(' ');
        }
        out.push_str(&or_nil(value));
    }
    out
}

pub(super) fn or_nil(value: &Maybe) -> String {
    value.as_ref().map_or_else(|| "<nil>".into(), plain)
}

/// `Sprintf`
pub(super) fn sprintf(format: &str, values: &[Maybe]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek().copied().filter(|f| "+-# 0".contains(*f)) {
            chars.next();
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                '0' => spec.zero = true,
                _ => spec.space = true,
            }
        }
        let mut digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.peek() == Some(&'*') {
                chars.next();
                next += 1;
                return values.get(next - 1).and_then(|v| v.as_ref()?.as_u64()).map(|n| n as usize);
            }
            let mut n = None;
            while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                n = Some(n.unwrap_or(0) * 10 + d as usize);
            }
            n
        };
        spec.width = digits(&mut chars);
        if chars.peek() == Some(&'.') {
            chars.next();
            spec.precision = Some(digits(&mut chars).unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.get(next) {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => {
                    next += 1;
                    out.push_str(&spec.apply(verb, value));
                }
            },
        }
    }
    if next < values.len() {
        let extra: Vec<String> =
            values[next..].iter().map(|v| v.as_ref().map_or_else(|| "<nil>".into(), |v| format!("{}={}", type_name(v), plain(v)))).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Spec {
    fn apply(&self, verb: char, value: &Maybe) -> String {
        let body = self.body(verb, value);
        let width = self.width.unwrap_or(0);
        let missing = width.saturating_sub(body.chars().count());
        if self.left {
            return format!("{body}{}", " ".repeat(missing));
        }
        if self.zero && missing > 0 {
            let (sign, digits) = body.strip_prefix('-').map_or(("", body.as_str()), |d| ("-", d));
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        format!("{}{body}", " ".repeat(missing))
    }

    fn body(&self, verb: char, value: &Maybe) -> String {
        let bad = || match value {
            None | Some(Value::Null) => format!("%!{verb}(<nil>)"),
            Some(v) => format!("%!{verb}({}={})", type_name(v), plain(v)),
        };
        let cut = |text: &str| self.precision.map_or_else(|| text.to_owned(), |p| text.chars().take(p).collect());
        match (verb, value) {
            ('v', Some(Value::String(s))) if self.sharp => format!("{s:?}"),
            ('v', v) => or_nil(v),
            ('T', v) => v.as_ref().map_or("<nil>", type_name).to_owned(),
            ('s', Some(Value::String(s))) => cut(s),
            ('s', Some(v @ (Value::Array(_) | Value::Object(_)))) => plain(v),
            ('q', Some(Value::String(s))) => format!("{:?}", cut(s)),
            ('t', Some(Value::Bool(b))) => b.to_string(),
            ('x', Some(Value::String(s))) => s.bytes().map(|b| format!("{b:02x}")).collect(),
            ('X', Some(Value::String(s))) => s.bytes().map(|b| format!("{b:02X}")).collect(),
            ('d' | 'x' | 'X' | 'o' | 'b' | 'c', Some(Value::Number(n))) if !n.is_f64() => {
                let i = n.as_i64().unwrap_or_default();
                let sign = if self.plus && i >= 0 {
                    "+"
                } else if self.space && i >= 0 {
                    " "
                } else {
                    ""
                };
                match verb {
                    'd' => format!("{sign}{i}"),
                    'x' => format!("{i:x}"),
                    'X' => format!("{i:X}"),
                    'o' => format!("{i:o}"),
                    'b' => format!("{i:b}"),
                    _ => u32::try_from(i).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string(),
                }
            }
            ('f' | 'F', Some(Value::Number(n))) if n.is_f64() => format!("{:.*}", self.precision.unwrap_or(6), n.as_f64().unwrap_or_default()),
            ('g' | 'G', Some(Value::Number(n))) if n.is_f64() => super::super::yaml::number(n),
            ('e', Some(Value::Number(n))) if n.is_f64() => {
                let text = format!("{:.*e}", self.precision.unwrap_or(6), n.as_f64().unwrap_or_default());
                let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
                let (sign, power) = power.strip_prefix('-').map_or(('+', power), |p| ('-', p));
                format!("{mantissa}e{sign}{power:0>2}")
            }
            _ => bad(),
        }
    }
}
