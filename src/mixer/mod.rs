//! The mixer: threads that make one stream of many for members with `mode: mixed`, beside the media workers.
//!
//! ```text
//!  media workers ── frames ──► queue ──► mixing thread: a core::mix for each channel, every 20 ms ──┐
//!        ▲                                                                                          │
//!        └── sealed and sent ◄── queue ◄── packets ◄────────────────────────────────────────────────┘
//! ```
//!
//! Each node mixes for its own members, from the frames that it gets for them anyway. Both queues are bounded and nobody
//! waits for either: forwarding is never late for a mix. The threads run with a lower priority than the workers, and a thread
//! that cannot keep up gives something up, visibly ([`Shed`]): first how well it encodes, then further listeners.

mod codec;
mod feed;
mod seats;
mod thread;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use antiphon_core::{
    clock::Micros,
    gateway::ErrorCode,
    ids::{ChannelId, StreamId, WorkerIndex},
    jitter::JitterConfig,
    mix::{Gain, MixConfig, Shed},
};
use tokio::sync::mpsc;

pub use self::{
    codec::OpusCodec,
    feed::{FEED_PACKETS, FeedPart, FeedSender, SILENCE, feed},
    seats::{MixSeat, Sitter},
};
use self::{
    seats::{SeatLimits, Seats},
    thread::{MixThread, Setup},
};
use crate::{
    error::AppError,
    media::{Media, MixInlets},
    telemetry::metrics::{MixRefusal, metrics},
};

/// Commands that may wait for a thread; more wait with their senders.
const COMMANDS_MAX: usize = 256;

/// How the mixer is set.
#[derive(Clone, Debug)]
pub struct MixerConfig {
    /// Members who hear a mix at once on this node.
    pub listeners_max: usize,
    /// Of those, by one account, in whatever sessions and channels.
    pub listeners_per_account: usize,
    /// Of those, from one address.
    pub listeners_per_address: usize,
    /// Speakers of a channel mixed at once: the loudest so many.
    pub speakers_max: u32,
    /// Opus's complexity while there is time, 0 to 10.
    pub complexity: u8,
    /// Of a mix, in bits per second.
    pub bitrate: u32,
    /// The longest that a speaker's frames are waited for.
    pub delay_max: Duration,
    /// How much lower than the media workers' the threads' priority is: steps of `nice`.
    pub niceness: u16,
}

impl Default for MixerConfig {
    fn default() -> Self {
        Self {
            listeners_max: 1_000,
            listeners_per_account: 16,
            listeners_per_address: 200,
            speakers_max: 16,
            complexity: 5,
            bitrate: 40_000,
            delay_max: Duration::from_millis(400),
            niceness: 5,
        }
    }
}

impl MixerConfig {
    fn mix(&self) -> MixConfig {
        let delay_max = Micros(u64::try_from(self.delay_max.as_micros()).unwrap_or(u64::MAX));
        let usual = JitterConfig::mixing();
        let jitter = JitterConfig { delay_initial: usual.delay_initial.min(delay_max), delay_max, ..usual };
        MixConfig { jitter, speakers_max: self.speakers_max }
    }
}

/// What the control plane asks of a mixing thread.
#[derive(Debug)]
enum Command {
    /// A member hears a mix from now on.
    Add { channel: ChannelId, home: WorkerIndex, member: StreamId, mix: StreamId },
    /// Somebody who is no member hears it from now on, as if they were the member `member`.
    AddFeed { channel: ChannelId, home: WorkerIndex, member: StreamId, feed: FeedSender },
    /// No longer. With its last listener a channel is mixed no more.
    Remove { channel: ChannelId, member: StreamId },
    /// Whether they want to hear anything.
    SetDeafened { channel: ChannelId, member: StreamId, deafened: bool },
    /// How loud they hear a speaker.
    SetLevel { channel: ChannelId, member: StreamId, speaker: StreamId, gain: Gain },
}

impl Command {
    fn channel(&self) -> ChannelId {
        match self {
            Self::Add { channel, .. }
            | Self::AddFeed { channel, .. }
            | Self::Remove { channel, .. }
            | Self::SetDeafened { channel, .. }
            | Self::SetLevel { channel, .. } => *channel,
        }
    }
}

/// What a thread shows of itself.
#[derive(Default)]
struct Shown {
    shed: AtomicU8,
}

impl Shown {
    fn set(&self, shed: Shed) {
        self.shed.store(shed as u8, Ordering::Relaxed);
    }

    fn get(&self) -> Shed {
        let shed = usize::from(self.shed.load(Ordering::Relaxed));
        Shed::ALL.get(shed).copied().unwrap_or_default()
    }
}

/// A handle to the mixing threads. They stop when the last one is gone, or by [`Mixer::stop`].
#[derive(Clone)]
pub struct Mixer {
    inner: Arc<Inner>,
}

struct Inner {
    inlets: MixInlets,
    commands: Vec<mpsc::Sender<Command>>,
    shown: Vec<Arc<Shown>>,
    seats: Arc<Seats>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Mixer {
    /// Starts a thread for each of `inlets`, which the media workers leave frames in.
    ///
    /// # Errors
    /// When the system refuses threads.
    pub fn start(config: MixerConfig, inlets: MixInlets, media: &Media) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut commands, mut shown, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..usize::from(inlets.threads()) {
            let (sender, taken) = mpsc::channel(COMMANDS_MAX);
            let shows = Arc::new(Shown::default());
            let setup = Setup {
                index,
                config: config.clone(),
                inlets: inlets.clone(),
                media: media.clone(),
                commands: taken,
                shown: Arc::clone(&shows),
                stop: Arc::clone(&stop),
            };
            let thread = std::thread::Builder::new().name(format!("mixer-{index}"));
            threads.push(thread.spawn(|| MixThread::new(setup).run())?);
            commands.push(sender);
            shown.push(shows);
        }
        let seats = Seats::new(SeatLimits {
            in_all: config.listeners_max,
            per_account: config.listeners_per_account,
            per_address: config.listeners_per_address,
        });
        let inner = Inner { inlets, commands, shown, seats, stop, threads: Mutex::new(threads) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A place for one more listener of a channel: `sitter`, or those outside, who share one.
    ///
    /// # Errors
    /// `TEMPORARILY_UNAVAILABLE` while the channel's thread cannot keep up with those it has; `LIMIT_REACHED` when the node
    /// mixes for as many as it may, or for as many of that account or address.
    pub fn take_seat(&self, channel: ChannelId, sitter: Option<Sitter>) -> Result<MixSeat, AppError> {
        if self.shed_of(channel) == Shed::Refusing {
            metrics().mixer.refused.of(MixRefusal::Busy).increment(1);
            let message = "this node mixes for as many as it has time for: join with `mode` `forward`, or through another \
                           node, or try again later";
            return Err(AppError::new(ErrorCode::TemporarilyUnavailable, message));
        }
        self.inner.seats.take(sitter)
    }

    /// A place for a listener who had one on another node; `None` once those who came over are as many as the node takes
    /// itself: whoever moves back and forth must not fill it without end.
    #[must_use]
    pub fn take_over_seat(&self, sitter: Sitter) -> Option<MixSeat> {
        self.inner.seats.take_over(sitter)
    }

    /// How many hear a mix.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.inner.seats.taken()
    }

    /// Mixes for a member from now on, whose channel lives in the media worker `home`, as the stream `mix`.
    pub async fn add(&self, channel: ChannelId, home: WorkerIndex, member: StreamId, mix: StreamId) {
        self.send(Command::Add { channel, home, member, mix }).await;
    }

    /// Mixes for those who are no members of a channel from now on; `member` is a stream that nobody has there. It ends by
    /// [`Mixer::remove`].
    pub async fn add_feed(&self, channel: ChannelId, home: WorkerIndex, member: StreamId, feed: FeedSender) {
        self.send(Command::AddFeed { channel, home, member, feed }).await;
    }

    /// Does so no longer.
    pub async fn remove(&self, channel: ChannelId, member: StreamId) {
        self.send(Command::Remove { channel, member }).await;
    }

    /// Whether a member wants to hear anything.
    pub async fn set_deafened(&self, channel: ChannelId, member: StreamId, deafened: bool) {
        self.send(Command::SetDeafened { channel, member, deafened }).await;
    }

    /// How loud a member hears a speaker.
    pub async fn set_level(&self, channel: ChannelId, member: StreamId, speaker: StreamId, gain: Gain) {
        self.send(Command::SetLevel { channel, member, speaker, gain }).await;
    }

    async fn send(&self, command: Command) {
        let thread = self.inner.inlets.thread_of(command.channel());
        if let Some(commands) = self.inner.commands.get(thread) {
            // A thread that has ended mixes nothing any more.
            let _ = commands.send(command).await;
        }
    }

    fn shed_of(&self, channel: ChannelId) -> Shed {
        self.inner.shown.get(self.inner.inlets.thread_of(channel)).map_or(Shed::Nothing, |shown| shown.get())
    }

    /// Stops the threads; returns when they have ended.
    pub async fn stop(&self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (commands, _) in self.inner.commands.iter().zip(&threads) {
            // One that waits for something to do is woken by it.
            let nobody = Command::Remove { channel: ChannelId(uuid::Uuid::nil()), member: StreamId(0) };
            let _ = commands.try_send(nobody);
        }
        let joined =
            tokio::task::spawn_blocking(|| threads.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a mixing thread ended by a panic");
        }
    }
}

impl std::fmt::Debug for Mixer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mixer({} listeners)", self.listeners())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The ends of the command queues do the rest.
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
