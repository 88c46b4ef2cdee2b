//! Durations as Kubernetes prints them in tables.

/// Formats a duration in seconds like upstream's `duration.HumanDuration`
/// (`k8s.io/apimachinery/pkg/util/duration/duration.go`): `90s`, `5m30s`, `45m`, `3h5m`, `30h`, `2d4h`, `400d`, `2y35d`.
///
/// Up to two seconds in the future count as zero; more is `<invalid>`.
///
/// ```
/// assert_eq!(shared::age::human_duration(330), "5m30s");
/// ```
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn prints_as_kubectl_does() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (90, "90s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (2700, "45m"),
            (10800, "3h"),
            (11100, "3h5m"),
            (28800, "8h"),
            (108000, "30h"),
            (172800, "2d"),
            (187200, "2d4h"),
            (34560000, "400d"),
            (66096000, "2y35d"),
            (365 * 86400 * 9, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
