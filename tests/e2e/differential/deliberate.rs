//! The differences that are meant, and the verdict on a line.
//!
//! In `deliberate.txt`, `= STREAMS: REASON` begins a group and `STORY: LINE` names a case whose streams (`out`, `err`, `code`) may differ.

use std::collections::BTreeMap;
use std::path::Path;

use super::normal::Normal;
use super::story::{Line, Story};

/// The differences that are meant, by story and line.
pub struct Deliberate(BTreeMap<String, Vec<String>>);

impl Deliberate {
    pub fn read(file: &Path) -> Deliberate {
        let (mut lines, mut streams) = (BTreeMap::new(), Vec::new());
        for line in std::fs::read_to_string(file).expect("the list can be read").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(head) = line.strip_prefix("= ") {
                let (names, reason) = head.split_once(": ").unwrap_or_else(|| panic!("{line:?} gives no reason"));
                assert!(!reason.trim().is_empty(), "{line:?} gives no reason");
                streams = names.split(", ").map(ToOwned::to_owned).collect();
                continue;
            }
            assert!(lines.insert(line.to_owned(), streams.clone()).is_none(), "{line:?} is listed twice");
        }
        Deliberate(lines)
    }

    /// Fails for a listed line that no story has.
    pub fn names_lines_of(&self, stories: &[Story]) {
        for listed in self.0.keys() {
            let has = |story: &Story| story.lines.iter().filter_map(Line::case).any(|line| *listed == format!("{}: {line}", story.name));
            assert!(stories.iter().any(has), "deliberate.txt lists {listed:?}, which no table has");
        }
    }

    /// What is wrong with a line's outcome; nothing when the clients agree, or differ where they may.
    pub fn judge(&self, story: &Story, line: &str, ours: &Normal, theirs: &Normal) -> Option<String> {
        let may = self.0.get(&format!("{}: {line}", story.name)).map(Vec::as_slice).unwrap_or_default();
        let mut told = Vec::new();
        for (stream, a, b) in [("out", &ours.out, &theirs.out), ("err", &ours.err, &theirs.err), ("code", &ours.code, &theirs.code)] {
            let allowed = may.iter().any(|m| m == stream);
            if a != b && !allowed {
                told.push(format!("--- {stream} of kctl\n{a}\n--- {stream} of kubectl\n{b}"));
            }
        }
        if !may.is_empty() && ours == theirs {
            told.push("the clients agree: take the line out of deliberate.txt".into());
        }
        (!told.is_empty()).then(|| format!("$ {line}\n{}", told.join("\n")))
    }
}
