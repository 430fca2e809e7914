//! Conditional requests (RFC 9110 13): whether what the client has, or builds upon, is still what there is.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, header};

/// What a request's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer; `ranges`: its `Range` may be honoured.
    Go {
        /// Not where `If-Range` names another file.
        ranges: bool,
    },
    /// 304: the client has it.
    NotModified,
    /// 412: it is no longer what the client means.
    Failed,
}

/// Judges a `GET` or `HEAD` of a file with the strong `etag`, in the order of RFC 9110 13.2.2.
#[must_use]
pub fn judge(headers: &HeaderMap, etag: &str, modified: SystemTime) -> Verdict {
    if !if_match(headers, etag) {
        return Verdict::Failed;
    }
    if !headers.contains_key(header::IF_MATCH)
        && date(headers, header::IF_UNMODIFIED_SINCE).is_some_and(|since| seconds(modified) > seconds(since))
    {
        return Verdict::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if names(headers, header::IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag) {
            return Verdict::NotModified;
        }
    } else if date(headers, header::IF_MODIFIED_SINCE).is_some_and(|since| seconds(modified) <= seconds(since)) {
        return Verdict::NotModified;
    }
    Verdict::Go { ranges: if_range(headers, etag, modified) }
}

/// Whether `If-Match`, where there is one, names the strong `etag`.
#[must_use]
pub fn if_match(headers: &HeaderMap, etag: &str) -> bool {
    !headers.contains_key(header::IF_MATCH) || names(headers, header::IF_MATCH, |tag| tag == etag)
}

/// Whether `If-Range` names what there is. A date must be the very one, and is only strong once the second is over in
/// which the file was changed (RFC 9110 8.8.2.2).
fn if_range(headers: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    if text.starts_with(['"', 'W']) && text.contains('"') {
        return text == etag;
    }
    let age = SystemTime::now().duration_since(modified).map_or(0, |age| age.as_secs());
    httpdate::parse_http_date(text).is_ok_and(|date| seconds(date) == seconds(modified)) && age >= 1
}

/// Whether one of a header's entity tags is as `is_it` says, or it is `*`.
fn names(headers: &HeaderMap, name: HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    // Our own tags hold no comma, so that a foreign one that does is cut into what is not ours.
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || is_it(tag))
}

/// A date that is none is ignored.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// HTTP's dates have whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ETAG: &str = "\"10-abc\"";
    const GO: Verdict = Verdict::Go { ranges: true };

    /// `name: value` lines against a file changed at Sun, 06 Nov 1994 08:49:37 GMT.
    fn judged(lines: &[(&str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
        }
        judge(&headers, ETAG, UNIX_EPOCH + Duration::from_millis(784_111_777_500))
    }

    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        for same in [ETAG, "*", "W/\"10-abc\"", "\"x\", \"10-abc\""] {
            assert_eq!(judged(&[("if-none-match", same)]), Verdict::NotModified, "{same}");
        }
        assert_eq!(judged(&[("if-none-match", "\"x\"")]), GO);
        assert_eq!(judged(&[("if-modified-since", SAME)]), Verdict::NotModified);
        assert_eq!(judged(&[("if-modified-since", EARLIER)]), GO);
        assert_eq!(judged(&[("if-modified-since", "yesterday")]), GO);
        assert_eq!(judged(&[("if-none-match", "\"x\""), ("if-modified-since", SAME)]), GO, "the tag has the say");
    }

    #[test]
    fn what_the_client_builds_upon_must_be_there() {
        assert_eq!(judged(&[("if-match", ETAG)]), GO);
        assert_eq!(judged(&[("if-match", "*")]), GO);
        for other in ["\"x\"", "W/\"10-abc\""] {
            assert_eq!(judged(&[("if-match", other)]), Verdict::Failed, "{other}");
        }
        assert_eq!(judged(&[("if-unmodified-since", SAME)]), GO);
        assert_eq!(judged(&[("if-unmodified-since", EARLIER)]), Verdict::Failed);
        assert_eq!(judged(&[("if-match", ETAG), ("if-unmodified-since", EARLIER)]), GO);
        assert_eq!(judged(&[("if-match", "\"x\""), ("if-none-match", ETAG)]), Verdict::Failed);
    }

    #[test]
    fn a_range_of_another_file_is_not_sent() {
        for same in [ETAG, SAME] {
            assert_eq!(judged(&[("if-range", same)]), GO, "{same}");
        }
        for other in ["\"x\"", "W/\"10-abc\"", EARLIER, "nonsense", "*"] {
            assert_eq!(judged(&[("if-range", other)]), Verdict::Go { ranges: false }, "{other}");
        }
    }
}
