//! What clients should capture and play.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, extract::Caller};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(audio_config))
}

/// The server's audio settings.
#[derive(Serialize, ToSchema)]
struct AudioConfig {
    /// Samples per second of a stream whose speaker names no other rate.
    #[schema(example = 48_000)]
    sample_rate: u32,
    /// Channels of a stream whose speaker names no other count.
    #[schema(example = 2)]
    channels: u16,
    /// Bits per sample of the PCM that clients encode.
    #[schema(example = 16)]
    bit_depth: u16,
    /// Samples per block to capture and play at once.
    #[schema(example = 1_024)]
    buffer_size: u32,
    /// The delay from mouth to ear to aim at.
    #[schema(example = 50)]
    latency_target_ms: u32,
}

/// The server's audio settings.
#[utoipa::path(get, path = "/api/audio/config", tag = "audio",
    responses((status = OK, description = "The settings", body = AudioConfig)))]
async fn audio_config(State(api): State<Arc<Api>>, _: Caller) -> Json<AudioConfig> {
    let audio = &api.settings.audio;
    Json(AudioConfig {
        sample_rate: audio.sample_rate,
        channels: audio.channels,
        bit_depth: audio.bit_depth,
        buffer_size: audio.buffer_size,
        latency_target_ms: audio.latency_target_ms,
    })
}
