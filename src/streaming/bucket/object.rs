//! What tells one object from another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, LAST_MODIFIED};

use crate::streaming::files::etag_of;

/// An object as the bucket describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// In bytes.
    pub(super) length: u64,
    /// When it was changed, in whole seconds: HTTP knows no others.
    pub(super) modified: SystemTime,
    /// The bucket's entity tag.
    pub(super) etag: String,
}

impl Object {
    /// By the headers of an answer to HEAD.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok();
        Some(Self {
            length: text(CONTENT_LENGTH)?.parse().ok()?,
            modified: httpdate::parse_http_date(text(LAST_MODIFIED)?).ok()?,
            etag: text(ETAG)?.to_owned(),
        })
    }

    /// The time of change that its copy on the disk is given: the object's, with nanoseconds that stand for its entity tag.
    /// So the disk itself says which object a copy is of, over restarts too, and all nodes give one object one tag.
    pub(super) fn stamp(&self) -> SystemTime {
        let sum = digest(&SHA256, self.etag.as_bytes());
        let number = sum.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let seconds = self.modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(number % 1_000_000_000)
    }

    /// The entity tag that its copy has, whether there is one or not.
    pub(super) fn etag_of_copy(&self) -> String {
        let stamp = self.stamp().duration_since(UNIX_EPOCH).unwrap_or_default();
        etag_of(self.length, (i64::try_from(stamp.as_secs()).unwrap_or(i64::MAX), stamp.subsec_nanos().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_different_objects_have_different_times() {
        let object = |etag: &str| Object {
            length: 7,
            modified: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            etag: etag.to_owned(),
        };
        let (one, other) = (object("\"1\"").stamp(), object("\"2\"").stamp());
        assert_eq!(one, object("\"1\"").stamp());
        assert_ne!(one, other);
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("later").as_secs();
        assert_eq!((seconds(one), seconds(other)), (1_700_000_000, 1_700_000_000));
    }

    #[test]
    fn an_answer_without_what_tells_objects_apart_is_none() {
        let mut headers = HeaderMap::new();
        for (name, value) in [(CONTENT_LENGTH, "7"), (LAST_MODIFIED, "Tue, 14 Nov 2023 22:13:20 GMT"), (ETAG, "\"1\"")]
        {
            assert_eq!(Object::of(&headers), None);
            headers.insert(name, value.parse().expect("a value"));
        }
        let object = Object::of(&headers).expect("whole");
        assert_eq!((object.length, object.etag.as_str()), (7, "\"1\""));
    }
}
