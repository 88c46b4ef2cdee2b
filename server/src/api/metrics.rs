//! Counters of the API server in Prometheus' text format, under upstream's names
//! (`k8s.io/apiserver/pkg/endpoints/metrics/metrics.go`).
//!
//! Owns the counters. Must never grow with what clients send: labels come from the registry only.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::inflight::{InFlight, Lane};

/// Upper bounds of the request duration buckets, in seconds.
const BUCKETS: [f64; 23] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// What a request is counted under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// `GET`, `LIST`, `WATCH`, `POST`, `PUT`, `PATCH`, `DELETE`, `DELETECOLLECTION`, `CONNECT`.
    pub verb: &'static str,
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Plural resource, or a known non-resource path.
    pub resource: &'static str,
    /// Subresource.
    pub subresource: &'static str,
    /// `cluster`, `namespace`, `resource` or empty.
    pub scope: &'static str,
    /// Whether nothing was to be stored.
    pub dry_run: bool,
}

impl Labels {
    fn write(&self, out: &mut String) {
        let Labels { verb, group, version, resource, subresource, scope, dry_run } = self;
        let dry_run = if *dry_run { "All" } else { "" };
        let _ = write!(
            out,
            "component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        );
    }
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
    /// Requests by status code.
    codes: BTreeMap<u16, u64>,
}

/// All counters; one for a server.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Histogram>>,
    /// Watches and streams that are open, by kind.
    long_running: Mutex<BTreeMap<Labels, i64>>,
    /// Events sent to watchers.
    pub watch_events: AtomicU64,
    /// Bytes of events sent to watchers.
    pub watch_bytes: AtomicU64,
    /// TLS handshakes that failed.
    pub handshake_errors: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicI64,
    /// Requests refused with 429.
    pub rejected: AtomicU64,
    /// Requests that ended at the deadline.
    pub timeouts: AtomicU64,
    /// Audit lines that were dropped because the disk was too slow.
    pub audit_dropped: AtomicU64,
}

impl Metrics {
    /// Counts a finished request.
    pub fn request(&self, labels: Labels, code: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock();
        let histogram = requests.entry(labels).or_default();
        *histogram.codes.entry(code).or_default() += 1;
        histogram.count += 1;
        histogram.sum += seconds;
        if let Some(bucket) = BUCKETS.iter().position(|b| seconds <= *b) {
            histogram.buckets[bucket] += 1;
        }
    }
    /// Counts a long-running request that starts (+1) or ends (-1).
    pub fn long_running(&self, labels: Labels, change: i64) {
        *self.long_running.lock().entry(labels).or_default() += change;
    }
    /// Watches and streams that are open.
    pub fn open_streams(&self) -> i64 {
        self.long_running.lock().values().sum()
    }

    /// All of it as text, `extra` first.
    pub fn text(&self, in_flight: &InFlight, extra: &str) -> String {
        let mut out = String::with_capacity(64 * 1024);
        out.push_str(extra);
        self.write_requests(&mut out);
        head(&mut out, "apiserver_longrunning_requests", "gauge", "Gauge of all active long-running apiserver requests.");
        for (labels, count) in self.long_running.lock().iter() {
            out.push_str("apiserver_longrunning_requests{");
            labels.write(&mut out);
            let _ = writeln!(out, "}} {count}");
        }
        head(
            &mut out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        );
        for lane in [Lane::Reading, Lane::Mutating, Lane::Exempt] {
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{}\"}} {}", lane.name(), in_flight.now(lane));
        }
        let single = [
            ("apiserver_watch_events_total", "counter", "Events sent to watchers.", self.watch_events.load(Ordering::Relaxed)),
            ("apiserver_watch_events_bytes_total", "counter", "Bytes of events sent to watchers.", self.watch_bytes.load(Ordering::Relaxed)),
            (
                "apiserver_tls_handshake_errors_total",
                "counter",
                "Number of requests dropped with 'TLS handshake error from' error.",
                self.handshake_errors.load(Ordering::Relaxed),
            ),
            (
                "apiserver_dropped_requests_total",
                "counter",
                "Requests refused because too many were in flight.",
                self.rejected.load(Ordering::Relaxed),
            ),
            (
                "apiserver_request_terminations_total",
                "counter",
                "Requests which apiserver terminated in self-defense.",
                self.timeouts.load(Ordering::Relaxed),
            ),
            (
                "apiserver_audit_dropped_total",
                "counter",
                "Audit lines that could not be written in time.",
                self.audit_dropped.load(Ordering::Relaxed),
            ),
        ];
        for (name, kind, help, value) in single {
            sample(&mut out, name, kind, help, value);
        }
        sample(&mut out, "apiserver_open_connections", "gauge", "Client connections.", self.connections.load(Ordering::Relaxed));
        process(&mut out);
        out
    }

    fn write_requests(&self, out: &mut String) {
        let requests = self.requests.lock();
        head(
            out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for (labels, histogram) in requests.iter() {
            for (code, count) in &histogram.codes {
                let _ = write!(out, "apiserver_request_total{{code=\"{code}\",");
                labels.write(out);
                let _ = writeln!(out, "}} {count}");
            }
        }
        head(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for (labels, histogram) in requests.iter().filter(|(l, _)| !matches!(l.verb, "WATCH" | "CONNECT")) {
            let mut total = 0;
            let bounds = BUCKETS.iter().map(ToString::to_string).zip(histogram.buckets).chain([("+Inf".to_owned(), 0)]);
            for (bound, count) in bounds {
                total = if bound == "+Inf" { histogram.count } else { total + count };
                out.push_str("apiserver_request_duration_seconds_bucket{");
                labels.write(out);
                let _ = writeln!(out, ",le=\"{bound}\"}} {total}");
            }
            for (suffix, value) in [("sum", histogram.sum), ("count", histogram.count as f64)] {
                let _ = write!(out, "apiserver_request_duration_seconds_{suffix}{{");
                labels.write(out);
                let _ = writeln!(out, "}} {value}");
            }
        }
    }
}

/// The page at `/metrics`: the counters, and how many objects there are of each kind.
pub fn page(server: &super::chain::Inner) -> String {
    let mut extra = String::new();
    let version = super::version::GIT_VERSION;
    head(&mut extra, "kubernetes_build_info", "gauge", "A metric with a constant '1' value labeled by version.");
    let _ = writeln!(extra, "kubernetes_build_info{{git_version=\"{version}\",major=\"1\",minor=\"36\"}} 1");
    head(&mut extra, "apiserver_storage_objects", "gauge", "Number of stored objects at the time of last check split by kind.");
    for row in server.store.registry().iter() {
        let _ = writeln!(extra, "apiserver_storage_objects{{resource=\"{}\"}} {}", row.group_resource(), server.store.cache().count(row));
    }
    extra.push_str(&super::admission::metrics());
    server.metrics.text(&server.in_flight, &extra)
}

/// The `# HELP` and `# TYPE` lines of a metric.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric without labels.
pub fn sample(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

/// Ticks a second in /proc: the kernel's USER_HZ, 100 on every architecture we run on.
const USER_HZ: f64 = 100.0;

/// What the kernel says of this process; nothing of what it does not say.
fn process(out: &mut String) {
    if let Some(fields) = stat_fields() {
        // Counted from the third field of proc(5)'s /proc/pid/stat on.
        let number = |field: usize| fields.get(field - 3).and_then(|f| f.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (number(14), number(15)) {
            sample(out, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", (user + system) / USER_HZ);
        }
        if let (Some(start), Some(boot)) = (number(22), boot_time()) {
            sample(out, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", boot + start / USER_HZ);
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| status.lines().find_map(|l| l.strip_prefix(name))?.trim().trim_end_matches(" kB").parse::<u64>().ok();
    if let Some(size) = kilobytes("VmSize:") {
        sample(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", size * 1024);
    }
    if let Some(resident) = kilobytes("VmRSS:") {
        sample(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident * 1024);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        sample(out, "process_open_fds", "gauge", "Number of open file descriptors.", files.count());
    }
}

fn stat_fields() -> Option<Vec<String>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold anything, so count from its closing parenthesis.
    let after = stat.rsplit_once(") ")?.1;
    Some(after.split_whitespace().map(str::to_owned).collect())
}

fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_totals_cumulative_buckets_and_the_process() {
        let metrics = Metrics::default();
        let labels = Labels { verb: "GET", version: "v1", resource: "pods", scope: "resource", ..Labels::default() };
        metrics.request(labels, 200, Duration::from_millis(4));
        metrics.request(labels, 200, Duration::from_millis(300));
        metrics.request(labels, 404, Duration::from_secs(100));
        let text = metrics.text(&InFlight::new(1, 1), "");
        let tail =
            "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{tail}}} 2"),
            format!("apiserver_request_total{{code=\"404\",{tail}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{tail},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{tail},le=\"0.4\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{tail},le=\"60\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{tail},le=\"+Inf\"}} 3"),
            format!("apiserver_request_duration_seconds_count{{{tail}}} 3"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let resident = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<f64>().unwrap() > 1e6, "{resident}");
        assert!(text.contains("process_start_time_seconds 1"));
    }
}
