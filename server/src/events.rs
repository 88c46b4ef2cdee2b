//! Records Events about objects, as components tell users what they did (`client-go/tools/record`).
//!
//! Owns the queue and the aggregation of repeated events. Recording never blocks and never fails its caller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::tasks::Tasks;

/// How long an event is counted up instead of written anew (upstream: 10 minutes).
const AGGREGATION_WINDOW: Duration = Duration::from_secs(600);
/// Events waiting to be written; more are dropped, as upstream does.
const QUEUE: usize = 1000;

/// Whether something went as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

struct Record {
    object: ObjectReference,
    kind: Kind,
    reason: String,
    message: String,
    at: k8s_openapi::jiff::Timestamp,
}

/// Writes Events under a component's name. Clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

impl Recorder {
    /// `component` and `host` become the event's `source`; `host` may be empty.
    pub fn new(client: Client, tasks: &Tasks, component: &str, host: &str) -> Self {
        let (queue, mut records) = mpsc::channel::<Record>(QUEUE);
        let mut writer = Writer { client, component: component.into(), host: host.into(), seen: HashMap::new() };
        tasks.spawn(format!("events/{component}"), async move {
            while let Some(record) = records.recv().await {
                writer.write(record).await;
            }
        });
        Recorder { queue }
    }

    /// Records an event about any object.
    pub fn event<K>(&self, object: &K, kind: Kind, reason: &str, message: impl Into<String>)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        self.event_on(object.object_ref(&()), kind, reason, message);
    }

    /// Records an event about a reference, for instance with a `fieldPath`.
    pub fn event_on(&self, object: ObjectReference, kind: Kind, reason: &str, message: impl Into<String>) {
        let record = Record { object, kind, reason: reason.into(), message: message.into(), at: k8s_openapi::jiff::Timestamp::now() };
        if self.queue.try_send(record).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full or closed");
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    namespace: String,
    name: String,
    field: String,
    kind: Kind,
    reason: String,
    message: String,
}

struct Written {
    name: String,
    count: i32,
    last: Instant,
}

struct Writer {
    client: Client,
    component: Arc<str>,
    host: Arc<str>,
    seen: HashMap<Identity, Written>,
}

impl Writer {
    async fn write(&mut self, record: Record) {
        let now = Instant::now();
        self.seen.retain(|_, w| now.duration_since(w.last) < AGGREGATION_WINDOW);
        let namespace = record.object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let identity = Identity {
            uid: record.object.uid.clone().unwrap_or_default(),
            namespace: namespace.clone(),
            name: record.object.name.clone().unwrap_or_default(),
            field: record.object.field_path.clone().unwrap_or_default(),
            kind: record.kind,
            reason: record.reason.clone(),
            message: record.message.clone(),
        };
        let stamp = Time(record.at);
        if let Some(written) = self.seen.get_mut(&identity) {
            written.count += 1;
            written.last = now;
            let patch = serde_json::json!({ "count": written.count, "lastTimestamp": stamp });
            match api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return tracing::debug!(%error, "event not updated"),
            }
        }
        let name = format!("{}.{:x}", identity.name, record.at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: record.object,
            type_: Some(
                match record.kind {
                    Kind::Normal => "Normal",
                    Kind::Warning => "Warning",
                }
                .into(),
            ),
            reason: Some(record.reason),
            message: Some(record.message),
            count: Some(1),
            first_timestamp: Some(stamp.clone()),
            last_timestamp: Some(stamp),
            source: Some(EventSource { component: Some(self.component.to_string()), host: (!self.host.is_empty()).then(|| self.host.to_string()) }),
            reporting_component: Some(self.component.to_string()),
            reporting_instance: Some(self.host.to_string()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                self.seen.insert(identity, Written { name, count: 1, last: now });
            }
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}
