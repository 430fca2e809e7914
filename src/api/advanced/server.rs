//! The server in figures.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{Api, error::ApiResult, extract::Caller};
use crate::vitals::ClusterFigures;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(statistics))
}

/// The server in figures, over all nodes. Totals are since they are counted, and a few seconds old.
#[derive(Serialize, ToSchema)]
struct ServerStatistics {
    /// Accounts and guests.
    #[schema(example = 25)]
    total_users: u64,
    /// People in voice now; who is so through two nodes counts twice.
    #[schema(example = 15)]
    active_users: u32,
    /// Channels, private ones included.
    #[schema(example = 5)]
    total_channels: u64,
    /// Channels with somebody in voice now.
    #[schema(example = 3)]
    active_channels: u32,
    /// How long the node runs that has run longest.
    #[schema(example = 3_600)]
    uptime_seconds: u64,
    /// Frames taken from speakers.
    #[schema(example = 1_000_000)]
    total_audio_packets: u64,
    /// Megabytes (of 1,000,000) of the frames taken and of what was sent for them.
    #[schema(example = 500.0)]
    total_data_transferred_mb: f64,
    /// The machines.
    system_stats: SystemStats,
}

/// The machines that the nodes run on.
#[derive(Serialize, ToSchema)]
struct SystemStats {
    /// Share of its processors that a node uses, in percent, the mean over nodes.
    #[schema(example = 25.0)]
    cpu_usage_percent: f64,
    /// Resident memory of all nodes, in MiB.
    #[schema(example = 512)]
    memory_usage_mb: u64,
    /// Voice over UDP with clients, both ways, in megabits a second.
    #[schema(example = 10.0)]
    network_throughput_mbps: f64,
    /// Gateway connections.
    #[schema(example = 15)]
    active_connections: u32,
}

impl SystemStats {
    fn of(figures: &ClusterFigures) -> Self {
        Self {
            cpu_usage_percent: figures.cpu_percent,
            memory_usage_mb: figures.memory_bytes >> 20,
            network_throughput_mbps: figures.bytes_per_s * 8.0 / 1e6,
            active_connections: figures.connections,
        }
    }
}

/// The server in figures.
#[utoipa::path(get, path = "/api/advanced/statistics/server", operation_id = "server_statistics", tag = "advanced",
    responses((status = OK, description = "The figures", body = ServerStatistics)))]
async fn statistics(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> ApiResult<Json<ServerStatistics>> {
    let totals = api.store.server_totals().await?.map(|counted| counted.totals).unwrap_or_default();
    let figures = api.vitals.figures();
    Ok(Json(ServerStatistics {
        total_users: api.store.people_count().await?,
        active_users: figures.people,
        total_channels: api.store.channels_count().await?,
        active_channels: figures.channels,
        uptime_seconds: figures.uptime_s,
        total_audio_packets: totals.frames_in,
        total_data_transferred_mb: (totals.bytes_in + totals.bytes_out) as f64 / 1e6,
        system_stats: SystemStats::of(&figures),
    }))
}
