//! `$(VAR)` in commands, arguments, values and sub paths (`third_party/forked/golang/expansion/expand.go`).
//!
//! Pure.

/// Replaces `$(NAME)` by its value where it has one; `$$` is a literal dollar; what is unknown or unfinished stays as it is.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(tail) = after.strip_prefix('$') {
            output.push('$');
            tail
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => output.push_str(&value),
                None => output.extend(["$(", name, ")"]),
            }
            tail
        } else {
            output.push('$');
            after
        };
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_upstream_does() {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, output) in [
            ("$(A)", "a"),
            ("x$(A)y", "xay"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)", ""),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$()", "$()"),
            ("", ""),
        ] {
            assert_eq!(expand(input, lookup), output, "{input}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_without_dollars_is_never_touched(text in "[^$]*") {
            proptest::prop_assert_eq!(expand(&text, |_| Some("x".into())), text);
        }
    }
}
