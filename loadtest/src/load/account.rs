//! Who the clients are: accounts, and their tokens, kept fresh over runs longer than they last.

use std::time::Duration;

use antiphon_core::gateway::ErrorCode;
use tokio::time::Instant;

use super::{
    LoadError,
    members::{ATTEMPTS_MAX, People, Shared},
};
use crate::rest::{Account, Rest, RestError};

/// Tokens older than this are exchanged; the shortest that servers give out last some minutes more.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// Makes a guest at that node, or takes one of the accounts; `label` tells them from all others. It is patient where the
/// server asks for it.
pub(super) async fn sign_in(shared: &Shared, node: usize, label: &str) -> Result<Account, RestError> {
    let rest = &shared.rests[node];
    let mut attempt = 0;
    loop {
        match sign_in_once(shared, rest, label).await {
            Err(error) if attempt < ATTEMPTS_MAX && is_passing(&error) => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
            }
            signed_in => return signed_in,
        }
    }
}

async fn sign_in_once(shared: &Shared, rest: &Rest, label: &str) -> Result<Account, RestError> {
    let People::Accounts { prefix, password } = &shared.people else {
        return rest.guest(&format!("{}-{label}", shared.run)).await;
    };
    let name = format!("{prefix}-{label}");
    match rest.register(&name, password).await {
        Err(error) if error.code() == Some(ErrorCode::Conflict) => rest.login(&name, password).await,
        registered => registered,
    }
}

fn is_passing(error: &RestError) -> bool {
    matches!(error.code(), Some(ErrorCode::RateLimited | ErrorCode::TemporarilyUnavailable))
}

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

    /// Those of an account.
    pub(super) fn of(account: Account) -> Self {
        Self::new(account.access_token, account.refresh_token)
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
