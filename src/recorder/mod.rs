//! The recorder: a thread that writes what members of this node say in channels that are recorded, beside the media workers.
//!
//! ```text
//!  media workers ── frames of members here ──► queue ──► recorder thread: a track for each speaker ──► hidden folder
//!                                                                                                         │
//!                              library  ◄── put away (`ended`), by whichever node finds them ◄────────────┘
//! ```
//!
//! Each node records its own members, as it hears them: no other node's end takes anything from a recording, and a node that
//! is killed has on its disk what its members said up to a moment before. Packets are written as they came, none is decoded.
//! The queue is bounded and nobody waits for it: forwarding is never late for a recording.

mod ended;
mod ogg;
mod placing;
mod silence;
mod thread;
mod timeline;
mod track;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use antiphon_core::ids::{ChannelId, RecordingId, StreamId, UserId};
use tokio::sync::{Notify, mpsc};

use self::thread::{RecorderThread, Setup};
pub use self::{
    ended::{EndedTrack, KEPT, bytes_being_written, ended, is_pending, kept, lines_path, sound_path, timeline},
    timeline::{Timeline, TrackHead},
};
use crate::{
    media::{Media, RecordInlet},
    telemetry::metrics::metrics,
};

/// Samples of a track's file that its sound begins after; see `ogg`.
pub const PRE_SKIP_SAMPLES: u16 = ogg::PRE_SKIP;

/// Commands that may wait for the thread; more wait with their senders.
const COMMANDS_MAX: usize = 256;

/// How long whoever joins a channel waits for the recorder, which may wait for its disk.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the recorder is set.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// The folder of audio files.
    pub folder: PathBuf,
    /// This node's name.
    pub node: String,
    /// A track is ended at so many bytes, and another begun.
    pub track_bytes_max: u64,
    /// Tracks that are written at once.
    pub tracks_max: usize,
}

/// What the control plane asks of the recorder.
#[derive(Debug)]
enum Command {
    /// A channel is recorded from now on.
    Begin { channel: ChannelId, recording: RecordingId },
    /// Whose a stream is; before any of it is recorded.
    Speaker { channel: ChannelId, stream: StreamId, user: UserId, username: String },
    /// A speaker has left.
    Left { channel: ChannelId, stream: StreamId },
    /// A channel is recorded no longer.
    End { channel: ChannelId },
}

/// A handle to the recorder. It stops when the last one is gone, or by [`Recorder::stop`].
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    ended: Arc<Notify>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// Starts the thread, which takes frames from `inlet`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(config: RecorderConfig, inlet: RecordInlet, media: &Media) -> io::Result<Self> {
        let (commands, taken) = mpsc::channel(COMMANDS_MAX);
        let (ended, stop) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let setup = Setup {
            config,
            inlet,
            media: media.clone(),
            commands: taken,
            ended: Arc::clone(&ended),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let thread = Mutex::new(Some(thread.spawn(|| RecorderThread::new(setup).run())?));
        Ok(Self { inner: Arc::new(Inner { commands, ended, stop, thread }) })
    }

    /// Records a channel from now on.
    pub async fn begin(&self, channel: ChannelId, recording: RecordingId) {
        self.send(Command::Begin { channel, recording }).await;
    }

    /// Says whose a stream is, before any of it comes.
    pub async fn speaker(&self, channel: ChannelId, stream: StreamId, user: UserId, username: String) {
        self.send(Command::Speaker { channel, stream, user, username }).await;
    }

    /// Somebody has left.
    pub async fn left(&self, channel: ChannelId, stream: StreamId) {
        self.send(Command::Left { channel, stream }).await;
    }

    /// Records a channel no longer.
    pub async fn end(&self, channel: ChannelId) {
        self.send(Command::End { channel }).await;
    }

    /// Waits until a track was ended.
    pub async fn track_ended(&self) {
        self.inner.ended.notified().await;
    }

    /// Ends all tracks, and waits for that.
    pub async fn stop(&self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        // It may wait for a command: this one changes nothing.
        self.send(Command::End { channel: ChannelId(uuid::Uuid::nil()) }).await;
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // What panicked has said so.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn send(&self, command: Command) {
        let sent = tokio::time::timeout(PATIENCE, self.inner.commands.send(command)).await;
        // Nobody takes any once it has stopped. A disk that does not answer keeps nobody out of their channel.
        if sent.is_err() {
            metrics().recording.commands_lost.increment(1);
            tracing::warn!("the recorder does not take what it is told: its disk does not answer");
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}
