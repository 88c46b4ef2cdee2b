//! Resource quantities such as `100m`, `1Gi` and `1e3`
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

/// How a quantity is printed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySI,
    /// `n u m k M G T P E`
    DecimalSI,
    /// `e3`
    DecimalExponent,
}

/// An exact amount, in billionths, with the format it was written in.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is not a quantity; the message is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

const NANO: i128 = 1_000_000_000;
/// Upstream caps quantities at 2^63 - 1 units.
const MAX: i128 = i64::MAX as i128 * NANO;

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(units) * NANO, format }
    }
    /// A number of thousandths, as CPUs are counted.
    pub fn from_millis(millis: i64) -> Self {
        Quantity { nanos: i128::from(millis) * 1_000_000, format: Format::DecimalSI }
    }
    /// Zero.
    pub fn zero() -> Self {
        Self::from_units(0, Format::DecimalSI)
    }
    /// Whole units, rounded up (upstream's `Value`).
    pub fn value(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }
    /// Thousandths, rounded up (upstream's `MilliValue`).
    pub fn millis(&self) -> i64 {
        clamp(div_ceil(self.nanos, 1_000_000))
    }
    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }
    /// The sum; keeps the format of `self` unless it is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
    /// The difference; keeps the format of `self` unless it is zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format }
    }
    /// The wire form, in canonical notation.
    pub fn to_wire(self) -> Wire {
        Wire(self.to_string())
    }
    /// Parses the wire form; what cannot be parsed counts as zero, for callers behind validation.
    pub fn of(wire: &Wire) -> Self {
        wire.0.parse().unwrap_or_else(|_| Self::zero())
    }
    /// Rewrites a wire quantity into upstream's canonical notation (`1000m` → `1`, `0.5` → `500m`, `1024Mi` → `1Gi`).
    pub fn canonicalize(wire: &mut Wire) {
        if let Ok(quantity) = wire.0.parse::<Quantity>() {
            let text = quantity.to_string();
            if text != wire.0 {
                wire.0 = text;
            }
        }
    }
}

fn div_ceil(a: i128, b: i128) -> i128 {
    let q = a / b;
    if a % b > 0 { q + 1 } else { q }
}

fn clamp(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (format, binary, exponent) = parse_suffix(suffix)?;
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        // value = digits × 10^(exponent - len(fraction)) × 2^binary, in units of 10^-9, rounded away from zero.
        let power = exponent - i32::try_from(fraction.len()).map_err(|_| ParseQuantityError)? + 9;
        let nanos = scaled(digits, power, binary);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn parse_suffix(suffix: &str) -> Result<(Format, u32, i32), ParseQuantityError> {
    Ok(match suffix {
        "" => (Format::DecimalSI, 0, 0),
        "n" => (Format::DecimalSI, 0, -9),
        "u" => (Format::DecimalSI, 0, -6),
        "m" => (Format::DecimalSI, 0, -3),
        "k" => (Format::DecimalSI, 0, 3),
        "M" => (Format::DecimalSI, 0, 6),
        "G" => (Format::DecimalSI, 0, 9),
        "T" => (Format::DecimalSI, 0, 12),
        "P" => (Format::DecimalSI, 0, 15),
        "E" => (Format::DecimalSI, 0, 18),
        "Ki" => (Format::BinarySI, 10, 0),
        "Mi" => (Format::BinarySI, 20, 0),
        "Gi" => (Format::BinarySI, 30, 0),
        "Ti" => (Format::BinarySI, 40, 0),
        "Pi" => (Format::BinarySI, 50, 0),
        "Ei" => (Format::BinarySI, 60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
            (Format::DecimalExponent, 0, exponent.parse().map_err(|_| ParseQuantityError)?)
        }
    })
}

/// `digits × 10^power × 2^binary`, rounded up, capped at [`MAX`].
fn scaled(digits: &str, power: i32, binary: u32) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    let magnitude = digits.len() as i64 + i64::from(power);
    if magnitude > 30 {
        return MAX;
    }
    if magnitude < -20 {
        return 1;
    }
    let (kept, power, mut inexact) = if digits.len() > 28 {
        let cut = digits.len() - 28;
        (&digits[..28], power + cut as i32, digits[28..].bytes().any(|b| b != b'0'))
    } else {
        (digits, power, false)
    };
    let mut value: i128 = kept.parse().unwrap_or(MAX);
    // Multiply before dividing, so that `0.5Gi` stays exact; both factors are bounded.
    value = match value.checked_mul(1i128 << binary) {
        Some(v) => v,
        None => return MAX,
    };
    for _ in 0..power.max(0) {
        value = match value.checked_mul(10) {
            Some(v) => v,
            None => return MAX,
        };
    }
    for _ in 0..(-power).max(0) {
        inexact |= value % 10 != 0;
        value /= 10;
    }
    (value + i128::from(inexact)).min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut format = self.format;
        // Upstream prints a binary quantity below 1024, or a fraction, in decimal.
        if format == Format::BinarySI && (self.nanos.abs() < 1024 * NANO || self.nanos % NANO != 0) {
            format = Format::DecimalSI;
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if format == Format::BinarySI {
            let (mut value, mut step) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && step < 6 {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut value, mut exponent) = (self.nanos, -9i32);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (format, exponent) {
            (_, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, e) => write!(f, "{value}e{e}"),
            (_, e) => {
                let index = usize::try_from((e + 9) / 3).unwrap_or(3);
                write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][index])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_notation_is_upstreams() {
        for (given, printed) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1024Mi", "1Gi"),
            ("1Gi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1k", "1k"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1500M", "1500M"),
            ("100Ki", "100Ki"),
            ("1Ki", "1Ki"),
            ("512", "512"),
            ("-1", "-1"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.0001", "1000100u"),
            ("0.0000000001", "1n"),
            ("1E3", "1e3"),
            ("2E", "2E"),
        ] {
            assert_eq!(q(given).to_string(), printed, "{given}");
        }
    }

    #[test]
    fn compares_across_notations() {
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("100m").plus(q("0.9")).to_string(), "1");
        assert_eq!(q("1Gi").minus(q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("1.5").millis(), 1500);
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "abc", "1.2.3", "1X", "1 Gi", "Gi", "--1", "1e", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
