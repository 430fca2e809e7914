//! How far a transcode is, and whether it is to go on.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::TranscodeError;

/// Looked at by others while a file is transcoded.
#[derive(Debug)]
pub struct Watch {
    length: u64,
    read: AtomicU64,
    stopped: AtomicBool,
    began: Instant,
    patience: Duration,
}

impl Watch {
    /// For a file of `length` bytes that may take so long, from now on.
    #[must_use]
    pub fn new(length: u64, patience: Duration) -> Self {
        Self { length, read: AtomicU64::new(0), stopped: AtomicBool::new(false), began: Instant::now(), patience }
    }

    /// Ends the work at its next step.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The part of the file that was read, from 0 to 1; `None` where that cannot be said, as of what ffmpeg reads.
    #[must_use]
    pub fn progress(&self) -> Option<f64> {
        let read = self.read.load(Ordering::Relaxed);
        (self.length > 0 && read > 0).then(|| (read as f64 / self.length as f64).min(1.0))
    }

    /// How long the rest takes at the speed so far; `None` before anything can be said.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let done = self.progress().filter(|done| *done > 0.01)?;
        Some(self.began.elapsed().mul_f64((1.0 - done) / done))
    }

    /// Where the file is being read: the last place, since formats look at its end first.
    pub(super) fn has_read(&self, until: u64) {
        self.read.store(until, Ordering::Relaxed);
    }

    /// Forgets what was read: another reads on, unseen.
    pub(super) fn lose_sight(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// Whether to go on.
    pub(super) fn check(&self) -> Result<(), TranscodeError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(TranscodeError::Stopped);
        }
        if self.began.elapsed() > self.patience {
            return Err(TranscodeError::TooSlow(self.patience.as_secs()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_grows_and_stops_are_heard() {
        let watch = Watch::new(200, Duration::from_secs(60));
        assert_eq!((watch.progress(), watch.remaining()), (None, None));
        watch.has_read(180);
        watch.has_read(50);
        assert_eq!(watch.progress(), Some(0.25));
        assert!(watch.remaining().is_some());
        watch.has_read(500);
        assert_eq!(watch.progress(), Some(1.0));
        watch.check().expect("goes on");
        watch.stop();
        assert!(matches!(watch.check(), Err(TranscodeError::Stopped)));
        let late = Watch::new(0, Duration::ZERO);
        std::thread::yield_now();
        while late.began.elapsed().is_zero() {}
        assert!(matches!(late.check(), Err(TranscodeError::TooSlow(0))));
    }
}
