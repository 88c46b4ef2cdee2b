//! Watch: what a client's selectors make of a kind's events (`k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use shared::field;
use shared::selector::{FieldSelector, Selector};
use shared::status::ApiError;
use tokio::time::Instant;

use super::list::{Selects, check_fields, invalid_options};
use super::{Store, WAIT, WatchOptions, errors, parse_resource_version};
use crate::cache::{Entry, Event, Interest, Watcher};
use crate::registry::Resource;
use crate::registry::apiextensions::Definition;

/// How often a bookmark is sent to those who want them.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// A last bookmark is sent this long before the watch ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Shortest time to a watch's end when the client names none (upstream's `--min-request-timeout`); the longest is twice that.
const SHORTEST: Duration = Duration::from_secs(1800);
/// Initial events handed out at a time.
const BATCH: usize = 512;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object is new, or matches from now on.
    Added(Arc<Entry>),
    /// The object was changed.
    Modified(Arc<Entry>),
    /// The object is gone, or matches no longer; its last matching state, at the revision of the change.
    Deleted(Arc<Entry>),
    /// Everything up to this revision was sent.
    Bookmark {
        /// The revision.
        revision: i64,
        /// Whether it ends the initial events.
        initial_end: bool,
    },
    /// The last event: why the watch ends.
    Error(ApiError),
}

impl WatchEvent {
    /// The event's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(_) => "DELETED",
            WatchEvent::Bookmark { .. } => "BOOKMARK",
            WatchEvent::Error(_) => "ERROR",
        }
    }

    /// The object of an object's event.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) | WatchEvent::Deleted(entry) => Some(entry),
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => None,
        }
    }

    /// Appends the event's line as it goes over the wire; the object's bytes are shared, not copied.
    pub fn frame(&self, resource: &Resource, into: &mut Vec<Bytes>) {
        let object = match self {
            WatchEvent::Added(entry) | WatchEvent::Modified(entry) | WatchEvent::Deleted(entry) => entry.bytes.clone(),
            WatchEvent::Bookmark { revision, initial_end } => bookmark(resource, *revision, *initial_end),
            WatchEvent::Error(error) => serde_json::to_vec(&error.0).map(Bytes::from).unwrap_or_default(),
        };
        into.push(Bytes::from_static(match self {
            WatchEvent::Added(_) => b"{\"type\":\"ADDED\",\"object\":",
            WatchEvent::Modified(_) => b"{\"type\":\"MODIFIED\",\"object\":",
            WatchEvent::Deleted(_) => b"{\"type\":\"DELETED\",\"object\":",
            WatchEvent::Bookmark { .. } => b"{\"type\":\"BOOKMARK\",\"object\":",
            WatchEvent::Error(_) => b"{\"type\":\"ERROR\",\"object\":",
        }));
        into.push(object);
        into.push(Bytes::from_static(b"}\n"));
    }
}

/// An object of the kind with nothing but a resourceVersion.
fn bookmark(resource: &Resource, revision: i64, initial_end: bool) -> Bytes {
    let mut metadata = serde_json::json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_end {
        metadata["annotations"] = serde_json::json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = serde_json::json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata });
    Bytes::from(object.to_string())
}

/// An open watch.
pub struct WatchStream {
    resource: &'static Resource,
    watcher: Watcher,
    labels: Selector,
    fields: FieldSelector,
    namespace: String,
    /// Objects still to be sent as ADDED.
    initial: VecDeque<Arc<Entry>>,
    /// A bookmark that ends the initial events.
    initial_end: Option<i64>,
    /// Events up to here are not sent: the client has them.
    after: i64,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    finished: bool,
    /// Events that are ready and not yet handed out.
    events: VecDeque<Arc<Event>>,
    /// Of a kind that was defined at run time: the watch ends when this is in force no longer, as what it was told would look otherwise.
    definition: Option<Arc<Definition>>,
}

impl Store {
    /// Everything that happens to the objects that the options select.
    ///
    /// # Errors
    /// 400 for bad options; 410 when the resourceVersion is too old; 500 when an object cannot be read; 504 when the cache does not get to
    /// the resourceVersion.
    pub async fn watch(&self, resource: &'static Resource, options: &WatchOptions) -> Result<WatchStream, ApiError> {
        validate(options)?;
        check_fields(resource, &options.fields)?;
        let version = parse_resource_version(&options.resource_version)?;
        let from_now = version.is_none_or(|v| v == 0);
        let initial_wanted = options.send_initial_events.unwrap_or(from_now);
        if from_now || initial_wanted {
            self.reach(&options.resource_version).await?;
        } else {
            self.inner.cache.wait_for(1, WAIT).await.map_err(errors::cache)?;
        }
        let cache = &self.inner.cache;
        let interest = interest(resource, options);
        let (watcher, initial, after) = if initial_wanted {
            // The watcher first: what happens between the two is skipped by its revision.
            let watcher = cache.watch(resource, interest, cache.revision()).map_err(errors::gone)?;
            let snapshot = cache.snapshot(resource, &options.namespace, "", None).map_err(errors::undecodable)?;
            let selects = Selects::new(resource, &options.labels, &options.fields);
            let revision = snapshot.revision;
            let objects = self.shown_all(resource, snapshot.objects).await?.into_iter().filter(|e| selects.matches(e)).collect();
            (watcher, objects, revision)
        } else {
            let after = version.filter(|v| *v > 0).unwrap_or_else(|| cache.revision());
            (cache.watch(resource, interest, after).map_err(errors::gone)?, VecDeque::new(), after)
        };
        let now = Instant::now();
        let ends = now + if options.timeout.is_zero() { rand::rng().random_range(SHORTEST..SHORTEST * 2) } else { options.timeout };
        let end_bookmark = options.send_initial_events == Some(true) && options.allow_bookmarks;
        let mut stream = WatchStream {
            resource,
            watcher,
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            namespace: options.namespace.clone(),
            initial,
            initial_end: end_bookmark.then_some(after),
            after,
            bookmarks: options.allow_bookmarks,
            next_bookmark: now,
            ends,
            finished: false,
            events: VecDeque::new(),
            definition: resource.custom.as_ref().map(|slot| slot.current()),
        };
        stream.plan_bookmark(now);
        Ok(stream)
    }
}

impl WatchStream {
    /// The kind watched.
    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    /// Waits for events and appends all that are ready; `false` when the watch has ended. Dropping the future loses nothing.
    pub async fn next(&mut self, into: &mut Vec<WatchEvent>) -> bool {
        loop {
            if self.finished || self.definition.as_ref().is_some_and(|d| d.closed.is_cancelled()) {
                return false;
            }
            self.take_initial(into);
            if into.is_empty() {
                self.take_ready(into).await;
            }
            if !into.is_empty() {
                return true;
            }
            let timer = self.next_bookmark.min(self.ends);
            let definition = self.definition.clone();
            let closed = async {
                match &definition {
                    Some(definition) => definition.closed.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.watcher.changed() => {}
                () = closed => return false,
                () = tokio::time::sleep_until(timer) => self.on_timer(into),
            }
            if !into.is_empty() {
                return true;
            }
        }
    }

    fn take_initial(&mut self, into: &mut Vec<WatchEvent>) {
        let count = self.initial.len().min(BATCH);
        into.extend(self.initial.drain(..count).map(WatchEvent::Added));
        if self.initial.is_empty()
            && let Some(revision) = self.initial_end.take()
        {
            into.push(WatchEvent::Bookmark { revision, initial_end: true });
        }
    }

    /// Everything that is ready, until something was selected or nothing is left.
    async fn take_ready(&mut self, into: &mut Vec<WatchEvent>) {
        loop {
            if self.events.is_empty() {
                let mut ready = Vec::new();
                if let Err(gone) = self.watcher.ready(&mut ready) {
                    into.push(WatchEvent::Error(errors::gone(gone)));
                    self.finished = true;
                    return;
                }
                if ready.is_empty() {
                    return;
                }
                self.events = ready.into();
            }
            while let Some(event) = self.events.front() {
                match self.seen(event).await {
                    Ok(seen) => into.extend(seen),
                    Err(error) => {
                        into.push(WatchEvent::Error(error));
                        self.finished = true;
                        return;
                    }
                }
                self.events.pop_front();
            }
            if !into.is_empty() {
                return;
            }
        }
    }

    /// What an event is to this client.
    async fn seen(&self, event: &Event) -> Result<Option<WatchEvent>, ApiError> {
        let elsewhere = !self.namespace.is_empty() && *event.entry.namespace != *self.namespace;
        if elsewhere || event.revision() <= self.after {
            return Ok(None);
        }
        let selects = Selects::new(self.resource, &self.labels, &self.fields);
        let Some(slot) = &self.resource.custom else { return Ok(select(&selects, event)) };
        let both = event.previous.iter().chain([&event.entry]).cloned().collect();
        let mut shown = slot.show(self.resource, both).await?.into_iter();
        let previous = event.previous.as_ref().and_then(|_| shown.next());
        Ok(shown.next().and_then(|entry| select(&selects, &Event::new(entry, previous, event.deleted))))
    }

    fn on_timer(&mut self, into: &mut Vec<WatchEvent>) {
        let now = Instant::now();
        if now >= self.ends {
            self.finished = true;
            return;
        }
        if now < self.next_bookmark {
            return;
        }
        self.plan_bookmark(now);
        if let Some(revision) = self.watcher.progress() {
            into.push(WatchEvent::Bookmark { revision: revision.max(self.after), initial_end: false });
        }
    }

    fn plan_bookmark(&mut self, now: Instant) {
        let farewell = self.ends - FAREWELL.min(self.ends - now);
        self.next_bookmark = match self.bookmarks {
            true if farewell > now => (now + BOOKMARKS).min(farewell),
            // After the farewell, or without bookmarks, only the end is left to wait for.
            _ => self.ends,
        };
    }
}

/// What an event is to a client with these selectors; nothing when it never saw the object and still does not.
fn select(selects: &Selects<'_>, event: &Event) -> Option<WatchEvent> {
    let now = !event.deleted && selects.matches(&event.entry);
    let before = event.previous.as_ref().is_some_and(|p| selects.matches(p));
    match (before, now) {
        (false, true) => Some(WatchEvent::Added(event.entry.clone())),
        (true, true) => Some(WatchEvent::Modified(event.entry.clone())),
        (true, false) => Some(WatchEvent::Deleted(event.left().clone())),
        (false, false) => None,
    }
}

/// The narrowest interest that the selectors allow.
fn interest(resource: &Resource, options: &WatchOptions) -> Interest {
    if let Some(name) = options.fields.required("metadata.name")
        && (!resource.namespaced || !options.namespace.is_empty())
    {
        let namespace = if resource.namespaced { options.namespace.as_str() } else { "" };
        return Interest::Object(namespace.into(), name.into());
    }
    // What the cache holds of a kind that was defined at run time may show other values there.
    let by_field = resource
        .fields
        .iter()
        .enumerate()
        .filter(|_| resource.custom.is_none())
        .find_map(|(i, path)| options.fields.required(path).map(|value| (i, value)));
    if let Some((index, value)) = by_field {
        return Interest::Field(index, value.into());
    }
    if resource.namespaced && !options.namespace.is_empty() { Interest::Namespace(options.namespace.as_str().into()) } else { Interest::All }
}

fn validate(options: &WatchOptions) -> Result<(), ApiError> {
    let path = field::Path::new("resourceVersionMatch");
    let given = options.resource_version_match.as_str();
    let mut errors = Vec::new();
    match (options.send_initial_events, given) {
        (Some(_), "NotOlderThan") | (None, "") => {}
        (Some(_), _) => errors.push(field::Error::forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
        (None, _) => errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")),
    }
    if !given.is_empty() && given != "NotOlderThan" {
        errors.push(field::Error::not_supported(&path, given, &["NotOlderThan"]));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid_options(&errors)) }
}
