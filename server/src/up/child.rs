//! Child processes that live exactly as long as this one: started, watched, restarted with back-off, stopped.
//!
//! Each child has a thread of its own that starts it and waits for it. The thread matters: the kernel sends the parent-death
//! signal when the *thread* that forked ends, so it must be one that lives as long as the child.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

/// How to start a child.
#[derive(Clone, Debug)]
pub struct Spec {
    /// For messages, and the log file's name.
    pub name: &'static str,
    /// Program, absolute or from PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its output goes; begun anew when it is past 8 MiB.
    pub log: PathBuf,
}

/// First and longest wait before a restart.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A child that ran this long starts with the first wait again.
const SETTLED: Duration = Duration::from_secs(30);

struct State {
    pid: Option<u32>,
    /// Why it last ended.
    last_exit: Option<String>,
    starts: u32,
}

/// A running, supervised child.
pub struct Child {
    spec: Spec,
    state: Arc<Mutex<State>>,
    stop: mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Child {
    /// Starts the child and keeps it running.
    ///
    /// # Errors
    /// It cannot be started the first time.
    pub fn start(spec: Spec) -> Result<Self> {
        let state = Arc::new(Mutex::new(State { pid: None, last_exit: None, starts: 0 }));
        let (stop, stopped) = mpsc::channel();
        let (started, first) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("child-{}", spec.name)).spawn({
            let (spec, state) = (spec.clone(), state.clone());
            move || keep_running(&spec, &state, &stopped, &started)
        })?;
        first.recv().context("the supervising thread ended")??;
        Ok(Child { spec, state, stop, thread: Some(thread) })
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.state.lock().pid
    }

    /// Why it last ended, if it did.
    pub fn last_exit(&self) -> Option<String> {
        self.state.lock().last_exit.clone()
    }

    /// The last lines it logged, for error messages.
    pub fn log_tail(&self) -> String {
        tail(&self.spec.log, 3)
    }

    /// Stops it: SIGTERM, and SIGKILL after `grace`.
    pub fn stop(mut self, grace: Duration) {
        self.stop_in(grace);
    }

    fn stop_in(&mut self, grace: Duration) {
        let _ = self.stop.send(());
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + grace;
        let mut signal = Signal::TERM;
        while !thread.is_finished() {
            if let Some(pid) = self.pid().and_then(|p| Pid::from_raw(p.cast_signed())) {
                let _ = rustix::process::kill_process(pid, signal);
            }
            if Instant::now() > deadline {
                signal = Signal::KILL;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = thread.join();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop_in(Duration::ZERO);
    }
}

/// The supervising thread's loop.
fn keep_running(spec: &Spec, state: &Mutex<State>, stopped: &mpsc::Receiver<()>, started: &mpsc::Sender<Result<()>>) {
    let mut wait = BACKOFF.0;
    loop {
        let begun = Instant::now();
        let mut process = match spawn(spec) {
            Ok(process) => process,
            Err(error) => {
                if state.lock().starts == 0 {
                    let _ = started.send(Err(error));
                    return;
                }
                tracing::error!(child = spec.name, "{error:#}");
                if pause(stopped, &mut wait) {
                    return;
                }
                continue;
            }
        };
        let restarted = {
            let mut state = state.lock();
            state.pid = Some(process.id());
            state.starts += 1;
            state.starts > 1
        };
        if restarted {
            tracing::info!(child = spec.name, pid = process.id(), "restarted");
        } else {
            let _ = started.send(Ok(()));
        }
        let ended = process.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        {
            let mut state = state.lock();
            state.pid = None;
            state.last_exit = Some(ended.clone());
        }
        if !matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            return;
        }
        tracing::warn!(child = spec.name, %ended, "ended unexpectedly; its log is {}", spec.log.display());
        if begun.elapsed() > SETTLED {
            wait = BACKOFF.0;
        }
        if pause(stopped, &mut wait) {
            return;
        }
    }
}

/// Waits before a restart; true when the child is to stop instead.
fn pause(stopped: &mpsc::Receiver<()>, wait: &mut Duration) -> bool {
    let stop = !matches!(stopped.recv_timeout(*wait), Err(RecvTimeoutError::Timeout));
    *wait = (*wait * 2).min(BACKOFF.1);
    stop
}

fn spawn(spec: &Spec) -> Result<std::process::Child> {
    if spec.log.metadata().is_ok_and(|m| m.len() > 8 << 20) {
        let _ = std::fs::rename(&spec.log, spec.log.with_extension("log.1"));
    }
    let log = File::options().create(true).append(true).open(&spec.log).with_context(|| format!("open {}", spec.log.display()))?;
    let guard = std::env::current_exe().context("find this program's own file")?;
    Command::new(guard)
        .arg("guard")
        .arg(std::process::id().to_string())
        .arg(&spec.program)
        .args(&spec.args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", spec.program.display()))
}

/// `kserver guard PARENT PROGRAM ARGS…`: asks the kernel to kill this process when its parent dies, then becomes PROGRAM.
///
/// # Errors
/// PROGRAM cannot be run. Never returns otherwise.
pub fn guard(parent: u32, program: &Path, args: &[OsString]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    let alive = rustix::process::getppid().is_some_and(|p| p.as_raw_nonzero().get().cast_unsigned() == parent);
    anyhow::ensure!(alive, "the parent is gone");
    Err(Command::new(program).args(args).exec()).with_context(|| format!("run {}", program.display()))
}

/// The last `lines` lines of a file, joined by ` | `; empty when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b[b.len().saturating_sub(8192)..]).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" | ")
}

/// Whether a process with this id and start time is running. A reused id has another start time.
pub fn is_running(pid: u32, start_time: u64) -> bool {
    start_time_of(pid) == Some(start_time)
}

/// When a process started, in clock ticks since boot; `None` when there is no such process or it is a zombie.
pub fn start_time_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}
