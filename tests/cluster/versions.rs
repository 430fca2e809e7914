//! Nodes of releases that are too far apart to relay voice to each other.

use std::time::Duration;

use antiphon::cluster::{Load, NodeRecord, NodeState, NodeStatistics, RedisCluster, RedisConfig};
use antiphon_core::ids::{NodeId, NodeNumber};

use crate::support::{
    nodes::{Nodes, http},
    people::PATIENCE,
};

fn record(relay_versions: (u8, u8)) -> NodeRecord {
    NodeRecord {
        node_id: NodeId("of-a-release-to-come".to_owned()),
        number: NodeNumber(0),
        started_at_us: 1_700_000_000_000_000,
        http_url: "http://127.0.0.1:9".to_owned(),
        relay: ([127, 0, 0, 1], 9).into(),
        workers: 1,
        relay_versions,
        capacity: 1,
        state: NodeState::Serving,
        load: Load::default(),
        release: "99.0.0".to_owned(),
        statistics: NodeStatistics::default(),
    }
}

/// Waits until a node's cluster check has this status; how many nodes no voice passes to.
async fn until_status(cluster: &Nodes, status: &str, nodes: u64) -> u64 {
    let wait = async {
        loop {
            let check = cluster.health(0).await["checks"]["cluster"].take();
            if check["status"] == status && check["nodes"] == nodes {
                return check["nodes_incompatible"].as_u64().expect("a number");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time")
}

async fn incompatible_by_metrics(cluster: &Nodes) -> String {
    let text = http().get(cluster.nodes[0].url().http("/metrics")).send().await.expect("answered").text().await;
    let text = text.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("antiphon_relay_peers_incompatible "));
    line.expect("it is there").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_no_voice_can_pass_to_is_shown() {
    let cluster = Nodes::start(1).await;
    let config = || RedisConfig::new(cluster.redis.url());
    // This release speaks version 1.
    let next = RedisCluster::start(config(), record((1, 2))).await.expect("it registers");
    assert_eq!(until_status(&cluster, "ok", 2).await, 0, "neighbouring releases understand each other");
    antiphon::cluster::Registry::Redis(next.registry).unregister().await;
    until_status(&cluster, "ok", 1).await;
    let distant = RedisCluster::start(config(), record((2, 3))).await.expect("it registers");
    assert_eq!(until_status(&cluster, "incompatible", 2).await, 1);
    assert_eq!(cluster.health(0).await["status"], "degraded");
    assert_eq!(incompatible_by_metrics(&cluster).await, "1");
    drop(distant);
    // Its lease runs out.
    assert_eq!(until_status(&cluster, "ok", 1).await, 0);
    assert_eq!(incompatible_by_metrics(&cluster).await, "0");
}
