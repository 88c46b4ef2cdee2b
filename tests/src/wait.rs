//! Waiting for a condition with a deadline: the only way a test may wait.

use std::time::{Duration, Instant};

/// Tries until `attempt` gives `Ok`, for at most a minute; then fails with the last `Err`.
#[track_caller]
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(Duration::from_secs(60), what, attempt)
}

/// [`eventually`] for what is awaited.
pub async fn eventually_async<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("{what}: not within a minute; at last: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Tries until `attempt` gives `Ok`, for at most `limit`; then fails with the last `Err`.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(10);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("{what}: not within {} s; at last: {last}", limit.as_secs()),
            Err(_) => std::thread::park_timeout(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
