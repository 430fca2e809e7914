//! Signing up, logging in and out, and accounts themselves.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, Role, UserView},
    ids::UserId,
};
use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    advanced::audit,
    answer::{AccountAnswer, Answer},
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf},
};
use crate::{
    auth::Register,
    client_address::ClientAddress,
    store::{DISPLAY_NAME_CHARS_MAX, check_printable},
};
use serde_json::json;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(create_user))
        .routes(routes!(own_user, change_own_user))
        .routes(routes!(user, change_user))
}

/// A new account with a password.
#[derive(Deserialize, ToSchema)]
struct RegisterBody {
    /// 1 to 32 printable characters, unique without regard to case.
    #[schema(example = "john_doe")]
    username: String,
    /// At least 8 characters, at most 1,024 bytes.
    #[schema(example = "correct horse battery staple")]
    password: String,
    /// The name to show; the username when absent.
    #[schema(example = "John Doe")]
    display_name: Option<String>,
}

/// Signs up with a password.
#[utoipa::path(post, path = "/api/auth/register", tag = "accounts", security(()), request_body = RegisterBody,
    responses((status = CREATED, description = "The account and its tokens", body = AccountAnswer),
        (status = CONFLICT, description = "The name is taken", body = ErrorBody)))]
async fn register(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Body(body): Body<RegisterBody>,
) -> ApiResult<impl IntoResponse> {
    api.limits.check_login(client)?;
    let RegisterBody { username, password, display_name } = body;
    let tokens = api.auth.register(Register { username, password, display_name }).await?;
    Ok((StatusCode::CREATED, Json(AccountAnswer::from(tokens))))
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
struct LoginBody {
    /// Without regard to case.
    #[schema(example = "john_doe")]
    username: String,
    /// The account's password.
    #[schema(example = "correct horse battery staple")]
    password: String,
}

/// Logs in.
#[utoipa::path(post, path = "/api/auth/login", tag = "accounts", security(()), request_body = LoginBody,
    responses((status = OK, description = "The account and new tokens", body = AccountAnswer)))]
async fn login(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Body(body): Body<LoginBody>,
) -> ApiResult<Json<AccountAnswer>> {
    api.limits.check_login(client)?;
    let tokens = api.auth.login(client.0, &body.username, &body.password).await?;
    Ok(Json(tokens.into()))
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
struct RefreshBody {
    /// From the last answer that had one.
    refresh_token: String,
}

/// Exchanges a refresh token, once, for new tokens. Using one twice ends the login that it belongs to.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "accounts", security(()), request_body = RefreshBody,
    responses((status = OK, description = "The account and new tokens", body = AccountAnswer)))]
async fn refresh(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Body(body): Body<RefreshBody>,
) -> ApiResult<Json<AccountAnswer>> {
    api.limits.check_login(client)?;
    Ok(Json(api.auth.refresh(&body.refresh_token).await?.into()))
}

/// That a login is over.
#[derive(Debug, Serialize, ToSchema)]
struct LoggedOut {
    /// Always true.
    #[schema(example = true)]
    logged_out: bool,
}

/// Ends the login that a refresh token belongs to. Its access tokens run out by themselves.
#[utoipa::path(post, path = "/api/auth/logout", tag = "accounts", security(()), request_body = RefreshBody,
    responses((status = OK, description = "The login is over", body = Answer<LoggedOut>)))]
async fn logout(State(api): State<Arc<Api>>, Body(body): Body<RefreshBody>) -> ApiResult<Answer<LoggedOut>> {
    api.auth.logout(&body.refresh_token).await?;
    Ok(Answer::of(LoggedOut { logged_out: true }))
}

/// A new account, with a password or, where guests are allowed, without.
#[derive(Deserialize, ToSchema)]
struct CreateUserBody {
    /// 1 to 32 printable characters, unique without regard to case.
    #[schema(example = "john_doe")]
    username: String,
    /// The name to show; the username when absent.
    #[schema(example = "John Doe")]
    display_name: Option<String>,
    /// At least 8 characters, at most 1,024 bytes. Without one nobody can log in again once the refresh token is lost.
    password: Option<String>,
}

/// Makes an account.
#[utoipa::path(post, path = "/api/users", tag = "accounts", security(()), request_body = CreateUserBody,
    responses((status = CREATED, description = "The account and its tokens", body = AccountAnswer),
        (status = CONFLICT, description = "The name is taken", body = ErrorBody)))]
async fn create_user(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Body(body): Body<CreateUserBody>,
) -> ApiResult<impl IntoResponse> {
    let CreateUserBody { username, display_name, password } = body;
    let tokens = match password {
        Some(password) => {
            api.limits.check_login(client)?;
            api.auth.register(Register { username, password, display_name }).await?
        }
        None => api.auth.guest(client.0, &username, display_name.as_deref()).await?,
    };
    Ok((StatusCode::CREATED, Json(AccountAnswer::from(tokens))))
}

/// One's own account.
#[utoipa::path(get, path = "/api/users/me", tag = "accounts",
    responses((status = OK, description = "The account", body = Answer<UserView>)))]
async fn own_user(Caller(user): Caller) -> Answer<UserView> {
    Answer::of(user)
}

/// What to change of an account; what is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
pub(super) struct UserChange {
    /// 1 to 64 printable characters. Only by oneself or an administrator.
    #[serde(default)]
    #[schema(example = "John D.")]
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    /// Off, the account cannot come in by password, token or resume, and its sessions end at once (4014). Only by an
    /// administrator, and not of themselves.
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    is_active: Option<bool>,
}

/// Changes one's own account.
#[utoipa::path(put, path = "/api/users/me", tag = "accounts", request_body = UserChange,
    responses((status = OK, description = "The account as it is now", body = Answer<UserView>)))]
async fn change_own_user(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    Body(change): Body<UserChange>,
) -> ApiResult<Answer<UserView>> {
    change_account(&api, &caller, caller.id, &change).await
}

/// An account.
#[utoipa::path(get, path = "/api/users/{id}", tag = "accounts", params(("id" = UserId, Path, description = "The account's id")),
    responses((status = OK, description = "The account", body = Answer<UserView>)))]
async fn user(State(api): State<Arc<Api>>, _: Caller, PathOf(id): PathOf<UserId>) -> ApiResult<Answer<UserView>> {
    let user = api.store.user(id).await?.ok_or_else(no_such_user)?;
    Ok(Answer::of(user.view()))
}

/// Changes an account: one's own name, or, for an administrator, another's name and whether they may come in.
#[utoipa::path(put, path = "/api/users/{id}", tag = "accounts", params(("id" = UserId, Path, description = "The account's id")),
    request_body = UserChange,
    responses((status = OK, description = "The account as it is now", body = Answer<UserView>)))]
async fn change_user(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<UserId>,
    Body(change): Body<UserChange>,
) -> ApiResult<Answer<UserView>> {
    change_account(&api, &caller, id, &change).await
}

/// Changes an account: one's own, or, as an administrator, any, which is written down.
pub(super) async fn change_account(
    api: &Api,
    caller: &UserView,
    id: UserId,
    change: &UserChange,
) -> ApiResult<Answer<UserView>> {
    check_change(caller, id, change)?;
    if id != caller.id {
        // The token may be older than the role: what the database says holds.
        api.require_admin(caller).await?;
        api.store.user(id).await?.ok_or_else(no_such_user)?;
        audit(api, caller, "user.update", Some(id.to_string()), json!(change)).await?;
    }
    if let Some(display_name) = &change.display_name {
        api.store.set_display_name(id, display_name).await?.ok_or_else(no_such_user)?;
    }
    if let Some(is_active) = change.is_active {
        if !api.store.set_active(id, is_active).await? {
            return Err(no_such_user());
        }
        if !is_active {
            api.gateway.disconnect_user(id).await;
        }
    }
    let user = api.store.user(id).await?.ok_or_else(no_such_user)?;
    Ok(Answer::of(user.view()))
}

fn check_change(caller: &UserView, id: UserId, change: &UserChange) -> ApiResult<()> {
    let denied = |why: &str| Err(ApiError::new(ErrorCode::PermissionDenied, why));
    let own = id == caller.id;
    if change.is_active.is_some() && (caller.role != Role::Admin || own) {
        return denied("only an administrator can switch an account on or off, and only another's");
    }
    match &change.display_name {
        Some(_) if !own && caller.role != Role::Admin => {
            denied("an account's name can only be changed by its owner or an administrator")
        }
        Some(name) => check_printable("display_name", name, DISPLAY_NAME_CHARS_MAX).map_err(ApiError::invalid),
        None if change.is_active.is_none() && (own || caller.role == Role::Admin) => {
            Err(ApiError::invalid("nothing to change: give a display_name"))
        }
        None if change.is_active.is_none() => denied("an account can only be changed by its owner"),
        None => Ok(()),
    }
}

pub(super) fn no_such_user() -> ApiError {
    ApiError::new(ErrorCode::UserNotFound, "there is no user with this id")
}
