//! A cluster of server processes that share a Redis and a PostgreSQL of the test's own, on loopback. Nodes are killed,
//! stopped, drained and cut off for real.

use std::time::{Duration, Instant};

use antiphon_core::{
    ids::{ChannelId, NodeId, NodeNumber},
    ring::Ring,
};
use antiphon_loadtest::{
    ServerUrl,
    rest::{NewChannel, Rest},
};

use super::{
    network::{Inlet, ReservedPort, TcpWay},
    people::{PATIENCE, Person},
    postgres::{PostgresDatabase, fresh_database},
    process::Process,
    redis::RedisServer,
};

/// Far above the 400 ms that others may lose by an owner's death: a test asserts no more of the clock.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Their workers, and so their capacity, are alike.
const WORKERS: u32 = 2;

/// Some nodes and what they share; all of it ends with the test. A node has the same HTTP port each time it starts.
pub struct Nodes {
    pub nodes: Vec<Process>,
    pub redis: RedisServer,
    /// Each node's ways to the others and to Redis, and where clients find it.
    ways: Vec<Ways>,
    settings: Vec<(String, String)>,
    pub database: PostgresDatabase,
}

struct Ways {
    inlet: Inlet,
    redis: TcpWay,
    http: ReservedPort,
}

impl Nodes {
    /// Starts so many nodes and waits until they know each other.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// With further settings for each.
    pub async fn start_with(count: usize, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (database, redis) = (fresh_database().await, RedisServer::start());
        let mut cluster = Self { nodes: Vec::new(), redis, ways: Vec::new(), settings, database };
        for index in 0..count {
            let inlet = Inlet::open().await.expect("a port");
            let redis = TcpWay::open(cluster.redis.port).await.expect("a port");
            cluster.ways.push(Ways { inlet, redis, http: ReservedPort::take().expect("a port") });
            let node = cluster.node(index).await;
            cluster.nodes.push(node);
        }
        cluster.all_see(count).await;
        cluster
    }

    /// A new process in the place of one that has ended; whoever was in it is forgotten only when the others sweep.
    pub async fn restart(&mut self, index: usize) {
        self.nodes[index].kill();
        self.nodes[index] = self.node(index).await;
    }

    async fn node(&self, index: usize) -> Process {
        let ways = &self.ways[index];
        let (id, workers, port) = (name(index), WORKERS.to_string(), ways.http.port().to_string());
        let (redis, advertise) = (format!("redis://{}", ways.redis.address()), ways.inlet.address().to_string());
        let mut settings = vec![
            ("REDIS_URL", redis.as_str()),
            ("ANTIPHON_SERVER__PORT", &port),
            ("DATABASE_URL", &self.database.url),
            ("JWT_SECRET", "the secret of all nodes of this test's cluster"),
            ("ANTIPHON_CLUSTER__SECRET", "another secret of all nodes of this test's cluster"),
            ("ANTIPHON_CLUSTER__NODE_ID", &id),
            ("ANTIPHON_CLUSTER__RELAY_PORT", "0"),
            ("ANTIPHON_CLUSTER__ADVERTISE", &advertise),
            ("ANTIPHON_MEDIA__WORKERS", &workers),
            ("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "20"),
        ];
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let node = Process::start(&settings).await;
        ways.inlet.lead_to(node.relay_address());
        node
    }

    /// Cuts, or heals, the relay's way between two nodes, in both directions.
    pub fn cut_between(&self, one: usize, other: usize, cut: bool) {
        self.cut_way(one, other, cut);
        self.cut_way(other, one, cut);
    }

    /// In one direction. A node that is restarted is not cut off by what was cut before.
    pub fn cut_way(&self, from: usize, to: usize, cut: bool) {
        self.ways[to].inlet.cut(self.nodes[from].relay_address(), cut);
    }

    /// Cuts, or heals, a node's way to Redis.
    pub fn cut_from_redis(&self, index: usize, cut: bool) {
        self.ways[index].redis.cut(cut);
    }

    /// Waits until every node sees so many live ones.
    pub async fn all_see(&self, count: usize) {
        for index in 0..self.nodes.len() {
            self.node_sees(index, count).await;
        }
    }

    /// Waits until a node sees so many live ones.
    pub async fn node_sees(&self, index: usize, count: usize) {
        let wait = async {
            loop {
                if self.health(index).await["checks"]["cluster"]["nodes"] == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the nodes find each other");
    }

    /// Where all nodes but one are.
    pub fn others(&self, index: usize) -> Vec<ServerUrl> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, node)| node.url()).collect()
    }

    /// What a node says of itself and its parts.
    pub async fn health(&self, index: usize) -> serde_json::Value {
        let health = http().get(self.nodes[index].url().http("/health/detailed")).send().await.expect("it answers");
        health.json::<serde_json::Value>().await.expect("JSON")["data"].take()
    }

    /// Waits until every node says of a channel that the same so many are in its voice; how long that took.
    pub async fn views_become(&self, channel: ChannelId, count: u64) -> Duration {
        let begun = Instant::now();
        loop {
            let mut seen = Vec::new();
            for node in &self.nodes {
                let answer = http().get(node.url().http("/api/channels")).send().await.expect("answered");
                let answer: serde_json::Value = answer.json().await.expect("JSON");
                let channels = answer["data"].as_array().cloned().unwrap_or_default();
                let found = channels.into_iter().find(|found| found["id"] == channel.to_string());
                seen.push(found.and_then(|found| found["current_users"].as_u64()));
            }
            if seen.iter().all(|seen| *seen == Some(count)) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{seen:?} instead of {count}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes a channel that a node owns.
    pub async fn channel_owned_by(&self, owner: usize) -> ChannelId {
        let rest = Rest::new(self.nodes[0].url()).expect("a client");
        let unused = || uuid::Uuid::new_v4().simple().to_string()[..20].to_owned();
        let maker = rest.register(&unused(), "a long enough password").await.expect("registered");
        loop {
            let channel = NewChannel { name: unused(), max_users: Some(100), max_speakers: None };
            let channel = rest.create_channel(&maker.access_token, &channel).await.expect("created").id;
            if self.owner_of(channel) == owner {
                return channel;
            }
        }
    }

    /// Which node owns a channel while all live, as every node computes it.
    pub fn owner_of(&self, channel: ChannelId) -> usize {
        let ids: Vec<NodeId> = (0..self.nodes.len()).map(|index| NodeId(name(index))).collect();
        let number = |index: usize| NodeNumber(u32::try_from(index + 1).expect("few"));
        let ring = Ring::new(1, ids.iter().enumerate().map(|(index, id)| (id, number(index), 100 * WORKERS)));
        let owner = ring.owner(channel).expect("somebody does");
        usize::try_from(owner.0 - 1).expect("few")
    }
}

/// For requests.
pub fn http() -> reqwest::Client {
    // An error says that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
}

fn name(index: usize) -> String {
    format!("node-{index}")
}

/// Lets somebody speak until everyone hears it: the nodes then know where the channel's members are. The number of the
/// next frame.
pub async fn until_heard(speaker: &Person, listeners: &mut [&mut Person]) -> u32 {
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
