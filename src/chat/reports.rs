//! What was reported in a channel, and what those who keep order there make of it.

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::{ChannelId, MessageId, UserId},
    permission::Action,
};
use serde_json::json;
use time::OffsetDateTime;

use super::{Chat, check, require};
use crate::{
    error::AppError,
    store::{Handled, NewAudit, Report},
};

/// Reports that are shown at once.
const REPORTS_MAX: u32 = 200;

impl Chat {
    /// What was reported in a channel, the newest first: of all reports, or of those that are handled or are not.
    ///
    /// # Errors
    /// As [`Chat::terms`]; `PERMISSION_DENIED` for all but its owner and moderators.
    pub async fn reports(
        &self,
        caller: &UserView,
        channel: ChannelId,
        is_handled: Option<bool>,
    ) -> Result<Vec<Report>, AppError> {
        let (found, standing) = self.channel(caller, &channel.to_string()).await?;
        require(&standing, found.is_private, Action::ReadReports)?;
        Ok(self.store().reports(channel, is_handled, REPORTS_MAX).await?)
    }

    /// Marks a report, of a message by somebody, as handled with a `note` for the other moderators, or with `None` as open
    /// again. Yields it as it is then: one that somebody has handled before stays theirs.
    ///
    /// # Errors
    /// As [`Chat::reports`]; `PERMISSION_DENIED` also for a moderator whose own message it is; `NOT_FOUND`;
    /// `INVALID_INPUT` for a note that is too long.
    pub async fn handle_report(
        &self,
        caller: &UserView,
        channel: ChannelId,
        which: (MessageId, UserId),
        note: Option<String>,
    ) -> Result<Report, AppError> {
        if let Some(note) = &note {
            check::remark("note", note)?;
        }
        let (found, standing) = self.channel(caller, &channel.to_string()).await?;
        // First, so that others do not learn what was reported.
        require(&standing, found.is_private, Action::ReadReports)?;
        let report = self.report_of(channel, which).await?;
        let is_own = report.message.from == caller.id;
        require(&standing, found.is_private, Action::HandleReport { is_own })?;
        if report.handled.is_some() == note.is_some() {
            return Ok(report);
        }
        self.record_handling(caller, channel, &report, note.as_deref()).await?;
        let handled = note.map(|note| Handled { by: caller.id, at: OffsetDateTime::now_utc(), note });
        self.store().set_report_handled(which.0, which.1, handled.as_ref()).await?;
        self.report_of(channel, which).await
    }

    async fn report_of(&self, channel: ChannelId, (message, by): (MessageId, UserId)) -> Result<Report, AppError> {
        let report = self.store().report(channel, message, by).await?;
        report.ok_or_else(|| AppError::new(ErrorCode::NotFound, "this channel has no such report (any more)"))
    }

    /// Writes down what somebody is about to make of a report.
    async fn record_handling(
        &self,
        caller: &UserView,
        channel: ChannelId,
        report: &Report,
        note: Option<&str>,
    ) -> Result<(), AppError> {
        let done = NewAudit {
            actor: caller.id,
            actor_name: caller.username.clone(),
            action: if note.is_some() { "report.handle" } else { "report.reopen" },
            target: Some(report.message.id.to_string()),
            detail: json!({
                "channel_id": channel, "author": report.message.from, "reported_by": report.by, "note": note,
            }),
        };
        Ok(self.store().record_audit(done).await?)
    }
}
