//! What was made, shared by nodes through the bucket: what one makes it sends there, and what it has not it looks for there before it makes
//! it. The bucket is not waited for: while it is away each makes what it needs.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

use super::{
    blocking,
    order::Product,
    shelf::{FACTS, PEAKS, Shelf, quality_name},
    version::Version,
};
use crate::streaming::bucket::{Bucket, BucketError, name_of_made};

/// How often what could not be sent is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long what others made is waited for. It is fetched on.
const FETCH_PATIENCE: Duration = Duration::from_secs(15);

/// How many contents are fetched at once, at most.
const FETCHES: u64 = 8;

/// Nodes' exchange of what they made.
pub(super) struct Exchange {
    bucket: Arc<Bucket>,
    shelf: Arc<Shelf>,
    /// Held while a content is fetched, always the same one for the same: who wants it, too, finds it on the shelf then.
    fetching: [Arc<Mutex<()>>; FETCHES as usize],
    /// Those that are.
    under_way: parking_lot::Mutex<HashSet<Version>>,
}

/// What came of looking for a product that another node may have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// It is on the shelf.
    Here,
    /// It is on its way, and takes longer than anybody waits.
    Coming,
    /// Nobody made it, or it cannot be had.
    Nowhere,
}

impl Exchange {
    pub(super) fn new(bucket: Arc<Bucket>, shelf: Arc<Shelf>) -> Arc<Self> {
        Arc::new(Self { bucket, shelf, fetching: Default::default(), under_way: Default::default() })
    }

    /// Sends what is made, for ever.
    pub(super) async fn send(&self) {
        let Some(unsent) = self.shelf.unsent() else { return };
        loop {
            let _ = tokio::time::timeout(TRY_AGAIN, unsent.added()).await;
            if let Err(error) = self.send_marked().await {
                tracing::debug!(%error, "what was made is sent later");
            }
        }
    }

    async fn send_marked(&self) -> Result<(), BucketError> {
        let shelf = Arc::clone(&self.shelf);
        let marked = blocking(move || shelf.unsent().map_or(Ok(Vec::new()), |unsent| unsent.some())).await?;
        for (version, name) in marked {
            match self.bucket.send(&name_in_bucket(&version, &name), &self.shelf.place(&version, &name)).await {
                // It had to go meanwhile, and is made again where it is wanted.
                Err(BucketError::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error @ BucketError::Away(_)) => return Err(error),
                // What the bucket does not take keeps nothing else back.
                Err(error) => {
                    tracing::warn!(name, %error, "what was made cannot be sent to the bucket");
                    continue;
                }
                Ok(_) => {}
            }
            let shelf = Arc::clone(&self.shelf);
            blocking(move || shelf.unsent().map_or(Ok(()), |unsent| unsent.remove(&version, &name))).await?;
        }
        Ok(())
    }

    /// How many bytes a product has that another node made, where all is there that is fetched of it: a node that died may have sent some
    /// of it, and a rule of the store may have expired some.
    pub(super) async fn length(&self, version: &Version, product: Product) -> Option<u64> {
        let there = self.bucket.lengths_under(&name_in_bucket(version, "")).await.ok()?;
        let lengths: Option<Vec<u64>> = names_of(product).iter().map(|name| there.get(name).copied()).collect();
        lengths?.pop()
    }

    /// Puts what another node made onto the shelf, with what was found out. Whoever waits may go: it is fetched all the same.
    pub(super) async fn fetch(self: &Arc<Self>, version: &Version, product: Product) -> Fetched {
        let mut hasher = DefaultHasher::new();
        version.folder().hash(&mut hasher);
        let turn = Arc::clone(&self.fetching[(hasher.finish() % FETCHES) as usize]);
        let (this, content) = (Arc::clone(self), version.clone());
        let fetch = async {
            // Who only waits for their turn leaves nothing behind.
            let turn = turn.lock_owned().await;
            let fetching = tokio::spawn(async move {
                let _turn = turn;
                this.under_way.lock().insert(content.clone());
                let fetched = this.fetch_in_turn(&content, product).await;
                this.under_way.lock().remove(&content);
                fetched
            });
            fetching.await.map_err(io::Error::other)?
        };
        match tokio::time::timeout(FETCH_PATIENCE, fetch).await {
            Ok(Ok(true)) => Fetched::Here,
            Ok(Ok(false)) => Fetched::Nowhere,
            Ok(Err(error)) => {
                tracing::debug!(%version, %error, "what others made cannot be had");
                Fetched::Nowhere
            }
            Err(_) if self.under_way.lock().contains(version) => Fetched::Coming,
            // Others are, in its turn.
            Err(_) => Fetched::Nowhere,
        }
    }

    /// False where something of it is not there.
    async fn fetch_in_turn(&self, version: &Version, product: Product) -> Result<bool, BucketError> {
        for name in names_of(product) {
            if !self.fetch_named(version, &name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn fetch_named(&self, version: &Version, name: &str) -> Result<bool, BucketError> {
        if self.shelf.place(version, name).exists() {
            return Ok(true);
        }
        let shelf = Arc::clone(&self.shelf);
        let part = blocking(move || shelf.part()).await?;
        let Some(part) = self.bucket.fetch_into(&name_in_bucket(version, name), part).await? else { return Ok(false) };
        let (shelf, version, name) = (Arc::clone(&self.shelf), version.clone(), name.to_owned());
        blocking(move || {
            shelf.take_in(&version, &name, part)?;
            shelf.tidy_if_full();
            Ok(())
        })
        .await?;
        Ok(true)
    }

    /// Removes all that was made of a content. What cannot be removed now is of no content any more, and for the operator's rule about
    /// old objects (docs/streaming.md).
    pub(super) async fn remove(&self, version: &Version) {
        let removed = async {
            for name in self.bucket.names_under(&name_in_bucket(version, ""), Duration::ZERO).await? {
                self.bucket.remove_text(&name).await?;
            }
            Ok::<(), BucketError>(())
        };
        if let Err(error) = removed.await {
            tracing::debug!(%version, %error, "what was made stays in the bucket");
        }
    }
}

/// What is fetched of a product: the facts after the waveform, and a quality last, so that on the shelf, where one is, the others are.
fn names_of(product: Product) -> Vec<String> {
    let quality = match product {
        Product::Quality(quality) => Some(quality_name(quality)),
        Product::Analysis => None,
    };
    [PEAKS.to_owned(), FACTS.to_owned()].into_iter().chain(quality).collect()
}

fn name_in_bucket(version: &Version, name: &str) -> String {
    name_of_made(&format!("{}/{name}", version.folder()))
}
