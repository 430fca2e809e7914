//! One content of one file: what is made of it is found under its name.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use crate::streaming::{FilePath, OpenFile};

/// To be raised when what is made changes: everything is then made anew.
const FORM: u32 = 1;

/// A name for one content of one path: a changed file has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version(String);

impl Version {
    /// By the path, and the length and time of change that its entity tag holds.
    pub(super) fn of(path: &FilePath, source: &OpenFile) -> Self {
        Self::named(path, &source.etag)
    }

    pub(super) fn named(path: &FilePath, etag: &str) -> Self {
        let sum = digest(&SHA256, format!("{FORM}\n{path}\n{etag}").as_bytes());
        let hex = sum.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        Self(hex.collect())
    }

    /// One that was written down.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Self(text.to_owned()))
    }

    /// Where its products are, below the shelf's folder: spread over sub-folders, which some file systems like small.
    pub(super) fn folder(&self) -> String {
        format!("{}/{}", &self.0[..2], self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_path_or_content_is_another_version() {
        let (one, other) = (FilePath::new("a.mp3").expect("a path"), FilePath::new("b.mp3").expect("a path"));
        let version = Version::named(&one, "\"1\"");
        assert_eq!(version, Version::named(&one, "\"1\""));
        assert_ne!(version, Version::named(&one, "\"2\""));
        assert_ne!(version, Version::named(&other, "\"1\""));
        assert_eq!(version.folder().len(), 2 + 1 + 32);
    }
}
