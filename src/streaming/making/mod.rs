//! What is made of the files: qualities, and what was found out while they were decoded.
//!
//! ```text
//! order > queue (bounded, in turn by who asked) > workshop (threads of low priority) > part (a locked file) > rename > shelf
//! ```
//!
//! The disk has the truth: what lies on the shelf is whole, what is still wanted has a mark there, and what cannot be made
//! says so there. A process that is killed leaves marks and parts; the next one makes the one again and removes the other.

mod exchange;
mod facts;
mod marks;
mod order;
pub(super) mod part;
mod shelf;
mod turns;
mod unsent;
mod version;
mod workshop;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use antiphon_core::gateway::ErrorCode;
use tokio::sync::Semaphore;

use self::{
    exchange::{Exchange, Fetched},
    order::{Job, Key},
    shelf::Shelf,
    version::Version,
    workshop::{Full, Workshop},
};
pub use self::{
    facts::Facts,
    order::{Product, State},
    turns::Asker,
};
use super::{FilePath, FolderError, OpenFile, Streams, bucket::Bucket};
use crate::{
    error::AppError,
    telemetry::metrics::metrics,
    transcode::{Bounds, Peaks},
};

/// How many requests may wait for what is being made; others are told at once to come back.
const WAITING_MAX: usize = 256;

/// When to come back for what is not begun yet, in seconds.
const QUEUED_RETRY_S: u64 = 15;

/// When to come back for what another node made and is being fetched, in seconds.
const FETCH_RETRY_S: u64 = 5;

/// When to come back to a queue that is full, in seconds.
const FULL_RETRY_S: u64 = 60;

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct MakingConfig {
    /// The folder of what is made; made when it isn't there.
    pub folder: PathBuf,
    /// What it may hold; what was not asked for longest goes.
    pub bytes_max: u64,
    /// Threads that make; 0 for none, and then nothing is made.
    pub threads: u16,
    /// Orders that may wait for a thread.
    pub queue_max: usize,
    /// Of those, orders of one account, or of one address by links.
    pub queue_max_of_each: usize,
    /// How long a request waits for what is being made.
    pub wait: Duration,
    /// How long one file may take.
    pub patience: Duration,
    /// What one file may cost.
    pub bounds: Bounds,
    /// An ffmpeg for files that the built-in decoders do not know.
    pub ffmpeg: Option<PathBuf>,
}

/// Why there is no quality to be had.
#[derive(Debug)]
pub enum NotMade {
    /// It never will be: the file is damaged, or is refused.
    Refused(String),
    /// Not now.
    Error(AppError),
}

/// A quality and how it is.
#[derive(Clone, Debug)]
pub struct Made {
    /// Which.
    pub product: Product,
    /// How it is.
    pub state: State,
    /// Its length in bytes, where it is ready.
    pub bytes: Option<u64>,
    /// How much of it is done, from 0 to 1, where it is being made and that can be said.
    pub progress: Option<f64>,
}

/// What is made of the files.
pub(super) struct Making {
    shelf: Arc<Shelf>,
    workshop: Workshop,
    /// Where nodes share what they make.
    exchange: Option<Arc<Exchange>>,
    wait: Duration,
    waiting: Semaphore,
}

impl Making {
    /// Opens the folder and goes on with what was wanted when the last process ended.
    pub(super) fn start(config: MakingConfig, bucket: Option<Arc<Bucket>>) -> Result<Self, FolderError> {
        let shelf = Arc::new(Shelf::open(&config.folder, config.bytes_max, bucket.is_some())?);
        let exchange = bucket.map(|bucket| Exchange::new(bucket, Arc::clone(&shelf)));
        let wait = config.wait;
        let workshop = Workshop::start(Arc::clone(&shelf), config);
        Ok(Self { shelf, workshop, exchange, wait, waiting: Semaphore::new(WAITING_MAX) })
    }

    /// Sends what is made to where all nodes find it, for ever; at once where there is no such place.
    pub(super) async fn share(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.send().await;
        }
    }

    /// How many bytes a product has that another node made, and this one can fetch.
    async fn length_elsewhere(&self, version: &Version, product: Product) -> Option<u64> {
        self.exchange.as_ref()?.length(version, product).await
    }

    /// Whether another node had made it; it is here then.
    async fn fetch(&self, version: &Version, product: Product) -> Result<bool, NotMade> {
        let fetched = match &self.exchange {
            // What is under way here is not looked for elsewhere.
            Some(exchange) if self.workshop.job(&Key { version: version.clone(), product }).is_none() => {
                exchange.fetch(version, product).await
            }
            _ => Fetched::Nowhere,
        };
        if fetched == Fetched::Coming {
            let message = format!("{} of this file is being fetched from where the library is", product.name());
            return Err(NotMade::Error(AppError::retry(ErrorCode::TemporarilyUnavailable, message, FETCH_RETRY_S)));
        }
        Ok(fetched == Fetched::Here)
    }

    /// Ends what is being made; it is made again by the next process.
    pub(super) fn stop(&self) {
        self.workshop.stop();
    }

    /// Closes what was made and is not read. Blocks.
    pub(super) fn close_unused(&self) {
        self.shelf.close_unused();
    }

    /// Bytes of all that was made, as last counted.
    pub(super) fn bytes(&self) -> u64 {
        self.shelf.bytes()
    }

    /// Orders what was wanted when the last process ended, of the files that are still the same.
    pub(super) async fn resume(&self, streams: &Streams) {
        if !self.workshop.works() {
            return;
        }
        let shelf = Arc::clone(&self.shelf);
        let marks = blocking(move || Ok(shelf.marks().all())).await.unwrap_or_default();
        let mut ordered = 0_usize;
        for mark in marks {
            let source = streams.file(&mark.path).await.ok();
            let same = source.filter(|source| mark.is_of(&Version::of(&mark.path, source)));
            match same {
                Some(source) if self.order(&mark.path, &source, mark.product, Asker::LastProcess).await.is_ok() => {
                    ordered += 1;
                }
                _ => {
                    let shelf = Arc::clone(&self.shelf);
                    let _ = blocking(move || shelf.marks().discard(&mark)).await;
                }
            }
        }
        if ordered > 0 {
            tracing::info!(ordered, "going on with what was being made when the server ended");
        }
    }

    /// The product of a file, made if need be: a request waits for it for a while.
    pub(super) async fn get(
        &self,
        path: &FilePath,
        source: &Arc<OpenFile>,
        product: Product,
        by: Asker,
    ) -> Result<Arc<OpenFile>, NotMade> {
        let version = Version::of(path, source);
        if let Some(file) = self.shelf.file(&version, product).await {
            return Ok(file);
        }
        if self.fetch(&version, product).await?
            && let Some(file) = self.shelf.file(&version, product).await
        {
            return Ok(file);
        }
        let job = self.order_of((path, source), &version, product, by).await?;
        self.wait_for(&job).await?;
        self.shelf.file(&version, product).await.ok_or_else(|| {
            let message = "what was made is gone again: the folder of what is made is too small, or is being emptied";
            NotMade::Error(AppError::retry(ErrorCode::TemporarilyUnavailable, message, QUEUED_RETRY_S))
        })
    }

    /// Has a product made, if it is not there yet.
    pub(super) async fn order(
        &self,
        path: &FilePath,
        source: &Arc<OpenFile>,
        product: Product,
        by: Asker,
    ) -> Result<(), NotMade> {
        let version = Version::of(path, source);
        let is_there = match product {
            Product::Quality(_) => self.shelf.file(&version, product).await.is_some(),
            Product::Analysis => self.facts(path, source).await.is_some(),
        };
        if !is_there && self.length_elsewhere(&version, product).await.is_none() {
            self.order_of((path, source), &version, product, by).await?;
        }
        Ok(())
    }

    /// How a product is.
    pub(super) async fn look(&self, path: &FilePath, source: &Arc<OpenFile>, product: Product) -> Made {
        let version = Version::of(path, source);
        if let Some(file) = self.shelf.file(&version, product).await {
            return Made { product, state: State::Ready, bytes: Some(file.length), progress: None };
        }
        let key = Key { version: version.clone(), product };
        if let Some(job) = self.workshop.job(&key) {
            return Made { product, state: job.state(), bytes: None, progress: job.progress() };
        }
        if let Some(bytes) = self.length_elsewhere(&version, product).await {
            return Made { product, state: State::Ready, bytes: Some(bytes), progress: None };
        }
        let shelf = Arc::clone(&self.shelf);
        let refusal = blocking(move || Ok(shelf.refusal(&version))).await.unwrap_or_default();
        let state = refusal.map_or(State::Absent, |why| State::Refused(why.into()));
        Made { product, state, bytes: None, progress: None }
    }

    /// What was found out about a file, once it has been decoded.
    pub(super) async fn facts(&self, path: &FilePath, source: &Arc<OpenFile>) -> Option<Facts> {
        let (shelf, version) = (Arc::clone(&self.shelf), Version::of(path, source));
        blocking(move || Ok(shelf.facts(&version))).await.ok().flatten()
    }

    /// A file's waveform, made if need be.
    pub(super) async fn peaks(
        &self,
        path: &FilePath,
        source: &Arc<OpenFile>,
        by: Asker,
    ) -> Result<(Facts, Peaks), NotMade> {
        if let Some(found) = self.found(path, source).await {
            return Ok(found);
        }
        let version = Version::of(path, source);
        if self.fetch(&version, Product::Analysis).await?
            && let Some(found) = self.found(path, source).await
        {
            return Ok(found);
        }
        let job = self.order_of((path, source), &version, Product::Analysis, by).await?;
        self.wait_for(&job).await?;
        self.found(path, source).await.ok_or_else(|| {
            let message = "what was made cannot be read; the server's log has more";
            NotMade::Error(AppError::new(ErrorCode::InternalError, message))
        })
    }

    async fn found(&self, path: &FilePath, source: &Arc<OpenFile>) -> Option<(Facts, Peaks)> {
        let (shelf, version) = (Arc::clone(&self.shelf), Version::of(path, source));
        blocking(move || Ok(shelf.facts(&version).zip(shelf.peaks(&version)))).await.ok().flatten()
    }

    /// Removes all that was made of a file that had this entity tag.
    pub(super) async fn forget(&self, path: &FilePath, etag: &str) {
        let (shelf, version) = (Arc::clone(&self.shelf), Version::named(path, etag));
        let cancelled = self.workshop.cancel(&version);
        if let Some(exchange) = &self.exchange {
            exchange.remove(&version).await;
        }
        let removed = blocking(move || {
            for job in &cancelled {
                // A mark that stays is found to be of no file at the next start.
                let _ = shelf.marks().remove(job);
            }
            shelf.remove(&version);
            Ok(())
        });
        let _ = removed.await;
    }

    async fn order_of(
        &self,
        (path, source): (&FilePath, &Arc<OpenFile>),
        version: &Version,
        product: Product,
        by: Asker,
    ) -> Result<Arc<Job>, NotMade> {
        if !self.workshop.works() {
            let message =
                "this server makes nothing of its files (streaming.transcode_threads is 0): play the original";
            return Err(NotMade::Refused(message.to_owned()));
        }
        let key = Key { version: version.clone(), product };
        if let Some(job) = self.workshop.wanted(&key, by) {
            return Ok(job);
        }
        let (shelf, wanted) = (Arc::clone(&self.shelf), version.clone());
        if let Some(why) = blocking(move || Ok(shelf.refusal(&wanted))).await.ok().flatten() {
            return Err(NotMade::Refused(why));
        }
        let job = Arc::new(Job::new(key, path.clone(), Arc::clone(source)));
        let (shelf, marked) = (Arc::clone(&self.shelf), Arc::clone(&job));
        let job = self.workshop.queue(job, by).map_err(turned_away)?;
        if Arc::ptr_eq(&job, &marked) {
            // A mark that cannot be written costs the work its restart, and nobody their music.
            let written = blocking(move || shelf.marks().add(&marked)).await;
            if let Err(error) = written {
                tracing::warn!(%error, "an order is not on the disk: it will not survive a restart");
            }
        }
        Ok(job)
    }

    async fn wait_for(&self, job: &Job) -> Result<(), NotMade> {
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(NotMade::Error(job.busy())) };
        match tokio::time::timeout(self.wait, job.ended()).await {
            Err(_) => Err(NotMade::Error(job.busy())),
            Ok(State::Ready) => Ok(()),
            Ok(State::Refused(why)) => Err(NotMade::Refused(why.to_string())),
            Ok(_) => {
                let message = "it could not be made now; the server's log has more";
                Err(NotMade::Error(AppError::retry(ErrorCode::TemporarilyUnavailable, message, FULL_RETRY_S)))
            }
        }
    }
}

/// What whoever asks is told where too much waits.
fn turned_away(full: Full) -> NotMade {
    let streaming = &metrics().streaming;
    let (counter, code, message) = match full {
        Full::InAll => (
            &streaming.transcodes_turned_away,
            ErrorCode::TemporarilyUnavailable,
            "too much is waiting to be made (limits.transcodes_queued); play the original meanwhile",
        ),
        Full::ForAsker => (
            &streaming.transcodes_over_share,
            ErrorCode::RateLimited,
            "too much of yours is waiting to be made (limits.transcodes_queued_per_account); play the original meanwhile",
        ),
    };
    counter.increment(1);
    NotMade::Error(AppError::retry(code, message, FULL_RETRY_S))
}

/// Does what may wait for the disk in a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
