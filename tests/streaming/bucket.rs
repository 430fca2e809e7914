//! A library in a bucket: a real S3 server that goes away, comes back, breaks off and is changed by others.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon::{
    settings::{Secret, Settings},
    streaming::{BucketConfig, FilePath, Link, Secrets, ask_bucket},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    Streaming,
    client::{Answer, Client},
    pattern,
    store::{ACCESS_KEY, BUCKET, BucketStore, SECRET_KEY},
    support::{nodes::Nodes, sounds::write_sound},
};

/// Longer than what an object is believed for, and all pauses.
const PATIENCE: Duration = Duration::from_secs(30);

/// What signs links: one that the server signs is of a file that it has looked at, and so has a copy of.
const LINK_SECRET: &str = "a secret of links, of 32 bytes and more";

fn of_store(store: &BucketStore) -> impl FnOnce(&mut Settings) {
    let url = store.url();
    move |settings| {
        let bucket = &mut settings.bucket;
        (bucket.endpoint, bucket.name) = (Some(url), Some(BUCKET.to_owned()));
        (bucket.access_key, bucket.secret_key) = (Some(Secret::new(ACCESS_KEY)), Some(Secret::new(SECRET_KEY)));
        bucket.prefix = "audio/".to_owned();
        bucket.timeout_s = 2;
        settings.streaming.secret = Some(Secret::new(LINK_SECRET));
    }
}

/// A link that the server has not heard of yet.
fn link_to(path: &str) -> String {
    link_to_quality(path, "")
}

fn link_to_quality(path: &str, quality: &str) -> String {
    let path = FilePath::new(path).expect("a path");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
    let expires = (now + 600).to_string();
    let sig = Secrets::new(LINK_SECRET.as_bytes(), None).sign(Link { path: &path, expires: &expires, quality });
    let quality = if quality.is_empty() { String::new() } else { format!("&quality={quality}") };
    format!("/stream/{}?expires={expires}&sig={sig}{quality}", path.to_url())
}

async fn send(client: &Client, method: Method, path: &str, bytes: &[u8]) -> Answer {
    client.send(client.request(method, &format!("/api/streams/{path}")).body(bytes.to_vec())).await
}

/// The file behind a link, or a range of it.
async fn read(client: &Client, link: &str, range: Option<String>) -> (StatusCode, String, Vec<u8>) {
    let request = client.request(Method::GET, link);
    let request = range.into_iter().fold(request, |request, range| request.header("range", range));
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let etag = headers.get("etag").map_or("", |etag| etag.to_str().expect("text")).to_owned();
    (status, etag, answer.bytes().await.expect("whole").to_vec())
}

async fn detailed(client: &Client) -> Value {
    client.get("/health/detailed").await.expect(200)["data"].clone()
}

/// Asks until it is as it should be.
async fn until(mut holds: impl AsyncFnMut() -> bool, what: &str) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn tone() -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("antiphon-tone-{}.mp3", uuid::Uuid::new_v4()));
    write_sound(&path, "libmp3lame");
    let bytes = std::fs::read(&path).expect("ours");
    std::fs::remove_file(&path).expect("ours");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_an_object_are_byte_for_byte_its_own() {
    let store = BucketStore::start().await;
    let streaming = Streaming::start(of_store(&store)).await;
    let whole = pattern(2_345_678);
    store.put("audio/a folder/ö %.mp3", &whole).await;
    let link = link_to("a folder/ö %.mp3");
    assert_eq!(read(&streaming.nobody, &link, None).await.2, whole);
    let mut runner = TestRunner::deterministic();
    for _ in 0..40 {
        let (from, length) = (0..whole.len(), 1..300_000_usize).new_tree(&mut runner).expect("a case").current();
        let until = (from + length).min(whole.len());
        let (status, _, bytes) = read(&streaming.nobody, &link, Some(format!("bytes={from}-{}", until - 1))).await;
        assert_eq!((status, bytes == whole[from..until]), (StatusCode::PARTIAL_CONTENT, true), "{from}-{until}");
    }
    let none = link_to("none.mp3");
    streaming.nobody.get(&none).await.expect_error(404, "NOT_FOUND");
    // What is beside the prefix is no part of the library.
    store.put("other.mp3", &whole).await;
    streaming.nobody.get(&link_to("other.mp3")).await.expect_error(404, "NOT_FOUND");
    let listed = streaming.anna.get("/api/streams").await.expect(200)["data"].clone();
    let paths: Vec<_> = listed.as_array().expect("files").iter().map(|file| file["path"].clone()).collect();
    assert_eq!(paths, ["a folder/ö %.mp3"]);
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_gone_on_with() {
    let store = BucketStore::start().await;
    let streaming = Streaming::start(of_store(&store)).await;
    let whole = pattern(6_000_000);
    store.put("audio/long.mp3", &whole).await;
    let link = link_to("long.mp3");
    store.break_off_after(2_500_000);
    let (status, _, bytes) = read(&streaming.nobody, &link, None).await;
    assert!(store.has_broken_off(), "it was read in one piece");
    assert_eq!((status, bytes == whole), (StatusCode::OK, true));
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_what_was_played_plays_and_all_else_says_when_to_come_back() {
    let mut store = BucketStore::start().await;
    let streaming = Streaming::start(of_store(&store)).await;
    let _root = streaming.nobody.register("root").await;
    let bela = streaming.nobody.register("bela").await;
    let (tone, whole) = (tone(), pattern(5_000_000));
    send(&bela, Method::POST, "bela.mp3", &tone).await.expect(201);
    assert_eq!(store.object("audio/bela.mp3").as_ref(), Some(&tone));
    for key in ["audio/played.mp3", "audio/unplayed.mp3"] {
        store.put(key, &whole).await;
    }
    let (played, unplayed) = (link_to("played.mp3"), link_to("unplayed.mp3"));
    // One is being played as the store goes.
    let mut playing = streaming.nobody.request(Method::GET, &played).send().await.expect("an answer");
    let mut heard = playing.chunk().await.expect("comes").expect("bytes").to_vec();
    assert_eq!(detailed(&streaming.nobody).await["checks"]["bucket"]["status"], "ok");
    store.stop().await;
    while let Some(bytes) = playing.chunk().await.expect("comes") {
        heard.extend_from_slice(&bytes);
    }
    assert_eq!(heard.len(), whole.len());
    assert!(heard == whole);
    let (status, _, bytes) = read(&streaming.nobody, &played, Some("bytes=100-199".to_owned())).await;
    assert!(status == StatusCode::PARTIAL_CONTENT && bytes == whole[100..200], "{status}");
    for refused in [
        streaming.nobody.get(&unplayed).await,
        send(&bela, Method::POST, "new.mp3", &tone).await,
        send(&bela, Method::DELETE, "bela.mp3", b"").await,
    ] {
        refused.expect_error(503, "TEMPORARILY_UNAVAILABLE");
        assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0), "{}", refused.text);
    }
    until(async || detailed(&streaming.nobody).await["checks"]["bucket"]["status"] == "unavailable", "it is seen")
        .await;
    assert_eq!(detailed(&streaming.nobody).await["status"], "degraded");
    streaming.nobody.get("/health/live").await.expect(200);
    streaming.nobody.get("/health/ready").await.expect(200);

    store.go_on();
    until(async || read(&streaming.nobody, &unplayed, None).await.2 == whole, "it plays again").await;
    until(async || detailed(&streaming.nobody).await["checks"]["bucket"]["status"] == "ok", "it is seen").await;
    // What could not be removed is still its owner's.
    let shown = bela.get("/api/streams/bela.mp3").await.expect(200);
    assert_eq!(shown["data"]["owner_id"], bela.user["id"]);
    send(&bela, Method::POST, "new.mp3", &tone).await.expect(201);
    assert_eq!(send(&bela, Method::DELETE, "bela.mp3", b"").await.status, 204);
    assert_eq!(store.object("audio/bela.mp3"), None);
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_somebody_else_replaced_is_another_file() {
    let store = BucketStore::start().await;
    let streaming = Streaming::start(of_store(&store)).await;
    let one = pattern(300_000);
    let other: Vec<u8> = one.iter().rev().copied().collect();
    store.put("audio/a.mp3", &one).await;
    let link = link_to("a.mp3");
    let (_, etag, bytes) = read(&streaming.nobody, &link, None).await;
    assert!(bytes == one);
    // As long, and perhaps of the same second.
    store.put("audio/a.mp3", &other).await;
    until(async || read(&streaming.nobody, &link, None).await.1 != etag, "it is another").await;
    let (_, _, bytes) = read(&streaming.nobody, &link, None).await;
    assert!(bytes == other, "all of it is the other's");
    let asked = streaming.nobody.request(Method::GET, &link).header("range", "bytes=0-9").header("if-range", &etag);
    assert_eq!(asked.send().await.expect("an answer").status(), StatusCode::OK, "what it has is of no use");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_take_no_more_than_they_may() {
    const MIB: u64 = 1_024 * 1_024;
    let store = BucketStore::start().await;
    let mut folder = None;
    let streaming = Streaming::start(|settings| {
        of_store(&store)(settings);
        settings.bucket.cache_max_size_mb = 2;
        settings.streaming.max_file_size_bytes = 2 * MIB;
        folder = Some(settings.bucket_dir());
    })
    .await;
    let folder = folder.expect("named");
    let wholes: Vec<_> = (0..6_u8).map(|number| pattern(700_000 + usize::from(number))).collect();
    for (number, whole) in wholes.iter().enumerate() {
        store.put(&format!("audio/{number}.mp3"), whole).await;
    }
    for number in [0, 1, 0, 2, 3, 4, 5, 0] {
        let link = link_to(&format!("{number}.mp3"));
        assert!(read(&streaming.nobody, &link, None).await.2 == wholes[number], "{number}");
        let bytes = bytes_in(&folder);
        assert!((1..=2 * MIB).contains(&bytes), "{bytes} after {number}");
    }
    let kept = |number: usize| folder.join(format!("{number}.mp3")).exists();
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(kept),
        [true, false, false, false, false, true],
        "what was used longest ago went"
    );
    store.put("audio/long.mp3", &pattern(2 * 1_024 * 1_024 + 1)).await;
    streaming.nobody.get(&link_to("long.mp3")).await.expect_error(404, "NOT_FOUND");
    streaming.stop().await;
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable"));
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { bytes_in(&entry.path()) } else { entry.metadata().map_or(0, |of| of.len()) }
            },
        )
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_said_to_the_operator_and_not_to_listeners() {
    let store = BucketStore::start().await;
    let streaming = Streaming::start(|settings| {
        of_store(&store)(settings);
        settings.bucket.secret_key = Some(Secret::new("another secret"));
    })
    .await;
    let refused = streaming.nobody.get(&link_to("a.mp3")).await;
    let message = refused.expect_error(503, "TEMPORARILY_UNAVAILABLE");
    assert!(!message.contains("ignature") && !message.contains(&store.url()), "{message}");
    assert_eq!(detailed(&streaming.nobody).await["checks"]["bucket"]["status"], "unavailable");
    let config = |name: &str, secret_key: &str| BucketConfig {
        endpoint: store.url(),
        name: name.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: Secret::new(ACCESS_KEY),
        secret_key: Secret::new(secret_key),
        virtual_host: false,
        prefix: "audio/".to_owned(),
        folder: "unused".into(),
        bytes_max: 0,
        timeout: Duration::from_secs(2),
    };
    for (name, secret_key, expected) in
        [(BUCKET, "another secret", "SignatureDoesNotMatch"), ("nobodys", SECRET_KEY, "NoSuchBucket")]
    {
        let error = ask_bucket(&config(name, secret_key)).await.expect_err("refused").to_string();
        assert!(error.contains(expected) && !error.contains("X-Amz"), "{error}");
    }
    ask_bucket(&config(BUCKET, SECRET_KEY)).await.expect("all is right");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_at_one_node_plays_at_another() {
    let store = BucketStore::start().await;
    let url = store.url();
    let nodes = Nodes::start_with(
        2,
        &[
            ("ANTIPHON_BUCKET__ENDPOINT", &url),
            ("ANTIPHON_BUCKET__NAME", BUCKET),
            ("ANTIPHON_BUCKET__ACCESS_KEY", ACCESS_KEY),
            ("ANTIPHON_BUCKET__SECRET_KEY", SECRET_KEY),
        ],
    )
    .await;
    let [one, other] = [0, 1].map(|index| Client::new(nodes.nodes[index].url().to_string()));
    let _root = one.register("root").await;
    let bela = one.register("bela").await;
    let (first, second) = (tone(), [tone(), tone()].concat());
    send(&bela, Method::POST, "bela/one.mp3", &first).await.expect(201);
    let bela_there = other.with_token(Some(bela.token()));
    let link = bela_there.post("/api/streams/sign", serde_json::json!({"path": "bela/one.mp3", "ttl_s": 600})).await;
    let link = link.expect(200)["data"]["url"].as_str().expect("a link").to_owned();
    let (_, etag_there, bytes) = read(&other, &link, None).await;
    assert!(bytes == first);
    let (_, etag, bytes) = read(&one, &link, None).await;
    assert!(bytes == first);
    assert_eq!(etag, etag_there, "a player may go on at another node");
    // Replaced at the other, and removed there.
    send(&bela_there, Method::PUT, "bela/one.mp3", &second).await.expect(200);
    until(async || read(&one, &link, None).await.2 == second, "it is replaced at the first, too").await;
    assert_eq!(send(&bela_there, Method::DELETE, "bela/one.mp3", b"").await.status, 204);
    until(async || read(&one, &link, None).await.0 == StatusCode::NOT_FOUND, "it is gone at the first, too").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_made_another_plays_that_makes_nothing() {
    let mut store = BucketStore::start().await;
    let makes = Streaming::start(|settings| {
        of_store(&store)(settings);
        settings.streaming.transcode_wait_s = 25;
    })
    .await;
    let plays = Streaming::start(|settings| {
        of_store(&store)(settings);
        settings.streaming.transcode_threads = 0;
    })
    .await;
    store.put("audio/tone.mp3", &tone()).await;
    let (whole, low) = (link_to("tone.mp3"), link_to_quality("tone.mp3", "low"));
    assert_eq!(read(&makes.nobody, &whole, None).await.0, StatusCode::OK);
    plays.nobody.get(&low).await.expect_error(422, "INVALID_INPUT");
    // Made while the store is away, of the copy, and sent when it is back.
    store.stop().await;
    let (status, _, made) = read(&makes.nobody, &low, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(store.keys_under("audio/.made"), Vec::<String>::new());
    store.go_on();
    until(async || store.keys_under("audio/.made").len() == 3, "a quality, the facts and the waveform are sent").await;
    let (status, _, played) = read(&plays.nobody, &low, None).await;
    assert_eq!((status, played == made), (StatusCode::OK, true), "the other plays it");
    let view = plays.anna.get("/api/streams/tone.mp3/qualities").await.expect(200)["data"].clone();
    assert_eq!((&view[1]["quality"], &view[1]["state"]), (&"low".into(), &"ready".into()), "{view}");
    plays.anna.get("/api/streams/tone.mp3/waveform").await.expect(200);
    let listed = plays.anna.get("/api/streams").await.expect(200)["data"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "none of it is of the library: {listed}");
    let root = makes.nobody.register("root").await;
    assert_eq!(send(&root, Method::DELETE, "tone.mp3", b"").await.status, 204);
    assert_eq!(store.keys_under("audio"), Vec::<String>::new(), "it goes with its file");
    makes.stop().await;
    plays.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quality_is_ready_only_where_all_is_there_that_another_node_fetches() {
    let store = BucketStore::start().await;
    let start = async |threads| {
        Streaming::start(|settings| {
            of_store(&store)(settings);
            settings.streaming.transcode_threads = threads;
            settings.streaming.transcode_wait_s = 25;
        })
        .await
    };
    let (makes, mends, plays) = (start(1).await, start(1).await, start(0).await);
    store.put("audio/tone.mp3", &tone()).await;
    let [low, medium] = ["low", "medium"].map(|quality| link_to_quality("tone.mp3", quality));
    // As a node leaves it that died before it had sent the rest.
    let lose_findings = || {
        let made = store.keys_under("audio/.made");
        made.iter().filter(|key| !key.ends_with(".opus")).for_each(|key| store.remove(key));
    };
    assert_eq!(read(&makes.nobody, &low, None).await.0, StatusCode::OK);
    until(async || store.keys_under("audio/.made").len() == 3, "all is sent").await;
    lose_findings();
    assert_eq!(plays.quality("tone.mp3", "low").await["state"], "absent");
    plays.nobody.get(&low).await.expect_error(422, "INVALID_INPUT");

    // Another makes it.
    let order = serde_json::json!({ "quality": "low" });
    mends.anna.post("/api/streams/tone.mp3/qualities", order).await.expect(202);
    until(async || store.keys_under("audio/.made").len() == 3, "all is sent again").await;
    assert_eq!(plays.quality("tone.mp3", "low").await["state"], "ready");
    // What is known here already comes with the next quality all the same.
    lose_findings();
    let (status, _, made) = read(&makes.nobody, &medium, None).await;
    assert_eq!(status, StatusCode::OK);
    until(async || store.keys_under("audio/.made").len() == 4, "all is sent with another quality").await;
    let (status, _, played) = read(&plays.nobody, &medium, None).await;
    assert_eq!((status, played == made), (StatusCode::OK, true));
    for streaming in [makes, mends, plays] {
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_made_is_fetched_on_where_nobody_waits_for_it_so_long() {
    let store = BucketStore::start().await;
    let start = async |threads| {
        Streaming::start(|settings| {
            of_store(&store)(settings);
            settings.streaming.transcode_threads = threads;
            settings.streaming.transcode_wait_s = 25;
        })
        .await
    };
    let (makes, plays) = (start(1).await, start(0).await);
    store.put("audio/tone.mp3", &tone()).await;
    let (whole, high) = (link_to("tone.mp3"), link_to_quality("tone.mp3", "high"));
    let (status, _, made) = read(&makes.nobody, &high, None).await;
    assert_eq!(status, StatusCode::OK);
    until(async || store.keys_under("audio/.made").len() == 3, "all is sent").await;
    assert_eq!(read(&plays.nobody, &whole, None).await.0, StatusCode::OK);
    // It takes some ten seconds longer than is waited for.
    store.set_pace(made.len() as u64 / 25);
    let coming = plays.nobody.get(&high).await;
    coming.expect_error(503, "TEMPORARILY_UNAVAILABLE");
    assert!(coming.text.contains("fetched") && coming.header("retry-after") == "5", "{}", coming.text);
    until(async || read(&plays.nobody, &high, None).await.2 == made, "it comes in the end").await;
    makes.stop().await;
    plays.stop().await;
}
