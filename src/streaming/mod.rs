//! Audio files behind signed links: who may read them, which bytes they get, and where those come from.
//!
//! ```text
//! path (what a name may be) > link (who may) > files (open, never outside the folder) > precondition > range > body
//! making (what is made of the files: qualities, waveforms)                             ┘
//! ```

mod body;
mod bucket;
mod cache;
mod catalogue;
mod files;
mod library;
mod link;
mod listening;
mod live;
mod making;
mod media_type;
mod path;
mod precondition;
mod range;
mod recorded;
mod uploads;
pub mod waveform;

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use antiphon_core::{gateway::ErrorCode, ids::UserId};

pub use self::{
    body::{FileBody, Part},
    bucket::{BucketConfig, BucketError, BucketOpenError, ask_bucket},
    catalogue::{Catalogue, Keeping, UploadQuotas},
    files::{FileReader, FolderError, OpenFile},
    library::{Entry, Listing},
    link::{Link, LiveLink, Secrets, Signed, TTL_MAX_S},
    listening::{Heard, Listening},
    live::{FLOOR_MAX_BPS, Live, LiveBody, LiveConfig, LivePlace},
    making::{Asker, Facts, Made, MakingConfig, NotMade, Product, State},
    path::FilePath,
    precondition::{Verdict, if_match, judge},
    range::{Wanted, wanted},
    uploads::Upload,
};
use self::{bucket::Bucket, cache::Blocks, files::Files, library::Library, making::Making, uploads::Uploads};
pub use crate::places::Place;
use crate::{
    error::AppError,
    places::{NoPlace, Places},
    telemetry::metrics::{StreamRefusal, metrics},
    transcode::{Peaks, TranscodeError},
};

/// When to come back to a node that is busy, in seconds.
const RETRY_S: u64 = 5;

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// The folder of the files; made when it isn't there.
    pub folder: PathBuf,
    /// Where all files but recordings are, if not in the folder.
    pub bucket: Option<BucketConfig>,
    /// What signs links.
    pub secrets: Secrets,
    /// Tells listeners' networks apart.
    pub listening: Arc<Listening>,
    /// Longer files do not exist for clients.
    pub file_bytes_max: u64,
    /// The longest range of one answer; see [`wanted`].
    pub range_bytes_max: u64,
    /// Memory for what is asked for often.
    pub cache_bytes: u64,
    /// Files being sent at once.
    pub streams_max: u32,
    /// The same to one address.
    pub streams_per_address: u32,
    /// What is made of the files.
    pub making: MakingConfig,
    /// Files being uploaded at once.
    pub uploads_max: u32,
    /// The same by one account.
    pub uploads_per_account: u32,
    /// Who listens to channels.
    pub live: LiveConfig,
}

/// The files and who reads them. Clones are the same.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Secrets,
    range_bytes_max: u64,
    files: Files,
    bucket: Option<Arc<Bucket>>,
    blocks: Arc<Blocks>,
    places: Arc<Places<IpAddr>>,
    library: Library,
    making: Making,
    uploads: Uploads,
    listening: Arc<Listening>,
    live: Live,
}

/// Where a file is.
enum Whereabouts<'a> {
    /// In the folder, and open.
    Folder(Arc<OpenFile>),
    /// In the bucket, if there.
    Bucket(&'a Arc<Bucket>),
}

impl Streams {
    /// Opens the folder, which is made when it isn't there, and that of the bucket's copies.
    ///
    /// # Errors
    /// When one cannot be made or opened, or the bucket's settings make no address.
    pub fn open(config: StreamsConfig) -> Result<Self, BucketOpenError> {
        let fail = |error| FolderError::of(&config.folder, "streaming.audio_dir", error);
        let bytes_max = config.file_bytes_max;
        let files = Files::open(&config.folder, bytes_max).map_err(fail)?;
        let bucket = config.bucket.as_ref().map(|bucket| Bucket::open(bucket, bytes_max)).transpose()?;
        let (bounds, ffmpeg) = (config.making.bounds, config.making.ffmpeg.clone());
        let at_once = (config.uploads_max, config.uploads_per_account);
        // Where what is uploaded is put, so that a rename puts it there.
        let uploaded = config.bucket.as_ref().map_or(&config.folder, |bucket| &bucket.folder);
        let uploads = Uploads::open(uploaded, bytes_max, at_once, bounds, ffmpeg).map_err(fail)?;
        let making = Making::start(config.making, bucket.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                secrets: config.secrets,
                range_bytes_max: config.range_bytes_max,
                files,
                bucket: bucket.clone(),
                blocks: Arc::new(Blocks::new(config.cache_bytes)),
                places: Arc::new(Places::new(
                    config.streams_max,
                    config.streams_per_address,
                    &metrics().streaming.streams,
                )),
                library: Library::new(config.folder, bucket, bytes_max),
                making,
                uploads,
                listening: config.listening,
                live: Live::new(config.live),
            }),
        })
    }

    /// Where a file is that somebody uploads or removes, if not in the folder.
    fn bucket_of(&self, path: &FilePath) -> Option<&Arc<Bucket>> {
        self.inner.bucket.as_ref().filter(|_| path.recording().is_none())
    }

    /// Whether the bucket answers, as of a few seconds ago at most; `None` where there is none.
    pub async fn bucket_answers(&self) -> Option<bool> {
        Some(self.inner.bucket.as_ref()?.answers().await)
    }

    /// For how long the bucket has not done what it is asked, as far as is known.
    #[must_use]
    pub fn bucket_away_for(&self) -> Option<Duration> {
        self.inner.bucket.as_ref()?.away_for()
    }

    /// What copies of the bucket's files take of the disk, in bytes.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.inner.bucket.as_ref().map_or(0, |bucket| bucket.bytes())
    }

    /// What signs links.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// The longest range of one answer, in bytes.
    #[must_use]
    pub fn range_bytes_max(&self) -> u64 {
        self.inner.range_bytes_max
    }

    /// Memory that the blocks of files take now, in bytes.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.inner.blocks.bytes()
    }

    /// The file, open for reading.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such audio file within the folder, or one that is too long; `TEMPORARILY_UNAVAILABLE`
    /// while the bucket is away and there is no copy.
    pub async fn file(&self, path: &FilePath) -> Result<Arc<OpenFile>, AppError> {
        let file = match self.find(path).await {
            Ok(Whereabouts::Folder(file)) => Ok(file),
            Ok(Whereabouts::Bucket(bucket)) => bucket.get(path).await,
            Err(error) => Err(error),
        };
        file.map_err(|error| refusal_of(&error))
    }

    /// The entity tag of a file, as [`Streams::file`] has it; one in the bucket is not fetched for it.
    async fn etag(&self, path: &FilePath) -> io::Result<String> {
        match self.find(path).await? {
            Whereabouts::Folder(file) => Ok(file.etag.clone()),
            Whereabouts::Bucket(bucket) => bucket.etag(path).await,
        }
    }

    /// Where a file is, if it is anywhere.
    async fn find(&self, path: &FilePath) -> io::Result<Whereabouts<'_>> {
        match &self.inner.bucket {
            Some(bucket) if path.recording().is_none() => Ok(Whereabouts::Bucket(bucket)),
            // What was recorded before there was a bucket is in the folder.
            Some(bucket) => {
                Ok(self.inner.files.get(path).await.map_or(Whereabouts::Bucket(bucket), Whereabouts::Folder))
            }
            None => self.inner.files.get(path).await.map(Whereabouts::Folder),
        }
    }

    /// Goes on with what was being made when the last process ended.
    pub async fn resume(&self) {
        self.inner.making.resume(self).await;
    }

    /// Sends what is made of the files to where all nodes find it, for ever; at once where there is no bucket.
    pub async fn share_made(&self) {
        self.inner.making.share().await;
    }

    /// Closes files that nobody reads.
    pub async fn close_unused(&self) {
        let inner = Arc::clone(&self.inner);
        let closed = tokio::task::spawn_blocking(move || {
            inner.files.close_unused();
            if let Some(bucket) = &inner.bucket {
                bucket.close_unused();
            }
            inner.making.close_unused();
        });
        let _ = closed.await;
    }

    /// Ends what is being made; the next process makes it again.
    pub fn stop_making(&self) {
        self.inner.making.stop();
    }

    /// Bytes of all that was made of the files.
    #[must_use]
    pub fn made_bytes(&self) -> u64 {
        self.inner.making.bytes()
    }

    /// A file in one of its qualities, which is made if need be: the request waits for it for a while.
    ///
    /// # Errors
    /// When it cannot be made, or is not made yet.
    pub async fn made(
        &self,
        path: &FilePath,
        source: &Arc<OpenFile>,
        product: Product,
        by: Asker,
    ) -> Result<Arc<OpenFile>, NotMade> {
        self.inner.making.get(path, source, product, by).await
    }

    /// Has something made of a file, if it is not there yet, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be made, or too much waits already.
    pub async fn order(
        &self,
        path: &FilePath,
        source: &Arc<OpenFile>,
        product: Product,
        by: Asker,
    ) -> Result<(), NotMade> {
        self.inner.making.order(path, source, product, by).await
    }

    /// How something that is made of a file is.
    pub async fn look(&self, path: &FilePath, source: &Arc<OpenFile>, product: Product) -> Made {
        self.inner.making.look(path, source, product).await
    }

    /// What was found out about a file, once anything was made of it.
    pub async fn facts(&self, path: &FilePath, source: &Arc<OpenFile>) -> Option<Facts> {
        self.inner.making.facts(path, source).await
    }

    /// A file's waveform and what else is known of it, found out if need be: the request waits for it for a while.
    ///
    /// # Errors
    /// When the file cannot be decoded, or is not yet.
    pub async fn peaks(&self, path: &FilePath, source: &Arc<OpenFile>, by: Asker) -> Result<(Facts, Peaks), NotMade> {
        self.inner.making.peaks(path, source, by).await
    }

    /// Begins an upload of somebody's, of so many bytes where that is known, for which the quotas have `room_bytes`.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where they are too many, `RATE_LIMITED` where they upload too many files at once,
    /// `TEMPORARILY_UNAVAILABLE` where all together do.
    pub async fn begin_upload(&self, by: UserId, announced: Option<u64>, room_bytes: u64) -> Result<Upload, AppError> {
        self.inner.uploads.begin(by, announced, room_bytes).await
    }

    /// Whether an upload that is whole holds what its path's ending says, and can be decoded.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check_upload(&self, upload: &Upload, path: &FilePath) -> Result<(), TranscodeError> {
        self.inner.uploads.check(upload, path).await
    }

    /// Whether anything has a name in the folder, be it streamed or not.
    async fn is_taken(&self, path: &FilePath) -> io::Result<bool> {
        if let Some(bucket) = self.bucket_of(path) {
            return bucket.is_taken(path).await;
        }
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        tokio::task::spawn_blocking(move || inner.files.is_taken(&path)).await.map_err(io::Error::other)?
    }

    /// Gives an upload its name in the folder.
    async fn place_upload(&self, upload: Upload, path: &FilePath, replace: bool) -> io::Result<()> {
        let part = upload.into_part().ok_or(io::ErrorKind::ResourceBusy)?;
        if let Some(bucket) = self.bucket_of(path) {
            bucket.put(part, path, replace).await?;
        } else {
            let (inner, path) = (Arc::clone(&self.inner), path.clone());
            let placing = tokio::task::spawn_blocking(move || inner.files.put(part, &path, replace));
            placing.await.map_err(io::Error::other)??;
        }
        self.inner.library.forget().await;
        Ok(())
    }

    /// Removes a file.
    async fn remove_file(&self, path: &FilePath) -> io::Result<()> {
        if let Some(bucket) = self.bucket_of(path) {
            bucket.remove(path).await?;
        } else {
            let (inner, path) = (Arc::clone(&self.inner), path.clone());
            tokio::task::spawn_blocking(move || inner.files.remove(&path)).await.map_err(io::Error::other)??;
        }
        self.inner.library.forget().await;
        Ok(())
    }

    /// Removes a file, if it is there, with all that was made of it.
    pub async fn discard(&self, path: &FilePath) {
        let Ok(etag) = self.etag(path).await else { return };
        if let Err(error) = self.remove_file(path).await {
            tracing::warn!(%path, %error, "a file could not be removed");
        }
        self.forget_made(path, &etag).await;
    }

    /// Removes what was made of a file that had this entity tag.
    async fn forget_made(&self, path: &FilePath, etag: &str) {
        self.inner.making.forget(path, etag).await;
    }

    /// A place among those who are being sent files, until it is dropped.
    ///
    /// # Errors
    /// `RATE_LIMITED` where the address has its share, `TEMPORARILY_UNAVAILABLE` where the node has.
    pub fn place(&self, address: IpAddr) -> Result<Place, AppError> {
        let refused = |why, code, message| {
            metrics().streaming.refused.of(why).increment(1);
            AppError::retry(code, message, RETRY_S)
        };
        Places::take(&self.inner.places, address).map_err(|why| match why {
            NoPlace::InAll(most) => {
                let message = format!("this node sends {most} files at once and no more");
                refused(StreamRefusal::Busy, ErrorCode::TemporarilyUnavailable, message)
            }
            NoPlace::ForEach(most) => {
                let message = format!("too many files at once: at most {most} are sent to one address");
                refused(StreamRefusal::AddressBusy, ErrorCode::RateLimited, message)
            }
        })
    }

    /// Who listens to channels.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.inner.live
    }

    /// Who listens to which files.
    #[must_use]
    pub fn listening(&self) -> &Arc<Listening> {
        &self.inner.listening
    }

    /// `parts` of a file as a body that holds its place until it has been sent, and tells what was.
    #[must_use]
    pub fn body(&self, file: Arc<OpenFile>, parts: Vec<Part>, (place, heard): (Place, Heard)) -> FileBody {
        FileBody::new(Arc::clone(&self.inner.blocks), file, parts, (place, heard))
    }

    /// All files of the library, by path; a few seconds old at most.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` where the folder cannot be read, `TEMPORARILY_UNAVAILABLE` while the bucket is away.
    pub async fn library(&self) -> Result<Arc<Listing>, AppError> {
        self.inner.library.entries().await.map_err(|error| {
            if let Some(told) = BucketError::told(&error) {
                return told;
            }
            tracing::warn!(%error, "the folder of audio files cannot be read");
            AppError::new(ErrorCode::InternalError, "the folder of audio files cannot be read")
        })
    }
}

/// What a client is told of a file that cannot be opened: whether it is missing, hidden or outside makes no difference.
fn refusal_of(error: &io::Error) -> AppError {
    if let Some(told) = BucketError::told(error) {
        return told;
    }
    match error.kind() {
        io::ErrorKind::FileTooLarge => AppError::new(
            ErrorCode::NotFound,
            "the file is longer than this server streams (streaming.max_file_size_bytes)",
        ),
        _ => AppError::new(ErrorCode::NotFound, "there is no such audio file"),
    }
}
