//! What clients should capture and play.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, error::ApiResult, extract::Caller};
use crate::{settings::Settings, store::AudioConfiguration};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(audio_config))
}

/// The audio configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct AudioConfig {
    /// Samples per second of a stream whose speaker names no other rate.
    #[schema(example = 48_000)]
    sample_rate: u32,
    /// Channels of a stream whose speaker names no other count.
    #[schema(example = 2)]
    channels: u8,
    /// Bits per sample of the PCM that clients encode.
    #[schema(example = 16)]
    bit_depth: u8,
    /// Samples per block to capture and play at once.
    #[schema(example = 1_024)]
    buffer_size: u32,
    /// The delay from mouth to ear to aim at.
    #[schema(example = 50)]
    latency_target_ms: u32,
}

impl From<AudioConfiguration> for AudioConfig {
    fn from(config: AudioConfiguration) -> Self {
        let AudioConfiguration { sample_rate, channels, bit_depth, buffer_size, latency_target_ms } = config;
        Self { sample_rate, channels, bit_depth, buffer_size, latency_target_ms }
    }
}

/// The audio configuration in force: an administrator's, else that of the settings. While the database is away, the one
/// that this node knew last.
#[utoipa::path(get, path = "/api/audio/config", tag = "audio",
    responses((status = OK, description = "The configuration", body = AudioConfig)))]
async fn audio_config(State(api): State<Arc<Api>>, _: Caller) -> Json<AudioConfig> {
    let known = *api.audio.lock();
    Json(in_force(&api).await.unwrap_or(known).into())
}

/// What the settings say.
#[must_use]
pub fn audio_of_settings(settings: &Settings) -> AudioConfiguration {
    let audio = &settings.audio;
    let small = |value: u16| u8::try_from(value).unwrap_or(u8::MAX);
    AudioConfiguration {
        sample_rate: audio.sample_rate,
        channels: small(audio.channels),
        bit_depth: small(audio.bit_depth),
        buffer_size: audio.buffer_size,
        latency_target_ms: audio.latency_target_ms,
    }
}

/// What holds now.
pub(super) async fn in_force(api: &Api) -> ApiResult<AudioConfiguration> {
    Ok(api.store.audio_configuration().await?.unwrap_or_else(|| audio_of_settings(&api.settings)))
}

/// Lets this node work by a configuration.
pub(super) fn take_over(api: &Api, config: AudioConfiguration) {
    *api.audio.lock() = config;
    api.directory.set_default_channels(config.channels);
}

impl Api {
    /// Takes over what another node may have changed. To be called every few seconds.
    pub async fn refresh_audio(&self) {
        if let Ok(config) = in_force(self).await {
            take_over(self, config);
        }
    }
}
