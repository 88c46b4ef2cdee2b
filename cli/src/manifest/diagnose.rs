//! What is wrong with a manifest, where, and what was probably meant. Pure text work.

use std::fmt;

use crate::print::style;

use super::tree::{Fault, Position};

/// A field or value that the kind's schema does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub source: String,
    /// Where in it.
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source, self.at.line, self.at.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {}", style::advice(hint)),
            None => Ok(()),
        }
    }
}

/// kubectl's sentence for a file that cannot be parsed, then each fault with its line and the likely fix.
pub fn explain(source: &str, text: &str, faults: Vec<Fault>) -> anyhow::Error {
    let mut out = String::new();
    for fault in faults {
        if !out.is_empty() {
            out.push('\n');
        }
        let lines: Vec<&str> = text.lines().collect();
        let line = lines.get(fault.at.line.saturating_sub(1)).copied().unwrap_or_default();
        let message = reworded(&fault.message, line);
        let Position { line: number, column } = fault.at;
        out.push_str(&format!("error parsing {source}: error converting YAML to JSON: yaml: line {number}: column {column}: {message}"));
        out.push_str(&format!("\n  {number:>4} | {line}"));
        out.push_str(&format!("\n       | {}^", " ".repeat(column.saturating_sub(1).min(line.chars().count()))));
        if let Some(hint) = hint(&message, &lines, fault.at) {
            out.push_str(&format!("\n  {}", style::advice(&hint)));
        }
    }
    anyhow::anyhow!("{out}")
}

/// libyaml's words where the parser has its own.
fn reworded(message: &str, line: &str) -> String {
    let lower = message.to_lowercase();
    if line.trim_start_matches(' ').starts_with('\t') || lower.contains("tab") && line.contains('\t') {
        return "found character that cannot start any token".into();
    }
    if lower.contains("mapping value") && lower.contains("not allowed") {
        return "mapping values are not allowed in this context".into();
    }
    message.to_owned()
}

/// The likely fix.
fn hint(message: &str, lines: &[&str], at: Position) -> Option<String> {
    let line = lines.get(at.line.checked_sub(1)?)?;
    if line.contains('\t') && line.trim_start_matches(' ').starts_with('\t') {
        return Some(format!("hint: line {} is indented with a tab; YAML indents with spaces only", at.line));
    }
    if let Some(rest) = message.strip_prefix("key ") {
        // Given twice by mistake: the second was to be another key.
        if let Some(hint) = two_colons(line) {
            return Some(hint);
        }
        let key = rest.split('"').nth(1)?;
        return Some(format!("hint: {key:?} is given twice in the same object; remove one of them or nest it where it belongs"));
    }
    if message.contains("mapping values are not allowed") {
        return two_colons(line).or_else(|| parent_with_value(lines, at));
    }
    if message.contains("already set in map") {
        return None;
    }
    if message.contains("did not find expected key") || message.contains("block mapping") || message.contains("simple key") {
        return wrong_indent(lines, at).or_else(|| missing_colon(lines, at));
    }
    if message.contains("flow") || message.contains("expected ',' or") || message.contains("illegal placement of ':'") {
        return Some("hint: a '[' or '{' is not closed, or a ',' is missing between its items".into());
    }
    if message.contains("quoted scalar") || message.contains("end of stream") || message.contains("quote") {
        return Some("hint: a quote is opened and never closed".into());
    }
    missing_colon(lines, at)
}

/// `services: loadbalancers: "2"` was `services.loadbalancers: "2"`.
fn two_colons(line: &str) -> Option<String> {
    let trimmed = line.trim_start().trim_start_matches("- ");
    let mut parts = trimmed.splitn(3, ": ");
    let (first, second, value) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    if !is_word(first) || (value.is_empty() && !second.trim_end().ends_with(':')) {
        return None;
    }
    let second = second.trim_end().trim_end_matches(':');
    if is_word(second) && (!value.is_empty() || trimmed.trim_end().ends_with(':')) {
        let value = if value.is_empty() { String::new() } else { format!(" {value}") };
        return Some(format!("hint: a line can hold one \"key: value\"; did you mean `{first}.{second}:{value}`?"));
    }
    Some(format!("hint: the value of {first:?} holds \": \"; put it in quotes"))
}

/// A key below a key that already has a value.
fn parent_with_value(lines: &[&str], at: Position) -> Option<String> {
    let indent = indentation(lines.get(at.line - 1)?);
    let (number, parent) = (0..at.line - 1).rev().map(|n| (n, lines[n])).find(|(_, l)| !l.trim().is_empty() && indentation(l) < indent)?;
    let (key, value) = parent.trim().trim_start_matches("- ").split_once(": ")?;
    Some(format!(
        "hint: line {} already gives {key:?} the value {value}, so nothing can be nested below it: indent line {} like line {}",
        number + 1,
        at.line,
        number + 1
    ))
}

fn wrong_indent(lines: &[&str], at: Position) -> Option<String> {
    let number = at.line - 1;
    let line = lines.get(number)?;
    let indent = indentation(line);
    let mut above: Vec<usize> = lines[..number].iter().filter(|l| !l.trim().is_empty()).map(|l| indentation(l)).collect();
    above.sort_unstable();
    above.dedup();
    if above.contains(&indent) || above.is_empty() {
        return None;
    }
    let nearest = above.iter().min_by_key(|a| a.abs_diff(indent))?;
    Some(format!("hint: line {} is indented by {indent} spaces, which matches no line above; did you mean {nearest}?", at.line))
}

/// A line that is neither `key: value` nor `- item`, here or just above.
fn missing_colon(lines: &[&str], at: Position) -> Option<String> {
    let from = at.line.saturating_sub(3);
    (from..at.line.min(lines.len())).rev().find_map(|number| {
        let line = lines[number].trim();
        let bare = !line.is_empty() && !line.starts_with(['#', '-', '[', '{', '"', '\'', '|', '>']) && !line.contains(':');
        let word = line.split_whitespace().next()?;
        (bare && is_word(word)).then(|| format!("hint: line {} has no \":\" behind its key; did you mean `{word}: …`?", number + 1))
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::super::tree;

    fn told(text: &str) -> String {
        super::explain("x.yaml", text, tree::documents(text).unwrap_err()).to_string()
    }

    #[test]
    fn names_the_line_and_the_likely_fix() {
        for (text, wanted) in [
            (
                "a:\n  b: c\n  services: loadbalancers: \"2\"\n",
                ["line 3: column ", "mapping values are not allowed in this context", "did you mean `services.loadbalancers: \"2\"`?"],
            ),
            ("a:\n\tb: c\n", ["line 2:", "cannot start any token", "indented with a tab"]),
            ("a: 1\nb: 2\na: 3\n", ["line 3:", "key \"a\" already set in map", "given twice"]),
            ("a: x\n  b: c\n", ["line 2:", "mapping values are not allowed in this context", "line 1 already gives \"a\" the value x"]),
            ("a: [1, 2\nb: c\n", ["line ", "", "not closed"]),
        ] {
            let said = told(text);
            for part in wanted {
                assert!(said.contains(part), "{text:?} should say {part:?}, says:\n{said}");
            }
        }
    }

    #[test]
    fn a_fault_in_one_document_does_not_hide_the_next() {
        let said = told("a: b: c\n---\nd: [\n");
        assert!(said.contains("line 1:") && said.matches("error parsing").count() == 2, "{said}");
    }
}
