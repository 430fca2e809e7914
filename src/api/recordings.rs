//! Recordings of channels. For the channel's owner and moderators.

use std::sync::Arc;

use antiphon_core::{
    gateway::RecordingEnd,
    ids::{ChannelId, RecordingId, TrackId, UserId},
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
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
    recorder::{Timeline, sound_path},
    recordings::{Recordings, heard_us, offset_us, track_us},
    store::{MixState, Recording, RecordingTrack, rfc3339},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(recordings, start_recording))
        .routes(routes!(stop_recording))
        .routes(routes!(recording, delete_recording))
        .routes(routes!(recording_timeline))
        .routes(routes!(mix_recording))
}

/// A recording.
#[derive(Serialize, ToSchema)]
struct RecordingView {
    /// Its id.
    id: RecordingId,
    /// Of which channel.
    channel_id: ChannelId,
    /// What it is called.
    #[schema(example = "standup")]
    name: String,
    /// Who began it.
    by: UserId,
    /// Their username then.
    by_name: String,
    /// When, RFC 3339 UTC.
    started_at: String,
    /// When it ended; null while it goes on.
    ended_at: Option<String>,
    /// Why it ended.
    ended_why: Option<RecordingEnd>,
    /// Who ended it; null when the server did.
    ended_by: Option<UserId>,
    /// `recording`; `finishing`: it has ended, and its last tracks are not all there; `finished`.
    #[schema(example = "finished")]
    state: &'static str,
    /// How many tracks are there.
    #[schema(example = 3)]
    tracks: u32,
    /// Bytes of them.
    #[schema(example = 1_254_331)]
    size_bytes: u64,
    /// The mix of all tracks.
    mix: MixView,
}

/// The mix of a recording.
#[derive(Serialize, ToSchema)]
struct MixView {
    /// `absent`: it is made when somebody asks for it; `wanted`: it waits or is being made; `ready`; `failed`.
    #[schema(example = "ready")]
    state: &'static str,
    /// Its path in the library, where it is ready: for `/api/streams/sign`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Why it cannot be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Recording> for RecordingView {
    fn from(recording: Recording) -> Self {
        let state = match (recording.ended_at, recording.finished_at) {
            (None, _) => "recording",
            (Some(_), None) => "finishing",
            (Some(_), Some(_)) => "finished",
        };
        let (mix_state, error) = match recording.mix {
            MixState::None => ("absent", None),
            MixState::Wanted => ("wanted", None),
            MixState::Ready => ("ready", None),
            MixState::Failed(error) => ("failed", Some(error)),
        };
        let path = (mix_state == "ready").then(|| Recordings::mix_path(recording.id));
        Self {
            id: recording.id,
            channel_id: recording.channel,
            name: recording.name,
            by: recording.by,
            by_name: recording.by_name,
            started_at: rfc3339(recording.started_at),
            ended_at: recording.ended_at.map(rfc3339),
            ended_why: recording.ended_why,
            ended_by: recording.ended_by,
            state,
            tracks: recording.tracks,
            size_bytes: recording.bytes,
            mix: MixView { state: mix_state, path, error },
        }
    }
}

/// One speaker as one node heard them: a file of Ogg Opus.
#[derive(Serialize, ToSchema)]
struct TrackView {
    /// Its id.
    id: TrackId,
    /// Who speaks.
    user_id: UserId,
    /// Their username then.
    #[schema(example = "alice")]
    username: String,
    /// The node that heard them.
    node: String,
    /// When its sound begins, in microseconds since the recording began.
    #[schema(example = 1_250_000)]
    offset_us: i64,
    /// How long it lasts, in microseconds.
    #[schema(example = 65_000_000)]
    duration_us: u64,
    /// Its path in the library: for `/api/streams/sign`.
    path: String,
    /// Its length in bytes.
    size_bytes: u64,
    /// Its audio channels.
    #[schema(example = 1)]
    channels: u8,
}

impl TrackView {
    fn of(recording: &Recording, track: &RecordingTrack) -> Self {
        Self {
            id: track.id,
            user_id: track.user,
            username: track.username.clone(),
            node: track.node.clone(),
            offset_us: offset_us(recording, track.started_at),
            duration_us: track_us(track),
            path: sound_path(recording.id, track.id),
            size_bytes: track.bytes,
            channels: track.channels,
        }
    }
}

/// A recording with its tracks.
#[derive(Serialize, ToSchema)]
struct RecordingDetails {
    /// The recording.
    #[serde(flatten)]
    recording: RecordingView,
    /// Its tracks, by when they begin. A speaker has one for each node that heard them and each hour.
    #[serde(rename = "track_list")]
    tracks: Vec<TrackView>,
}

/// Something said.
#[derive(Serialize, ToSchema)]
struct SpurtView {
    /// When it begins, in microseconds since the recording began.
    #[schema(example = 1_250_000)]
    offset_us: i64,
    /// How long it lasts, in microseconds.
    #[schema(example = 2_400_000)]
    duration_us: u64,
}

/// A track and when something is said in it.
#[derive(Serialize, ToSchema)]
struct TimelineTrack {
    /// The track.
    #[serde(flatten)]
    track: TrackView,
    /// What is said; null where the node that was asked cannot see the track's files.
    spurts: Option<Vec<SpurtView>>,
}

/// Who speaks when.
#[derive(Serialize, ToSchema)]
struct TimelineView {
    /// Which recording.
    recording_id: RecordingId,
    /// When it began, RFC 3339 UTC.
    started_at: String,
    /// The same in microseconds since 1970.
    started_us: i64,
    /// Its tracks, by when they begin.
    tracks: Vec<TimelineTrack>,
}

fn spurts_of(recording: &Recording, track: &RecordingTrack, timeline: &Timeline) -> Vec<SpurtView> {
    let begins = offset_us(recording, track.started_at);
    let spurt = |(from, to): &(u64, u64)| {
        let to = (*to).min(track.samples);
        (*from < to).then(|| SpurtView {
            offset_us: begins + i64::try_from(heard_us(*from)).unwrap_or(0),
            duration_us: heard_us(to - from),
        })
    };
    timeline.spurts.iter().filter_map(spurt).collect()
}

/// Which part of the list.
#[derive(Deserialize)]
struct ListQuery {
    before: Option<RecordingId>,
}

/// A channel's recordings, the newest first: a hundred at most.
#[utoipa::path(get, path = "/api/channels/{id}/recordings", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id"),
        ("before" = Option<RecordingId>, Query, description = "Only those that began before this one")),
    responses((status = OK, description = "The recordings", body = Answer<Vec<RecordingView>>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody)))]
async fn recordings(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    QueryOf(query): QueryOf<ListQuery>,
) -> ApiResult<Answer<Vec<RecordingView>>> {
    let recordings = api.recordings.list(&caller, id, query.before).await?;
    Ok(Answer::of(recordings.into_iter().map(RecordingView::from).collect()))
}

/// What to call it.
#[derive(Deserialize, ToSchema)]
struct StartBody {
    /// Up to 100 characters; the channel's name when absent.
    #[schema(example = "standup")]
    name: Option<String>,
}

/// Records a channel from now on. Everyone in it is told.
#[utoipa::path(post, path = "/api/channels/{id}/recordings", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id")), request_body = StartBody,
    responses((status = CREATED, description = "The recording", body = Answer<RecordingView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: it is recorded already; `LIMIT_REACHED`: as many recordings go on as may, or they have used up their room", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: not everyone in the channel can be told now", body = ErrorBody)))]
async fn start_recording(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
    Body(StartBody { name }): Body<StartBody>,
) -> ApiResult<Created<RecordingView>> {
    Ok(Created(api.recordings.start(&caller, id, name).await?.into()))
}

/// Ends the recording of a channel. Everyone in it is told.
#[utoipa::path(delete, path = "/api/channels/{id}/recordings/current", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id")),
    responses((status = OK, description = "The recording, which has ended", body = Answer<RecordingView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: it is not recorded", body = ErrorBody)))]
async fn stop_recording(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf(id): PathOf<ChannelId>,
) -> ApiResult<Answer<RecordingView>> {
    Ok(Answer::of(api.recordings.stop(&caller, id).await?.into()))
}

/// A recording with its tracks.
#[utoipa::path(get, path = "/api/channels/{id}/recordings/{recording}", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("recording" = RecordingId, Path, description = "Which")),
    responses((status = OK, description = "The recording", body = Answer<RecordingDetails>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody)))]
async fn recording(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, recording)): PathOf<(ChannelId, RecordingId)>,
) -> ApiResult<Answer<RecordingDetails>> {
    let (recording, tracks) = api.recordings.details(&caller, id, recording).await?;
    let tracks = tracks.iter().map(|track| TrackView::of(&recording, track)).collect();
    Ok(Answer::of(RecordingDetails { recording: recording.into(), tracks }))
}

/// Who speaks when in a recording.
#[utoipa::path(get, path = "/api/channels/{id}/recordings/{recording}/timeline", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("recording" = RecordingId, Path, description = "Which")),
    responses((status = OK, description = "The timeline", body = Answer<TimelineView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody)))]
async fn recording_timeline(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, recording)): PathOf<(ChannelId, RecordingId)>,
) -> ApiResult<Answer<TimelineView>> {
    let (recording, tracks) = api.recordings.timeline(&caller, id, recording).await?;
    let view = |(track, timeline): &(RecordingTrack, Option<Timeline>)| TimelineTrack {
        track: TrackView::of(&recording, track),
        spurts: timeline.as_ref().map(|timeline| spurts_of(&recording, track, timeline)),
    };
    let started_us = i64::try_from(recording.started_at.unix_timestamp_nanos() / 1_000).unwrap_or(0);
    let started_at = rfc3339(recording.started_at);
    let tracks = tracks.iter().map(view).collect();
    Ok(Answer::of(TimelineView { recording_id: recording.id, started_at, started_us, tracks }))
}

/// Deletes a recording with all its files.
#[utoipa::path(delete, path = "/api/channels/{id}/recordings/{recording}", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("recording" = RecordingId, Path, description = "Which")),
    responses((status = NO_CONTENT, description = "It is gone"),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner, and for the moderator who began it", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: it goes on", body = ErrorBody)))]
async fn delete_recording(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, recording)): PathOf<(ChannelId, RecordingId)>,
) -> ApiResult<StatusCode> {
    api.recordings.delete(&caller, id, recording).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has all tracks of a recording mixed into one file, unless that is there or on its way.
#[utoipa::path(post, path = "/api/channels/{id}/recordings/{recording}/mix", tag = "recordings",
    params(("id" = ChannelId, Path, description = "The channel's id"), ("recording" = RecordingId, Path, description = "Which")),
    responses((status = OK, description = "The recording, whose mix is there", body = Answer<RecordingView>),
        (status = ACCEPTED, description = "The recording, whose mix is on its way", body = Answer<RecordingView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for the owner and moderators", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: it is not finished", body = ErrorBody)))]
async fn mix_recording(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    PathOf((id, recording)): PathOf<(ChannelId, RecordingId)>,
) -> ApiResult<Response> {
    let recording = api.recordings.want_mix(&caller, id, recording).await?;
    let status = if recording.mix == MixState::Ready { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Answer::of(RecordingView::from(recording))).into_response())
}
