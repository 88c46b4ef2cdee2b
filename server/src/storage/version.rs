//! Says which etcd this is, and warns of versions that lose or corrupt data.

use std::sync::Arc;
use std::time::Duration;

use super::pool::Pool;
use crate::tasks::Tasks;

/// What is wrong with a version, if something is known to be.
fn known_bad(version: &str) -> Option<&'static str> {
    let mut parts = version.split('.').map(|p| p.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().unwrap_or(0));
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next().unwrap_or(0));
    match (major, minor, patch) {
        (3, 5, 0..=2) => Some("it can corrupt data after a crash (etcd issue 13766); use 3.5.13 or later"),
        (3, 5, 3..=12) => Some("its watches can skip progress or events (etcd issues 15220, 15247); use 3.5.13 or later"),
        (3, 4, 0..=30) => Some("its watch progress notifications are not to be trusted (not used here); 3.4.31 or later is preferred"),
        (0..=2, ..) | (3, 0..=3, _) => Some("it is older than 3.4 and not supported"),
        _ => None,
    }
}

/// Logs every member's version once it can be reached.
pub(super) fn report(pool: Arc<Pool>, tasks: &Tasks) {
    tasks.spawn("storage/version", async move {
        for (url, mut client) in pool.each() {
            let status = loop {
                match tokio::time::timeout(Duration::from_secs(5), client.status()).await {
                    Ok(Ok(status)) => break status,
                    Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
                }
            };
            let version = status.version();
            tracing::info!(%url, version, db_bytes = status.db_size(), "etcd member");
            if let Some(problem) = known_bad(version) {
                tracing::warn!(%url, version, problem, "this etcd version has a known problem");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::known_bad;

    #[test]
    fn versions_with_known_problems_are_named() {
        for bad in ["3.4.23", "3.5.0", "3.5.2", "3.5.12", "3.3.9"] {
            assert!(known_bad(bad).is_some(), "{bad}");
        }
        for good in ["3.4.31", "3.5.13", "3.5.16", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
            assert!(known_bad(good).is_none(), "{good}");
        }
    }
}
