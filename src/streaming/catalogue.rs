//! The library as the database has it: the folder's files with who uploaded them and their tags, to be searched.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{BucketError, Entry, FilePath, Listing, Streams, refusal_of, uploads::Upload};
use crate::{
    error::AppError,
    store::{Claim, Claimed, FileSeen, LibraryFile, LibraryQuery, Store, Touched},
};

/// How often the whole list is compared although the folder is as it was: other nodes write the same rows.
const COMPARED_EVERY: Duration = Duration::from_secs(300);

/// What uploads may take.
#[derive(Clone, Copy, Debug)]
pub struct UploadQuotas {
    /// Bytes that one account may have uploaded; 0 for administrators only.
    pub account_bytes_max: u64,
    /// Bytes that all may have uploaded.
    pub total_bytes_max: u64,
}

/// The library.
pub struct Catalogue {
    store: Store,
    streams: Streams,
    quotas: UploadQuotas,
    /// What the database was last told. Locked while it is told more.
    told: Mutex<Option<Told>>,
}

/// A list of the folder that the database was told.
struct Told {
    listing: Arc<Listing>,
    at: Instant,
    /// Whether the database has it all; what was written lately it believes more.
    is_settled: bool,
}

impl Told {
    /// Whether there is nothing new in another list.
    fn holds(&self, listing: &Arc<Listing>) -> bool {
        let is_fresh = self.is_settled && self.at.elapsed() < COMPARED_EVERY;
        Arc::ptr_eq(&self.listing, listing) || (is_fresh && self.listing == *listing)
    }
}

/// An upload that is to be kept: where, whose, and whether it may replace what is there.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Its path.
    pub path: FilePath,
    /// Who uploads.
    pub by: UserId,
    /// Whether they may replace others' files, and have no quota of their own.
    pub is_admin: bool,
    /// Whether what is there goes.
    pub replace: bool,
}

impl Catalogue {
    /// Of the files of `streams`.
    #[must_use]
    pub fn new(store: Store, streams: Streams, quotas: UploadQuotas) -> Self {
        Self { store, streams, quotas, told: Mutex::new(None) }
    }

    /// What uploads may take.
    #[must_use]
    pub fn quotas(&self) -> UploadQuotas {
        self.quotas
    }

    /// A page of the files that `query` asks for, by path, and how many there are in all; a few seconds old at most.
    ///
    /// # Errors
    /// The folder's or the database's.
    pub async fn page(
        &self,
        query: &LibraryQuery,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<LibraryFile>, u64), AppError> {
        self.tell().await?;
        Ok(self.store.library_page(query, limit, offset).await?)
    }

    /// A file with its owner and tags.
    ///
    /// # Errors
    /// The folder's or the database's.
    pub async fn file(&self, path: &FilePath) -> Result<Option<LibraryFile>, AppError> {
        self.tell().await?;
        Ok(self.store.library_file(path.as_str()).await?)
    }

    /// Tells the database what is in the folder, if that is another list than the last.
    async fn tell(&self) -> Result<(), AppError> {
        let mut told = self.told.lock().await;
        let listed = OffsetDateTime::now_utc();
        let listing = self.streams.library().await?;
        if told.as_ref().is_some_and(|told| told.holds(&listing)) {
            return Ok(());
        }
        let seen: Vec<FileSeen> = listing.files.iter().map(FileSeen::from).collect();
        let is_settled = self.store.sync_library(&seen, listing.is_whole, listed).await?;
        *told = Some(Told { listing, at: Instant::now(), is_settled });
        Ok(())
    }

    /// A file that somebody may change, as the database has it: whoever uploaded it, and administrators.
    async fn check_owner(&self, path: &FilePath, by: UserId, is_admin: bool) -> Result<Option<LibraryFile>, AppError> {
        let file = self.store.library_file(path.as_str()).await?;
        if is_admin || file.as_ref().is_some_and(|file| file.owner == Some(by)) {
            return Ok(file);
        }
        Err(others())
    }

    /// Whether an upload of so many bytes would be kept, as things are now. Returns how many could be.
    ///
    /// # Errors
    /// As [`Catalogue::keep`].
    pub async fn check_keeping(&self, keeping: &Keeping, size_bytes: u64) -> Result<u64, AppError> {
        self.replaced(keeping).await?;
        match self.ask(keeping, (size_bytes, OffsetDateTime::now_utc()), true).await? {
            Claimed::Room(bytes) => Ok(bytes),
            other => Err(self.refused(other)),
        }
    }

    /// The entity tag of what an upload would replace.
    async fn replaced(&self, keeping: &Keeping) -> Result<Option<String>, AppError> {
        let Keeping { path, by, is_admin, replace } = keeping;
        let before = self.streams.etag(path).await.ok();
        // What cannot be streamed, as a link or too long a file, is nobody's to replace.
        let is_hidden = before.is_none() && self.streams.is_taken(path).await.map_err(failed)?;
        if is_hidden {
            return Err(AppError::new(
                ErrorCode::Conflict,
                "a folder, or a file that is not streamed, is at this path",
            ));
        }
        if before.is_some() && !replace {
            return Err(taken());
        }
        if before.is_some() {
            self.check_owner(path, *by, *is_admin).await?;
        }
        Ok(before)
    }

    /// Takes an upload's place in the quotas.
    async fn claim(&self, keeping: &Keeping, size_and_time: (u64, OffsetDateTime)) -> Result<Touched, AppError> {
        match self.ask(keeping, size_and_time, false).await? {
            Claimed::Granted(touched) => Ok(touched),
            other => Err(self.refused(other)),
        }
    }

    async fn ask(
        &self,
        keeping: &Keeping,
        (size_bytes, modified): (u64, OffsetDateTime),
        asks_only: bool,
    ) -> Result<Claimed, AppError> {
        let file = FileSeen { path: keeping.path.to_string(), size_bytes, modified };
        let UploadQuotas { account_bytes_max, total_bytes_max } = self.quotas;
        let Keeping { by, is_admin, .. } = *keeping;
        let claim = Claim { file, by, is_admin, account_bytes_max, total_bytes_max };
        Ok(self.store.claim_file(&claim, asks_only).await?)
    }

    /// Why an upload has no place.
    fn refused(&self, claimed: Claimed) -> AppError {
        match claimed {
            Claimed::AccountFull(used) => full("you have uploaded", used, self.quotas.account_bytes_max),
            Claimed::TotalFull(used) => full("all together have uploaded", used, self.quotas.total_bytes_max),
            Claimed::Others | Claimed::Granted(_) | Claimed::Room(_) => others(),
        }
    }

    /// Gives an upload, whole and checked, its place in the folder. True where there was no such file before.
    ///
    /// # Errors
    /// `CONFLICT` where it may not replace and the path is taken, `PERMISSION_DENIED`, `LIMIT_REACHED`.
    pub async fn keep(&self, upload: Upload, keeping: &Keeping) -> Result<bool, AppError> {
        let path = &keeping.path;
        let before = self.replaced(keeping).await?;
        let (size_bytes, modified) = upload.finished().await.map_err(failed)?;
        let claimed = self.claim(keeping, (size_bytes, modified.into())).await?;
        // What came meanwhile is another's.
        if let Err(error) = self.streams.place_upload(upload, path, before.is_some()).await {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(taken());
            }
            if before.is_none() {
                // Otherwise a list of a minute later puts the row right.
                let _ = self.store.forget_file(path.as_str(), claimed).await;
            }
            *self.told.lock().await = None;
            return Err(failed(error));
        }
        if let Some(before) = &before {
            self.streams.forget_made(path, before).await;
        }
        // Whoever removed the file meanwhile took the row with it: what came in its place counts all the same.
        if self.store.library_file(path.as_str()).await?.is_none()
            && let Err(error) = self.claim(keeping, (size_bytes, modified.into())).await
        {
            self.streams.remove_file(path).await.map_err(failed)?;
            return Err(error);
        }
        Ok(before.is_none())
    }

    /// Removes a file with all that was made of it.
    ///
    /// # Errors
    /// `NOT_FOUND`, `PERMISSION_DENIED`.
    pub async fn remove(&self, path: &FilePath, by: UserId, is_admin: bool) -> Result<(), AppError> {
        let etag = self.streams.etag(path).await.map_err(|error| refusal_of(&error))?;
        // First the row: an upload that comes meanwhile sees that it is gone, and does not escape the quotas.
        let known = self.check_owner(path, by, is_admin).await?;
        let forgotten = match known {
            Some(known) => self.store.forget_file(path.as_str(), known.touched).await?.then_some(known),
            None => None,
        };
        if let Err(error) = self.streams.remove_file(path).await {
            // What could not be removed is still somebody's, who may try again.
            if let Some(forgotten) = &forgotten {
                self.store.remember_file(forgotten).await?;
            }
            return Err(failed(error));
        }
        self.streams.forget_made(path, &etag).await;
        Ok(())
    }

    /// Gives a file these tags instead of those it had.
    ///
    /// # Errors
    /// `NOT_FOUND`, `PERMISSION_DENIED`.
    pub async fn set_tags(
        &self,
        path: &FilePath,
        (by, is_admin): (UserId, bool),
        tags: &[String],
    ) -> Result<(), AppError> {
        self.streams.etag(path).await.map_err(|error| refusal_of(&error))?;
        self.tell().await?;
        self.check_owner(path, by, is_admin).await?;
        Ok(self.store.set_tags(path.as_str(), tags).await?)
    }
}

impl From<&Entry> for FileSeen {
    fn from(entry: &Entry) -> Self {
        Self { path: entry.path.to_string(), size_bytes: entry.length, modified: entry.modified.into() }
    }
}

fn others() -> AppError {
    AppError::new(ErrorCode::PermissionDenied, "only who uploaded the file, or an administrator, may change it")
}

fn full(who: &str, used: u64, max: u64) -> AppError {
    let message = format!("{who} {used} bytes, and {max} are the limit: remove something first");
    AppError::new(ErrorCode::LimitReached, message)
}

fn taken() -> AppError {
    AppError::new(ErrorCode::Conflict, "there is a file at this path; PUT replaces your own")
}

fn failed(error: io::Error) -> AppError {
    if let Some(told) = BucketError::told(&error) {
        return told;
    }
    if error.kind() == io::ErrorKind::NotADirectory {
        return AppError::new(ErrorCode::Conflict, "a part of this path is a file, and a folder is wanted there");
    }
    tracing::warn!(%error, "an uploaded file could not be kept");
    AppError::new(ErrorCode::InternalError, "the file could not be kept; the server's log has more")
}
