//! Accounts: listed in pages, changed, deleted, and what they did in voice.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, Role, UserView},
    ids::UserId,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Api,
        accounts::{UserChange, change_account, no_such_user},
        answer::Answer,
        error::{ApiError, ApiResult, ErrorBody},
        extract::{Body, Caller, PathOf, QueryOf},
        paging::{PageQuery, Paged},
    },
    audit,
};
use crate::store::{UserDeletion, UserOrder, UserQuery, rfc3339};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(change, delete)).routes(routes!(statistics))
}

/// Which accounts, and in which order.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UsersQuery {
    /// `created_at`, the default, `username`, `display_name` or `role`.
    #[param(example = "username")]
    sort_by: Option<String>,
    /// `asc`, the default, or `desc`.
    #[param(example = "asc")]
    order: Option<String>,
    /// A part of the username, without regard to case.
    username: Option<String>,
    /// `user` or `admin`.
    role: Option<String>,
    /// False: those that are switched off.
    is_active: Option<bool>,
    /// True: those who came with a name only.
    is_guest: Option<bool>,
}

impl UsersQuery {
    fn checked(self) -> ApiResult<UserQuery> {
        let order = match self.sort_by.as_deref() {
            None | Some("created_at") => UserOrder::CreatedAt,
            Some("username") => UserOrder::Username,
            Some("display_name") => UserOrder::DisplayName,
            Some("role") => UserOrder::Role,
            Some(other) => {
                let message = format!("sort_by must be created_at, username, display_name or role, not {other:?}");
                return Err(ApiError::invalid(message));
            }
        };
        let is_descending = match self.order.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(ApiError::invalid(format!("order must be asc or desc, not {other:?}"))),
        };
        let role = match self.role.as_deref() {
            None => None,
            Some("user") => Some(Role::User),
            Some("admin") => Some(Role::Admin),
            Some(other) => return Err(ApiError::invalid(format!("role must be user or admin, not {other:?}"))),
        };
        let Self { username, is_active, is_guest, .. } = self;
        Ok(UserQuery { username, role, is_active, is_guest, order, is_descending })
    }
}

/// Accounts and guests in pages, filtered and sorted.
#[utoipa::path(get, path = "/api/advanced/users", operation_id = "list_users", tag = "advanced",
    params(PageQuery, UsersQuery),
    responses((status = OK, description = "A page of them", body = Paged<UserView>)))]
async fn list(
    State(api): State<Arc<Api>>,
    Caller(_caller): Caller,
    QueryOf(page): QueryOf<PageQuery>,
    QueryOf(query): QueryOf<UsersQuery>,
) -> ApiResult<Json<Paged<UserView>>> {
    let (page, query) = (page.checked()?, query.checked()?);
    let (users, total) = api.store.users_page(&query, page.limit, page.offset()).await?;
    Ok(Json(page.of(users.iter().map(crate::store::User::view).collect(), total)))
}

/// Changes an account: one's own, or, as an administrator, any.
#[utoipa::path(put, path = "/api/advanced/users/{id}", operation_id = "change_any_user", tag = "advanced",
    params(("id" = UserId, Path, description = "The account's id")), request_body = UserChange,
    responses((status = OK, description = "The account as it is now", body = Answer<UserView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: another's, and one is no administrator", body = ErrorBody)))]
async fn change(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<UserId>,
    Body(change): Body<UserChange>,
) -> ApiResult<Answer<UserView>> {
    change_account(&api, &caller, id, &change).await
}

/// That an account is gone.
#[derive(Serialize, ToSchema)]
struct UserDeleted {
    /// Which.
    user_id: UserId,
}

/// Deletes an account with all that belongs to it: one's own, or, as an administrator, any. Its sessions end at once
/// (4014). Channels that it owns must have another owner, or be deleted, before.
#[utoipa::path(delete, path = "/api/advanced/users/{id}", operation_id = "delete_user", tag = "advanced",
    params(("id" = UserId, Path, description = "The account's id")),
    responses((status = OK, description = "It is gone", body = Answer<UserDeleted>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: another's, and one is no administrator", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: it owns channels, or is the last administrator", body = ErrorBody)))]
async fn delete(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<UserId>,
) -> ApiResult<Answer<UserDeleted>> {
    let own = id == caller.id;
    if !own {
        api.require_admin(&caller).await?;
        let user = api.store.user(id).await?.ok_or_else(no_such_user)?;
        audit(&api, &caller, "user.delete", Some(id.to_string()), json!({ "username": user.username })).await?;
    }
    let conflict = |message: String| Err(ApiError::new(ErrorCode::Conflict, message));
    match api.store.delete_user(id).await? {
        UserDeletion::Deleted => {}
        UserDeletion::Unknown => return Err(no_such_user()),
        UserDeletion::OwnsChannels(count) => {
            return conflict(format!("this account owns {count} channels: make others their owners, or delete them"));
        }
        UserDeletion::LastAdmin => return conflict("the last administrator stays: make another one first".to_owned()),
    }
    api.gateway.disconnect_user(id).await;
    Ok(Answer::of(UserDeleted { user_id: id }))
}

/// What somebody did in voice since that is counted, on all nodes; a few seconds old.
#[derive(Serialize, ToSchema)]
struct UserStatistics {
    /// Who.
    user_id: UserId,
    /// How often they joined a channel.
    total_connections: u64,
    /// How long they were in voice, in each channel, in seconds; up to a minute old while they only listen.
    voice_seconds: u64,
    /// Frames taken from them.
    packets_sent: u64,
    /// Bytes of those.
    bytes_sent: u64,
    /// Channels that they own.
    channels_owned: u64,
    /// Channels that they are a member of, those included.
    channels_joined: u64,
    /// Since when this is counted, RFC 3339 UTC; null when they were never in voice.
    since: Option<String>,
    /// When they were in voice last, to a few seconds; null likewise.
    last_voice_at: Option<String>,
    /// When the account was made.
    member_since: String,
}

/// What somebody did in voice.
#[utoipa::path(get, path = "/api/advanced/users/{id}/statistics", operation_id = "user_statistics", tag = "advanced",
    params(("id" = UserId, Path, description = "The account's id")),
    responses((status = OK, description = "The figures", body = Answer<UserStatistics>)))]
async fn statistics(
    State(api): State<Arc<Api>>,
    Caller(_caller): Caller,
    PathOf(id): PathOf<UserId>,
) -> ApiResult<Answer<UserStatistics>> {
    let user = api.store.user(id).await?.ok_or_else(no_such_user)?;
    let counted = api.store.user_totals(id).await?;
    let (channels_owned, channels_joined) = api.store.channels_counts(id).await?;
    let totals = counted.map(|counted| counted.totals).unwrap_or_default();
    Ok(Answer::of(UserStatistics {
        user_id: id,
        total_connections: totals.joins,
        voice_seconds: totals.voice_ms / 1_000,
        packets_sent: totals.frames,
        bytes_sent: totals.bytes,
        channels_owned,
        channels_joined,
        since: counted.map(|counted| rfc3339(counted.since)),
        last_voice_at: counted.map(|counted| rfc3339(counted.last_at)),
        member_since: rfc3339(user.created_at),
    }))
}
