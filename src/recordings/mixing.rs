//! The mix of a recording: made once, when somebody wants it, by one node at the lowest priority; whole or not at all. Where the library
//! is a bucket it is sent there, and waits on the disk of the node that made it until it is.

use std::{
    fs::{File, Metadata},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_core::ids::RecordingId;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{MIX, Recordings, Result, keeper::blocking, offset_us};
use crate::{
    recorder::{KEPT, kept, sound_path},
    store::{Recording, RecordingTrack},
    streaming::{BucketError, FilePath},
    telemetry::metrics::{Outcome, metrics},
    transcode::{Bounds, Input, Quality, TranscodeError, Voice, Watch, mix_together},
};

/// How often a mix is looked for that nobody here has wanted: a node that died may have left it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A node that took a mix on has so much longer than making it may take.
const LEASE_MORE: Duration = Duration::from_secs(60);

/// The lowest priority there is (`nice`): mixes get what voice leaves over.
const NICE: i32 = 19;

/// What a mix is called that waits for the bucket: no name of the library's.
const UNSENT: &str = ".mix.opus";

/// How often a mix that waits is sent again while the bucket is away.
const SEND_AGAIN: Duration = Duration::from_secs(5);

/// A mix that has waited for so long is given up.
const WAITS_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

impl Recordings {
    /// Makes mixes that are wanted, one after the other, for ever.
    pub async fn make_mixes(self) {
        loop {
            match self.make_wanted().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "wanted mixes are looked for again"),
            }
            let _ = tokio::time::timeout(LOOK_EVERY, self.inner.mix_wanted.notified()).await;
        }
    }

    /// Whether there was one.
    async fn make_wanted(&self) -> Result<bool> {
        let now = OffsetDateTime::now_utc();
        let until = now + self.inner.config.mix_patience + LEASE_MORE;
        let Some(id) = self.inner.store.claim_mix(now, until).await? else { return Ok(false) };
        let Some(recording) = self.inner.store.recording(id).await? else { return Ok(true) };
        let made = match self.inner.streams.sends_recordings() {
            true => self.make_and_send(recording, until).await,
            false => self.make(recording, MIX).await.map_err(NoMix::from),
        };
        let error = match made {
            Ok(bytes) => {
                self.own(id, &Self::mix_path(id), bytes).await?;
                None
            }
            // The bucket or the disk fails: it is tried again once this node's time for it is over.
            Err(error) if !error.is_final() => {
                tracing::warn!(recording = %id, %error, "a mix is made later");
                return Ok(true);
            }
            Err(error) => {
                tracing::warn!(recording = %id, %error, "a mix could not be made");
                Some(error.to_string().chars().take(REASON_CHARS_MAX).collect::<String>())
            }
        };
        self.inner.store.mix_made(id, until, error.as_deref()).await?;
        // Only now: until it is noted, it may be wanted again.
        self.drop_unsent(id).await;
        Ok(true)
    }

    /// How many bytes there are of a mix in the bucket: one that waits here is not made again.
    async fn make_and_send(&self, recording: Recording, until: OffsetDateTime) -> std::result::Result<u64, NoMix> {
        let id = recording.id;
        let file = self.unsent(id);
        let known = file.clone();
        let waiting = blocking(move || match std::fs::metadata(known) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        });
        let bytes = match waiting.await.flatten() {
            Some(waiting) if is_older(&waiting, WAITS_MAX) => return Err(NoMix::GivenUp),
            Some(waiting) => waiting.len(),
            None => self.make(recording, UNSENT).await?,
        };
        self.send_mix(id, &file, until).await?;
        Ok(bytes)
    }

    /// Sends a mix to the bucket: again and again while that is away, as long as no other node may make it.
    async fn send_mix(
        &self,
        id: RecordingId,
        file: &Path,
        until: OffsetDateTime,
    ) -> std::result::Result<(), BucketError> {
        while let Err(error) = self.inner.streams.send_recorded(&Self::mix_path(id), file).await {
            metrics().recording.mix_sends_failed.increment(1);
            if !matches!(error, BucketError::Away(_)) || OffsetDateTime::now_utc() + SEND_AGAIN >= until {
                return Err(error);
            }
            tracing::debug!(recording = %id, %error, "a mix is sent again");
            tokio::time::sleep(SEND_AGAIN).await;
        }
        Ok(())
    }

    /// Where the mix of a recording waits for the bucket.
    fn unsent(&self, id: RecordingId) -> PathBuf {
        kept(&self.inner.config.folder, id).join(UNSENT)
    }

    /// Removes a mix that need not wait any more, where there is one.
    async fn drop_unsent(&self, id: RecordingId) {
        let file = self.unsent(id);
        blocking(move || remove(&file)).await;
    }

    /// In a thread of its own, whose priority is its own, under a name beside the tracks; how many bytes there are.
    async fn make(&self, recording: Recording, name: &'static str) -> std::result::Result<u64, TranscodeError> {
        let made = self.make_of_tracks(recording, name).await;
        metrics().recording.mixes.of(Outcome::from(made.is_ok())).increment(1);
        made
    }

    async fn make_of_tracks(
        &self,
        recording: Recording,
        name: &'static str,
    ) -> std::result::Result<u64, TranscodeError> {
        let config = self.inner.config.clone();
        let tracks = self.inner.store.recording_tracks(recording.id).await.map_err(io::Error::other)?;
        let mut files = Vec::new();
        for track in &tracks {
            files.push(self.open(&recording, track).await?);
        }
        let (done, made) = oneshot::channel();
        let thread = std::thread::Builder::new().name("recording-mix".to_owned());
        thread.spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "making a mix competes with voice: its priority cannot be lowered");
            }
            // Nobody waits any more where the server stops.
            let voices = tracks.iter().zip(&files).map(|(track, file)| voice(&recording, track, file)).collect();
            let folder = kept(&config.folder, recording.id);
            let _ = done.send(mix((&folder, name), recording.id, voices, &config.bounds, config.mix_patience));
        })?;
        made.await.map_err(|_| TranscodeError::Undecodable("its thread gave up".to_owned()))?
    }

    /// A track's sound, wherever it is.
    async fn open(&self, recording: &Recording, track: &RecordingTrack) -> io::Result<File> {
        let name = sound_path(recording.id, track.id);
        let here = self.inner.config.folder.join(&name);
        match tokio::task::spawn_blocking(move || File::open(here)).await.map_err(io::Error::other)? {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let path = FilePath::new(&name).ok_or(io::ErrorKind::InvalidInput)?;
        let file = self.inner.streams.file(&path).await.map_err(|error| io::Error::other(error.to_string()))?;
        file.handle()
    }
}

/// Why there is no mix.
#[derive(Debug, thiserror::Error)]
enum NoMix {
    /// It could not be made.
    #[error(transparent)]
    NotMade(#[from] TranscodeError),
    /// It is made, and waits.
    #[error("it waits for the bucket: {0}")]
    Unsent(#[from] BucketError),
    /// It has waited for too long. What is wrong with the bucket is for the log, and was said there.
    #[error("it was made, and could not be sent to where the library is for {} hours", WAITS_MAX.as_secs() / 3_600)]
    GivenUp,
}

impl NoMix {
    /// Whether there will be none, unless somebody wants it again.
    fn is_final(&self) -> bool {
        match self {
            Self::NotMade(error) => error.is_of_the_file(),
            Self::Unsent(_) => false,
            Self::GivenUp => true,
        }
    }
}

/// Removes what nobody goes on with: parts that a process left which ended, and mixes that waited at one node while another made theirs.
/// Those that are wanted are given up before. Blocks.
pub(super) fn sweep(audio: &Path) -> io::Result<()> {
    let recordings = match std::fs::read_dir(audio.join(KEPT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    for folder in recordings.flatten() {
        let Some(id) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for name in [UNSENT.to_owned(), part_name(id)] {
            let file = folder.path().join(name);
            if std::fs::metadata(&file).is_ok_and(|found| is_older(&found, WAITS_MAX * 2)) {
                remove(&file)?;
            }
        }
    }
    Ok(())
}

fn is_older(file: &Metadata, than: Duration) -> bool {
    file.modified().ok().and_then(|changed| changed.elapsed().ok()).is_some_and(|age| age > than)
}

/// Removes a file of a recording, and the recording's folder where nothing else is in it. Blocks.
fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    // Tracks may be in it, of before there was a bucket.
    let _ = file.parent().map(std::fs::remove_dir);
    Ok(())
}

/// Into a folder, under a name.
fn mix(
    (folder, name): (&Path, &str),
    id: RecordingId,
    voices: Vec<Voice<'_>>,
    bounds: &Bounds,
    patience: Duration,
) -> std::result::Result<u64, TranscodeError> {
    let watch = Watch::new(0, patience);
    std::fs::create_dir_all(folder)?;
    let part = folder.join(part_name(id));
    let mut writer = BufWriter::new(File::create(&part)?);
    let mixed = mix_together(&voices, &mut writer, Quality::High, bounds, &watch).and_then(|_| {
        writer.flush()?;
        let file = writer.get_ref();
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(&part, folder.join(name))?;
        Ok(bytes)
    });
    if mixed.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    mixed
}

/// What is left behind by a process that ended is written over by the next that makes it.
fn part_name(id: RecordingId) -> String {
    format!(".{id}.part")
}

fn voice<'a>(recording: &Recording, track: &RecordingTrack, file: &'a File) -> Voice<'a> {
    let begins_us = u64::try_from(offset_us(recording, track.started_at)).unwrap_or(0);
    Voice { input: Input { file, ending: "opus", ffmpeg: None }, begins_at: begins_us * 48 / 1_000 }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    #[test]
    fn what_nobody_goes_on_with_is_removed_and_no_track_with_it() {
        let audio = std::env::temp_dir().join(format!("antiphon-mixes-{}", uuid::Uuid::now_v7()));
        let ids = [1, 2, 3].map(|number| RecordingId(uuid::Uuid::from_u128(number)));
        let write = |id: RecordingId, name: &str, age: Duration| {
            let folder = kept(&audio, id);
            fs::create_dir_all(&folder).expect("can be made");
            let file = File::create(folder.join(name)).expect("can be made");
            file.set_modified(SystemTime::now() - age).expect("can be set");
            folder.join(name)
        };
        let old = WAITS_MAX * 2 + Duration::from_secs(60);
        let (left, part) = (write(ids[0], UNSENT, old), write(ids[1], &part_name(ids[1]), old));
        let (track, waiting) = (write(ids[1], "track.opus", old), write(ids[2], UNSENT, WAITS_MAX));
        sweep(&audio).expect("sweeps");
        let there = [&left, &part, &track, &waiting].map(|file| file.exists());
        assert_eq!(there, [false, false, true, true]);
        assert!(!kept(&audio, ids[0]).exists(), "an empty folder goes, too");
        let _ = fs::remove_dir_all(&audio);
    }
}
