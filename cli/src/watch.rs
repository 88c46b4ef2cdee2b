//! Watches: a stream of events about a collection.

use anyhow::{Result, anyhow, bail};
use reqwest::Response;
use serde_json::Value;

use crate::app::Ctx;
use crate::client::server_error;
use crate::resource::{query_string, with_query};

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub kind: String,
    /// The object, or a table of it.
    pub object: Value,
}

/// An open watch.
pub struct Watch {
    response: Response,
    lines: Lines,
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
    /// The next whole line, with its newline.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let at = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
        let Some(at) = at else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + at + 1;
        self.searched = 0;
        Some(self.buffer.drain(..end).collect())
    }
    /// What is left when the stream ends.
    pub fn rest(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.buffer)
    }
}

impl Watch {
    /// Watches a collection from a resource version on.
    pub async fn open(ctx: &Ctx, path: &str, parameters: &[(&str, String)], resource_version: &str, accept: &str) -> Result<Watch> {
        let mut pairs = parameters.to_vec();
        pairs.push(("watch", "true".into()));
        if !resource_version.is_empty() {
            pairs.push(("resourceVersion", resource_version.to_owned()));
        }
        let response = ctx.client().await?.stream(&with_query(path, &query_string(&pairs)), accept).await?;
        Ok(Watch { response, lines: Lines::default() })
    }

    /// Waits for the next event; none when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(line) = self.lines.next_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return event(&line).map(Some);
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.lines.push(&bytes),
                Ok(None) => {
                    let rest = self.lines.rest();
                    return if rest.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { event(&rest).map(Some) };
                }
                // A request timeout ends a watch like any other end.
                Err(error) if error.is_timeout() => return Ok(None),
                Err(error) => bail!("an error on the watch: {error}"),
            }
        }
    }
}

fn event(line: &[u8]) -> Result<Event> {
    let mut parsed: Value = serde_json::from_slice(line).map_err(|e| anyhow!("unable to decode an event from the watch stream: {e}"))?;
    let kind = parsed["type"].as_str().unwrap_or_default().to_owned();
    let object = parsed["object"].take();
    if kind == "ERROR" {
        let code = object["code"].as_u64().and_then(|c| u16::try_from(c).ok()).and_then(|c| reqwest::StatusCode::from_u16(c).ok());
        return Err(server_error(code.unwrap_or(reqwest::StatusCode::INTERNAL_SERVER_ERROR), &serde_json::to_vec(&object)?).into());
    }
    Ok(Event { kind, object })
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_survive_any_cut() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for part in ["a", "b\nc\n", "", "d", "\ne"] {
            lines.push(part.as_bytes());
            while let Some(line) = lines.next_line() {
                out.push(String::from_utf8(line).unwrap());
            }
        }
        assert_eq!(out, ["ab\n", "c\n", "d\n"]);
        assert_eq!(lines.rest(), b"e");
    }
}
