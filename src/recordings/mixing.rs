//! The mix of a recording: made once, when somebody wants it, by one node at the lowest priority; whole or not at all.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    time::Duration,
};

use antiphon_core::ids::RecordingId;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{MIX, Recordings, Result, offset_us};
use crate::{
    recorder::{kept, sound_path},
    store::{Recording, RecordingTrack},
    streaming::FilePath,
    telemetry::metrics::{Outcome, metrics},
    transcode::{Bounds, Input, Quality, TranscodeError, Voice, Watch, mix_together},
};

/// How often a mix is looked for that nobody here has wanted: a node that died may have left it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A node that took a mix on has so much longer than making it may take.
const LEASE_MORE: Duration = Duration::from_secs(60);

/// The lowest priority there is (`nice`): mixes get what voice leaves over.
const NICE: i32 = 19;

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
        let tracks = self.inner.store.recording_tracks(id).await?;
        let made = self.make(recording, tracks).await;
        metrics().recording.mixes.of(Outcome::from(made.is_ok())).increment(1);
        let error = match made {
            Ok(bytes) => {
                self.own(id, &Self::mix_path(id), bytes).await?;
                None
            }
            // The bucket or the disk fails: it is tried again once this node's time for it is over.
            Err(error) if !error.is_of_the_file() => {
                tracing::warn!(recording = %id, %error, "a mix is made later");
                return Ok(true);
            }
            Err(error) => {
                tracing::warn!(recording = %id, %error, "a mix could not be made");
                Some(error.to_string().chars().take(REASON_CHARS_MAX).collect::<String>())
            }
        };
        self.inner.store.mix_made(id, until, error.as_deref()).await?;
        Ok(true)
    }

    /// In a thread of its own, whose priority is its own; how many bytes there are.
    async fn make(
        &self,
        recording: Recording,
        tracks: Vec<RecordingTrack>,
    ) -> std::result::Result<u64, TranscodeError> {
        let config = self.inner.config.clone();
        let mut files = Vec::new();
        for track in &tracks {
            files.push(self.open(&recording, track).await?);
        }
        let (id, sends) = (recording.id, self.inner.streams.sends_recordings());
        let (done, made) = oneshot::channel();
        let thread = std::thread::Builder::new().name("recording-mix".to_owned());
        thread.spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "making a mix competes with voice: its priority cannot be lowered");
            }
            // Nobody waits any more where the server stops.
            let voices = tracks.iter().zip(&files).map(|(track, file)| voice(&recording, track, file)).collect();
            let _ = done.send(mix(&config.folder, id, voices, &config.bounds, config.mix_patience));
        })?;
        let bytes = made.await.map_err(|_| TranscodeError::Undecodable("its thread gave up".to_owned()))??;
        if sends {
            self.send_mix(id).await?;
        }
        Ok(bytes)
    }

    /// A track's sound, wherever it is.
    async fn open(&self, recording: &Recording, track: &RecordingTrack) -> io::Result<File> {
        let name = sound_path(recording.id, track.id);
        match File::open(self.inner.config.folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let path = FilePath::new(&name).ok_or(io::ErrorKind::InvalidInput)?;
        let file = self.inner.streams.file(&path).await.map_err(|error| io::Error::other(error.to_string()))?;
        file.handle()
    }

    /// Sends the mix to the bucket; it does not stay here.
    async fn send_mix(&self, id: RecordingId) -> io::Result<()> {
        let path = kept(&self.inner.config.folder, id).join(MIX);
        let sent = self.inner.streams.send_recorded(&Self::mix_path(id), &path).await;
        std::fs::remove_file(&path)?;
        // Others' files may be in it, of before there was a bucket.
        let _ = std::fs::remove_dir(kept(&self.inner.config.folder, id));
        sent.map_err(|error| io::Error::other(error.to_string()))
    }
}

fn mix(
    audio: &Path,
    id: RecordingId,
    voices: Vec<Voice<'_>>,
    bounds: &Bounds,
    patience: Duration,
) -> std::result::Result<u64, TranscodeError> {
    let watch = Watch::new(0, patience);
    let (folder, whole) = (kept(audio, id), MIX);
    std::fs::create_dir_all(&folder)?;
    let part = folder.join(format!(".{}", part_name(id)));
    let mut writer = BufWriter::new(File::create(&part)?);
    let mixed = mix_together(&voices, &mut writer, Quality::High, bounds, &watch).and_then(|_| {
        writer.flush()?;
        let file = writer.get_ref();
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(&part, folder.join(whole))?;
        Ok(bytes)
    });
    if mixed.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    mixed
}

/// What is left behind by a process that ended is written over by the next that makes it.
fn part_name(id: RecordingId) -> String {
    format!("{id}.part")
}

fn voice<'a>(recording: &Recording, track: &RecordingTrack, file: &'a File) -> Voice<'a> {
    let begins_us = u64::try_from(offset_us(recording, track.started_at)).unwrap_or(0);
    Voice { input: Input { file, ending: "opus", ffmpeg: None }, begins_at: begins_us * 48 / 1_000 }
}
