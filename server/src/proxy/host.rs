//! What the proxy needs of its host beside nftables: kernel settings, and a route that keeps Service addresses on the host.

use std::path::Path;

use tokio::process::Command;

/// Marks our routes, so that only they are removed (`ip route … proto`).
const ROUTE_PROTOCOL: &str = "121";

/// Turns on what forwarding to pods needs. What cannot be set is logged the `first` time: an administrator may have forbidden it on
/// purpose.
pub async fn prepare(first: bool) {
    set("/proc/sys/net/ipv4/ip_forward", first).await;
    let bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if first && !Path::new(bridge).exists() {
        // Fails where the kernel has it built in or has no modules; the file tells.
        let _ = Command::new("modprobe").arg("br_netfilter").status().await;
    }
    set(bridge, first).await;
}

async fn set(path: &str, first: bool) {
    match tokio::fs::read_to_string(path).await {
        Ok(value) if value.trim() == "1" => {}
        Ok(_) => {
            if let Err(error) = tokio::fs::write(path, "1").await
                && first
            {
                tracing::warn!(path, %error, "kernel setting cannot be turned on; Services may not be reachable from pods");
            }
        }
        Err(error) if first => {
            tracing::warn!(path, %error, "kernel setting is missing (module br_netfilter?); a pod may not reach a Service whose pod is on the same bridge")
        }
        Err(_) => {}
    }
}

/// Routes the service range to the loopback device. Connections of this host are routed before their destination is rewritten,
/// so the range must be routable without any default route (an `unreachable` route would fail them at once); and what no rule
/// rewrites never leaves the host.
pub async fn add_route(service_cidr: &str, first: bool) {
    match ip(&["route", "replace", service_cidr, "dev", "lo", "proto", ROUTE_PROTOCOL]).await {
        Ok(()) => {}
        Err(text) if first => {
            tracing::warn!(service_cidr, error = text, "no route for the service range; this host reaches Services only by its default route")
        }
        Err(text) => tracing::debug!(service_cidr, error = text, "no route for the service range"),
    }
}

/// Removes what [`add_route`] added.
pub async fn remove_route(service_cidr: &str) {
    if let Err(text) = ip(&["route", "del", service_cidr, "dev", "lo", "proto", ROUTE_PROTOCOL]).await {
        tracing::debug!(service_cidr, error = text, "route of the service range not removed");
    }
}

async fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().await.map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
