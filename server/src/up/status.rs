//! `kserver status`: what runs, where, and whether it is well.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::instance::Instance;

/// Prints the instance's state.
///
/// # Errors
/// It is not running, or does not answer: the exit code says so to scripts.
pub async fn run(instance: &Instance) -> Result<()> {
    let Some(record) = instance.running()? else {
        anyhow::bail!("kserver is not running on {}: start it with `kserver up --detach{}`", instance.data.display(), instance.flag());
    };
    println!("kserver     pid {}, resident {} MiB", record.pid, resident_mib(record.pid));
    for (pid, start) in &record.children {
        let state = if super::child::is_running(*pid, *start) { format!("resident {} MiB", resident_mib(*pid)) } else { "not running".into() };
        println!("{:<11} pid {pid}, {state}", command_name(*pid));
    }
    println!("data        {}", instance.data.display());
    println!("log         {}", instance.log_file().display());
    println!("kubeconfig  {}", instance.admin_kubeconfig().display());
    println!("API server  https://127.0.0.1:{}", record.secure_port);
    let client = client(instance).await?;
    let request = http::Request::get("/readyz").body(Vec::new())?;
    match client.request_text(request).await {
        Ok(_) => println!("ready       yes"),
        Err(error) => anyhow::bail!("the API server is not ready: {error}"),
    }
    let nodes = Api::<Node>::all(client).list(&ListParams::default()).await?;
    for node in nodes {
        let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
        println!(
            "node        {} {}",
            node.metadata.name.unwrap_or_default(),
            if ready.is_some_and(|c| c.status == "True") { "Ready" } else { "NotReady" }
        );
    }
    Ok(())
}

/// The administrator's client.
///
/// # Errors
/// The instance's kubeconfig cannot be read.
pub async fn client(instance: &Instance) -> Result<kube::Client> {
    let config = Kubeconfig::read_from(instance.admin_kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(5));
    Ok(kube::Client::try_from(config)?)
}

/// Resident memory of a process, in MiB; 0 when it is gone.
pub fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn command_name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "child".into(), |c| c.trim().to_owned())
}
