//! Channels: listing, making, changing, deleting, and what their voice carried.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ChannelView, Role},
    ids::ChannelId,
};
use axum::{extract::State, http::HeaderMap};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::{Answer, Created},
    channel_figures::{ChannelWide, cluster_wide},
    error::{ApiResult, ErrorBody},
    extract::{Body, Caller, MaybeCaller, PathOf},
};
use crate::{
    client_address::ClientAddress,
    rooms::directory::ChannelRequest,
    store::{ChannelChange, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(channels, create_channel))
        .routes(routes!(channel, change_channel, delete_channel))
        .routes(routes!(channel_stats))
}

/// The public channels; with a token also the private ones that one is a member of.
#[utoipa::path(get, path = "/api/channels", tag = "channels", security((), ("bearer" = [])),
    responses((status = OK, description = "The channels", body = Answer<Vec<ChannelView>>)))]
async fn channels(
    State(api): State<Arc<Api>>,
    MaybeCaller(caller): MaybeCaller,
) -> ApiResult<Answer<Vec<ChannelView>>> {
    Ok(Answer::of(api.directory.channels(caller.as_ref()).await?))
}

/// A new channel.
#[derive(Deserialize, ToSchema)]
struct ChannelBody {
    /// 1 to 32 printable characters, unique without regard to case.
    #[schema(example = "General")]
    name: String,
    /// Up to 1,000 characters.
    #[schema(example = "Where everybody is")]
    description: Option<String>,
    /// How many may be in voice at once; the server's default when absent.
    #[schema(example = 10, minimum = 1)]
    max_users: Option<u32>,
    /// 0, the default: everyone is forwarded; else the loudest so many.
    #[schema(example = 0)]
    max_speakers: Option<u32>,
    /// Hidden from all but members and those invited; false when absent.
    is_private: Option<bool>,
}

/// Makes a channel, which one then owns.
#[utoipa::path(post, path = "/api/channels", tag = "channels", request_body = ChannelBody,
    responses((status = CREATED, description = "The channel", body = Answer<ChannelView>),
        (status = CONFLICT, description = "`CONFLICT`: the name is taken; `LIMIT_REACHED`: there are as many channels as there may be", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: this address made many a moment ago", body = ErrorBody)))]
async fn create_channel(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    Caller(caller): Caller,
    Body(body): Body<ChannelBody>,
) -> ApiResult<Created<ChannelView>> {
    if caller.role != Role::Admin {
        api.limits.check_new_channel(client)?;
    }
    let ChannelBody { name, description, max_users, max_speakers, is_private } = body;
    let request = ChannelRequest { name, description, max_users, max_speakers, is_private };
    Ok(Created(api.directory.create(&caller, request).await?))
}

/// A channel.
#[utoipa::path(get, path = "/api/channels/{id}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The channel", body = Answer<ChannelView>)))]
async fn channel(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<ChannelView>> {
    Ok(Answer::of(api.directory.channel(&caller, id).await?))
}

/// What to change of a channel; what is absent stays as it is.
#[derive(Deserialize, ToSchema)]
struct ChannelChangeBody {
    /// 1 to 32 printable characters, unique without regard to case.
    #[schema(example = "Lobby")]
    name: Option<String>,
    /// Up to 1,000 characters.
    description: Option<String>,
    /// How many may be in voice at once. Nobody who is in is removed.
    #[schema(minimum = 1)]
    max_users: Option<u32>,
    /// 0: everyone is forwarded; else the loudest so many.
    max_speakers: Option<u32>,
    /// Hidden from all but members and those invited.
    is_private: Option<bool>,
}

/// Changes a channel, which one must own.
#[utoipa::path(put, path = "/api/channels/{id}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = ChannelChangeBody,
    responses((status = OK, description = "The channel as it is now", body = Answer<ChannelView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: somebody else owns it", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: the name is taken", body = ErrorBody)))]
async fn change_channel(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(body): Body<ChannelChangeBody>,
) -> ApiResult<Answer<ChannelView>> {
    let ChannelChangeBody { name, description, max_users, max_speakers, is_private } = body;
    let change = ChannelChange { name, description, max_users, max_speakers, is_private };
    Ok(Answer::of(api.directory.update(&caller, id, change).await?))
}

/// That a channel is gone.
#[derive(Serialize, ToSchema)]
struct ChannelDeleted {
    /// Which.
    channel_id: ChannelId,
}

/// Deletes a channel, which one must own, with all that is in it. Those in voice are removed.
#[utoipa::path(delete, path = "/api/channels/{id}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "It is gone", body = Answer<ChannelDeleted>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: somebody else owns it", body = ErrorBody)))]
async fn delete_channel(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<ChannelDeleted>> {
    api.directory.delete(&caller, id).await?;
    Ok(Answer::of(ChannelDeleted { channel_id: id }))
}

/// What a channel's voice carried, over all nodes, since it is counted; totals are a few seconds old. Figures that nothing
/// is known of yet are null.
#[derive(Serialize, ToSchema)]
struct ChannelStatsView {
    /// Which channel.
    channel_id: ChannelId,
    /// How many are in voice now.
    current_users: u32,
    /// How many are in a talk spurt now.
    speaking_users: u32,
    /// How many hear one mix instead of each speaker's stream (`mode: mixed`).
    mixed_users: u32,
    /// How many listen by a link (`/listen/…`), without being in it: through this node and through those that have members.
    listeners: u32,
    /// How often somebody joined.
    total_connections: u64,
    /// Since when this is counted, RFC 3339 UTC; null when nobody has joined yet.
    since: Option<String>,
    /// Frames taken from speakers.
    packets_received: u64,
    /// Frames delivered to listeners: one for each listener of each frame.
    packets_sent: u64,
    /// Bytes of the frames taken and of the datagrams sent for them.
    bytes_transferred: u64,
    /// The round trip to the node that listeners report, which is also the network's delay from mouth to ear: the median
    /// of each stream's listeners, the mean over streams.
    average_latency_ms: Option<f64>,
    /// Frames lost between speakers and listeners, in percent: on the way to the node as it counts them, and on the way
    /// from it as listeners report (likewise their median).
    packet_loss_rate: Option<f64>,
    /// Mean interarrival jitter of speakers' frames at the node (RFC 3550).
    jitter_ms: Option<f64>,
    /// 0 to 1: the E-model's rating (ITU-T G.107, simplified) of the three figures above, as a share of the best possible.
    audio_quality_score: Option<f64>,
}

/// What a channel's voice carried.
#[utoipa::path(get, path = "/api/channels/{id}/audio/stats", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The figures", body = Answer<ChannelStatsView>)))]
async fn channel_stats(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    headers: HeaderMap,
) -> ApiResult<Answer<ChannelStatsView>> {
    Ok(Answer::of(stats_view(&cluster_wide(&api, &caller, id, &headers).await?)))
}

fn stats_view(wide: &ChannelWide) -> ChannelStatsView {
    let totals = wide.counted.map(|counted| counted.totals).unwrap_or_default();
    let (figures, voice) = (wide.now.figures, wide.now.figures.voice);
    ChannelStatsView {
        channel_id: wide.channel.id,
        current_users: wide.current_users,
        speaking_users: figures.speaking,
        mixed_users: figures.mixed,
        listeners: figures.listeners,
        total_connections: totals.joins,
        since: wide.counted.map(|counted| rfc3339(counted.since)),
        packets_received: totals.frames_in,
        packets_sent: totals.frames_out,
        bytes_transferred: totals.bytes_in + totals.bytes_out,
        average_latency_ms: voice.mean_round_trip_ms(),
        packet_loss_rate: voice.loss().map(|loss| loss * 100.0),
        jitter_ms: voice.jitter_ms(),
        audio_quality_score: voice.score(),
    }
}
