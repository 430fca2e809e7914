//! Invites: codes that make their user a member.

use std::sync::Arc;

use antiphon_core::{
    gateway::ChannelView,
    ids::{ChannelId, UserId},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::{Answer, Created},
    error::{ApiResult, ErrorBody},
    extract::{Caller, MaybeBody, PathOf},
};
use crate::store::{Invite, rfc3339};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create_invite, list_invites))
        .routes(routes!(revoke_invite))
        .routes(routes!(use_invite))
}

/// How far an invite goes.
#[derive(Default, Deserialize, ToSchema)]
struct InviteBody {
    /// How many it lets in; any number when absent.
    #[schema(example = 5, minimum = 1)]
    max_uses: Option<u32>,
    /// How long it lasts, in seconds; without an end when absent.
    #[schema(example = 86_400, minimum = 1)]
    ttl_s: Option<u64>,
}

/// An invite. Who has its code may come in.
#[derive(Serialize, ToSchema)]
struct InviteView {
    /// For `POST /api/invites/{code}`, or a `JoinChannel`'s `invite`.
    code: String,
    /// Where to.
    channel_id: ChannelId,
    /// By whom.
    created_by: UserId,
    /// How many it lets in; null: any number.
    max_uses: Option<u32>,
    /// How many it has let in.
    uses: u32,
    /// RFC 3339 UTC.
    created_at: String,
    /// RFC 3339 UTC; null: without an end.
    expires_at: Option<String>,
}

impl From<Invite> for InviteView {
    fn from(invite: Invite) -> Self {
        Self {
            code: invite.code,
            channel_id: invite.channel,
            created_by: invite.by,
            max_uses: invite.max_uses,
            uses: invite.uses,
            created_at: rfc3339(invite.created_at),
            expires_at: invite.expires_at.map(rfc3339),
        }
    }
}

/// An invite that was taken back.
#[derive(Serialize, ToSchema)]
struct Revoked {
    /// Where it led to.
    channel_id: ChannelId,
    /// Its code.
    code: String,
}

/// Makes an invite to a channel that one owns or moderates.
#[utoipa::path(post, path = "/api/channels/{id}/invites", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = Option<InviteBody>,
    responses((status = CREATED, description = "The invite", body = Answer<InviteView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = CONFLICT, description = "`LIMIT_REACHED`: the channel has as many invites as it may have", body = ErrorBody)))]
async fn create_invite(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    MaybeBody(InviteBody { max_uses, ttl_s }): MaybeBody<InviteBody>,
) -> ApiResult<Created<InviteView>> {
    Ok(Created(api.directory.invite(&caller, id, max_uses, ttl_s).await?.into()))
}

/// A channel's invites that let someone in, the newest first, for whoever may make one.
#[utoipa::path(get, path = "/api/channels/{id}/invites", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The invites: not those that are used up or have expired", body = Answer<Vec<InviteView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn list_invites(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Vec<InviteView>>> {
    let invites = api.directory.invites(&caller, id).await?;
    Ok(Answer::of(invites.into_iter().map(InviteView::from).collect()))
}

/// Takes an invite back: it lets nobody in any more. Whoever it let in stays.
#[utoipa::path(delete, path = "/api/channels/{id}/invites/{code}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("code" = String, Path, description = "The invite's code")),
    responses((status = OK, description = "It lets nobody in any more", body = Answer<Revoked>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = NOT_FOUND, description = "The channel has no such invite", body = ErrorBody)))]
async fn revoke_invite(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, code)): PathOf<(ChannelId, String)>,
) -> ApiResult<Answer<Revoked>> {
    api.directory.revoke_invite(&caller, id, &code).await?;
    Ok(Answer::of(Revoked { channel_id: id, code }))
}

/// Uses an invite: one is a member of its channel then.
#[utoipa::path(post, path = "/api/invites/{code}", tag = "channels",
    params(("code" = String, Path, description = "The invite's code")),
    responses((status = OK, description = "The channel", body = Answer<ChannelView>)))]
async fn use_invite(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(code): PathOf<String>,
) -> ApiResult<Answer<ChannelView>> {
    Ok(Answer::of(api.directory.redeem(&caller, &code).await?))
}
