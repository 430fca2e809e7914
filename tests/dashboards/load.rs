//! Something of everything: people who talk, by UDP and not, who come and go and come back, and requests.

use std::time::Duration;

use antiphon_core::{
    gateway::{Encoding, JoinChannel, MediaMode, MediaTransport},
    ids::ChannelId,
};
use antiphon_loadtest::{
    ServerUrl,
    client::Client,
    gateway::{GatewayConfig, Identity},
    rest::Rest,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    chatters::{Chatter, call, register},
    network::TcpWay,
    nodes::http,
    people::{Person, how_to_join, make_channel},
    process::Process,
    talkers::Talker,
};

/// It goes on until it is dropped.
pub(crate) struct Load {
    _talkers: Vec<Talker>,
    /// Somebody who hears a mix.
    _listener: Client,
    tasks: JoinSet<()>,
}

impl Load {
    /// On all of these nodes, in one channel. Somebody has come back to their session when this returns.
    pub(crate) async fn begin(nodes: &[&Process]) -> Self {
        let channel = make_channel(nodes[0], "lobby", 30).await;
        let mut talkers = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            for seat in ["left", "right"] {
                talkers.push(Talker::begin(Person::join(node, &format!("{seat}-{index}"), channel).await));
            }
        }
        talkers.push(without_udp(nodes[0], channel).await);
        talkers.push(come_back(nodes[0], channel).await);
        let listener = with_a_mix(nodes[0], channel).await;
        record(&nodes[0].url(), channel).await;
        subscribe(&nodes[0].url()).await;
        let mut tasks = JoinSet::new();
        for (index, node) in nodes.iter().enumerate() {
            tasks.spawn(ask(node.url()));
            tasks.spawn(come_and_go(node.url(), index, channel));
            tasks.spawn(write(node.url(), index));
        }
        Self { _talkers: talkers, _listener: listener, tasks }
    }

    /// Ends it. All of it has gone on until now.
    pub(crate) fn end(mut self) {
        let ended = self.tasks.try_join_next();
        assert!(ended.is_none(), "{ended:?}");
    }
}

/// Somebody who speaks and hears by WebSocket.
async fn without_udp(node: &Process, channel: ChannelId) -> Talker {
    let identity = Identity::Guest("without-udp".to_owned());
    let config = GatewayConfig { server: node.url(), others: Vec::new(), encoding: Encoding::MessagePack, identity };
    let (client, events) = Client::connect(config).await.expect("connected");
    let join = JoinChannel { media: MediaTransport::Websocket, cipher: None, ..how_to_join(channel) };
    let joined = client.join(join).await.expect("joined");
    Talker::begin(Person { client, events, joined })
}

/// Somebody who hears a mix of all the others.
async fn with_a_mix(node: &Process, channel: ChannelId) -> Client {
    let identity = Identity::Guest("with-a-mix".to_owned());
    let config = GatewayConfig { server: node.url(), others: Vec::new(), encoding: Encoding::MessagePack, identity };
    let (client, _) = Client::connect(config).await.expect("connected");
    client.join(JoinChannel { mode: MediaMode::Mixed, ..how_to_join(channel) }).await.expect("joined");
    client
}

/// Somebody who joins, loses the connection and resumes.
async fn come_back(node: &Process, channel: ChannelId) -> Talker {
    let way = TcpWay::open(node.url().http("/").port().expect("a port")).await.expect("a way");
    let url: ServerUrl = format!("http://{}", way.address()).parse().expect("a URL");
    let talker = Talker::begin(Person::join_at(url, vec![node.url()], "comes-back", channel).await);
    drop(way);
    talker.until("resumes", |notes| notes.resumed > 0).await;
    talker
}

/// Requests that go well and some that do not.
async fn ask(node: ServerUrl) {
    let rest = Rest::new(node.clone()).expect("a client");
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        for path in ["/api/channels", "/nothing", "/stream/none.mp3"] {
            http().get(node.http(path)).send().await.expect("answered");
        }
        rest.login("nobody-of-this-name", "a wrong password").await.expect_err("refused");
    }
}

/// Somebody who is told by push, of a service that nobody reaches.
async fn subscribe(node: &ServerUrl) {
    let url = node.http("").to_string();
    let url = url.trim_end_matches('/');
    let told = register(url, "told").await;
    // The key and secret of RFC 8291's example.
    let keys = json!({
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    });
    let subscription = json!({"endpoint": "https://localhost:9/", "keys": keys});
    let push = format!("{url}/api/v1/users/me/notifications/push");
    let (status, answer) = call(reqwest::Method::POST, &push, &told, subscription).await;
    assert_eq!(status, 201, "{answer}");
}

/// The channel's owner records it.
async fn record(node: &ServerUrl, channel: ChannelId) {
    let rest = Rest::new(node.clone()).expect("a client");
    let owner = rest.login("owner-of-lobby", "a long enough password").await.expect("an account");
    let begin = http().post(node.http(&format!("/api/channels/{channel}/recordings"))).bearer_auth(&owner.access_token);
    let begun = begin.json(&json!({})).send().await.expect("answered");
    assert_eq!(begun.status(), 201, "{begun:?}");
}

/// Somebody who writes.
async fn write(node: ServerUrl, index: usize) {
    let url = node.http("").to_string();
    let mut chatter = Chatter::guest(url.trim_end_matches('/'), &format!("writer-{index}")).await;
    chatter.join("lobby").await;
    loop {
        chatter.say("lobby", "hello @told").await;
        chatter.passed_over.clear();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Somebody who joins and leaves again and again.
async fn come_and_go(node: ServerUrl, index: usize, channel: ChannelId) {
    for visit in 0.. {
        let name = format!("visitor-{index}-{visit}");
        let person = Person::join_at(node.clone(), Vec::new(), &name, channel).await;
        person.client.leave(channel).await.expect("left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
