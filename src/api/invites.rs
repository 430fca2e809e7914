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
    extract::{Body, Caller, PathOf},
};
use crate::store::rfc3339;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create_invite)).routes(routes!(use_invite))
}

/// How far an invite goes.
#[derive(Deserialize, ToSchema)]
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

/// Makes an invite to a channel that one owns or moderates.
#[utoipa::path(post, path = "/api/channels/{id}/invites", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = InviteBody,
    responses((status = CREATED, description = "The invite", body = Answer<InviteView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = CONFLICT, description = "`LIMIT_REACHED`: the channel has as many invites as it may have", body = ErrorBody)))]
async fn create_invite(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(InviteBody { max_uses, ttl_s }): Body<InviteBody>,
) -> ApiResult<Created<InviteView>> {
    let invite = api.directory.invite(&caller, id, max_uses, ttl_s).await?;
    Ok(Created(InviteView {
        code: invite.code,
        channel_id: invite.channel,
        created_by: invite.by,
        max_uses: invite.max_uses,
        uses: invite.uses,
        created_at: rfc3339(invite.created_at),
        expires_at: invite.expires_at.map(rfc3339),
    }))
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
