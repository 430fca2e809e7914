//! What is done for recordings without anybody's asking: tracks are put away, limits kept, ends noted, old ones removed. Every
//! node does all of it, and the database sees to it that each thing is done by one.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use antiphon_core::{
    gateway::{RecordingEnd, RecordingFinished},
    ids::RecordingId,
};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::Instant};

use super::{Recordings, Result, mixing};
use crate::{
    recorder::{self, EndedTrack, KEPT, kept, sound_path},
    store::{FileSeen, Recording, RecordingTrack, StoreError},
    streaming::FilePath,
    telemetry::metrics::metrics,
    ticks::ticks,
};

/// How often recordings are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often tracks are looked for of whose end nobody said anything: a process that died left them, or they could not be put away.
const LEFT_EVERY: Duration = Duration::from_secs(5);

/// How often tracks are put away at once: each time takes those that ended since the last.
const PUTTING_AWAY_MAX: usize = 8;

/// How often old recordings and files without one are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How often the bucket is looked through for what is of no recording any more, since a thousand names cost a request, and recordings'
/// folders for what making mixes left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// How long after its end a recording may still get tracks that were not begun: every node has heard of the end by then.
const HEARD_OF: Duration = Duration::from_secs(5);

/// Files of no recording are left alone for so long: they may have come before their recording was looked up.
const NOBODYS_AFTER: Duration = Duration::from_secs(600);

impl Recordings {
    /// Does all of it but putting tracks away, for ever.
    pub async fn keep(self) {
        let mut looks = ticks(LOOK_EVERY);
        let (mut tidied, mut swept) = (None::<Instant>, None::<Instant>);
        loop {
            looks.tick().await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "recordings are looked at again");
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                tidied = Some(Instant::now());
                let sweeps = swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
                if sweeps {
                    swept = tidied;
                }
                if let Err(error) = self.tidy(sweeps).await {
                    tracing::debug!(%error, "old recordings are looked for again");
                }
            }
        }
    }

    /// Puts tracks away as they end, for ever: what waits for a bucket keeps nothing else waiting, and no track that ends meanwhile.
    pub async fn put_away_ended(self) {
        let mut looks = ticks(LEFT_EVERY);
        let mut running = JoinSet::new();
        loop {
            match &self.inner.recorder {
                Some(recorder) => tokio::select! {
                    _ = looks.tick() => {}
                    () = recorder.track_ended() => {}
                },
                None => _ = looks.tick().await,
            }
            while running.try_join_next().is_some() {}
            let noted = self.note_ended().await;
            if running.len() < PUTTING_AWAY_MAX {
                let this = self.clone();
                running.spawn(async move { this.put_noted_away(noted).await });
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let unfinished = self.inner.store.unfinished_recordings().await?;
        let (ended, open): (Vec<_>, Vec<_>) =
            unfinished.into_iter().partition(|recording| recording.ended_at.is_some());
        self.inner.rooms.follow_recordings(&open).await;
        self.end_due(&open).await?;
        for recording in ended {
            self.finish(&recording).await?;
        }
        Ok(())
    }

    /// Puts all tracks away that nobody writes, also those that a process left behind. First all of them are noted: a recording is not
    /// finished while one waits.
    pub async fn put_away(&self) {
        let noted = self.note_ended().await;
        self.put_noted_away(noted).await;
    }

    async fn note_ended(&self) -> Vec<(EndedTrack, RecordingTrack)> {
        let folder = self.inner.config.folder.clone();
        let ended = tokio::task::spawn_blocking(move || recorder::ended(&folder)).await;
        let ended = match ended.map_err(io::Error::other).flatten() {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, "recorded tracks cannot be looked for");
                return Vec::new();
            }
        };
        let mut noted = Vec::new();
        for ended in ended {
            match self.note(ended).await {
                Ok(track) => noted.extend(track),
                Err(error) => tracing::warn!(%error, "a recorded track is put away later"),
            }
        }
        noted
    }

    async fn put_noted_away(&self, noted: Vec<(EndedTrack, RecordingTrack)>) {
        for (ended, track) in noted {
            if let Err(error) = self.put_track_away(ended, track).await {
                tracing::warn!(%error, "a recorded track is put away later");
            }
        }
    }

    /// Notes a track; `None` where its recording is no more.
    async fn note(&self, ended: EndedTrack) -> Result<Option<(EndedTrack, RecordingTrack)>> {
        let head = &ended.head;
        let started = OffsetDateTime::from_unix_timestamp_nanos(i128::from(head.started_us) * 1_000);
        let track = RecordingTrack {
            id: head.track,
            recording: head.recording,
            user: head.user,
            username: head.username.clone(),
            node: head.node.clone(),
            started_at: started.map_err(|_| StoreError::Missing)?,
            samples: ended.samples,
            bytes: ended.bytes,
            channels: head.channels,
        };
        if self.inner.store.add_recording_track(&track, self.inner.streams.sends_recordings()).await? {
            return Ok(Some((ended, track)));
        }
        // It was deleted meanwhile, with its channel perhaps.
        discard(ended).await;
        Ok(None)
    }

    async fn put_track_away(&self, ended: EndedTrack, track: RecordingTrack) -> Result<()> {
        let is_there = match self.inner.streams.sends_recordings() {
            true => self.send(ended).await,
            // It waited, if there was a bucket when it was noted.
            false => self.put(ended).await && self.inner.store.track_was_sent(track.id).await.is_ok(),
        };
        if is_there {
            metrics().recording.kept.increment(1);
            self.own(track.recording, &sound_path(track.recording, track.id), track.bytes).await?;
        }
        Ok(())
    }

    /// Puts a track into the folder of audio files.
    async fn put(&self, ended: EndedTrack) -> bool {
        let folder = self.inner.config.folder.clone();
        blocking(move || ended.put_away(&folder)).await.is_some()
    }

    /// Sends a track to the bucket. Until all of it is there, and noted, it stays here, and is found again.
    async fn send(&self, ended: EndedTrack) -> bool {
        for (file, name) in ended.files() {
            if let Err(error) = self.inner.streams.send_recorded(&name, &file).await {
                tracing::debug!(name, %error, "a recorded track is sent later");
                return false;
            }
        }
        if let Err(error) = self.inner.store.track_was_sent(ended.head.track).await {
            tracing::debug!(track = %ended.head.track, %error, "that a recorded track was sent is noted later");
            return false;
        }
        discard(ended).await
    }

    /// Makes a file of the library that of whoever began its recording.
    pub(super) async fn own(&self, id: RecordingId, path: &str, size_bytes: u64) -> Result<()> {
        let Some(recording) = self.inner.store.recording(id).await? else { return Ok(()) };
        let folder = self.inner.config.folder.join(path);
        // The bucket's own time is in the next list.
        let modified = match self.inner.streams.sends_recordings() {
            true => Some(SystemTime::now()),
            false => blocking(move || fs::metadata(folder)?.modified()).await,
        };
        if let Some(modified) = modified {
            let file = FileSeen { path: path.to_owned(), size_bytes, modified: modified.into() };
            self.inner.store.add_library_file(&file, recording.by).await?;
        }
        Ok(())
    }

    /// Ends what has had its length, its bytes or its people.
    async fn end_due(&self, open: &[Recording]) -> Result<()> {
        if open.is_empty() {
            return Ok(());
        }
        let config = &self.inner.config;
        let channels: Vec<_> = open.iter().map(|recording| recording.channel).collect();
        let occupied = self.inner.rooms.occupancies(&channels).await;
        let mut all_bytes = self.inner.store.recorded_bytes().await?;
        let is_full = self.free_bytes().await.is_some_and(|free| free < config.free_bytes_min);
        for (recording, people) in open.iter().zip(occupied) {
            let (folder, id) = (config.folder.clone(), recording.id);
            let growing = blocking(move || Ok(recorder::bytes_being_written(&folder, id))).await.unwrap_or(0);
            all_bytes += growing;
            let empty_since = self.note_people(recording, people).await?;
            let now = OffsetDateTime::now_utc();
            let reason = if now - recording.started_at >= config.length_max {
                RecordingEnd::MaxLength
            } else if recording.bytes + growing >= config.bytes_max {
                RecordingEnd::MaxSize
            } else if all_bytes >= config.quota_bytes {
                RecordingEnd::Quota
            } else if is_full {
                RecordingEnd::DiskFull
            } else if empty_since.is_some_and(|since| now - since >= config.empty_for) {
                RecordingEnd::Empty
            } else {
                continue;
            };
            tracing::info!(recording = %recording.id, reason = reason.as_str(), "a recording ends by itself");
            self.end(recording.id, reason, None).await?;
        }
        Ok(())
    }

    /// Since when nobody is in a recording's channel.
    async fn note_people(&self, recording: &Recording, people: u32) -> Result<Option<OffsetDateTime>> {
        let since = match (people, recording.empty_since) {
            (0, None) => Some(OffsetDateTime::now_utc()),
            (0, since) => since,
            (1.., _) => None,
        };
        if since != recording.empty_since {
            self.inner.store.set_recording_empty(recording.id, since).await?;
        }
        Ok(since)
    }

    /// Notes that all tracks of a recording are there, once none is written or waits, and tells everyone in its channel.
    async fn finish(&self, recording: &Recording) -> Result<()> {
        let (folder, id) = (self.inner.config.folder.clone(), recording.id);
        let is_heard_of = recording.ended_at.is_some_and(|ended| OffsetDateTime::now_utc() - ended >= HEARD_OF);
        if !is_heard_of || blocking(move || Ok(recorder::is_pending(&folder, id))).await.unwrap_or(true) {
            return Ok(());
        }
        if self.inner.store.finish_recording(id).await?
            && let Some(recording) = self.inner.store.recording(id).await?
        {
            let channel_id = recording.channel;
            let finished = RecordingFinished { channel_id, recording_id: id, tracks: recording.tracks, position: None };
            // Whoever wants to know and is not told finds it in the list.
            let _ = self.inner.rooms.tell_of_recording(channel_id, finished).await;
        }
        Ok(())
    }

    /// Removes recordings that were kept for long enough, and files of none, of the bucket, too, where it `sweeps`.
    async fn tidy(&self, sweeps: bool) -> Result<()> {
        if let Some(kept_for) = self.inner.config.kept_for {
            let before = OffsetDateTime::now_utc() - kept_for;
            for recording in self.inner.store.recordings_ended_before(before).await? {
                // Of all nodes one removes it.
                if self.inner.store.delete_recording(recording.id).await? {
                    metrics().recording.expired.increment(1);
                    self.remove_files(recording.id).await;
                }
            }
        }
        let folder = self.inner.config.folder.clone();
        let mut there = blocking(move || folders(&folder)).await.unwrap_or_default();
        if sweeps {
            let folder = self.inner.config.folder.clone();
            blocking(move || mixing::sweep(&folder)).await;
            match self.inner.streams.recorded(NOBODYS_AFTER).await {
                Ok(in_bucket) => there.extend(in_bucket),
                Err(error) => tracing::debug!(%error, "the bucket is looked through another time"),
            }
        }
        let known = self.inner.store.known_recordings(&there).await?;
        for id in there.into_iter().filter(|id| !known.contains(id)) {
            self.remove_files(id).await;
        }
        Ok(())
    }

    /// Removes all files of a recording that is no more, with all that was made of them.
    pub(super) async fn remove_files(&self, id: RecordingId) {
        let folder = kept(&self.inner.config.folder, id);
        let listed = folder.clone();
        let names = blocking(move || {
            let files = match fs::read_dir(listed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                files => files?,
            };
            Ok(files.flatten().filter_map(|file| file.file_name().into_string().ok()).collect::<Vec<_>>())
        });
        for name in names.await.unwrap_or_default() {
            if let Some(path) = FilePath::new(&format!("{KEPT}/{id}/{name}")) {
                self.inner.streams.discard(&path).await;
            }
        }
        blocking(move || match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await;
        if let Err(error) = self.inner.streams.remove_recorded(id).await {
            tracing::warn!(recording = %id, %error, "what is left of a recording in the bucket is removed later");
        }
    }

    /// Bytes that are free where audio files are; `None` where the system does not say.
    pub(super) async fn free_bytes(&self) -> Option<u64> {
        let folder = self.inner.config.folder.clone();
        blocking(move || {
            let room = rustix::fs::statvfs(&folder)?;
            Ok(room.f_bavail.saturating_mul(room.f_frsize))
        })
        .await
    }
}

async fn discard(ended: EndedTrack) -> bool {
    let discard = move || {
        ended.discard();
        Ok(())
    };
    blocking(discard).await.is_some()
}

/// The recordings that have a folder in the library, for a while already.
fn folders(audio: &Path) -> io::Result<Vec<RecordingId>> {
    let folders = match fs::read_dir(audio.join(KEPT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folders => folders?,
    };
    let is_old = |folder: &fs::DirEntry| {
        let age = folder.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        (age >= NOBODYS_AFTER).then_some(())
    };
    let old = folders.flatten().filter(|folder| is_old(folder).is_some());
    Ok(old.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).collect())
}

/// Does what may wait for the disk in a thread that may; `None` after a failure, which is said.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten() {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::warn!(%error, "the folder of recordings does not do what it is asked");
            None
        }
    }
}
