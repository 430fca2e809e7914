//! Errors as HTTP shows them, in this one place: `{"success": false, "error", "error_code", "timestamp"}`.

use std::time::{SystemTime, UNIX_EPOCH};

use antiphon_core::gateway::ErrorCode;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppError;

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Always false.
    #[schema(example = false)]
    success: bool,
    /// For people: what is wrong and what would be right.
    #[schema(example = "there is no channel with this id")]
    error: String,
    /// For programs.
    error_code: ErrorCode,
    /// Unix seconds.
    #[schema(example = 1_700_000_000)]
    timestamp: u64,
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        respond(status_of(&self), self)
    }
}

/// The status of an error's code.
pub(crate) fn status_of(error: &AppError) -> StatusCode {
    StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The answer for an error, with a status that a few share with others of their code.
pub(crate) fn respond(status: StatusCode, error: AppError) -> Response {
    let body = ErrorBody {
        success: false,
        error: error.message,
        error_code: error.code,
        timestamp: unix_seconds(SystemTime::now()),
    };
    let mut response = (status, Json(body)).into_response();
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if error.code == ErrorCode::Unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // For the request's log line and the count of errors.
    response.extensions_mut().insert(error.code);
    response
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = to_bytes(response.into_body(), 4_096).await.expect("reads");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[tokio::test]
    async fn every_code_has_its_status_and_the_one_shape() {
        for code in ErrorCode::ALL {
            let response = AppError::new(code, "why").into_response();
            assert_eq!(response.status().as_u16(), code.status());
            assert_eq!(response.extensions().get(), Some(&code));
            let body = body(response).await;
            assert_eq!(body["success"], false);
            assert_eq!(body["error"], "why");
            assert_eq!(body["error_code"], code.as_str());
            assert!(body["timestamp"].as_u64().expect("a number") > 1_700_000_000);
            assert_eq!(body.as_object().expect("a map").len(), 4);
        }
    }

    #[tokio::test]
    async fn what_passes_says_when() {
        let response = AppError::retry(ErrorCode::RateLimited, "slower", 7).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        let response = AppError::retry(ErrorCode::TemporarilyUnavailable, "soon", 0).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
