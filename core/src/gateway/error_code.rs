//! The error codes of HTTP and the gateway, once.

use serde::{Deserialize, Serialize};

/// What went wrong, as a client reads it. The same table serves HTTP bodies and gateway errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "each name is its own description; the statuses are in `status`")]
pub enum ErrorCode {
    UserNotFound,
    ChannelNotFound,
    NotFound,
    InvalidInput,
    MethodNotAllowed,
    Unauthenticated,
    PermissionDenied,
    BadSignature,
    LinkExpired,
    Conflict,
    ChannelFull,
    LimitReached,
    RangeNotSatisfiable,
    RateLimited,
    Timeout,
    TemporarilyUnavailable,
    InternalError,
    /// Only on the gateway: a well-formed message of an unknown type.
    UnknownMessage,
}

impl ErrorCode {
    /// Every code, for metrics and documents.
    pub const ALL: [Self; 18] = [
        Self::UserNotFound,
        Self::ChannelNotFound,
        Self::NotFound,
        Self::InvalidInput,
        Self::MethodNotAllowed,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::BadSignature,
        Self::LinkExpired,
        Self::Conflict,
        Self::ChannelFull,
        Self::LimitReached,
        Self::RangeNotSatisfiable,
        Self::RateLimited,
        Self::Timeout,
        Self::TemporarilyUnavailable,
        Self::InternalError,
        Self::UnknownMessage,
    ];

    /// The code's text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserNotFound => "USER_NOT_FOUND",
            Self::ChannelNotFound => "CHANNEL_NOT_FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::InvalidInput => "INVALID_INPUT",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::LinkExpired => "LINK_EXPIRED",
            Self::Conflict => "CONFLICT",
            Self::ChannelFull => "CHANNEL_FULL",
            Self::LimitReached => "LIMIT_REACHED",
            Self::RangeNotSatisfiable => "RANGE_NOT_SATISFIABLE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Timeout => "TIMEOUT",
            Self::TemporarilyUnavailable => "TEMPORARILY_UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
            Self::UnknownMessage => "UNKNOWN_MESSAGE",
        }
    }

    /// The HTTP status that goes with the code (docs/protocol.md, section 4).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::UserNotFound | Self::ChannelNotFound | Self::NotFound => 404,
            Self::InvalidInput | Self::UnknownMessage => 400,
            Self::MethodNotAllowed => 405,
            Self::Unauthenticated => 401,
            Self::PermissionDenied | Self::BadSignature => 403,
            Self::LinkExpired => 410,
            Self::Conflict | Self::ChannelFull | Self::LimitReached => 409,
            Self::RangeNotSatisfiable => 416,
            Self::RateLimited => 429,
            Self::Timeout => 504,
            Self::TemporarilyUnavailable => 503,
            Self::InternalError => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_serde_writes() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&code).expect("serialises"), format!("\"{}\"", code.as_str()));
        }
    }
}
