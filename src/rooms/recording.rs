//! Rooms whose channel is recorded: who is told of it, and what the recorder is told of them.
//!
//! Whether a channel is recorded is in the database. Its journal tells everyone the moment it changes; a room that opens, or
//! has missed something, looks there. So a node that comes late, or comes back, knows it by the time that anybody on it is
//! heard, and what all nodes share may lose everything without a recording being ended or gone on with by mistake.

use std::{collections::HashMap, sync::Arc, time::Duration};

use antiphon_core::{
    engine::Command,
    gateway::{RecordingNow, RecordingStarted, RecordingStopped, ServerMessage},
    ids::{ChannelId, RecordingId, StreamId, UserId},
};
use time::OffsetDateTime;

use super::{Rooms, outlet::Shared, room::Room};
use crate::{
    cluster::{Entry, Unavailable},
    recorder::Recorder,
    store::{Recording, StoreError, rfc3339},
};

/// What happened so lately is on its way by the journal, and is not told from the database.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

impl Rooms {
    fn recorder(&self) -> Option<&Recorder> {
        self.inner.config.recorder.as_ref()
    }

    /// Tells everyone in a channel, on all nodes, what happened to its recordings; it takes effect here at once.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn tell_of_recording(
        &self,
        channel: ChannelId,
        event: impl Into<ServerMessage>,
    ) -> Result<(), Unavailable> {
        let event = event.into();
        let Some((room, mut turn)) = self.turn_of(channel).await else {
            return self.inner.membership.tell(channel, &event, None).await.map(|_| ());
        };
        let known = room.applied();
        let told = match room.is_alone() {
            true => Err(Unavailable),
            false => self.inner.membership.tell(channel, &event, known.as_ref()).await,
        };
        let told = match told {
            Ok(news) if known.is_some() => {
                self.take_change(&room, news).await;
                Ok(())
            }
            told => told.map(|_| ()),
        };
        self.close_if_empty(&room, &mut turn).await;
        told
    }

    /// An entry of the journal about the channel itself.
    pub(super) async fn channel_happened(&self, room: &Arc<Room>, entry: &Entry) {
        // First those are told whose voice it is.
        room.broadcast(&Shared::event(&entry.event), None);
        match &*entry.event {
            ServerMessage::RecordingStarted(started) => {
                self.set_recording(room, Some(started.recording.clone())).await;
            }
            ServerMessage::RecordingStopped(stopped) if room.is_recorded_as(stopped.recording_id) => {
                self.set_recording(room, None).await;
            }
            _ => {}
        }
    }

    /// Looks whether the channel of a room that opens, or missed something, is recorded. Within the room's turn.
    pub(super) async fn look_at_recording(&self, room: &Arc<Room>) {
        let looked = async {
            let open = self.inner.store.open_recording(room.id).await?;
            let before = room.live().recording.as_ref().map(|now| now.recording_id);
            if open.as_ref().map(|open| open.id) == before {
                return Ok(());
            }
            if let Some(before) = before {
                let ended = self.inner.store.recording(before).await?;
                self.tell_here_that_it_ended(room, before, ended.as_ref());
            }
            let now = open.as_ref().map(recording_now);
            if let Some(recording) = now.clone() {
                let started = RecordingStarted { channel_id: room.id, recording, position: None };
                room.broadcast(&Shared::new(started), None);
            }
            self.set_recording(room, now).await;
            Ok::<(), StoreError>(())
        };
        if let Err(error) = looked.await {
            // Whoever keeps recordings looks again.
            tracing::debug!(channel = %room.id, %error, "whether a channel is recorded is not known yet");
        }
    }

    fn tell_here_that_it_ended(&self, room: &Room, recording_id: RecordingId, ended: Option<&Recording>) {
        let reason = ended.and_then(|ended| ended.ended_why).unwrap_or(antiphon_core::gateway::RecordingEnd::Stopped);
        let by = ended.and_then(|ended| ended.ended_by);
        let stopped = RecordingStopped { channel_id: room.id, recording_id, reason, by, position: None };
        room.broadcast(&Shared::new(stopped), None);
    }

    /// Brings the rooms here up to `open`, all recordings that go on, where word of one was lost.
    pub async fn follow_recordings(&self, open: &[Recording]) {
        let before = OffsetDateTime::now_utc() - ON_ITS_WAY;
        let open: HashMap<ChannelId, &Recording> = open.iter().map(|open| (open.channel, open)).collect();
        for room in self.all_rooms() {
            let known = room.live().recording.as_ref().map(|now| now.recording_id);
            let wanted = open.get(&room.id);
            let differs = wanted.map(|open| open.id) != known;
            let is_new = wanted.is_some_and(|open| open.started_at > before);
            if !differs || is_new || self.ended_lately(known, before).await {
                continue;
            }
            if let Some((room, turn)) = self.turn_of(room.id).await
                && turn.is_open()
            {
                self.look_at_recording(&room).await;
            }
        }
    }

    async fn ended_lately(&self, recording: Option<RecordingId>, before: OffsetDateTime) -> bool {
        let Some(recording) = recording else { return false };
        match self.inner.store.recording(recording).await {
            Ok(Some(recording)) => recording.ended_at.is_some_and(|ended| ended > before),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// From now on, or no longer.
    async fn set_recording(&self, room: &Room, recording: Option<RecordingNow>) {
        let (is_same, speakers) = {
            let live = &mut *room.live_mut();
            let id = |now: &RecordingNow| now.recording_id;
            let is_same = live.recording.as_ref().map(id) == recording.as_ref().map(id);
            live.recording.clone_from(&recording);
            let speaker = |(stream, member): (&StreamId, &super::room::LocalMember)| {
                (*stream, member.presence.user.id, member.presence.user.username.clone())
            };
            (is_same, live.members.iter().map(speaker).collect::<Vec<(StreamId, UserId, String)>>())
        };
        let Some(recorder) = self.recorder().filter(|_| !is_same) else { return };
        match recording {
            Some(now) => {
                recorder.begin(room.id, now.recording_id).await;
                for (stream, user, username) in speakers {
                    recorder.speaker(room.id, stream, user, username).await;
                }
                self.set_recorded(room, true).await;
            }
            None => {
                self.set_recorded(room, false).await;
                recorder.end(room.id).await;
            }
        }
    }

    async fn set_recorded(&self, room: &Room, recorded: bool) {
        self.inner.media.send(room.home, Command::SetRecorded { channel: room.id, recorded }).await;
    }

    /// The media worker knows the channel from now on: it is to know that it is recorded.
    pub(super) async fn go_on_recording(&self, room: &Room) {
        let is_recorded = room.live().recording.is_some();
        if is_recorded && self.recorder().is_some() {
            self.set_recorded(room, true).await;
        }
    }

    /// Somebody is about to be heard.
    pub(super) async fn recorder_hears_of(
        &self,
        room: &Room,
        stream: StreamId,
        user: &antiphon_core::gateway::UserView,
    ) {
        let is_recorded = room.live().recording.is_some();
        if let Some(recorder) = self.recorder().filter(|_| is_recorded) {
            recorder.speaker(room.id, stream, user.id, user.username.clone()).await;
        }
    }

    /// Somebody is heard no more.
    pub(super) async fn recorder_lets_go_of(&self, room: &Room, stream: StreamId) {
        let is_recorded = room.live().recording.is_some();
        if let Some(recorder) = self.recorder().filter(|_| is_recorded) {
            recorder.left(room.id, stream).await;
        }
    }

    /// A room has closed: there is nobody here to be recorded.
    pub(super) async fn recorder_closes(&self, room: &Room) {
        let was_recorded = room.live_mut().recording.take().is_some();
        if let Some(recorder) = self.recorder().filter(|_| was_recorded) {
            recorder.end(room.id).await;
        }
    }
}

impl Room {
    fn is_recorded_as(&self, recording: RecordingId) -> bool {
        self.live().recording.as_ref().is_some_and(|now| now.recording_id == recording)
    }
}

/// A recording that goes on, as members are told.
#[must_use]
pub fn recording_now(recording: &Recording) -> RecordingNow {
    RecordingNow { recording_id: recording.id, by: recording.by, started_at: rfc3339(recording.started_at) }
}
