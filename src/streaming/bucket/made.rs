//! What was made of files, beside them in the bucket: under hidden names, which are no part of the library.

use super::{Bucket, BucketError};
use crate::streaming::making::part::Part;

/// What all such names begin with.
const MADE: &str = ".made/";

/// The first name behind them all: a list of the library goes on there.
pub(super) const BEHIND: &str = ".made0";

/// Whether a name is of something made.
pub(super) fn is_made(name: &str) -> bool {
    name.starts_with(MADE)
}

/// The name of something made, by where a node's own folder has it.
pub(in crate::streaming) fn name_of_made(place: &str) -> String {
    format!("{MADE}{place}")
}

impl Bucket {
    /// How many bytes an object has, if it is there.
    pub(in crate::streaming) async fn length(&self, name: &str) -> Result<Option<u64>, BucketError> {
        Ok(self.requests.head(name).await?.map(|object| object.length))
    }

    /// Fetches an object into a part, whole; `None` where there is none.
    pub(in crate::streaming) async fn fetch_into(&self, name: &str, part: Part) -> Result<Option<Part>, BucketError> {
        let Some(object) = self.requests.head(name).await? else { return Ok(None) };
        self.download(name, &object, part).await.map(Some)
    }
}
