//! Files that are being sent to the server: hidden and nameless until they are whole and known to be sound.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use bytes::Bytes;
use parking_lot::Mutex;

use super::{FilePath, making::part::Part};
use crate::{
    error::AppError,
    places::{NoPlace, Place, Places},
    telemetry::metrics::{UploadOutcome, metrics},
    transcode::{Bounds, Input, TranscodeError, Watch, check},
};

/// Where uploads are until they have their name: in the folder itself, so that a rename gives it to them, and hidden.
const FOLDER: &str = ".uploads";

/// So much is written to the disk at once.
const WRITE_BYTES: usize = 1_024 * 1_024;

/// How long an upload is looked at before it is refused: its first sound is found in the first moments or never.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// When to come back where as many upload as may, in seconds.
const RETRY_S: u64 = 10;

/// Where uploads go.
pub(super) struct Uploads {
    folder: PathBuf,
    bytes_max: u64,
    bounds: Bounds,
    ffmpeg: Option<PathBuf>,
    places: Arc<Places<UserId>>,
}

/// A file that is being sent.
pub struct Upload {
    part: Arc<Mutex<Part>>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    bytes: u64,
    bytes_max: u64,
    /// What its account's quota, or that of all, has left.
    room_bytes: u64,
    _place: Place<UserId>,
}

impl Uploads {
    /// Below the folder of files; what processes that ended have left there is removed.
    pub(super) fn open(
        audio: &Path,
        bytes_max: u64,
        (at_once, per_account): (u32, u32),
        bounds: Bounds,
        ffmpeg: Option<PathBuf>,
    ) -> io::Result<Self> {
        let folder = audio.join(FOLDER);
        // A folder that may only be read from takes no uploads, and is a good folder otherwise.
        if fs::create_dir_all(&folder).is_ok() {
            Part::sweep(&folder)?;
        }
        let places = Arc::new(Places::new(at_once, per_account, &metrics().streaming.uploads_running));
        Ok(Self { folder, bytes_max, bounds, ffmpeg, places })
    }

    /// Begins an upload of somebody's, of `announced` bytes where that is known, for which the quotas have `room_bytes`.
    pub(super) async fn begin(&self, by: UserId, announced: Option<u64>, room_bytes: u64) -> Result<Upload, AppError> {
        check_size(announced.unwrap_or(0), self.bytes_max)?;
        let place = Places::take(&self.places, by).map_err(busy)?;
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || Part::create(&folder)).await;
        let part = made.map_err(io::Error::other).flatten().map_err(|error| failed(&error))?;
        Ok(Upload {
            part: Arc::new(Mutex::new(part)),
            waiting: Vec::new(),
            waiting_bytes: 0,
            bytes: 0,
            bytes_max: self.bytes_max,
            room_bytes,
            _place: place,
        })
    }

    /// Whether a whole upload is what its path says.
    pub(super) async fn check(&self, upload: &Upload, path: &FilePath) -> Result<(), TranscodeError> {
        let (part, path) = (Arc::clone(&upload.part), path.clone());
        let (bounds, ffmpeg, bytes) = (self.bounds, self.ffmpeg.clone(), upload.bytes);
        let looked = tokio::task::spawn_blocking(move || {
            let file = part.lock().reopen()?;
            let ending = Path::new(path.as_str()).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let input = Input { file: &file, ending, ffmpeg: ffmpeg.as_deref() };
            check(&input, &bounds, &Watch::new(bytes, LOOK_PATIENCE))
        });
        looked.await.map_err(io::Error::other)?
    }
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where they are too many for a file, or for what is left of the quotas: none of them is written.
    pub async fn take(&mut self, bytes: Bytes) -> Result<(), AppError> {
        self.bytes += bytes.len() as u64;
        check_size(self.bytes, self.bytes_max)?;
        check_room(self.bytes, self.room_bytes)?;
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes >= WRITE_BYTES { self.write().await.map_err(|error| failed(&error)) } else { Ok(()) }
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes what waits, in a thread that may wait for the disk.
    async fn write(&mut self) -> io::Result<()> {
        let (part, waiting) = (Arc::clone(&self.part), std::mem::take(&mut self.waiting));
        self.waiting_bytes = 0;
        let written = tokio::task::spawn_blocking(move || {
            let mut part = part.lock();
            waiting.iter().try_for_each(|bytes| part.write_all(bytes))
        });
        written.await.map_err(io::Error::other)?
    }

    /// Writes the rest: no more comes.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` where it cannot be written.
    pub async fn end(&mut self) -> Result<(), AppError> {
        self.write().await.map_err(|error| failed(&error))?;
        let part = Arc::clone(&self.part);
        let flushed = tokio::task::spawn_blocking(move || part.lock().flush());
        flushed.await.map_err(io::Error::other).flatten().map_err(|error| failed(&error))
    }

    /// Its length, and when it was last written.
    pub(super) async fn finished(&self) -> io::Result<(u64, SystemTime)> {
        let part = Arc::clone(&self.part);
        let looked = tokio::task::spawn_blocking(move || {
            let metadata = part.lock().reopen()?.metadata()?;
            Ok((metadata.len(), metadata.modified()?))
        });
        looked.await.map_err(io::Error::other)?
    }

    /// The file itself, to be given its name.
    pub(super) fn into_part(self) -> Option<Part> {
        Arc::into_inner(self.part).map(Mutex::into_inner)
    }
}

fn check_size(bytes: u64, bytes_max: u64) -> Result<(), AppError> {
    if bytes > bytes_max {
        metrics().streaming.uploads.of(UploadOutcome::TooLong).increment(1);
        let message = format!("a file may have {bytes_max} bytes (streaming.max_file_size_bytes)");
        return Err(AppError::new(ErrorCode::LimitReached, message));
    }
    Ok(())
}

/// Who does not say before how much they send is stopped where the quota ends, and not only told so at the end.
fn check_room(bytes: u64, room_bytes: u64) -> Result<(), AppError> {
    if bytes > room_bytes {
        metrics().streaming.uploads.of(UploadOutcome::Quota).increment(1);
        let message =
            format!("{room_bytes} bytes are left of the quota, and the file has more: remove something first");
        return Err(AppError::new(ErrorCode::LimitReached, message));
    }
    Ok(())
}

fn busy(why: NoPlace) -> AppError {
    metrics().streaming.uploads.of(UploadOutcome::Busy).increment(1);
    match why {
        NoPlace::InAll(_) => {
            let message = "as many files are being uploaded as may be at once (limits.uploads)";
            AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S)
        }
        NoPlace::ForEach(most) => {
            let message = format!("an account uploads {most} files at once and no more (limits.uploads_per_account)");
            AppError::retry(ErrorCode::RateLimited, message, RETRY_S)
        }
    }
}

fn failed(error: &io::Error) -> AppError {
    tracing::warn!(%error, "an upload could not be written");
    AppError::new(ErrorCode::InternalError, "the file could not be written; the server's log has more")
}
