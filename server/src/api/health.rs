//! `/healthz`, `/livez`, `/readyz` and their single checks (`k8s.io/apiserver/pkg/server/healthz/healthz.go`).
//!
//! Owns the names of the checks. Must never hang: what is asked has a deadline.

use std::time::Duration;

use http::StatusCode;
use shared::status::ApiError;

use super::chain::Inner;
use super::request_info::RequestInfo;
use super::{Response, respond};

/// What the checks look at, found out once a request.
struct State {
    etcd: Result<(), String>,
    synced: bool,
    stopping: bool,
}

/// A named check; `Err` says why it fails, for the log only.
struct Check {
    name: &'static str,
    /// Part of `/livez` and `/healthz`; all are part of `/readyz`.
    live: bool,
    run: fn(&State) -> Result<(), String>,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", live: true, run: |_| Ok(()) },
    Check { name: "log", live: true, run: |_| Ok(()) },
    Check { name: "etcd", live: true, run: |state| state.etcd.clone() },
    Check { name: "etcd-readiness", live: false, run: |state| state.etcd.clone() },
    Check { name: "informer-sync", live: false, run: |state| unless(!state.synced, "the watch cache is not loaded yet") },
    Check { name: "shutdown", live: false, run: |state| unless(state.stopping, "process is shutting down") },
];

fn unless(failed: bool, reason: &str) -> Result<(), String> {
    if failed { Err(reason.into()) } else { Ok(()) }
}

/// Etcd must answer by then (upstream's `--etcd-healthcheck-timeout`).
const ETCD_LIMIT: Duration = Duration::from_secs(2);

/// Whether etcd answers.
pub async fn etcd(server: &Inner) -> Result<(), String> {
    match tokio::time::timeout(ETCD_LIMIT, server.store.storage().revision()).await {
        Ok(answer) => answer.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err("etcd did not answer in time".into()),
    }
}

async fn state(server: &Inner) -> State {
    State { etcd: etcd(server).await, synced: server.store.cache().revision() > 0, stopping: server.stopping.is_cancelled() }
}

/// Answers a health request, or `None` when the path is not one.
pub async fn answer(server: &Inner, info: &RequestInfo) -> Option<Result<Response, ApiError>> {
    let (root, single) = info.path.strip_prefix('/')?.split_once('/').unwrap_or((&info.path[1..], ""));
    let checks: Vec<&Check> = match root {
        "healthz" | "livez" => CHECKS.iter().filter(|c| c.live).collect(),
        "readyz" => CHECKS.iter().collect(),
        _ => return None,
    };
    let excluded: Vec<&str> = info.params("exclude").collect();
    let wanted: Vec<_> = match single {
        "" => checks.into_iter().filter(|c| !excluded.contains(&c.name)).collect(),
        single => checks.into_iter().filter(|c| c.name == single).collect(),
    };
    if wanted.is_empty() {
        return Some(Err(ApiError::unknown_path()));
    }
    let state = state(server).await;
    let results: Vec<_> = wanted.iter().map(|c| (c.name, (c.run)(&state))).collect();
    Some(Ok(report(root, &results, info.param("verbose").is_some())))
}

fn report(root: &str, results: &[(&'static str, Result<(), String>)], verbose: bool) -> Response {
    let mut text = String::new();
    let mut failed = false;
    for (name, result) in results {
        match result {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                failed = true;
                tracing::warn!(check = name, reason, "{root} check failed");
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    match (failed, verbose) {
        (true, _) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{root} check failed\n")),
        (false, true) => respond::text(StatusCode::OK, format!("{text}{root} check passed\n")),
        (false, false) => respond::text(StatusCode::OK, "ok"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: &Response) -> String {
        String::from_utf8(response.body().as_full().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_failed_check_is_named_without_its_reason() {
        let response = report("readyz", &[("ping", Ok(())), ("etcd", Err("password wrong".into()))], false);
        assert_eq!(response.status(), 500);
        assert_eq!(body(&response), "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n");
    }

    #[test]
    fn passing_is_one_word_unless_asked_for_more() {
        assert_eq!(body(&report("livez", &[("ping", Ok(()))], false)), "ok");
        assert_eq!(body(&report("livez", &[("ping", Ok(()))], true)), "[+]ping ok\nlivez check passed\n");
    }
}
