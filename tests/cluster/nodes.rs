//! The nodes of a test's cluster.

use std::time::Duration;

use antiphon_core::{
    ids::{ChannelId, NodeId, NodeNumber},
    ring::Ring,
};
use antiphon_loadtest::ServerUrl;

use crate::support::{
    people::Person,
    postgres::{PostgresDatabase, fresh_database},
    process::Process,
    redis::RedisServer,
};

/// Their workers, and so their capacity, are alike.
const WORKERS: u32 = 2;

/// Some nodes and what they share; all of it ends with the test.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Process>,
    pub(crate) redis: RedisServer,
    _database: PostgresDatabase,
}

impl Nodes {
    /// Starts so many nodes and waits until they know each other.
    pub(crate) async fn start(count: usize) -> Self {
        let database = fresh_database().await;
        let redis = RedisServer::start();
        let mut nodes = Vec::new();
        for index in 0..count {
            nodes.push(Self::node(index, &redis, &database).await);
        }
        let cluster = Self { nodes, redis, _database: database };
        for index in 0..count {
            cluster.node_sees(index, count).await;
        }
        cluster
    }

    async fn node(index: usize, redis: &RedisServer, database: &PostgresDatabase) -> Process {
        Process::start(&[
            ("REDIS_URL", &redis.url()),
            ("DATABASE_URL", &database.url),
            ("JWT_SECRET", "the secret of all nodes of this test's cluster"),
            ("ANTIPHON_CLUSTER__SECRET", "another secret of all nodes of this test's cluster"),
            ("ANTIPHON_CLUSTER__NODE_ID", &name(index)),
            ("ANTIPHON_CLUSTER__RELAY_PORT", "0"),
            ("ANTIPHON_MEDIA__WORKERS", &WORKERS.to_string()),
            ("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "20"),
        ])
        .await
    }

    /// Waits until a node sees so many live ones.
    pub(crate) async fn node_sees(&self, index: usize, count: usize) {
        let wait = async {
            loop {
                let health =
                    http().get(self.nodes[index].url().http("/health/detailed")).send().await.expect("it answers");
                let health: serde_json::Value = health.json().await.expect("JSON");
                if health["data"]["checks"]["cluster"]["nodes"] == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the nodes find each other");
    }

    /// Where all nodes but one are.
    pub(crate) fn others(&self, index: usize) -> Vec<ServerUrl> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, node)| node.url()).collect()
    }

    /// Which node owns a channel while all live, as every node computes it.
    pub(crate) fn owner_of(&self, channel: ChannelId) -> usize {
        let ids: Vec<NodeId> = (0..self.nodes.len()).map(|index| NodeId(name(index))).collect();
        let number = |index: usize| NodeNumber(u32::try_from(index + 1).expect("few"));
        let ring = Ring::new(1, ids.iter().enumerate().map(|(index, id)| (id, number(index), 100 * WORKERS)));
        let owner = ring.owner(channel).expect("somebody does");
        usize::try_from(owner.0 - 1).expect("few")
    }
}

/// For requests.
pub(crate) fn http() -> reqwest::Client {
    // An error says that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
}

fn name(index: usize) -> String {
    format!("node-{index}")
}

/// Lets somebody speak until everyone hears it: the nodes then know where the channel's members are. The number of the
/// next frame.
pub(crate) async fn until_heard(speaker: &Person, listeners: &mut [&mut Person]) -> u32 {
    let mut number = 0;
    for listener in listeners {
        loop {
            speaker.say(number).await;
            number += 1;
            if tokio::time::timeout(Duration::from_millis(40), listener.hear()).await.is_ok() {
                break;
            }
            assert!(number < 1_000, "heard at last");
        }
    }
    number
}
