//! What the nodes send to each other, by their own counters.

use std::{str::FromStr, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::rest::Rest;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long before the measured time begins, and before it ends, the counters are read: so that answering the one falls
/// outside it and speech goes on during the other.
const AHEAD: Duration = Duration::from_millis(200);

/// The counters, by name in the order of [`Counters`]' fields.
const NAMES: [&str; 3] =
    ["antiphon_relay_sent_bytes_total", "antiphon_relay_datagrams_sent_total", "antiphon_relay_frames_sent_total"];

/// Tells one process of a node from the next.
const STARTED: &str = "antiphon_process_start_time_seconds";

/// What nodes sent to others so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    bytes: u64,
    datagrams: u64,
    frames: u64,
}

/// What went between nodes, or why that is not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BetweenNodes {
    /// All nodes' counters together.
    Measured(Traffic),
    /// The reason.
    Unknown(String),
}

/// What all nodes together sent to each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// Between the two readings.
    pub seconds: f64,
    /// UDP payload.
    pub bytes_per_s: f64,
    /// Datagrams, those without frames included.
    pub datagrams_per_s: f64,
    /// Frames; each node that one is sent to counts.
    pub frames_per_s: f64,
    /// The same for each frame that was spoken.
    pub bytes_per_spoken_frame: f64,
    /// The same for each frame that was spoken.
    pub datagrams_per_spoken_frame: f64,
    /// The same for each frame that was spoken.
    pub frames_per_spoken_frame: f64,
}

/// Two readings' difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    counters: Counters,
    seconds: f64,
}

/// Reads the counters of all nodes about when the measured time begins and when it ends.
pub(super) async fn watch(nodes: &[Rest], begun: Instant, measured: Duration) -> Result<Difference, String> {
    tokio::time::sleep_until(begun - AHEAD).await;
    let (before, from) = (read(nodes).await?, Instant::now());
    tokio::time::sleep_until(begun + measured - AHEAD.min(measured)).await;
    let (after, to) = (read(nodes).await?, Instant::now());
    Ok(Difference { counters: sum_of_differences(&before, &after)?, seconds: (to - from).as_secs_f64() })
}

fn sum_of_differences(before: &[Reading], after: &[Reading]) -> Result<Counters, String> {
    let mut sum = Counters::default();
    for (place, (before, after)) in (1..).zip(before.iter().zip(after)) {
        if before.started != after.started {
            return Err(format!("node {place} began anew meanwhile, and with it its counters"));
        }
        sum.bytes += after.counters.bytes.saturating_sub(before.counters.bytes);
        sum.datagrams += after.counters.datagrams.saturating_sub(before.counters.datagrams);
        sum.frames += after.counters.frames.saturating_sub(before.counters.frames);
    }
    Ok(sum)
}

/// Of one node.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    counters: Counters,
    /// When its process began, as it says.
    started: Option<f64>,
}

async fn read(nodes: &[Rest]) -> Result<Vec<Reading>, String> {
    let mut readings = Vec::with_capacity(nodes.len());
    let texts = join_all(nodes.iter().map(|node| tokio::time::timeout(TIMEOUT, node.metrics()))).await;
    for (place, text) in (1..).zip(texts) {
        let text = text.map_err(|_| format!("node {place} did not answer GET /metrics"))?;
        let text = text.map_err(|error| format!("GET /metrics of node {place}: {error}"))?;
        let counters = Counters::parse(&text).map_err(|name| format!("node {place} does not count {name}"))?;
        let started = text.lines().find_map(|line| value_of(line, STARTED));
        readings.push(Reading { counters, started });
    }
    Ok(readings)
}

impl Counters {
    /// Reads Prometheus' text format: the sum over all labels of each counter, or the name of one that is not there.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let sum = |name: &'static str| {
            let values: Vec<u64> = text.lines().filter_map(|line| value_of(line, name)).collect();
            if values.is_empty() { Err(name) } else { Ok(values.iter().sum()) }
        };
        Ok(Self { bytes: sum(NAMES[0])?, datagrams: sum(NAMES[1])?, frames: sum(NAMES[2])? })
    }
}

/// `NAME VALUE` or `NAME{LABELS} VALUE`.
fn value_of<T: FromStr>(line: &str, name: &str) -> Option<T> {
    let rest = line.strip_prefix(name)?;
    let value = match rest.strip_prefix('{') {
        Some(labels) => labels.rsplit_once('}')?.1,
        None => rest.strip_prefix(' ')?,
    };
    value.trim().parse().ok()
}

impl BetweenNodes {
    pub(super) fn new(difference: Result<Difference, String>, spoken_per_s: f64) -> Self {
        let Difference { counters, seconds } = match difference {
            Ok(difference) => difference,
            Err(reason) => return Self::Unknown(reason),
        };
        let per_s = |count: u64| count as f64 / seconds.max(f64::EPSILON);
        let per_frame = |count: u64| if spoken_per_s > 0.0 { per_s(count) / spoken_per_s } else { 0.0 };
        Self::Measured(Traffic {
            seconds,
            bytes_per_s: per_s(counters.bytes),
            datagrams_per_s: per_s(counters.datagrams),
            frames_per_s: per_s(counters.frames),
            bytes_per_spoken_frame: per_frame(counters.bytes),
            datagrams_per_spoken_frame: per_frame(counters.datagrams),
            frames_per_spoken_frame: per_frame(counters.frames),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP antiphon_relay_sent_bytes_total Their bytes.
# TYPE antiphon_relay_sent_bytes_total counter
antiphon_relay_sent_bytes_total 1200

antiphon_relay_datagrams_sent_total{records=\"1\"} 7
antiphon_relay_datagrams_sent_total{records=\"3-4\"} 3
antiphon_relay_frames_sent_total{hop=\"to_owner\"} 11
antiphon_relay_frames_sent_total{hop=\"from_owner\"} 9
antiphon_relay_frames_sent_total_of_another 1000
";

    #[test]
    fn counters_are_summed_over_their_labels_and_no_others() {
        assert_eq!(Counters::parse(TEXT), Ok(Counters { bytes: 1_200, datagrams: 10, frames: 20 }));
        assert_eq!(Counters::parse("up 1\n"), Err(NAMES[0]));
    }

    #[test]
    fn a_node_that_began_anew_is_noticed() {
        let reading = |bytes, started| Reading { counters: Counters { bytes, ..Counters::default() }, started };
        let (before, after) =
            ([reading(10, Some(1.5)), reading(20, Some(2.5))], [reading(30, Some(1.5)), reading(50, None)]);
        assert_eq!(sum_of_differences(&before[..1], &after[..1]), Ok(Counters { bytes: 20, ..Counters::default() }));
        assert!(sum_of_differences(&before, &after).expect_err("another process").contains("node 2"));
        assert_eq!(value_of(&format!("{STARTED} 1764169200.25"), STARTED), Some(1_764_169_200.25));
    }

    #[test]
    fn figures_are_by_the_second_and_by_the_frame() {
        let counters = Counters { bytes: 100_000, datagrams: 500, frames: 1_000 };
        let between = BetweenNodes::new(Ok(Difference { counters, seconds: 2.0 }), 250.0);
        let BetweenNodes::Measured(traffic) = between else { panic!("{between:?}") };
        assert_eq!((traffic.bytes_per_s, traffic.datagrams_per_s, traffic.frames_per_s), (50_000.0, 250.0, 500.0));
        assert_eq!((traffic.bytes_per_spoken_frame, traffic.frames_per_spoken_frame), (200.0, 2.0));
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let rest = Rest::new(url.parse().expect("a URL")).expect("a client");
        let reason = read(&[rest]).await.expect_err("nobody there");
        assert!(reason.contains("node 1") && reason.contains("/metrics"), "{reason}");
    }
}
