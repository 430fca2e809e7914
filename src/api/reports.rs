//! What was reported to those who keep order in a channel. Reporting itself is the gateway's.

use std::sync::Arc;

use antiphon_core::ids::{ChannelId, MessageId, UserId};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf, QueryOf},
};
use crate::{
    chat::fitting,
    store::{Report, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(reports)).routes(routes!(handle_report))
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReportState {
    /// Nobody has dealt with it.
    Open,
    /// A moderator has.
    Handled,
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
    /// What became of it.
    state: ReportState,
    /// Who handled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    handled_by: Option<UserId>,
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    handled_at: Option<String>,
    /// What they noted for the other moderators.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl From<Report> for ReportView {
    fn from(report: Report) -> Self {
        let state = if report.handled.is_some() { ReportState::Handled } else { ReportState::Open };
        let (handled_by, handled_at, note) = report
            .handled
            .map_or((None, None, None), |handled| (Some(handled.by), Some(rfc3339(handled.at)), Some(handled.note)));
        Self {
            message_id: report.message.id,
            from_user: report.message.from,
            content: report.message.content,
            by: report.by,
            reason: report.reason,
            at: rfc3339(report.at),
            state,
            handled_by,
            handled_at,
            note,
        }
    }
}

/// Which reports.
#[derive(Deserialize)]
struct ReportsQuery {
    state: Option<ReportState>,
}

/// What was reported in a channel, the newest first, at most 200 and 256 KiB.
#[utoipa::path(get, path = "/api/channels/{id}/reports", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"),
        ("state" = Option<ReportState>, Query, description = "Only those in this state")),
    responses((status = OK, description = "The reports", body = Answer<Vec<ReportView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody)))]
async fn reports(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    QueryOf(query): QueryOf<ReportsQuery>,
) -> ApiResult<Answer<Vec<ReportView>>> {
    let is_handled = query.state.map(|state| state == ReportState::Handled);
    let reports = api.chat.reports(&caller, id, is_handled).await?;
    Ok(Answer::of(fitting(reports.into_iter().map(ReportView::from))))
}

/// What is to become of a report.
#[derive(Deserialize, ToSchema)]
struct ReportChange {
    /// `handled`, or `open` again.
    state: ReportState,
    /// What the other moderators are to know of it, with `handled` alone: at most 500 characters.
    note: Option<String>,
}

/// Marks a report as handled, or as open again. Of several who handle it the first one did: the others are answered with that.
/// Whoever reports the message once more opens it again.
#[utoipa::path(put, path = "/api/channels/{id}/reports/{message}/{by}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"),
        ("message" = MessageId, Path, description = "The message's id"),
        ("by" = UserId, Path, description = "Who reported it")),
    request_body = ReportChange,
    responses((status = OK, description = "The report as it is now", body = Answer<ReportView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`, also for a moderator whose own message it is", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: the channel has no such report", body = ErrorBody)))]
async fn handle_report(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, message, by)): PathOf<(ChannelId, MessageId, UserId)>,
    Body(change): Body<ReportChange>,
) -> ApiResult<Answer<ReportView>> {
    api.directory.count_act(&caller)?;
    let note = match (change.state, change.note) {
        (ReportState::Handled, note) => Some(note.unwrap_or_default()),
        (ReportState::Open, None) => None,
        (ReportState::Open, Some(_)) => {
            return Err(ApiError::invalid("a report that is open has no note: leave it out"));
        }
    };
    Ok(Answer::of(api.chat.handle_report(&caller, id, (message, by), note).await?.into()))
}
