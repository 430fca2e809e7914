//! A channel's terms for what is written in it.

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::ChannelId,
    permission::Action,
};
use serde_json::json;

use super::{Chat, require};
use crate::{
    error::AppError,
    store::{ChatTerms, NewAudit},
};

/// The longest wait between two messages, six hours.
pub const SLOW_MODE_MAX_S: u32 = 21_600;

impl Chat {
    /// A channel's terms.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, also for a private one that `caller` does not belong to.
    pub async fn terms(&self, caller: &UserView, channel: ChannelId) -> Result<ChatTerms, AppError> {
        self.channel(caller, &channel.to_string()).await?;
        Ok(self.store().chat_terms(channel).await?)
    }

    /// Sets them.
    ///
    /// # Errors
    /// As [`Chat::terms`]; `PERMISSION_DENIED` for all but the owner; `INVALID_INPUT`.
    pub async fn set_terms(&self, caller: &UserView, channel: ChannelId, terms: ChatTerms) -> Result<(), AppError> {
        let (found, standing) = self.channel(caller, &channel.to_string()).await?;
        require(&standing, found.is_private, Action::Edit)?;
        let invalid = |message: String| Err(AppError::new(ErrorCode::InvalidInput, message));
        if terms.slow_mode_s > SLOW_MODE_MAX_S {
            return invalid(format!("slow_mode_s must be at most {SLOW_MODE_MAX_S}, not {}", terms.slow_mode_s));
        }
        if terms.keep_s == Some(0) {
            return invalid("keep_s must be at least 1, or null to keep messages for good".to_owned());
        }
        let detail = json!({
            "slow_mode_s": terms.slow_mode_s, "keep_count": terms.keep_count, "keep_s": terms.keep_s, "history": terms.history,
        });
        let (actor, actor_name, target) = (caller.id, caller.username.clone(), Some(channel.to_string()));
        self.store().record_audit(NewAudit { actor, actor_name, action: "channel.chat_terms", target, detail }).await?;
        self.store().set_chat_terms(channel, terms).await?;
        Ok(())
    }
}
