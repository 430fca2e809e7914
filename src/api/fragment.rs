//! SDP fragments (RFC 8840, 9): more ways to a client of WHIP or WHEP.

use axum::http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::error::{ApiError, ApiResult};
use crate::streaming::if_match;

const USERNAME_FRAGMENT: &str = "a=ice-ufrag:";

/// RFC 8839, 5.4.
const USERNAME_FRAGMENT_CHARS_MAX: usize = 256;

/// The name by which an offer's client makes its checks (RFC 8839, 5.4), as it is first said.
///
/// # Errors
/// For one that is too long: it is kept as long as the session.
pub(super) fn username_fragment(sdp: &str) -> ApiResult<Option<&str>> {
    let named = lines(sdp).find_map(|line| line.strip_prefix(USERNAME_FRAGMENT));
    if named.is_some_and(|named| named.len() > USERNAME_FRAGMENT_CHARS_MAX) {
        return Err(ApiError::invalid("a=ice-ufrag has more than 256 characters"));
    }
    Ok(named)
}

/// The candidates of a fragment, each as `candidate:…`.
///
/// # Errors
/// 422 for a fragment with another name than the session's: that would begin the connection anew (an ICE restart, RFC 9725, 4.3.3).
pub(super) fn candidates<'a>(fragment: &'a str, session: Option<&str>) -> ApiResult<Vec<&'a str>> {
    let mut names = lines(fragment).filter_map(|line| line.strip_prefix(USERNAME_FRAGMENT));
    if names.any(|name| Some(name) != session) {
        return Err(ApiError::invalid_as(
            StatusCode::UNPROCESSABLE_ENTITY,
            "a=ice-ufrag is not that of the offer: there are no ICE restarts here, POST an offer for another session",
        ));
    }
    let candidate = |line: &'a str| line.strip_prefix("a=").filter(|line| line.starts_with("candidate:"));
    Ok(lines(fragment).filter_map(candidate).collect())
}

fn lines(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.lines().map(str::trim_end)
}

/// A session's entity tag: it is the same for as long as there is one.
pub(super) fn entity_tag(session: Uuid) -> String {
    format!("\"{session}\"")
}

/// Whether a request is about the state that a session is in. One that names none is.
///
/// # Errors
/// 412 for one that names another.
pub(super) fn expect_state(headers: &HeaderMap, session: Uuid) -> ApiResult<()> {
    let expected = entity_tag(session);
    if if_match(headers, &expected) {
        return Ok(());
    }
    Err(ApiError::invalid_as(StatusCode::PRECONDITION_FAILED, format!("the session's entity tag is {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_taken_from_a_fragment_of_the_same_connection() {
        let fragment = "a=ice-ufrag:ours\r\na=ice-pwd:x\r\nm=audio 9 UDP 0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                        a=candidate:2 1 udp 1 192.0.2.2 9 typ host\na=end-of-candidates\r\n";
        let expected = ["candidate:1 1 udp 1 192.0.2.1 9 typ host", "candidate:2 1 udp 1 192.0.2.2 9 typ host"];
        assert_eq!(candidates(fragment, Some("ours")).expect("taken"), expected);
        assert_eq!(username_fragment(fragment).expect("short"), Some("ours"));
        assert!(username_fragment(&format!("{USERNAME_FRAGMENT}{}", "a".repeat(257))).is_err());
        assert!(candidates("", None).expect("taken").is_empty());
        assert!(candidates(fragment, Some("others")).is_err());
        assert!(candidates(fragment, None).is_err());
    }
}
