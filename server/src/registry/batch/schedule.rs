//! Cron schedules as CronJobs write them: the five fields and descriptors of `robfig/cron`'s standard parser, with its errors.
//!
//! Pure: validation parses, the controller asks for the next time.

use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{Timestamp, ToSpan, civil};

/// When a CronJob runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Minutes, hours, days and months that match, as bit sets.
    Fields(Fields),
    /// `@every`: a fixed number of seconds, at least one.
    Every(i64),
}

/// The five fields. A star in either of the days means that only the other one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// The most seconds that a Go duration holds.
const LONGEST: f64 = (i64::MAX / 1_000_000_000) as f64;

/// How far ahead a schedule is searched, in days: five years, as upstream.
const HORIZON: i32 = 366 * 5;

struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Field = Field { low: 0, high: 59, names: &[] };
const HOURS: Field = Field { low: 0, high: 23, names: &[] };
const DAYS: Field = Field { low: 1, high: 31, names: &[] };
const MONTHS: Field = Field { low: 1, high: 12, names: &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] };
const WEEKDAYS: Field = Field { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let star = |text: &str| text.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")) && !part.contains('/'));
        Ok(Schedule::Fields(Fields {
            minutes: MINUTES.parse(minute)?,
            hours: HOURS.parse(hour)?,
            days: DAYS.parse(day)?,
            months: MONTHS.parse(month)?,
            weekdays: WEEKDAYS.parse(weekday)?,
            any_day: star(day),
            any_weekday: star(weekday),
        }))
    }

    /// The first time after `after` (exclusive); `None` when there is none within five years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Schedule::Fields(fields) => fields.next_after(after, zone),
        }
    }
}

impl Fields {
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after).date();
        for offset in 0..HORIZON {
            let date = start.checked_add(offset.days()).ok()?;
            if !self.matches_date(date) {
                continue;
            }
            for hour in (0..24i8).filter(|h| self.hours & (1 << h) != 0) {
                for minute in (0..60i8).filter(|m| self.minutes & (1 << m) != 0) {
                    let local = date.at(hour, minute, 0, 0);
                    let Ok(time) = zone.to_timestamp(local) else { continue };
                    // A local time that a change of clocks skips does not happen.
                    if time > after && zone.to_datetime(time) == local {
                        return Some(time);
                    }
                }
            }
        }
        None
    }

    fn matches_date(&self, date: civil::Date) -> bool {
        let bit = |set: u64, n: i8| set & (1 << n) != 0;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let days = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        bit(self.months, date.month()) && days
    }
}

impl Field {
    /// A comma-separated list of ranges, as a bit set.
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').filter(|part| !part.is_empty()).try_fold(0, |set, part| Ok(set | self.range(part)?))
    }

    /// `*`, `n`, `a-b`, each with an optional `/step`.
    fn range(&self, text: &str) -> Result<u64, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let ends: Vec<&str> = parts[0].split('-').collect();
        let single = ends.len() == 1;
        let (start, mut end) = match ends[..] {
            ["*" | "?"] => (self.low, self.high),
            [one] => (self.number(one)?, self.number(one)?),
            [from, to] if from != "*" && from != "?" => (self.number(from)?, self.number(to)?),
            _ => return Err(format!("too many hyphens: {text}")),
        };
        let step = match parts[..] {
            [_] => 1,
            [_, step] => {
                if single && (start, end) != (self.low, self.high) {
                    end = self.high;
                }
                parse_number(step)?
            }
            _ => return Err(format!("too many slashes: {text}")),
        };
        if start < self.low {
            return Err(format!("beginning of range ({start}) below minimum ({}): {text}", self.low));
        }
        if end > self.high {
            return Err(format!("end of range ({end}) above maximum ({}): {text}", self.high));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        Ok((start..=end).step_by(step as usize).fold(0, |set, n| set | 1 << n))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let name = text.to_ascii_lowercase();
        match self.names.iter().position(|n| *n == name && !n.is_empty()) {
            Some(index) => Ok(u32::try_from(index).unwrap_or_default()),
            None => parse_number(text),
        }
    }
}

fn parse_number(text: &str) -> Result<u32, String> {
    let number: i64 = text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))?;
    u32::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => {
            let Some(duration) = other.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {other}")) };
            let seconds = go_duration(duration).ok_or_else(|| format!("failed to parse duration {other}: time: invalid duration {duration:?}"))?;
            return Ok(Schedule::Every(seconds.max(1)));
        }
    };
    Schedule::parse(standard)
}

/// Whole seconds of a Go duration such as `1h30m`; Go counts nanoseconds in 64 bits, so there is none beyond 292 years.
fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let scale = match &tail[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = &tail[unit..];
    }
    (!text.is_empty() && total <= LONGEST).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = if zone.is_empty() { TimeZone::UTC } else { TimeZone::get(zone).unwrap() };
        Schedule::parse(schedule).unwrap().next_after(after.parse().unwrap(), &zone).map_or("never".into(), |t| t.to_string())
    }

    #[test]
    fn the_next_time_is_strictly_after() {
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:15:00Z", "2024-01-01T00:30:00Z"),
            ("0 0 * * *", "2024-01-01T12:00:00Z", "2024-01-02T00:00:00Z"),
            ("30 9 * * MON-FRI", "2024-01-05T09:30:00Z", "2024-01-08T09:30:00Z"),
            ("0 0 29 2 *", "2023-03-01T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 */2 * 1", "2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z"),
            ("0 0 31 2 *", "2024-01-01T00:00:00Z", "never"),
            ("@hourly", "2024-01-01T00:00:01Z", "2024-01-01T01:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:00Z", "2024-01-01T01:30:00Z"),
            ("5/10 * * * *", "2024-01-01T00:06:00Z", "2024-01-01T00:15:00Z"),
            ("1,,5 * * * *", "2024-01-01T00:01:00Z", "2024-01-01T00:05:00Z"),
            ("@every 2562047h", "2024-01-01T00:00:00Z", "2316-04-11T23:00:00Z"),
        ] {
            assert_eq!(next(schedule, after, ""), expected, "{schedule}");
        }
    }

    #[test]
    fn time_zones_count() {
        assert_eq!(next("0 3 * * *", "2024-01-01T00:00:00Z", "America/New_York"), "2024-01-01T08:00:00Z");
        // 02:30 does not exist on the night the clocks go forward.
        assert_eq!(next("30 2 * * *", "2024-03-10T05:00:00Z", "America/New_York"), "2024-03-11T06:30:00Z");
    }

    #[test]
    fn errors_are_upstreams() {
        for (schedule, error) in [
            ("", "empty spec string"),
            ("a b c", "expected exactly 5 fields, found 3: [a b c]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 2562048h", "failed to parse duration @every 2562048h: time: invalid duration \"2562048h\""),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), error, "{schedule}");
        }
    }
}
