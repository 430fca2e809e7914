//! Each part that a node needs, tried now.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::http::Method;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{
    Api,
    peers::{FORWARDED, other_nodes},
};
use crate::cluster::{NodeRecord, SharedState};

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A database that takes longer is slow: people wait for it.
const STORE_SLOW: Duration = Duration::from_millis(500);

/// Below this share of the disk, or this many bytes, the data folder is nearly full.
const DISK_FREE_PERCENT_MIN: f64 = 5.0;
const DISK_FREE_BYTES_MIN: u64 = 256 << 20;

/// Tokens are good for seconds more or less than they say when clocks differ by more.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(2);

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It works.
    Ok,
    /// It works, and something should be done.
    Degraded,
    /// It does not.
    Failed,
}

/// A part that was tried.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Probe {
    /// Which: `database`, `redis`, `media_workers`, `relay`, `node NAME`, `disk` or `clock`.
    #[schema(example = "database")]
    component: String,
    /// How it is.
    pub(super) status: Verdict,
    /// How long it took to answer; null where it did not, or nothing is asked.
    latency_ms: Option<f64>,
    /// In words.
    #[schema(example = "answers")]
    detail: String,
}

impl Probe {
    fn new(component: impl Into<String>, status: Verdict, took: Option<Duration>, detail: impl Into<String>) -> Self {
        let latency_ms = took.map(|took| took.as_secs_f64() * 1e3);
        Self { component: component.into(), status, latency_ms, detail: detail.into() }
    }
}

/// Tries every part, all at once.
pub(super) async fn all(api: &Api) -> Vec<Probe> {
    let others = other_nodes(api);
    let nodes = join_all(others.iter().map(|node| node_answers(api, node)));
    let (database, redis, workers, nodes) = tokio::join!(database(api), redis(api), media_workers(api), nodes);
    let mut probes = vec![database.0, workers, disk(api)];
    probes.extend(database.1);
    probes.extend(redis);
    if api.media.relay_addr().is_some() {
        probes.push(relay(api, &others));
    }
    probes.extend(nodes);
    probes
}

/// How long something took, if it was done in time.
async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Option<(T, Duration)> {
    let begun = Instant::now();
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Some((done, begun.elapsed())),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// The database, and by its clock ours.
async fn database(api: &Api) -> (Probe, Option<Probe>) {
    let Some((its_clock, took)) = timed(api.store.clock()).await else {
        return (Probe::new("database", Verdict::Failed, None, "does not answer"), None);
    };
    let probe = match took > STORE_SLOW {
        true => Probe::new("database", Verdict::Degraded, Some(took), "answers slowly"),
        false => Probe::new("database", Verdict::Ok, Some(took), "answers"),
    };
    (probe, Some(clock(its_clock, SystemTime::now(), took)))
}

/// How far this machine's clock is from the database's, which answered half-way.
fn clock(its: SystemTime, ours: SystemTime, took: Duration) -> Probe {
    let since = |moment: SystemTime| moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let off_s = since(ours) - took.as_secs_f64() / 2.0 - since(its);
    let status = if off_s.abs() > CLOCK_OFF_MAX.as_secs_f64() { Verdict::Degraded } else { Verdict::Ok };
    Probe::new("clock", status, None, format!("{:+.0} ms from the database's", off_s * 1e3))
}

/// What the nodes share; nothing where there is one node.
async fn redis(api: &Api) -> Option<Probe> {
    if api.registry.view().borrow().shared == SharedState::Alone {
        return None;
    }
    Some(match timed(api.directory.ask_shared()).await {
        Some(((), took)) => Probe::new("redis", Verdict::Ok, Some(took), "answers"),
        None => Probe::new("redis", Verdict::Failed, None, "does not answer: voice goes on, joins are limited"),
    })
}

/// Every media worker takes a command.
async fn media_workers(api: &Api) -> Probe {
    let (workers, running) = (api.media.workers(), api.media.workers_running());
    let component = "media_workers";
    if running < workers {
        return Probe::new(component, Verdict::Failed, None, format!("{running} of {workers} run"));
    }
    match tokio::time::timeout(PATIENCE, api.media.probe()).await {
        Ok(took) => Probe::new(component, Verdict::Ok, Some(took), format!("{workers} of {workers} answer")),
        Err(_) => Probe::new(component, Verdict::Failed, None, "not all of them answer"),
    }
}

/// Whether the relay knows all other nodes.
fn relay(api: &Api, others: &[NodeRecord]) -> Probe {
    let wanted = others.len() as u64;
    let known = api.media.relay_peers();
    let incompatible = api.registry.view().borrow().incompatible().count();
    let detail = format!("{known} other nodes known, {wanted} listed, {incompatible} incompatible");
    let status = if known < wanted || incompatible > 0 { Verdict::Degraded } else { Verdict::Ok };
    Probe::new("relay", status, None, detail)
}

/// Whether another node answers over HTTP.
async fn node_answers(api: &Api, node: &NodeRecord) -> Probe {
    let url = format!("{}/health/live", node.http_url.trim_end_matches('/'));
    let asked = async {
        let request = api.http.request(Method::GET, url).header(FORWARDED, "1");
        request.send().await.and_then(reqwest::Response::error_for_status)
    };
    let component = format!("node {}", node.node_id);
    match timed(asked).await {
        Some((_, took)) => Probe::new(component, Verdict::Ok, Some(took), "answers"),
        None => Probe::new(component, Verdict::Degraded, None, "is listed and does not answer over HTTP"),
    }
}

/// Room for the data folder.
fn disk(api: &Api) -> Probe {
    let Ok(found) = rustix::fs::statvfs(&api.settings.data_dir) else {
        return Probe::new("disk", Verdict::Failed, None, "the data folder cannot be looked at");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let percent = free as f64 * 100.0 / (found.f_blocks.saturating_mul(found.f_frsize)).max(1) as f64;
    let is_low = percent < DISK_FREE_PERCENT_MIN || free < DISK_FREE_BYTES_MIN;
    let status = if is_low { Verdict::Degraded } else { Verdict::Ok };
    Probe::new("disk", status, None, format!("{} MiB free ({percent:.1} %)", free >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_seconds_are_told_of() {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(1_000_000 + ms);
        let probe = clock(at(0), at(20), Duration::from_millis(40));
        assert_eq!((probe.status, probe.detail.as_str()), (Verdict::Ok, "+0 ms from the database's"));
        let probe = clock(at(3_000), at(0), Duration::ZERO);
        assert_eq!((probe.status, probe.detail.as_str()), (Verdict::Degraded, "-3000 ms from the database's"));
    }
}
