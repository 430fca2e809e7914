//! SDP fragments (RFC 8840, 9): more ways to a client of WHIP or WHEP.

use axum::http::{HeaderMap, StatusCode, header};
use uuid::Uuid;

use super::error::{ApiError, ApiResult};

const USERNAME_FRAGMENT: &str = "a=ice-ufrag:";

/// The name by which an offer's or a fragment's client makes its checks (RFC 8839, 5.4), as it is first said.
pub(super) fn username_fragment(sdp: &str) -> Option<&str> {
    lines(sdp).find_map(|line| line.strip_prefix(USERNAME_FRAGMENT))
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
    let mut named = headers.get_all(header::IF_MATCH).iter().peekable();
    let is_it = |named: &str| named.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == expected);
    if named.peek().is_none() || named.any(|named| named.to_str().is_ok_and(is_it)) {
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
        assert_eq!(candidates(fragment, username_fragment(fragment)).expect("taken"), expected);
        assert!(candidates("", None).expect("taken").is_empty());
        assert!(candidates(fragment, Some("others")).is_err());
        assert!(candidates(fragment, None).is_err());
    }

    #[test]
    fn a_request_is_about_the_state_that_it_names() {
        let session = Uuid::from_u128(7);
        let asked = |named: &[&str]| {
            let mut headers = HeaderMap::new();
            named.iter().for_each(|named| _ = headers.append(header::IF_MATCH, named.parse().expect("a value")));
            expect_state(&headers, session).is_ok()
        };
        let tag = entity_tag(session);
        assert!(asked(&[]) && asked(&["*"]) && asked(&[&tag]) && asked(&["\"x\"", &format!("\"y\", {tag}")]));
        assert!(!asked(&["\"x\""]) && !asked(&[&session.to_string()]));
    }
}
