//! Reading the certificate again: when its files change, and when asked to.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use super::{Files, Tls};
use crate::telemetry::metrics::{Outcome, metrics};

/// How often the files are looked at. Nothing tells of a change on every file system and through every kind of mount.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells files from what they are after a change; `None` for one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 2]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    /// Another file may have been put in its place, as where a symbolic link leads elsewhere.
    place: (u64, u64),
    modified: (i64, i64),
    length: u64,
}

impl Stamp {
    pub(super) fn of(files: &Files) -> Self {
        Self(files.each().map(FileStamp::of))
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            length: found.len(),
        })
    }
}

/// Whether the files are to be read: they are others than those read last, and were the same at the last look, so that
/// a pair of which one half is written is not taken for whole.
#[derive(Debug)]
struct Watch {
    read: Stamp,
    seen: Stamp,
}

impl Watch {
    fn look(&mut self, now: Stamp, asked: bool) -> bool {
        let settled = std::mem::replace(&mut self.seen, now) == now;
        let read = asked || settled && now != self.read;
        if read {
            self.read = now;
        }
        read
    }
}

/// Reads the certificate again when its files have changed, or when [`Tls::reload_soon`] asks for it, for ever.
pub(crate) async fn keep_current(tls: Tls) {
    let mut watch = Watch { read: tls.inner.read, seen: tls.inner.read };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = tls.inner.wanted.notified() => true,
        };
        // The files may be on a network's file system, which is not to hold up a thread that serves.
        let looking = tls.clone();
        let looked = tokio::task::spawn_blocking(move || Stamp::of(&looking.inner.files)).await;
        if looked.is_ok_and(|now| watch.look(now, asked)) {
            let reading = tls.clone();
            // It is cut short only where the runtime ends.
            let _ = tokio::task::spawn_blocking(move || read_again(&reading)).await;
        }
    }
}

fn read_again(tls: &Tls) {
    let outcome = tls.reload();
    metrics().tls.reloads.of(Outcome::from(outcome.is_ok())).increment(1);
    match outcome {
        Ok(()) => tracing::info!("a new certificate is served from now on"),
        Err(error) => tracing::error!(%error, "the new certificate is not used; the one before is served on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_once_when_it_is_whole() {
        let stamp = |length: u64, key_length: u64| {
            Stamp([length, key_length].map(|length| Some(FileStamp { place: (1, 1), modified: (1, 1), length })))
        };
        let mut watch = Watch { read: stamp(1, 1), seen: stamp(1, 1) };
        assert!(!watch.look(stamp(1, 1), false));
        assert!(watch.look(stamp(1, 1), true), "asked for");
        assert!(!watch.look(stamp(2, 1), false), "the key may follow");
        assert!(!watch.look(stamp(2, 2), false));
        assert!(watch.look(stamp(2, 2), false));
        assert!(!watch.look(stamp(2, 2), false), "once, whatever came of it");
        let gone = Stamp([None, None]);
        assert!(!watch.look(gone, false) && watch.look(gone, false) && !watch.look(gone, false));
    }
}
