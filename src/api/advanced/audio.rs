//! The audio configuration: what clients should capture and play, changed by administrators for all nodes.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Api,
        answer::Answer,
        audio::{AudioConfig, in_force, take_over},
        error::{ApiError, ApiResult, ErrorBody},
        extract::{Admin, Body},
    },
    audit,
};
use crate::store::AudioConfiguration;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(change)).routes(routes!(reset))
}

/// What to change; what is absent stays.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct AudioConfigChange {
    /// One of Opus' rates: 8000, 12000, 16000, 24000 or 48000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 48_000)]
    sample_rate: Option<u32>,
    /// 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 2)]
    channels: Option<u8>,
    /// 16, 24 or 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 16)]
    bit_depth: Option<u8>,
    /// Samples per block, 64 to 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1_024)]
    buffer_size: Option<u32>,
    /// From mouth to ear, 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 50)]
    latency_target_ms: Option<u32>,
}

impl AudioConfigChange {
    /// The configuration with the changes, if it can be.
    fn applied(&self, to: AudioConfiguration) -> ApiResult<AudioConfiguration> {
        let changed = AudioConfiguration {
            sample_rate: self.sample_rate.unwrap_or(to.sample_rate),
            channels: self.channels.unwrap_or(to.channels),
            bit_depth: self.bit_depth.unwrap_or(to.bit_depth),
            buffer_size: self.buffer_size.unwrap_or(to.buffer_size),
            latency_target_ms: self.latency_target_ms.unwrap_or(to.latency_target_ms),
        };
        let AudioConfiguration { sample_rate, channels, bit_depth, buffer_size, latency_target_ms } = changed;
        let check = |is_right: bool, message: String| if is_right { Ok(()) } else { Err(ApiError::invalid(message)) };
        check(
            [8_000, 12_000, 16_000, 24_000, 48_000].contains(&sample_rate),
            format!("sample_rate must be one of Opus's rates (8000, 12000, 16000, 24000, 48000), not {sample_rate}"),
        )?;
        check((1..=2).contains(&channels), format!("channels must be 1 or 2, not {channels}"))?;
        check([16, 24, 32].contains(&bit_depth), format!("bit_depth must be 16, 24 or 32, not {bit_depth}"))?;
        check(
            (64..=65_536).contains(&buffer_size),
            format!("buffer_size must be from 64 to 65536 samples, not {buffer_size}"),
        )?;
        check(
            (10..=1_000).contains(&latency_target_ms),
            format!("latency_target_ms must be from 10 to 1000, not {latency_target_ms}"),
        )?;
        Ok(changed)
    }
}

/// Changes the audio configuration, for all nodes and for good. Other nodes take it over within a few seconds; streams
/// that exist keep their rate and channels.
#[utoipa::path(put, path = "/api/advanced/audio/config", operation_id = "change_audio_config", tag = "advanced",
    request_body = AudioConfigChange,
    responses((status = OK, description = "The configuration in force", body = Answer<AudioConfig>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody)))]
async fn change(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Body(change): Body<AudioConfigChange>,
) -> ApiResult<Answer<AudioConfig>> {
    let changed = change.applied(in_force(&api).await?)?;
    audit(&api, &caller, "audio_config.update", None, json!(change)).await?;
    api.store.set_audio_configuration(changed, caller.id).await?;
    take_over(&api, changed);
    Ok(Answer::of(changed.into()))
}

/// Lets the audio configuration of the settings hold again.
#[utoipa::path(post, path = "/api/advanced/audio/config/reset", operation_id = "reset_audio_config", tag = "advanced",
    responses((status = OK, description = "The configuration in force", body = Answer<AudioConfig>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody)))]
async fn reset(State(api): State<Arc<Api>>, Admin(caller): Admin) -> ApiResult<Answer<AudioConfig>> {
    audit(&api, &caller, "audio_config.reset", None, json!({})).await?;
    api.store.drop_audio_configuration().await?;
    let holds = in_force(&api).await?;
    take_over(&api, holds);
    Ok(Answer::of(holds.into()))
}
