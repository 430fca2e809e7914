//! Telling people, and places outside, what happens: notifications and webhooks.
//!
//! `outbox` takes what single people are told of to their sessions and outside, `attempt` by attempt: by mail (`email`), short
//! message (`sms`) or to browsers (`push`); `contacts` is how they can be told, `preferences` what they want, `wording` what is
//! said, `failure` when it is said again, `bounds` how much, `endpoint` whom the server calls for people. `delivery` is the webhooks':
//!
//! Each webhook remembers the place in the channel's journal up to which it was told everything. One node at a time takes it
//! on, posts what came after that, in order, signed, and moves the place once it was taken: so everything comes at least once
//! and in the journal's order, and each event has its place to be known by if it comes twice. Where the journal does not
//! reach back so far, that is said instead, never passed over.

mod attempt;
mod bounds;
mod contacts;
mod delivery;
mod email;
mod endpoint;
mod failure;
mod outbox;
mod preferences;
mod push;
mod sms;
mod wording;

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, Position, Role, UserView},
    ids::{ChannelId, WebhookId},
};
use serde_json::{Value, json};

use crate::{
    error::AppError,
    random,
    rooms::{EventsSince, Rooms},
    store::{NewAudit, Store, Webhook},
};

pub use self::{
    bounds::OutboxLimits,
    contacts::Listed,
    email::{EmailError, ask_mail_server},
    outbox::{Outbox, OutboxConfig, OutboxError},
    preferences::{Preferences, QuietHours, Ways},
    push::VapidError,
};

/// The longest URL of a webhook, in bytes.
const URL_BYTES_MAX: usize = 2_000;

/// Webhooks, and what they are told. Cheap to clone.
#[derive(Clone)]
pub struct Notify {
    store: Store,
    rooms: Rooms,
    http: reqwest::Client,
    /// A webhook of this node's has something to tell sooner than usual: it was made, or is tried again.
    due: Arc<tokio::sync::Notify>,
}

impl Notify {
    /// Webhooks of the channels in `rooms`, kept in `store` and told by `http`.
    #[must_use]
    pub fn new(store: Store, rooms: Rooms, http: reqwest::Client) -> Self {
        Self { store, rooms, http, due: Arc::default() }
    }

    /// Makes a webhook that is told everything which happens in a channel from now on.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for all but administrators, since the server calls whatever URL is named; `CHANNEL_NOT_FOUND`,
    /// `INVALID_INPUT`, `LIMIT_REACHED`; `TEMPORARILY_UNAVAILABLE` while the journal cannot be reached.
    pub async fn create(&self, caller: &UserView, channel: ChannelId, url: &str) -> Result<Webhook, AppError> {
        self.require(caller, channel).await?;
        check_url(url)?;
        let position = self.rooms.journal_position(channel).await?;
        // The URL stays out of the log: it may hold a secret of whoever is called.
        self.audit(caller, "webhook.create", channel, json!({})).await?;
        let webhook = self.store.create_webhook(channel, caller.id, (url, &random::text::<32>()), &position).await?;
        self.due.notify_one();
        Ok(webhook)
    }

    /// A channel's webhooks.
    ///
    /// # Errors
    /// As [`Notify::create`].
    pub async fn list(&self, caller: &UserView, channel: ChannelId) -> Result<Vec<Webhook>, AppError> {
        self.require(caller, channel).await?;
        Ok(self.store.webhooks(channel).await?)
    }

    /// Deletes a webhook.
    ///
    /// # Errors
    /// As [`Notify::create`]; `NOT_FOUND`.
    pub async fn delete(&self, caller: &UserView, channel: ChannelId, id: WebhookId) -> Result<(), AppError> {
        self.require(caller, channel).await?;
        self.audit(caller, "webhook.delete", channel, json!({ "webhook_id": id })).await?;
        found(self.store.delete_webhook(channel, id).await?)
    }

    /// Tries a webhook again that was given up, from where it was left; it is the caller's from then on.
    ///
    /// # Errors
    /// As [`Notify::delete`].
    pub async fn retry(&self, caller: &UserView, channel: ChannelId, id: WebhookId) -> Result<(), AppError> {
        self.require(caller, channel).await?;
        self.audit(caller, "webhook.retry", channel, json!({ "webhook_id": id })).await?;
        found(self.store.retry_webhook(channel, id, caller.id).await?)?;
        self.due.notify_one();
        Ok(())
    }

    /// What happened in a channel after a place in its journal.
    ///
    /// # Errors
    /// As [`Notify::create`].
    pub async fn events(
        &self,
        caller: &UserView,
        channel: ChannelId,
        after: &Position,
    ) -> Result<EventsSince, AppError> {
        self.require(caller, channel).await?;
        Ok(self.rooms.events_since(channel, after).await?)
    }

    async fn require(&self, caller: &UserView, channel: ChannelId) -> Result<(), AppError> {
        // The token may be older than the role: what the database says holds.
        if caller.role != Role::Admin || !self.store.is_admin(caller.id).await? {
            return Err(AppError::new(ErrorCode::PermissionDenied, "webhooks are for administrators"));
        }
        let channel = self.store.channel(channel).await?;
        channel.map(|_| ()).ok_or_else(|| AppError::new(ErrorCode::ChannelNotFound, "there is no channel with this id"))
    }

    /// Writes down what somebody is about to do to a channel's webhooks.
    async fn audit(
        &self,
        caller: &UserView,
        action: &'static str,
        channel: ChannelId,
        detail: Value,
    ) -> Result<(), AppError> {
        let (actor, actor_name, target) = (caller.id, caller.username.clone(), Some(channel.to_string()));
        Ok(self.store.record_audit(NewAudit { actor, actor_name, action, target, detail }).await?)
    }
}

fn found(is_found: bool) -> Result<(), AppError> {
    if is_found { Ok(()) } else { Err(AppError::new(ErrorCode::NotFound, "there is no webhook with this id")) }
}

fn check_url(url: &str) -> Result<(), AppError> {
    let parsed = reqwest::Url::parse(url).ok().filter(|_| url.len() <= URL_BYTES_MAX);
    if parsed.is_some_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
        return Ok(());
    }
    Err(AppError::new(
        ErrorCode::InvalidInput,
        format!("url must be an http or https URL of at most {URL_BYTES_MAX} bytes"),
    ))
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notify")
    }
}
