//! What a run measured.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{people::Person, steps::Step, support::nodes::Nodes, talk::Talked};

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) views_equal_after: Vec<Duration>,
    pub(crate) gave_up: u32,
    resumed_after: Vec<Duration>,
    /// Longest silences of steps that harm nobody else, and of the others.
    silences: [Vec<Duration>; 2],
    said: [usize; 2],
    lost: [usize; 2],
    counts: BTreeMap<String, u32>,
    resident_bytes_before: Vec<u64>,
    pub(crate) resident_bytes: Vec<u64>,
}

impl Report {
    pub(crate) fn new(nodes: &Nodes) -> Self {
        let before = nodes.nodes.iter().map(|node| node.resident_bytes()).collect();
        Self { resident_bytes_before: before, ..Self::default() }
    }

    pub(crate) fn talked(&mut self, step: &Step, talked: &Talked) {
        let kind = usize::from(!step.harms_nobody_else());
        self.silences[kind].push(talked.longest_silence);
        self.said[kind] += talked.said;
        self.lost[kind] += talked.lost.len();
    }

    /// Takes over what somebody who ends has counted.
    pub(crate) fn gone(&mut self, person: &Person) {
        let seen = person.seen();
        self.resumed_after.extend(&seen.resumed_after);
        for (what, count) in &seen.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "views are equal after healing:     {}", Spread(&self.views_equal_after))?;
        writeln!(f, "sessions resumed after:            {}", Spread(&self.resumed_after))?;
        for (kind, what) in ["harms nobody else", "may be heard   "].iter().enumerate() {
            let (said, lost) = (self.said[kind], self.lost[kind]);
            let silences = Spread(&self.silences[kind]);
            writeln!(f, "longest silence, {what}: {silences}; {lost} of {said} frames lost")?;
        }
        writeln!(f, "never came back: {}", self.gave_up)?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>6} {what}")?;
        }
        let mib = |bytes: &[u64]| bytes.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>();
        write!(f, "memory of nodes, MiB: {:?}, then {:?}", mib(&self.resident_bytes_before), mib(&self.resident_bytes))
    }
}

/// Median, 99th percentile and maximum.
struct Spread<'a>(&'a [Duration]);

impl fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.to_vec();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else { return f.write_str("never") };
        let (median, high) = (sorted[last / 2], sorted[(last * 99).div_ceil(100)]);
        write!(f, "p50 {median:.2?}, p99 {high:.2?}, max {:.2?} of {}", sorted[last], sorted.len())
    }
}
