//! What `kserver up` says while it works: a line a stage, on a terminal or into the pipe of the process that detached it.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One report from a detached process to the one that waits for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// A stage is done.
    Stage(String),
    /// All is up; the text says what to do next.
    Ready(String),
    /// It failed.
    Failed(String),
}

/// Where reports go.
pub enum Sink {
    /// Straight to the user.
    Terminal,
    /// As JSON lines on standard output, which is a pipe.
    Pipe,
}

/// Tells the user how far it is.
pub struct Progress {
    begun: Instant,
    sink: Mutex<Sink>,
}

impl Progress {
    /// Starts the clock.
    pub fn new(sink: Sink) -> Self {
        Progress { begun: Instant::now(), sink: Mutex::new(sink) }
    }
    /// A stage is done.
    pub fn stage(&self, text: impl AsRef<str>) {
        let line = format!("{:>6.1}s  {}", self.begun.elapsed().as_secs_f64(), text.as_ref());
        self.send(&Report::Stage(line));
    }
    /// All is up.
    pub fn ready(&self, text: impl Into<String>) {
        self.send(&Report::Ready(text.into()));
    }
    /// It failed. On a terminal the caller prints the error itself.
    pub fn failed(&self, text: impl Into<String>) {
        self.send(&Report::Failed(text.into()));
    }
    fn send(&self, report: &Report) {
        let mut out = std::io::stdout().lock();
        // A reader that went away is no reason to stop the cluster.
        let _ = match (&*self.sink.lock(), report) {
            (Sink::Pipe, report) => serde_json::to_string(report).map_or(Ok(()), |line| writeln!(out, "{line}")),
            (Sink::Terminal, Report::Stage(text) | Report::Ready(text)) => writeln!(out, "{text}"),
            (Sink::Terminal, Report::Failed(_)) => Ok(()),
        };
        let _ = out.flush();
    }
}

/// Asks `ready` until it says yes, starting at 2 ms and slowing down to 100 ms.
///
/// # Errors
/// It still says no after `limit`.
pub async fn until<F: Future<Output = bool>>(limit: Duration, mut ready: impl FnMut() -> F) -> Result<()> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut wait = Duration::from_millis(2);
    while !ready().await {
        if tokio::time::Instant::now() > deadline {
            bail!("gave up after {} s", limit.as_secs());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(100));
    }
    Ok(())
}
