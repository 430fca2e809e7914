//! The thread that writes what is said in channels that are recorded.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, RecordingId, StreamId, TrackId, UserId},
    wire::frame::FrameKind,
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::{
    Command, RecorderConfig,
    timeline::TrackHead,
    track::{Track, packet_of},
};
use crate::{
    media::{FrameToRecord, Media, RecordInlet},
    telemetry::metrics::{RecordDrop, metrics},
};

/// How long the thread waits for frames at most; what came out of order is written by then.
const TICK: Duration = Duration::from_millis(20);

/// How long it rests after each turn: a process that is killed has not written what came since, which others heard, and the media
/// workers wake it so often at most.
const REST: Duration = Duration::from_millis(1);

/// With up to so many speakers all that came can be read from their files at once; with more, a write for each is too much, and it
/// can be after a while.
const SPEAKERS_AT_ONCE: usize = 100;
const SHOWN_AFTER: Micros = Micros::from_millis(100);

/// After a failure nothing of that channel is written for so long: a disk that is full is not asked for each packet.
const AFTER_FAILURE: Micros = Micros::from_secs(5);

/// What a thread starts with.
pub(super) struct Setup {
    pub(super) config: RecorderConfig,
    pub(super) inlet: RecordInlet,
    pub(super) media: Media,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) ended: Arc<Notify>,
    pub(super) stop: Arc<AtomicBool>,
}

/// Who speaks.
struct Speaker {
    user: UserId,
    username: String,
    track: Option<Track>,
}

/// A channel that is recorded.
struct Recorded {
    recording: RecordingId,
    speakers: HashMap<StreamId, Speaker>,
    /// Until when nothing is written, after a failure.
    not_before: Micros,
}

/// The thread.
pub(super) struct RecorderThread {
    setup: Setup,
    channels: HashMap<ChannelId, Recorded>,
    tracks: usize,
}

impl RecorderThread {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, channels: HashMap::new(), tracks: 0 }
    }

    /// Writes until told to stop, or until nobody can want anything any more; what came by then is written.
    pub(super) fn run(mut self) {
        while !self.setup.stop.load(Ordering::Relaxed) {
            let first = if self.channels.is_empty() {
                match self.setup.commands.blocking_recv() {
                    Some(command) => Some(command),
                    None => break,
                }
            } else {
                std::thread::sleep(REST);
                self.setup.inlet.wait(TICK);
                None
            };
            if !self.turn(first) {
                break;
            }
        }
        self.turn(None);
        let channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.into_iter().for_each(|channel| self.end(channel));
    }

    /// Does all that is there to do. False when no more can come.
    fn turn(&mut self, first: Option<Command>) -> bool {
        let (mut after, mut next) = (Vec::new(), first);
        let goes_on = loop {
            match next.take() {
                Some(command @ (Command::Left { .. } | Command::End { .. })) => after.push(command),
                Some(command) => self.obey(command),
                None => {}
            }
            match self.setup.commands.try_recv() {
                Ok(command) => next = Some(command),
                Err(error) => break error == mpsc::error::TryRecvError::Empty,
            }
        };
        // What was said before somebody left is theirs.
        self.take_frames();
        after.into_iter().for_each(|command| self.obey(command));
        self.tick();
        goes_on
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { channel, recording } => self.begin(channel, recording),
            Command::Speaker { channel, stream, user, username } => {
                let Some(recorded) = self.channels.get_mut(&channel) else { return };
                let new = Speaker { user, username, track: None };
                let before = recorded.speakers.insert(stream, new);
                if let Some(track) = before.and_then(|before| before.track) {
                    self.finish(track);
                }
            }
            Command::Left { channel, stream } => {
                let left = self.channels.get_mut(&channel).and_then(|recorded| recorded.speakers.remove(&stream));
                if let Some(track) = left.and_then(|left| left.track) {
                    self.finish(track);
                }
            }
            Command::End { channel } => self.end(channel),
        }
    }

    fn begin(&mut self, channel: ChannelId, recording: RecordingId) {
        if self.channels.get(&channel).is_some_and(|recorded| recorded.recording == recording) {
            return;
        }
        self.end(channel);
        let recorded = Recorded { recording, speakers: HashMap::new(), not_before: Micros::ZERO };
        self.channels.insert(channel, recorded);
        metrics().recording.channels.set(self.channels.len() as f64);
    }

    fn end(&mut self, channel: ChannelId) {
        let Some(recorded) = self.channels.remove(&channel) else { return };
        for track in recorded.speakers.into_values().filter_map(|speaker| speaker.track) {
            self.finish(track);
        }
        metrics().recording.channels.set(self.channels.len() as f64);
        self.setup.ended.notify_one();
    }

    fn finish(&mut self, track: Track) {
        self.tracks -= 1;
        finish(track, &self.setup.ended);
    }

    fn take_frames(&mut self) {
        // What comes meanwhile is the next turn's.
        for _ in 0..self.setup.inlet.waiting() {
            let Some(frame) = self.setup.inlet.take() else { return };
            if let Err(drop) = self.take_frame(&frame) {
                metrics().recording.dropped.of(drop).increment(1);
            }
        }
    }

    fn take_frame(&mut self, frame: &FrameToRecord) -> Result<(), RecordDrop> {
        if frame.header.kind() == Some(FrameKind::Silence) {
            // Comfort noise between what is said: a hole, which becomes silence.
            return Ok(());
        }
        let (now, setup) = (self.setup.media.now(), &self.setup);
        let (channel, stream) = (frame.channel, frame.header.stream);
        // It may have ended a moment ago.
        let recorded = self.channels.get_mut(&channel).ok_or(RecordDrop::Ended)?;
        if now < recorded.not_before {
            return Err(RecordDrop::Failed);
        }
        let (recording, speaker) = (recorded.recording, recorded.speakers.get_mut(&stream).ok_or(RecordDrop::Ended)?);
        let (packet, samples) = packet_of(frame).ok_or(RecordDrop::Malformed)?;
        if let Some(full) = speaker.track.take_if(|track| track.is_full(setup.config.track_bytes_max, frame.at)) {
            self.tracks -= 1;
            finish(full, &setup.ended);
        }
        if speaker.track.is_none() && self.tracks >= setup.config.tracks_max {
            return Err(RecordDrop::Full);
        }
        let written = speaker.track_of(&setup.config, (channel, recording), frame, now).and_then(|(track, is_new)| {
            self.tracks += usize::from(is_new);
            track.push(frame, (packet, samples))
        });
        written.map_err(|error| {
            failed(&error);
            self.give_up(channel, stream, now);
            RecordDrop::Failed
        })
    }

    /// A track that could not be written is left as it is, for whoever mends it, and another is begun after a while.
    fn give_up(&mut self, channel: ChannelId, stream: StreamId, now: Micros) {
        let Some(recorded) = self.channels.get_mut(&channel) else { return };
        recorded.not_before = now + AFTER_FAILURE;
        let track = recorded.speakers.get_mut(&stream).and_then(|speaker| speaker.track.take());
        self.tracks -= usize::from(track.is_some());
    }

    fn tick(&mut self) {
        let now = self.setup.media.now();
        let shown_after = if self.tracks <= SPEAKERS_AT_ONCE { Micros::ZERO } else { SHOWN_AFTER };
        let mut broken = Vec::new();
        for (channel, recorded) in &mut self.channels {
            for (stream, speaker) in &mut recorded.speakers {
                if let Some(Err(error)) = speaker.track.as_mut().map(|track| track.tick(now, shown_after)) {
                    failed(&error);
                    broken.push((*channel, *stream));
                }
            }
        }
        broken.into_iter().for_each(|(channel, stream)| self.give_up(channel, stream, now));
    }
}

impl Speaker {
    /// Their track, begun with a frame where there is none; and whether it was.
    fn track_of(
        &mut self,
        config: &RecorderConfig,
        (channel, recording): (ChannelId, RecordingId),
        frame: &FrameToRecord,
        now: Micros,
    ) -> io::Result<(&mut Track, bool)> {
        let is_new = self.track.is_none();
        if is_new {
            let head = TrackHead {
                track: TrackId(Uuid::now_v7()),
                recording,
                channel,
                user: self.user,
                username: self.username.clone(),
                node: config.node.clone(),
                stream: frame.header.stream,
                // What these are, its first frame says.
                channels: 1,
                started_us: 0,
            };
            self.track = Some(Track::begin(&config.folder, head, wall_us(now), frame)?);
        }
        self.track.as_mut().map(|track| (track, is_new)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn finish(track: Track, ended: &Notify) {
    if let Err(error) = track.finish() {
        failed(&error);
    }
    ended.notify_one();
}

/// What the wall's clock shows, in microseconds since 1970, when the node's shows zero.
fn wall_us(now: Micros) -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    i64::try_from(wall).unwrap_or(i64::MAX) - i64::try_from(now.0).unwrap_or(i64::MAX)
}

fn failed(error: &io::Error) {
    metrics().recording.write_failures.increment(1);
    tracing::warn!(%error, "a recorded track could not be written");
}
