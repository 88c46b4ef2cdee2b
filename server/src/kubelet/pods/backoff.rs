//! Exponential backoff as the kubelet applies it to crashing containers and failing pulls (`client-go/util/flowcontrol/backoff.go`).
//!
//! Pure: times are Unix nanoseconds given by the caller.

use std::time::Duration;

/// First delay.
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest delay.
pub const MAX: Duration = Duration::from_secs(300);

/// The backoff of one container or image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    delay: Duration,
    updated: i64,
}

impl Backoff {
    /// The delay in force.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// After twice the longest delay without trouble, the count starts again.
    fn has_expired(&self, event: i64) -> bool {
        event.saturating_sub(self.updated) > nanos(MAX * 2)
    }

    /// Time left to wait at `now` for something that failed at `event`; `None` when it may be tried.
    pub fn remaining(&self, event: i64, now: i64) -> Option<Duration> {
        if self.delay.is_zero() || self.has_expired(event) {
            return None;
        }
        let left = event.saturating_add(nanos(self.delay)).saturating_sub(now);
        u64::try_from(left).ok().filter(|n| *n > 0).map(Duration::from_nanos)
    }

    /// Notes another try after a failure at `event`: 10 s, then doubled up to 5 minutes.
    pub fn next(&mut self, event: i64, now: i64) {
        self.delay = if self.delay.is_zero() || self.has_expired(event) { INITIAL } else { (self.delay * 2).min(MAX) };
        self.updated = now;
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Unix time in nanoseconds.
pub fn now() -> i64 {
    i64::try_from(k8s_openapi::jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_first_restart_is_immediate_and_then_delays_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = 1_000 * SECOND;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoff.remaining(now, now).unwrap_or_default();
            waits.push(wait.as_secs());
            backoff.next(now, now + nanos(wait));
            now += nanos(wait) + SECOND;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_reset_it() {
        let mut backoff = Backoff::default();
        backoff.next(0, 0);
        backoff.next(SECOND, SECOND);
        assert_eq!(backoff.delay(), Duration::from_secs(20));
        let later = 700 * SECOND;
        assert_eq!(backoff.remaining(later, later), None);
        backoff.next(later, later);
        assert_eq!(backoff.delay(), INITIAL);
    }
}
