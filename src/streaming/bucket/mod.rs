//! A library that lies in a bucket of an S3-compatible store, for all nodes.
//!
//! ```text
//! bucket (the truth) > requests (signed, bounded) > fetch > a folder of whole copies (bounded, used longest ago goes) > files
//! ```
//!
//! Ranges, qualities and waveforms work on the copies as on any file. A copy's time of change says which object it is of
//! ([`Object::stamp`]), so the folder needs no list beside it and is good after a restart.

mod failure;
mod fetch;
mod kept;
mod made;
mod object;
mod recorded;
mod requests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use quick_cache::sync::Cache;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Semaphore;

pub use self::failure::BucketError;
pub(super) use self::made::name_of_made;
use self::{
    fetch::Fetching,
    kept::Kept,
    object::Object,
    requests::{From, Requests},
};
use super::{
    Entry, FilePath, FolderError, OpenFile,
    files::Files,
    library::{ENTRIES_MAX, Found, found_in},
    making::part::Part,
};
use crate::{settings::Secret, telemetry::metrics::metrics};

/// How long an object is believed to be as it was.
const BELIEVED: Duration = Duration::from_secs(5);

/// Objects of which it is known how they were.
const KNOWN_MAX: usize = 10_000;

/// Objects of one answer to a list.
const LISTED_AT_ONCE: usize = 1_000;

/// Pages of a list; further ones are of keys that are no audio files.
const PAGES_MAX: usize = 1_000;

/// Objects that are fetched at once.
const FETCHED_AT_ONCE: usize = 8;

/// How long a request waits for an object that is fetched. It is shorter than requests' own time.
const FETCH_PATIENCE: Duration = Duration::from_secs(15);

/// How long whoever wants to know how the bucket is waits for its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Where copies are while they are fetched.
const PARTS: &str = ".fetching";

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// The URL of the store.
    pub endpoint: String,
    /// The bucket's name.
    pub name: String,
    /// What the store calls the region it is in.
    pub region: String,
    /// Whose requests are.
    pub access_key: Secret,
    /// What signs them.
    pub secret_key: Secret,
    /// Whether the name stands in the host and not in the path.
    pub virtual_host: bool,
    /// What stands before each path in its key.
    pub prefix: String,
    /// The folder of copies; made when it isn't there.
    pub folder: PathBuf,
    /// What they may take.
    pub bytes_max: u64,
    /// How long an answer may take to begin.
    pub timeout: Duration,
}

/// The bucket, and what of it is on the disk.
pub(super) struct Bucket {
    requests: Requests,
    files: Files,
    kept: Arc<Kept>,
    parts: PathBuf,
    bytes_max: u64,
    known: Cache<FilePath, (Object, Instant)>,
    fetching: Fetching,
    places: Semaphore,
    /// Whether it answered when somebody wanted to know.
    asked: tokio::sync::Mutex<Option<(bool, Instant)>>,
}

impl Bucket {
    /// Opens the folder of copies; the bucket is asked when it is needed, since it may be away now.
    pub(super) fn open(config: &BucketConfig, file_bytes_max: u64) -> Result<Arc<Self>, BucketOpenError> {
        let fail = |error| FolderError::of(&config.folder, "bucket.cache_dir", error);
        let parts = config.folder.join(PARTS);
        fs::create_dir_all(&parts).map_err(fail)?;
        Part::sweep(&parts).map_err(fail)?;
        keeps_nanoseconds(&parts).map_err(fail)?;
        let kept = Kept::new(config.bytes_max);
        for copy in found_in(&config.folder, u64::MAX).map_err(fail)?.files {
            kept.insert(copy.path, copy.length);
        }
        let bucket = Arc::new(Self {
            requests: Requests::new(config)?,
            files: Files::open(&config.folder, u64::MAX).map_err(fail)?,
            kept,
            parts,
            bytes_max: file_bytes_max,
            known: Cache::new(KNOWN_MAX),
            fetching: Fetching::default(),
            places: Semaphore::new(FETCHED_AT_ONCE),
            asked: tokio::sync::Mutex::default(),
        });
        // The limit may be lower than it was.
        if let Some((_room, gone)) = bucket.kept.reserve(0) {
            bucket.drop_copies(&gone);
        }
        Ok(bucket)
    }

    /// For how long the bucket has not done what it is asked.
    pub(super) fn away_for(&self) -> Option<Duration> {
        self.requests.away_for()
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.bytes()
    }

    /// Closes copies that nobody reads. Blocks.
    pub(super) fn close_unused(&self) {
        self.files.close_unused();
    }

    /// The file of a path: the copy of the object as it is now or, while the bucket is away, as it was.
    pub(super) async fn get(self: &Arc<Self>, path: &FilePath) -> io::Result<Arc<OpenFile>> {
        let object = match self.look(path).await {
            Ok(Some(object)) => object,
            Ok(None) => {
                self.forget(path).await;
                return Err(io::ErrorKind::NotFound.into());
            }
            Err(error) => return self.last_copy(path).await.ok_or_else(|| error.into()),
        };
        if object.length > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Some(copy) = self.copy_of(path, &object).await {
            return Ok(copy);
        }
        match tokio::time::timeout(FETCH_PATIENCE, self.fetch(path, &object)).await {
            Ok(Ok(())) => self.copy_of(path, &object).await.ok_or_else(|| BucketError::Changed.into()),
            Ok(Err(error)) => {
                self.known.remove(path);
                Err(error.into())
            }
            Err(_) => Err(BucketError::Fetching.into()),
        }
    }

    /// The entity tag that the copy of a path's object has: it needs none, and none is fetched.
    pub(super) async fn etag(&self, path: &FilePath) -> io::Result<String> {
        let object = self.look(path).await?.ok_or(io::ErrorKind::NotFound)?;
        if object.length > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(object.etag_of_copy())
    }

    /// What there is at a path, a few seconds old at most.
    async fn look(&self, path: &FilePath) -> Result<Option<Object>, BucketError> {
        if let Some((object, at)) = self.known.get(path)
            && at.elapsed() < BELIEVED
        {
            return Ok(Some(object));
        }
        let found = self.requests.head(path.as_str()).await?;
        match &found {
            Some(object) => self.known.insert(path.clone(), (object.clone(), Instant::now())),
            None => drop(self.known.remove(path)),
        }
        Ok(found)
    }

    /// The copy of an object, if it is there.
    async fn copy_of(&self, path: &FilePath, object: &Object) -> Option<Arc<OpenFile>> {
        let copy = self.files.get(path).await.ok()?;
        if copy.length != object.length || copy.modified != object.stamp() {
            return None;
        }
        self.kept.touch(path);
        Some(copy)
    }

    /// The copy of what was there when the bucket was last asked.
    async fn last_copy(&self, path: &FilePath) -> Option<Arc<OpenFile>> {
        let copy = self.files.get(path).await.ok().filter(|copy| copy.length <= self.bytes_max)?;
        self.kept.touch(path);
        metrics().streaming.bucket_unasked.increment(1);
        Some(copy)
    }

    /// Whether there is anything at a path.
    pub(super) async fn is_taken(&self, path: &FilePath) -> io::Result<bool> {
        Ok(self.requests.head(path.as_str()).await?.is_some())
    }

    /// Writes a whole file to its path, which is to be free unless it may `replace`.
    pub(super) async fn put(self: &Arc<Self>, mut part: Part, path: &FilePath, replace: bool) -> io::Result<()> {
        let (part, length) = blocking(move || {
            part.sync()?;
            let length = part.reopen()?.metadata()?.len();
            Ok((part, length))
        })
        .await?;
        let written = self.requests.write(path.as_str(), part.path(), (length, path.media_type()), !replace).await;
        self.known.remove(path);
        match written {
            Err(BucketError::Changed) if !replace => return Err(BucketError::Taken.into()),
            written => written?,
        }
        metrics().streaming.bucket_sent_bytes.increment(length);
        // It is in the bucket: a copy that is not made now is fetched when it is asked for.
        if let Ok(Some(object)) = self.look(path).await
            && object.length == length
            && let Err(error) = self.keep_copy(part, path, &object).await
        {
            tracing::debug!(%path, %error, "what was uploaded has no copy here");
        }
        Ok(())
    }

    /// Removes the object of a path, and its copy.
    pub(super) async fn remove(self: &Arc<Self>, path: &FilePath) -> io::Result<()> {
        self.known.remove(path);
        self.requests.remove(path.as_str()).await?;
        self.forget(path).await;
        Ok(())
    }

    /// What there is in the bucket.
    pub(super) async fn list(&self) -> Result<Found, BucketError> {
        let (mut found, mut from) = (Found { files: Vec::new(), is_whole: false }, None);
        for _ in 0..PAGES_MAX {
            let (page, next) = self.requests.list("", from.as_ref(), LISTED_AT_ONCE).await?;
            let is_of_made = page.last().is_some_and(|last| made::is_made(&last.name));
            let entries = page.into_iter().filter_map(|object| {
                let (path, modified) = (FilePath::new(&object.name)?, seconds_of(&object.modified)?);
                (object.length <= self.bytes_max).then_some(Entry { path, length: object.length, modified })
            });
            found.files.extend(entries);
            if found.files.len() > ENTRIES_MAX {
                found.files.truncate(ENTRIES_MAX);
                tracing::warn!(entries = ENTRIES_MAX, "the bucket of audio files has more files than are listed");
                return Ok(found);
            }
            from = next.map(|next| if is_of_made { From::Name(made::BEHIND) } else { next });
            if from.is_none() {
                found.is_whole = true;
                return Ok(found);
            }
        }
        tracing::warn!("the bucket of audio files has more keys than are looked through");
        Ok(found)
    }

    /// Whether the bucket can be listed, as of a few seconds ago at most: however many ask, the bucket is asked once.
    pub(super) async fn answers(&self) -> bool {
        let mut asked = self.asked.lock().await;
        if let Some((answered, at)) = *asked
            && at.elapsed() < BELIEVED
        {
            return answered;
        }
        let answered =
            matches!(tokio::time::timeout(ANSWER_PATIENCE, self.requests.list("", None, 1)).await, Ok(Ok(_)));
        *asked = Some((answered, Instant::now()));
        answered
    }

    /// Makes a part the copy of an object.
    async fn keep_copy(self: &Arc<Self>, part: Part, path: &FilePath, object: &Object) -> Result<(), BucketError> {
        let (this, path, stamp, length) = (Arc::clone(self), path.clone(), object.stamp(), object.length);
        let kept = blocking(move || {
            let (_room, gone) = this.kept.reserve(length).ok_or(BucketError::Full)?;
            this.drop_copies(&gone);
            let mut part = part;
            part.set_modified(stamp)?;
            this.files.put(part, &path, true)?;
            this.kept.insert(path, length);
            Ok(())
        });
        Ok(kept.await?)
    }

    /// Removes the copy of an object that is no more.
    async fn forget(self: &Arc<Self>, path: &FilePath) {
        if !self.kept.forget(path) {
            return;
        }
        let (this, path) = (Arc::clone(self), path.clone());
        // It may have had to go meanwhile.
        let _ = blocking(move || this.files.remove(&path)).await;
    }

    /// Removes copies that had to go. Blocks.
    fn drop_copies(&self, gone: &[FilePath]) {
        for path in gone {
            if let Err(error) = self.files.remove(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%path, %error, "the copy of an audio file cannot be removed");
            }
            metrics().streaming.bucket_copies_removed.increment(1);
        }
    }
}

/// There is no library in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum BucketOpenError {
    /// The folder of copies cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The bucket cannot be asked.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Whether a bucket can be listed, written and removed from: says what is wrong.
///
/// # Errors
/// What it answers.
pub async fn ask_bucket(config: &BucketConfig) -> Result<(), BucketError> {
    let requests = Requests::new(config)?;
    requests.list("", None, 1).await?;
    let name = format!(".antiphon-doctor-{}", uuid::Uuid::now_v7());
    requests.write(&name, Path::new("/dev/null"), (0, "application/octet-stream"), true).await?;
    requests.remove(&name).await
}

/// Sees to it that a file's time of change is kept as it is set: copies are known by it.
fn keeps_nanoseconds(folder: &Path) -> io::Result<()> {
    let (mut part, time) = (Part::create(folder)?, SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
    part.set_modified(time)?;
    if part.reopen()?.metadata()?.modified()? == time {
        return Ok(());
    }
    Err(io::Error::other("its file system does not keep times to the nanosecond, by which copies are known"))
}

/// The second of an RFC 3339 time.
fn seconds_of(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(time.unix_timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Does what waits for the disk in a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
