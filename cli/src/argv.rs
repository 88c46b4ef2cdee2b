//! What happens to the arguments before clap sees them. Pure.

/// Joins a label selector that arrives as separate words: `-l tier in (frontend)` is `-l "tier in (frontend)"`.
///
/// After the value of `-l` or `--selector`, a following `in` or `notin` and a word starting with `(` belong to it, up to the closing `)`,
/// and on while a comma joins. No name can hold a parenthesis, so nothing else is meant.
pub fn join_selectors(arguments: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter().peekable();
    while let Some(word) = rest.next() {
        if word == "--" {
            out.push(word);
            out.extend(rest);
            return out;
        }
        let attached =
            ["--selector=", "-l="].iter().any(|p| word.starts_with(p)) || (word.starts_with("-l") && word.len() > 2 && !word.starts_with("--"));
        let separate = word == "-l" || word == "--selector";
        out.push(word);
        if separate {
            let Some(value) = rest.next() else { break };
            out.push(value);
        } else if !attached {
            continue;
        }
        if let Some(selector) = out.last_mut() {
            absorb(selector, &mut rest);
        }
    }
    out
}

fn absorb(selector: &mut String, rest: &mut std::iter::Peekable<std::vec::IntoIter<String>>) {
    loop {
        // Only look: the words stay if they turn out not to belong here.
        let ahead: Vec<String> = rest.clone().take(2).collect();
        let [operator, values] = ahead.as_slice() else { return };
        if !matches!(operator.as_str(), "in" | "notin") || !values.starts_with('(') {
            return;
        }
        rest.next();
        selector.push_str(&format!(" {operator} "));
        let mut open = true;
        while open {
            let Some(word) = rest.next() else { return };
            open = !word.contains(')');
            selector.push_str(&word);
        }
        while selector.ends_with(',') {
            let Some(word) = rest.next() else { return };
            selector.push_str(&word);
        }
        // `(production) ,tier`: the comma may stand at the start of the next word.
        while rest.peek().is_some_and(|w| w.starts_with(',')) {
            let Some(word) = rest.next() else { return };
            selector.push_str(&word);
            if word == ","
                && let Some(key) = rest.next()
            {
                selector.push_str(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::join_selectors;

    #[test]
    fn words_of_a_selector_find_each_other() {
        for (given, wanted) in [
            ("get pods -l tier in (frontend)", "get|pods|-l|tier in (frontend)"),
            (
                "get pods -l environment in (production),tier in (frontend) -o wide",
                "get|pods|-l|environment in (production),tier in (frontend)|-o|wide",
            ),
            ("get pods -l tier notin (a, b) x", "get|pods|-l|tier notin (a,b)|x"),
            ("get pods -l a=b,tier in (a)", "get|pods|-l|a=b,tier in (a)"),
            ("get pods --selector=tier in (a), env in (b)", "get|pods|--selector=tier in (a),env in (b)"),
            ("get pods -ltier in (a) , env notin (b)", "get|pods|-ltier in (a),env notin (b)"),
            ("get pods -l a=b in", "get|pods|-l|a=b|in"),
            ("exec x -- -l a in (b)", "exec|x|--|-l|a|in|(b)"),
            ("get -l", "get|-l"),
        ] {
            let words = given.split(' ').map(String::from).collect();
            assert_eq!(join_selectors(words).join("|"), wanted, "{given}");
        }
    }
}
