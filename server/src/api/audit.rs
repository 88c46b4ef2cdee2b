//! The audit log: one JSON line a request, metadata only (`audit.k8s.io/v1` Event at level Metadata), so that no Secret or token is ever in it.
//!
//! Owns the file and its rotation. Must never make a request wait: lines are handed over a bounded queue and dropped, counted, when it is full.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Connection;
use super::request_info::RequestInfo;
use super::user::User;
use crate::tasks::Tasks;

/// A file that grows beyond this is rotated (upstream: `--audit-log-maxsize`, 100 MB).
const MAX_SIZE: u64 = 100 * 1024 * 1024;
/// Rotated files that are kept.
const BACKUPS: u32 = 5;
const QUEUE: usize = 16 * 1024;
const BATCH: usize = 1024;

/// Takes lines; clones share the file.
#[derive(Clone)]
pub struct Audit(mpsc::Sender<Vec<u8>>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'static str,
    user: Who<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<Who<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Option::is_none")]
    source_ips: Option<[String; 1]>,
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    response_status: Code,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Serialize)]
struct Who<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    groups: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

#[derive(Serialize)]
struct Code {
    code: u16,
}

impl<'a> Who<'a> {
    fn of(user: &'a User) -> Self {
        Who { username: &user.name, uid: &user.uid, groups: &user.groups }
    }
}

/// What a finished request is recorded with.
pub struct Record<'a> {
    /// The request's line and headers.
    pub parts: &'a Parts,
    /// The parsed line.
    pub info: &'a RequestInfo,
    /// Who was authenticated.
    pub user: &'a User,
    /// Who it was done as.
    pub impersonated: Option<&'a User>,
    /// When it came.
    pub received: SystemTime,
    /// How it was answered.
    pub code: u16,
    /// What admission had to say about it.
    pub annotations: &'a BTreeMap<String, String>,
}

/// The annotations of one request, gathered while it is answered.
#[derive(Clone, Default)]
pub struct Annotations(Arc<Mutex<BTreeMap<String, String>>>);

tokio::task_local! {
    /// Of the request that this task answers. It reaches admission without a parameter through the store, which has no use for it.
    static CURRENT: Annotations;
}

impl Annotations {
    /// Answers a request, whose annotations come here.
    pub async fn gather<F: Future>(&self, answer: F) -> F::Output {
        CURRENT.scope(self.clone(), answer).await
    }
    /// Those so far.
    pub fn take(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Adds an annotation to the request under way, if there is one. The first of a name stays, as upstream has it.
pub fn annotate(key: String, value: String) {
    let _ = CURRENT.try_with(|current| current.0.lock().entry(key).or_insert(value).len());
}

impl Audit {
    /// Opens (or creates, 0600) the log and writes it in a task.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, tasks: &Tasks) -> io::Result<Self> {
        let mut log = Log::open(path.to_owned(), MAX_SIZE)?;
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
        let stop = tasks.token().clone();
        tasks.spawn_draining("audit", async move {
            let mut batch = Vec::new();
            loop {
                let count = tokio::select! {
                    biased;
                    count = receiver.recv_many(&mut batch, BATCH) => count,
                    () = stop.cancelled() => { receiver.close(); receiver.recv_many(&mut batch, BATCH).await }
                };
                if count == 0 {
                    return;
                }
                let lines = batch.concat();
                batch.clear();
                let written = tokio::task::spawn_blocking(move || {
                    let result = log.append(&lines);
                    (log, result)
                })
                .await;
                let Ok((same, result)) = written else { return tracing::error!("the audit log's writer panicked") };
                log = same;
                if let Err(error) = result {
                    tracing::error!(%error, "cannot write the audit log");
                }
            }
        });
        Ok(Audit(sender))
    }

    /// Queues a line; `false` when it had to be dropped.
    pub fn record(&self, record: &Record<'_>) -> bool {
        let Ok(mut line) = serde_json::to_vec(&line(record, &uuid::Uuid::new_v4().to_string())) else { return false };
        line.push(b'\n');
        self.0.try_send(line).is_ok()
    }
}

fn line<'a>(record: &Record<'a>, id: &'a str) -> Line<'a> {
    let Record { parts, info, user, impersonated, received, code, annotations } = record;
    let time = |t: SystemTime| jiff::Timestamp::try_from(t).map(|t| format!("{t:.6}")).unwrap_or_default();
    let object_ref = info.is_resource.then(|| ObjectRef {
        resource: &info.resource,
        namespace: &info.namespace,
        name: &info.name,
        api_group: &info.group,
        api_version: &info.version,
        subresource: &info.subresource,
    });
    Line {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: "Metadata",
        audit_id: id,
        stage: if info.long_running() { "ResponseStarted" } else { "ResponseComplete" },
        request_uri: parts.uri.path_and_query().map_or("/", |p| p.as_str()),
        verb: info.verb,
        user: Who::of(user),
        impersonated_user: impersonated.map(Who::of),
        source_ips: parts.extensions.get::<std::sync::Arc<Connection>>().map(|c| [c.remote.ip().to_string()]),
        user_agent: parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default(),
        object_ref,
        response_status: Code { code: *code },
        annotations,
        request_received_timestamp: time(*received),
        stage_timestamp: time(SystemTime::now()),
    }
}

/// The file and its rotation: `audit.log`, `audit.log.1` (newest), `audit.log.2`, …
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
}

impl Log {
    fn open(path: PathBuf, max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Log { path, file, size, max })
    }
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.max {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        self.file.sync_data()
    }
    fn rotate(&mut self) -> io::Result<()> {
        let backup = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..BACKUPS).rev() {
            match std::fs::rename(backup(n), backup(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, backup(1))?;
        *self = Log::open(self.path.clone(), self.max)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = Log::open(path.clone(), 10).unwrap();
        for n in 0..9 {
            log.append(format!("line {n}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("audit.log"), read("audit.log.1"), read("audit.log.5")), ("line 8\n".into(), "line 7\n".into(), "line 3\n".into()));
        assert!(!dir.path().join("audit.log.6").exists());
    }

    #[tokio::test]
    async fn lines_are_written_without_what_the_request_carried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let tasks = Tasks::new();
        let audit = Audit::open(&path, &tasks).unwrap();
        let request = http::Request::get("/api/v1/namespaces/a/secrets/s").header("authorization", "Bearer marker").body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let info = RequestInfo::parse(&parts.method, &parts.uri).unwrap();
        let user = User::new("u", &[]);
        let gathered = Annotations::default();
        gathered.gather(async { annotate("a.example.com/k".into(), "v".into()) }).await;
        let annotations = gathered.take();
        let record =
            Record { parts: &parts, info: &info, user: &user, impersonated: None, received: SystemTime::now(), code: 200, annotations: &annotations };
        assert!(audit.record(&record));
        tasks.shutdown(std::time::Duration::from_secs(5)).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["objectRef"]["resource"], "secrets");
        assert_eq!(line["annotations"]["a.example.com/k"], "v");
        assert_eq!((line["user"]["username"].as_str(), line["verb"].as_str()), (Some("u"), Some("get")));
        assert!(!text.contains("marker"));
    }
}
