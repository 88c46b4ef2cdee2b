//! Replaces what must differ between two runs, and nothing else.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use tests::Output;

use super::Side;

/// An outcome that can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Normal {
    pub out: String,
    pub err: String,
    pub code: String,
}

/// A pattern and what stands for its matches.
type Rule = (Regex, &'static str);

fn rules(rules: &[(&str, &'static str)]) -> Vec<Rule> {
    rules.iter().map(|(pattern, by)| (Regex::new(pattern).expect("the pattern is well-formed"), *by)).collect()
}

/// Between runs a moment apart.
static TIMES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        // klog's own lines tell of retries and libraries; of warnings only the text counts.
        (r"(?m)^[EFI]\d{4} \d\d:\d\d:\d\d.*\n", ""),
        (r"(?m)^W\d{4} \S+ +\d+ \S+ ", "W "),
        (r"(?:kubectl|kctl)-edit-\w+", "{edit}"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "{time}"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", "{time}"),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+\w]+", "{time}"),
        (r"\((?:\d+[smhdy]){1,2} ago\)", "({age} ago)"),
    ])
});

/// An age that is a whole word, with the blanks that pad it.
static AGE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)(^|[\s(])(?:<invalid>|(?:\d+[smhdy]){1,2})($|[\s)])( *)").expect("the pattern is well-formed"));

/// Between namespaces.
static NAMES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "{uid}"),
        (r#"(resourceVersion"?: ?"?)\d+"#, "${1}{rv}"),
        (r"(?m)(was) \d{2,}$", "$1 {rv}"),
        (r"-[bcdfghjklmnpqrstvwxz2456789]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-{pod}"),
        (r"(kube-api-access|gen)-\w{5}\b", "$1-{suffix}"),
        (r"-[bcdfghjklmnpqrstvwxz2456789]*[2456789][bcdfghjklmnpqrstvwxz2456789]*\b", "-{hash}"),
        (r":3\d{4}/", ":{nodeport}/"),
        (r"\b10\.\d+\.\d+\.\d+ *", "{ip} "),
        (r"\b198\.19\.\d+\.\d+ *", "{ip} "),
    ])
});

impl Normal {
    pub(super) fn of(output: &Output, side: &Side, shared: bool) -> Normal {
        let text = |text: &str| normal(text, side, shared);
        Normal { out: text(&output.stdout), err: text(&output.stderr), code: output.code.to_string() }
    }
}

fn normal(text: &str, side: &Side, shared: bool) -> String {
    let text = text.replace(&*side.directory.to_string_lossy(), "{dir}").replace(&side.namespace, "{ns}");
    // kctl calls itself by its own name.
    let mut text = text.replace(&*side.program.to_string_lossy(), "{program}").replace("kctl", "kubectl");
    let names: &[Rule] = if shared { &[] } else { &NAMES };
    for (pattern, by) in TIMES.iter().chain(names) {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    AGE.replace_all(&text, padded).into_owned()
}

/// An age keeps the width it is padded to; at the end of a line it has none.
fn padded(age: &Captures<'_>) -> String {
    let (before, after, blanks) = (&age[1], &age[2], &age[3]);
    if after == " " {
        return format!("{before}{{age:{}}}", age[0].len() - before.len());
    }
    format!("{before}{{age}}{after}{blanks}")
}
