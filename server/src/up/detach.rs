//! `kserver up --detach`: starts the real process in a session of its own and shows its progress until the cluster is ready.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::instance::Instance;
use super::progress::Report;

/// The hidden flag by which the detached process knows what it is.
pub const DETACHED_FLAG: &str = "--detached-child";

/// Starts this program again with the same arguments, detached, and waits for its verdict.
///
/// # Errors
/// The cluster did not come up; the text is the child's.
pub fn run(instance: &Instance) -> Result<()> {
    instance.create_dirs()?;
    let log_path = instance.log_file();
    if log_path.metadata().is_ok_and(|m| m.len() > 64 << 20) {
        let _ = std::fs::rename(&log_path, log_path.with_extension("log.1"));
    }
    let log = File::options().create(true).append(true).open(&log_path).with_context(|| format!("open {}", log_path.display()))?;
    let args = std::env::args_os().skip(1).filter(|a| a != "--detach" && a != "-d");
    // It stays in this directory: paths among the arguments and in the environment may be relative to it.
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .arg(DETACHED_FLAG)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("start the detached process")?;
    let pipe = child.stdout.take().context("the child has no output pipe")?;
    for line in BufReader::new(pipe).lines() {
        match serde_json::from_str(&line?) {
            Ok(Report::Stage(text)) => println!("{text}"),
            Ok(Report::Ready(text)) => {
                println!("{text}");
                return Ok(());
            }
            Ok(Report::Failed(text)) => {
                let _ = child.wait();
                bail!("{text}");
            }
            Err(_) => {}
        }
    }
    let status = child.wait()?;
    bail!("kserver ended before the cluster was ready ({status}); its log is {}: {}", log_path.display(), super::child::tail(&log_path, 2))
}

/// In the detached process: leaves the terminal's session, so that closing the terminal does not end it.
pub fn leave_session() {
    // Fails only for a process group leader, which `process_group(0)` made this one; then the group is already its own.
    let _ = rustix::process::setsid();
}
