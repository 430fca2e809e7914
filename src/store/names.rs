//! Names of people and channels: what may stand in one, and when two count as the same.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The longest username and channel name, in characters.
pub const NAME_CHARS_MAX: usize = 32;
/// The longest display name, in characters.
pub const DISPLAY_NAME_CHARS_MAX: usize = 64;

/// `name` as it is compared: without regard to case, width or how its accents are composed.
#[must_use]
pub fn folded(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

/// Checks a username or a channel's name: 1 to 32 printable characters, no space at either end or doubled, and no UUID,
/// since clients may give an id or a name in the same place.
///
/// # Errors
/// A sentence that says what is wrong and what would be right; `what` names the name in it.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    check_printable(what, name, NAME_CHARS_MAX)?;
    if uuid::Uuid::try_parse(name).is_ok() {
        return Err(format!("{what} must not be a UUID"));
    }
    Ok(())
}

/// Checks a text that people see in a list: 1 to `chars_max` printable characters, no space at either end or doubled.
///
/// # Errors
/// A sentence that says what is wrong and what would be right; `what` names the text in it.
pub fn check_printable(what: &str, text: &str, chars_max: usize) -> Result<(), String> {
    let count = text.chars().count();
    if count == 0 || count > chars_max {
        return Err(format!("{what} must have 1 to {chars_max} characters, not {count}"));
    }
    if let Some(wrong) = text.chars().find(|&c| !is_printable(c)) {
        return Err(format!("{what} must have printable characters only, not U+{:04X}", u32::from(wrong)));
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(format!("{what} must not begin or end with a space or have two in a row"));
    }
    if folded(text).is_empty() {
        return Err(format!("{what} must have a character that can be seen"));
    }
    Ok(())
}

/// Makes a valid name of up to `chars_max` characters of what another system calls someone; `None` when nothing is
/// left.
#[must_use]
pub fn tidied(text: &str, chars_max: usize) -> Option<String> {
    let words: Vec<String> = text
        .split(char::is_whitespace)
        .map(|word| word.chars().filter(|&c| is_printable(c)).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect();
    let name: String = words.join(" ").chars().take(chars_max).collect();
    let name = name.trim_end();
    check_name("", name).is_ok().then(|| name.to_owned())
}

/// Neither control nor format characters (which hide or reorder text), nor unassigned ones, and no separator but the
/// plain space.
fn is_printable(c: char) -> bool {
    match c.general_category_group() {
        GeneralCategoryGroup::Other => false,
        GeneralCategoryGroup::Separator => c == ' ',
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_the_same() {
        for (one, other) in [("Alice", "aLICE"), ("Zoé", "zoe\u{301}"), ("ＡＢＣ", "abc"), ("ÉTÉ", "été")] {
            assert_eq!(folded(one), folded(other), "{one} and {other}");
        }
        assert_ne!(folded("alice"), folded("alise"));
    }

    #[test]
    fn names_are_short_and_printable() {
        for good in ["a", "Jean-Pierre", "李小龍", "John Doe", &"x".repeat(32), "🦀"] {
            assert_eq!(check_name("username", good), Ok(()), "{good}");
        }
        for bad in [
            "",
            " a",
            "a ",
            "a  b",
            "a\nb",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{a0}b",
            &"x".repeat(33),
            "8c9a4f0e-1111-4222-8333-444455556666",
        ] {
            assert!(check_name("username", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn foreign_names_are_made_to_fit() {
        assert_eq!(tidied("  Jean\tPierre\u{200b} ", 32).as_deref(), Some("Jean Pierre"));
        assert_eq!(tidied(&"long ".repeat(20), 6).as_deref(), Some("long l"));
        assert_eq!(tidied("\u{200b}\n", 32), None);
    }
}
