//! Errors as HTTP shows them, in this one place: `{"success": false, "error", "error_code", "timestamp"}`.

use std::time::{SystemTime, UNIX_EPOCH};

use antiphon_core::gateway::ErrorCode;
use axum::{
    Json,
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{error::AppError, store::StoreError};

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

/// An error on its way to a client. Its status is its code's, but for the few that share a code.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: AppError,
}

/// What a handler returns.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with the status of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        AppError::new(code, message).into()
    }

    /// 400: what the client sent cannot be right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidInput, message)
    }

    /// An `INVALID_INPUT` with a status of its own.
    fn invalid_as(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: AppError::new(ErrorCode::InvalidInput, message) }
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        AppError::from(error).into()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::MissingJsonContentType(_) => Self::invalid_as(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON, and say so: `Content-Type: application/json`",
            ),
            JsonRejection::JsonSyntaxError(error) => Self::invalid(format!("the body is no JSON: {}", cause(&error))),
            JsonRejection::JsonDataError(error) => Self::invalid(format!("the body does not fit: {}", cause(&error))),
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            other => Self::invalid(format!("the body cannot be read: {}", other.body_text())),
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::invalid_as(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this path accepts");
        }
        Self::invalid("the body broke off before its end")
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(format!("the path does not fit: {}", rejection.body_text()))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(format!("the query does not fit: {}", rejection.body_text()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
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
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

/// What serde says is wrong, without what axum says around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
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
            let response = ApiError::new(code, "why").into_response();
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
