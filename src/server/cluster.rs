//! This node's place among the others: what they share, what it tells them, and whom its relay talks to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_core::{
    ids::{NodeId, NodeNumber},
    relay::{NodeInfo, RelayEvent, Versions},
};
use tokio::{sync::mpsc, time::Instant};

use super::{StartError, config};
use crate::{
    api::Addresses,
    cluster::{
        ClusterView, Load, Membership, MemoryCluster, NodeRecord, NodeState, NodeStatistics, Notice, RedisCluster,
        RedisConfig, Registry, SessionNotice, SessionRecords,
    },
    media::Media,
    settings::{LocalState, Settings},
    telemetry::metrics::{NodesKnown, metrics},
    ticks::ticks,
    vitals::{Gatherer, Vitals},
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
        let membership = config::rooms(settings, None, None, None).membership;
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
        http_url: settings
            .cluster
            .http_url
            .clone()
            .unwrap_or_else(|| format!("{}://{}", addresses.http_scheme(), addresses.http)),
        relay,
        workers: media.workers(),
        relay_versions: (Versions::SPOKEN.min, Versions::SPOKEN.max),
        capacity,
        state: NodeState::Serving,
        load: Load::default(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        statistics: NodeStatistics::default(),
    }
}

/// A node that the register no longer lists is talked to, and may own channels, for so long. It may live and have lost
/// nothing but Redis: then its members are removed 30 s after its lease, and heard until then. Or the register has begun
/// anew, as when Redis lost its data, and lists nodes only as they come back. Whoever is really gone is not heard, and so
/// owns nothing after 400 ms whatever is listed.
const PEER_GRACE: Duration = Duration::from_secs(40);

/// Tells the relay of each change of the cluster, for ever.
pub(super) async fn follow(registry: Registry, media: Media) {
    let mut view = registry.view();
    let mut peers = Peers::default();
    let mut warned_of = HashSet::new();
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        show(&seen);
        // Given up by the others, a node keeps its peers until it has registered again: its people go on talking.
        if let Some(me) = seen.nodes.iter().find(|node| node.number == seen.me) {
            let listed = peers.listed(&seen, Instant::now());
            media.set_peers(seen.epoch, &info(me), listed.into()).await;
            warn_of_incompatible(&seen, &mut warned_of);
        }
        let forget_at = peers.forget_at();
        tokio::select! {
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = async { tokio::time::sleep_until(forget_at.unwrap_or_else(Instant::now)).await }, if forget_at.is_some() => {}
        }
    }
}

/// Says which nodes no voice passes to, once for each.
fn warn_of_incompatible(view: &ClusterView, warned_of: &mut HashSet<NodeNumber>) {
    let others: Vec<_> = view.incompatible().collect();
    metrics().relay.peers_incompatible.set(others.len() as f64);
    warned_of.retain(|number| others.iter().any(|other| other.number == *number));
    for other in others {
        if warned_of.insert(other.number) {
            let (oldest, newest) = other.relay_versions;
            tracing::error!(node = %other.node_id, release = %other.release, oldest, newest,
                "no voice passes to this node: its release speaks no version of the relay that this one does");
        }
    }
}

/// Brings the metrics up to what is known of the cluster.
fn show(view: &ClusterView) {
    let cluster = &metrics().cluster;
    let serving = view.nodes.iter().filter(|node| node.state == NodeState::Serving).count();
    cluster.nodes.of(NodesKnown::Live).set(view.nodes.len() as f64);
    cluster.nodes.of(NodesKnown::Serving).set(serving as f64);
    cluster.epoch.set(view.epoch as f64);
}

/// Acts on what the relays tell, for ever.
pub(super) async fn watch_relays(registry: Registry, media: Media) {
    let Some(mut events) = media.take_relay_events() else { return };
    while let Some(event) = events.recv().await {
        match event {
            // Others route by a newer ring than this node has heard of.
            RelayEvent::RingBehind { epoch } => {
                tracing::debug!(epoch, "other nodes know a newer ring");
                registry.catch_up();
            }
            RelayEvent::PeerLost { node, worker } => {
                tracing::warn!(%node, worker = worker.0, "another node is not heard: it owns nothing until it is");
            }
            RelayEvent::PeerBack { node, worker } => {
                tracing::info!(%node, worker = worker.0, "another node is heard again");
            }
            RelayEvent::PeerSuspected { node, worker } => {
                tracing::debug!(%node, worker = worker.0, "another node is not heard: its channels go past it");
            }
            RelayEvent::OwnerChanged { channel, owner } => {
                tracing::debug!(%channel, ?owner, "a channel has another owner");
            }
        }
    }
}

/// The other nodes: those that are listed, and those that were until a moment ago.
#[derive(Default)]
struct Peers {
    known: HashMap<NodeNumber, Peer>,
}

struct Peer {
    info: NodeInfo,
    /// Since when it is not listed any more.
    gone_since: Option<Instant>,
}

impl Peers {
    /// Whom to talk to by what is listed now.
    fn listed(&mut self, view: &ClusterView, now: Instant) -> Vec<NodeInfo> {
        for peer in self.known.values_mut() {
            peer.gone_since.get_or_insert(now);
        }
        let others = view.nodes.iter().filter(|node| node.number != view.me).map(info);
        for info in others {
            // A node that has started anew takes the place of what it was before.
            self.known.retain(|number, peer| *number == info.number || peer.info.id != info.id);
            self.known.insert(info.number, Peer { info, gone_since: None });
        }
        self.known.retain(|_, peer| peer.gone_since.is_none_or(|since| now < since + PEER_GRACE));
        self.known.values().map(|peer| peer.info.clone()).collect()
    }

    /// When one that is no longer listed is to be forgotten.
    fn forget_at(&self) -> Option<Instant> {
        self.known.values().filter_map(|peer| peer.gone_since).min().map(|since| since + PEER_GRACE)
    }
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

/// Tells the others how this node is and how much there is to do here, for ever.
pub(super) async fn report(vitals: Arc<Vitals>, mut gatherer: Gatherer) {
    let mut ticks = ticks(REPORT_INTERVAL);
    loop {
        ticks.tick().await;
        vitals.report(gatherer.gather());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SharedState;

    #[test]
    fn who_is_no_longer_listed_is_kept_a_while_unless_it_started_anew() {
        let mut peers = Peers::default();
        let begun = Instant::now();
        let mut listed = |nodes: Vec<NodeRecord>, after: Duration| {
            let view = ClusterView { epoch: 1, me: NodeNumber(1), nodes, shared: SharedState::Up };
            let mut numbers: Vec<u32> = peers.listed(&view, begun + after).iter().map(|peer| peer.number.0).collect();
            numbers.sort_unstable();
            numbers
        };
        let at = Duration::from_secs;
        assert_eq!(
            listed(vec![NodeRecord::idle("me", 1), NodeRecord::idle("a", 2), NodeRecord::idle("b", 3)], at(0)),
            [2, 3]
        );
        assert_eq!(listed(vec![NodeRecord::idle("me", 1)], at(1)), [2, 3]);
        assert_eq!(
            listed(vec![NodeRecord::idle("me", 1), NodeRecord::idle("a", 4)], at(2)),
            [3, 4],
            "another process of that name"
        );
        assert_eq!(listed(vec![NodeRecord::idle("me", 1), NodeRecord::idle("a", 4)], at(41)), [4]);
    }
}
