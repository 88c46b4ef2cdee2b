//! `-o custom-columns`: headers and a JSONPath each.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use shared::jsonpath::{Template, relaxed};

use super::tabwriter;

/// Parsed columns.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<(String, Template)>,
    headers: bool,
}

impl Columns {
    /// From `NAME:.metadata.name,IMAGE:.spec.containers[*].image`.
    pub fn parse(spec: &str) -> Result<Columns> {
        let mut columns = Vec::new();
        for part in split_columns(spec) {
            let Some((header, path)) = part.split_once(':') else {
                bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            };
            columns.push(column(header, path)?);
        }
        Ok(Columns { columns, headers: true })
    }

    /// From a file of two lines: the headers, and the paths below them.
    pub fn parse_file(text: &str) -> Result<Columns> {
        let mut lines = text.lines();
        let headers: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let paths: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        if headers.len() != paths.len() {
            bail!("number of headers ({}) and field specifications ({}) don't match", headers.len(), paths.len());
        }
        let columns = headers.iter().zip(paths).map(|(h, p)| column(h, p)).collect::<Result<_>>()?;
        Ok(Columns { columns, headers: true })
    }

    /// Leaves the headers out.
    pub fn without_headers(&mut self) {
        self.headers = false;
    }

    /// The rows of an object or list, with headers when they are wanted and asked for.
    pub fn print(&self, object: &Value, headers: bool) -> Result<String> {
        let mut text = String::new();
        if headers && self.headers {
            let names: Vec<&str> = self.columns.iter().map(|(h, _)| h.as_str()).collect();
            text.push_str(&names.join("\t"));
            text.push('\n');
        }
        let rows: Vec<&Value> = match object["items"].as_array() {
            Some(items) => items.iter().collect(),
            None => vec![object],
        };
        for row in rows {
            let cells = self.columns.iter().map(|(_, template)| cell(template, row)).collect::<Result<Vec<_>>>()?;
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        Ok(tabwriter::TABLE.align(&text))
    }
}

fn column(header: &str, path: &str) -> Result<(String, Template)> {
    let path = relaxed(path).map_err(|e| anyhow!("{e}"))?;
    let template = Template::parse(&path).map_err(|e| anyhow!("error parsing jsonpath {path}, {e}"))?;
    Ok((header.to_owned(), template))
}

/// Splits at commas outside brackets, so that `[?(@.a=="b,c")]` and `[0,1]` stay whole.
fn split_columns(spec: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0i32;
    for c in spec.chars() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth <= 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn cell(template: &Template, row: &Value) -> Result<String> {
    let groups = template.find(row, true).map_err(|e| anyhow!("{e}"))?;
    let values: Vec<String> = groups.into_iter().flatten().map(|v| if v.is_null() { "<nil>".into() } else { super::template::plain(&v) }).collect();
    Ok(if values.is_empty() { "<none>".into() } else { values.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prints_a_row_for_each_item() {
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:.spec.c[*].image,X:.nope").unwrap();
        let list = json!({"items": [
            {"metadata": {"name": "a"}, "spec": {"c": [{"image": "i"}, {"image": "j"}]}},
            {"metadata": {"name": "long-name"}}]});
        assert_eq!(columns.print(&list, true).unwrap(), "NAME        IMAGES   X\na           i,j      <none>\nlong-name   <none>   <none>\n");
    }
}
