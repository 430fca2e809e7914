//! WebRTC without a gateway connection, as standard tools speak it: publishing by WHIP (RFC 9725), playing by WHEP.
//!
//! A client sends an offer with its bearer token and is a member of the channel until it deletes its session, or is not
//! heard any more.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, IceServer, JoinChannel, LeaveReason, MediaMode, MediaTransport, PeerRole, UserView},
    ids::{ChannelId, SessionId, UserId},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dashmap::DashMap;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Api,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Caller, PathOf, Text},
    fragment::{candidates, entity_tag, expect_state, username_fragment},
    one_way::one_way,
};
use crate::{
    client_address::ReachedAddress,
    error::AppError,
    rooms::{Link, Presence, Rooms, Unheard},
};

/// When to come again to a node that is about to stop.
const RETRY_AFTER_S: u64 = 1;
const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(publish))
        .routes(routes!(play))
        .routes(routes!(end_publishing, trickle_publishing))
        .routes(routes!(end_playing, trickle_playing))
}

/// The sessions of clients without a gateway connection.
#[derive(Default)]
pub struct Standalone(DashMap<Uuid, Session>);

#[derive(Clone)]
struct Session {
    presence: Arc<Presence>,
    channel: ChannelId,
    role: PeerRole,
    /// The name by which its client makes its checks.
    username_fragment: Option<Box<str>>,
}

impl Standalone {
    /// Forgets sessions that are over. To be called now and then.
    pub fn sweep(&self) {
        self.0.retain(|_, session| session.presence.is_in(session.channel));
    }

    /// The session of a path, by the channel and the id that are named there.
    fn of(&self, (channel, id): (&str, &str), caller: UserId, role: PeerRole) -> ApiResult<(Uuid, Session)> {
        let gone = || ApiError::new(ErrorCode::NotFound, "there is no such session, or it is over");
        let id = id.parse().map_err(|_| gone())?;
        let is_it = |session: &Session| {
            let is_named = channel.parse().is_ok_and(|channel: ChannelId| channel == session.channel);
            is_named && session.role == role && session.presence.user_id() == caller
        };
        let session = self.0.get(&id).filter(|session| is_it(session));
        Ok((id, session.ok_or_else(gone)?.clone()))
    }
}

/// Publishes into a channel by WHIP (RFC 9725): one is a member of it until the session is deleted or its client is gone.
#[utoipa::path(post, path = "/whip/{channel}", operation_id = "whip", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel's id or name")),
    request_body(content = String, content_type = "application/sdp", description = "An SDP offer"),
    responses((status = CREATED, description = "An SDP answer; `Location` is the session's path", content_type = "application/sdp", body = String),
        (status = CONFLICT, description = "`CHANNEL_FULL` or `LIMIT_REACHED`", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: the account made as many offers as it may in a minute", body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "`INVALID_INPUT`: the body must be `application/sdp`", body = ErrorBody)))]
async fn publish(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(channel): PathOf<String>,
    Extension(reached): Extension<ReachedAddress>,
    headers: HeaderMap,
    Text(sdp): Text,
) -> ApiResult<Response> {
    begin(&api, caller, &channel, (&headers, reached), &sdp, PeerRole::Publisher).await
}

/// Plays a channel by WHEP: one is a member of it until the session is deleted or its client is gone.
#[utoipa::path(post, path = "/whep/{channel}", operation_id = "whep", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel's id or name")),
    request_body(content = String, content_type = "application/sdp", description = "An SDP offer"),
    responses((status = CREATED, description = "An SDP answer; `Location` is the session's path", content_type = "application/sdp", body = String),
        (status = CONFLICT, description = "`CHANNEL_FULL` or `LIMIT_REACHED`", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: the account made as many offers as it may in a minute", body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "`INVALID_INPUT`: the body must be `application/sdp`", body = ErrorBody)))]
async fn play(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(channel): PathOf<String>,
    Extension(reached): Extension<ReachedAddress>,
    headers: HeaderMap,
    Text(sdp): Text,
) -> ApiResult<Response> {
    begin(&api, caller, &channel, (&headers, reached), &sdp, PeerRole::Subscriber).await
}

async fn begin(
    api: &Api,
    caller: UserView,
    channel: &str,
    (headers, reached): (&HeaderMap, ReachedAddress),
    sdp: &str,
    role: PeerRole,
) -> ApiResult<Response> {
    expect_type(headers, SDP)?;
    if api.health.is_draining() {
        let message = "this node is about to stop: come to another";
        return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_AFTER_S).into());
    }
    let rooms = api.gateway.rooms();
    rooms.count_offer(caller.id)?;
    // Read before its client enters, who leaves by that wherever else they are in the channel.
    let offer = Rooms::read_offer(sdp, role)?;
    let username_fragment = username_fragment(sdp)?.map(Into::into);
    let channel_id = channel_named(api, channel).await?;
    let user = caller.id;
    // It hears no mix: nothing is counted by its address.
    let link = Link {
        outlet: Arc::new(Unheard),
        reached_host: reached_host(api, headers),
        reached_address: Some(reached.0),
        address: None,
    };
    let presence = Arc::new(Presence::standalone(SessionId(Uuid::now_v7()), caller, link));
    let join = JoinChannel {
        channel_id,
        media: MediaTransport::Webrtc,
        mode: MediaMode::Forward,
        cipher: None,
        sample_rate: None,
        channels: None,
        invite: None,
    };
    let joined = rooms.join(&presence, &join, None).await;
    joined.map_err(|error| if error.code == ErrorCode::ChannelNotFound { unknown_channel() } else { error.into() })?;
    let answered = match role {
        PeerRole::Publisher => rooms.publish_in(&presence, channel_id, offer).await,
        PeerRole::Subscriber => rooms.play_in(&presence, channel_id, offer).await,
    };
    let answered = answered.map_err(ApiError::from);
    let answer = match answered.and_then(|answer| one_way(&answer, role).ok_or_else(|| nothing_flows(role))) {
        Ok(answer) => answer,
        Err(error) => {
            rooms.end(&presence, LeaveReason::Left).await;
            return Err(error);
        }
    };
    let session = Uuid::new_v4();
    api.standalone.0.insert(session, Session { presence, channel: channel_id, role, username_fragment });
    Ok(created(answer, (role, channel_id, session), &rooms.ice_servers(user)))
}

/// The answer that there is a session now, with where it is and which other servers help its client.
fn created(
    answer: String,
    (role, channel, session): (PeerRole, ChannelId, Uuid),
    ice_servers: &[IceServer],
) -> Response {
    let path = if role == PeerRole::Publisher { "whip" } else { "whep" };
    let mut response = (StatusCode::CREATED, answer).into_response();
    let answered = response.headers_mut();
    answered.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    answered.insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    answered.insert(header::LOCATION, text(format!("/{path}/{channel}/{session}")));
    answered.insert(header::ETAG, text(entity_tag(session)));
    for link in ice_servers.iter().flat_map(links) {
        answered.append(header::LINK, text(link));
    }
    response
}

fn nothing_flows(role: PeerRole) -> ApiError {
    ApiError::invalid(match role {
        PeerRole::Publisher => {
            "all that is offered must be Opus, or VP8, VP9, H.264 or AV1 video, and one section at least be sendonly"
        }
        PeerRole::Subscriber => {
            "a section of Opus, or of VP8, VP9, H.264 or AV1 video, must be offered that is recvonly"
        }
    })
}

/// Ends a session of WHIP.
#[utoipa::path(delete, path = "/whip/{channel}/{session}", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel"), ("session" = String, Path, description = "The session")),
    responses((status = OK, description = "One has left the channel")))]
async fn end_publishing(api: State<Arc<Api>>, caller: Caller, path: PathOf<(String, String)>) -> ApiResult<StatusCode> {
    end(api, caller, path, PeerRole::Publisher).await
}

/// Tells a session of WHIP of more ways to its client.
#[utoipa::path(patch, path = "/whip/{channel}/{session}", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel"), ("session" = String, Path, description = "The session")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag", description = "Lines `a=candidate:…`"),
    responses((status = NO_CONTENT, description = "They are taken"),
        (status = CONFLICT, description = "`LIMIT_REACHED`: they are too many, and none is taken", body = ErrorBody),
        (status = PRECONDITION_FAILED, description = "`INVALID_INPUT`: `If-Match` names another entity tag than the session's", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: an ICE restart; another session is begun instead", body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "`INVALID_INPUT`: the body must be `application/trickle-ice-sdpfrag`", body = ErrorBody)))]
async fn trickle_publishing(
    api: State<Arc<Api>>,
    caller: Caller,
    path: PathOf<(String, String)>,
    headers: HeaderMap,
    fragment: Text,
) -> ApiResult<StatusCode> {
    trickle(api, (caller, PeerRole::Publisher), path, headers, fragment).await
}

/// Ends a session of WHEP.
#[utoipa::path(delete, path = "/whep/{channel}/{session}", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel"), ("session" = String, Path, description = "The session")),
    responses((status = OK, description = "One has left the channel")))]
async fn end_playing(api: State<Arc<Api>>, caller: Caller, path: PathOf<(String, String)>) -> ApiResult<StatusCode> {
    end(api, caller, path, PeerRole::Subscriber).await
}

/// Tells a session of WHEP of more ways to its client.
#[utoipa::path(patch, path = "/whep/{channel}/{session}", tag = "webrtc",
    params(("channel" = String, Path, description = "The channel"), ("session" = String, Path, description = "The session")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag", description = "Lines `a=candidate:…`"),
    responses((status = NO_CONTENT, description = "They are taken"),
        (status = CONFLICT, description = "`LIMIT_REACHED`: they are too many, and none is taken", body = ErrorBody),
        (status = PRECONDITION_FAILED, description = "`INVALID_INPUT`: `If-Match` names another entity tag than the session's", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: an ICE restart; another session is begun instead", body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "`INVALID_INPUT`: the body must be `application/trickle-ice-sdpfrag`", body = ErrorBody)))]
async fn trickle_playing(
    api: State<Arc<Api>>,
    caller: Caller,
    path: PathOf<(String, String)>,
    headers: HeaderMap,
    fragment: Text,
) -> ApiResult<StatusCode> {
    trickle(api, (caller, PeerRole::Subscriber), path, headers, fragment).await
}

/// Ends a session: its client leaves the channel.
async fn end(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((channel, session)): PathOf<(String, String)>,
    role: PeerRole,
) -> ApiResult<StatusCode> {
    let (id, session) = api.standalone.of((&channel, &session), caller.id, role)?;
    api.standalone.0.remove(&id);
    api.gateway.rooms().end(&session.presence, LeaveReason::Left).await;
    Ok(StatusCode::OK)
}

/// Takes more ways to a client. A new way for a broken connection (an ICE restart) is another session here.
async fn trickle(
    State(api): State<Arc<Api>>,
    (Caller(caller), role): (Caller, PeerRole),
    PathOf((channel, session)): PathOf<(String, String)>,
    headers: HeaderMap,
    Text(fragment): Text,
) -> ApiResult<StatusCode> {
    expect_type(&headers, SDP_FRAGMENT)?;
    let (id, session) = api.standalone.of((&channel, &session), caller.id, role)?;
    expect_state(&headers, id)?;
    let candidates = candidates(&fragment, session.username_fragment.as_deref())?;
    api.gateway.rooms().trickle_in(&session.presence, session.channel, role, &candidates).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn expect_type(headers: &HeaderMap, wanted: &'static str) -> ApiResult<()> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|named| named.to_str().ok()).unwrap_or_default();
    if named.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    Err(ApiError::invalid_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("the body must be {wanted}")))
}

/// A channel by its id or its name.
async fn channel_named(api: &Api, named: &str) -> ApiResult<ChannelId> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let found = api.store.channel_by_name(named).await?;
    Ok(found.ok_or_else(unknown_channel)?.id)
}

/// Nor is a private one known to a stranger.
fn unknown_channel() -> ApiError {
    ApiError::new(ErrorCode::ChannelNotFound, "there is no channel with this id or name")
}

/// The host by which the client came, without a port.
fn reached_host(api: &Api, headers: &HeaderMap) -> Arc<str> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = named.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let host = authority.map(|authority| authority.host().to_owned());
    host.unwrap_or_else(|| api.addresses.udp.ip().to_string()).into()
}

/// An ICE server as links say it (RFC 9725, 4.6).
fn links(server: &IceServer) -> Vec<String> {
    let credentials = match (&server.username, &server.credential) {
        (Some(username), Some(credential)) => {
            format!("; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"")
        }
        _ => String::new(),
    };
    server.urls.iter().map(|url| format!("<{url}>; rel=\"ice-server\"{credentials}")).collect()
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}
