//! watch: a stream of JSON lines, those that are ready together in one write
//! (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use shared::status::ApiError;

use super::options;
use crate::api::chain::{Call, Inner};
use crate::api::listing::{Chunks, Writer};
use crate::api::metrics::Labels;
use crate::api::negotiate::{Accepted, Format, Shape};
use crate::api::route::Route;
use crate::api::{Body, Response, respond};
use crate::registry::Resource;
use crate::registry::store::{WatchEvent, WatchStream};

/// Opens a watch. Requests that make no sense get an ordinary answer; all other errors are an ERROR event.
pub(super) async fn open(call: &Call<'_>, row: &'static Resource) -> Result<Response, ApiError> {
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    if accepted.format == Format::Yaml {
        return Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ));
    }
    let stream = match call.server.store.watch(row, &options::watch(call.info)?).await {
        // As upstream: what is wrong with the resourceVersion is the watch's first and last event.
        Err(error) if error.reason() == "Expired" => {
            let mut chunks = Chunks::default();
            write_error(&mut chunks, &error);
            return Ok(respond::watch(accepted, chunks.finish()));
        }
        stream => stream?,
    };
    let labels = Route::Stored(row, None).labels(call.info);
    let frames = Frames {
        stream,
        writer: Writer::new(row, accepted.shape),
        columns: matches!(accepted.shape, Shape::Table(_)),
        events: Vec::new(),
        ready: VecDeque::new(),
        ended: false,
        open: Open::new(call.server.clone(), labels),
    };
    let stream = futures::stream::unfold(frames, |mut frames| async move { frames.next().await.map(|bytes| (Ok(bytes), frames)) });
    Ok(respond::watch(accepted, Body::stream(stream)))
}

/// Counts an open watch until it is dropped.
struct Open {
    server: Arc<Inner>,
    labels: Labels,
}

impl Open {
    fn new(server: Arc<Inner>, labels: Labels) -> Self {
        server.metrics.long_running(labels, 1);
        Open { server, labels }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.metrics.long_running(self.labels, -1);
    }
}

/// A watch as the bytes that go out.
struct Frames {
    stream: WatchStream,
    writer: Writer,
    /// Whether the next table is to carry the column definitions: only the first one does.
    columns: bool,
    events: Vec<WatchEvent>,
    ready: VecDeque<Bytes>,
    ended: bool,
    open: Open,
}

impl Frames {
    /// The next bytes; `None` when the watch is over, be it by its own time or by the server's.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let more = tokio::select! {
                biased;
                more = self.stream.next(&mut self.events) => more,
                () = self.open.server.stopping.cancelled() => false,
            };
            self.ended = !more;
            self.encode();
        }
    }

    /// Everything that is ready, one line an event.
    fn encode(&mut self) {
        let mut chunks = Chunks::default();
        let count = self.events.len();
        for event in self.events.drain(..) {
            if let Err(error) = line(&mut chunks, &self.writer, &mut self.columns, &event) {
                // The kind cannot be shown in the shape that was asked for: say so and end.
                write_error(&mut chunks, &error);
                self.ended = true;
                break;
            }
        }
        let body = chunks.finish();
        let metrics = &self.open.server.metrics;
        metrics.watch_events.fetch_add(count as u64, Ordering::Relaxed);
        metrics.watch_bytes.fetch_add(body.length().unwrap_or(0), Ordering::Relaxed);
        self.ready = body.into_chunks();
    }
}

fn line(chunks: &mut Chunks, writer: &Writer, columns: &mut bool, event: &WatchEvent) -> Result<(), ApiError> {
    let (head, entry): (&[u8], _) = match event {
        WatchEvent::Added(entry) => (b"{\"type\":\"ADDED\",\"object\":", entry),
        WatchEvent::Modified(entry) => (b"{\"type\":\"MODIFIED\",\"object\":", entry),
        WatchEvent::Deleted(entry) => (b"{\"type\":\"DELETED\",\"object\":", entry),
        WatchEvent::Bookmark { revision, initial_end } => {
            chunks.copy(b"{\"type\":\"BOOKMARK\",\"object\":");
            chunks.copy(writer.bookmark(*revision, *initial_end).as_bytes());
            chunks.copy(b"}\n");
            return Ok(());
        }
        WatchEvent::Error(error) => {
            write_error(chunks, error);
            return Ok(());
        }
    };
    chunks.copy(head);
    writer.object(chunks, entry, std::mem::take(columns))?;
    chunks.copy(b"}\n");
    Ok(())
}

fn write_error(chunks: &mut Chunks, error: &ApiError) {
    chunks.copy(b"{\"type\":\"ERROR\",\"object\":");
    chunks.copy(&serde_json::to_vec(&*error.0).unwrap_or_else(|_| b"null".to_vec()));
    chunks.copy(b"}\n");
}
