//! Files of the library played into channels: packets of their Ogg Opus quality as they are, in real time, as the frames of a
//! member of the server's own ([`crate::rooms::player`]).
//!
//! ```text
//! quality (made once) ─► reader (a thread, a second ahead at most) ─► clock ─► the room, as any member's frames
//!                                                                       ▲ pause, resume, seek
//! ```

mod ahead;
mod clock;
mod packets;
mod pages;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use antiphon_core::{
    gateway::{ErrorCode, LeaveReason, UserView},
    ids::{ChannelId, UserId},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::clock::Clock;
use crate::{
    error::AppError,
    rooms::{Presence, Rooms, player},
    streaming::{FilePath, OpenFile},
    telemetry::metrics::{PlaybackEnd, metrics},
    transcode::Quality,
};

/// How often it is looked whether who began something may still play it: they can be switched off, removed or banned by any node.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long whoever changes what is played waits until it is so; it is some milliseconds.
const CHANGE_PATIENCE: Duration = Duration::from_secs(1);
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

/// What is to change in what is played.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Whether it waits; as before when `None`.
    pub paused: Option<bool>,
    /// Where in the file it goes on; where it is when `None`.
    pub to: Option<Duration>,
}

/// What was asked of something that is played, all changes together.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Counts changes.
    number: u64,
    paused: bool,
    /// The last change that named a place, and that place in samples.
    seek: Option<(u64, u64)>,
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
    /// What was asked of it last, and which change was made last.
    asked: watch::Sender<Asked>,
    made: watch::Sender<u64>,
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

    /// Whether it waits to be resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.asked.borrow().paused
    }

    /// Pauses it, resumes it or goes on elsewhere in the file; it is so when this returns, or the playing has ended meanwhile.
    pub async fn change(&self, change: Change) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            asked.number += 1;
            number = asked.number;
            asked.paused = change.paused.unwrap_or(asked.paused);
            if let Some(to) = change.to {
                asked.seek = Some((number, u64::try_from(to.as_millis()).unwrap_or(u64::MAX).saturating_mul(48)));
            }
        });
        let mut made = self.made.subscribe();
        // What has ended changes no more.
        let _ = tokio::time::timeout(CHANGE_PATIENCE, made.wait_for(|made| *made >= number)).await;
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
            asked: watch::Sender::default(),
            made: watch::Sender::default(),
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
        let end = tokio::select! {
            end = Clock::new(&self.inner.rooms, &playing, self.inner.config.longest).run() => end,
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
