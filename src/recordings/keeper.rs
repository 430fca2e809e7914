//! What is done for recordings without anybody's asking: tracks are put away, limits kept, ends noted, old ones removed. Every
//! node does all of it, and the database sees to it that each thing is done by one.

use std::{fs, io, path::Path, time::Duration};

use antiphon_core::{
    gateway::{RecordingEnd, RecordingFinished},
    ids::RecordingId,
};
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Recordings, Result};
use crate::{
    recorder::{self, EndedTrack, KEPT, kept, sound_path},
    store::{FileSeen, Recording, RecordingTrack, StoreError},
    streaming::FilePath,
    telemetry::metrics::metrics,
};

/// How often recordings are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often old recordings and files without one are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How long after its end a recording may still get tracks that were not begun: every node has heard of the end by then.
const HEARD_OF: Duration = Duration::from_secs(5);

/// Files of no recording are left alone for so long: they may have come before their recording was looked up.
const NOBODYS_AFTER: Duration = Duration::from_secs(600);

impl Recordings {
    /// Does all of it, for ever.
    pub async fn keep(self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidied = None::<Instant>;
        loop {
            match &self.inner.recorder {
                Some(recorder) => tokio::select! {
                    _ = looks.tick() => {}
                    () = recorder.track_ended() => {}
                },
                None => _ = looks.tick().await,
            }
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "recordings are looked at again");
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                tidied = Some(Instant::now());
                if let Err(error) = self.tidy().await {
                    tracing::debug!(%error, "old recordings are looked for again");
                }
            }
        }
    }

    async fn look(&self) -> Result<()> {
        self.put_away().await;
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

    /// Puts all tracks away that nobody writes, also those that a process left behind.
    pub async fn put_away(&self) {
        let folder = self.inner.config.folder.clone();
        let ended = tokio::task::spawn_blocking(move || recorder::ended(&folder)).await;
        match ended.map_err(io::Error::other).flatten() {
            Ok(tracks) => {
                for track in tracks {
                    if let Err(error) = self.put_track_away(track).await {
                        tracing::warn!(%error, "a recorded track is put away later");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "recorded tracks cannot be looked for"),
        }
    }

    async fn put_track_away(&self, ended: EndedTrack) -> Result<()> {
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
        if !self.inner.store.add_recording_track(&track).await? {
            // Its recording was deleted meanwhile, with its channel perhaps.
            blocking(move || {
                ended.discard();
                Ok(())
            })
            .await;
            return Ok(());
        }
        let folder = self.inner.config.folder.clone();
        if blocking(move || ended.put_away(&folder)).await.is_some() {
            metrics().recording.kept.increment(1);
            self.own(track.recording, &sound_path(track.recording, track.id), track.bytes).await?;
        }
        Ok(())
    }

    /// Makes a file of the library that of whoever began its recording.
    pub(super) async fn own(&self, id: RecordingId, path: &str, size_bytes: u64) -> Result<()> {
        let Some(recording) = self.inner.store.recording(id).await? else { return Ok(()) };
        let folder = self.inner.config.folder.join(path);
        let modified = blocking(move || fs::metadata(folder)?.modified()).await;
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

    /// Removes recordings that were kept for long enough, and files of none.
    async fn tidy(&self) -> Result<()> {
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
        let there = blocking(move || folders(&folder)).await.unwrap_or_default();
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
