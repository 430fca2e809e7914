//! An account's tokens, kept fresh over runs longer than they last.

use std::time::Duration;

use tokio::time::Instant;

use super::LoadError;
use crate::rest::Rest;

/// Tokens older than this are exchanged; the shortest that servers give out last some minutes more.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// The tokens.
pub(super) struct TokenPair {
    access: String,
    refresh: String,
    since: Instant,
}

impl TokenPair {
    /// Tokens just given.
    pub(super) fn new(access: String, refresh: String) -> Self {
        Self { access, refresh, since: Instant::now() }
    }

    /// An access token that will last for a while.
    pub(super) async fn access(&mut self, rest: &Rest) -> Result<String, LoadError> {
        if self.since.elapsed() > FRESH_FOR {
            let account = rest.refresh(&self.refresh).await?;
            *self = Self::new(account.access_token, account.refresh_token);
        }
        Ok(self.access.clone())
    }
}
