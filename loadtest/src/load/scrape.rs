//! Fetches every node's metrics over and over, as Prometheus does, and takes the time.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::tally::{Times, TimesSummary};
use crate::rest::Rest;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the fetches went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScrapesOutcome {
    /// From the request to the last byte, of those that succeeded.
    pub times: TimesSummary,
    /// How long the longest answer was.
    pub bytes_max: usize,
    /// Those that failed.
    pub failures: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

/// Fetches from all nodes at once, every `interval` from `begun` until `end`.
pub(super) async fn scrape(nodes: &[Rest], interval: Duration, begun: Instant, end: Instant) -> ScrapesOutcome {
    let (mut times, mut bytes_max, mut failures, mut first_failure) = (Times::new(), 0, 0, None);
    let mut tick = tokio::time::interval_at(begun, interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while tick.tick().await < end {
        for fetched in join_all(nodes.iter().map(fetch)).await {
            match fetched {
                Ok((took, bytes)) => {
                    times.record_us(took.as_micros() as u64);
                    bytes_max = bytes_max.max(bytes);
                }
                Err(reason) => {
                    failures += 1;
                    first_failure.get_or_insert(reason);
                }
            }
        }
    }
    ScrapesOutcome { times: times.summary(), bytes_max, failures, first_failure }
}

async fn fetch(node: &Rest) -> Result<(Duration, usize), String> {
    let begun = Instant::now();
    let text = tokio::time::timeout(TIMEOUT, node.metrics()).await.map_err(|_| format!("no answer in {TIMEOUT:?}"))?;
    let text = text.map_err(|error| error.to_string())?;
    Ok((begun.elapsed(), text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_is_not_there_is_a_failure_each_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let nodes = [Rest::new(url.parse().expect("a URL")).expect("a client")];
        let begun = Instant::now();
        let interval = Duration::from_millis(5);
        let outcome = scrape(&nodes, interval, begun, begun + Duration::from_millis(50)).await;
        assert!(outcome.failures > 0 && outcome.times.count == 0 && outcome.first_failure.is_some(), "{outcome:?}");
    }
}
