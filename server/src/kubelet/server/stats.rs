//! CPU and memory of node, pods and containers, read from cgroups (`/stats/summary`, `/metrics/resource`).
//!
//! CRI's own statistics take hundreds of milliseconds for a full node; cgroup files take microseconds.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kubelet::Kubelet;
use crate::kubelet::cgroups::{self, Cgroups};
use crate::kubelet::node::machine;
use crate::kubelet::pods::spec;

/// Youngest sample that a rate is computed from, in seconds.
const MIN_INTERVAL: f64 = 1.0;
/// Oldest one: a rate over a longer time says nothing about now.
const MAX_INTERVAL: f64 = 60.0;

/// Earlier CPU readings, by cgroup, from which rates are computed.
#[derive(Default)]
pub struct Samples {
    last: Mutex<HashMap<String, Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    nanoseconds: u64,
    rate: Option<Rate>,
}

#[derive(Clone, Copy)]
struct Rate {
    nanocores: u64,
    /// How long it was measured, in seconds.
    window: f64,
}

impl Samples {
    /// What is used since the last reading that is neither too young nor too old; not known at the first.
    fn rate(&self, group: &str, nanoseconds: u64) -> Option<Rate> {
        let now = Instant::now();
        let mut last = self.last.lock();
        let Some(old) = last.get(group).copied() else {
            // Groups of containers that are gone are read no more.
            last.retain(|_, sample| now.duration_since(sample.at).as_secs_f64() <= MAX_INTERVAL);
            last.insert(group.into(), Sample { at: now, nanoseconds, rate: None });
            return None;
        };
        let seconds = now.duration_since(old.at).as_secs_f64();
        if seconds < MIN_INTERVAL {
            return old.rate;
        }
        let nanocores = (nanoseconds.saturating_sub(old.nanoseconds) as f64 / seconds) as u64;
        let rate = (seconds <= MAX_INTERVAL).then_some(Rate { nanocores, window: seconds });
        last.insert(group.into(), Sample { at: now, nanoseconds, rate });
        rate
    }
}

/// Use of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu_nanoseconds: u64,
    memory: u64,
    working_set: u64,
    rss: u64,
    page_faults: u64,
    major_faults: u64,
}

fn read(groups: &Cgroups, group: &str) -> Option<Usage> {
    let text = |controller: &str, v1: &str, v2: &str| groups.file(controller, group, v1, v2).and_then(|p| std::fs::read_to_string(p).ok());
    let cpu = text("cpuacct", "cpuacct.usage", "cpu.stat")?;
    let memory = text("memory", "memory.usage_in_bytes", "memory.current").and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    let stat = text("memory", "memory.stat", "memory.stat").unwrap_or_default();
    Some(usage(groups.is_unified(), &cpu, memory, &stat))
}

fn usage(unified: bool, cpu: &str, memory: u64, stat: &str) -> Usage {
    let fields: HashMap<&str, u64> = stat.lines().filter_map(|l| l.split_once(' ')).filter_map(|(k, v)| Some((k, v.trim().parse().ok()?))).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or(0);
    let cpu_nanoseconds = if unified {
        let micros = cpu.lines().find_map(|l| l.strip_prefix("usage_usec ")).and_then(|v| v.trim().parse::<u64>().ok());
        micros.unwrap_or(0) * 1000
    } else {
        cpu.trim().parse().unwrap_or(0)
    };
    let (inactive, rss, faults, major) = if unified {
        ("inactive_file", "anon", "pgfault", "pgmajfault")
    } else {
        ("total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault")
    };
    Usage {
        cpu_nanoseconds,
        memory,
        working_set: memory.saturating_sub(field(inactive)),
        rss: field(rss),
        page_faults: field(faults),
        major_faults: field(major),
    }
}

impl Usage {
    fn cpu(&self, samples: &Samples, group: &str, time: &str) -> Value {
        let mut value = json!({ "time": time, "usageCoreNanoSeconds": self.cpu_nanoseconds });
        if let Some(rate) = samples.rate(group, self.cpu_nanoseconds) {
            value["usageNanoCores"] = rate.nanocores.into();
            value["windowSeconds"] = rate.window.into();
        }
        value
    }
    fn memory(&self, time: &str, limit: Option<u64>) -> Value {
        let mut value = json!({ "time": time, "usageBytes": self.memory, "workingSetBytes": self.working_set, "rssBytes": self.rss,
            "pageFaults": self.page_faults, "majorPageFaults": self.major_faults });
        if let Some(limit) = limit {
            value["availableBytes"] = json!(limit.saturating_sub(self.working_set));
        }
        value
    }
}

/// A running pod with its group and the groups of its containers.
struct PodGroups {
    pod: std::sync::Arc<k8s_openapi::api::core::v1::Pod>,
    group: String,
    containers: Vec<(String, String, i64)>,
}

fn pod_groups(kubelet: &Kubelet) -> Vec<PodGroups> {
    let all = kubelet.workers.all().into_iter();
    all.filter_map(|mailbox| {
        let (pod, observed) = (mailbox.pod(), mailbox.observed().borrow().clone());
        let group = cgroups::pod_path(&kubelet.config.cgroup_root, &pod);
        let containers: Vec<_> = observed.running().map(|c| (c.name.clone(), format!("{group}/{}", c.id), c.started_at)).collect();
        (!containers.is_empty()).then_some(PodGroups { pod, group, containers })
    })
    .collect()
}

fn node_usage(kubelet: &Kubelet) -> Usage {
    let mut usage = read(&kubelet.cgroups, "/").unwrap_or_default();
    // The root's memory group counts nothing on cgroup v2 and not everything on v1.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name| machine::meminfo(&text, name).and_then(|b| u64::try_from(b).ok()).unwrap_or(0);
    usage.memory = field("MemTotal").saturating_sub(field("MemFree"));
    usage.working_set = field("MemTotal").saturating_sub(field("MemAvailable"));
    usage.rss = field("AnonPages");
    usage
}

fn stamp(nanos: i64) -> String {
    Timestamp::from_second(nanos / 1_000_000_000).map(|t| t.to_string()).unwrap_or_default()
}

/// `/stats/summary`
pub async fn summary(kubelet: &Kubelet) -> Value {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let samples = &kubelet.samples;
    let pods: Vec<Value> = pod_groups(kubelet)
        .into_iter()
        .map(|groups| {
            let containers: Vec<Value> = groups
                .containers
                .iter()
                .filter_map(|(name, group, started)| {
                    let usage = read(&kubelet.cgroups, group)?;
                    Some(json!({ "name": name, "startTime": stamp(*started), "cpu": usage.cpu(samples, group, &now), "memory": usage.memory(&now, None) }))
                })
                .collect();
            let usage = read(&kubelet.cgroups, &groups.group).unwrap_or_default();
            let start = groups.pod.status.as_ref().and_then(|s| s.start_time.clone());
            json!({
                "podRef": { "name": spec::name(&groups.pod), "namespace": spec::namespace(&groups.pod), "uid": spec::uid(&groups.pod) },
                "startTime": start, "containers": containers,
                "cpu": usage.cpu(samples, &groups.group, &now), "memory": usage.memory(&now, None),
            })
        })
        .collect();
    let usage = node_usage(kubelet);
    let disk = machine::disk(&kubelet.config.root_dir);
    let total = u64::try_from(kubelet.machine.memory).ok();
    json!({
        "node": {
            "nodeName": kubelet.config.node_name, "startTime": stamp(kubelet.started_at),
            "cpu": usage.cpu(samples, "/", &now), "memory": usage.memory(&now, total),
            "fs": disk.map(|d| json!({ "time": now, "availableBytes": d.available, "capacityBytes": d.total, "usedBytes": d.total - d.available,
                "inodes": d.inodes, "inodesFree": d.inodes_free, "inodesUsed": d.inodes - d.inodes_free })),
        },
        "pods": pods,
    })
}

/// `/metrics/resource` in Prometheus' text format.
pub async fn metrics(kubelet: &Kubelet) -> String {
    let node = node_usage(kubelet);
    let (mut cpu, mut memory, mut starts, mut pod_cpu, mut pod_memory) = (String::new(), String::new(), String::new(), String::new(), String::new());
    for groups in pod_groups(kubelet) {
        let place = format!("namespace=\"{}\",pod=\"{}\"", spec::namespace(&groups.pod), spec::name(&groups.pod));
        for (name, group, started) in &groups.containers {
            let Some(usage) = read(&kubelet.cgroups, group) else { continue };
            let labels = format!("{{container=\"{name}\",{place}}}");
            let _ = writeln!(cpu, "container_cpu_usage_seconds_total{labels} {}", seconds(usage.cpu_nanoseconds));
            let _ = writeln!(memory, "container_memory_working_set_bytes{labels} {}", usage.working_set);
            let _ = writeln!(starts, "container_start_time_seconds{labels} {}", started / 1_000_000_000);
        }
        let usage = read(&kubelet.cgroups, &groups.group).unwrap_or_default();
        let _ = writeln!(pod_cpu, "pod_cpu_usage_seconds_total{{{place}}} {}", seconds(usage.cpu_nanoseconds));
        let _ = writeln!(pod_memory, "pod_memory_working_set_bytes{{{place}}} {}", usage.working_set);
    }
    let mut out = String::new();
    let families = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds", cpu),
        ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", memory),
        ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", starts),
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
            format!("node_cpu_usage_seconds_total {}\n", seconds(node.cpu_nanoseconds)),
        ),
        (
            "node_memory_working_set_bytes",
            "gauge",
            "Current working set of the node in bytes",
            format!("node_memory_working_set_bytes {}\n", node.working_set),
        ),
        ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", pod_cpu),
        ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", pod_memory),
        (
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
            "resource_scrape_error 0\n".into(),
        ),
    ];
    for (name, kind, help, lines) in families {
        let _ = write!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n{lines}");
    }
    out
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_are_read() {
        let v1 = usage(false, "5000\n", 100, "total_inactive_file 40\ntotal_rss 30\n");
        assert_eq!((v1.cpu_nanoseconds, v1.working_set, v1.rss), (5000, 60, 30));
        let v2 = usage(true, "usage_usec 5\nuser_usec 3\n", 100, "inactive_file 200\nanon 7\n");
        assert_eq!((v2.cpu_nanoseconds, v2.working_set, v2.rss), (5000, 0, 7));
        assert_eq!(seconds(1_500_000_000), "1.500000000");
    }
}
