//! Audio files behind signed links: listeners fetch them in ranges, at full rate or as fast as they play, and compare
//! every byte with what one fetch of the whole file has brought before.

mod files;
mod listener;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};

use self::{
    files::{File, known_files},
    listener::{Listener, Tally},
};
use super::{LoadError, members::Shared, process::CpuUsed, spread, tally::TimesSummary};
use crate::scenario::CLIENTS_MAX;

/// The longest range that is asked for.
const RANGE_BYTES_MAX: u64 = 1 << 26;
/// As many as a server lists at once.
const FILES_MAX: usize = 100;

/// Who listens, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// How many, each with a connection that is kept, spread over the nodes.
    pub listeners: usize,
    /// How much each request asks for.
    #[serde(default = "default_range_bytes")]
    pub range_bytes: u64,
    /// How fast they ask.
    #[serde(default)]
    pub pace: Pace,
    /// How many of the server's files they listen to, at most; the first that it lists.
    #[serde(default = "default_files")]
    pub files: usize,
}

/// How fast somebody asks for the next range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As soon as the last one is there.
    #[default]
    Full,
    /// When the file, as long as it plays, has come to it.
    Playing,
}

const fn default_range_bytes() -> u64 {
    64 * 1_024
}

const fn default_files() -> usize {
    4
}

/// What came of it. Requests count that were begun in the measured time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamsOutcome {
    /// How many listened.
    pub listeners: usize,
    /// How much each request asked for.
    pub range_bytes: u64,
    /// Requests that were answered with a range.
    pub requests: u64,
    /// What those brought.
    pub bytes: u64,
    /// Requests that failed, by error code; the HTTP status where there is none.
    pub failures: BTreeMap<String, u64>,
    /// Answers with other bytes than the file has there.
    pub corrupt: u64,
    /// Ranges that were not there when the next one was due, where listeners keep the file's pace.
    pub stalls: u64,
    /// Answered requests a second.
    pub requests_per_s: f64,
    /// What those brought a second, in thousands of millions of bytes.
    pub gigabytes_per_s: f64,
    /// From the request to the head of its answer.
    pub first_byte: TimesSummary,
    /// And to the last byte.
    pub whole: TimesSummary,
    /// How much later than due requests were made, where listeners keep the file's pace and nothing else held them up.
    pub lateness: TimesSummary,
    /// The nodes' CPU time in the measured time for each GiB, whatever else they did then, in seconds.
    pub cpu_s_per_gib: Option<f64>,
}

impl Streams {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(1..=CLIENTS_MAX).contains(&self.listeners) || !(1..=FILES_MAX).contains(&self.files) {
            return Err(format!("1 to {FILES_MAX} files and 1 to {CLIENTS_MAX} listeners would do"));
        }
        if !(1..=RANGE_BYTES_MAX).contains(&self.range_bytes) {
            return Err(format!("range_bytes: 1 to {RANGE_BYTES_MAX} would do, not {}", self.range_bytes));
        }
        Ok(())
    }
}

/// Everyone who is about to listen.
pub(super) struct Audience {
    streams: Streams,
    files: Arc<[File]>,
}

impl Audience {
    /// Learns what is in the files, and gets links that last for that long. `label` tells the account from all others.
    pub(super) async fn prepare(
        shared: &Shared,
        streams: Streams,
        label: &str,
        lasting: Duration,
    ) -> Result<Self, LoadError> {
        let files = known_files(shared, &streams, label, lasting).await?.into();
        Ok(Self { streams, files })
    }

    /// Lets all listen from now on, and counts what is asked for between `begun` and `end`.
    pub(super) async fn listen(
        self,
        shared: &Shared,
        begun: Instant,
        end: Instant,
    ) -> Result<StreamsOutcome, LoadError> {
        let Self { streams, files } = self;
        let tally = Arc::new(Mutex::new(Tally::new()));
        let mut listening = JoinSet::new();
        for number in 0..streams.listeners {
            let node = spread::node_of(0, number, shared.rests.len());
            let listener = Listener {
                rest: shared.rests[node].clone(),
                files: Arc::clone(&files),
                range_bytes: streams.range_bytes,
                pace: streams.pace,
                measured: begun..end,
                tally: Arc::clone(&tally),
            };
            listening.spawn(listener.listen(number));
        }
        while let Some(listened) = listening.join_next().await {
            listened.map_err(|_| LoadError::SwarmEnded)?;
        }
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(StreamsOutcome::new(&streams, &tally, end - begun))
    }
}

impl StreamsOutcome {
    fn new(streams: &Streams, tally: &Tally, measured: Duration) -> Self {
        let seconds = measured.as_secs_f64().max(f64::EPSILON);
        Self {
            listeners: streams.listeners,
            range_bytes: streams.range_bytes,
            requests: tally.requests,
            bytes: tally.bytes,
            failures: tally.failures.clone(),
            corrupt: tally.corrupt,
            stalls: tally.stalls,
            requests_per_s: tally.requests as f64 / seconds,
            gigabytes_per_s: tally.bytes as f64 / 1e9 / seconds,
            first_byte: tally.first_byte.summary(),
            whole: tally.whole.summary(),
            lateness: tally.lateness.summary(),
            cpu_s_per_gib: None,
        }
    }

    /// Takes note of what the nodes used meanwhile.
    pub(super) fn that_cost(self, cpu: Option<CpuUsed>) -> Self {
        let gibibytes = self.bytes as f64 / f64::from(1 << 30);
        let each = |cpu: CpuUsed| cpu.seconds / gibibytes;
        Self { cpu_s_per_gib: cpu.filter(|_| self.bytes > 0).map(each), ..self }
    }

    /// Requests that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Why the figures say more of the load client than of what it measured, where they do.
    pub(super) fn bottleneck(&self, lateness_max: Duration) -> Option<String> {
        let max_ms = lateness_max.as_secs_f64() * 1_000.0;
        let late_ms = self.lateness.p99_ms;
        (late_ms > max_ms).then(|| {
            format!(
                "one request for a file in a hundred was made {late_ms:.1} ms or more after its time, {max_ms} ms is the \
                 limit; use a core of its own (--pin), fewer listeners, or allow it (--lateness-max-ms)"
            )
        })
    }
}
