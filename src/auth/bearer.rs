//! How a token comes with an HTTP request.

use antiphon_core::gateway::ErrorCode;
use axum::http::{HeaderMap, header};

use crate::error::AppError;

/// The token of an `Authorization: Bearer` header; `None` without the header.
///
/// # Errors
///
/// `UNAUTHENTICATED` when the header holds something else.
pub fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, AppError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(AppError::new(ErrorCode::Unauthenticated, "the Authorization header must read `Bearer TOKEN`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_taken_and_nothing_else() {
        let token = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
            bearer_token(&headers).map(|token| token.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(token("Bearer abc"), Ok(Some("abc".into())));
        assert_eq!(token("bearer  abc "), Ok(Some("abc".into())));
        for wrong in ["Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(token(wrong), Err(()), "{wrong}");
        }
        assert!(bearer_token(&HeaderMap::new()).is_ok_and(|token| token.is_none()));
    }
}
