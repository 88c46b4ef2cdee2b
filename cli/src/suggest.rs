//! "Did you mean this?": words close to a mistyped one. Pure.

/// The Levenshtein distance of two words.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(c != *d)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Candidates within a distance of the word, or that it begins; nearest first, without repeats.
pub fn close(word: &str, candidates: impl IntoIterator<Item = String>, within: usize) -> Vec<String> {
    let word = word.to_lowercase();
    let mut found: Vec<(usize, String)> = Vec::new();
    for candidate in candidates {
        let away = distance(&word, &candidate.to_lowercase());
        if (away <= within || (word.len() > 2 && candidate.to_lowercase().starts_with(&word))) && !found.iter().any(|(_, c)| *c == candidate) {
            found.push((away, candidate));
        }
    }
    found.sort();
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let words = || ["get", "set", "delete", "describe"].map(String::from);
        assert_eq!(close("gett", words(), 2), ["get", "set"]);
        assert_eq!(close("desc", words(), 1), ["describe"]);
        assert!(close("zzzzzz", words(), 2).is_empty());
        assert_eq!(distance("piVersion", "apiVersion"), 1);
    }
}
