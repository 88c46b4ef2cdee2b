//! Colours, on a terminal only; `NO_COLOR` and pipes get plain text.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// Whether stdout is a terminal that wants colours.
pub fn on_stdout() -> bool {
    wanted() && std::io::stdout().is_terminal()
}

/// Whether stderr is a terminal that wants colours.
pub fn on_stderr() -> bool {
    wanted() && std::io::stderr().is_terminal()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

fn paint(text: &str, color: AnsiColor, bold: bool) -> String {
    let style = Style::new().fg_color(Some(color.into()));
    let style = if bold { style.bold() } else { style };
    format!("{style}{text}{style:#}")
}

/// `Warning: …`, yellow on a terminal.
pub fn warning(text: &str) -> String {
    let head = if on_stderr() { paint("Warning:", AnsiColor::Yellow, true) } else { "Warning:".into() };
    format!("{head} {text}")
}

/// An error message, its first word red on a terminal.
pub fn error(text: &str) -> String {
    match text.strip_prefix("error:") {
        Some(rest) if on_stderr() => format!("{}{rest}", paint("error:", AnsiColor::Red, true)),
        _ => text.to_owned(),
    }
}

/// Advice that is part of an error's text, dimmed on a terminal.
pub fn advice(text: &str) -> String {
    if on_stderr() { paint(text, AnsiColor::Cyan, false) } else { text.to_owned() }
}

/// Prints advice beside an error; only to a person, since scripts compare what kubectl would have said.
pub fn hint(text: &str) {
    if std::io::stderr().is_terminal() {
        let text = if wanted() { paint(text, AnsiColor::Cyan, false) } else { text.to_owned() };
        eprintln!("{text}");
    }
}

/// Colours the words of a table cell that tell good from bad.
pub fn cell(text: &str, padded: String) -> String {
    let bad = ["Error", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "Failed", "NotReady", "OOMKilled", "Evicted", "Lost", "Unknown"];
    let good = ["Running", "Ready", "Active", "Bound", "Complete", "Completed", "Succeeded", "Available"];
    let waiting = ["Pending", "Terminating", "ContainerCreating", "PodInitializing", "SchedulingDisabled", "Warning"];
    let first = text.split(',').next_back().unwrap_or(text);
    let color = if bad.contains(&first) || text.starts_with("Init:Error") || text.starts_with("Init:CrashLoop") {
        AnsiColor::Red
    } else if good.contains(&first) {
        AnsiColor::Green
    } else if waiting.contains(&first) || text.starts_with("Init:") {
        AnsiColor::Yellow
    } else {
        return padded;
    };
    paint(&padded, color, false)
}

/// A table's header on a terminal.
pub fn header(padded: String) -> String {
    let style = Style::new().bold();
    format!("{style}{padded}{style:#}")
}

/// A unified diff with its lines coloured.
pub fn diff(text: &str) -> String {
    let line = |line: &str| match line.chars().next() {
        Some('+') => paint(line, AnsiColor::Green, false),
        Some('-') => paint(line, AnsiColor::Red, false),
        Some('@') => paint(line, AnsiColor::Cyan, false),
        _ => line.to_owned(),
    };
    text.lines().map(|l| line(l) + "\n").collect()
}
