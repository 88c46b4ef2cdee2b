//! Names for `metadata.generateName` (`k8s.io/apiserver/pkg/storage/names/generate.go`).

use rand::Rng;

/// No vowels and no look-alikes, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM: usize = 5;
const LONGEST_BASE: usize = 63 - RANDOM;

/// The base, cut to fit, with five random letters.
pub(super) fn generate(base: &str) -> String {
    let mut name: String = base.to_owned();
    let mut cut = name.len().min(LONGEST_BASE);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    name.truncate(cut);
    let mut rng = rand::rng();
    name.extend((0..RANDOM).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_the_base_and_five_letters() {
        let name = generate("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate(&"a".repeat(80)).len(), 63);
    }
}
