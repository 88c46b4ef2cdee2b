//! Container logs: the CRI format, `tail`, `since`, `limitBytes`, follow and rotation (`pkg/kubelet/kuberuntime/logs`).
//!
//! Parsing is pure. Files are opened beneath the pod's log directory, links are not followed.

pub mod files;
pub mod rotate;
pub mod stream;

use k8s_openapi::jiff::Timestamp;

/// One line of a log file as the runtime writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When, as text.
    pub time: &'a str,
    /// `stdout` or `stderr`
    pub stream: &'a str,
    /// The line goes on in the next one.
    pub partial: bool,
    /// The text, without its newline.
    pub text: &'a [u8],
}

/// Reads `2016-10-06T00:17:09.669794202Z stdout P log content` (without the newline).
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = std::str::from_utf8(parts.next()?).ok()?;
    let text = parts.next()?;
    let known = matches!(stream, "stdout" | "stderr");
    known.then(|| Line { time, stream, partial: tags.split(':').next() == Some("P"), text })
}

/// What a reader wants of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// The container before this one.
    pub previous: bool,
    /// Write times before lines.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Stop after this many bytes.
    pub limit: Option<u64>,
    /// Only `stdout` or `stderr`.
    pub stream: Option<String>,
}

impl Options {
    /// Reads the query of `/containerLogs`. The error names the bad parameter.
    pub fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Options::default();
        for (key, value) in pairs(query) {
            let bad = || format!("invalid {key}: {value:?}");
            let number = || value.parse::<u64>().map_err(|_| bad());
            match key.as_str() {
                "follow" => options.follow = boolean(&value).ok_or_else(bad)?,
                "previous" => options.previous = boolean(&value).ok_or_else(bad)?,
                "timestamps" => options.timestamps = boolean(&value).ok_or_else(bad)?,
                "tailLines" => options.tail = Some(number()?),
                "limitBytes" => options.limit = Some(number()?),
                "sinceSeconds" => {
                    let seconds = i64::try_from(number()?).map_err(|_| bad())?;
                    options.since = Some(Timestamp::from_second(now.as_second().saturating_sub(seconds)).map_err(|_| bad())?);
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| bad())?),
                "stream" if value == "All" => {}
                "stream" => options.stream = Some(value.to_lowercase()),
                _ => {}
            }
        }
        Ok(options)
    }

    /// What a line contributes to the answer: nothing if it is filtered out.
    pub fn render(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        if self.stream.as_deref().is_some_and(|s| s != line.stream) || self.since.is_some_and(|since| is_before(line.time, since)) {
            return;
        }
        if self.timestamps {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
    }
}

fn is_before(time: &str, since: Timestamp) -> bool {
    time.parse::<Timestamp>().is_ok_and(|t| t < since)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "1" | "t" => Some(true),
        "false" | "False" | "FALSE" | "0" | "f" | "" => Some(false),
        _ => None,
    }
}

/// Decoded key-value pairs of a query string.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|d| u8::from_str_radix(d, 16).ok());
            out.push(escaped.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
            at += if escaped.is_some() { 3 } else { 1 };
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Where the last `count` lines begin. Lines that go on do not count.
pub fn tail_start(text: &[u8], count: u64) -> usize {
    let mut left = count;
    let mut start = text.len();
    let mut end = text.len();
    while end > 0 {
        let line_end = if text[end - 1] == b'\n' { end - 1 } else { end };
        let begin = text[..line_end].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let partial = parse(&text[begin..line_end]).is_some_and(|l| l.partial);
        if !partial {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        start = begin;
        end = begin;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n2026-01-01T00:00:03Z stdout P thr\n2026-01-01T00:00:03Z stdout F ee\n";

    fn render(query: &str) -> String {
        let options = Options::parse(query, "2026-01-01T00:00:04Z".parse().unwrap()).unwrap();
        let from = options.tail.map_or(0, |n| tail_start(LOG.as_bytes(), n));
        let mut out = Vec::new();
        for line in LOG.as_bytes()[from..].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            options.render(&parse(line).unwrap(), &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn options_choose_what_is_shown() {
        for (query, expected) in [
            ("", "one\ntwo\nthree\n"),
            ("tailLines=1", "three\n"),
            ("tailLines=2", "two\nthree\n"),
            ("tailLines=0", ""),
            ("tailLines=9", "one\ntwo\nthree\n"),
            ("timestamps=true&tailLines=2&stream=Stderr", "2026-01-01T00:00:02Z two\n"),
            ("sinceSeconds=2", "two\nthree\n"),
            ("sinceTime=2026-01-01T00%3A00%3A03Z", "three\n"),
        ] {
            assert_eq!(render(query), expected, "{query}");
        }
        assert!(Options::parse("tailLines=x", Timestamp::now()).is_err());
        assert!(Options::parse("follow=maybe", Timestamp::now()).is_err());
    }

    #[test]
    fn garbage_is_no_line() {
        for line in ["", "x", "2026 stdout F", "2026 stdin F x"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"t stdout F ").map(|l| l.text.len()), Some(0));
    }

    proptest::proptest! {
        #[test]
        fn the_last_lines_are_the_last_lines(texts in proptest::collection::vec("[a-z ]{0,8}", 0..20), count in 0u64..25) {
            let log: String = texts.iter().map(|t| format!("2026-01-01T00:00:00Z stdout F {t}\n")).collect();
            let kept = log[tail_start(log.as_bytes(), count)..].lines().count();
            proptest::prop_assert_eq!(kept, texts.len().min(usize::try_from(count).unwrap()));
        }
    }
}
