//! Rooms: making one, looking at it, entering and leaving.

use std::sync::Arc;

use antiphon_core::{
    gateway::{IceServer, Role, RoomView, UserView},
    ids::{ChannelId, UserId},
};
use axum::{
    extract::State,
    http::{HeaderMap, header},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Addresses, Api,
    answer::{Answer, Created},
    error::{ApiResult, ErrorBody},
    extract::{Body, Caller, MaybeCaller, PathOf},
};
use crate::{
    auth::{Tokens, bearer_token},
    client_address::ClientAddress,
    random,
    rooms::RoomRequest,
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create_room))
        .routes(routes!(room))
        .routes(routes!(join_room))
        .routes(routes!(leave_room))
}

/// A new room.
#[derive(Deserialize, ToSchema)]
struct RoomBody {
    /// 1 to 32 printable characters, unique without regard to case.
    #[schema(example = "Standup")]
    name: String,
    /// How many may publish at once; all when absent or 0.
    #[schema(example = 10)]
    max_publishers: Option<u32>,
    /// How many may be in it at once; the server's default when absent.
    #[schema(example = 20, minimum = 1)]
    max_users: Option<u32>,
}

/// Makes a room: a channel that ends some time after everybody has left. Without a token a guest makes it, where guests are
/// allowed.
#[utoipa::path(post, path = "/api/v1/rooms", tag = "rooms", security((), ("bearer" = [])), request_body = RoomBody,
    responses((status = CREATED, description = "The room", body = Answer<RoomView>),
        (status = CONFLICT, description = "`CONFLICT`: the name is taken; `LIMIT_REACHED`: there are as many channels as there may be", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: this address made many a moment ago", body = ErrorBody)))]
async fn create_room(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    MaybeCaller(caller): MaybeCaller,
    Body(body): Body<RoomBody>,
) -> ApiResult<Created<RoomView>> {
    if caller.as_ref().is_none_or(|caller| caller.role != Role::Admin) {
        api.limits.check_new_channel(client)?;
    }
    let caller = match caller {
        Some(caller) => caller,
        None => guest(&api, client, None).await?.user,
    };
    let RoomBody { name, max_publishers, max_users } = body;
    Ok(Created(api.directory.create_room(&caller, RoomRequest { name, max_publishers, max_users }).await?))
}

/// A room. Any public channel is one.
#[utoipa::path(get, path = "/api/v1/rooms/{id}", tag = "rooms", security(()),
    params(("id" = ChannelId, Path, description = "The room's id")),
    responses((status = OK, description = "The room", body = Answer<RoomView>)))]
async fn room(State(api): State<Arc<Api>>, PathOf(id): PathOf<ChannelId>) -> ApiResult<Answer<RoomView>> {
    Ok(Answer::of(api.directory.room(id).await?))
}

/// Who enters.
#[derive(Deserialize, ToSchema)]
struct JoinBody {
    /// The name to show, 1 to 64 printable characters.
    #[schema(example = "Alice")]
    display: String,
}

/// What entering a room takes.
#[derive(Serialize, ToSchema)]
struct Entry {
    /// The room.
    room_id: ChannelId,
    /// Oneself among its publishers.
    participant_id: UserId,
    /// For the WebSocket, as `&token=…` behind its URL or in `Authorization`: a guest's, which lasts 15 minutes unless set
    /// otherwise, or the one that the request came with.
    token: String,
    /// Where to connect; send `join_room` there.
    #[schema(example = "ws://voice.example.org/ws?room_id=…")]
    ws_url: String,
    /// For both WebRTC connections.
    ice_servers: Vec<IceServer>,
}

/// Says how to enter a room; without a token it makes a guest. One is in it once `join_room` was sent by the WebSocket.
#[utoipa::path(post, path = "/api/v1/rooms/{id}/join", tag = "rooms", security((), ("bearer" = [])), request_body = JoinBody,
    params(("id" = ChannelId, Path, description = "The room's id")),
    responses((status = OK, description = "How to enter", body = Answer<Entry>)))]
async fn join_room(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    MaybeCaller(caller): MaybeCaller,
    PathOf(id): PathOf<ChannelId>,
    headers: HeaderMap,
    Body(body): Body<JoinBody>,
) -> ApiResult<Answer<Entry>> {
    api.directory.room(id).await?;
    let (user, token): (UserView, String) = match (caller, bearer_token(&headers)?) {
        (Some(caller), Some(token)) => (caller, token.to_owned()),
        _ => {
            let tokens = guest(&api, client, Some(&body.display)).await?;
            (tokens.user, tokens.access_token)
        }
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = host.unwrap_or_else(|| Addresses::from_here(api.addresses.http));
    let forwarded = headers.get("x-forwarded-proto");
    let is_secure = api.settings.server.tls_certificate.is_some()
        || forwarded.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let scheme = if is_secure { "wss" } else { "ws" };
    Ok(Answer::of(Entry {
        room_id: id,
        participant_id: user.id,
        token,
        ws_url: format!("{scheme}://{host}/ws?room_id={id}"),
        ice_servers: api.gateway.rooms().ice_servers(user.id),
    }))
}

/// That one has left.
#[derive(Serialize, ToSchema)]
struct Left {
    /// Whether one was in the room.
    left: bool,
}

/// Leaves a room, whatever connection one is in it by.
#[utoipa::path(post, path = "/api/v1/rooms/{id}/leave", tag = "rooms",
    params(("id" = ChannelId, Path, description = "The room's id")),
    responses((status = OK, description = "One has left", body = Answer<Left>)))]
async fn leave_room(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Left>> {
    Ok(Answer::of(Left { left: api.gateway.rooms().leave_as(id, caller.id).await? }))
}

/// Somebody without an account, whose name nobody else has.
async fn guest(api: &Api, client: ClientAddress, display: Option<&str>) -> ApiResult<Tokens> {
    let username = format!("guest-{}", random::text::<9>());
    Ok(api.auth.guest(client.0, &username, display.or(Some("Guest"))).await?)
}
