//! What may be written.

use antiphon_core::gateway::ErrorCode;

use crate::error::AppError;

/// The longest `nonce` in bytes.
const NONCE_BYTES_MAX: usize = 128;

/// The longest sign in bytes: an emoji of a family takes 25.
const EMOJI_BYTES_MAX: usize = 32;

/// The longest reason of a report, and note of who handles it, in characters.
const REMARK_CHARS_MAX: usize = 500;

/// People that one message can name.
pub(super) const MENTIONS_MAX: usize = 20;

fn invalid(message: String) -> AppError {
    AppError::new(ErrorCode::InvalidInput, message)
}

/// A message's text: something to be seen, not too long, without control characters other than line breaks and tabs. What
/// turns the direction of writing may stand in it, since Arabic and Hebrew need that.
pub(super) fn content(text: &str, chars_max: usize) -> Result<(), AppError> {
    let count = text.chars().count();
    if count > chars_max {
        return Err(invalid(format!("content must have at most {chars_max} characters, not {count}")));
    }
    let is_control = |c: &char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if let Some(wrong) = text.chars().find(is_control) {
        let code = u32::from(wrong);
        let message = format!("content must have no control characters but line breaks and tabs, not U+{code:04X}");
        return Err(invalid(message));
    }
    if text.trim().is_empty() {
        return Err(invalid("content must not be empty".to_owned()));
    }
    Ok(())
}

/// A sender's own name for a message.
pub(super) fn nonce(nonce: Option<&str>) -> Result<(), AppError> {
    match nonce {
        Some(text) if text.is_empty() || text.len() > NONCE_BYTES_MAX || text.contains('\0') => {
            Err(invalid(format!("nonce must have 1 to {NONCE_BYTES_MAX} bytes and no zero among them")))
        }
        _ => Ok(()),
    }
}

/// A sign at a message.
pub(super) fn emoji(text: &str) -> Result<(), AppError> {
    let is_wrong = |c: char| c.is_control() || c.is_whitespace();
    if text.is_empty() || text.len() > EMOJI_BYTES_MAX || text.contains(is_wrong) {
        return Err(invalid(format!("emoji must have 1 to {EMOJI_BYTES_MAX} bytes and no spaces")));
    }
    Ok(())
}

/// Why somebody reports a message, or what a moderator notes of that.
pub(super) fn remark(what: &str, text: &str) -> Result<(), AppError> {
    let count = text.chars().count();
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if count > REMARK_CHARS_MAX || text.contains(is_control) {
        let message = format!("{what} must have at most {REMARK_CHARS_MAX} characters and no control characters");
        return Err(invalid(message));
    }
    Ok(())
}

/// The names that a text mentions: what stands behind an `@` up to a space, without punctuation at its end.
pub(super) fn mentioned(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices('@') {
        let before = text[..at].chars().next_back();
        // As in an address of mail.
        if before.is_some_and(char::is_alphanumeric) {
            continue;
        }
        let rest = &text[at + 1..];
        let word = rest.split(char::is_whitespace).next().unwrap_or_default();
        let name = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        if !name.is_empty() && !names.contains(&name) && names.len() < MENTIONS_MAX {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_seen_and_short_and_free_of_control_characters() {
        for right in ["hi", "line\n\tline\r\n", "🦀", "مرحبا \u{2067}abc\u{2069}", "<script>alert(1)</script>", "'; --"]
        {
            assert!(content(right, 100).is_ok(), "{right}");
        }
        assert!(content(&"é".repeat(100), 100).is_ok(), "characters count, not bytes");
        for wrong in ["", " \n", "a\u{0}b", "a\u{1b}[31m", "\u{85}"] {
            assert_eq!(content(wrong, 100).expect_err("refused").code, ErrorCode::InvalidInput, "{wrong:?}");
        }
        assert!(content(&"x".repeat(101), 100).is_err());
    }

    #[test]
    fn names_are_mentioned_behind_an_at() {
        for (text, expected) in [
            ("@alice and @Bob!", &["alice", "Bob"][..]),
            ("(@alice), @alice", &["alice"]),
            ("mail alice@example.org", &[]),
            ("@ @! @é", &["é"]),
            ("@a.b: x", &["a.b"]),
        ] {
            assert_eq!(mentioned(text), expected, "{text}");
        }
    }

    #[test]
    fn signs_and_nonces_are_short() {
        assert!(emoji("👨‍👩‍👧‍👦").is_ok() && emoji("+1").is_ok());
        assert!(emoji("").is_err() && emoji("a b").is_err() && emoji(&"x".repeat(33)).is_err());
        assert!(nonce(None).is_ok() && nonce(Some("n")).is_ok());
        assert!(nonce(Some("")).is_err() && nonce(Some(&"n".repeat(129))).is_err());
    }
}
