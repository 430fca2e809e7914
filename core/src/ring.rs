//! Which node owns a channel: rendezvous hashing, weighted by capacity.
//!
//! Every node is scored for a channel, and the best score owns it. When a node comes or goes, only the channels that it
//! wins or held move (Thaler and Ravishankar, *Using name-based mappings to increase hit rates*, 1998). The weight works
//! by the logarithmic method of Schindelhauer and Schomaker (*Weighted distributed hash tables*, 2005): with `u` a hash
//! taken as a number from 0 to 1, the node with the least `-log(u) / capacity` wins with a probability in proportion to
//! its capacity.
//!
//! All nodes, whatever their release and machine, must agree, so the hash is specified here to the bit and all of it is
//! done in integers:
//!
//! ```text
//!  mix(x)          x ^= x >> 30; x *= bf58476d1ce4e5b9; x ^= x >> 27; x *= 94d049bb133111eb; x ^= x >> 31
//!  hash(bytes)     h = length * 9e3779b97f4a7c15; for each 8 bytes, little-endian, the last filled with 0:
//!                  h = mix(h ^ word) + 9e3779b97f4a7c15; at the end mix(h)
//!  pair            mix(hash(node id's UTF-8) ^ hash(channel id's 16 bytes))
//!  distance        64 - log2(pair + 1), with 32 bits behind the point: the bits below the highest one select, by their
//!                  upper 8, an interval of a table of log2, within which the lower ones interpolate
//!  owner           the least distance / capacity; of equal ones the least hash of the node id
//! ```
//!
//! `mix` is Stafford's thirteenth mixer, as in splitmix64.

use crate::ids::{ChannelId, NodeId, NodeNumber, WorkerIndex};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Intervals of the table of logarithms, as a power of two.
const TABLE_BITS: u32 = 8;
/// Bits behind the point of a logarithm.
const POINT: u32 = 32;

/// `log2(1 + index / 256)` with [`POINT`] bits behind the point, and the end of the last interval.
const LOG2: [u64; (1 << TABLE_BITS) + 1] = {
    let mut table = [0; (1 << TABLE_BITS) + 1];
    let mut index = 0;
    while index < 1 << TABLE_BITS {
        table[index] = log2_exact((1 << 63) | ((index as u64) << (63 - TABLE_BITS)));
        index += 1;
    }
    table[1 << TABLE_BITS] = 1 << POINT;
    table
};

/// The logarithm of a number from 1 to 2 with 63 bits behind its point, bit by bit: squaring doubles it.
const fn log2_exact(mantissa: u64) -> u64 {
    let (mut square, mut log, mut bit) = (mantissa as u128, 0, POINT);
    while bit > 0 {
        bit -= 1;
        square = (square * square) >> 63;
        if square >> 64 != 0 {
            square >>= 1;
            log |= 1 << bit;
        }
    }
    log
}

const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = (bytes.len() as u64).wrapping_mul(GOLDEN);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word)).wrapping_add(GOLDEN);
    }
    mix(hash)
}

/// How far a pair's hash is from winning for certain: `64 - log2(pair + 1)`.
fn distance(pair: u64) -> u64 {
    let Some(number) = pair.checked_add(1) else { return 0 };
    let zeros = number.leading_zeros();
    let mantissa = number << zeros;
    let index = (mantissa >> (63 - TABLE_BITS)) as usize & ((1 << TABLE_BITS) - 1);
    let within = (mantissa << (TABLE_BITS + 1)) >> POINT;
    let log = LOG2[index] + (((LOG2[index + 1] - LOG2[index]) * within) >> POINT);
    (u64::from(zeros + 1) << POINT) - log
}

/// A channel's place in the hash: found once, used for every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPlace(u64);

impl ChannelPlace {
    /// Where a channel lies.
    #[must_use]
    pub fn of(channel: ChannelId) -> Self {
        Self(hash(channel.0.as_bytes()))
    }

    /// The worker that the channel lives in on every node with so many.
    #[must_use]
    pub fn worker(self, workers: u16) -> WorkerIndex {
        // Another mix than the owner's, so that a node's channels spread over its workers.
        let index = mix(self.0.wrapping_add(GOLDEN)) % u64::from(workers.max(1));
        WorkerIndex(u16::try_from(index).unwrap_or(0))
    }
}

/// A node that may own channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    key: u64,
    capacity: u32,
    number: NodeNumber,
}

/// The nodes that may own channels, as of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    epoch: u64,
    candidates: Vec<Candidate>,
}

impl Ring {
    /// The ring of an epoch. Nodes without capacity own nothing. Scores come from the [`NodeId`], so that a node that
    /// starts again gets its channels back; the answers are [`NodeNumber`]s.
    #[must_use]
    pub fn new<'a>(epoch: u64, nodes: impl IntoIterator<Item = (&'a NodeId, NodeNumber, u32)>) -> Self {
        let candidates = nodes
            .into_iter()
            .filter(|(_, _, capacity)| *capacity > 0)
            .map(|(id, number, capacity)| Candidate { key: hash(id.0.as_bytes()), capacity, number })
            .collect();
        Self { epoch, candidates }
    }

    /// Which view of the cluster it is of.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many nodes may own channels.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether no node may.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Who should own a channel; `None` in an empty ring.
    #[must_use]
    pub fn owner(&self, channel: ChannelId) -> Option<NodeNumber> {
        self.owner_at(ChannelPlace::of(channel), |_| true)
    }

    /// Who should own the channel at `place`, of the nodes that `allowed` lets pass.
    #[must_use]
    pub fn owner_at(&self, place: ChannelPlace, allowed: impl Fn(NodeNumber) -> bool) -> Option<NodeNumber> {
        let scored = self.candidates.iter().filter(|candidate| allowed(candidate.number));
        let scored = scored.map(|candidate| (distance(mix(candidate.key ^ place.0)), candidate));
        let best = scored.reduce(|best, other| {
            // best.0 / best.capacity against other.0 / other.capacity, without dividing.
            let mine = u128::from(best.0) * u128::from(other.1.capacity);
            let theirs = u128::from(other.0) * u128::from(best.1.capacity);
            if (theirs, other.1.key) < (mine, best.1.key) { other } else { best }
        });
        best.map(|(_, candidate)| candidate.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn channel(number: u128) -> ChannelId {
        // Like UUIDs of one second: few bits differ.
        ChannelId(Uuid::from_u128((0x0190_0000_0000_7000_8000 << 48) | number))
    }

    fn ids(count: u32) -> Vec<NodeId> {
        (1..=count).map(|number| NodeId(format!("node-{number}"))).collect()
    }

    fn ring<'a>(ids: impl IntoIterator<Item = &'a NodeId>, capacity: impl Fn(u32) -> u32) -> Ring {
        Ring::new(1, ids.into_iter().zip(1..).map(|(id, number)| (id, NodeNumber(number), capacity(number))))
    }

    /// Shares of `channels` channels, by node number.
    fn shares(ring: &Ring, nodes: u32, channels: u128) -> Vec<u32> {
        let mut shares = vec![0; nodes as usize + 1];
        for number in 0..channels {
            shares[ring.owner(channel(number)).expect("an owner").0 as usize] += 1;
        }
        shares
    }

    const GOLDEN_HASHES: [u64; 3] = [0, 0x8bf3_9395_2969_2173, 0xbf20_ae71_c6b1_1c2a];
    const GOLDEN_DISTANCES: &[(u64, u64)] = &[
        (0, 0x40_0000_0000),
        (1, 0x3f_0000_0000),
        (6, 0x3d_3151_3016),
        (0x0123_4567_89ab_cdef, 0x07_d054_12fc),
        (0x7fff_ffff_ffff_ffff, 0x01_0000_0000),
        (0xdead_beef_dead_beef, 0x3380_9b00),
        (u64::MAX - 1, 1),
        (u64::MAX, 0),
    ];
    const GOLDEN_OWNERS: [u32; 16] = [5, 6, 7, 6, 3, 7, 6, 4, 7, 4, 5, 6, 6, 7, 4, 6];
    const GOLDEN_WORKERS: [u16; 16] = [0, 3, 4, 4, 3, 2, 4, 0, 3, 0, 2, 0, 1, 3, 3, 2];

    /// Made by tests/golden/ring.py, which shares nothing with this code but the text above.
    #[test]
    fn the_hash_is_the_specified_one() {
        assert_eq!(hash(b""), GOLDEN_HASHES[0]);
        assert_eq!(hash(b"node-1"), GOLDEN_HASHES[1]);
        assert_eq!(hash("n\u{e9}ud-longer-than-eight".as_bytes()), GOLDEN_HASHES[2]);
        for (pair, expected) in GOLDEN_DISTANCES {
            assert_eq!(distance(*pair), *expected, "{pair:x}");
        }
        let ids = ids(7);
        let weighted = ring(&ids, |number| number * 100);
        let owners: Vec<_> = (0..16).map(|number| weighted.owner(channel(number)).expect("an owner").0).collect();
        assert_eq!(owners, GOLDEN_OWNERS);
        let workers: Vec<_> = (0..16).map(|number| ChannelPlace::of(channel(number)).worker(5).0).collect();
        assert_eq!(workers, GOLDEN_WORKERS);
    }

    #[test]
    fn logarithms_are_close_and_fall_with_the_hash() {
        for pair in (0..64).map(|bit| 1_u64 << bit).flat_map(|power| [power - 1, power, power + power / 3]) {
            let exact = 64.0 - (pair as f64 + 1.0).log2();
            let close = distance(pair) as f64 / (1_u64 << POINT) as f64;
            assert!((exact - close).abs() < 3e-6, "{pair}: {exact} {close}");
        }
        assert_eq!((distance(0), distance(u64::MAX)), (64 << POINT, 0));
        let falling = (0..100_000_u64).map(|step| distance(step * (u64::MAX / 100_000)));
        assert!(falling.is_sorted_by(|before, after| before >= after));
    }

    #[test]
    fn channels_are_shared_out_by_capacity() {
        for (nodes, channels) in [(3, 30_000), (100, 100_000), (1_000, 200_000)] {
            let ids = ids(nodes);
            let even = shares(&ring(&ids, |_| 100), nodes, channels);
            let mean = channels as f64 / f64::from(nodes);
            // Five standard deviations of a binomial share, and what the table of logarithms adds.
            let allowed = 5.0 * mean.sqrt() + 0.005 * mean;
            assert!(even[1..].iter().all(|share| (f64::from(*share) - mean).abs() < allowed), "{nodes}: {even:?}");
        }
        let weighted = shares(&ring(&ids(4), |number| number * 50), 4, 100_000);
        for (number, share) in weighted.iter().enumerate().skip(1) {
            assert!((*share as i64 - number as i64 * 10_000).abs() < 500, "{weighted:?}");
        }
    }

    #[test]
    fn a_nodes_channels_spread_over_its_workers() {
        let ids = ids(3);
        let ring = ring(&ids, |_| 1);
        let mut workers = [0; 8];
        let owned = (0..24_000).map(channel).filter(|channel| ring.owner(*channel) == Some(NodeNumber(1)));
        owned.for_each(|channel| workers[usize::from(ChannelPlace::of(channel).worker(8).0)] += 1);
        assert!(workers.iter().all(|count| (800..1_200).contains(count)), "{workers:?}");
    }

    #[test]
    fn a_restart_under_the_same_id_gets_the_same_channels() {
        let ids = ids(5);
        let before = ring(&ids, |_| 100);
        let after = Ring::new(2, ids.iter().zip(1..).map(|(id, number)| (id, NodeNumber(number * 1_000), 100)));
        for number in 0..1_000 {
            let owner = before.owner(channel(number)).expect("an owner");
            assert_eq!(after.owner(channel(number)), Some(NodeNumber(owner.0 * 1_000)));
        }
        assert_eq!(Ring::default().owner(channel(1)), None);
        assert_eq!(ring(&ids, |_| 0).owner(channel(1)), None);
    }

    #[test]
    fn little_moves_when_one_of_many_goes() {
        for nodes in [3, 100, 1_000] {
            let ids = ids(nodes);
            let (all, fewer) = (ring(&ids, |_| 100), ring(&ids[..ids.len() - 1], |_| 100));
            let owners = (0..20_000).map(|number| (all.owner(channel(number)), fewer.owner(channel(number))));
            let moved = owners.filter(|(before, after)| before != after).inspect(|(before, _)| {
                assert_eq!(*before, Some(NodeNumber(nodes)), "a channel of a node that stayed moved");
            });
            let moved = moved.count() as f64;
            let mean = 20_000.0 / f64::from(nodes);
            assert!((moved - mean).abs() < 5.0 * mean.sqrt() + 1.0, "{nodes}: {moved}");
        }
    }

    proptest! {
        /// However many nodes of whatever capacity: a node that goes takes only its own channels, and the order in which
        /// nodes are named is nothing.
        #[test]
        fn only_what_must_move_moves(
            capacities in prop::collection::vec(1_u32..=u32::MAX, 2..40),
            gone in any::<prop::sample::Index>(),
            channels in prop::collection::vec(any::<u128>(), 1..50),
        ) {
            let gone = gone.index(capacities.len());
            let ids = ids(u32::try_from(capacities.len()).expect("few"));
            let nodes: Vec<_> = ids.iter().zip(1..).zip(&capacities)
                .map(|((id, number), capacity)| (id, NodeNumber(number), *capacity)).collect();
            let all = Ring::new(1, nodes.iter().copied());
            let reversed = Ring::new(1, nodes.iter().rev().copied());
            let left: Vec<_> = nodes.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, n)| *n).collect();
            let fewer = Ring::new(2, left);
            let gone = nodes[gone].1;
            for number in channels {
                let channel = ChannelId(Uuid::from_u128(number));
                let owner = all.owner(channel);
                prop_assert_eq!(owner, reversed.owner(channel));
                if owner != Some(gone) {
                    prop_assert_eq!(owner, fewer.owner(channel));
                } else {
                    prop_assert_eq!(fewer.owner(channel),
                        all.owner_at(ChannelPlace::of(channel), |number| number != gone));
                }
            }
        }
    }
}
