//! The tables of command lines.
//!
//! `== NAME [shared|inturn]` begins a story; `setup: LINE` is run by stock kubectl in each namespace and must succeed; any other line is a case.
//! `$ ` begins a shell script with the client in `"$K"`. `{ns}` is the namespace, `{dir}` the working directory; `#` begins a
//! comment. `+ ` begins a case that runs only with `DIFFERENTIAL=all` in the environment: two thousand processes take minutes.

use std::path::Path;

/// Lines that belong together.
#[derive(Debug)]
pub struct Story {
    pub name: String,
    /// Both clients look at the same namespace, and change nothing.
    pub shared: bool,
    /// The clients run a line one after the other: they change one object, which at once would lose one client's change.
    pub in_turn: bool,
    pub lines: Vec<Line>,
}

#[derive(Debug)]
pub enum Line {
    Setup(String),
    Case(String),
    /// A case that is usually left out.
    Rare(String),
}

impl Line {
    /// The case's text.
    pub fn case(&self) -> Option<&str> {
        match self {
            Line::Case(line) | Line::Rare(line) => Some(line),
            Line::Setup(_) => None,
        }
    }
}

/// Every story of a directory's tables.
pub fn read(directory: &Path) -> Vec<Story> {
    let mut files: Vec<_> = std::fs::read_dir(directory).expect("the tables are there").flatten().map(|e| e.path()).collect();
    files.sort();
    files.iter().flat_map(|file| parse(&std::fs::read_to_string(file).expect("a table can be read"))).collect()
}

fn parse(text: &str) -> Vec<Story> {
    let mut stories: Vec<Story> = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, rest) = head.split_once(' ').unwrap_or((head, ""));
            assert!(matches!(rest, "" | "shared" | "inturn"), "the story {name} can be shared or inturn, not {rest}");
            stories.push(Story { name: name.to_owned(), shared: rest == "shared", in_turn: rest == "inturn", lines: Vec::new() });
            continue;
        }
        let story = stories.last_mut().expect("a table begins with a story");
        story.lines.push(match (line.strip_prefix("setup: "), line.strip_prefix("+ ")) {
            (Some(setup), _) => Line::Setup(setup.to_owned()),
            (None, Some(rare)) => Line::Rare(rare.to_owned()),
            (None, None) => Line::Case(line.to_owned()),
        });
    }
    stories
}
