//! Who belongs to a channel, and keeping order in it.

use std::sync::Arc;

use antiphon_core::{
    gateway::{MediaTransport, MemberView, UserView},
    ids::{ChannelId, StreamId, UserId},
    permission::ChannelRole,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf, QueryOf},
};
use crate::{
    rooms::directory::{DirectoryMember, MemberChange, Page},
    store::rfc3339,
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(members))
        .routes(routes!(set_member, remove_member))
        .routes(routes!(kick))
        .routes(routes!(ban))
        .routes(routes!(unban))
        .routes(routes!(mute))
}

/// Somebody who belongs to a channel, is in its voice, or both.
#[derive(Serialize, ToSchema)]
struct MemberEntry {
    /// Who.
    user_id: UserId,
    /// Who, in full.
    user: UserView,
    /// What they are in the channel; null for somebody who is only in its voice.
    role: Option<ChannelRole>,
    /// Whether they are heard before others where speakers are limited.
    priority: bool,
    /// As they are in voice now; null when they are not.
    voice: Option<VoiceState>,
}

/// A member's voice.
#[derive(Serialize, ToSchema)]
struct VoiceState {
    /// Their stream.
    stream_id: StreamId,
    /// Muted themselves.
    muted: bool,
    /// Deafened themselves.
    deafened: bool,
    /// Muted by a moderator.
    server_muted: bool,
    /// In a talk spurt now.
    speaking: bool,
    /// How their voice travels.
    media: MediaTransport,
}

impl From<MemberView> for VoiceState {
    fn from(member: MemberView) -> Self {
        let MemberView { stream_id, muted, deafened, server_muted, speaking, media, .. } = member;
        Self { stream_id, muted, deafened, server_muted, speaking, media }
    }
}

impl From<DirectoryMember> for MemberEntry {
    fn from(member: DirectoryMember) -> Self {
        Self {
            user_id: member.user.id,
            user: member.user,
            role: member.membership.map(|membership| membership.role),
            priority: member.membership.is_some_and(|membership| membership.priority),
            voice: member.voice.map(VoiceState::from),
        }
    }
}

/// Which part of a list.
#[derive(Deserialize)]
struct PageQuery {
    limit: Option<u32>,
    offset: Option<u32>,
}

impl From<PageQuery> for Page {
    fn from(query: PageQuery) -> Self {
        let whole = Self::default();
        Self { limit: query.limit.unwrap_or(whole.limit), offset: query.offset.unwrap_or(whole.offset) }
    }
}

/// Everyone who belongs to a channel or is in its voice, a page at a time: members in the order in which they came, then
/// those who are only in voice.
#[utoipa::path(get, path = "/api/channels/{id}/members", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 1000, the most, when absent"),
        ("offset" = Option<u32>, Query, description = "After the first so many; 0 when absent. The last page has fewer than `limit`")),
    responses((status = OK, description = "The members", body = Answer<Vec<MemberEntry>>)))]
async fn members(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    QueryOf(page): QueryOf<PageQuery>,
) -> ApiResult<Answer<Vec<MemberEntry>>> {
    let members = api.directory.members(&caller, id, page.into()).await?;
    Ok(Answer::of(members.into_iter().map(MemberEntry::from).collect()))
}

/// What to change of a member; what is absent stays as it is.
#[derive(Deserialize, ToSchema)]
struct MemberChangeBody {
    /// Making somebody the owner makes the owner before them a moderator. A new member is `member` when absent.
    role: Option<ChannelRole>,
    /// Whether they are heard before others where speakers are limited.
    priority: Option<bool>,
}

/// Makes somebody a member of a channel that one owns, or changes what they are.
#[utoipa::path(put, path = "/api/channels/{id}/members/{user}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("user" = UserId, Path, description = "Whom")),
    request_body = MemberChangeBody,
    responses((status = OK, description = "The member as they are now", body = Answer<MemberEntry>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn set_member(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, user)): PathOf<(ChannelId, UserId)>,
    Body(MemberChangeBody { role, priority }): Body<MemberChangeBody>,
) -> ApiResult<Answer<MemberEntry>> {
    let member = api.directory.set_member(&caller, id, user, MemberChange { role, priority }).await?;
    Ok(Answer::of(member.into()))
}

/// Who something was done to, and where.
#[derive(Serialize, ToSchema)]
struct Done {
    /// Where.
    channel_id: ChannelId,
    /// Whom.
    user_id: UserId,
}

/// Ends a membership: one's own, or, as a moderator, another's.
#[utoipa::path(delete, path = "/api/channels/{id}/members/{user}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("user" = UserId, Path, description = "Whose")),
    responses((status = OK, description = "They are no member any more", body = Answer<Done>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn remove_member(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, user)): PathOf<(ChannelId, UserId)>,
) -> ApiResult<Answer<Done>> {
    api.directory.remove_member(&caller, id, user).await?;
    Ok(Answer::of(Done { channel_id: id, user_id: user }))
}

/// Whom to remove, and why.
#[derive(Deserialize, ToSchema)]
struct KickBody {
    /// Whom.
    user_id: UserId,
    /// Up to 500 characters.
    #[schema(example = "too loud")]
    reason: Option<String>,
}

/// Removes somebody from a channel, from its voice and from where they read and write. They may come back.
#[utoipa::path(post, path = "/api/channels/{id}/kick", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = KickBody,
    responses((status = OK, description = "They are out", body = Answer<Done>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn kick(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(KickBody { user_id, reason }): Body<KickBody>,
) -> ApiResult<Answer<Done>> {
    api.directory.kick(&caller, id, user_id, reason).await?;
    Ok(Answer::of(Done { channel_id: id, user_id }))
}

/// Whom to keep out, why and for how long.
#[derive(Deserialize, ToSchema)]
struct BanBody {
    /// Whom.
    user_id: UserId,
    /// Up to 500 characters.
    #[schema(example = "spam")]
    reason: Option<String>,
    /// In seconds; for good when absent.
    #[schema(example = 3_600, minimum = 1)]
    duration_s: Option<u64>,
}

/// A ban.
#[derive(Serialize, ToSchema)]
struct BanView {
    /// Where.
    channel_id: ChannelId,
    /// Whom.
    user_id: UserId,
    /// By whom.
    by: UserId,
    /// Why, if it was said.
    reason: Option<String>,
    /// Until when, RFC 3339; null: for good.
    until: Option<String>,
}

/// Removes somebody from a channel and keeps them out. Their membership ends.
#[utoipa::path(post, path = "/api/channels/{id}/ban", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = BanBody,
    responses((status = OK, description = "The ban", body = Answer<BanView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn ban(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(BanBody { user_id, reason, duration_s }): Body<BanBody>,
) -> ApiResult<Answer<BanView>> {
    let ban = api.directory.ban(&caller, id, user_id, reason, duration_s).await?;
    Ok(Answer::of(BanView {
        channel_id: ban.channel,
        user_id: ban.user,
        by: ban.by,
        reason: ban.reason,
        until: ban.until.map(rfc3339),
    }))
}

/// Lets somebody in again.
#[utoipa::path(delete, path = "/api/channels/{id}/ban/{user}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("user" = UserId, Path, description = "Whom")),
    responses((status = OK, description = "They may come back", body = Answer<Done>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn unban(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, user)): PathOf<(ChannelId, UserId)>,
) -> ApiResult<Answer<Done>> {
    api.directory.unban(&caller, id, user).await?;
    Ok(Answer::of(Done { channel_id: id, user_id: user }))
}

/// Whom to mute or unmute.
#[derive(Deserialize, ToSchema)]
struct MuteBody {
    /// Whom.
    user_id: UserId,
    /// Muted from now on, or not.
    muted: bool,
}

/// Who is muted now, or not.
#[derive(Serialize, ToSchema)]
struct Muted {
    /// Where.
    channel_id: ChannelId,
    /// Whom.
    user_id: UserId,
    /// Whether nothing of theirs is forwarded.
    muted: bool,
}

/// Mutes or unmutes somebody for everyone. It holds when they leave and come back.
#[utoipa::path(post, path = "/api/channels/{id}/mute", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = MuteBody,
    responses((status = OK, description = "As they are now", body = Answer<Muted>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn mute(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(MuteBody { user_id, muted }): Body<MuteBody>,
) -> ApiResult<Answer<Muted>> {
    api.directory.mute(&caller, id, user_id, muted).await?;
    Ok(Answer::of(Muted { channel_id: id, user_id, muted }))
}
