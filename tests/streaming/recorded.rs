//! Recordings in a library that is a bucket: every node has all of what each recorded, also when the store was killed meanwhile.

use std::time::Duration;

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    recording_channel::{Account, administrator, told},
    recording_files::{number, said},
    store::{ACCESS_KEY, BUCKET, BucketStore, SECRET_KEY},
    support::{
        nodes::Nodes,
        people::{Person, payload},
    },
};

const FRAMES: u32 = 100;

/// Longer than what all nodes have to note the tracks that ended.
const NOT_FINISHED_FOR: Duration = Duration::from_secs(8);

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
    let bucket = [
        ("ANTIPHON_BUCKET__ENDPOINT", url.as_str()),
        ("ANTIPHON_BUCKET__NAME", BUCKET),
        ("ANTIPHON_BUCKET__ACCESS_KEY", ACCESS_KEY),
        ("ANTIPHON_BUCKET__SECRET_KEY", SECRET_KEY),
        ("ANTIPHON_BUCKET__TIMEOUT_S", "1"),
    ];
    let cluster = Nodes::start_with(2, &bucket).await;
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
