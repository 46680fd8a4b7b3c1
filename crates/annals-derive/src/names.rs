//! From Rust's names to those on the wire.

/// `ChangeContact` as `change_contact`: every capital begins a word, as in serde.
pub(crate) fn snake_case(variant: &str) -> String {
    separated(variant, '_')
}

/// `ChangeContact` as `change-contact`.
pub(crate) fn kebab_case(variant: &str) -> String {
    separated(variant, '-')
}

/// `ChangeContact` as `CHANGE_CONTACT`.
pub(crate) fn screaming_case(variant: &str) -> String {
    snake_case(variant).to_ascii_uppercase()
}

fn separated(variant: &str, separator: char) -> String {
    let mut out = String::with_capacity(variant.len() + 4);
    for (index, letter) in variant.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 && !out.ends_with(separator) {
            out.push(separator);
        }
        match letter {
            '_' => out.push(separator),
            _ => out.push(letter.to_ascii_lowercase()),
        }
    }
    out
}

/// Whether `name` is `[a-z][a-z0-9]*` with single `separator`s inside.
pub(crate) fn is_name(name: &str, separator: char) -> bool {
    name.split(separator)
        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_begin_words() {
        assert_eq!(snake_case("Placed"), "placed");
        assert_eq!(snake_case("StockReceived2"), "stock_received2");
        assert_eq!(kebab_case("ChangeContact"), "change-contact");
        assert_eq!(kebab_case("Change_Contact"), "change-contact");
        assert_eq!(screaming_case("TimedOut"), "TIMED_OUT");
    }

    #[test]
    fn names_have_single_separators_inside() {
        assert!(is_name("change-contact2", '-'));
        for name in ["", "-a", "a-", "a--b", "2a", "A", "a_b", "é"] {
            assert!(!is_name(name, '-'), "{name:?}");
        }
    }
}
