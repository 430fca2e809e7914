//! Posting to webhooks.

use std::{fmt, time::Duration as StdDuration};

use antiphon_core::{
    gateway::Position,
    ids::{ChannelId, WebhookId},
};
use aws_lc_rs::hmac;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio::{task::JoinSet, time::Instant};

use super::{Notify, failure::wait};
use crate::{
    rooms::event_json,
    store::{Attempted, StoreError, Webhook},
    telemetry::metrics::{Outcome, metrics},
};

/// How often webhooks are looked at that have nothing to be told, and how often it is looked whether there are any when none was due
/// lately.
const LOOK_EVERY: StdDuration = StdDuration::from_secs(1);
const LOOK_SELDOM: StdDuration = StdDuration::from_secs(15);

/// What was due so lately may soon be so again: a webhook that fails is tried after seconds, and later after minutes.
const LATELY: StdDuration = StdDuration::from_secs(60);

/// For how long a node takes a webhook on: longer than an attempt takes.
const LEASE: Duration = Duration::seconds(30);

/// Webhooks that this node posts to at once.
const AT_ONCE: usize = 32;

/// How long a webhook may take to answer.
const PATIENCE: StdDuration = StdDuration::from_secs(10);

/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::minutes(15);

/// Attempts until a webhook is given up: about four hours.
const ATTEMPTS_MAX: u32 = 25;

/// Events of one post.
const EVENTS_MAX: usize = 100;

/// What is posted.
#[derive(Serialize)]
struct Delivery<'a> {
    webhook_id: WebhookId,
    channel_id: ChannelId,
    /// The place of the event before the first.
    after: &'a Position,
    /// The place of the last.
    position: &'a Position,
    /// Whether all that happened after `after` is here; if not, the journal did not reach back so far.
    complete: bool,
    events: Vec<serde_json::Value>,
}

impl Notify {
    /// Tells webhooks what they were not told, for ever. One that is slow keeps no other waiting.
    pub async fn deliver(self) {
        // Dropped with this task: another node takes on what is under way then, when its lease is over.
        let mut under_way = JoinSet::new();
        let mut due_at = None::<Instant>;
        loop {
            while under_way.try_join_next().is_some() {}
            match self.deliver_due(&mut under_way).await {
                Ok(true) => due_at = Some(Instant::now()),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "webhooks were not looked at"),
            }
            let is_lately = !under_way.is_empty() || due_at.is_some_and(|at| at.elapsed() < LATELY);
            let wait = if is_lately { LOOK_EVERY } else { LOOK_SELDOM };
            let _ = tokio::time::timeout(wait, self.due.notified()).await;
        }
    }

    /// Whether any was due.
    async fn deliver_due(&self, under_way: &mut JoinSet<()>) -> Result<bool, StoreError> {
        let now = OffsetDateTime::now_utc();
        let until = now + LEASE;
        let due = self.store.claim_webhooks(now, until, AT_ONCE.saturating_sub(under_way.len())).await?;
        let some = !due.is_empty();
        for webhook in due {
            let notify = self.clone();
            under_way.spawn(async move { notify.deliver_to(webhook, until).await });
        }
        Ok(some)
    }

    async fn deliver_to(&self, webhook: Webhook, until: OffsetDateTime) {
        let attempted = self.attempt(&webhook).await;
        let now = OffsetDateTime::now_utc();
        let (attempted, next_at) = match attempted {
            // There may be more.
            Ok(Some(position)) => (Attempted::Taken(position), now),
            Ok(None) => (Attempted::Taken(webhook.position.clone()), now),
            Err(why) => {
                let failures = webhook.failures + 1;
                let is_tried_again = failures < ATTEMPTS_MAX && !matches!(why, NotPosted::Forbidden);
                let again_at = is_tried_again.then(|| now + wait(failures, WAIT_MAX));
                let error = why.to_string();
                if again_at.is_none() {
                    metrics().webhooks.given_up.increment(1);
                    tracing::warn!(webhook = %webhook.id, channel = %webhook.channel, error, "a webhook was given up");
                }
                (Attempted::Failed { error, again_at }, now)
            }
        };
        if let Err(error) = self.store.webhook_attempted(webhook.id, until, next_at, &attempted).await {
            tracing::debug!(webhook = %webhook.id, %error, "what was posted is posted again");
        }
    }

    /// Posts what a webhook was not told: the place up to which it was taken, `None` when there is nothing to tell.
    async fn attempt(&self, webhook: &Webhook) -> Result<Option<Position>, NotPosted> {
        let since = self.rooms.events_since(webhook.channel, &webhook.position).await;
        // While it cannot be reached there is nothing to be told, which is no fault of the webhook.
        let Ok(since) = since else { return Ok(None) };
        let (events, complete) = match &since.events {
            Some(events) if events.is_empty() => return Ok(None),
            Some(events) => (&events[..events.len().min(EVENTS_MAX)], true),
            None if since.position == webhook.position => return Ok(None),
            None => (&[][..], false),
        };
        if let Some(by) = webhook.by {
            match self.store.is_admin(by).await {
                Ok(true) => {}
                Ok(false) => return Err(NotPosted::Forbidden),
                // As where the journal cannot be reached.
                Err(_) => return Ok(None),
            }
        }
        let position = events.last().map_or(&since.position, |(position, _)| position);
        let delivery = Delivery {
            webhook_id: webhook.id,
            channel_id: webhook.channel,
            after: &webhook.position,
            position,
            complete,
            events: events.iter().map(|(_, event)| event_json(event)).collect(),
        };
        let posted = self.post(webhook, &delivery).await;
        metrics().webhooks.posts.of(Outcome::from(posted.is_ok())).increment(1);
        posted.map_err(NotPosted::Failed)?;
        metrics().webhooks.events.increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
        Ok(Some(position.clone()))
    }

    async fn post(&self, webhook: &Webhook, delivery: &Delivery<'_>) -> Result<(), String> {
        let body = serde_json::to_vec(delivery).map_err(|error| error.to_string())?;
        let at = OffsetDateTime::now_utc().unix_timestamp();
        let request = self.http.post(&webhook.url).timeout(PATIENCE);
        let request = request.header("content-type", "application/json");
        let request =
            request.header("antiphon-signature", format!("t={at},v1={}", signature(&webhook.secret, at, &body)));
        let answer = request.body(body).send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

/// Why a webhook was told nothing.
enum NotPosted {
    /// It could not be, this time.
    Failed(String),
    /// Who made it may make none any more.
    Forbidden,
}

impl fmt::Display for NotPosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.write_str(error),
            Self::Forbidden => {
                f.write_str("who made it is no administrator any more: one who is can have it tried again")
            }
        }
    }
}

/// HMAC-SHA256, keyed with the webhook's secret, over the moment of posting in Unix seconds, a dot, and the body.
pub(super) fn signature(secret: &str, at: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = [format!("{at}.").as_bytes(), body].concat();
    hmac::sign(&key, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_given_up_after_some_hours() {
        let all: i64 = (1..ATTEMPTS_MAX).map(|failures| wait(failures, WAIT_MAX).whole_seconds()).sum();
        assert!((3 * 3_600..5 * 3_600).contains(&all), "{all}");
    }

    #[test]
    fn a_signature_covers_the_moment_and_the_body() {
        // As of `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`.
        assert_eq!(
            signature("secret", 1_700_000_000, b"{}"),
            "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
        assert_ne!(signature("secret", 1_700_000_001, b"{}"), signature("secret", 1_700_000_000, b"{}"));
    }
}
