//! What is decided while a node can hear of it neither by Redis nor, when that is back, from the database.

use std::time::Duration;

use antiphon_loadtest::rest::Rest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    chatters::{Chatter, PATIENCE, call, channel, register},
    nodes::Nodes,
};

/// What a node has counted so far.
async fn counted(cluster: &Nodes, index: usize, metric: &str) -> u64 {
    let rest = Rest::new(cluster.nodes[index].url()).expect("a client");
    let metrics = rest.metrics().await.expect("figures");
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0, |count| count.trim().parse().expect("a count"))
}

/// Waits for something that only asking again shows.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A node that was cut off from everything gets Redis back first: what the database alone can tell it must not wait for the next
/// time that Redis was away.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_unheard_holds_once_the_database_answers() {
    let cluster = Nodes::start(2).await;
    let nodes: Vec<String> =
        cluster.nodes.iter().map(|node| node.url().http("").as_str().trim_end_matches('/').to_owned()).collect();
    let admin = register(&nodes[0], "admin").await;
    let lobby = channel(&nodes[0], &admin, "lobby", json!({})).await;
    let (mut off, mut banned) = (Chatter::guest(&nodes[1], "off").await, Chatter::guest(&nodes[1], "banned").await);
    banned.join("lobby").await;
    let join = json!({"type": "JoinChannel", "channel_id": lobby, "media": "websocket"});
    assert_eq!(off.ask(join).await["type"], "ChannelJoined");
    let moderate = async |method: Method, path: &str, body: Value| {
        assert_eq!(call(method, &format!("{}/api/{path}", nodes[0]), &admin, body).await.0, 200, "{path}");
    };

    cluster.cut_from_redis(1, true);
    until("it notices", async || cluster.health(1).await["checks"]["cluster"]["status"] == "unavailable").await;
    moderate(Method::PUT, &format!("users/{}", off.id()), json!({"is_active": false})).await;
    let ban = json!({"user_id": banned.id(), "reason": "spam"});
    moderate(Method::POST, &format!("channels/{lobby}/ban"), ban).await;
    cluster.database.set_away(true).await;
    cluster.cut_from_redis(1, false);
    for metric in ["antiphon_gateway_account_looks_failed_total", "antiphon_rooms_stored_unread_total"] {
        until(metric, async || counted(&cluster, 1, metric).await > 0).await;
    }
    for chatter in [&mut off, &mut banned] {
        let heard = chatter.heard_meanwhile().await;
        assert!(heard.iter().all(|message| message["type"] != "Removed"), "nobody knows yet: {heard:?}");
    }

    cluster.database.set_away(false).await;
    let removed = banned.next("Removed").await;
    assert_eq!((&removed["channel_id"], &removed["reason"]), (&json!(lobby), &json!("banned")));
    while off.received().await.is_some() {}
    cluster.views_become(lobby.parse().expect("an id"), 0).await;
}
