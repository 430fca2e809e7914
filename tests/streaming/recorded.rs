//! Recordings in a library that is a bucket: every node has all of what each recorded, also when the store was killed meanwhile.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use antiphon_loadtest::rest::Rest;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::{
    recording_channel::{Account, administrator, told},
    recording_files::{number, said},
    store::{ACCESS_KEY, BUCKET, BucketStore, SECRET_KEY},
    support::{
        nodes::{Nodes, http},
        people::{PATIENCE, Person, payload},
        process::{Process, Scratch},
    },
};

const FRAMES: u32 = 100;

/// Longer than what all nodes have to note the tracks that ended.
const NOT_FINISHED_FOR: Duration = Duration::from_secs(8);

/// The settings of nodes whose library is in a store.
fn of_store(url: &str) -> [(&str, &str); 5] {
    [
        ("ANTIPHON_BUCKET__ENDPOINT", url),
        ("ANTIPHON_BUCKET__NAME", BUCKET),
        ("ANTIPHON_BUCKET__ACCESS_KEY", ACCESS_KEY),
        ("ANTIPHON_BUCKET__SECRET_KEY", SECRET_KEY),
        ("ANTIPHON_BUCKET__TIMEOUT_S", "1"),
    ]
}

/// People say all frames at once, one after the other; the store is killed in the middle.
async fn speak(people: &[Person], store: &mut BucketStore) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for frame in 0..FRAMES {
        ticks.tick().await;
        for person in people {
            person.say(frame).await;
        }
        if frame == FRAMES / 2 {
            store.stop().await;
        }
    }
}

/// A node has each speaker's every packet, and knows when something is said.
async fn check_tracks(asker: &Account, channel: ChannelId, id: &str, people: &[Person]) {
    let timeline = asker.timeline(channel, id).await;
    let tracks = timeline["tracks"].as_array().expect("tracks");
    assert_eq!(tracks.len(), people.len());
    for person in people {
        let user = person.client.user().id.to_string();
        let track = tracks.iter().find(|track| track["user_id"] == user).expect("theirs");
        assert_eq!(track["spurts"].as_array().map(Vec::len), Some(1), "{track}");
        let packets = said(&asker.fetch(track["path"].as_str().expect("a path")).await);
        let numbers: Vec<u32> = packets.iter().map(|(_, packet)| number(packet)).collect();
        assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
        assert!(packets.iter().all(|(_, packet)| *packet == payload(number(packet))), "bit for bit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_has_what_each_recorded_when_the_store_is_back() {
    let mut store = BucketStore::start().await;
    let url = store.url();
    let cluster = Nodes::start_with(2, &of_store(&url)).await;
    let here = administrator(cluster.nodes[0].url()).await;
    let there = here.at(cluster.nodes[1].url());
    let channel = here.make_channel("lobby").await;
    let mut people = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["here", "there"]) {
        let mut person = Person::join(node, name, channel).await;
        person.udp_becomes(true).await;
        people.push(person);
    }
    let id = here.start(channel).await["id"].as_str().expect("an id").to_owned();
    for person in &mut people {
        // Their node records from then on.
        told(person, |message| matches!(message, ServerMessage::RecordingStarted(_)).then_some(())).await;
    }
    speak(&people, &mut store).await;
    there.stop(channel).await;
    let waited = timeout(NOT_FINISHED_FOR, here.until_finished(channel, &id)).await;
    assert!(waited.is_err(), "it is finished, and nobody has its tracks: {waited:?}");
    store.go_on();
    let finished = there.until_finished(channel, &id).await;
    assert_eq!(finished["tracks"], 2, "{finished}");
    check_tracks(&here, channel, &id, &people).await;
    check_tracks(&there, channel, &id, &people).await;

    // Mixed by whichever node, and heard at both.
    let recording = format!("/api/channels/{channel}/recordings/{id}");
    assert_eq!(there.ask(Method::POST, &format!("{recording}/mix"), None).await.0, StatusCode::ACCEPTED);
    let mixed = here.until(channel, &id, |recording| recording["mix"]["state"] != "wanted").await;
    let path = mixed["mix"]["path"].as_str().unwrap_or_else(|| panic!("no mix: {mixed}"));
    let mix = here.fetch(path).await;
    assert!(mix == there.fetch(path).await && store.object(path).as_deref() == Some(&mix[..]));

    // It goes as a whole, at all.
    let paths: Vec<&str> = finished["track_list"].as_array().expect("tracks").iter().filter_map(path_of).collect();
    assert!(paths.iter().all(|path| store.object(path).is_some()));
    assert_eq!(here.ask(Method::DELETE, &recording, None).await.0, StatusCode::NO_CONTENT);
    let lines = paths.iter().map(|path| path.replace(".opus", ".jsonl"));
    for gone in paths.iter().map(|path| (*path).to_owned()).chain(lines).chain([path.to_owned()]) {
        assert_eq!(store.object(&gone), None, "{gone}");
    }
}

fn path_of(track: &Value) -> Option<&str> {
    track["path"].as_str()
}

/// Somebody is recorded; the recording, finished.
async fn recorded(node: &Process, account: &Account, channel: ChannelId) -> Value {
    let mut person = Person::join(node, "speaker", channel).await;
    person.udp_becomes(true).await;
    let id = account.start(channel).await["id"].as_str().expect("an id").to_owned();
    told(&mut person, |message| matches!(message, ServerMessage::RecordingStarted(_)).then_some(())).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for frame in 0..FRAMES {
        ticks.tick().await;
        person.say(frame).await;
    }
    account.stop(channel).await;
    account.until_finished(channel, &id).await
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// What a node counts, all series of a name together.
async fn counted(node: &Process, name: &str) -> u64 {
    let figures = Rest::new(node.url()).expect("a client").metrics().await.expect("figures");
    let series = figures.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let counts = series.map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok()).expect("one"));
    counts.sum::<f64>() as u64
}

/// Starts the only node again, as if its time for the mix that it had taken on were over.
async fn restart_when_time_is_over(cluster: &mut Nodes) {
    cluster.nodes[0].kill();
    let mut database = PgConnection::connect(&cluster.database.url).await.expect("a connection");
    sqlx::raw_sql("UPDATE recordings SET mix_until_us = 0").execute(&mut database).await.expect("set");
    cluster.restart(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mix_waits_for_the_store_over_restarts_and_is_not_made_again() {
    let mut store = BucketStore::start().await;
    let (audio, copies, url) = (Scratch::new(), Scratch::new(), store.url());
    let folders = [("AUDIO_DIR", &audio), ("ANTIPHON_BUCKET__CACHE_DIR", &copies)];
    let folders = folders.map(|(name, folder)| (name, folder.path().to_str().expect("text")));
    let mut cluster = Nodes::start_with(1, &[&of_store(&url)[..], &folders].concat()).await;
    let account = administrator(cluster.nodes[0].url()).await;
    let channel = account.make_channel("lobby").await;
    let recording = recorded(&cluster.nodes[0], &account, channel).await;
    let id = recording["id"].as_str().expect("an id");
    // What the mix is made of is here when the store goes.
    account.fetch(recording["track_list"][0]["path"].as_str().expect("a path")).await;
    store.stop().await;
    let mix = format!("/api/channels/{channel}/recordings/{id}/mix");
    let waiting = audio.path().join(format!("recordings/{id}/.mix.opus"));
    let ask = async || account.ask(Method::POST, &mix, None).await.0;
    assert_eq!(ask().await, StatusCode::ACCEPTED);
    until("it is made", async || waiting.exists()).await;
    // It has waited for longer than any does, which is a day, and is not yet what a dead node left, which is two days old.
    let too_long = Duration::from_secs(36 * 3_600);
    let file = fs::File::options().write(true).open(&waiting).expect("ours");
    file.set_modified(SystemTime::now() - too_long).expect("set");
    restart_when_time_is_over(&mut cluster).await;
    let given_up = account.until(channel, id, |recording| recording["mix"]["state"] == "failed").await;
    assert!(given_up["mix"]["error"].to_string().contains("could not be sent"), "{given_up}");
    until("it is removed", async || !waiting.exists()).await;

    // Wanted again, and made by a process that is killed before the store is back.
    assert_eq!(ask().await, StatusCode::ACCEPTED);
    until("it is made again", async || waiting.exists()).await;
    let made = fs::read(&waiting).expect("ours");
    restart_when_time_is_over(&mut cluster).await;
    let fails = "antiphon_recording_mix_sends_failed_total";
    until("it is tried", async || counted(&cluster.nodes[0], fails).await > 0).await;
    assert_eq!(account.recording(channel, id).await["mix"]["state"], "wanted");
    store.go_on();
    let mixed = account.until(channel, id, |recording| recording["mix"]["state"] == "ready").await;
    let path = mixed["mix"]["path"].as_str().expect("a path");
    assert!(store.object(path).is_some_and(|sent| sent == made) && account.fetch(path).await == made);
    assert_eq!(counted(&cluster.nodes[0], "antiphon_recording_mixes_total").await, 0, "the next process made it again");
    until("it is removed", async || !waiting.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_with_what_was_made_of_it_and_is_not_fetched_for_that() {
    let store = BucketStore::start().await;
    let url = store.url();
    let settings = [&of_store(&url)[..], &[("ANTIPHON_STREAMING__TRANSCODE_WAIT_S", "25")]].concat();
    let cluster = Nodes::start_with(2, &settings).await;
    let (here, there) = (&cluster.nodes[0], &cluster.nodes[1]);
    let account = administrator(here.url()).await;
    let channel = account.make_channel("lobby").await;
    let recording = recorded(here, &account, channel).await;
    let (id, path) = (recording["id"].as_str().expect("an id"), &recording["track_list"][0]["path"]);
    let low = serde_json::json!({ "path": path, "ttl_s": 60, "quality": "low" });
    let (status, link) = account.ask(Method::POST, "/api/streams/sign", Some(low)).await;
    assert_eq!(status, StatusCode::OK, "{link}");
    let link = here.url().http("/").join(link["data"]["url"].as_str().expect("a link")).expect("a link");
    assert_eq!(http().get(link).send().await.expect("answered").status(), StatusCode::OK);
    until("it is sent", async || store.keys_under(".made").len() == 3).await;

    // Removed by the node that has no copy of it.
    let path = format!("/api/channels/{channel}/recordings/{id}");
    assert_eq!(account.at(there.url()).ask(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!((store.keys_under("recordings"), store.keys_under(".made")), (Vec::new(), Vec::new()));
    assert_eq!(counted(there, "antiphon_streaming_bucket_received_bytes_total").await, 0);
}
