//! What was made of files, beside them in the bucket: under hidden names, which are no part of the library.

use std::collections::HashMap;

use super::{Bucket, BucketError, LISTED_AT_ONCE};
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
    /// How many bytes each object has whose name begins so, by the rest of its name: of so many at most as one answer lists.
    pub(in crate::streaming) async fn lengths_under(&self, under: &str) -> Result<HashMap<String, u64>, BucketError> {
        let (listed, _) = self.requests.list(under, None, LISTED_AT_ONCE).await?;
        let rest_of = |name: &str| name.strip_prefix(under).map(str::to_owned);
        Ok(listed.into_iter().filter_map(|object| Some((rest_of(&object.name)?, object.length))).collect())
    }

    /// Fetches an object into a part, whole; `None` where there is none.
    pub(in crate::streaming) async fn fetch_into(&self, name: &str, part: Part) -> Result<Option<Part>, BucketError> {
        let Some(object) = self.requests.head(name).await? else { return Ok(None) };
        self.download(name, &object, part).await.map(Some)
    }
}
