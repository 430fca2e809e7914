//! Files of the library, played into channels.

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::{ChannelId, UserId},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    advanced::audit,
    answer::{Answer, Created},
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, PathOf},
    peers::{FORWARDED, ask_one},
};
use crate::{
    error::AppError,
    playback::{Change, Playing, Track},
    rooms::player::nothing_plays,
    store::rfc3339,
    streaming::{Asker, FilePath, Product},
    transcode::Quality,
};

/// When to ask again for a node that does not answer, in seconds.
const RETRY_S: u64 = 2;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(start_playback, show_playback, change_playback, stop_playback))
}

/// What to play.
#[derive(Deserialize, ToSchema)]
struct PlaybackBody {
    /// The file's path, as `/api/streams` has it.
    #[schema(example = "jingles/hello.mp3")]
    path: String,
    /// `low`, `medium` or `high`; `medium` when absent. It is made if need be, which the request waits for for a while.
    #[schema(example = "medium")]
    quality: Option<String>,
    /// Again from its beginning until it is stopped; false when absent.
    #[serde(default)]
    repeat: bool,
}

/// What is being played.
#[derive(Serialize, Deserialize, ToSchema)]
struct PlaybackView {
    /// Where.
    channel_id: ChannelId,
    /// By whom members see it: one of the server's own users, the same in a channel every time.
    user_id: UserId,
    /// The file.
    #[schema(example = "jingles/hello.mp3")]
    path: String,
    /// In which quality.
    #[schema(example = "medium")]
    quality: String,
    /// Whether it begins again at its end.
    repeat: bool,
    /// Who began it.
    by: UserId,
    /// When, RFC 3339 UTC.
    started_at: String,
    /// Whether it waits to be resumed.
    // Nodes before this one do not say it: they cannot pause.
    #[serde(default)]
    paused: bool,
    /// How much of the file was played.
    #[schema(example = 1_240)]
    position_ms: u64,
    /// How long the file is; null where that is not known.
    #[schema(example = 3_000)]
    duration_ms: Option<u64>,
}

impl PlaybackView {
    fn of(channel_id: ChannelId, playing: &Playing) -> Self {
        let track = &playing.track;
        Self {
            channel_id,
            user_id: playing.user(),
            path: track.path.to_string(),
            quality: track.quality.name().to_owned(),
            repeat: track.repeat,
            by: playing.by.id,
            started_at: rfc3339(playing.since.into()),
            paused: playing.is_paused(),
            position_ms: u64::try_from(playing.position().as_millis()).unwrap_or(u64::MAX),
            duration_ms: track.samples.map(|samples| samples / 48),
        }
    }
}

/// Plays a file of the library into a channel, in place of what is played there: whoever is in it hears and sees a member of
/// the server's own. For the channel's owner and moderators.
#[utoipa::path(post, path = "/api/channels/{id}/playback", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = PlaybackBody,
    responses((status = CREATED, description = "What is played", body = Answer<PlaybackView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: there is no such audio file; `CHANNEL_NOT_FOUND`", body = ErrorBody),
        (status = CONFLICT, description = "`CHANNEL_FULL`: it takes a place, as a member does", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: this quality cannot be made of the file", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: the quality is being made, or this node plays as much as it may", body = ErrorBody)))]
async fn start_playback(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(PlaybackBody { path, quality, repeat }): Body<PlaybackBody>,
) -> ApiResult<Created<PlaybackView>> {
    api.directory.playable(&caller, id).await?;
    let quality = match quality.as_deref() {
        None => Quality::Medium,
        Some(name) => Quality::of(name).ok_or_else(|| ApiError::invalid("quality must be low, medium or high"))?,
    };
    let none = || ApiError::new(ErrorCode::NotFound, "there is no such audio file");
    let path = FilePath::new(&path).ok_or_else(none)?;
    // What somebody may not hear they play to nobody.
    api.recordings.check_file(&caller, &path).await?;
    let source = api.streams.file(&path).await?;
    let file = api.streams.made(&path, &source, Product::Quality(quality), Asker::Account(caller.id)).await?;
    let samples = api.streams.facts(&path, &source).await.map(|facts| facts.samples);
    let detail = json!({ "path": path.to_string(), "quality": quality.name(), "repeat": repeat });
    audit(&api, &caller, "playback.start", Some(id.to_string()), detail).await?;
    let playing = api.playbacks.start(&caller, id, Track { path, quality, file, samples, repeat }).await?;
    Ok(Created(PlaybackView::of(id, &playing)))
}

/// What is being played into a channel, and where in it that is.
#[utoipa::path(get, path = "/api/channels/{id}/playback", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "What is played", body = Answer<PlaybackView>),
        (status = NOT_FOUND, description = "`NOT_FOUND`: nothing is; `CHANNEL_NOT_FOUND`", body = ErrorBody)))]
async fn show_playback(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    headers: HeaderMap,
) -> ApiResult<Answer<PlaybackView>> {
    let node = api.directory.player_at(&caller, id).await?;
    if let Some(playing) = api.playbacks.of(id) {
        return Ok(Answer::of(PlaybackView::of(id, &playing)));
    }
    let elsewhere = node.filter(|node| *node != api.registry.number() && !headers.contains_key(FORWARDED));
    let found = match elsewhere {
        Some(node) => ask_one(&api, node, (Method::GET, &path_of(id), None), &headers).await,
        None => None,
    };
    Ok(Answer::of(found.ok_or_else(nothing_plays)?))
}

/// These routes' path, for other nodes.
fn path_of(id: ChannelId) -> String {
    format!("/api/channels/{id}/playback")
}

/// What is to change in what is played.
#[derive(Deserialize, ToSchema)]
struct ChangeBody {
    /// Whether it waits: true pauses it where it is, false resumes it there. As before when absent.
    paused: Option<bool>,
    /// Where in the file it goes on, in milliseconds since its beginning: with the packet of 20 ms that holds that place. Where it is
    /// when absent.
    #[schema(example = 1_000)]
    position_ms: Option<u64>,
}

/// Pauses, resumes or seeks in what is played into a channel. For its owner and moderators.
#[utoipa::path(put, path = "/api/channels/{id}/playback", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = ChangeBody,
    responses((status = OK, description = "What is played, as it is now", body = Answer<PlaybackView>),
        (status = BAD_REQUEST, description = "`INVALID_INPUT`: nothing is to change, or the file is shorter", body = ErrorBody),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: nothing is played; `CHANNEL_NOT_FOUND`", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: the node that plays it does not answer", body = ErrorBody)))]
async fn change_playback(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    headers: HeaderMap,
    Body(change): Body<ChangeBody>,
) -> ApiResult<Answer<PlaybackView>> {
    api.directory.playable(&caller, id).await?;
    if change.paused.is_none() && change.position_ms.is_none() {
        return Err(ApiError::invalid("name paused, position_ms or both"));
    }
    let Some(playing) = api.playbacks.of(id) else {
        return change_elsewhere(&api, &caller, id, (&change, &headers)).await;
    };
    check_place(change.position_ms, playing.track.samples.map(|samples| samples / 48))?;
    api.directory.count_act(&caller)?;
    // On the node that plays it: so it is written down once.
    let detail = json!({ "paused": change.paused, "position_ms": change.position_ms });
    audit(&api, &caller, "playback.change", Some(id.to_string()), detail).await?;
    playing.change(Change { paused: change.paused, to: change.position_ms.map(Duration::from_millis) }).await;
    Ok(Answer::of(PlaybackView::of(id, &playing)))
}

/// Whether a file of that length, where it is known, has that place.
fn check_place(position_ms: Option<u64>, length_ms: Option<u64>) -> ApiResult<()> {
    match position_ms.zip(length_ms) {
        Some((to, length)) if to >= length => {
            Err(ApiError::invalid(format!("position_ms must be below the file's length, {length}")))
        }
        _ => Ok(()),
    }
}

/// Has the node change it through which it is played.
async fn change_elsewhere(
    api: &Api,
    caller: &UserView,
    id: ChannelId,
    (change, headers): (&ChangeBody, &HeaderMap),
) -> ApiResult<Answer<PlaybackView>> {
    let node = api.directory.player_at(caller, id).await?;
    let node = node.filter(|node| *node != api.registry.number() && !headers.contains_key(FORWARDED));
    let node = node.ok_or_else(nothing_plays)?;
    let ask = |method, body| {
        let path = path_of(id);
        async move { ask_one::<PlaybackView>(api, node, (method, &path, body), headers).await }
    };
    // Of another node's answer only success comes back from `ask_one`: what would be refused is found out before.
    let known = ask(Method::GET, None).await.ok_or_else(silent)?;
    check_place(change.position_ms, known.duration_ms)?;
    let body = json!({ "paused": change.paused, "position_ms": change.position_ms });
    Ok(Answer::of(ask(Method::PUT, Some(&body)).await.ok_or_else(silent)?))
}

fn silent() -> ApiError {
    let message = "the node that plays it does not answer";
    AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S).into()
}

/// A channel into which nothing is played any more.
#[derive(Serialize, ToSchema)]
struct Stopped {
    /// Which.
    channel_id: ChannelId,
}

/// Ends what is played into a channel. For its owner and moderators.
#[utoipa::path(delete, path = "/api/channels/{id}/playback", tag = "channels",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "Nothing is played any more", body = Answer<Stopped>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: nothing was; `CHANNEL_NOT_FOUND`", body = ErrorBody)))]
async fn stop_playback(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<Stopped>> {
    api.directory.stop_player(&caller, id).await?;
    audit(&api, &caller, "playback.stop", Some(id.to_string()), json!({})).await?;
    Ok(Answer::of(Stopped { channel_id: id }))
}
