//! What nodes record and send to the bucket: sounds, which are files of the library, and beside each what is known of it, which is none.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Bucket, BucketError, LISTED_AT_ONCE, PAGES_MAX, blocking, seconds_of};
use crate::{
    streaming::{FilePath, media_type},
    telemetry::metrics::metrics,
};

/// The longest text that is read into memory: of a track that lasts an hour.
const TEXT_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// What is sent that is no sound.
const OTHER: &str = "application/octet-stream";

impl Bucket {
    /// Writes a file of the disk under a name; what is there is replaced. It is whole there or not at all.
    pub(in crate::streaming) async fn send(&self, name: &str, file: &Path) -> Result<(), BucketError> {
        let measured = file.to_owned();
        let length = blocking(move || Ok(std::fs::metadata(measured)?.len())).await?;
        let media_type = media_type::of(name).unwrap_or(OTHER);
        self.requests.write(name, file, (length, media_type), false).await?;
        if let Some(path) = FilePath::new(name) {
            self.known.remove(&path);
        }
        metrics().streaming.bucket_sent_bytes.increment(length);
        Ok(())
    }

    /// What a short object holds, if it is there.
    pub(in crate::streaming) async fn text(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let Some(object) = self.requests.head(name).await? else { return Ok(None) };
        if object.length > TEXT_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        let mut answer = self.requests.read(name, &object, 0).await?;
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(super::requests::away)? {
            text.extend_from_slice(&bytes);
            if text.len() as u64 > object.length {
                return Err(BucketError::Changed);
            }
        }
        Ok(Some(text))
    }

    /// The names of all objects under another that were changed no later than so long ago.
    pub(in crate::streaming) async fn names_under(
        &self,
        under: &str,
        age: Duration,
    ) -> Result<Vec<String>, BucketError> {
        let (mut names, mut from) = (Vec::new(), None);
        let before = SystemTime::now() - age;
        for _ in 0..PAGES_MAX {
            let (page, next) = self.requests.list(under, from.as_ref(), LISTED_AT_ONCE).await?;
            let old = page.into_iter().filter(|object| seconds_of(&object.modified).is_some_and(|at| at <= before));
            names.extend(old.map(|object| object.name));
            from = next;
            if from.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// Removes an object that is no file of the library.
    pub(in crate::streaming) async fn remove_text(&self, name: &str) -> Result<(), BucketError> {
        self.requests.remove(name).await
    }
}
