//! Bodies made of objects that are encoded already: lists, tables, metadata lists, and the frames of a watch.
//!
//! Owns how JSON around objects is written. Must never re-encode an object: its bytes are shared or copied as they are.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::status::ApiError;

use super::Body;
use super::negotiate::{Include, Shape};
use crate::cache::Entry;
use crate::registry::{Column, PrintContext, Resource};

/// Smaller objects are copied together so that a body has few chunks; larger ones are shared.
const SHARE_FROM: usize = 4 * 1024;
/// Copied bytes are handed on when there are this many.
const CHUNK: usize = 64 * 1024;

/// Collects a body from text and objects.
#[derive(Default)]
pub struct Chunks {
    done: VecDeque<Bytes>,
    open: BytesMut,
}

impl Chunks {
    /// Adds bytes by copying them.
    pub fn copy(&mut self, bytes: &[u8]) {
        if self.open.capacity() - self.open.len() < bytes.len() {
            self.flush();
            self.open.reserve(CHUNK.max(bytes.len()));
        }
        self.open.put_slice(bytes);
    }
    /// Adds bytes, by sharing where that is cheaper.
    pub fn share(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_FROM {
            return self.copy(&bytes);
        }
        self.flush();
        self.done.push_back(bytes);
    }
    fn flush(&mut self) {
        if !self.open.is_empty() {
            self.done.push_back(self.open.split().freeze());
        }
    }
    /// The body so far.
    pub fn finish(mut self) -> Body {
        self.flush();
        Body::chunks(self.done)
    }
    /// The bytes so far, in one piece.
    pub fn into_bytes(mut self) -> Bytes {
        self.flush();
        match self.done.len() {
            0 => Bytes::new(),
            1 => self.done.pop_front().unwrap_or_default(),
            _ => self.done.iter().flatten().copied().collect(),
        }
    }
}

/// The end of a list.
const END: &[u8] = b"]}\n";

/// The chunks of a list of whole objects, each made when it is sent: a list of thousands does not stand in memory, unless it is encoded anew.
struct Items {
    writer: Writer,
    left: std::vec::IntoIter<Arc<Entry>>,
    chunks: Chunks,
    begun: bool,
    ended: bool,
}

impl Iterator for Items {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.chunks.done.is_empty() && !self.ended {
            match self.left.next() {
                Some(entry) => {
                    self.chunks.copy(if self.begun { b",{" } else { b"{" });
                    self.chunks.share(entry.bytes.slice(self.writer.typed(&entry)..));
                    self.begun = true;
                }
                None => {
                    self.chunks.copy(END);
                    self.chunks.flush();
                    self.ended = true;
                }
            }
        }
        self.chunks.done.pop_front()
    }
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub struct ListHead {
    /// Revision of the list.
    pub revision: i64,
    /// Token for the next page, empty on the last one.
    pub next: String,
    /// Objects after this page, when known.
    pub remaining: Option<i64>,
}

impl ListHead {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "\"metadata\":{{\"resourceVersion\":\"{}\"", self.revision);
        if !self.next.is_empty() {
            // The token is base64: nothing to escape.
            let _ = write!(out, ",\"continue\":\"{}\"", self.next);
        }
        if let Some(remaining) = self.remaining {
            let _ = write!(out, ",\"remainingItemCount\":{remaining}");
        }
        out.push('}');
    }
}

/// How objects of a kind are written in a requested shape.
pub struct Writer {
    resource: &'static Resource,
    shape: Shape,
    context: PrintContext,
    /// `{"apiVersion":"v1","kind":"Pod",` as our encoding begins, and as Go's does; left out of list items, as upstream's are.
    prefixes: [String; 2],
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

impl Writer {
    /// Writes objects of `resource` in `shape`.
    pub fn new(resource: &'static Resource, shape: Shape) -> Self {
        let (version, kind) = (resource.api_version(), resource.kind);
        let prefixes =
            [format!("{{\"apiVersion\":\"{version}\",\"kind\":\"{kind}\","), format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",")];
        Writer { resource, shape, context: PrintContext { now: k8s_openapi::jiff::Timestamp::now() }, prefixes }
    }

    /// A whole list.
    ///
    /// # Errors
    /// 500 for an object that cannot be shown in the shape.
    pub fn list(self, head: &ListHead, items: Vec<Arc<Entry>>) -> Result<Body, ApiError> {
        let mut start = match self.shape {
            Shape::Object => format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", self.resource.list_kind(), self.resource.api_version()),
            Shape::Table(_) => "{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",".to_owned(),
            Shape::Metadata => "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",".to_owned(),
        };
        head.write(&mut start);
        start.push_str(if matches!(self.shape, Shape::Table(_)) { "," } else { ",\"items\":[" });
        if matches!(self.shape, Shape::Table(_)) {
            self.columns(&mut start);
            start.push_str(",\"rows\":[");
        }
        let mut chunks = Chunks::default();
        chunks.copy(start.as_bytes());
        let include = match self.shape {
            Shape::Object => {
                let objects = items.iter().map(|e| e.bytes.len() - self.typed(e) + 2).sum::<usize>() - usize::from(!items.is_empty());
                let length = start.len() + objects + END.len();
                return Ok(Body::made(Items { writer: self, left: items.into_iter(), chunks, begun: false, ended: false }, length as u64));
            }
            Shape::Table(include) => Some(include),
            Shape::Metadata => None,
        };
        for (at, entry) in items.iter().enumerate() {
            if at > 0 {
                chunks.copy(b",");
            }
            match include {
                Some(include) => self.row(&mut chunks, entry, include)?,
                None => partial(&mut chunks, entry)?,
            }
        }
        chunks.copy(END);
        Ok(chunks.finish())
    }

    /// Length of an object's opening brace and its type, which a list leaves out.
    fn typed(&self, entry: &Entry) -> usize {
        self.prefixes.iter().find(|p| entry.bytes.starts_with(p.as_bytes())).map_or(1, String::len)
    }

    /// An object by itself: the answer to a get, or the object of a watch event.
    ///
    /// # Errors
    /// 500 for an object that cannot be shown in the shape.
    pub fn object(&self, chunks: &mut Chunks, entry: &Entry, columns: bool) -> Result<(), ApiError> {
        match self.shape {
            Shape::Object => chunks.share(entry.bytes.clone()),
            Shape::Metadata => partial(chunks, entry)?,
            Shape::Table(include) => {
                let mut start = "{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",".to_owned();
                ListHead { revision: entry.revision, ..ListHead::default() }.write(&mut start);
                start.push(',');
                if columns {
                    self.columns(&mut start);
                } else {
                    start.push_str("\"columnDefinitions\":null");
                }
                chunks.copy(start.as_bytes());
                chunks.copy(b",\"rows\":[");
                self.row(chunks, entry, include)?;
                chunks.copy(b"]}");
            }
        }
        Ok(())
    }

    /// The object of a bookmark: the kind with nothing but a resourceVersion, and the mark at the end of a watch's initial events.
    pub fn bookmark(&self, revision: i64, initial_events_end: bool) -> String {
        let (kind, version) = match self.shape {
            Shape::Object => (self.resource.kind, self.resource.api_version()),
            Shape::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Shape::Table(_) => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let mark = if initial_events_end { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
        let metadata = format!("\"metadata\":{{\"resourceVersion\":\"{revision}\"{mark}}}");
        match self.shape {
            Shape::Table(_) if initial_events_end => format!(
                // A table has no annotations, so the mark is in its only row's object, as upstream puts it.
                "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"columnDefinitions\":null,\"rows\":[{{\"cells\":[],\"object\":{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",{metadata}}}}}]}}"
            ),
            Shape::Table(_) => format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",{metadata},\"columnDefinitions\":null,\"rows\":[]}}"),
            _ => format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",{metadata}}}"),
        }
    }

    fn columns(&self, out: &mut String) {
        out.push_str("\"columnDefinitions\":[");
        for (at, column) in self.resource.printed_columns().iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}{{\"name\":\"{}\",\"type\":\"{}\",\"format\":\"{}\",\"description\":\"{}\",\"priority\":{}}}",
                column.name,
                column.kind,
                column.format,
                description(column),
                column.priority
            );
        }
        out.push(']');
    }

    fn row(&self, chunks: &mut Chunks, entry: &Entry, include: Include) -> Result<(), ApiError> {
        let object = self.resource.ops.decode(&entry.bytes).map_err(ApiError::internal)?;
        let cells = self.resource.ops.cells(&object, &self.context);
        chunks.copy(b"{\"cells\":");
        chunks.copy(&serde_json::to_vec(&cells).map_err(ApiError::internal)?);
        match include {
            Include::Nothing => {}
            Include::Metadata => {
                chunks.copy(b",\"object\":");
                partial(chunks, entry)?;
            }
            Include::Object => {
                chunks.copy(b",\"object\":");
                chunks.share(entry.bytes.clone());
            }
        }
        chunks.copy(b"}");
        Ok(())
    }
}

/// What the columns that all kinds have are for, in the words of their fields (`metav1.ObjectMeta{}.SwaggerDoc()`); nothing to escape.
fn description(column: &Column) -> &'static str {
    match (column.name, column.format) {
        (_, "name") => super::openapi::NAME,
        ("Age" | "Created At", _) => super::openapi::CREATED,
        _ => "",
    }
}

/// An object's metadata as a PartialObjectMetadata.
fn partial(chunks: &mut Chunks, entry: &Entry) -> Result<(), ApiError> {
    let object: Metadata<'_> = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    chunks.copy(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
    chunks.copy(object.metadata.get().as_bytes());
    chunks.copy(b"}");
    Ok(())
}
