//! The functions' signatures, read once from `declarations.txt`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::types::Type;

/// One signature of a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// Whether the first parameter is what the function is called on.
    pub(super) member: bool,
    pub(super) params: Vec<Type>,
    pub(super) result: Type,
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in include_str!("declarations.txt").lines().filter(|l| !l.starts_with("//") && !l.is_empty()) {
        let (name, overload) = parse(line).unwrap_or_else(|| panic!("bad line in declarations.txt: {line}"));
        table.entry(name).or_default().push(overload);
    }
    table
});

/// A function's overloads; empty when there is no such function.
pub(super) fn overloads(name: &str) -> &'static [Overload] {
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

/// Every function's name.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}

fn parse(line: &'static str) -> Option<(&'static str, Overload)> {
    let (signature, result) = line.rsplit_once(" -> ")?;
    let open = signature.rfind('(')?;
    let (head, params) = (&signature[..open], signature[open + 1..].strip_suffix(')')?);
    let (target, name) = match head.rsplit_once("::") {
        Some((target, name)) => (Some(target), name),
        None => (None, head),
    };
    let mut all: Vec<Type> = target.map(of).into_iter().collect();
    all.extend(split(params).into_iter().map(of));
    Some((name, Overload { member: target.is_some(), params: all, result: of(result) }))
}

/// Splits at the commas that no bracket encloses.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn of(text: &'static str) -> Type {
    if let Some((outer, inner)) = text.split_once('<') {
        let mut inner = split(inner.strip_suffix('>').unwrap_or(inner)).into_iter().map(of);
        let mut next = || inner.next().unwrap_or(Type::Dyn);
        return match outer {
            "list" => Type::list(next()),
            "map" => Type::map(next(), next()),
            "optional" => Type::optional(next()),
            _ => Type::Type(Arc::new(next())),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        _ if text.len() == 1 => Type::Param(u32::from(text.as_bytes()[0])),
        other => Type::Opaque(other),
    }
}
