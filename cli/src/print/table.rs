//! Tables of objects, laid out by comfy-table as kubectl's writer does: least width 6, three spaces between, the last column unpadded.
//!
//! Owns layout and the server's `Table` form. Which columns there are is the server's or the command's business.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value;

use super::style;

const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Lays rows out below each other, remembering widths from one call to the next, as a watch needs.
#[derive(Debug, Default)]
pub struct Layout {
    widths: Vec<usize>,
}

impl Layout {
    /// The rows as text. The first row is a header when `header` says so.
    pub fn rows(&mut self, rows: &[Vec<String>], header: bool) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        self.widths.resize(self.widths.len().max(columns), 0);
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                self.widths[index] = self.widths[index].max(cell.chars().count());
            }
        }
        if style::on_stdout() { self.painted(rows, header) } else { self.plain(rows, columns) }
    }

    fn plain(&self, rows: &[Vec<String>], columns: usize) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.add_rows(rows.iter().cloned());
        for (index, width) in self.widths.iter().enumerate().take(columns) {
            if let Some(column) = table.column_mut(index) {
                let gap = if index + 1 == columns { 0 } else { PADDING };
                column.set_padding((0, gap as u16));
                let least = if index + 1 == columns { *width } else { (width + gap).max(MIN_WIDTH) };
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(u16::try_from(least).unwrap_or(u16::MAX))));
            }
        }
        let mut out = String::new();
        for (line, row) in table.lines().zip(rows) {
            out.push_str(line.trim_end_matches(' '));
            // kubectl's writer pads every cell but a row's last, even when that one is empty.
            if row.last().is_some_and(String::is_empty) && row.len() > 1 {
                let wanted: usize = self.widths[..row.len() - 1].iter().map(|w| (w + PADDING).max(MIN_WIDTH)).sum();
                let have = line.trim_end_matches(' ').chars().count();
                (have..wanted).for_each(|_| out.push(' '));
            }
            out.push('\n');
        }
        out
    }

    fn painted(&self, rows: &[Vec<String>], header: bool) -> String {
        let mut out = String::new();
        for (number, row) in rows.iter().enumerate() {
            for (index, cell) in row.iter().enumerate() {
                let width = if index + 1 == row.len() { 0 } else { (self.widths[index] + PADDING).max(MIN_WIDTH) };
                let padded = format!("{cell:<width$}");
                out.push_str(&if header && number == 0 { style::header(padded) } else { style::cell(cell, padded) });
            }
            out.push('\n');
        }
        out
    }
}

/// What of a server's table is shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Columns of lower priority too.
    pub wide: bool,
    /// A NAMESPACE column first.
    pub namespace: bool,
    /// `kind.group` put before each name.
    pub kind: Option<String>,
    /// A LABELS column last.
    pub labels: bool,
    /// A column for each of these labels.
    pub label_columns: Vec<String>,
}

/// The header of a server's table.
pub fn headers(table: &Value, shown: &Shown) -> Vec<String> {
    let mut cells = Vec::new();
    if shown.namespace {
        cells.push("NAMESPACE".to_owned());
    }
    for column in definitions(table).iter().filter(|c| is_shown(c, shown)) {
        cells.push(column["name"].as_str().unwrap_or_default().to_uppercase());
    }
    for label in &shown.label_columns {
        cells.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
    }
    if shown.labels {
        cells.push("LABELS".to_owned());
    }
    cells
}

/// One row of a server's table; `columns` is the table that carries the column definitions.
pub fn row(columns: &Value, row: &Value, shown: &Shown) -> Vec<String> {
    let metadata = &row["object"]["metadata"];
    let mut cells = Vec::new();
    if shown.namespace {
        cells.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
    }
    let definitions = definitions(columns);
    for (index, (cell, definition)) in row["cells"].as_array().into_iter().flatten().zip(definitions).enumerate() {
        if !is_shown(definition, shown) {
            continue;
        }
        let text = cell_text(cell);
        cells.push(match &shown.kind {
            Some(kind) if index == 0 => format!("{kind}/{text}"),
            _ => text,
        });
    }
    let labels = metadata["labels"].as_object();
    for label in &shown.label_columns {
        cells.push(labels.and_then(|l| l.get(label)).and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    if shown.labels {
        cells.push(labels_text(labels));
    }
    cells
}

/// `a=b,c=d`, or `<none>`.
pub fn labels_text(labels: Option<&serde_json::Map<String, Value>>) -> String {
    match labels.filter(|l| !l.is_empty()) {
        // By the whole pair, as upstream sorts them: `a2=x` comes before `a=x`, as `2` comes before `=`.
        Some(labels) => {
            let mut pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            pairs.sort();
            pairs.join(",")
        }
        None => "<none>".into(),
    }
}

fn definitions(table: &Value) -> &[Value] {
    table["columnDefinitions"].as_array().map_or(&[], Vec::as_slice)
}

fn is_shown(definition: &Value, shown: &Shown) -> bool {
    shown.wide || definition["priority"].as_i64().unwrap_or(0) == 0
}

fn cell_text(cell: &Value) -> String {
    let text = match cell {
        Value::Null => return String::new(),
        Value::String(s) => s.clone(),
        other => super::template::plain(other),
    };
    let (line, more) = match text.find(['\n', '\r', '\u{c}']) {
        Some(at) => (&text[..at], "..."),
        None => (text.as_str(), ""),
    };
    // A name must not be able to move the cursor.
    line.replace('\u{1b}', "^[") + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pads_as_kubectl_does() {
        let rows = |cells: &[&[&str]]| cells.iter().map(|r| r.iter().map(|c| (*c).to_owned()).collect()).collect::<Vec<Vec<String>>>();
        let mut layout = Layout::default();
        assert_eq!(layout.rows(&rows(&[&["NAME", "READY", "AGE"], &["a", "1/1", "5m"]]), true), "NAME   READY   AGE\na      1/1     5m\n");
        assert_eq!(layout.rows(&rows(&[&["a-longer-name", "1/1", "6m"]]), false), "a-longer-name   1/1     6m\n");
        assert_eq!(layout.rows(&rows(&[&["b", "1/1", "6m"]]), false), "b               1/1     6m\n", "widths are remembered");
        assert_eq!(Layout::default().rows(&rows(&[&["A", "B"], &["x", ""]]), true), "A     B\nx     \n");
    }

    #[test]
    fn shows_what_is_asked_for() {
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["a\nb", 3, null], "object": {"metadata": {"namespace": "n", "labels": {"x/y": "1"}}}}]
        });
        let shown = Shown { namespace: true, labels: true, label_columns: vec!["x/y".into()], kind: Some("pod".into()), ..Shown::default() };
        assert_eq!(headers(&table, &shown), ["NAMESPACE", "NAME", "AGE", "Y", "LABELS"]);
        assert_eq!(row(&table, &table["rows"][0], &shown), ["n", "pod/a...", "3", "1", "x/y=1"]);
        let wide = Shown { wide: true, ..Shown::default() };
        assert_eq!(row(&table, &table["rows"][0], &wide), ["a...", "3", ""]);
    }
}
