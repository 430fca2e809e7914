//! Chat across three nodes: everyone gets every message once and in order, whatever dies meanwhile, and nothing that was
//! acknowledged is lost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use antiphon::store::Store;
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::support::{
    chatters::{Chatter, call, channel, is_seen_between, register, seen_after_coming},
    nodes::Nodes,
};

/// What a reader got, in order: number and text.
type Got = Vec<(u64, String)>;

/// A message with its number, if that is what it is.
fn message_of(value: &Value) -> Option<(u64, String)> {
    let data = &value["data"];
    (value["type"] == "message").then_some(())?;
    Some((data["id"].as_u64()?, data["content"].as_str()?.to_owned()))
}

/// Somebody who writes until told to stop: each message again and again until it is acknowledged, through whatever node
/// lives.
struct Writer {
    chatter: Chatter,
    nodes: Vec<String>,
    room: String,
    /// The texts that were acknowledged, with their numbers.
    acknowledged: BTreeMap<u64, String>,
    refusals: HashMap<String, u32>,
}

impl Writer {
    async fn join(nodes: Vec<String>, name: &str, room: &str) -> Self {
        let mut chatter = Chatter::guest(&nodes[0], name).await;
        chatter.join(room).await;
        Self { chatter, nodes, room: room.to_owned(), acknowledged: BTreeMap::new(), refusals: HashMap::new() }
    }

    async fn write(&mut self, text: &str) {
        let mut message =
            json!({"type": "message", "room": self.room, "content": text, "nonce": format!("nonce of {text}")});
        loop {
            let Some(answer) = self.chatter.try_ask(&mut message).await else {
                self.chatter = self.anew().await;
                continue;
            };
            if let Some((number, content)) = message_of(&answer) {
                assert_eq!(content, text);
                self.acknowledged.insert(number, content);
                return;
            }
            let code = answer["data"]["error_code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
            *self.refusals.entry(code).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A connection to the next node that takes one.
    async fn anew(&self) -> Chatter {
        for node in self.nodes.iter().cycle().skip(1).take(60) {
            let connecting = tokio::spawn({
                let (node, token, room) = (node.clone(), self.chatter.token.clone(), self.room.clone());
                async move {
                    let mut chatter = Chatter::with_token(&node, &token).await;
                    chatter.join(&room).await;
                    chatter
                }
            });
            match connecting.await {
                Ok(chatter) => return chatter,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        panic!("no node takes {}", self.chatter.id());
    }

    fn spawn(mut self, name: &'static str, stop: Arc<AtomicBool>) -> JoinHandle<Self> {
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                self.write(&format!("{name} {number}")).await;
                number += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self
        })
    }
}

/// Reads until the text that ends it; a connection that is lost is taken up at the next node.
async fn read_all(mut reader: Chatter, nodes: Vec<String>, last: &'static str) -> Got {
    let mut got = Got::new();
    loop {
        let value = match reader.passed_over.pop_front() {
            Some(value) => value,
            None => match reader.received().await {
                Some(value) => value,
                None => {
                    resume_somewhere(&mut reader, &nodes).await;
                    continue;
                }
            },
        };
        if let Some((number, text)) = message_of(&value) {
            let is_last = text == last;
            got.push((number, text));
            if is_last {
                return got;
            }
        }
    }
}

async fn resume_somewhere(reader: &mut Chatter, nodes: &[String]) {
    for node in nodes.iter().cycle().take(60) {
        let resumed = reader.try_resume(node).await;
        let Some(resumed) = resumed.filter(|resumed| resumed["type"] == "Resumed") else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        for room in resumed["rooms"].as_array().into_iter().flatten() {
            assert_eq!(room["recovered"], true, "{resumed}");
        }
        return;
    }
    panic!("no node takes {} up", reader.id());
}

fn urls(cluster: &Nodes) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.url().http("").to_string().trim_end_matches('/').to_owned()).collect()
}

/// From one node on.
fn rotated(urls: &[String], by: usize) -> Vec<String> {
    urls.iter().cycle().skip(by).take(urls.len()).cloned().collect()
}

fn check(readers: &[Got], acknowledged: &BTreeMap<u64, String>) {
    for (index, got) in readers.iter().enumerate() {
        if let Some(at) = got.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            let around = &got[at.saturating_sub(3)..got.len().min(at + 5)];
            panic!("reader {index}: not in order, or not once: {around:?}");
        }
    }
    let first: BTreeMap<u64, String> = readers[0].iter().cloned().collect();
    for (number, text) in acknowledged {
        assert_eq!(first.get(number), Some(text), "what was acknowledged was told");
    }
    let mut texts: Vec<&String> = first.values().collect();
    texts.sort_unstable();
    let count = texts.len();
    texts.dedup();
    assert_eq!(texts.len(), count, "nothing is stored twice");
    for got in readers {
        assert!(got == &readers[0], "all got the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_whatever_dies() {
    let mut cluster = Nodes::start(3).await;
    let nodes = urls(&cluster);
    let owner = register(&nodes[0], "owner").await;
    channel(&nodes[0], &owner, "lobby", json!({})).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for (index, at) in [0, 1, 1, 2].into_iter().enumerate() {
        let mut reader = Chatter::guest(&nodes[at], &format!("reader{index}")).await;
        reader.join("lobby").await;
        readers.push(tokio::spawn(read_all(reader, rotated(&nodes, at + 1), "the end")));
    }
    let mut writers = Vec::new();
    for (at, name) in ["one", "two", "three"].into_iter().enumerate() {
        let writer = Writer::join(rotated(&nodes, at), &format!("writer-{name}"), "lobby").await;
        writers.push(writer.spawn(name, Arc::clone(&stop)));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.nodes[2].kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.redis.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.redis.start_again(true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.database.set_away(true).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.database.set_away(false).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut refusals) = (BTreeMap::new(), HashMap::new());
    let mut last = None;
    for writer in writers {
        let writer = writer.await.expect("no panic");
        acknowledged.extend(writer.acknowledged.clone());
        for (code, count) in &writer.refusals {
            *refusals.entry(code.clone()).or_insert(0) += count;
        }
        last = Some(writer);
    }
    let mut last = last.expect("a writer");
    last.write("the end").await;
    acknowledged.extend(last.acknowledged.clone());
    let mut got = Vec::new();
    for reader in readers {
        got.push(reader.await.expect("no panic"));
    }
    println!("{} messages acknowledged, {} refused: {refusals:?}", acknowledged.len(), refusals.values().sum::<u32>());
    check(&got, &acknowledged);
    assert!(refusals.contains_key("TEMPORARILY_UNAVAILABLE"), "what could not be stored was refused: {refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_on_two_nodes_hear_each_other_in_order() {
    let cluster = Nodes::start(2).await;
    let nodes = urls(&cluster);
    let mut alice = Chatter::guest(&nodes[0], "alice").await;
    let mut bob = Chatter::guest(&nodes[1], "bob").await;
    let mut bobs_phone = Chatter::with_token(&nodes[0], &bob.token).await;
    for number in 0..20 {
        alice.dm("bob", &format!("from alice {number}")).await;
        bob.dm("alice", &format!("from bob {number}")).await;
    }
    // Each session hears what it did not say itself: the phone all of it, the other what alice said.
    for (session, count) in [(&mut bobs_phone, 40), (&mut bob, 20), (&mut alice, 20)] {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(session.next("dm").await["data"]["id"].as_u64().expect("an id"));
        }
        assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    }
    let history = alice.ask(json!({"type": "dm_history", "with": "bob", "limit": 200})).await;
    let ids: Vec<u64> = history["data"].as_array().into_iter().flatten().filter_map(|dm| dm["id"].as_u64()).collect();
    assert!(ids.len() == 40 && ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    alice.ask(json!({"type": "typing", "to": "bob"})).await;
    assert_eq!(bob.next("typing").await["data"]["username"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_at_another_node_is_there_until_it_dies() {
    let mut cluster = Nodes::start(2).await;
    let nodes = urls(&cluster);
    let owner = register(&nodes[0], "owner").await;
    let lobby = channel(&nodes[0], &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(&nodes[0], "alice").await;
    let mut bob = Chatter::guest(&nodes[1], "bob").await;
    let mut seen = alice.ask(json!({"type": "presence", "users": [bob.id()]})).await["data"][0].clone();
    while seen["online"] == false {
        seen = alice.next("presence").await["data"][0].clone();
    }
    bob.join("lobby").await;
    while seen["channels"][0]["channel_id"] != lobby {
        seen = alice.next("presence").await["data"][0].clone();
    }
    let store = Store::open(&cluster.database.url).await.expect("opens");
    let alive = seen_after_coming(&store, &bob).await;
    cluster.nodes[1].kill();
    let killed = OffsetDateTime::now_utc();
    while seen["online"] == true {
        seen = alice.next("presence").await["data"][0].clone();
    }
    assert!(is_seen_between(&seen, alive, killed), "{seen}: alive at {alive}, killed at {killed}");
    store.close().await;
}

/// Somebody at one node who reads in a room without voice, and their moderator at another.
struct Bench {
    cluster: Nodes,
    nodes: Vec<String>,
    owner: Chatter,
    eve: Chatter,
}

impl Bench {
    async fn start() -> Self {
        let cluster = Nodes::start(2).await;
        let nodes = urls(&cluster);
        let token = register(&nodes[0], "owner").await;
        let owner = Chatter::with_token(&nodes[0], &token).await;
        let eve = Chatter::guest(&nodes[1], "eve").await;
        Self { cluster, nodes, owner, eve }
    }

    /// Eve joins a new room, and the moderator's node knows that she is there; its id.
    async fn room(&mut self, name: &str) -> String {
        let id = channel(&self.nodes[0], &self.owner.token, name, json!({})).await;
        self.owner.join(name).await;
        self.eve_joins(name, &id).await;
        id
    }

    async fn eve_joins(&mut self, name: &str, id: &str) {
        self.eve.join(name).await;
        let asked = json!({"type": "presence", "users": [self.eve.id()]});
        let mut seen = self.owner.ask(asked).await["data"][0].clone();
        while !seen["channels"].to_string().contains(id) {
            seen = self.owner.next("presence").await["data"][0].clone();
        }
    }

    /// Asks the moderator's node for something about a channel; the status.
    async fn moderate(&self, method: Method, path: &str, body: Value) -> u16 {
        call(method, &format!("{}/api/channels/{path}", self.nodes[0]), &self.owner.token, body).await.0
    }

    /// What Eve is told who is put out, and that nothing of the room comes behind it.
    async fn put_out(&mut self, room: &str) -> Value {
        let removed = self.eve.next("Removed").await;
        if self.owner.ask(json!({"type": "message", "room": room, "content": "@eve"})).await["type"] == "message" {
            // Whatever comes to her node comes behind that.
            let id = self.owner.id().to_owned();
            self.owner.dm("eve", "look").await;
            assert_eq!(self.eve.next("dm").await["data"]["fromUser"], id);
        }
        let further = self.eve.heard_meanwhile().await;
        let of_rooms = ["Removed", "message", "typing"];
        assert!(further.iter().all(|message| !of_rooms.iter().any(|kind| message["type"] == *kind)), "{further:?}");
        json!([removed["channel_id"], removed["reason"], removed["by"], removed["message"]])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_at_another_node_is_put_out_all_the_same() {
    let mut bench = Bench::start().await;
    let (owner, eve) = (bench.owner.id().to_owned(), bench.eve.id().to_owned());
    let lobby = bench.room("lobby").await;
    let kick = json!({"user_id": eve, "reason": "enough"});
    assert_eq!(bench.moderate(Method::POST, &format!("{lobby}/kick"), kick).await, 200);
    assert_eq!(bench.put_out("lobby").await, json!([lobby, "kicked", owner, "enough"]));
    bench.eve_joins("lobby", &lobby).await;
    let ban = json!({"user_id": eve, "reason": "spam", "duration_s": 3_600});
    assert_eq!(bench.moderate(Method::POST, &format!("{lobby}/ban"), ban).await, 200);
    assert_eq!(bench.put_out("lobby").await, json!([lobby, "banned", owner, "spam"]));
    let mut elsewhere = Chatter::with_token(&bench.nodes[0], &bench.eve.token).await;
    for refused in [&mut bench.eve, &mut elsewhere] {
        for way in [
            json!({"type": "join", "room": "lobby"}),
            json!({"type": "message", "room": "lobby", "content": "x"}),
            json!({"type": "room_history", "room": "lobby"}),
            json!({"type": "search", "query": "eve", "room": "lobby"}),
        ] {
            assert_eq!(refused.refused(way.clone()).await, "PERMISSION_DENIED", "{way}");
        }
    }
    let square = bench.room("square").await;
    assert_eq!(bench.moderate(Method::PUT, &square, json!({"is_private": true})).await, 200);
    assert_eq!(bench.put_out("square").await, json!([square, "kicked", null, null]));
    let hall = bench.room("hall").await;
    assert_eq!(bench.moderate(Method::DELETE, &hall, Value::Null).await, 200);
    assert_eq!(bench.put_out("hall").await, json!([hall, "kicked", null, "the channel was deleted"]));
    drop(bench.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_begins_when_one_came_at_another_node_too() {
    let mut bench = Bench::start().await;
    let lobby = channel(&bench.nodes[0], &bench.owner.token, "lobby", json!({})).await;
    let terms = json!({"history": "members"});
    assert_eq!(bench.moderate(Method::PUT, &format!("{lobby}/chat"), terms).await, 200);
    bench.owner.join("lobby").await;
    bench.owner.say("lobby", "the secret word").await;
    bench.eve.join("lobby").await;
    bench.eve.lose().await;
    bench.owner.say("lobby", "and while away").await;
    let from_the_beginning = json!({"epoch": bench.eve.positions[&lobby]["epoch"], "offset": 0});
    bench.eve.positions.insert(lobby.clone(), from_the_beginning);
    let resumed = bench.eve.resume(&bench.nodes[0]).await;
    let missed = resumed["rooms"][0]["events"].to_string();
    assert!(missed.contains("and while away") && !missed.contains("secret"), "{resumed}");
    drop(bench.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_while_away_comes_back_to_nothing_of_the_room() {
    let mut bench = Bench::start().await;
    let eve = bench.eve.id().to_owned();
    let lobby = bench.room("lobby").await;
    bench.eve.lose().await;
    assert_eq!(bench.moderate(Method::POST, &format!("{lobby}/ban"), json!({"user_id": eve})).await, 200);
    bench.owner.say("lobby", "she is away").await;
    let resumed = bench.eve.resume(&bench.nodes[0]).await;
    assert_eq!((&resumed["type"], &resumed["rooms"]), (&json!("Resumed"), &Value::Null), "{resumed}");
    let further = bench.eve.heard_meanwhile().await;
    assert!(further.iter().all(|message| message["type"] != "message"), "{further:?}");
    drop(bench.cluster);
}
