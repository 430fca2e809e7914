//! Webhooks: places outside that are told what happens in a channel. For administrators.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, Position},
    ids::{ChannelId, WebhookId},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::{Answer, Created},
    error::{ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf, QueryOf},
};
use crate::{
    error::AppError,
    rooms::event_json,
    store::{Webhook, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(webhooks, create_webhook))
        .routes(routes!(delete_webhook))
        .routes(routes!(retry_webhook))
        .routes(routes!(events))
}

/// Where to post.
#[derive(Deserialize, ToSchema)]
struct NewWebhook {
    /// An `http` or `https` URL.
    #[schema(example = "https://example.org/hooks/antiphon")]
    url: String,
}

/// A webhook.
#[derive(Serialize, ToSchema)]
struct WebhookView {
    /// Its id.
    id: WebhookId,
    /// Whose events.
    channel_id: ChannelId,
    /// Where they are posted.
    url: String,
    /// What signs them: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// The epoch of the place up to which everything was posted.
    epoch: String,
    /// Its offset.
    offset: u64,
    /// Attempts that failed since the last that did not.
    failures: u32,
    /// Why the last one failed.
    last_error: Option<String>,
    /// When it is tried next, RFC 3339.
    next_at: String,
    /// Since when it is not tried any more, RFC 3339; null: it is.
    given_up_at: Option<String>,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: webhook.id,
            channel_id: webhook.channel,
            url: webhook.url,
            secret: None,
            epoch: webhook.position.epoch,
            offset: webhook.position.offset,
            failures: webhook.failures,
            last_error: webhook.last_error,
            next_at: rfc3339(webhook.next_at),
            given_up_at: webhook.given_up_at.map(rfc3339),
        }
    }
}

/// A channel's webhooks.
#[utoipa::path(get, path = "/api/channels/{id}/webhooks", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The webhooks", body = Answer<Vec<WebhookView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn webhooks(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Vec<WebhookView>>> {
    Ok(Answer::of(api.notify.list(&caller, id).await?.into_iter().map(WebhookView::from).collect()))
}

/// Makes a webhook that is told everything which happens in a channel from now on.
#[utoipa::path(post, path = "/api/channels/{id}/webhooks", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = NewWebhook,
    responses((status = CREATED, description = "The webhook, with its secret", body = Answer<WebhookView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn create_webhook(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(new): Body<NewWebhook>,
) -> ApiResult<Created<WebhookView>> {
    let webhook = api.notify.create(&caller, id, &new.url).await?;
    let secret = Some(webhook.secret.clone());
    Ok(Created(WebhookView { secret, ..webhook.into() }))
}

/// Which webhook something was done to.
#[derive(Serialize, ToSchema)]
struct Done {
    /// Which.
    id: WebhookId,
}

/// Deletes a webhook.
#[utoipa::path(delete, path = "/api/channels/{id}/webhooks/{webhook}", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("webhook" = WebhookId, Path, description = "Which")),
    responses((status = OK, description = "It is told nothing more", body = Answer<Done>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn delete_webhook(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, webhook)): PathOf<(ChannelId, WebhookId)>,
) -> ApiResult<Answer<Done>> {
    api.notify.delete(&caller, id, webhook).await?;
    Ok(Answer::of(Done { id: webhook }))
}

/// Tries a webhook again that was given up, from where it was left.
#[utoipa::path(post, path = "/api/channels/{id}/webhooks/{webhook}/retry", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("webhook" = WebhookId, Path, description = "Which")),
    responses((status = OK, description = "It is tried at once", body = Answer<Done>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn retry_webhook(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, webhook)): PathOf<(ChannelId, WebhookId)>,
) -> ApiResult<Answer<Done>> {
    api.notify.retry(&caller, id, webhook).await?;
    Ok(Answer::of(Done { id: webhook }))
}

/// From where on.
#[derive(Deserialize)]
struct EventsQuery {
    after: String,
}

/// What happened.
#[derive(Serialize, ToSchema)]
struct Events {
    /// Whether `events` is all that happened; else the journal does not reach back so far.
    complete: bool,
    /// Each as the gateway's clients get it, in order.
    #[schema(value_type = Vec<Object>)]
    events: Vec<serde_json::Value>,
    /// The epoch of the newest place.
    epoch: String,
    /// Its offset.
    offset: u64,
}

/// What happened in a channel after a place in its journal: what a webhook was told, once more.
#[utoipa::path(get, path = "/api/channels/{id}/events", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id"),
        ("after" = String, Query, description = "A place in the journal: `epoch:offset`")),
    responses((status = OK, description = "The events", body = Answer<Events>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn events(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    QueryOf(query): QueryOf<EventsQuery>,
) -> ApiResult<Answer<Events>> {
    let place = query
        .after
        .rsplit_once(':')
        .and_then(|(epoch, offset)| Some(Position { epoch: epoch.to_owned(), offset: offset.parse().ok()? }));
    let place = place.ok_or_else(|| AppError::new(ErrorCode::InvalidInput, "after must be `epoch:offset`"))?;
    let since = api.notify.events(&caller, id, &place).await?;
    let complete = since.events.is_some();
    let events = since.events.unwrap_or_default().iter().map(|(_, event)| event_json(event)).collect();
    Ok(Answer::of(Events { complete, events, epoch: since.position.epoch, offset: since.position.offset }))
}
