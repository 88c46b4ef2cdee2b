//! Collects the lines of a description and aligns them.

use std::collections::BTreeMap;

use crate::print::tabwriter;

/// A description under way. Levels indent by two spaces; tabs part cells.
#[derive(Debug, Default)]
pub struct Writer {
    done: String,
    pending: String,
}

/// Longer annotations are broken over lines and cut.
const MAX_ANNOTATION: usize = 140;

impl Writer {
    /// An empty description.
    pub fn new() -> Writer {
        Writer::default()
    }
    /// Adds text at a level. The text holds its own newline.
    pub fn write(&mut self, level: usize, text: &str) {
        (0..level).for_each(|_| self.pending.push_str("  "));
        self.pending.push_str(text);
    }
    /// Adds `name:<tab>value`.
    pub fn field(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.write(level, &format!("{name}:\t{value}\n"));
    }
    /// Aligns what was written so far; later columns do not care about earlier ones.
    pub fn flush(&mut self) {
        let text = std::mem::take(&mut self.pending);
        if !text.is_empty() {
            self.done.push_str(&tabwriter::DESCRIBE.align(&text));
        }
    }
    /// The text as written, its tabs still tabs: where upstream prints a description without aligning it.
    pub fn raw(self) -> String {
        self.done + &self.pending
    }
    /// The finished text.
    pub fn finish(mut self) -> String {
        self.flush();
        self.done
    }

    /// `Labels:  a=b`, one line each.
    pub fn labels(&mut self, title: &str, labels: Option<&BTreeMap<String, String>>) {
        self.write(0, &format!("{title}:"));
        let Some(labels) = labels.filter(|l| !l.is_empty()) else {
            return self.write(0, "\t<none>\n");
        };
        for (key, value) in labels {
            self.write(0, &format!("\t{key}={value}\n"));
        }
    }

    /// `Annotations:  a: b`, long and multi-line values below their key.
    pub fn annotations(&mut self, title: &str, annotations: Option<&BTreeMap<String, String>>) {
        self.write(0, &format!("{title}:\t"));
        let shown: Vec<(&String, &String)> = annotations.into_iter().flatten().filter(|(k, _)| *k != crate::apply::LAST_APPLIED).collect();
        if shown.is_empty() {
            return self.write(0, "<none>\n");
        }
        for (index, (key, value)) in shown.into_iter().enumerate() {
            if index > 0 {
                self.write(0, "\t");
            }
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 > MAX_ANNOTATION || value.contains('\n') {
                self.write(0, &format!("{key}:\n"));
                for line in value.split('\n') {
                    self.write(0, &format!("\t  {}\n", shortened(line, MAX_ANNOTATION - 2)));
                }
            } else {
                self.write(0, &format!("{key}: {value}\n"));
            }
        }
    }
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit { text.to_owned() } else { text.chars().take(limit).collect::<String>() + "..." }
}
