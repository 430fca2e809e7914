//! Files of the library played into channels: packets of their Ogg Opus quality as they are, in real time, as the frames of a
//! member of the server's own ([`crate::rooms::player`]).
//!
//! ```text
//! quality (made once) ─► reader (a thread, some seconds ahead at most) ─► clock ─► the room, as any member's frames
//! ```

mod packets;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use antiphon_core::{
    gateway::{AudioBytes, AudioData, ErrorCode, LeaveReason, UserView},
    ids::{ChannelId, UserId},
    wire::frame::{FrameKind, LEVEL_SILENCE},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use self::packets::{Packet, Packets};
use crate::{
    error::AppError,
    rooms::{Presence, Rooms, player},
    streaming::{FilePath, OpenFile},
    telemetry::metrics::{PlaybackEnd, metrics},
    transcode::Quality,
};

/// Packets that are read ahead: a second of them.
const AHEAD: usize = 50;
/// From entering the channel to the first packet.
const LEAD: Duration = Duration::from_millis(200);
/// What is late by more goes on from then; what is late by less catches up.
const LATE_MAX: Duration = Duration::from_millis(200);
/// How often it is looked whether who began something may still play it: they can be switched off, removed or banned by any node.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// When to come back where there is no place, in seconds.
const RETRY_S: u64 = 10;

/// How much is played at once, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PlaybackConfig {
    /// Channels that this node plays into.
    pub at_once: usize,
    /// The longest that one may last, repetitions included.
    pub longest: Duration,
}

/// What is to be played.
#[derive(Debug)]
pub struct Track {
    /// Which file of the library.
    pub path: FilePath,
    /// In which quality.
    pub quality: Quality,
    /// That quality of it.
    pub file: Arc<OpenFile>,
    /// How long it lasts, in samples at 48 kHz, where that is known.
    pub samples: Option<u64>,
    /// Again from its beginning, until it is stopped.
    pub repeat: bool,
}

/// Something that is being played.
#[derive(Debug)]
pub struct Playing {
    /// What.
    pub track: Track,
    /// Who began it.
    pub by: UserView,
    /// When.
    pub since: SystemTime,
    /// Samples played since the file's beginning.
    played: AtomicU64,
    presence: Arc<Presence>,
    channel: ChannelId,
    /// Rings when the node is about to stop.
    ends: Notify,
}

impl Playing {
    /// The user by whom members see it.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.presence.user_id()
    }

    /// How much of the file was played.
    #[must_use]
    pub fn position(&self) -> Duration {
        Duration::from_millis(self.played.load(Ordering::Relaxed) / 48)
    }

    fn is_over(&self) -> bool {
        !self.presence.is_in(self.channel)
    }
}

/// All that this node plays. Clones are the same.
#[derive(Clone)]
pub struct Playbacks {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    config: PlaybackConfig,
    state: Mutex<State>,
    /// Rings whenever something has ended.
    over: Notify,
}

#[derive(Default)]
struct State {
    playing: HashMap<ChannelId, Arc<Playing>>,
    /// All that have a place: also those about to begin, and those that were replaced and are about to end.
    places: usize,
    closed: bool,
}

/// A place among what is played, until it is dropped.
struct Place(Playbacks);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inner.state.lock().places -= 1;
        self.0.inner.over.notify_waiters();
        metrics().streaming.playbacks.decrement(1.0);
    }
}

impl Playbacks {
    /// Nothing is played yet.
    #[must_use]
    pub fn new(rooms: Rooms, config: PlaybackConfig) -> Self {
        Self { inner: Arc::new(Inner { rooms, config, state: Mutex::default(), over: Notify::new() }) }
    }

    /// Plays into a channel, in place of what is played there already, on whatever node. Whether `by` may is decided before.
    ///
    /// # Errors
    /// `TEMPORARILY_UNAVAILABLE` where this node plays as much as it may, or is about to stop; and as [`Rooms::join`].
    pub async fn start(&self, by: &UserView, channel: ChannelId, track: Track) -> Result<Arc<Playing>, AppError> {
        let place = self.take_place(channel)?;
        let title = track.path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let presence = player::player(channel, by, &title);
        self.inner.rooms.enter_player(&presence, channel).await?;
        let playing = Arc::new(Playing {
            track,
            by: by.clone(),
            since: SystemTime::now(),
            played: AtomicU64::new(0),
            presence,
            channel,
            ends: Notify::new(),
        });
        let is_closed = {
            let mut state = self.inner.state.lock();
            state.playing.insert(channel, Arc::clone(&playing));
            state.closed
        };
        if is_closed {
            // It began to stop meanwhile.
            playing.ends.notify_one();
        }
        tracing::info!(%channel, by = %by.id, path = %playing.track.path, "a file is played into a channel");
        tokio::spawn(self.clone().play(Arc::clone(&playing), place));
        Ok(playing)
    }

    /// What this node plays into a channel.
    #[must_use]
    pub fn of(&self, channel: ChannelId) -> Option<Arc<Playing>> {
        self.inner.state.lock().playing.get(&channel).filter(|playing| !playing.is_over()).cloned()
    }

    /// Whether anything may be played. While it may not, what is played ends.
    pub fn set_open(&self, open: bool) {
        let mut state = self.inner.state.lock();
        state.closed = !open;
        if !open {
            state.playing.values().for_each(|playing| playing.ends.notify_one());
        }
    }

    /// Waits until nothing is played any more.
    pub async fn until_over(&self) {
        loop {
            let over = self.inner.over.notified();
            if self.inner.state.lock().places == 0 {
                return;
            }
            over.await;
        }
    }

    fn take_place(&self, channel: ChannelId) -> Result<Place, AppError> {
        let most = self.inner.config.at_once;
        let mut state = self.inner.state.lock();
        // What takes another's place may begin before that one has ended.
        let is_full = state.places >= most && !(most > 0 && state.playing.contains_key(&channel));
        if state.closed || is_full {
            metrics().streaming.playbacks_refused.increment(1);
            let message = match state.closed {
                true => "this node is about to stop: play through another one".to_owned(),
                false => format!("this node plays into {most} channels, the most that limits.playbacks allows"),
            };
            return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S));
        }
        state.places += 1;
        metrics().streaming.playbacks.increment(1.0);
        Ok(Place(self.clone()))
    }

    /// Plays to the end, whatever that is, and leaves the channel.
    async fn play(self, playing: Arc<Playing>, _place: Place) {
        let packets = read_ahead(Arc::clone(&playing.track.file), playing.track.repeat);
        let end = tokio::select! {
            end = Clock::new(&self.inner.rooms, &playing).run(packets, self.inner.config.longest) => end,
            () = self.until_refused(&playing) => PlaybackEnd::Refused,
        };
        self.inner.rooms.end(&playing.presence, LeaveReason::Left).await;
        let mut state = self.inner.state.lock();
        if state.playing.get(&playing.channel).is_some_and(|known| Arc::ptr_eq(known, &playing)) {
            state.playing.remove(&playing.channel);
        }
        drop(state);
        metrics().streaming.playback_ends.of(end).increment(1);
        tracing::info!(channel = %playing.channel, path = %playing.track.path, ?end, "a file is played no longer");
    }

    /// Waits until who began something may not play it any more. While the database cannot say, they may.
    async fn until_refused(&self, playing: &Playing) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if matches!(self.inner.rooms.may_play(&playing.by, playing.channel).await, Ok(false)) {
                return;
            }
        }
    }
}

/// Reads a file in a thread of its own, some packets ahead of who takes them; each with whether it is the file's first.
fn read_ahead(file: Arc<OpenFile>, repeat: bool) -> mpsc::Receiver<io::Result<(Packet, bool)>> {
    let (give, taken) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            match give_file(&file, &give) {
                // A file without sound would be read again and again.
                Ok(count) if count > 0 && repeat => {}
                Ok(_) => return,
                // Nobody may be left to take it.
                Err(error) => {
                    let _ = give.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    taken
}

/// Gives all packets of a file; how many. None where nobody takes them any more.
fn give_file(file: &Arc<OpenFile>, give: &mpsc::Sender<io::Result<(Packet, bool)>>) -> io::Result<u64> {
    let mut packets = Packets::new(OpenFile::reader(file))?;
    let mut count = 0;
    while let Some(packet) = packets.next()? {
        if give.blocking_send(Ok((packet, count == 0))).is_err() {
            return Ok(0);
        }
        count += 1;
    }
    Ok(count)
}

/// Gives packets to the room when their time has come.
struct Clock<'a> {
    rooms: &'a Rooms,
    playing: &'a Playing,
    next: Instant,
    sequence: u16,
    timestamp: u32,
}

impl<'a> Clock<'a> {
    fn new(rooms: &'a Rooms, playing: &'a Playing) -> Self {
        // Members hear of the stream before they hear it.
        Self { rooms, playing, next: Instant::now() + LEAD, sequence: 0, timestamp: 0 }
    }

    async fn run(mut self, mut packets: mpsc::Receiver<io::Result<(Packet, bool)>>, longest: Duration) -> PlaybackEnd {
        let until = self.next + longest;
        loop {
            let packet = tokio::select! {
                biased;
                () = self.playing.ends.notified() => return self.stop(PlaybackEnd::Draining),
                packet = packets.recv() => packet,
            };
            let (packet, is_first) = match packet {
                None => return self.stop(PlaybackEnd::Finished),
                Some(Ok(packet)) => packet,
                Some(Err(error)) => {
                    tracing::warn!(path = %self.playing.track.path, %error, "a file that is played cannot be read on");
                    return self.stop(PlaybackEnd::Failed);
                }
            };
            tokio::select! {
                biased;
                () = self.playing.ends.notified() => return self.stop(PlaybackEnd::Draining),
                () = self.its_time() => {}
            }
            if self.next >= until {
                return self.stop(PlaybackEnd::TooLong);
            }
            if is_first {
                self.playing.played.store(0, Ordering::Relaxed);
            }
            let kind = if self.timestamp == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
            if !self.say(kind, packet.level, packet.bytes) {
                return PlaybackEnd::Removed;
            }
            self.advance(packet.samples);
        }
    }

    /// Waits for the next packet's time. Whoever is late by much does not make up for it.
    async fn its_time(&mut self) {
        let now = Instant::now();
        if now > self.next + LATE_MAX {
            self.next = now;
        }
        sleep_until(self.next).await;
    }

    fn advance(&mut self, samples: u32) {
        self.playing.played.fetch_add(samples.into(), Ordering::Relaxed);
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.next += Duration::from_micros(u64::from(samples) * 1_000 / 48);
    }

    /// Ends the spurt.
    fn stop(mut self, end: PlaybackEnd) -> PlaybackEnd {
        self.say(FrameKind::AudioStop, LEVEL_SILENCE, Vec::new());
        end
    }

    /// False once the player is no longer in the channel.
    fn say(&mut self, kind: FrameKind, level: u8, bytes: Vec<u8>) -> bool {
        let audio = AudioData {
            channel_id: self.playing.channel,
            data: AudioBytes(bytes),
            sequence: Some(self.sequence),
            timestamp: Some(self.timestamp),
            kind: Some(kind as u8),
            level: Some(level),
        };
        self.sequence = self.sequence.wrapping_add(1);
        let is_said = self.rooms.frame(&self.playing.presence, audio).is_ok();
        metrics().streaming.playback_packets.increment(is_said.into());
        is_said
    }
}
