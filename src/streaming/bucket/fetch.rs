//! Fetching objects: each once, whole or not at all, and on where it broke off.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::{Bucket, BucketError, Object, blocking, requests};
use crate::{
    streaming::{FilePath, making::part::Part},
    telemetry::metrics::metrics,
};

/// How often an object is gone on with that broke off without another byte.
const BROKEN_OFF_MAX: u32 = 3;

/// How long the next bytes may take.
const NEXT_BYTES: Duration = Duration::from_secs(10);

/// So much is written to the disk at once.
const WRITE_BYTES: usize = 1_024 * 1_024;

/// Whose turn it is with each object that is fetched.
#[derive(Default)]
pub(super) struct Fetching {
    turns: Mutex<HashMap<FilePath, Arc<Turn<()>>>>,
}

/// What has come of an object.
struct Coming {
    /// `None` once it could not be written.
    part: Option<Part>,
    at: u64,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl Bucket {
    /// Fetches an object, if it is not there by its turn. Whoever waits may go: it is fetched all the same.
    pub(super) async fn fetch(self: &Arc<Self>, path: &FilePath, object: &Object) -> Result<(), BucketError> {
        let (this, path, object) = (Arc::clone(self), path.clone(), object.clone());
        let fetched = tokio::spawn(async move {
            let turn = Arc::clone(this.fetching.turns.lock().entry(path.clone()).or_default());
            let fetched = {
                let _turn = turn.lock().await;
                this.fetch_in_turn(&path, &object).await
            };
            drop(turn);
            let mut turns = this.fetching.turns.lock();
            if turns.get(&path).is_some_and(|turn| Arc::strong_count(turn) == 1) {
                turns.remove(&path);
            }
            drop(turns);
            fetched.inspect_err(|error| tracing::debug!(%path, %error, "an audio file could not be fetched"))
        });
        fetched.await.map_err(io::Error::other)?
    }

    async fn fetch_in_turn(self: &Arc<Self>, path: &FilePath, object: &Object) -> Result<(), BucketError> {
        if self.copy_of(path, object).await.is_some() {
            return Ok(());
        }
        let _place = self.places.acquire().await;
        let (this, length) = (Arc::clone(self), object.length);
        // Room first: what is fetched takes the disk's, too.
        let (room, part) = blocking(move || {
            let (room, gone) = this.kept.reserve(length).ok_or(BucketError::Full)?;
            this.drop_copies(&gone);
            Ok((room, Part::create(&this.parts)?))
        })
        .await?;
        let part = self.download(path.as_str(), object, part).await?;
        drop(room);
        self.keep_copy(part, path, object).await
    }

    /// Writes an object into a part, going on where it broke off.
    pub(super) async fn download(&self, name: &str, object: &Object, part: Part) -> Result<Part, BucketError> {
        let mut coming = Coming { part: Some(part), at: 0, waiting: Vec::new(), waiting_bytes: 0 };
        let mut broken_off = 0;
        while coming.at < object.length {
            let before = coming.at;
            let came = self.read_on(name, object, &mut coming).await;
            broken_off = if coming.at > before { 0 } else { broken_off + 1 };
            match came {
                Err(BucketError::Away(_)) if broken_off < BROKEN_OFF_MAX => {}
                came => came?,
            }
        }
        coming.write().await?;
        coming.part.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput).into())
    }

    /// Reads from where it is until the end, or until it breaks off.
    async fn read_on(&self, name: &str, object: &Object, coming: &mut Coming) -> Result<(), BucketError> {
        let mut answer = self.requests.read(name, object, coming.at).await?;
        loop {
            let next = tokio::time::timeout(NEXT_BYTES, answer.chunk()).await;
            let next = next.map_err(|_| BucketError::Away("no more bytes came".to_owned()))?;
            let Some(bytes) = next.map_err(requests::away)? else { break };
            metrics().streaming.bucket_received_bytes.increment(bytes.len() as u64);
            coming.take(bytes).await?;
            if coming.at > object.length {
                return Err(BucketError::Changed);
            }
        }
        if coming.at < object.length { Err(BucketError::Away("it broke off".to_owned())) } else { Ok(()) }
    }
}

impl Coming {
    async fn take(&mut self, bytes: Bytes) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes >= WRITE_BYTES { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> io::Result<()> {
        let (waiting, part) = (std::mem::take(&mut self.waiting), self.part.take());
        let mut part = part.ok_or(io::ErrorKind::InvalidInput)?;
        self.waiting_bytes = 0;
        let written = blocking(move || {
            waiting.iter().try_for_each(|bytes| part.write_all(bytes))?;
            Ok(part)
        });
        self.part = Some(written.await?);
        Ok(())
    }
}
