//! One thing to be made, and how it is.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use antiphon_core::gateway::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{QUEUED_RETRY_S, version::Version};
use crate::{
    error::AppError,
    streaming::{FilePath, OpenFile},
    transcode::{Quality, Watch},
};

/// How long after a failure that was not the file's fault the same is not tried again.
const FAILURE_COUNTS: Duration = Duration::from_secs(30);

/// The longest time that a client is told to stay away, in seconds.
const RETRY_MAX_S: u64 = 60;

/// What is made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// The file as Ogg Opus.
    Quality(Quality),
    /// What is found out by decoding alone: length, loudness, waveform.
    Analysis,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Quality(Quality::Low), Self::Quality(Quality::Medium), Self::Quality(Quality::High), Self::Analysis];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality(quality) => quality.name(),
            Self::Analysis => "analysis",
        }
    }
}

/// How a product is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there and not ordered.
    Absent,
    /// Waiting for a thread.
    Queued,
    /// Being made.
    Running,
    /// There.
    Ready,
    /// It never will be, and why.
    Refused(Arc<str>),
    /// Not now: something other than the file was wrong.
    Failed,
}

impl State {
    /// As the API has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Refused(_) => "refused",
            Self::Failed => "failed",
        }
    }

    fn is_ended(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What tells orders apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) version: Version,
    pub(super) product: Product,
}

/// One thing to be made.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) path: FilePath,
    pub(super) source: Arc<OpenFile>,
    state: watch::Sender<State>,
    /// There once it has begun, or is to end before it has.
    progress: OnceLock<Watch>,
    ended: Mutex<Option<Instant>>,
}

impl Job {
    pub(super) fn new(key: Key, path: FilePath, source: Arc<OpenFile>) -> Self {
        let (state, _) = watch::channel(State::Queued);
        Self { key, path, source, state, progress: OnceLock::new(), ended: Mutex::new(None) }
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn progress(&self) -> Option<f64> {
        self.progress.get().filter(|_| self.state() == State::Running)?.progress()
    }

    /// Begins it, with so much time.
    pub(super) fn begin(&self, patience: Duration) -> &Watch {
        self.state.send_replace(State::Running);
        self.progress.get_or_init(|| Watch::new(self.source.length, patience))
    }

    /// Ends it, however that came about.
    pub(super) fn end(&self, state: State) {
        *self.ended.lock() = Some(Instant::now());
        self.state.send_replace(state);
    }

    /// Has it ended early, also where it is just about to begin.
    pub(super) fn stop(&self) {
        self.progress.get_or_init(|| Watch::new(self.source.length, Duration::ZERO)).stop();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.borrow().is_ended()
    }

    /// Whether an order for the same is answered by this one: it is under way, or it failed a moment ago.
    pub(super) fn counts(&self, now: Instant) -> bool {
        match &*self.state.borrow() {
            State::Failed => {
                self.ended.lock().is_some_and(|ended| now.saturating_duration_since(ended) < FAILURE_COUNTS)
            }
            state => !state.is_ended(),
        }
    }

    /// How it ends.
    pub(super) async fn ended(&self) -> State {
        let mut state = self.state.subscribe();
        // The sender is ours, and lives as long as this borrow.
        state.wait_for(State::is_ended).await.map_or(State::Failed, |state| state.clone())
    }

    /// What a client is told that does not wait any longer.
    pub(super) fn busy(&self) -> AppError {
        let name = self.key.product.name();
        let (message, retry_s) = match (self.state(), self.progress()) {
            (State::Running, Some(done)) => {
                let left_s =
                    self.progress.get().and_then(Watch::remaining).map_or(QUEUED_RETRY_S, |left| left.as_secs() + 1);
                (format!("{name} is being made of this file: {:.0} % are done", done * 100.0), left_s)
            }
            (State::Running, None) => (format!("{name} is being made of this file"), QUEUED_RETRY_S),
            _ => (format!("{name} of this file waits to be made"), QUEUED_RETRY_S),
        };
        AppError::retry(ErrorCode::TemporarilyUnavailable, message, retry_s.min(RETRY_MAX_S))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        streaming::files::Files,
        transcode::{Bounds, Input, TranscodeError, check},
    };

    #[tokio::test]
    async fn what_is_stopped_before_it_begins_does_not_begin() {
        let folder = std::env::temp_dir().join(format!("antiphon-order-{}", uuid::Uuid::now_v7()));
        let files = Files::open(&folder, 1_000).expect("opens");
        fs::write(folder.join("a.mp3"), "no sound").expect("writes");
        let path = FilePath::new("a.mp3").expect("a path");
        let source = files.get(&path).await.expect("there");
        let key = Key { version: Version::of(&path, &source), product: Product::Analysis };
        let job = Job::new(key, path, source);
        job.stop();
        let input = Input { file: &job.source.file, ending: "mp3", ffmpeg: None };
        let bounds = Bounds { sound: Duration::from_secs(60) };
        let ended = check(&input, &bounds, job.begin(Duration::from_secs(60)));
        assert!(matches!(ended, Err(TranscodeError::Stopped)), "{ended:?}");
        let _ = fs::remove_dir_all(&folder);
    }
}
