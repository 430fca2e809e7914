//! A channel's terms for what is written in it. Writing itself is the gateway's.

use std::sync::Arc;

use antiphon_core::{ids::ChannelId, permission::HistoryFor};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf},
};
use crate::store::ChatTerms;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(terms, set_terms))
}

/// A channel's terms for what is written in it.
#[derive(Serialize, Deserialize, ToSchema)]
struct Terms {
    /// How many seconds members wait between two messages of their own, at most 21,600; 0: not at all.
    #[serde(default)]
    slow_mode_s: u32,
    /// How many messages are kept; null: any number. 0 keeps none.
    #[serde(default)]
    keep_count: Option<u32>,
    /// How many seconds they are kept; null: for good.
    #[serde(default)]
    keep_s: Option<u32>,
    /// Who may read what was written before.
    #[serde(default)]
    history: HistoryFor,
}

impl From<ChatTerms> for Terms {
    fn from(terms: ChatTerms) -> Self {
        let ChatTerms { slow_mode_s, keep_count, keep_s, history } = terms;
        Self { slow_mode_s, keep_count, keep_s, history }
    }
}

impl From<Terms> for ChatTerms {
    fn from(terms: Terms) -> Self {
        let Terms { slow_mode_s, keep_count, keep_s, history } = terms;
        Self { slow_mode_s, keep_count, keep_s, history }
    }
}

/// A channel's terms for what is written in it.
#[utoipa::path(get, path = "/api/channels/{id}/chat", tag = "channels", operation_id = "chat_terms",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The terms", body = Answer<Terms>)))]
async fn terms(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Terms>> {
    Ok(Answer::of(api.chat.terms(&caller, id).await?.into()))
}

/// Sets all of a channel's terms for what is written in it; what is absent is as in a new channel.
#[utoipa::path(put, path = "/api/channels/{id}/chat", tag = "channels", operation_id = "set_chat_terms",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = Terms,
    responses((status = OK, description = "The terms as they are now", body = Answer<Terms>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn set_terms(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(terms): Body<Terms>,
) -> ApiResult<Answer<Terms>> {
    api.directory.count_act(&caller)?;
    api.chat.set_terms(&caller, id, terms.into()).await?;
    Ok(Answer::of(api.chat.terms(&caller, id).await?.into()))
}
