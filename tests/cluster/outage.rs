//! Redis is away for a minute: people go on talking, and what cannot be done says so.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use antiphon_core::ids::ChannelId;
use antiphon_loadtest::{ServerUrl, client::Client, gateway::GatewayConfig};
use tokio::task::JoinHandle;

use crate::support::{
    nodes::{Nodes, http},
    people::{how_to_join, make_channel},
    talkers::{Talker, all_hear_each_other, all_see_each_other},
};

/// How long Redis is away: a minute, or as many seconds as `ANTIPHON_OUTAGE_S` says. Leases run out after five.
fn outage() -> Duration {
    let asked = std::env::var("ANTIPHON_OUTAGE_S").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(60))
}

/// Asks a node for its health all the time; every answer that was not 200.
fn probe(node: ServerUrl) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            for path in ["/health/live", "/health/ready"] {
                let answer = http().get(node.http(path)).send().await.expect("it answers");
                assert_eq!(answer.status(), 200, "{path}");
            }
        }
    })
}

/// What a guest hears who tries to join; they leave at once.
async fn refusal(node: ServerUrl, name: &str, channel: ChannelId) -> Option<String> {
    let identity = antiphon_loadtest::gateway::Identity::Guest(name.to_owned());
    let encoding = antiphon_core::gateway::Encoding::Json;
    let config = GatewayConfig { server: node, others: Vec::new(), encoding, identity };
    let (client, _events) = Client::connect(config).await.expect("connected");
    let refused = client.join(how_to_join(channel)).await.err();
    client.close().await;
    refused.map(|refused| refused.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_redis_costs_not_one_frame() {
    tokio::join!(a_minute_without_redis(true), a_minute_without_redis(false));
}

/// It comes back with its data or without.
async fn a_minute_without_redis(keeps_data: bool) {
    let mut cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 20).await;
    let empty = make_channel(&cluster.nodes[0], "empty", 20).await;
    let one = Talker::join(&cluster.nodes[0], "one", channel).await;
    let two = Talker::join(&cluster.nodes[1], "two", channel).await;
    all_hear_each_other(&[&one, &two]).await;
    // Voice does not wait for the word that somebody came: what comes of it later is the outage's.
    all_see_each_other(&[&one, &two]).await;
    let probes: Vec<_> = cluster.nodes.iter().map(|node| probe(node.url())).collect();
    let (from_one, from_two) = (one.next_number(), two.next_number());

    cluster.redis.kill();
    let killed = Instant::now();
    for index in 0..3 {
        until_away(&cluster, index).await;
    }
    // Where the channel has members, joining works; each node knows of its own.
    let here = Talker::join(&cluster.nodes[0], "here", channel).await;
    let there = Talker::join(&cluster.nodes[1], "there", channel).await;
    assert_eq!((here.members().len(), there.members().len()), (3, 3));
    for (node, channel) in [(2, channel), (0, empty)] {
        let refused = refusal(cluster.nodes[node].url(), &format!("refused-{node}"), channel).await;
        assert!(refused.as_ref().is_some_and(|refused| refused.contains("TEMPORARILY_UNAVAILABLE")), "{refused:?}");
    }
    tokio::time::sleep_until((killed + outage()).into()).await;
    for index in 0..3 {
        let health = cluster.health(index).await;
        assert_eq!(
            (&health["status"], &health["checks"]["cluster"]["status"]),
            (&"degraded".into(), &"unavailable".into())
        );
        let away = Duration::from_millis(health["checks"]["cluster"]["away_ms"].as_u64().expect("it is away"));
        assert!(away + Duration::from_secs(5) > outage(), "{away:?}");
    }
    cluster.redis.start_again(keeps_data);
    let back = Instant::now();
    let agree = cluster.views_become(channel, 4).await;
    all_see_each_other(&[&one, &two, &here, &there]).await;
    println!(
        "Redis, with its data {keeps_data}, was back after {:?}: all nodes agreed {agree:?} later, all people {:?}",
        killed.elapsed(),
        back.elapsed()
    );
    all_hear_each_other(&[&one, &two, &here, &there]).await;
    let three = Talker::join(&cluster.nodes[2], "three", channel).await;
    all_hear_each_other(&[&one, &two, &here, &there, &three]).await;

    let (numbers_of_one, numbers_of_two) = (from_one..one.next_number(), from_two..two.next_number());
    println!("{} and {} frames across two nodes meanwhile", numbers_of_one.len(), numbers_of_two.len());
    let nothing = Vec::<u32>::new();
    assert_eq!(
        (two.missed(&one, numbers_of_one).await, one.missed(&two, numbers_of_two).await),
        (nothing.clone(), nothing)
    );
    for (person, come) in [(&one, [&there, &three]), (&two, [&here, &three])] {
        let told: Vec<_> = come.iter().map(|other| person.told_of(other, killed)).collect();
        assert_eq!(told, vec![(1, vec![]); 2], "each came once");
    }
    assert_eq!((one.told_of(&two, killed), two.told_of(&one, killed)), ((0, vec![]), (0, vec![])));
    for (index, probe) in probes.into_iter().enumerate() {
        assert!(!probe.is_finished(), "node {index} was live and ready all the time");
        probe.abort();
        let health = cluster.health(index).await;
        assert!(health["uptime_s"].as_u64() >= Some(outage().as_secs()), "it is the process of before");
        assert_eq!(health["status"], "ok");
    }
    let names: HashSet<_> =
        [&one, &two].iter().map(|person| person.note(|notes| (notes.disconnected, notes.gone.clone()))).collect();
    assert_eq!(names, HashSet::from([(0, None)]), "nobody was disconnected");
}

async fn until_away(cluster: &Nodes, index: usize) {
    let wait = async {
        while cluster.health(index).await["checks"]["cluster"]["status"] != "unavailable" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::people::PATIENCE, wait).await.expect("it notices");
}
