//! Administrators who watch are told who listens as it happens, through whatever node, by a real connection.

use std::time::Duration;

use antiphon::store::Store;
use antiphon_core::{gateway::Role, ids::UserId};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{
    Streaming,
    client::{Client, PASSWORD, eventually},
    pattern,
    support::{databases::TestDatabase, nodes::Nodes, people::PATIENCE, process::Scratch},
};

/// Somebody's connection to the gateway.
struct Watcher {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What was told last of how many listen: it is told when it changes.
    stats: Value,
}

impl Watcher {
    async fn connect(account: &Client) -> Self {
        let base = account.base().replacen("http", "ws", 1);
        let (socket, _) = connect_async(format!("{base}/ws?token={}", account.token())).await.expect("connects");
        let mut watcher = Self { socket, stats: Value::Null };
        watcher.until(|message| message["type"] == "Authenticated").await;
        watcher
    }

    /// Who watches from here on: whatever happens after what is yielded is told.
    async fn watching(account: &Client) -> Self {
        let mut watcher = Self::connect(account).await;
        let answer = watcher.ask(json!({"type": "WatchListening", "watch": true})).await;
        assert_eq!(answer["type"], "Ack", "{answer}");
        watcher.until_stats(Value::is_object).await;
        watcher
    }

    async fn send(&mut self, message: Value) {
        self.socket.send(Message::Text(message.to_string().into())).await.expect("sent");
    }

    /// Sends a request and yields its answer.
    async fn ask(&mut self, mut message: Value) -> Value {
        message["request_id"] = json!("asked");
        self.send(message).await;
        self.until(|message| message["request_id"] == "asked").await
    }

    async fn next(&mut self) -> Value {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("in time");
            if let Message::Text(text) = next.expect("it goes on").expect("readable") {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if message["type"] == "ListeningStats" {
                    self.stats = message.clone();
                }
                return message;
            }
        }
    }

    /// The first message that is as wanted.
    async fn until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if is_wanted(&message) {
                return message;
            }
        }
    }

    /// Waits until what was told last of how many listen is as wanted.
    async fn until_stats(&mut self, is_wanted: impl Fn(&Value) -> bool) {
        while !is_wanted(&self.stats) {
            self.next().await;
        }
    }

    /// Waits until so many are said to listen, to files and to channels.
    async fn until_listeners(&mut self, files: u64, channels: u64) {
        self.until_stats(|stats| stats["listeners"] == files && stats["channel_listeners"] == channels).await;
    }
}

async fn fetch(client: &Client, url: &str, program: &str) {
    let request = client.request(Method::GET, url).header("user-agent", program).header("range", "bytes=0-24999");
    assert_eq!(client.send(request).await.status.as_u16(), 206);
}

fn with_short_sessions(settings: &mut antiphon::settings::Settings) {
    settings.streaming.listen_idle_s = 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_of_each_session_and_of_every_change_of_the_number() {
    let streaming = Streaming::start(with_short_sessions).await;
    let root = streaming.nobody.register("root").await;
    streaming.put("a.mp3", &pattern(100_000));
    let link = streaming.link("a.mp3").await;
    let mut watcher = Watcher::watching(&root).await;
    let none = json!({"type": "ListeningStats", "listeners": 0, "channel_listeners": 0, "nodes": 1, "missed": 0});
    assert_eq!(watcher.stats, none);

    fetch(&streaming.nobody, &link, "player").await;
    let begun = watcher.until(|message| message["type"] == "ListeningBegun").await;
    assert_eq!((&begun["path"], &begun["quality"]), (&json!("a.mp3"), &json!("original")));
    let ended = watcher.until(|message| message["type"] == "ListeningEnded").await;
    for same in ["listening_id", "path", "quality", "network", "began_at"] {
        assert!(ended[same].is_string() && ended[same] == begun[same], "{same}: {begun} {ended}");
    }
    assert_eq!((&ended["sent_bytes"], &ended["heard"]), (&json!(25_000), &json!(0.25)));
    assert!(ended["ended_at"].as_str() >= ended["began_at"].as_str(), "{ended}");
    assert!(!format!("{begun}{ended}").contains("127.0.0"), "nobody's address");
    // What was told is what is stored.
    let stored = eventually(&root, "/admin/stats?path=a.mp3", |data| data["sessions"][0].is_object()).await;
    assert_eq!(
        (&stored["sessions"][0]["began_at"], &stored["sessions"][0]["ended_at"], &stored["sessions"][0]["network"]),
        (&ended["began_at"], &ended["ended_at"], &ended["network"])
    );
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_follows_listeners_of_files_and_of_channels() {
    // Longer than a busy machine takes to notice that the channel's listener has gone, who goes first.
    let streaming = Streaming::start(|settings| settings.streaming.listen_idle_s = 8).await;
    let root = streaming.nobody.register("root").await;
    streaming.put("a.mp3", &pattern(100_000));
    let link = streaming.link("a.mp3").await;
    let channel = root.channel("stage", false).await;
    let listen = root.post(&format!("/api/channels/{channel}/listen"), json!({"ttl_s": 60})).await.expect(200);
    let listen = listen["data"]["url"].as_str().expect("a link").to_owned();
    let mut watcher = Watcher::watching(&root).await;

    let request = streaming.nobody.request(Method::GET, &listen);
    let mut hearing = request.send().await.expect("answered");
    assert!(hearing.chunk().await.expect("goes on").is_some());
    watcher.until_listeners(0, 1).await;
    let live = root.get("/admin/stats").await.expect(200)["data"].clone();
    assert_eq!(live["live_channel_listeners"], 1, "{live}");
    assert_eq!(live["live_channels"], json!([{"channel_id": channel, "listeners": 1}]));
    assert_eq!(live["everywhere"], json!({"nodes": 1, "listeners": 0, "channel_listeners": 1}));
    fetch(&streaming.nobody, &link, "player").await;
    watcher.until_listeners(1, 1).await;
    drop(hearing);
    watcher.until_listeners(1, 0).await;
    watcher.until_listeners(0, 0).await;
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_watch_and_only_while_they_want_to() {
    let streaming = Streaming::start(with_short_sessions).await;
    let root = streaming.nobody.register("root").await;
    streaming.put("a.mp3", &pattern(100_000));
    let link = streaming.link("a.mp3").await;
    let watch = |watch: bool| json!({"type": "WatchListening", "watch": watch});
    let mut anna = Watcher::connect(&streaming.anna).await;
    let refused = anna.ask(watch(true)).await;
    assert_eq!((&refused["type"], &refused["error_code"]), (&json!("Error"), &json!("PERMISSION_DENIED")));

    let (mut done, mut going_on) = (Watcher::watching(&root).await, Watcher::watching(&root).await);
    assert_eq!(done.ask(watch(false)).await["type"], "Ack");
    fetch(&streaming.nobody, &link, "player").await;
    going_on.until(|message| message["type"] == "ListeningBegun").await;
    // Both are told in one go: what the other had been told would come before this answer.
    for watcher in [&mut done, &mut anna] {
        watcher.send(json!({"type": "Heartbeat"})).await;
        assert_eq!(watcher.next().await["type"], "HeartbeatAck");
    }
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_administrator_any_more_is_told_nothing_more() {
    let database = TestDatabase::sqlite();
    let url = database.url();
    let streaming = Streaming::start(|settings| settings.database.url = Some(url.parse().expect("a URL"))).await;
    let (root, other) = (streaming.nobody.register("root").await, streaming.nobody.register("other").await);
    streaming.put("a.mp3", &pattern(100_000));
    let link = streaming.link("a.mp3").await;
    let store = Store::open(&url).await.expect("opens");
    let id = UserId(other.id().parse().expect("an id"));
    assert!(store.set_role(id, Role::Admin).await.expect("written"));
    // A token says what its account was when it was made.
    let credentials = json!({"username": "other", "password": PASSWORD});
    let answer = streaming.nobody.post("/api/auth/login", credentials).await.expect(200);
    let other = streaming.nobody.with_token(answer["access_token"].as_str());
    let (mut going_on, mut demoted) = (Watcher::watching(&root).await, Watcher::watching(&other).await);
    assert!(store.set_role(id, Role::User).await.expect("written"));
    let told_nothing = async {
        for player in 0.. {
            fetch(&streaming.nobody, &link, &format!("player {player}")).await;
            going_on.until(|message| message["type"] == "ListeningBegun").await;
            // What is told is told both in one go.
            demoted.send(json!({"type": "Heartbeat"})).await;
            let mut told = 0;
            while demoted.next().await["type"] != "HeartbeatAck" {
                told += 1;
            }
            if told == 0 {
                return;
            }
        }
    };
    timeout(PATIENCE, told_nothing).await.expect("it ends soon");
    let again = demoted.ask(json!({"type": "WatchListening", "watch": true})).await;
    assert_eq!(again["error_code"], "PERMISSION_DENIED");
    store.close().await;
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_at_one_node_is_told_of_all() {
    let folder = Scratch::new();
    std::fs::write(folder.path().join("a.mp3"), pattern(100_000)).expect("writes");
    let audio_dir = folder.path().to_str().expect("text");
    let settings = [("ANTIPHON_STREAMING__AUDIO_DIR", audio_dir), ("ANTIPHON_STREAMING__LISTEN_IDLE_S", "2")];
    let mut cluster = Nodes::start_with(2, &settings).await;
    let [here, there] = [0, 1]
        .map(|node: usize| Client::new(cluster.nodes[node].url().http("").as_str().trim_end_matches('/').to_owned()));
    let root = here.register("root").await;
    let signed = root.post("/api/streams/sign", json!({"path": "a.mp3", "ttl_s": 600})).await.expect(200);
    let link = signed["data"]["url"].as_str().expect("a link").to_owned();
    let mut watcher = Watcher::watching(&root).await;

    // The other node tells from when it knows that somebody watches, a second or two later.
    let mut players = 0;
    let begun = loop {
        players += 1;
        fetch(&there, &link, &format!("player {players}")).await;
        let told = watcher.until(|message| message["type"] == "ListeningBegun");
        if let Ok(begun) = timeout(Duration::from_millis(500), told).await {
            break begun;
        }
        assert!(players < 60, "the other node tells nothing");
    };
    assert_eq!(begun["path"], "a.mp3");
    watcher.until_stats(|stats| stats["nodes"] == 2 && stats["listeners"] != 0).await;
    eventually(&root, "/admin/stats", |data| {
        data["everywhere"]["nodes"] == 2 && data["everywhere"]["listeners"] != 0 && data["live_listeners"] == 0
    })
    .await;
    let is_its_end =
        |message: &Value| message["type"] == "ListeningEnded" && message["listening_id"] == begun["listening_id"];
    assert_eq!(watcher.until(is_its_end).await["sent_bytes"], 25_000);
    watcher.until_listeners(0, 0).await;
    cluster.nodes[1].kill();
    watcher.until_stats(|stats| stats["nodes"] == 1).await;
}
