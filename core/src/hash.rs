//! Maps keyed by ids that this server makes itself: no need for a hash that withstands chosen keys.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map keyed by ids of our own making.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Multiplies and folds, so that ids with a common stride (a worker's are multiples apart) spread over all buckets.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x2d35_8dcc_aa6c_78a5) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_ne_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChannelId, MediaSessionId};
    use std::{collections::HashSet, hash::BuildHasher};

    /// How many of 1,024 buckets 1,024 keys fall into; random ones fill about 647.
    fn buckets<K: std::hash::Hash>(keys: impl Iterator<Item = K>) -> usize {
        let hash = BuildHasherDefault::<IdHasher>::default();
        keys.map(|key| hash.hash_one(key) % 1_024).collect::<HashSet<_>>().len()
    }

    #[test]
    fn ids_with_a_stride_spread() {
        for stride in [1, 2, 8, 64, 1_024] {
            let used = buckets((0..1_024).map(|n| MediaSessionId(n * stride)));
            assert!(used > 550, "stride {stride}: {used}");
        }
        let used = buckets((0..1_024).map(|n| ChannelId(uuid::Uuid::from_u128((n << 80) | 7))));
        assert!(used > 550, "{used}");
    }
}
