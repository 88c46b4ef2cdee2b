//! How long webhooks and policies take, under upstream's names (`k8s.io/apiserver/pkg/admission/metrics/metrics.go`).
//!
//! Owns the histograms. Labels come from configurations that administrators write, and are capped in number.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0];
/// More series than this are not begun.
const SERIES: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    name: String,
    operation: String,
    kind: &'static str,
    rejected: bool,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

static WEBHOOKS: LazyLock<Mutex<BTreeMap<Labels, Histogram>>> = LazyLock::new(Mutex::default);

/// One call.
pub(in crate::api::admission) fn observe(name: &str, kind: &'static str, operation: &Value, rejected: bool, took: Duration) {
    let labels = Labels { name: name.into(), operation: operation.as_str().unwrap_or_default().into(), kind, rejected };
    let mut series = WEBHOOKS.lock();
    if series.len() >= SERIES && !series.contains_key(&labels) {
        return;
    }
    let histogram = series.entry(labels).or_default();
    let seconds = took.as_secs_f64();
    histogram.count += 1;
    histogram.sum += seconds;
    if let Some(bucket) = BUCKETS.iter().position(|b| seconds <= *b) {
        histogram.buckets[bucket] += 1;
    }
}

/// The series as Prometheus' text.
pub fn text() -> String {
    const NAME: &str = "apiserver_admission_webhook_admission_duration_seconds";
    let series = WEBHOOKS.lock();
    if series.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "# HELP {NAME} [STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).\n# TYPE {NAME} histogram\n"
    );
    for (labels, histogram) in series.iter() {
        let Labels { name, operation, kind, rejected } = labels;
        let labels = format!("name={name:?},operation=\"{operation}\",rejected=\"{rejected}\",type=\"{kind}\"");
        let mut total = 0;
        for (bound, count) in BUCKETS.iter().zip(histogram.buckets) {
            total += count;
            let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count);
        let _ = writeln!(out, "{NAME}_sum{{{labels}}} {}\n{NAME}_count{{{labels}}} {}", histogram.sum, histogram.count);
    }
    out
}
