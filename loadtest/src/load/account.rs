//! A guest's tokens, kept fresh over runs longer than they last.

use std::time::Duration;

use tokio::time::Instant;

use super::{LoadError, members::Connected};
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
    /// The tokens that a guest was given on connecting.
    pub(super) fn of(guest: &Connected) -> Result<Self, LoadError> {
        let (access, refresh) = guest.tokens()?;
        Ok(Self { access, refresh, since: Instant::now() })
    }

    /// An access token that will last for a while.
    pub(super) async fn access(&mut self, rest: &Rest) -> Result<String, LoadError> {
        if self.since.elapsed() > FRESH_FOR {
            let account = rest.refresh(&self.refresh).await?;
            *self = Self { access: account.access_token, refresh: account.refresh_token, since: Instant::now() };
        }
        Ok(self.access.clone())
    }
}
