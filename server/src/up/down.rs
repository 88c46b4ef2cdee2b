//! `kserver down`, `reset` and `image`: what acts on an instance from outside, whether or not its process still runs.
//!
//! `down` needs nothing from the process it stops: it clears up what is on the machine, so it works the same after a kill -9.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::instance::{Instance, Record};
use super::{child, containerd, network, preflight, progress};

/// How long a kserver may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Stops the process, then the pods, then removes what is left on the machine. The data stays.
///
/// # Errors
/// Something would not stop.
pub async fn down(instance: &Instance) -> Result<()> {
    let Some(record) = instance.record()? else {
        println!("nothing to stop: there is no cluster in {}", instance.data.display());
        return Ok(());
    };
    stop_process(instance, &record).await?;
    if record.uses_containers {
        stop_pods(instance, &record).await?;
    }
    network::remove_leftovers(instance)?;
    println!("stopped; the state is kept in {}", instance.data.display());
    Ok(())
}

/// [`down`], then removes the data directory.
///
/// # Errors
/// See [`down`]; or the directory is not one of kserver's.
pub async fn reset(instance: &Instance) -> Result<()> {
    if !instance.data.exists() {
        println!("nothing to remove: {} does not exist", instance.data.display());
        return Ok(());
    }
    // A record that is damaged or missing must not stand in the way of removing everything.
    match instance.record() {
        Ok(Some(_)) => down(instance).await?,
        Ok(None) if !instance.data.join("pki").is_dir() => {
            bail!("{} does not look like a kserver data directory; nothing was removed", instance.data.display())
        }
        without => {
            if let Err(error) = without {
                println!("{error:#}; going on without it");
            }
            stop_unrecorded(instance).await?;
            network::remove_leftovers(instance)?;
        }
    }
    std::fs::remove_dir_all(&instance.data).with_context(|| format!("remove {}", instance.data.display()))?;
    println!("removed {}", instance.data.display());
    Ok(())
}

/// Stops what an instance runs whose record cannot be read.
///
/// # Errors
/// A kserver still runs on it, or its pods cannot be stopped.
async fn stop_unrecorded(instance: &Instance) -> Result<()> {
    // Its process cannot be told from any other without the record, but it holds the lock.
    let _lock = instance.lock().context("nothing was removed; stop that kserver first")?;
    if instance.data.join("containerd").is_dir() {
        // The private containerd holds no other node's pods, so an unknown name is no danger.
        stop_pods(instance, &Record { uses_containers: true, run: instance.run.clone(), ..Record::default() }).await?;
    }
    Ok(())
}

/// Ends the instance's process if it runs, and children that a kill -9 left.
///
/// # Errors
/// It does not end.
pub async fn stop_process(instance: &Instance, record: &Record) -> Result<()> {
    if child::is_running(record.pid, record.start_time) {
        println!("stopping kserver (pid {})", record.pid);
        signal(record.pid, Signal::TERM);
        progress::until(STOP_LIMIT, || async { !child::is_running(record.pid, record.start_time) })
            .await
            .with_context(|| format!("kserver (pid {}) does not stop; its log is {}", record.pid, instance.log_file().display()))?;
    }
    clear_children(record).await
}

/// Ends the children that a killed process left behind. They die with it, so this mostly waits for the kernel.
///
/// # Errors
/// One cannot be killed.
pub async fn clear_children(record: &Record) -> Result<()> {
    for (pid, start) in &record.children {
        if child::is_running(*pid, *start) {
            signal(*pid, Signal::KILL);
        }
        progress::until(STOP_LIMIT, || async { !child::is_running(*pid, *start) }).await.with_context(|| format!("process {pid} does not end"))?;
    }
    Ok(())
}

/// Sends a signal to a process that may be gone.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Stops and removes every pod of the node, with a containerd started for it when the instance's own is private.
async fn stop_pods(instance: &Instance, record: &Record) -> Result<()> {
    let (socket, private) = match &record.runtime_endpoint {
        Some(socket) => (socket.clone(), None),
        None => {
            instance.create_dirs()?;
            let programs = preflight::programs(false, true, true)?;
            let child = containerd::start(instance, &programs.containerd, super::cluster::PAUSE_IMAGE, &programs.cni)?;
            containerd::wait(&child, &instance.containerd_socket(), Duration::from_secs(20)).await?;
            (instance.containerd_socket(), Some(child))
        }
    };
    // The socket answers a moment before the CRI service behind it does.
    let runtime = crate::kubelet::runtime::Runtime::new(&socket, &record.node_name);
    progress::until(STOP_LIMIT, || async { runtime.status().await.is_ok() }).await.context("the container runtime does not answer")?;
    let stopped = crate::kubelet::stop_all_pods(&socket, &record.node_name).await;
    if let Some(child) = private {
        tokio::task::spawn_blocking(move || child.stop(Duration::from_secs(5))).await?;
    }
    println!("stopped {} pods", stopped.context("stop the pods")?);
    crate::proxy::cleanup(&instance.table(), &record.service_cidr).await.context("remove the nftables rules")?;
    Ok(())
}

/// The socket of the instance's runtime.
fn runtime_socket(instance: &Instance) -> Result<PathBuf> {
    let Some(record) = instance.running()? else {
        bail!("kserver is not running on {}: start it with `kserver up --detach{}`", instance.data.display(), instance.flag());
    };
    if !record.uses_containers {
        bail!("this cluster has simulated nodes only: there is no container runtime to hold images");
    }
    Ok(record.runtime_endpoint.unwrap_or_else(|| instance.containerd_socket()))
}

/// `kserver image import`.
///
/// # Errors
/// No instance runs, a file is missing, or the runtime refuses it.
pub async fn import(instance: &Instance, files: &[PathBuf]) -> Result<()> {
    let socket = runtime_socket(instance)?;
    for file in files {
        if !file.is_file() {
            bail!("{}: no such file", file.display());
        }
    }
    for file in files {
        for name in crate::kubelet::import(&socket, file).await? {
            println!("imported {name}");
        }
    }
    Ok(())
}

/// `kserver image ls`.
///
/// # Errors
/// No instance runs, or the runtime does not answer.
pub async fn list_images(instance: &Instance) -> Result<()> {
    let socket = runtime_socket(instance)?;
    let runtime = crate::kubelet::runtime::Runtime::new(&socket, "");
    let mut names: Vec<String> = runtime.list_images().await?.into_iter().flat_map(|image| image.repo_tags).collect();
    names.sort();
    for name in names {
        println!("{name}");
    }
    Ok(())
}
