//! What handlers take from a request. Each refuses with an error of the API's own shape.

use std::{sync::Arc, time::Duration};

use antiphon_core::gateway::{ErrorCode, Role, UserView};
use axum::{
    body::HttpBody as _,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    Api,
    error::{ApiError, ApiResult},
    pieces::in_pieces,
};
use crate::{auth::bearer_token, client_address::ClientAddress};

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<Api>) -> Result<Self, ApiError> {
        let request = small(request, state)?;
        let axum::Json(value) = in_time(state, axum::Json::<T>::from_request(request, state)).await?;
        Ok(Self(value))
    }
}

/// A JSON body of which every field may be left out, and so may the body.
pub(super) struct MaybeBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<Api>> for MaybeBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<Api>) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        Body::from_request(request, state).await.map(|Body(value)| Self(value))
    }
}

/// A body of text.
pub(super) struct Text(pub(super) String);

impl FromRequest<Arc<Api>> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<Api>) -> Result<Self, ApiError> {
        let request = small(request, state)?;
        Ok(Self(in_time(state, String::from_request(request, state)).await?))
    }
}

/// A request whose body comes in few pieces. One that is announced to be longer than `http.body_bytes_max` is refused without waiting for
/// any of it; how much of others is read is the router's to limit.
fn small(request: Request, api: &Api) -> ApiResult<Request> {
    let bytes_max = api.settings.http.body_bytes_max;
    if request.body().size_hint().lower() > bytes_max.into() {
        return Err(ApiError::too_large());
    }
    Ok(request.map(|body| in_pieces(body, bytes_max)))
}

/// A small body is there within two thirds of the time that its request has: the rest is for what is asked.
async fn in_time<T, E: Into<ApiError>>(api: &Api, read: impl Future<Output = Result<T, E>>) -> ApiResult<T> {
    let limit = Duration::from_secs(api.settings.http.request_timeout_s.into()) * 2 / 3;
    let read = tokio::time::timeout(limit, read).await.map_err(|_| {
        let message = format!("the body was not there within {:.1} s: nothing was done", limit.as_secs_f32());
        ApiError::too_slow(message)
    })?;
    read.map_err(Into::into)
}

/// The parts of a path that are no fixed text.
pub(super) struct PathOf<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(value) = Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// What stands behind the `?`.
pub(super) struct QueryOf<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Api>) -> Result<Self, ApiError> {
        let Query(value) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// Who asks, proved by the bearer token.
pub(super) struct Caller(pub(super) UserView);

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let token = bearer_token(&parts.headers)?.ok_or_else(|| {
            ApiError::new(ErrorCode::Unauthenticated, "send an access token: `Authorization: Bearer TOKEN`")
        })?;
        let identity = api.auth.authenticate(token).await?;
        api.limits.check_account(identity.user.id)?;
        tracing::Span::current().record("user_id", tracing::field::display(identity.user.id));
        Ok(Self(identity.user))
    }
}

/// Who asks, where that must be an administrator.
pub(super) struct Admin(pub(super) UserView);

impl FromRequestParts<Arc<Api>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Caller(user) = Caller::from_request_parts(parts, api).await?;
        api.require_admin(&user).await?;
        Ok(Self(user))
    }
}

impl Api {
    /// Refuses whoever is no administrator. The token may be older than the role: what the database says holds.
    pub(super) async fn require_admin(&self, user: &UserView) -> ApiResult<()> {
        if user.role == Role::Admin && self.store.is_admin(user.id).await? {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::PermissionDenied, "only administrators of the server may do that"))
    }
}

/// Who asks, where one need not say. A token that is sent must still be good.
pub(super) struct MaybeCaller(pub(super) Option<UserView>);

impl FromRequestParts<Arc<Api>> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Self(None));
        }
        Caller::from_request_parts(parts, api).await.map(|Caller(user)| Self(Some(user)))
    }
}

impl FromRequestParts<Arc<Api>> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        let known = parts.extensions.get::<Self>().copied();
        known.ok_or_else(|| ApiError::new(ErrorCode::InternalError, "the request came from no address"))
    }
}
