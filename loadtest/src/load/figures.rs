//! The figures of a run that have a name: what budgets limit, what two runs are compared by, what a report begins with.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{chat::ChatOutcome, outcome::Outcome};

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The lower the better: a budget is the most.
    Lower,
    /// The higher the better: a budget is the least.
    Higher,
}

/// What a figure is.
struct Definition {
    name: &'static str,
    meaning: &'static str,
    better: Better,
    /// Differences up to this are none, however large their ratio.
    slack: f64,
    of: fn(&Outcome) -> Option<f64>,
}

/// One of the figures that have a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Figure(usize);

/// A name that no figure has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no figure; these are: {names}", names = names())]
pub struct UnknownFigure(String);

macro_rules! figures {
    ($($name:literal, $better:ident, slack $slack:literal, $meaning:literal, $of:expr;)*) => {
        &[$(Definition { name: $name, meaning: $meaning, better: Better::$better, slack: $slack, of: $of }),*]
    };
}

const DEFINITIONS: &[Definition] = figures! {
    "p50_ms", Lower, slack 0.2, "latency of frames by UDP, median, ms", |run| known(run.latency.count, run.latency.p50_ms);
    "p95_ms", Lower, slack 0.5, "latency of frames by UDP, 95th percentile, ms", |run| known(run.latency.count, run.latency.p95_ms);
    "p99_ms", Lower, slack 0.5, "latency of frames by UDP, 99th percentile, ms", |run| known(run.latency.count, run.latency.p99_ms);
    "p999_ms", Lower, slack 1.0, "latency of frames by UDP, 99.9th percentile, ms", |run| known(run.latency.count, run.latency.p999_ms);
    "tunnel_p99_ms", Lower, slack 1.0, "latency of frames in the WebSocket, 99th percentile, ms",
        |run| known(run.tunnel_latency.count, run.tunnel_latency.p99_ms);
    "loss", Lower, slack 0.0001, "share of deliveries lost that the run's own impairment does not explain",
        |run| known(run.expected, run.loss());
    "loss_heard", Lower, slack 0.0001, "share of deliveries lost in all, by impairment too", |run| known(run.expected, run.loss_heard());
    "duplicated", Lower, slack 0.0, "deliveries that came twice, past the client's check", |run| Some(run.duplicated as f64);
    "corrupt", Lower, slack 0.0, "deliveries that are not what was sent", |run| Some(run.corrupt as f64);
    "mos", Higher, slack 0.02, "opinion score (E-model) that 95 of 100 listeners have at least, 1 to 4.5",
        |run| run.quality.map(|quality| quality.mos_p5);
    "join_p50_ms", Lower, slack 5.0, "joining, slowest kind of the phase, median, ms", |run| run.join_times().map(|times| times.p50_ms).reduce(f64::max);
    "join_p99_ms", Lower, slack 10.0, "joining, slowest kind of the phase, 99th percentile, ms", |run| run.join_times().map(|times| times.p99_ms).reduce(f64::max);
    "join_failures", Lower, slack 0.0, "joins of those who come and go that failed or were not begun", |run| run.join_failures();
    "settled_s", Lower, slack 0.1, "a storm from its first join to its last answer, s", |run| run.storm.as_ref().map(|storm| storm.settled_s);
    "silence_p99_ms", Lower, slack 5.0, "longest silence after a fault among those it did not hit, 99th percentile, ms",
        |run| run.faults.as_ref().and_then(|faults| faults.silence_p99_ms());
    "back_p99_ms", Lower, slack 20.0, "how long those that a fault hit did not hear or were not heard, 99th percentile, ms; not known when one never does again",
        |run| run.faults.as_ref().and_then(|faults| faults.back_p99_ms());
    "sessions_ended", Lower, slack 0.0, "clients' sessions that ended though nobody wanted it", |run| Some(run.sessions_ended as f64);
    "cpu_cores", Lower, slack 0.02, "CPU time of the nodes by time, in cores", |run| run.cpu_cores;
    "cpu_us", Lower, slack 0.02, "CPU time of the nodes for each delivery, µs",
        |run| run.cpu_us_per_delivery.filter(|_| run.delivered + run.to_passers > 0);
    "join_cpu_ms", Lower, slack 0.05, "CPU time of the nodes for each of the first joins, ms", |run| run.joins.and_then(|joins| joins.cpu_ms_per_join);
    "join_memory_kib", Lower, slack 1.0, "memory of the nodes for each of the first joins, KiB", |run| run.joins.and_then(|joins| joins.memory_bytes_per_join).map(|bytes| bytes / 1_024.0);
    "memory_mib", Lower, slack 1.0, "memory of the nodes at the end, MiB", |run| run.resident.last().map(|last| last.bytes as f64 / f64::from(1 << 20));
    "memory_growth", Lower, slack 0.005, "growth of the nodes' memory since the first minute, as a share", |run| run.resident_growth();
    "scrape_p50_ms", Lower, slack 1.0, "fetching a node's metrics, median, ms", |run| run.scrapes.as_ref().map(|scrapes| scrapes.times.p50_ms);
    "scrape_p99_ms", Lower, slack 2.0, "fetching a node's metrics, 99th percentile, ms", |run| run.scrapes.as_ref().map(|scrapes| scrapes.times.p99_ms);
    "scrape_failures", Lower, slack 0.0, "fetches of a node's metrics that failed", |run| run.scrapes.as_ref().map(|scrapes| scrapes.failures as f64);
    "chat_p50_ms", Lower, slack 1.0, "chat, from writing to reading, median, ms", |run| read(run, |chat| chat.latency.p50_ms);
    "chat_p95_ms", Lower, slack 2.0, "chat, from writing to reading, 95th percentile, ms", |run| read(run, |chat| chat.latency.p95_ms);
    "chat_p99_ms", Lower, slack 2.0, "chat, from writing to reading, 99th percentile, ms", |run| read(run, |chat| chat.latency.p99_ms);
    "chat_p999_ms", Lower, slack 5.0, "chat, from writing to reading, 99.9th percentile, ms", |run| read(run, |chat| chat.latency.p999_ms);
    "chat_ack_p50_ms", Lower, slack 1.0, "chat, from writing to the acknowledgement, median, ms",
        |run| run.chat.as_ref().and_then(|chat| known(chat.acknowledged, chat.acknowledgement.p50_ms));
    "chat_ack_p99_ms", Lower, slack 2.0, "chat, from writing to the acknowledgement, 99th percentile, ms",
        |run| run.chat.as_ref().and_then(|chat| known(chat.acknowledged, chat.acknowledgement.p99_ms));
    "chat_failures", Lower, slack 0.0, "chat messages that were refused or never answered", |run| run.chat.as_ref().map(|chat| chat.failures() as f64);
    "chat_lost", Lower, slack 0.0, "deliveries of chat that never came", |run| run.chat.as_ref().map(|chat| chat.lost as f64);
    "chat_doubled", Lower, slack 0.0, "deliveries of chat that came twice", |run| run.chat.as_ref().map(|chat| chat.doubled as f64);
    "chat_out_of_order", Lower, slack 0.0, "deliveries of chat behind one with a higher number", |run| run.chat.as_ref().map(|chat| chat.out_of_order as f64);
    "chat_corrupt", Lower, slack 0.0, "deliveries of chat that are not what was written", |run| run.chat.as_ref().map(|chat| chat.corrupt as f64);
    "chat_away_p99_ms", Lower, slack 20.0, "until a member of a room whose node was lost, or asked them to go, reads on, 99th percentile, ms",
        |run| run.chat.as_ref().and_then(|chat| known(chat.returned, chat.away.p99_ms));
    "chat_cpu_us", Lower, slack 0.1, "CPU time of the nodes for each delivery of chat, whatever else they did then, µs",
        |run| run.chat.as_ref().and_then(|chat| chat.cpu_us_per_delivery);
    "stream_requests_per_s", Higher, slack 1.0, "ranges of audio files a second", |run| run.streams.as_ref().map(|streams| streams.requests_per_s);
    "stream_gb_per_s", Higher, slack 0.01, "audio files, GB a second", |run| run.streams.as_ref().map(|streams| streams.gigabytes_per_s);
    "stream_first_byte_p50_ms", Lower, slack 0.5, "audio files, from a request to the head of its answer, median, ms",
        |run| run.streams.as_ref().and_then(|streams| known(streams.requests, streams.first_byte.p50_ms));
    "stream_first_byte_p99_ms", Lower, slack 2.0, "audio files, from a request to the head of its answer, 99th percentile, ms",
        |run| run.streams.as_ref().and_then(|streams| known(streams.requests, streams.first_byte.p99_ms));
    "stream_failures", Lower, slack 0.0, "requests for audio files that failed", |run| run.streams.as_ref().map(|streams| streams.failed() as f64);
    "stream_corrupt", Lower, slack 0.0, "ranges of audio files with other bytes", |run| run.streams.as_ref().map(|streams| streams.corrupt as f64);
    "stream_stalls", Lower, slack 0.0, "ranges of audio files that were there too late to be played", |run| run.streams.as_ref().map(|streams| streams.stalls as f64);
    "stream_cpu_s_per_gib", Lower, slack 0.02, "CPU time of the nodes for each GiB of audio files, whatever else they did then, s",
        |run| run.streams.as_ref().and_then(|streams| streams.cpu_s_per_gib);
};

fn known(count: u64, value: f64) -> Option<f64> {
    (count > 0).then_some(value)
}

/// A time of chat that was delivered.
fn read(run: &Outcome, of: fn(&ChatOutcome) -> f64) -> Option<f64> {
    run.chat.as_ref().filter(|chat| chat.delivered > 0).map(of)
}

fn names() -> String {
    DEFINITIONS.iter().map(|definition| definition.name).collect::<Vec<_>>().join(", ")
}

impl Figure {
    /// Every figure.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..DEFINITIONS.len()).map(Self)
    }

    fn definition(self) -> &'static Definition {
        &DEFINITIONS[self.0]
    }

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// What it is, with its unit.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.definition().meaning
    }

    /// Which way it gets better.
    #[must_use]
    pub fn better(self) -> Better {
        self.definition().better
    }

    /// What it was in a run; `None` when it was not measured.
    #[must_use]
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        (self.definition().of)(outcome)
    }

    /// All that were measured.
    #[must_use]
    pub fn measured(outcome: &Outcome) -> BTreeMap<Self, f64> {
        Self::all().filter_map(|figure| Some((figure, figure.of(outcome)?))).collect()
    }

    /// Whether `value` keeps to `limit`.
    #[must_use]
    pub fn keeps(self, value: f64, limit: f64) -> bool {
        match self.better() {
            Better::Lower => value <= limit,
            Better::Higher => value >= limit,
        }
    }

    /// Whether `after` is worse than `before` by more than a share of it, and by more than the figure wavers anyway.
    #[must_use]
    pub fn worse(self, before: f64, after: f64, tolerance: f64) -> bool {
        let worse_by = match self.better() {
            Better::Lower => after - before,
            Better::Higher => before - after,
        };
        worse_by > self.definition().slack && worse_by > before.abs() * tolerance
    }
}

impl FromStr for Figure {
    type Err = UnknownFigure;

    fn from_str(name: &str) -> Result<Self, UnknownFigure> {
        Self::all().find(|figure| figure.name() == name).ok_or_else(|| UnknownFigure(name.to_owned()))
    }
}

impl TryFrom<String> for Figure {
    type Error = UnknownFigure;

    fn try_from(name: String) -> Result<Self, UnknownFigure> {
        name.parse()
    }
}

impl From<Figure> for String {
    fn from(figure: Figure) -> Self {
        figure.name().to_owned()
    }
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str) -> Figure {
        name.parse().expect("a figure")
    }

    #[test]
    fn names_are_unique_and_an_unknown_one_lists_them_all() {
        let error = "p98_ms".parse::<Figure>().expect_err("none").to_string();
        for figure in Figure::all() {
            assert!(error.contains(figure.name()) && !figure.meaning().is_empty());
            assert_eq!(figure.name().parse(), Ok(figure), "no other has its name");
        }
    }

    #[test]
    fn the_documentation_has_them_all() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/load-testing.md");
        let text = std::fs::read_to_string(file).expect("the page");
        for figure in Figure::all() {
            let row = format!("| `{figure}` | {} |", figure.meaning());
            assert!(text.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_budget_is_the_most_of_some_and_the_least_of_others() {
        assert!(figure("p99_ms").keeps(5.0, 5.0) && !figure("p99_ms").keeps(5.1, 5.0));
        assert!(figure("mos").keeps(4.1, 4.0) && !figure("mos").keeps(3.9, 4.0));
    }

    #[test]
    fn worse_is_more_than_the_tolerance_and_more_than_it_wavers() {
        assert!(figure("p99_ms").worse(10.0, 12.0, 0.1) && !figure("p99_ms").worse(10.0, 10.9, 0.1));
        assert!(!figure("p99_ms").worse(0.3, 0.6, 0.1), "0.3 ms is nothing");
        assert!(figure("mos").worse(4.2, 3.0, 0.1) && !figure("mos").worse(3.0, 4.2, 0.1));
        assert!(figure("loss").worse(0.0, 0.01, 0.1) && figure("corrupt").worse(0.0, 1.0, 0.1));
    }
}
