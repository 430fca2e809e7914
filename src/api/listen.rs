//! `GET /listen/{channel_id}.ogg`: a channel's mix as an endless Ogg Opus file, for whoever has a signed link; and the links.

use std::{io, sync::Arc};

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::{ChannelId, UserId},
};
use axum::{
    Router,
    body::{Body as AnswerBody, Bytes},
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf},
    stream_file::{OGG, SAFE, expires_after, now_s},
    streams::LinkView,
};
use crate::{
    client_address::ClientAddress,
    error::AppError,
    store::Channel,
    streaming::{FLOOR_MAX_BPS, LiveBody, LiveLink},
    telemetry::metrics::{LiveRefusal, metrics},
};

/// How the name of a channel's file ends.
const ENDING: &str = ".ogg";

/// What players that know Icecast are told (`icy-…`).
const ICY: [HeaderName; 5] = [
    HeaderName::from_static("icy-name"),
    HeaderName::from_static("icy-description"),
    HeaderName::from_static("icy-br"),
    HeaderName::from_static("icy-pub"),
    HeaderName::from_static("icy-audio-info"),
];

/// The routes that the document describes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(sign_listen))
}

/// This route, described by [`listen`].
pub(super) fn file_routes() -> Router<Arc<Api>> {
    Router::new().route("/listen/{file}", get(listen))
}

/// For how long.
#[derive(Deserialize, ToSchema)]
struct ListenBody {
    /// How long one may begin to listen by the link, in seconds: up to 7 days.
    #[schema(example = 3_600, minimum = 1, maximum = 604_800)]
    ttl_s: u64,
}

/// Makes a link by which ordinary players hear a channel, for whoever may enter it. It is good for whoever has it, while you
/// may enter the channel.
#[utoipa::path(post, path = "/api/channels/{id}/listen", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = ListenBody,
    responses((status = OK, description = "The link", body = Answer<LinkView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: you are banned from it", body = ErrorBody)))]
async fn sign_listen(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(channel): PathOf<ChannelId>,
    Body(ListenBody { ttl_s }): Body<ListenBody>,
) -> ApiResult<Answer<LinkView>> {
    let expires = expires_after(ttl_s)?;
    api.directory.audible(&caller, channel).await?;
    let user = caller.id;
    let sig = api.streams.secrets().sign(LiveLink { channel, user, expires: &expires.to_string() });
    let url = format!("/listen/{channel}{ENDING}?user={user}&expires={expires}&sig={sig}");
    Ok(Answer::of(LinkView { url, expires }))
}

/// What stands behind the `?` of a link.
#[derive(Deserialize)]
struct ListenQuery {
    user: Option<UserId>,
    expires: Option<String>,
    sig: Option<String>,
    kbps: Option<String>,
}

/// What a channel's members hear, mixed, as an Ogg Opus file without an end: for players of internet radio and browsers'
/// `<audio>`. It goes on in silence while nobody speaks. Whoever has a signed link may listen, without being in the channel.
#[utoipa::path(get, path = "/listen/{channel_id}.ogg", tag = "streams", security(()),
    params(("channel_id" = ChannelId, Path, description = "The channel's id"),
        ("user" = UserId, Query, description = "Whose link it is"),
        ("expires" = u64, Query, description = "When the link runs out, in Unix seconds"),
        ("sig" = String, Query, description = "The link's signature"),
        ("kbps" = Option<u32>, Query, description = "Fill up to so many kilobits a second, 0 to 256; `streaming.live_bitrate_min` when absent")),
    responses((status = OK, description = "The sound, as it comes", content_type = "audio/ogg"),
        (status = FORBIDDEN, description = "`BAD_SIGNATURE`; `PERMISSION_DENIED`: whose link it is is banned", body = ErrorBody),
        (status = NOT_FOUND, description = "`CHANNEL_NOT_FOUND`: there is none, or whose link it is may not hear it", body = ErrorBody),
        (status = CONFLICT, description = "`LIMIT_REACHED`: as many listen to it here as may", body = ErrorBody),
        (status = GONE, description = "`LINK_EXPIRED`", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: as many listen through this node as may, or it is about to stop", body = ErrorBody)))]
pub(super) async fn listen(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    method: Method,
    PathOf(file): PathOf<String>,
    uri: Uri,
) -> ApiResult<Response> {
    let (channel, query) = parse(&file, &uri).inspect_err(|error| count_refusal(error.code))?;
    let floor_bps = floor_of(&query, api.streams.live().floor_bps())?;
    let user = user_of(&api, channel, &query).await.inspect_err(|error| count_refusal(error.code))?;
    if method == Method::HEAD {
        let channel = api.directory.audible(&user, channel).await.inspect_err(|error| count_refusal(error.code))?;
        // No body at all would be told as one of no bytes.
        return Ok(described(AnswerBody::from_stream(stream::empty::<io::Result<Bytes>>()), &channel, floor_bps));
    }
    let place = api.streams.live().place(client.limit_key(), channel)?;
    let hearing = api.directory.overhear(&user, channel).await.inspect_err(|error| count_refusal(error.code))?;
    let channel = hearing.channel.clone();
    let body = LiveBody::new(hearing, &comments(&channel), floor_bps, place);
    Ok(described(AnswerBody::from_stream(body.into_stream()), &channel, floor_bps))
}

fn parse(file: &str, uri: &Uri) -> Result<(ChannelId, ListenQuery), AppError> {
    let none = || AppError::new(ErrorCode::ChannelNotFound, "channels are listened to as /listen/{channel_id}.ogg");
    let channel = file.strip_suffix(ENDING).and_then(|id| id.parse().ok()).map(ChannelId).ok_or_else(none)?;
    let query = Query::<ListenQuery>::try_from_uri(uri)
        .map_err(|_| AppError::new(ErrorCode::BadSignature, "the link needs user, expires and sig, each once"))?;
    Ok((channel, query.0))
}

/// What packets are filled up to for this listener, in bits per second.
fn floor_of(query: &ListenQuery, usual_bps: u32) -> ApiResult<u32> {
    let Some(kbps) = &query.kbps else { return Ok(usual_bps) };
    let most = FLOOR_MAX_BPS / 1_000;
    let kbps = kbps.parse().ok().filter(|kbps: &u32| *kbps <= most);
    kbps.map(|kbps| kbps * 1_000).ok_or_else(|| ApiError::invalid(format!("kbps must be from 0 to {most}")))
}

/// Whose link it is, if it is good now.
async fn user_of(api: &Api, channel: ChannelId, query: &ListenQuery) -> Result<UserView, AppError> {
    let bad = |message: &str| AppError::new(ErrorCode::BadSignature, message);
    let (Some(user), Some(expires), Some(sig)) = (query.user, &query.expires, &query.sig) else {
        return Err(bad("the link needs user, expires and sig: POST /api/channels/{id}/listen makes links"));
    };
    api.streams.secrets().check(LiveLink { channel, user, expires }, sig, now_s())?;
    let known = api.store.user(user).await?.filter(|user| user.is_active);
    Ok(known.ok_or_else(|| bad("whoever made the link has no account any more, or it is switched off"))?.view())
}

fn count_refusal(code: ErrorCode) {
    let why = match code {
        ErrorCode::LinkExpired => LiveRefusal::Expired,
        ErrorCode::BadSignature => LiveRefusal::BadSignature,
        ErrorCode::ChannelNotFound | ErrorCode::PermissionDenied => LiveRefusal::Unwelcome,
        _ => LiveRefusal::Unavailable,
    };
    metrics().streaming.live_refused.of(why).increment(1);
}

/// What the file says of itself.
fn comments(channel: &Channel) -> Vec<String> {
    let description = Some(&channel.description).filter(|text| !text.is_empty());
    let title = format!("TITLE={}", channel.name);
    [title].into_iter().chain(description.map(|text| format!("DESCRIPTION={text}"))).collect()
}

fn described(body: AnswerBody, channel: &Channel, floor_bps: u32) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.extend(SAFE);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OGG));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    tell_icecast_players(headers, channel, floor_bps);
    response
}

fn tell_icecast_players(headers: &mut HeaderMap, channel: &Channel, floor_bps: u32) {
    // As few bits as there are have no rate that could be told.
    let kbps = Some(floor_bps / 1_000).filter(|kbps| *kbps > 0).map(|kbps| kbps.to_string());
    let bitrate = kbps.as_ref().map(|kbps| format!(";ice-bitrate={kbps}"));
    let told = [
        one_line(&channel.name),
        one_line(&channel.description),
        kbps.unwrap_or_default(),
        "0".to_owned(),
        format!("ice-samplerate=48000;ice-channels=1{}", bitrate.unwrap_or_default()),
    ];
    for (name, value) in ICY.into_iter().zip(told).filter(|(_, value)| !value.is_empty()) {
        // As players take it: UTF-8 (RFC 9110, obs-text).
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
}

/// Text on one line, as a header has it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_cannot_hold_is_on_one_line() {
        assert_eq!(one_line(" Großer\n\tSaal "), "Großer Saal");
        assert!(HeaderValue::from_bytes(one_line("Großer\nSaal").as_bytes()).is_ok());
    }

    #[test]
    fn a_listener_may_ask_to_be_filled_up_within_bounds() {
        let of = |kbps: Option<&str>| {
            let query = ListenQuery { user: None, expires: None, sig: None, kbps: kbps.map(str::to_owned) };
            floor_of(&query, 64_000).ok()
        };
        assert_eq!([None, Some("0"), Some("128")].map(of), [Some(64_000), Some(0), Some(128_000)]);
        assert_eq!([Some("257"), Some("-1"), Some("x"), Some("")].map(of), [None; 4]);
    }
}
