//! What one is told of, and how: notifications, preferences, addresses, browsers.

use std::sync::Arc;

use antiphon_core::{
    gateway::NotificationKind,
    ids::{ChannelId, DeliveryId, MessageId, NotificationId, PushId, UserId},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    advanced::audit,
    answer::{Answer, Created},
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Admin, Body, Caller, PathOf, QueryOf},
};
use crate::{
    chat::notification_data,
    notify::{Listed, Preferences},
    store::{Address, Delivery, DeliveryState, PushSubscription, Way, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(notifications))
        .routes(routes!(read))
        .routes(routes!(preferences, set_preferences))
        .routes(routes!(addresses))
        .routes(routes!(set_address, forget_address))
        .routes(routes!(confirm_address))
        .routes(routes!(push, subscribe))
        .routes(routes!(unsubscribe))
        .routes(routes!(given_up))
        .routes(routes!(retry))
}

/// Notifications of one page where none are asked for.
const PAGE: u32 = 50;

/// Which notifications.
#[derive(Deserialize)]
struct PageQuery {
    limit: Option<u32>,
    before: Option<NotificationId>,
    #[serde(default)]
    unread: bool,
}

/// One way outside that a notification takes.
#[derive(Serialize, ToSchema)]
struct DeliveryView {
    /// Which.
    way: Way,
    /// How far it has got.
    state: DeliveryState,
    /// Attempts that were made.
    attempts: u32,
    /// When it is tried next, RFC 3339; null once it is done.
    next_at: Option<String>,
    /// When it was done, RFC 3339.
    done_at: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        let waits = delivery.state == DeliveryState::Waiting;
        Self {
            way: delivery.way,
            state: delivery.state,
            attempts: delivery.attempts,
            next_at: waits.then(|| rfc3339(delivery.next_at)),
            done_at: delivery.done_at.map(rfc3339),
        }
    }
}

/// Something that one is told of.
#[derive(Serialize, ToSchema)]
struct NotificationView {
    /// Grows with time.
    id: NotificationId,
    /// Why.
    kind: NotificationKind,
    /// Who wrote, or invited.
    from_user: UserId,
    /// What they were called then.
    username: String,
    /// RFC 3339.
    created_at: String,
    /// The beginning of the message as it is now; empty for an invitation.
    content: String,
    /// The channel's name; null between two people.
    room: Option<String>,
    /// The channel's id.
    channel_id: Option<ChannelId>,
    /// The message.
    message_id: Option<MessageId>,
    /// When one has read it, RFC 3339; null: not yet.
    read_at: Option<String>,
    /// The ways outside that it takes.
    deliveries: Vec<DeliveryView>,
}

impl From<Listed> for NotificationView {
    fn from(Listed { notification, deliveries }: Listed) -> Self {
        let data = notification_data(&notification);
        Self {
            id: data.id,
            kind: data.kind,
            from_user: data.from_user,
            username: data.username,
            created_at: data.timestamp,
            content: data.content,
            room: data.room,
            channel_id: data.channel_id,
            message_id: data.message_id,
            read_at: notification.read_at.map(rfc3339),
            deliveries: deliveries.into_iter().map(DeliveryView::from).collect(),
        }
    }
}

/// A page of notifications.
#[derive(Serialize, ToSchema)]
struct NotificationsPage {
    /// The newest first.
    notifications: Vec<NotificationView>,
    /// How many of all are unread; 1000 stands for that many or more.
    unread: u32,
}

/// What one was told of, the newest first. What one may not read any more is not among it.
#[utoipa::path(get, path = "/api/v1/users/me/notifications", tag = "notifications",
    params(("limit" = Option<u32>, Query, description = "At most so many, 1 to 100; 50"),
        ("before" = Option<NotificationId>, Query, description = "Only older ones than this"),
        ("unread" = Option<bool>, Query, description = "Only those that are not read")),
    responses((status = OK, description = "The notifications", body = Answer<NotificationsPage>)))]
async fn notifications(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> ApiResult<Answer<NotificationsPage>> {
    let limit = query.limit.unwrap_or(PAGE);
    let (found, unread) = api.outbox.list(caller.id, query.before, query.unread, limit).await?;
    Ok(Answer::of(NotificationsPage { notifications: found.into_iter().map(NotificationView::from).collect(), unread }))
}

/// What was read: one of the two.
#[derive(Deserialize, ToSchema)]
struct ReadBody {
    /// This notification.
    id: Option<NotificationId>,
    /// This one and all before it.
    up_to: Option<NotificationId>,
}

/// How much is left.
#[derive(Serialize, ToSchema)]
struct UnreadLeft {
    /// How many are unread; 1000 stands for that many or more.
    unread: u32,
}

/// Marks a notification as read, or all up to one. What was read does not go outside any more.
#[utoipa::path(post, path = "/api/v1/users/me/notifications/read", tag = "notifications", request_body = ReadBody,
    responses((status = OK, description = "How much is left", body = Answer<UnreadLeft>),
        (status = NOT_FOUND, description = "`NOT_FOUND`", body = ErrorBody)))]
async fn read(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    Body(body): Body<ReadBody>,
) -> ApiResult<Answer<UnreadLeft>> {
    let (id, and_before) = match (body.id, body.up_to) {
        (Some(id), None) => (id, false),
        (None, Some(up_to)) => (up_to, true),
        _ => return Err(ApiError::invalid("give either `id` or `up_to`")),
    };
    Ok(Answer::of(UnreadLeft { unread: api.outbox.read(caller.id, id, and_before).await? }))
}

/// What one wants to be told and how.
#[utoipa::path(get, path = "/api/v1/users/me/notifications/preferences", tag = "notifications",
    operation_id = "notification_preferences",
    responses((status = OK, description = "The preferences", body = Answer<Preferences>)))]
async fn preferences(State(api): State<Arc<Api>>, Caller(caller): Caller) -> ApiResult<Answer<Preferences>> {
    Ok(Answer::of(api.outbox.preferences_of(caller.id).await?))
}

/// Sets all of what one wants to be told and how; what is absent is as it is for those who never said.
#[utoipa::path(put, path = "/api/v1/users/me/notifications/preferences", tag = "notifications",
    operation_id = "set_notification_preferences", request_body = Preferences,
    responses((status = OK, description = "The preferences as they are now", body = Answer<Preferences>)))]
async fn set_preferences(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    Body(preferences): Body<Preferences>,
) -> ApiResult<Answer<Preferences>> {
    api.outbox.set_preferences(caller.id, &preferences).await?;
    Ok(Answer::of(api.outbox.preferences_of(caller.id).await?))
}

/// A way to be told outside.
#[derive(Default, Serialize, ToSchema)]
struct AddressView {
    /// Whether this server sends anything this way.
    available: bool,
    /// The address that is told, which was confirmed by a code.
    address: Option<String>,
    /// The one that a code was sent to.
    pending: Option<String>,
}

/// Where one is told outside.
#[derive(Serialize, ToSchema)]
struct AddressesView {
    /// By mail.
    email: AddressView,
    /// By short message.
    sms: AddressView,
}

/// Where one is told outside.
#[utoipa::path(get, path = "/api/v1/users/me/notifications/addresses", tag = "notifications",
    responses((status = OK, description = "The addresses", body = Answer<AddressesView>)))]
async fn addresses(State(api): State<Arc<Api>>, Caller(caller): Caller) -> ApiResult<Answer<AddressesView>> {
    let known = api.outbox.addresses(caller.id).await?;
    let view = |way: Way| {
        let found = known.iter().find(|address| address.way == way).cloned();
        let Address { confirmed, pending, .. } = found.unwrap_or(Address { way, confirmed: None, pending: None });
        AddressView { available: api.outbox.has(way), address: confirmed, pending }
    };
    Ok(Answer::of(AddressesView { email: view(Way::Email), sms: view(Way::Sms) }))
}

/// Where to be told.
#[derive(Deserialize, ToSchema)]
struct AddressBody {
    /// A mail address, or a phone number with its country.
    #[schema(example = "ada@example.org")]
    address: String,
}

/// What was done with an address.
#[derive(Serialize, ToSchema)]
struct AddressDone {
    /// Which way.
    way: Way,
}

/// Sends a code to an address. The address before holds until the code comes back.
#[utoipa::path(put, path = "/api/v1/users/me/notifications/addresses/{way}", tag = "notifications",
    params(("way" = Way, Path, description = "`email` or `sms`")), request_body = AddressBody,
    responses((status = OK, description = "The code was sent", body = Answer<AddressDone>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: guests have no addresses", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: it could not be sent", body = ErrorBody)))]
async fn set_address(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(way): PathOf<Way>,
    Body(body): Body<AddressBody>,
) -> ApiResult<Answer<AddressDone>> {
    api.outbox.set_address(&caller, way, &body.address).await?;
    Ok(Answer::of(AddressDone { way }))
}

/// Forgets an address, confirmed or not.
#[utoipa::path(delete, path = "/api/v1/users/me/notifications/addresses/{way}", tag = "notifications",
    params(("way" = Way, Path, description = "`email` or `sms`")),
    responses((status = OK, description = "Nothing is sent there any more", body = Answer<AddressDone>)))]
async fn forget_address(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(way): PathOf<Way>,
) -> ApiResult<Answer<AddressDone>> {
    api.outbox.forget_address(caller.id, way).await?;
    Ok(Answer::of(AddressDone { way }))
}

/// A code that came to an address.
#[derive(Deserialize, ToSchema)]
struct CodeBody {
    /// Eight digits.
    #[schema(example = "01234567")]
    code: String,
}

/// Confirms the address that a code was sent to.
#[utoipa::path(post, path = "/api/v1/users/me/notifications/addresses/{way}/confirm", tag = "notifications",
    params(("way" = Way, Path, description = "`email` or `sms`")), request_body = CodeBody,
    responses((status = OK, description = "The address is told from now on", body = Answer<AddressDone>)))]
async fn confirm_address(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(way): PathOf<Way>,
    Body(body): Body<CodeBody>,
) -> ApiResult<Answer<AddressDone>> {
    api.outbox.confirm_address(caller.id, way, &body.code).await?;
    Ok(Answer::of(AddressDone { way }))
}

/// A browser.
#[derive(Serialize, ToSchema)]
struct PushView {
    /// Its id.
    id: PushId,
    /// The host of its push service.
    service: String,
    /// RFC 3339.
    created_at: String,
}

impl From<PushSubscription> for PushView {
    fn from(subscription: PushSubscription) -> Self {
        let url = reqwest::Url::parse(&subscription.endpoint).ok();
        let service = url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Self { id: subscription.id, service, created_at: rfc3339(subscription.created_at) }
    }
}

/// What a browser needs to subscribe, and those that did.
#[derive(Serialize, ToSchema)]
struct PushPage {
    /// The `applicationServerKey`, in base64url; null where this server sends nothing to browsers.
    public_key: Option<String>,
    /// One's browsers.
    subscriptions: Vec<PushView>,
}

/// What a browser needs to subscribe, and those of one's own that did.
#[utoipa::path(get, path = "/api/v1/users/me/notifications/push", tag = "notifications",
    operation_id = "push_subscriptions",
    responses((status = OK, description = "The key and the browsers", body = Answer<PushPage>)))]
async fn push(State(api): State<Arc<Api>>, Caller(caller): Caller) -> ApiResult<Answer<PushPage>> {
    let subscriptions = api.outbox.push_subscriptions(caller.id).await?.into_iter().map(PushView::from).collect();
    Ok(Answer::of(PushPage { public_key: api.outbox.push_key().map(str::to_owned), subscriptions }))
}

/// A browser's subscription, as `PushSubscription.toJSON()` gives it.
#[derive(Deserialize, ToSchema)]
struct PushBody {
    /// Where its push service takes messages for it: an https URL.
    endpoint: String,
    /// What messages are sealed with.
    keys: PushKeys,
}

/// What messages for a browser are sealed with, in base64url.
#[derive(Deserialize, ToSchema)]
struct PushKeys {
    /// Its public key.
    p256dh: String,
    /// The secret that it shares.
    auth: String,
}

/// Subscribes a browser; again does no harm. One that was somebody else's is one's own then.
#[utoipa::path(post, path = "/api/v1/users/me/notifications/push", tag = "notifications",
    operation_id = "subscribe_push", request_body = PushBody,
    responses((status = CREATED, description = "The browser", body = Answer<PushView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: guests subscribe none", body = ErrorBody),
        (status = CONFLICT, description = "`LIMIT_REACHED`: one has ten browsers", body = ErrorBody)))]
async fn subscribe(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    Body(PushBody { endpoint, keys }): Body<PushBody>,
) -> ApiResult<Created<PushView>> {
    let subscription = api.outbox.subscribe(&caller, &endpoint, &keys.p256dh, &keys.auth).await?;
    Ok(Created(subscription.into()))
}

/// Which browser.
#[derive(Serialize, ToSchema)]
struct PushDone {
    /// Which.
    id: PushId,
}

/// Forgets a browser.
#[utoipa::path(delete, path = "/api/v1/users/me/notifications/push/{id}", tag = "notifications",
    operation_id = "unsubscribe_push", params(("id" = PushId, Path, description = "Which")),
    responses((status = OK, description = "It is told nothing more", body = Answer<PushDone>)))]
async fn unsubscribe(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<PushId>,
) -> ApiResult<Answer<PushDone>> {
    api.outbox.unsubscribe(caller.id, id).await?;
    Ok(Answer::of(PushDone { id }))
}

/// A delivery that was given up.
#[derive(Serialize, ToSchema)]
struct GivenUpView {
    /// Its id: the same in each attempt, as receivers saw it.
    id: DeliveryId,
    /// Of which notification.
    notification_id: NotificationId,
    /// To whom.
    user_id: UserId,
    /// Which way.
    way: Way,
    /// Attempts that were made.
    attempts: u32,
    /// Why the last one failed.
    error: Option<String>,
    /// When it was given up, RFC 3339.
    given_up_at: Option<String>,
}

impl From<Delivery> for GivenUpView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            notification_id: delivery.notification,
            user_id: delivery.user,
            way: delivery.way,
            attempts: delivery.attempts,
            error: delivery.last_error,
            given_up_at: delivery.done_at.map(rfc3339),
        }
    }
}

/// What could not be sent outside, the latest first, at most 200.
#[utoipa::path(get, path = "/api/advanced/admin/notifications", tag = "admin", operation_id = "given_up_notifications",
    responses((status = OK, description = "What was given up", body = Answer<Vec<GivenUpView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn given_up(State(api): State<Arc<Api>>, _: Admin) -> ApiResult<Answer<Vec<GivenUpView>>> {
    Ok(Answer::of(api.outbox.given_up().await?.into_iter().map(GivenUpView::from).collect()))
}

/// Which delivery.
#[derive(Serialize, ToSchema)]
struct Retried {
    /// Which.
    id: DeliveryId,
}

/// Tries again at once what was given up.
#[utoipa::path(post, path = "/api/advanced/admin/notifications/{id}/retry", tag = "admin",
    operation_id = "retry_notification", params(("id" = DeliveryId, Path, description = "Which")),
    responses((status = OK, description = "It is tried again", body = Answer<Retried>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators", body = ErrorBody)))]
async fn retry(
    State(api): State<Arc<Api>>,
    Admin(admin): Admin,
    PathOf(id): PathOf<DeliveryId>,
) -> ApiResult<Answer<Retried>> {
    audit(&api, &admin, "notification.retry", Some(id.to_string()), serde_json::json!({})).await?;
    api.outbox.retry(id).await?;
    Ok(Answer::of(Retried { id }))
}
