//! Recordings in a library that is a bucket: nodes send there what they recorded, and each finds what all have.

use std::{collections::BTreeSet, io::ErrorKind, path::Path, time::Duration};

use antiphon_core::ids::RecordingId;

use super::{BucketError, FilePath, Streams, bucket::Bucket};
use crate::recorder::KEPT;

type Result<T> = std::result::Result<T, BucketError>;

impl Streams {
    /// Whether recordings are sent to a bucket.
    #[must_use]
    pub fn sends_recordings(&self) -> bool {
        self.inner.bucket.is_some()
    }

    /// Sends what was recorded to the bucket, under its name in the library. What is there is replaced, which is the same.
    ///
    /// # Errors
    /// While the bucket is away, or refuses; `Missing` where there is none.
    pub async fn send_recorded(&self, name: &str, file: &Path) -> Result<()> {
        self.bucket()?.send(name, file).await?;
        self.inner.library.forget().await;
        Ok(())
    }

    /// A text beside a recording's tracks.
    ///
    /// # Errors
    /// While the bucket is away; `Missing` where there is none, or no such text.
    pub async fn recorded_text(&self, name: &str) -> Result<Vec<u8>> {
        self.bucket()?.text(name).await?.ok_or(BucketError::Missing)
    }

    /// Removes all of a recording from the bucket, where there is one, with all that was made of it.
    ///
    /// # Errors
    /// While the bucket is away.
    pub async fn remove_recorded(&self, id: RecordingId) -> Result<()> {
        let Some(bucket) = &self.inner.bucket else { return Ok(()) };
        for name in bucket.names_under(&format!("{KEPT}/{id}/"), Duration::ZERO).await? {
            let Some(path) = FilePath::new(&name) else {
                bucket.remove_text(&name).await?;
                continue;
            };
            // What was made of it is found by its entity tag: it is not fetched to be removed.
            match bucket.etag(&path).await {
                Ok(etag) => self.forget_made(&path, &etag).await,
                // Nothing is made of what the library does not have.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FileTooLarge) => {}
                Err(error) => return Err(error.into()),
            }
            bucket.remove(&path).await?;
        }
        self.inner.library.forget().await;
        Ok(())
    }

    /// The recordings of which the bucket, where there is one, has had something for so long.
    ///
    /// # Errors
    /// While the bucket is away.
    pub async fn recorded(&self, age: Duration) -> Result<Vec<RecordingId>> {
        let Some(bucket) = &self.inner.bucket else { return Ok(Vec::new()) };
        let names = bucket.names_under(&format!("{KEPT}/"), age).await?;
        let ids = names.iter().filter_map(|name| name.split('/').nth(1)?.parse().ok());
        Ok(ids.collect::<BTreeSet<RecordingId>>().into_iter().collect())
    }

    fn bucket(&self) -> Result<&Bucket> {
        self.inner.bucket.as_deref().ok_or(BucketError::Missing)
    }
}
