//! Blocks of files that were read lately, within a limit of memory.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use super::OpenFile;
use crate::telemetry::metrics::{CacheOutcome, metrics};

/// A block's bytes. A listener's usual request is one block or a few; a file that is being read has one in memory.
pub(super) const BLOCK_BYTES: u64 = 128 * 1_024;

/// What a block's place costs beside its bytes.
const OVERHEAD_BYTES: u64 = 128;

/// Which block of which file, by [`OpenFile::number`]: a changed file is another.
type Key = (u64, u64);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, _: &Key, block: &Bytes) -> u64 {
        block.len() as u64 + OVERHEAD_BYTES
    }
}

/// The blocks. Those asked for once make room for those asked for often.
pub(super) struct Blocks {
    /// `None` where the limit holds no block.
    cache: Option<Cache<Key, Bytes, ByBytes>>,
}

impl Blocks {
    /// Blocks of `bytes_max` together, or none at all.
    pub(super) fn new(bytes_max: u64) -> Self {
        let blocks = usize::try_from(bytes_max / BLOCK_BYTES).unwrap_or(usize::MAX);
        Self { cache: (blocks > 0).then(|| Cache::with_weighter(blocks, bytes_max, ByBytes)) }
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weight)
    }

    /// A block that is here.
    pub(super) fn get(&self, file: &OpenFile, index: u64) -> Option<Bytes> {
        let block = self.cache.as_ref().and_then(|cache| cache.get(&(file.number, index)));
        let outcome = if block.is_some() { CacheOutcome::Hit } else { CacheOutcome::Miss };
        metrics().streaming.cache_blocks.of(outcome).increment(1);
        block
    }

    /// Reads a block, in a thread that may wait for the disk, and keeps it.
    ///
    /// # Errors
    /// When it cannot be read, also where the file has become shorter.
    pub(super) async fn read(self: Arc<Self>, file: Arc<OpenFile>, index: u64) -> io::Result<Bytes> {
        let reading = tokio::task::spawn_blocking(move || {
            let start = index * BLOCK_BYTES;
            let length = BLOCK_BYTES.min(file.length.saturating_sub(start));
            let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.file.read_exact_at(&mut block, start)?;
            let block = Bytes::from(block);
            if let Some(cache) = &self.cache {
                cache.insert((file.number, index), block.clone());
            }
            Ok(block)
        });
        reading.await.map_err(io::Error::other)?
    }
}
