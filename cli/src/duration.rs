//! Go durations on the command line: `1m30s`, `500ms`, `2h`.

use std::time::Duration;

/// Text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time: invalid duration {0:?}")]
pub struct InvalidDuration(String);

/// Parses a duration; `0` needs no unit, a sign is refused.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0f64);
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let amount: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let width = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..width] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(invalid()),
        };
        total += amount * unit;
        rest = &rest[width..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

/// A flag's duration, kept as text once it is known to parse.
pub fn checked(text: &str) -> Result<String, InvalidDuration> {
    parse(text.strip_prefix('-').unwrap_or(text)).map(|_| text.to_owned())
}

/// A duration as Go prints it: `1m30s`, `2h0m0s`, `500ms`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        let millis = duration.as_millis();
        return if millis == 0 { "0s".into() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    let fraction = duration.subsec_millis();
    let rest = if fraction == 0 { format!("{rest}s") } else { format!("{rest}.{fraction:03}").trim_end_matches('0').to_owned() + "s" };
    match (hours, minutes) {
        (0, 0) => rest,
        (0, m) => format!("{m}m{rest}"),
        (h, m) => format!("{h}h{m}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        for (text, seconds) in [("0", 0.0), ("1m30s", 90.0), ("500ms", 0.5), ("2h", 7200.0), ("1.5h", 5400.0)] {
            assert_eq!(parse(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "5", "x", "-1s", "1d", "1s2"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (seconds, text) in [(0, "0s"), (90, "1m30s"), (7200, "2h0m0s"), (45, "45s")] {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
    }
}
