//! How long frames take through a node, counted in buckets by the workers themselves.

use std::ops::AddAssign;

use antiphon_core::clock::Micros;

/// The buckets' upper bounds in microseconds. A frame waits up to 2 ms for others to share a datagram with; above that
/// a worker has more to do than it has time for, and 20 ms are a whole frame.
pub const FORWARDING_US: [u64; 10] = [100, 500, 1_000, 2_000, 2_500, 3_000, 5_000, 10_000, 20_000, 50_000];

/// How many buckets there are: one more for all that took longer.
pub const FORWARDING_BUCKETS: usize = FORWARDING_US.len() + 1;

/// Of each turn of a worker that sent frames, the longest that one of them was there: from when the worker took it from
/// its socket to when the kernel had it again. The wait in the socket's buffer is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardingTimes([u64; FORWARDING_BUCKETS]);

impl ForwardingTimes {
    pub(super) const fn from_counts(counts: [u64; FORWARDING_BUCKETS]) -> Self {
        Self(counts)
    }

    /// How many turns are in each bucket, not cumulative.
    #[must_use]
    pub const fn counts(&self) -> &[u64; FORWARDING_BUCKETS] {
        &self.0
    }

    pub(super) fn record(&mut self, took: Micros) {
        let bucket = FORWARDING_US.iter().position(|bound| took.0 <= *bound).unwrap_or(FORWARDING_US.len());
        self.0[bucket] += 1;
    }
}

impl AddAssign for ForwardingTimes {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_bucket_that_reaches_it() {
        let mut times = ForwardingTimes::default();
        for took in [0, 100, 101, 2_000, 50_000, 50_001, u64::MAX] {
            times.record(Micros(took));
        }
        assert_eq!(times.counts(), &[2, 1, 0, 1, 0, 0, 0, 0, 0, 1, 2]);
        times += times;
        assert_eq!(times.counts()[0], 4);
    }
}
