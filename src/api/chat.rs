//! A channel's terms for what is written in it, and what was reported there. Writing itself is the gateway's.

use std::sync::Arc;

use antiphon_core::{
    ids::{ChannelId, MessageId, UserId},
    permission::HistoryFor,
};
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
use crate::{
    chat::fitting,
    store::{ChatTerms, Report, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(terms, set_terms)).routes(routes!(reports))
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

/// A message that somebody told the moderators of.
#[derive(Serialize, ToSchema)]
struct ReportView {
    /// Which.
    message_id: MessageId,
    /// Who wrote it.
    from_user: UserId,
    /// What it says now; empty once it was taken away.
    content: String,
    /// Who told of it.
    by: UserId,
    /// Why.
    reason: String,
    /// When, RFC 3339.
    at: String,
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        Self {
            message_id: report.message.id,
            from_user: report.message.from,
            content: report.message.content,
            by: report.by,
            reason: report.reason,
            at: rfc3339(report.at),
        }
    }
}

/// What was reported in a channel, the newest first, at most 200 and 256 KiB.
#[utoipa::path(get, path = "/api/channels/{id}/reports", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The reports", body = Answer<Vec<ReportView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn reports(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Vec<ReportView>>> {
    Ok(Answer::of(fitting(api.chat.reports(&caller, id).await?.into_iter().map(ReportView::from))))
}
