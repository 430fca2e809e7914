//! This node's place among the others: what they share, what it tells them, and whom its relay talks to.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_core::{
    engine::Counter,
    ids::{NodeId, NodeNumber},
    relay::{NodeInfo, Versions},
};
use tokio::{sync::mpsc, time::Instant};

use super::{StartError, config};
use crate::{
    api::Addresses,
    cluster::{
        ClusterView, Load, Membership, MemoryCluster, NodeRecord, NodeState, Notice, RedisCluster, RedisConfig,
        Registry, SessionNotice, SessionRecords,
    },
    gateway::Gateway,
    media::{Media, SocketCounter},
    settings::{LocalState, Settings},
};

/// How often the others are told how much there is to do: as often as the node's lease is renewed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A node's capacity for each media worker, where it is not set.
const CAPACITY_OF_WORKER: u32 = 100;

/// What a node has of the cluster: on its own, of itself.
pub(super) struct Place {
    pub(super) registry: Registry,
    pub(super) membership: Membership,
    pub(super) notices: mpsc::Receiver<Notice>,
    pub(super) records: SessionRecords,
    pub(super) session_notices: mpsc::Receiver<SessionNotice>,
}

impl Place {
    /// Takes a place among the nodes that share `redis.url`, or makes one up for a node on its own.
    pub(super) async fn take(
        settings: &Settings,
        local: &LocalState,
        addresses: Addresses,
        media: &Media,
    ) -> Result<Self, StartError> {
        let node = record(settings, local, addresses, media);
        let membership = config::rooms(settings).membership;
        let Some(url) = &settings.redis.url else {
            let alone = MemoryCluster::single(membership);
            return Ok(Self {
                registry: Registry::alone(node),
                membership: alone.membership,
                notices: alone.notices,
                records: alone.records,
                session_notices: alone.session_notices,
            });
        };
        let config =
            RedisConfig { ca_file: settings.redis.ca_file.clone(), membership, ..RedisConfig::new(url.expose()) };
        let shared = RedisCluster::start(config, node).await?;
        Ok(Self {
            registry: Registry::Redis(shared.registry),
            membership: Membership::Redis(shared.membership),
            notices: shared.notices,
            records: SessionRecords::Redis(shared.records),
            session_notices: shared.session_notices,
        })
    }
}

/// What the others are to know of this node.
fn record(settings: &Settings, local: &LocalState, addresses: Addresses, media: &Media) -> NodeRecord {
    let relay = settings.cluster.advertise.or(media.relay_addr()).unwrap_or(addresses.udp);
    let capacity = match settings.cluster.capacity {
        0 => u32::from(media.workers()) * CAPACITY_OF_WORKER,
        capacity => capacity,
    };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NodeRecord {
        node_id: NodeId(local.node_id.clone()),
        // Given when it registers.
        number: NodeNumber(0),
        started_at_us: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX),
        http_url: settings.cluster.http_url.clone().unwrap_or_else(|| format!("http://{}", addresses.http)),
        relay,
        workers: media.workers(),
        relay_versions: (Versions::SPOKEN.min, Versions::SPOKEN.max),
        capacity,
        state: NodeState::Serving,
        load: Load::default(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Tells the relay of each change of the cluster, for ever.
pub(super) async fn follow(registry: Registry, media: Media) {
    let mut view = registry.view();
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        set_peers(&seen, &media).await;
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn set_peers(view: &ClusterView, media: &Media) {
    // Given up by the others, a node keeps its peers until it has registered again: its people go on talking.
    let Some(me) = view.nodes.iter().find(|node| node.number == view.me) else { return };
    let peers = view.nodes.iter().filter(|node| node.number != view.me).map(info).collect();
    media.set_peers(view.epoch, info(me), peers).await;
}

fn info(node: &NodeRecord) -> NodeInfo {
    NodeInfo {
        id: node.node_id.clone(),
        number: node.number,
        started_at_us: node.started_at_us,
        address: node.relay,
        workers: node.workers,
        versions: Versions { min: node.relay_versions.0, max: node.relay_versions.1 },
        capacity: node.capacity,
        serving: node.state == NodeState::Serving,
    }
}

/// Tells the others how much there is to do here, for ever.
pub(super) async fn report(registry: Registry, media: Media, gateway: Gateway) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    let (mut last_at, mut last_busy_us) = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        let counters = media.counters();
        let (now, busy_us) = (Instant::now(), counters.socket[SocketCounter::BusyMicros]);
        let passed_us = now.duration_since(last_at).as_micros().max(1) as f32 * f32::from(media.workers());
        let busy = (busy_us.saturating_sub(last_busy_us) as f32 / passed_us).min(1.0);
        (last_at, last_busy_us) = (now, busy_us);
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        registry.report_load(Load {
            sessions: count(gateway.sessions_count() as u64),
            members: count(counters.engine[Counter::MembersPresent]),
            busy,
        });
    }
}

/// For requests that are passed on to other nodes.
pub(super) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    // The process may have installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("antiphon/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Where the relay of this node listens, as settings have it.
pub(super) fn relay_bind(settings: &Settings) -> SocketAddr {
    SocketAddr::new(settings.server.host, settings.cluster.relay_port)
}
