//! The words of a text, as the search of either database finds them.
//!
//! Both databases get words that are normalised here, and do nothing more to them, so that both give the same answers:
//! without case, accents and width (Unicode's NFKD without marks), cut wherever a character is neither a letter nor a
//! number. Han, Kana and Hangul have no spaces between words, so each of their characters is a word.

use std::collections::HashSet;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The longest word in characters; the rest of a longer one is not looked at.
const WORD_CHARS_MAX: usize = 64;

/// Each word of `text` once, in order.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut found = Words::default();
    // Upper case first, so that what only differs in lower case (ς and σ, ß and ss) becomes the same.
    let plain =
        text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    for c in plain.nfkc() {
        match c.general_category_group() {
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number if stands_alone(c) => {
                found.end();
                found.add(c);
                found.end();
            }
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => found.add(c),
            _ => found.end(),
        }
    }
    found.end();
    found.words
}

#[derive(Default)]
struct Words {
    words: Vec<String>,
    seen: HashSet<String>,
    word: String,
    chars: usize,
}

impl Words {
    fn add(&mut self, c: char) {
        if self.chars < WORD_CHARS_MAX {
            self.word.push(c);
            self.chars += 1;
        }
    }

    fn end(&mut self) {
        self.chars = 0;
        let word = std::mem::take(&mut self.word);
        if !word.is_empty() && self.seen.insert(word.clone()) {
            self.words.push(word);
        }
    }
}

/// Hiragana, Katakana, Han with its extensions and compatibility forms, Hangul syllables (Unicode's blocks).
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_and_normalised() {
        for (text, expected) in [
            ("Hello, world! hello", &["hello", "world"][..]),
            ("Zoé's CAFÉ", &["zoe", "s", "cafe"]),
            ("ＦＵＬＬ width", &["full", "width"]),
            ("Straße STRASSE", &["strasse"]),
            ("ΟΔΟΣ οδος", &["οδοσ"]),
            ("日本語", &["日", "本", "語"]),
            ("a_b-c 12.5", &["a", "b", "c", "12", "5"]),
            ("مرحبا بالعالم", &["مرحبا", "بالعالم"]),
            ("'; DROP TABLE messages; -- \"x\"", &["drop", "table", "messages", "x"]),
            ("🦀 \u{200f}", &[]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert_eq!(words(&"x".repeat(100))[0].len(), WORD_CHARS_MAX);
    }
}
