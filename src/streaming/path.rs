//! Names of files as links and lists have them.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use antiphon_core::ids::RecordingId;

use super::media_type;
use crate::recorder;

/// The longest path, in bytes.
const BYTES_MAX: usize = 1_024;
/// The longest name in it: what Linux's file systems take.
const NAME_BYTES_MAX: usize = 255;
/// The most names in it.
pub(super) const DEPTH_MAX: usize = 16;

/// What need not be escaped in a URL's path (RFC 3986 3.3), the slash included.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of an audio file within the folder: names with slashes between them. None of them begins with a dot, so that
/// none leads out of the folder or to what is hidden; the ending is one of an audio file's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

impl FilePath {
    /// A path in clear, if it can be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.len() <= BYTES_MAX && text.split('/').count() <= DEPTH_MAX && text.split('/').all(is_name);
        (fits && media_type::of(text).is_some()).then(|| Self(text.to_owned()))
    }

    /// A path as it stands in a URL, decoded once.
    #[must_use]
    pub fn from_url(text: &str) -> Option<Self> {
        Self::new(&percent_decode_str(text).decode_utf8().ok()?)
    }

    /// As it stands in a URL.
    #[must_use]
    pub fn to_url(&self) -> String {
        utf8_percent_encode(&self.0, ESCAPED).to_string()
    }

    /// In clear.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The recording of a channel that it belongs to: those have folders of their own.
    #[must_use]
    pub fn recording(&self) -> Option<RecordingId> {
        let rest = self.0.strip_prefix(recorder::KEPT)?.strip_prefix('/')?;
        rest.split_once('/')?.0.parse().ok()
    }

    /// The names from the folder down.
    pub(super) fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// What the file holds, as HTTP names it.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        media_type::of(&self.0).unwrap_or("application/octet-stream")
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a name may be part of a path. Backslashes are for those who take them for slashes.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(|c: char| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_down_only() {
        for good in ["a.mp3", "album/01 Intro.ogg", "é/ü.FLAC", "a..b/c...mp3", "x/%2e%2e.wav"] {
            assert_eq!(FilePath::new(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "/",
            "/a.mp3",
            "a.mp3/",
            "a//b.mp3",
            "../a.mp3",
            "a/../b.mp3",
            "./a.mp3",
            "a/./b.mp3",
            ".hidden.mp3",
            "a/.git/b.mp3",
            "..\\a.mp3",
            "a\\b.mp3",
            "a\0.mp3",
            "a\n.mp3",
            "passwd",
            "a.mp3.exe",
            "a.html",
            "..",
        ] {
            assert_eq!(FilePath::new(bad), None, "{bad:?}");
        }
        assert!(FilePath::new(&format!("{}a.mp3", "a/".repeat(DEPTH_MAX))).is_none(), "too deep");
        assert!(FilePath::new(&format!("{}.mp3", "a".repeat(NAME_BYTES_MAX))).is_none(), "too long a name");
    }

    #[test]
    fn a_path_survives_its_url() {
        for text in ["a b/ü?&#%.mp3", "100%25.ogg", "a+b.wav", "%2e%2e.mp3"] {
            let path = FilePath::new(text).expect(text);
            assert_eq!(FilePath::from_url(&path.to_url()), Some(path));
        }
        assert_eq!(FilePath::from_url("%ff.mp3"), None, "no UTF-8");
        assert_eq!(FilePath::from_url("%2e%2e/a.mp3"), None);
    }
}
