//! A small API server in memory behind a `kube::Client`, for tests: create, get, list, watch, update, patch, delete, subresources,
//! finalizers, graceful deletion of bound pods, discovery. It can hold watch events back and fail every nth write, before or after
//! doing it.
//!
//! It does not default, validate, authorize or admit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

mod request;

use request::{Filter, ROWS, Row, Target, decode, discovery, group_version, parse, partial, resource};

/// (resource as `group/plural`, namespace, name)
type Id = (String, String, String);

#[derive(Clone)]
struct LogEntry {
    revision: u64,
    kind: &'static str,
    id: Id,
    object: Arc<Value>,
    before: Option<Arc<Value>>,
}

#[derive(Default)]
struct Store {
    revision: u64,
    objects: BTreeMap<Id, Arc<Value>>,
    log: Vec<LogEntry>,
}

/// How writes fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Refused with 500, nothing done.
    Before,
    /// Done, but the answer is lost.
    After,
}

/// The server. Clones share it.
#[derive(Clone)]
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
    /// A kind whose watches deliver nothing newer than a revision.
    held: watch::Sender<Option<(String, u64)>>,
    written: watch::Sender<u64>,
    writes: Arc<AtomicUsize>,
    fail: Arc<Mutex<Option<Trouble>>>,
    uids: Arc<AtomicU64>,
}

/// How, and which writes.
type Trouble = (Failure, Box<dyn Fn(usize) -> bool + Send>);

type Answer = Result<Value, (u16, &'static str, String)>;

fn refuse<T>(code: u16, reason: &'static str, message: impl Into<String>) -> Result<T, (u16, &'static str, String)> {
    Err((code, reason, message.into()))
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeApi {
    pub fn new() -> Self {
        FakeApi {
            store: Arc::default(),
            held: watch::Sender::new(None),
            written: watch::Sender::new(0),
            writes: Arc::default(),
            fail: Arc::default(),
            uids: Arc::default(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Watches of a kind deliver nothing newer than now until [`Self::release_watches`].
    pub fn hold_watches(&self, resource: &str) {
        self.held.send_replace(Some((resource.to_owned(), self.store.lock().revision)));
    }

    pub fn release_watches(&self) {
        self.held.send_replace(None);
    }

    /// Fails the writes whose number, counted from now, `which` picks.
    pub fn fail_writes(&self, how: Failure, which: impl Fn(usize) -> bool + Send + 'static) {
        self.writes.store(0, Ordering::SeqCst);
        *self.fail.lock() = Some((how, Box::new(which)));
    }

    pub fn stop_failing(&self) {
        *self.fail.lock() = None;
    }

    /// Writes so far, events and leases left out.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Changes whenever something is written.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Every object of a kind, typed; `resource` is `apps/deployments` or `pods`.
    pub fn all<K: serde::de::DeserializeOwned>(&self, resource: &str) -> Vec<K> {
        let store = self.store.lock();
        let matching = store.objects.iter().filter(|((r, _, _), _)| r == resource);
        matching.map(|(_, o)| serde_json::from_value((**o).clone()).unwrap()).collect()
    }

    /// Every write so far, events and leases left out, a line each: for tests that failed.
    pub fn history(&self) -> Vec<String> {
        let store = self.store.lock();
        let told = store.log.iter().filter(|e| e.id.0 != "events" && !e.id.0.ends_with("leases"));
        told.map(|e| format!("{} {} {}/{} {} {}", e.revision, e.kind, e.id.0, e.id.2, e.object["metadata"]["finalizers"], e.object["status"]))
            .collect()
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.lock().objects.get(&(resource.into(), namespace.into(), name.into())).map(|o| (**o).clone())
    }

    /// Writes an object as a component outside the test would, never failing.
    pub fn modify(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut store = self.store.lock();
        let id: Id = (resource.into(), namespace.into(), name.into());
        let Some(old) = store.objects.get(&id).cloned() else { return };
        let mut new = (*old).clone();
        change(&mut new);
        self.put(&mut store, id, Some(&old), new);
    }

    /// Removes an object as if it had never had finalizers.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let mut store = self.store.lock();
        self.drop_object(&mut store, (resource.into(), namespace.into(), name.into()));
    }

    pub fn insert(&self, object: &impl serde::Serialize) -> Value {
        let mut object = serde_json::to_value(object).unwrap();
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap().to_owned(), object["kind"].as_str().unwrap().to_owned());
        let row = *ROWS.iter().find(|r| r.3 == kind && api_version == group_version(r)).unwrap();
        let namespace = if row.4 { object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned() } else { String::new() };
        if row.4 {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.create(&Target { row, namespace, name: String::new(), subresource: String::new() }, object).unwrap()
    }

    fn put(&self, store: &mut Store, id: Id, old: Option<&Value>, mut object: Value) -> Value {
        if old.is_some_and(|old| same(old, &object)) {
            return object;
        }
        store.revision += 1;
        object["metadata"]["resourceVersion"] = json!(store.revision.to_string());
        let object = Arc::new(object);
        let before = store.objects.insert(id.clone(), object.clone());
        let kind = if before.is_none() { "ADDED" } else { "MODIFIED" };
        store.log.push(LogEntry { revision: store.revision, kind, id, object: object.clone(), before });
        self.written.send_replace(store.revision);
        (*object).clone()
    }

    fn drop_object(&self, store: &mut Store, id: Id) {
        let Some(old) = store.objects.remove(&id) else { return };
        store.revision += 1;
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = json!(store.revision.to_string());
        store.log.push(LogEntry { revision: store.revision, kind: "DELETED", id, object: Arc::new(last), before: Some(old) });
        self.written.send_replace(store.revision);
    }

    fn create(&self, target: &Target, mut object: Value) -> Answer {
        let mut store = self.store.lock();
        let meta = &mut object["metadata"];
        if meta["name"].as_str().unwrap_or_default().is_empty() {
            let n = self.uids.fetch_add(1, Ordering::SeqCst);
            meta["name"] = json!(format!("{}{n:05}", meta["generateName"].as_str().unwrap_or_default()));
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let id = (resource(&target.row), target.namespace.clone(), name.clone());
        if store.objects.contains_key(&id) {
            return refuse(409, "AlreadyExists", format!("{} \"{name}\" already exists", target.row.2));
        }
        if target.row.4 {
            let ns = store.objects.get(&("namespaces".into(), String::new(), target.namespace.clone()));
            if ns.is_some_and(|ns| !ns["metadata"]["deletionTimestamp"].is_null()) {
                return refuse(
                    403,
                    "Forbidden",
                    format!("unable to create new content in namespace {} because it is being terminated", target.namespace),
                );
            }
            object["metadata"]["namespace"] = json!(target.namespace);
        }
        let uid = self.uids.fetch_add(1, Ordering::SeqCst);
        object["apiVersion"] = json!(group_version(&target.row));
        object["kind"] = json!(target.row.3);
        object["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{uid:012x}"));
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(super::now());
        }
        object["metadata"]["generation"] = json!(1);
        if target.row.2 == "pods" && object["status"]["phase"].is_null() {
            object["status"]["phase"] = json!("Pending");
        }
        if target.row.2 == "namespaces" && object["spec"]["finalizers"].is_null() {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        Ok(self.put(&mut store, id, None, object))
    }

    /// `pods/binding`: a pod is bound once.
    fn bind(&self, target: &Target, binding: &Value) -> Answer {
        let mut store = self.store.lock();
        let id = (resource(&target.row), target.namespace.clone(), target.name.clone());
        let Some(old) = store.objects.get(&id).cloned() else { return refuse(404, "NotFound", format!("pods \"{}\" not found", target.name)) };
        let (uid, wanted) = (&old["metadata"]["uid"], &binding["metadata"]["uid"]);
        if !old["spec"]["nodeName"].is_null() || (!wanted.is_null() && wanted != uid) {
            return refuse(409, "Conflict", format!("Operation cannot be fulfilled on pods/binding \"{}\"", target.name));
        }
        let mut bound = (*old).clone();
        bound["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put(&mut store, id, Some(&old), bound);
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 }))
    }

    fn update(&self, target: &Target, new: impl FnOnce(&Value) -> Value) -> Answer {
        let mut store = self.store.lock();
        let id = (resource(&target.row), target.namespace.clone(), target.name.clone());
        let Some(old) = store.objects.get(&id).cloned() else {
            return refuse(404, "NotFound", format!("{} \"{}\" not found", target.row.2, target.name));
        };
        let given = new(&old);
        for (field, text) in [("resourceVersion", "the object has been modified"), ("uid", "Precondition failed: UID in precondition")] {
            let wanted = &given["metadata"][field];
            if !wanted.is_null() && wanted != &old["metadata"][field] {
                return refuse(409, "Conflict", format!("Operation cannot be fulfilled on {} \"{}\": {text}", target.row.2, target.name));
            }
        }
        let mut merged = (*old).clone();
        match target.subresource.as_str() {
            "status" => merged["status"] = given["status"].clone(),
            "finalize" => merged["spec"]["finalizers"] = given["spec"]["finalizers"].clone(),
            _ => {
                let status = merged["status"].clone();
                merged = given;
                if !status.is_null() {
                    merged["status"] = status;
                } else if let Some(fields) = merged.as_object_mut() {
                    fields.remove("status");
                }
                for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "generation"] {
                    if !old["metadata"][field].is_null() {
                        merged["metadata"][field] = old["metadata"][field].clone();
                    }
                }
                if merged["spec"] != old["spec"] {
                    merged["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
                }
            }
        }
        merged["apiVersion"] = old["apiVersion"].clone();
        merged["kind"] = old["kind"].clone();
        merged["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if finished(&merged, &target.row) {
            self.drop_object(&mut store, id);
            return Ok(merged);
        }
        Ok(self.put(&mut store, id, Some(&old), merged))
    }

    fn delete(&self, target: &Target, options: &Value) -> Answer {
        let mut store = self.store.lock();
        let id = (resource(&target.row), target.namespace.clone(), target.name.clone());
        let Some(old) = store.objects.get(&id).cloned() else {
            return refuse(404, "NotFound", format!("{} \"{}\" not found", target.row.2, target.name));
        };
        for (field, key) in [("uid", "uid"), ("resourceVersion", "resourceVersion")] {
            let wanted = &options["preconditions"][key];
            if !wanted.is_null() && wanted != &old["metadata"][field] {
                return refuse(409, "Conflict", format!("Precondition failed: {field}"));
            }
        }
        let mut new = (*old).clone();
        let mut finalizers: Vec<String> = serde_json::from_value(new["metadata"]["finalizers"].clone()).unwrap_or_default();
        let policy = options["propagationPolicy"].as_str();
        for (name, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
            if policy.is_some() {
                finalizers.retain(|f| f != finalizer);
            }
            if policy == Some(name) {
                finalizers.push(finalizer.into());
            }
        }
        if new["metadata"]["deletionTimestamp"].is_null() {
            new["metadata"]["deletionTimestamp"] = json!(super::now());
        }
        let bound = target.row.2 == "pods" && new["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
        let terminal = matches!(new["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        let grace = options["gracePeriodSeconds"].as_i64().unwrap_or(if bound && !terminal { 30 } else { 0 });
        new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        new["metadata"]["finalizers"] = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
        if target.row.2 == "namespaces" {
            new["status"]["phase"] = json!("Terminating");
        }
        if finished(&new, &target.row) {
            self.drop_object(&mut store, id);
            return Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {} }));
        }
        Ok(self.put(&mut store, id, Some(&old), new))
    }

    fn list(&self, target: &Target, filter: &Filter) -> Answer {
        let store = self.store.lock();
        let wanted = resource(&target.row);
        let items: Vec<Value> = store
            .objects
            .iter()
            .filter(|((r, ns, _), o)| *r == wanted && (target.namespace.is_empty() || *ns == target.namespace) && filter.matches(o))
            .map(|(_, o)| filter.project(o))
            .collect();
        let kind = if filter.metadata_only { "PartialObjectMetadataList".to_owned() } else { format!("{}List", target.row.3) };
        let version = if filter.metadata_only { "meta.k8s.io/v1".to_owned() } else { group_version(&target.row) };
        Ok(json!({ "kind": kind, "apiVersion": version, "metadata": { "resourceVersion": store.revision.to_string() }, "items": items }))
    }

    fn watch(&self, target: &Target, filter: Filter, from: u64) -> BoxBody<Bytes, std::io::Error> {
        let (wanted, namespace) = (resource(&target.row), target.namespace.clone());
        let (store, mut written, mut held) = (self.store.clone(), self.written.subscribe(), self.held.subscribe());
        let events = async_stream(move |sender| async move {
            let mut next = from;
            loop {
                let limit = held.borrow_and_update().as_ref().filter(|(kind, _)| *kind == wanted).map_or(u64::MAX, |(_, revision)| *revision);
                written.borrow_and_update();
                let fresh: Vec<LogEntry> = {
                    let store = store.lock();
                    let start = store.log.partition_point(|e| e.revision <= next);
                    store.log[start..].iter().take_while(|e| e.revision <= limit).cloned().collect()
                };
                for entry in fresh {
                    next = entry.revision;
                    if entry.id.0 != wanted || !(namespace.is_empty() || entry.id.1 == namespace) {
                        continue;
                    }
                    let (was, is) = (entry.before.as_ref().is_some_and(|o| filter.matches(o)), filter.matches(&entry.object));
                    let kind = match (entry.kind, was, is) {
                        ("DELETED", true, _) | (_, true, false) => "DELETED",
                        ("DELETED", false, _) | (_, false, false) => continue,
                        (_, false, true) => "ADDED",
                        (_, true, true) => "MODIFIED",
                    };
                    // The type comes first, as real servers send it: clients read the object by it.
                    let line = format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", filter.project(&entry.object));
                    if sender.send(Bytes::from(line)).is_err() {
                        return;
                    }
                }
                tokio::select! {
                    r = written.changed() => if r.is_err() { return },
                    r = held.changed() => if r.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        BodyExt::boxed(StreamBody::new(events.map(|b| Ok(http_body::Frame::data(b)))))
    }

    fn handle(&self, method: &Method, path: &str, query: &BTreeMap<String, String>, metadata_only: bool, content: &str, body: &[u8]) -> Answer {
        if let Some(answer) = discovery(path) {
            return Ok(answer);
        }
        let Some(target) = parse(path) else { return refuse(404, "NotFound", "the server could not find the requested resource") };
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
        if *method == Method::GET {
            if target.name.is_empty() {
                return self.list(&target, &Filter::new(query, metadata_only));
            }
            let id = (resource(&target.row), target.namespace.clone(), target.name.clone());
            return match self.store.lock().objects.get(&id) {
                Some(object) => Ok(Filter::new(query, metadata_only).project(object)),
                None => refuse(404, "NotFound", format!("{} \"{}\" not found", target.row.2, target.name)),
            };
        }
        let silent = matches!(target.row.2, "events" | "leases");
        let number = if silent { 0 } else { self.writes.fetch_add(1, Ordering::SeqCst) + 1 };
        let failure = self.fail.lock().as_ref().filter(|(_, which)| !silent && which(number)).map(|(how, _)| *how);
        if failure == Some(Failure::Before) {
            return refuse(500, "InternalError", "injected failure");
        }
        let answer = match *method {
            Method::POST if target.subresource == "binding" => self.bind(&target, &body),
            Method::POST => self.create(&target, body),
            Method::PUT => self.update(&target, |_| body),
            Method::PATCH if content.contains("json-patch") => refuse(415, "UnsupportedMediaType", "no JSON patches here"),
            Method::PATCH => self.update(&target, |old| {
                let mut new = old.clone();
                merge(&mut new, &body);
                for field in ["resourceVersion", "uid"] {
                    if body["metadata"][field].is_null() {
                        new["metadata"].as_object_mut().unwrap().remove(field);
                    }
                }
                new
            }),
            Method::DELETE if target.name.is_empty() => self.delete_collection(&target, &body),
            Method::DELETE => self.delete(&target, &body),
            _ => refuse(405, "MethodNotAllowed", "no"),
        };
        let answer = answer.map(|o| if metadata_only { partial(&o) } else { o });
        if failure == Some(Failure::After) && answer.is_ok() {
            return refuse(504, "Timeout", "injected time-out: the write has happened");
        }
        answer
    }

    fn delete_collection(&self, target: &Target, options: &Value) -> Answer {
        let wanted = resource(&target.row);
        let names: Vec<String> = {
            let store = self.store.lock();
            store.objects.keys().filter(|(r, ns, _)| *r == wanted && *ns == target.namespace).map(|(_, _, n)| n.clone()).collect()
        };
        for name in names {
            let one = Target { row: target.row, namespace: target.namespace.clone(), name, subresource: String::new() };
            let _ = self.delete(&one, options);
        }
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {} }))
    }
}

/// Whether a deleted object has nothing left to wait for.
fn finished(object: &Value, row: &Row) -> bool {
    let meta = &object["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    !meta["deletionTimestamp"].is_null()
        && empty(&meta["finalizers"])
        && (row.2 != "namespaces" || empty(&object["spec"]["finalizers"]))
        && (row.2 != "pods" || meta["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() == 0)
}

fn same(a: &Value, b: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        if let Some(meta) = v["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        v
    };
    strip(a) == strip(b)
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// A stream fed by a task that may await.
fn async_stream<T: Send + 'static, Fut: Future<Output = ()> + Send + 'static>(
    feed: impl FnOnce(tokio::sync::mpsc::UnboundedSender<T>) -> Fut,
) -> impl futures::Stream<Item = T> + Send + Sync {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(feed(sender));
    tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)
}

impl tower::Service<Request<Body>> for FakeApi {
    type Response = Response<BoxBody<Bytes, std::io::Error>>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let query = decode(parts.uri.query().unwrap_or_default());
            let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            let metadata_only = header("accept").contains("PartialObjectMetadata");
            if query.get("watch").is_some_and(|w| w == "true")
                && let Some(target) = parse(parts.uri.path())
            {
                let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default();
                return Ok(Response::new(api.watch(&target, Filter::new(&query, metadata_only), from)));
            }
            let (code, value) = match api.handle(&parts.method, parts.uri.path(), &query, metadata_only, &header("content-type"), &body) {
                Ok(value) => (200, value),
                Err((code, reason, message)) => {
                    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message });
                    (code, status)
                }
            };
            let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed();
            Ok(Response::builder().status(code).header("content-type", "application/json").body(body).unwrap())
        })
    }
}
