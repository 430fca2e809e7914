//! What can be wrong with the bucket, and what clients are told of it.

use std::io;

use antiphon_core::gateway::ErrorCode;

use crate::error::AppError;

/// When to come back while the bucket is away, in seconds.
const RETRY_S: u64 = 5;

/// The bucket does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The settings name none that can be.
    #[error("bucket.endpoint and bucket.name make no address: {0}")]
    Address(String),
    /// There is no HTTP client.
    #[error("no client for the bucket: {0}")]
    Client(reqwest::Error),
    /// Nobody answers, or somebody who cannot now.
    #[error("the bucket cannot be reached: {0}")]
    Away(String),
    /// It answers that it will not: wrong keys, a name that is none, no permission.
    #[error("the bucket refuses this server: {0}")]
    Refused(String),
    /// What it answers cannot be understood.
    #[error("the bucket's answer cannot be understood: {0}")]
    Garbled(String),
    /// There is no such object.
    #[error("there is no such object")]
    Missing,
    /// The object is another than a moment ago.
    #[error("the object was replaced while it was read")]
    Changed,
    /// There is an object where there should be none.
    #[error("there is an object already")]
    Taken,
    /// As much is fetched as the folder of what is fetched holds.
    #[error("what is fetched fills bucket.cache_max_size_mb")]
    Full,
    /// It took so long that the client is told to come back; it is fetched on.
    #[error("the file is still being fetched")]
    Fetching,
    /// The disk does not do what it is asked.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl BucketError {
    /// What a client is told while it holds, if `error` is one that passes: not whose fault it is, which the log says.
    pub(in crate::streaming) fn told(error: &io::Error) -> Option<AppError> {
        let message = match error.get_ref()?.downcast_ref::<Self>()? {
            Self::Fetching => "the file is being fetched from where the library is",
            Self::Full => "as many files are being fetched from where the library is as there is room for",
            Self::Missing | Self::Taken | Self::Disk(_) => return None,
            _ => "the library cannot be reached now; what was played lately still is",
        };
        Some(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S))
    }
}

impl From<BucketError> for io::Error {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Disk(error) => error,
            BucketError::Missing => io::ErrorKind::NotFound.into(),
            BucketError::Taken => io::ErrorKind::AlreadyExists.into(),
            other => Self::other(other),
        }
    }
}
