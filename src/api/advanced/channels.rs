//! Channels: filtered, and in figures.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::sync::Arc;

use antiphon_core::{gateway::ChannelView, ids::ChannelId};
use axum::{Json, extract::State, http::HeaderMap};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Api,
    answer::Answer,
    channel_figures::{ChannelOnNode, ChannelWide, cluster_wide, here},
    error::{ApiError, ApiResult},
    extract::{Caller, PathOf, QueryOf},
};
use crate::store::folded;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(statistics)).routes(routes!(statistics_here))
}

/// Which channels.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ChannelsQuery {
    /// A part of the name, without regard to case.
    name: Option<String>,
    /// `public` or `private`.
    #[param(example = "public")]
    channel_type: Option<String>,
    /// At least so many in voice.
    min_users: Option<u32>,
    /// At most so many in voice.
    max_users: Option<u32>,
    /// Also the private ones that one belongs to; all of them for an administrator. Where `channel_type` is `private`
    /// that is taken for granted.
    include_private: Option<bool>,
}

/// The channels that are wanted, by name.
#[utoipa::path(get, path = "/api/advanced/channels", operation_id = "filter_channels", tag = "advanced",
    params(ChannelsQuery),
    responses((status = OK, description = "The channels", body = Answer<Vec<ChannelView>>)))]
async fn list(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    QueryOf(query): QueryOf<ChannelsQuery>,
) -> ApiResult<Answer<Vec<ChannelView>>> {
    let is_private = match query.channel_type.as_deref() {
        None => None,
        Some("public") => Some(false),
        Some("private") => Some(true),
        Some(other) => {
            return Err(ApiError::invalid(format!("channel_type must be public or private, not {other:?}")));
        }
    };
    let with_private = query.include_private.unwrap_or(is_private == Some(true));
    let mut channels = api.directory.channels(Some(&caller)).await?;
    let part = query.name.as_deref().map(folded);
    channels.retain(|channel| {
        let is_kind = is_private.is_none_or(|wanted| channel.is_private == wanted);
        let is_named = part.as_deref().is_none_or(|part| folded(&channel.name).contains(part));
        let users = query.min_users.unwrap_or(0)..=query.max_users.unwrap_or(u32::MAX);
        is_kind && (with_private || !channel.is_private) && is_named && users.contains(&channel.current_users)
    });
    channels.sort_by_cached_key(|channel| folded(&channel.name));
    Ok(Answer::of(channels))
}

/// A channel in figures, over all nodes. Totals are since the channel is counted and a few seconds old; what was not
/// measured yet is null.
#[derive(Serialize, ToSchema)]
struct ChannelStatistics {
    /// Which channel.
    channel_id: ChannelId,
    /// Members in voice now.
    #[schema(example = 5)]
    current_users: u32,
    /// How often somebody joined.
    #[schema(example = 100)]
    total_connections: u64,
    /// Since the channel was made: it is never closed.
    #[schema(example = 1_800)]
    uptime_seconds: u64,
    /// Its voice.
    audio_stats: AudioStats,
    /// What it costs.
    performance_stats: PerformanceStats,
}

/// A channel's voice.
#[derive(Serialize, ToSchema)]
struct AudioStats {
    /// Frames delivered to listeners: one for each listener of each frame.
    packets_sent: u64,
    /// Frames taken from speakers.
    packets_received: u64,
    /// Bytes of the frames taken and of what was sent for them.
    bytes_transferred: u64,
    /// The round trip that listeners report, as in `GET /api/channels/{id}/audio/stats`.
    average_latency_ms: Option<f64>,
    /// Frames lost between speakers and listeners, in percent, likewise.
    packet_loss_rate: Option<f64>,
    /// 0 to 1: the E-model's rating as a share of the best possible, likewise.
    audio_quality_score: Option<f64>,
    /// Interarrival jitter of speakers' frames, likewise.
    jitter_ms: Option<f64>,
}

/// What a channel costs.
#[derive(Serialize, ToSchema)]
struct PerformanceStats {
    /// The share of one processor that its frames take: the media workers' busy time, by the channel's share of all
    /// frames in the last seconds.
    cpu_usage_percent: f64,
    /// The nodes' memory in MiB, by the channel's share of their members.
    memory_usage_mb: f64,
    /// Members in a talk spurt now.
    active_streams: u32,
    /// The median time that frames are in a node, on the slowest of its nodes, in µs.
    processing_latency_us: u32,
}

/// A channel in figures.
#[utoipa::path(get, path = "/api/advanced/channels/{id}/statistics", operation_id = "channel_statistics",
    tag = "advanced", params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The figures", body = ChannelStatistics)))]
async fn statistics(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    headers: HeaderMap,
) -> ApiResult<Json<ChannelStatistics>> {
    Ok(Json(view(&cluster_wide(&api, &caller, id, &headers).await?, OffsetDateTime::now_utc())))
}

fn view(wide: &ChannelWide, now: OffsetDateTime) -> ChannelStatistics {
    let totals = wide.counted.map(|counted| counted.totals).unwrap_or_default();
    let (figures, voice) = (wide.now.figures, wide.now.figures.voice);
    ChannelStatistics {
        channel_id: wide.channel.id,
        current_users: wide.current_users,
        total_connections: totals.joins,
        uptime_seconds: (now - wide.channel.created_at).whole_seconds().max(0).unsigned_abs(),
        audio_stats: AudioStats {
            packets_sent: totals.frames_out,
            packets_received: totals.frames_in,
            bytes_transferred: totals.bytes_in + totals.bytes_out,
            average_latency_ms: voice.mean_round_trip_ms(),
            packet_loss_rate: voice.loss().map(|loss| loss * 100.0),
            audio_quality_score: voice.score(),
            jitter_ms: voice.jitter_ms(),
        },
        performance_stats: PerformanceStats {
            cpu_usage_percent: figures.cpu_percent,
            memory_usage_mb: wide.now.memory_bytes / f64::from(1 << 20),
            active_streams: figures.speaking,
            processing_latency_us: wide.now.forwarding_us,
        },
    }
}

/// How a channel is on this node alone: what nodes ask each other to answer for all of them.
#[utoipa::path(get, path = "/api/advanced/channels/{id}/statistics/node", operation_id = "channel_statistics_of_node",
    tag = "advanced", params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The figures", body = Answer<ChannelOnNode>)))]
async fn statistics_here(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<ChannelOnNode>> {
    api.directory.seen(&caller, id).await?;
    Ok(Answer::of(here(&api, id)))
}
