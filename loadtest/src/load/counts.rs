//! How often each value was seen: small enough to be written down whole, so that several runs can be put together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values and how often each was seen. Written down, it says its own median, 99th percentile and maximum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", from = "Written")]
pub struct Counts(BTreeMap<u64, u64>);

impl Counts {
    /// Sees a value.
    pub fn record(&mut self, value: u64) {
        *self.0.entry(value).or_default() += 1;
    }

    /// Sees what another has seen.
    pub fn merge(&mut self, other: &Self) {
        for (value, count) in &other.0 {
            *self.0.entry(*value).or_default() += count;
        }
    }

    /// How many values were seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The least value that so great a share of all, from 0 to 1, does not exceed; 0 when nothing was seen.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        reached.map_or(0, |(value, _)| *value)
    }

    /// The greatest value; 0 when nothing was seen.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(value, _)| *value)
    }
}

/// As it stands in a file: the figures for readers, all values for programs.
#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    p50: u64,
    p99: u64,
    max: u64,
    values: Vec<(u64, u64)>,
}

impl From<Counts> for Written {
    fn from(counts: Counts) -> Self {
        Self {
            count: counts.total(),
            p50: counts.quantile(0.5),
            p99: counts.quantile(0.99),
            max: counts.max(),
            values: counts.0.into_iter().collect(),
        }
    }
}

impl From<Written> for Counts {
    fn from(written: Written) -> Self {
        let mut counts = Self::default();
        for (value, count) in written.values {
            *counts.0.entry(value).or_default() += count;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: impl IntoIterator<Item = u64>) -> Counts {
        let mut counts = Counts::default();
        values.into_iter().for_each(|value| counts.record(value));
        counts
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let hundred = counts((1..=100).rev());
        assert_eq!((hundred.quantile(0.5), hundred.quantile(0.99), hundred.max()), (50, 99, 100));
        let few = counts([7, 7, 900]);
        assert_eq!((few.quantile(0.5), few.quantile(0.99), few.total()), (7, 900, 3));
        let none = Counts::default();
        assert_eq!((none.quantile(0.5), none.max(), none.total()), (0, 0, 0));
    }

    #[test]
    fn what_was_written_by_two_is_put_together_without_loss() {
        let (left, right) = (counts([20, 20, 140]), counts([20, 300]));
        let read = |counts: &Counts| -> Counts {
            serde_json::from_str(&serde_json::to_string(counts).expect("JSON")).expect("the same back")
        };
        let mut both = read(&left);
        both.merge(&read(&right));
        assert_eq!(both, counts([20, 20, 20, 140, 300]));
        let written: serde_json::Value = serde_json::to_value(&both).expect("JSON");
        assert_eq!((&written["count"], &written["p50"], &written["max"]), (&5.into(), &20.into(), &300.into()));
    }
}
