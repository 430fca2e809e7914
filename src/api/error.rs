//! What can go wrong before a handler or in it, as the error that the client gets.

use antiphon_core::gateway::{ErrorCode, without_type_names};
use axum::{
    extract::{
        path::ErrorKind,
        rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection, StringRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::pieces::TooManyPieces;
pub use crate::error::ErrorBody;
use crate::{
    error::{AppError, respond, status_of},
    store::StoreError,
};

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
    pub(super) fn invalid_as(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: AppError::new(ErrorCode::InvalidInput, message) }
    }

    /// Of a body with more bytes than are read.
    pub(super) fn too_large() -> Self {
        Self::invalid_as(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this path accepts")
    }

    /// Of a body that does not come in time: 408, as it is the client that was waited for.
    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, error: AppError::new(ErrorCode::Timeout, message) }
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        Self { status: status_of(&error), error }
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
            return Self::too_large();
        }
        if let Some(error) = TooManyPieces::cause_of(&rejection) {
            return Self::invalid(error.to_string());
        }
        Self::invalid("the body broke off before its end")
    }
}

impl From<StringRejection> for ApiError {
    fn from(rejection: StringRejection) -> Self {
        match rejection {
            StringRejection::FailedToBufferBody(failed) => BytesRejection::from(failed).into(),
            _ => Self::invalid("the body is no UTF-8"),
        }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
            return Self::invalid("the path does not fit");
        };
        Self::invalid(match failed.into_kind() {
            ErrorKind::DeserializeError { key, value, message } if message.contains("UUID") => {
                format!("`{key}` in the path is a UUID, which `{value}` is not")
            }
            ErrorKind::DeserializeError { key, value, message } => {
                format!("`{key}` in the path cannot be `{value}`: {message}")
            }
            ErrorKind::ParseErrorAtKey { value, .. }
            | ErrorKind::ParseErrorAtIndex { value, .. }
            | ErrorKind::ParseError { value, .. } => format!("`{value}` in the path is no such number"),
            other => format!("the path does not fit: {other}"),
        })
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(format!("the query does not fit: {}", rejection.body_text()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        respond(self.status, self.error)
    }
}

/// What serde says is wrong, without what axum says around it and what our types are called.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    without_type_names(&innermost.to_string())
}
