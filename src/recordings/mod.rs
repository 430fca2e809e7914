//! Recordings of channels: who begins and ends them, what is known of them, and what becomes of them.
//!
//! ```text
//!  API ── start, stop ──► database (whether it goes on) ──► journal ──► rooms of all nodes ──► recorder (each its own members)
//!                                    ▲                                                             │
//!                 keeper: limits, ends, retention                       tracks, put into the library ◄┘   mixing: on demand
//! ```

mod keeper;
mod mixing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use antiphon_core::{
    gateway::{ErrorCode, RecordingEnd, RecordingStarted, RecordingStopped, UserView},
    ids::{ChannelId, RecordingId},
    permission::{Action, Decision, decide},
};
use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;

use crate::{
    error::AppError,
    recorder::{self, KEPT, Recorder, Timeline, lines_path},
    rooms::{Rooms, recording_now},
    store::{NewAudit, NewRecording, Recording, RecordingLimits, RecordingTrack, Store, check_printable},
    streaming::{FilePath, Streams},
    telemetry::metrics::metrics,
    transcode::Bounds,
};

/// The longest name of a recording, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Timelines that are fetched from a bucket at once: a recording may have hundreds.
const TEXTS_AT_ONCE: usize = 8;

/// What a mix is called among a recording's files.
const MIX: &str = "mix.opus";

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct RecordingsConfig {
    /// Recordings that go on at once, on all nodes.
    pub at_once: u32,
    /// How long one may be.
    pub length_max: Duration,
    /// How big one may be, in bytes.
    pub bytes_max: u64,
    /// How big all together may be, in bytes.
    pub quota_bytes: u64,
    /// A recording ends when nobody has been in its channel for so long.
    pub empty_for: Duration,
    /// How long one is kept after it has ended; for good when `None`.
    pub kept_for: Option<Duration>,
    /// Bytes of the disk that are left free.
    pub free_bytes_min: u64,
    /// The folder of audio files.
    pub folder: PathBuf,
    /// How long making a mix may take.
    pub mix_patience: Duration,
    /// What a mix may cost.
    pub bounds: Bounds,
}

/// Recordings. Cheap to clone.
#[derive(Clone)]
pub struct Recordings {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rooms: Rooms,
    streams: Streams,
    /// `None` where nothing is recorded.
    recorder: Option<Recorder>,
    config: RecordingsConfig,
    /// Somebody here wants a mix.
    mix_wanted: tokio::sync::Notify,
}

type Result<T> = std::result::Result<T, AppError>;

impl Recordings {
    /// Recordings of the channels in `rooms`.
    #[must_use]
    pub fn new(
        store: Store,
        rooms: Rooms,
        streams: Streams,
        recorder: Option<Recorder>,
        config: RecordingsConfig,
    ) -> Self {
        Self {
            inner: Arc::new(Inner { store, rooms, streams, recorder, config, mix_wanted: tokio::sync::Notify::new() }),
        }
    }

    /// Begins to record a channel, and tells everyone in it.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, `PERMISSION_DENIED`, `INVALID_INPUT`; `CONFLICT` when it is recorded already; `LIMIT_REACHED`;
    /// `TEMPORARILY_UNAVAILABLE` when not everyone can be told.
    pub async fn start(&self, caller: &UserView, channel: ChannelId, name: Option<String>) -> Result<Recording> {
        let Inner { store, rooms, config, .. } = &*self.inner;
        let channel_name = self.require(caller, channel, Action::Record).await?;
        if self.inner.recorder.is_none() {
            let message = "this server records nothing (recording.enabled is false, or its folder of audio files cannot be written)";
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        let name = name.unwrap_or(channel_name);
        check_printable("name", &name, NAME_CHARS_MAX)
            .map_err(|message| AppError::new(ErrorCode::InvalidInput, message))?;
        self.check_disk().await?;
        let new = NewRecording { channel, name, by: caller.id, by_name: caller.username.clone() };
        let limits = RecordingLimits { at_once: config.at_once, bytes: config.quota_bytes };
        self.audit(caller, "recording.start", channel, None).await?;
        let recording = store.begin_recording(new, limits).await?;
        let started = RecordingStarted { channel_id: channel, recording: recording_now(&recording), position: None };
        if let Err(unavailable) = rooms.tell_of_recording(channel, started).await {
            // Nobody is recorded who is not told.
            store.delete_recording(recording.id).await?;
            return Err(unavailable.into());
        }
        metrics().recording.started.increment(1);
        Ok(recording)
    }

    /// Ends the recording of a channel, and tells everyone in it.
    ///
    /// # Errors
    /// As [`Recordings::start`]; `NOT_FOUND` when it is not recorded.
    pub async fn stop(&self, caller: &UserView, channel: ChannelId) -> Result<Recording> {
        self.require(caller, channel, Action::Record).await?;
        let none = || AppError::new(ErrorCode::NotFound, "this channel is not being recorded");
        let open = self.inner.store.open_recording(channel).await?.ok_or_else(none)?;
        self.audit(caller, "recording.stop", channel, Some(open.id)).await?;
        self.end(open.id, RecordingEnd::Stopped, Some(caller)).await?.ok_or_else(none)
    }

    /// Ends a recording for a reason; `None` when it had ended.
    async fn end(&self, id: RecordingId, reason: RecordingEnd, by: Option<&UserView>) -> Result<Option<Recording>> {
        let by = by.map(|by| by.id);
        let Some(ended) = self.inner.store.end_recording(id, reason, by).await? else { return Ok(None) };
        metrics().recording.ended.of(reason).increment(1);
        let (channel_id, recording_id) = (ended.channel, id);
        let stopped = RecordingStopped { channel_id, recording_id, reason, by, position: None };
        // Where it cannot be told now, each node finds out by itself within seconds.
        if self.inner.rooms.tell_of_recording(channel_id, stopped).await.is_err() {
            tracing::warn!(channel = %channel_id, "other nodes stop recording when they look");
        }
        Ok(Some(ended))
    }

    /// A channel's recordings, the newest first; a hundred at most, older than `before` where that is named.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, `PERMISSION_DENIED`.
    pub async fn list(
        &self,
        caller: &UserView,
        channel: ChannelId,
        before: Option<RecordingId>,
    ) -> Result<Vec<Recording>> {
        self.require(caller, channel, Action::HearRecordings).await?;
        Ok(self.inner.store.recordings(channel, before).await?)
    }

    /// A recording with its tracks.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, `PERMISSION_DENIED`, `NOT_FOUND`.
    pub async fn details(
        &self,
        caller: &UserView,
        channel: ChannelId,
        id: RecordingId,
    ) -> Result<(Recording, Vec<RecordingTrack>)> {
        self.require(caller, channel, Action::HearRecordings).await?;
        let recording = self.of_channel(channel, id).await?;
        let tracks = self.inner.store.recording_tracks(id).await?;
        Ok((recording, tracks))
    }

    /// When something is said in each of a recording's tracks; `None` for a track that this node cannot see.
    ///
    /// # Errors
    /// As [`Recordings::details`].
    pub async fn timeline(
        &self,
        caller: &UserView,
        channel: ChannelId,
        id: RecordingId,
    ) -> Result<(Recording, Vec<(RecordingTrack, Option<Timeline>)>)> {
        let (recording, tracks) = self.details(caller, channel, id).await?;
        let folder = self.inner.config.folder.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = |track: RecordingTrack| {
                let timeline = recorder::timeline(&folder, id, track.id).ok();
                (track, timeline)
            };
            tracks.into_iter().map(read).collect::<Vec<_>>()
        });
        let mut read =
            read.await.map_err(|_| AppError::new(ErrorCode::InternalError, "the timeline cannot be read"))?;
        let elsewhere = read.iter_mut().filter(|(_, timeline)| timeline.is_none());
        let fetches = elsewhere.map(|(track, timeline)| async move {
            let text = self.inner.streams.recorded_text(&lines_path(id, track.id)).await.ok();
            *timeline = text.and_then(|text| Timeline::of(&String::from_utf8(text).ok()?).ok());
        });
        // A list, so that whoever waits for it holds nothing but what is fetched.
        let fetches: Vec<_> = fetches.collect();
        stream::iter(fetches).buffer_unordered(TEXTS_AT_ONCE).collect::<()>().await;
        Ok((recording, read))
    }

    /// Deletes a recording with all its files.
    ///
    /// # Errors
    /// As [`Recordings::details`]; `CONFLICT` while it goes on.
    pub async fn delete(&self, caller: &UserView, channel: ChannelId, id: RecordingId) -> Result<()> {
        self.require(caller, channel, Action::HearRecordings).await?;
        let recording = self.of_channel(channel, id).await?;
        let is_own = recording.by == caller.id;
        self.require(caller, channel, Action::DeleteRecording { is_own }).await?;
        if recording.ended_at.is_none() {
            return Err(AppError::new(ErrorCode::Conflict, "this recording goes on: stop it first"));
        }
        self.audit(caller, "recording.delete", channel, Some(id)).await?;
        if self.inner.store.delete_recording(id).await? {
            self.remove_files(id).await;
        }
        Ok(())
    }

    /// Has a mix of a recording made, unless it is there or on its way.
    ///
    /// # Errors
    /// As [`Recordings::details`]; `CONFLICT` before its tracks are all there.
    pub async fn want_mix(&self, caller: &UserView, channel: ChannelId, id: RecordingId) -> Result<Recording> {
        self.require(caller, channel, Action::HearRecordings).await?;
        let recording = self.of_channel(channel, id).await?;
        if recording.finished_at.is_none() {
            return Err(AppError::new(
                ErrorCode::Conflict,
                "this recording is not finished: stop it, and wait a moment",
            ));
        }
        if recording.tracks == 0 {
            return Err(AppError::new(ErrorCode::NotFound, "nothing was said in this recording"));
        }
        self.inner.store.want_mix(id).await?;
        self.inner.mix_wanted.notify_one();
        self.of_channel(channel, id).await
    }

    /// The path of a recording's mix in the library.
    #[must_use]
    pub fn mix_path(id: RecordingId) -> String {
        format!("{KEPT}/{id}/{MIX}")
    }

    /// Whether `caller` may see a file of the library: whoever may not hear a recording learns nothing of its files.
    ///
    /// # Errors
    /// `NOT_FOUND`, as where there is no such file.
    pub async fn check_file(&self, caller: &UserView, path: &FilePath) -> Result<()> {
        let Some(id) = path.recording() else { return Ok(()) };
        let none = || AppError::new(ErrorCode::NotFound, "there is no such audio file");
        let recording = self.inner.store.recording(id).await?.ok_or_else(none)?;
        self.require(caller, recording.channel, Action::HearRecordings).await.map(|_| ()).map_err(|error| {
            match error.code {
                ErrorCode::ChannelNotFound | ErrorCode::PermissionDenied => none(),
                _ => error,
            }
        })
    }

    /// Whether a file of the library may be written or removed by itself: one of a recording goes with it.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check_change(&self, path: &FilePath) -> Result<()> {
        if path.recording().is_none() {
            return Ok(());
        }
        let message = "this is where recordings are: they are made by recording a channel, and deleted as a whole";
        Err(AppError::new(ErrorCode::PermissionDenied, message))
    }

    async fn of_channel(&self, channel: ChannelId, id: RecordingId) -> Result<Recording> {
        let found = self.inner.store.recording(id).await?.filter(|recording| recording.channel == channel);
        found.ok_or_else(|| AppError::new(ErrorCode::NotFound, "this channel has no such recording"))
    }

    /// The channel's name, if `caller` may do that.
    async fn require(&self, caller: &UserView, channel: ChannelId, action: Action<'_>) -> Result<String> {
        let none = || AppError::new(ErrorCode::ChannelNotFound, "there is no channel with this id");
        let found = self.inner.store.channel(channel).await?.ok_or_else(none)?;
        let standing = self.inner.rooms.standing_of(caller, channel).await?;
        match decide(&standing, found.is_private, action) {
            Decision::Allowed => Ok(found.name),
            Decision::Hidden => Err(none()),
            Decision::Denied(reason) => Err(AppError::new(ErrorCode::PermissionDenied, reason)),
        }
    }

    /// Writes down what somebody is about to do.
    async fn audit(
        &self,
        caller: &UserView,
        action: &'static str,
        channel: ChannelId,
        recording: Option<RecordingId>,
    ) -> Result<()> {
        let done = NewAudit {
            actor: caller.id,
            actor_name: caller.username.clone(),
            action,
            target: Some(recording.map_or_else(|| channel.to_string(), |recording| recording.to_string())),
            detail: serde_json::json!({"channel_id": channel}),
        };
        Ok(self.inner.store.record_audit(done).await?)
    }

    async fn check_disk(&self) -> Result<()> {
        if self.free_bytes().await.is_some_and(|free| free < self.inner.config.free_bytes_min) {
            let message = "the disk of audio files is nearly full (recording.free_mb)";
            return Err(AppError::new(ErrorCode::LimitReached, message));
        }
        Ok(())
    }
}

/// A time since a recording began, in microseconds.
#[must_use]
pub fn offset_us(recording: &Recording, at: OffsetDateTime) -> i64 {
    i64::try_from((at - recording.started_at).whole_microseconds()).unwrap_or(0)
}

/// Samples of a track's file as the time that they are heard.
#[must_use]
pub fn heard_us(samples: u64) -> u64 {
    samples * 1_000 / 48
}

/// How long a track is heard: what a decoder leaves out at its begin does not count.
#[must_use]
pub fn track_us(track: &RecordingTrack) -> u64 {
    heard_us(track.samples.saturating_sub(recorder::PRE_SKIP_SAMPLES.into()))
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recordings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_recordings_are_known_by_their_path() {
        let id = "0190f2a4-0000-7000-8000-000000000001";
        let of = |path: &str| FilePath::new(path).expect("a path").recording();
        assert_eq!(of(&format!("recordings/{id}/mix.opus")), id.parse().ok());
        assert_eq!(of("recordings/concert.opus"), None);
        assert_eq!(of("recordings/live/concert.opus"), None, "somebody's own folder");
        assert_eq!(of(&format!("recordings2/{id}/a.opus")), None);
    }
}
