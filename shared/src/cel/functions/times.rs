//! Parts of timestamps and durations.

use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

use super::{Function, Result, no_overload};
use crate::cel::EvalError;
use crate::cel::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "getFullYear" => |_, a| part(a, |t| i64::from(t.year()), None),
        // Months and these days count from zero.
        "getMonth" => |_, a| part(a, |t| i64::from(t.month()) - 1, None),
        "getDate" => |_, a| part(a, |t| i64::from(t.day()), None),
        "getDayOfMonth" => |_, a| part(a, |t| i64::from(t.day()) - 1, None),
        "getDayOfWeek" => |_, a| part(a, |t| i64::from(t.weekday().to_sunday_zero_offset()), None),
        "getDayOfYear" => |_, a| part(a, |t| i64::from(t.day_of_year()) - 1, None),
        "getHours" => |_, a| part(a, |t| i64::from(t.hour()), Some(|d| d / 3_600_000_000_000)),
        "getMinutes" => |_, a| part(a, |t| i64::from(t.minute()), Some(|d| d / 60_000_000_000)),
        "getSeconds" => |_, a| part(a, |t| i64::from(t.second()), Some(|d| d / 1_000_000_000)),
        "getMilliseconds" => |_, a| part(a, |t| i64::from(t.millisecond()), Some(|d| d / 1_000_000 % 1000)),
        _ => return None,
    })
}

fn part(args: &[Value], of: fn(&Zoned) -> i64, duration: Option<fn(i64) -> i64>) -> Result {
    Ok(Value::Int(match (args, duration) {
        ([Value::Timestamp(t)], _) => of(&t.to_zoned(TimeZone::UTC)),
        ([Value::Timestamp(t), Value::String(zone)], _) => of(&t.to_zoned(time_zone(zone)?)),
        ([Value::Duration(d)], Some(duration)) => duration(*d),
        _ => return no_overload(),
    }))
}

/// A name, or an offset such as `-08:00`.
fn time_zone(text: &str) -> Result<TimeZone> {
    let unknown = || EvalError::new(format!("unknown time zone {text}"));
    let Some((hours, minutes)) = text.split_once(':') else {
        return if text.is_empty() || text == "UTC" { Ok(TimeZone::UTC) } else { TimeZone::get(text).map_err(|_| unknown()) };
    };
    let hours: i32 = hours.parse().map_err(|_| unknown())?;
    let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let seconds = hours.checked_mul(3600).and_then(|h| h.checked_add(sign * minutes.clamp(0, 59) * 60)).ok_or_else(unknown)?;
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}
