//! The shapes of successful answers: `{"success": true, "data": …}`, and shapes of their own where clients knew those before.

use antiphon_core::gateway::UserView;
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Tokens;

/// `{"success": true, "data": …}`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer<T> {
    /// Always true.
    #[schema(example = true)]
    success: bool,
    /// What was asked for.
    data: T,
}

impl<T: Serialize> Answer<T> {
    /// With `data`.
    pub(super) fn of(data: T) -> Self {
        Self { success: true, data }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// The same with status 201.
pub(super) struct Created<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(Answer::of(self.0))).into_response()
    }
}

/// An account and what proves it.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountAnswer {
    /// Always true.
    #[schema(example = true)]
    success: bool,
    /// The account.
    user: UserView,
    /// For `Authorization: Bearer`.
    access_token: String,
    /// For `/api/auth/refresh`, once.
    refresh_token: String,
    /// How long the access token lasts, in seconds.
    #[schema(example = 900)]
    expires_in: u64,
}

impl From<Tokens> for AccountAnswer {
    fn from(tokens: Tokens) -> Self {
        let Tokens { user, access_token, refresh_token, expires_in } = tokens;
        Self { success: true, user, access_token, refresh_token, expires_in }
    }
}
