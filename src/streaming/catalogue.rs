//! The library as the database has it: the folder's files with who uploaded them and their tags, to be searched.

use std::{io, sync::Arc};

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{Entry, FilePath, Listing, Streams, uploads::Upload};
use crate::{
    error::AppError,
    store::{Claim, Claimed, FileSeen, LibraryFile, LibraryQuery, Store},
};

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
    /// The list of the folder that the database knows. Locked while it is told of a new one.
    told: Mutex<Option<Arc<Listing>>>,
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
        let entries = self.streams.library().await?;
        if told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &entries)) {
            return Ok(());
        }
        let seen: Vec<FileSeen> = entries.files.iter().map(FileSeen::from).collect();
        self.store.sync_library(&seen, entries.is_whole, listed).await?;
        *told = Some(entries);
        Ok(())
    }

    /// Whether somebody may change a file: whoever uploaded it, and administrators.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`; the database's.
    pub async fn check_owner(&self, path: &FilePath, by: UserId, is_admin: bool) -> Result<(), AppError> {
        let owner = self.store.library_file(path.as_str()).await?.and_then(|file| file.owner);
        if is_admin || owner == Some(by) {
            return Ok(());
        }
        Err(others())
    }

    /// Gives an upload, whole and checked, its place in the folder. True where there was no such file before.
    ///
    /// # Errors
    /// `CONFLICT` where `replace` is not wanted and the path is taken, `PERMISSION_DENIED`, `LIMIT_REACHED`.
    pub async fn keep(
        &self,
        upload: Upload,
        path: &FilePath,
        (by, is_admin): (UserId, bool),
        replace: bool,
    ) -> Result<bool, AppError> {
        let before = self.streams.file(path).await.ok();
        // What cannot be streamed, as a link or too long a file, is nobody's to replace.
        let is_hidden = before.is_none() && self.streams.is_taken(path).await.map_err(failed)?;
        if is_hidden || (before.is_some() && !replace) {
            return Err(taken());
        }
        if before.is_some() && !is_admin {
            self.check_owner(path, by, is_admin).await?;
        }
        let (size_bytes, modified) = upload.finished().await.map_err(failed)?;
        let file = FileSeen { path: path.to_string(), size_bytes, modified: modified.into() };
        let UploadQuotas { account_bytes_max, total_bytes_max } = self.quotas;
        let claim = Claim { file, by, is_admin, account_bytes_max, total_bytes_max };
        match self.store.claim_file(&claim).await? {
            Claimed::Granted => {}
            Claimed::Others => return Err(others()),
            Claimed::AccountFull(used) => return Err(full("you have uploaded", used, account_bytes_max)),
            Claimed::TotalFull(used) => return Err(full("all together have uploaded", used, total_bytes_max)),
        }
        // What came meanwhile is another's.
        if let Err(error) = self.streams.place_upload(upload, path, before.is_some()).await {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(taken());
            }
            if before.is_none() {
                // Otherwise the next list puts the row right.
                let _ = self.store.forget_file(path.as_str()).await;
            }
            return Err(failed(error));
        }
        if let Some(before) = &before {
            self.streams.forget_made(path, before).await;
        }
        Ok(before.is_none())
    }

    /// Removes a file with all that was made of it.
    ///
    /// # Errors
    /// `NOT_FOUND`, `PERMISSION_DENIED`.
    pub async fn remove(&self, path: &FilePath, by: UserId, is_admin: bool) -> Result<(), AppError> {
        let file = self.streams.file(path).await?;
        self.check_owner(path, by, is_admin).await?;
        self.streams.remove_file(path).await.map_err(failed)?;
        self.streams.forget_made(path, &file).await;
        self.store.forget_file(path.as_str()).await?;
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
        self.streams.file(path).await?;
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
    tracing::warn!(%error, "an uploaded file could not be kept");
    AppError::new(ErrorCode::InternalError, "the file could not be kept; the server's log has more")
}
