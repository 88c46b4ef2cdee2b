//! Cron schedules as `robfig/cron`'s `ParseStandard` reads them: five fields, names, lists, ranges and steps, `@daily` and its like,
//! `@every 1h30m`. Pure.

use std::time::Duration;

use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{RoundMode, Span, Timestamp, Unit, Zoned, ZonedRound};

/// When something is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At these minutes, hours and so on.
    Fields(Fields),
    /// At a constant distance.
    Every(Duration),
}

/// Bits of the values that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the days of the month, or of the week, are all meant: then the other alone decides.
    any_day: bool,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        if let Some(name) = text.strip_prefix('@') {
            return Self::descriptor(name);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let bounds = |min, max, names| Bounds { min, max, names };
        let (days, any_date) = field(days, &bounds(1, 31, &[]))?;
        let (weekdays, any_weekday) = field(weekdays, &bounds(0, 6, WEEKDAYS))?;
        Ok(Schedule::Fields(Fields {
            minutes: field(minutes, &bounds(0, 59, &[]))?.0,
            hours: field(hours, &bounds(0, 23, &[]))?.0,
            days,
            months: field(months, &bounds(1, 12, MONTHS))?.0,
            weekdays,
            any_day: any_date || any_weekday,
        }))
    }

    fn descriptor(name: &str) -> Result<Self, String> {
        let fields = match name {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            other => {
                let every = other.strip_prefix("every ").ok_or_else(|| format!("unrecognized descriptor: @{name}"))?;
                return Ok(Schedule::Every(duration(every.trim())?.max(Duration::from_secs(1))));
            }
        };
        Self::parse(fields)
    }

    /// The first time after `after`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                // Not by a span: jiff's are bounded, and panic beyond.
                Timestamp::from_second(after.as_second().checked_add(i64::try_from(every.as_secs()).ok()?)?).ok()
            }
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }
}

fn bit(bits: u64, n: i8) -> bool {
    u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1)
}

impl Fields {
    fn day_matches(&self, at: &Zoned) -> bool {
        let weekday = at.weekday().to_sunday_zero_offset();
        let (date, week) = (bit(self.days, at.day()), bit(self.weekdays, weekday));
        if self.any_day { date && week } else { date || week }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = ZonedRound::new().smallest(Unit::Minute).mode(RoundMode::Trunc);
        let mut at = after.to_zoned(zone.clone()).round(minute).ok()?.checked_add(Span::new().minutes(1)).ok()?;
        let last_year = at.year() + 5;
        while at.year() <= last_year {
            if !bit(self.months, at.month()) {
                at = at.first_of_month().ok()?.start_of_day().ok()?.checked_add(Span::new().months(1)).ok()?.start_of_day().ok()?;
            } else if !self.day_matches(&at) {
                at = at.start_of_day().ok()?.checked_add(Span::new().days(1)).ok()?.start_of_day().ok()?;
            } else if !bit(self.hours, at.hour()) {
                // By the clock on the wall, but in steps of real time, so that an hour the clock leaves out is left out.
                at = at.checked_add(Span::new().minutes(60 - i64::from(at.minute()))).ok()?;
            } else if !bit(self.minutes, at.minute()) {
                at = at.checked_add(Span::new().minutes(1)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }
}

/// One field: its bits, and whether it is a plain star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    // Go's FieldsFunc leaves out what is empty between two commas.
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, star) = range(part, bounds)?;
        bits |= more;
        any |= star;
    }
    Ok((bits, any))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (values, step) = match text.split_once('/') {
        Some((values, step)) => (values, Some(number(step, &Bounds { min: 0, max: u32::MAX, names: &[] })?)),
        None => (text, None),
    };
    let star = values == "*" || values == "?";
    let (from, to) = match values.split_once('-') {
        _ if star => (bounds.min, bounds.max),
        Some((from, to)) => (number(from, bounds)?, number(to, bounds)?),
        None => {
            let from = number(values, bounds)?;
            // `5/15` counts from 5 to the end.
            (from, if step.is_some() { bounds.max } else { from })
        }
    };
    let step_by = step.unwrap_or(1);
    if from < bounds.min {
        return Err(format!("beginning of range ({from}) below minimum ({}): {text}", bounds.min));
    }
    if to > bounds.max {
        return Err(format!("end of range ({to}) above maximum ({}): {text}", bounds.max));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {text}"));
    }
    if step_by == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (from..=to).step_by(step_by as usize).fold(0, |bits, n| bits | 1u64 << n);
    Ok((bits, star && step_by == 1))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = bounds.names.iter().position(|n| *n == lower) {
        return Ok(at as u32 + bounds.min);
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))
}

/// The most seconds that a Go duration holds: it counts nanoseconds in 64 bits.
const LONGEST: f64 = (i64::MAX / 1_000_000_000) as f64;

/// `1h30m`, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("failed to parse duration @every {text}: time: invalid duration \"{text}\"");
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let amount: f64 = rest[..end].parse().map_err(|_| invalid())?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| end + i);
        total += amount
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(invalid()),
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() || total > LONGEST { Err(invalid()) } else { Duration::try_from_secs_f64(total).map_err(|_| invalid()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone);
        next.map(|t| t.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_next_time_is_the_first_that_matches() {
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:30Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:14:59Z", "2024-01-01T00:15:00Z"),
            ("*/15 * * * *", "2024-01-01T00:45:00Z", "2024-01-01T01:00:00Z"),
            ("5/15 * * * *", "2024-01-01T00:21:00Z", "2024-01-01T00:35:00Z"),
            ("0 9-17 * * mon-fri", "2024-01-05T17:00:00Z", "2024-01-08T09:00:00Z"),
            ("30 3 29 2 *", "2024-03-01T00:00:00Z", "2028-02-29T03:30:00Z"),
            ("0 0 31 * *", "2024-01-31T00:00:00Z", "2024-03-31T00:00:00Z"),
            ("0 0 1 JAN *", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            // With both kinds of day given, either will do.
            ("0 0 13 * fri", "2024-09-01T00:00:00Z", "2024-09-06T00:00:00Z"),
            ("0 0 13 * fri", "2024-09-06T00:00:00Z", "2024-09-13T00:00:00Z"),
            ("0 0 */2 * fri", "2024-09-06T00:00:00Z", "2024-09-07T00:00:00Z"),
            ("0 0 30 2 *", "2024-01-01T00:00:00Z", ""),
            ("@hourly", "2024-01-01T00:59:59Z", "2024-01-01T01:00:00Z"),
            ("@weekly", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:00Z", "2024-01-01T01:30:00Z"),
            ("1,,5 * * * *", "2024-01-01T00:01:00Z", "2024-01-01T00:05:00Z"),
            ("@every 2562047h", "2024-01-01T00:00:00Z", "2316-04-11T23:00:00Z"),
            ("@every 2562047h", "9999-01-01T00:00:00Z", ""),
        ] {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn zones_have_their_own_midnight_and_their_own_gaps() {
        assert_eq!(next("0 0 * * *", "2024-06-01T12:00:00Z", "Asia/Shanghai"), "2024-06-01T16:00:00Z");
        // 2:30 does not exist on 10 March in New York; 1:30 happens twice on 3 November.
        assert_eq!(next("30 2 * * *", "2024-03-10T05:00:00Z", "America/New_York"), "2024-03-11T06:30:00Z");
        assert_eq!(next("30 1 * * *", "2024-11-03T04:00:00Z", "America/New_York"), "2024-11-03T05:30:00Z");
        assert_eq!(next("0 * * * *", "2024-11-03T05:30:00Z", "America/New_York"), "2024-11-03T06:00:00Z");
        assert_eq!(next("0 * * * *", "2024-03-10T06:30:00Z", "America/New_York"), "2024-03-10T07:00:00Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@never",
            "@every x",
            "@every 200000000h",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_are_strictly_later_and_none_in_between_is_left_out(
            minute in 0..60u32, hour in 0..24u32, start in 1_600_000_000i64..1_900_000_000, zone in 0..3usize
        ) {
            let zone = TimeZone::get(["UTC", "Europe/Berlin", "America/Sao_Paulo"][zone]).unwrap();
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *")).unwrap();
            let after = Timestamp::from_second(start).unwrap();
            let next = schedule.next(after, &zone).unwrap();
            prop_assert!(next > after);
            let at = next.to_zoned(zone.clone());
            prop_assert_eq!((at.hour(), at.minute(), at.second()), (hour as i8, minute as i8, 0));
            let mut t = after.as_second() / 60 * 60 + 60;
            while t < next.as_second() {
                let z = Timestamp::from_second(t).unwrap().to_zoned(zone.clone());
                prop_assert!((z.hour(), z.minute()) != (hour as i8, minute as i8), "{z}");
                t += 60;
            }
        }
    }
}
