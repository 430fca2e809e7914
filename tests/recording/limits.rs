//! Recordings that end by themselves, and what becomes of a server that is killed while it records.

use std::{collections::HashMap, path::Path, time::Duration};

use antiphon_core::{
    gateway::{RecordingEnd, ServerMessage},
    ids::ChannelId,
};
use antiphon_loadtest::client::{ClientEvent, VoiceFrame};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    channel::{Account, administrator},
    files::{number, said},
    support::{
        people::{PATIENCE, Person, payload, voice_frame},
        process::{Process, Scratch},
    },
};

/// What one frame has: with four speakers, a MiB is there after some five seconds.
const LONG_BYTES: usize = 1_000;
const MIB: u64 = 1_024 * 1_024;

/// As [`payload`], and long.
fn long_payload(number: u32) -> Vec<u8> {
    let mut bytes = payload(number);
    bytes.resize(LONG_BYTES, 0x55);
    bytes
}

/// Speaks until the recording is said to have ended, by itself and for that reason; who it was, and how many frames were said.
async fn say_until_stopped(mut person: Person, why: RecordingEnd) -> (String, usize) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in 0.. {
        tokio::select! {
            stopped = until_stopped(&mut person) => {
                assert_eq!(stopped, (why, None));
                return (person.client.user().id.to_string(), number as usize);
            }
            _ = ticks.tick() => {}
        }
        let frame = VoiceFrame { bytes: long_payload(number), ..voice_frame(number) };
        person.client.send(person.channel(), frame).await.expect("sent");
    }
    unreachable!("numbers do not end")
}

async fn until_stopped(person: &mut Person) -> (RecordingEnd, Option<String>) {
    loop {
        if let ClientEvent::Message(message) = person.events.recv().await.expect("the session lives")
            && let ServerMessage::RecordingStopped(stopped) = *message
        {
            return (stopped.reason, stopped.by.map(|by| by.to_string()));
        }
    }
}

/// Four people speak in a channel until its recording has ended for that reason: all of them are told, the API knows, and the files are
/// whole up to then.
async fn fill(server: &Process, owner: &Account, channel: ChannelId, why: RecordingEnd) {
    let mut people = Vec::new();
    for index in 0..4 {
        let mut person = Person::join(server, &format!("speaker-{index}"), channel).await;
        person.udp_becomes(true).await;
        people.push(person);
    }
    let id = owner.start(channel).await["id"].as_str().expect("an id").to_owned();
    let mut speaking = JoinSet::new();
    people.into_iter().for_each(|person| drop(speaking.spawn(say_until_stopped(person, why))));
    let all: HashMap<String, usize> = speaking.join_all().await.into_iter().collect();
    let finished = owner.until_finished(channel, &id).await;
    assert_eq!((&finished["ended_why"], &finished["ended_by"]), (&json!(why.as_str()), &Value::Null));
    let bytes = finished["size_bytes"].as_u64().expect("a number");
    // It is looked every two seconds; what is known of the tracks counts, too.
    assert!((MIB - 10_000..3 * MIB).contains(&bytes), "{bytes}");
    let tracks = finished["track_list"].as_array().expect("tracks");
    assert_eq!(tracks.len(), all.len());
    for track in tracks {
        let packets = said(&owner.fetch(track["path"].as_str().expect("a path")).await);
        for (index, (_, packet)) in packets.iter().enumerate() {
            assert_eq!(
                (number(packet) as usize, packet),
                (index, &long_payload(number(packet))),
                "none is missing or torn"
            );
        }
        let user = track["user_id"].as_str().expect("an id");
        assert!((0..50).contains(&(all[user] - packets.len())), "{} of {}", packets.len(), all[user]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_ends_when_it_is_big_enough() {
    let server = Process::start(&[("ANTIPHON_RECORDING__MAX_SIZE_MB", "1")]).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let channel = owner.make_channel("lobby").await;
    fill(&server, &owner, channel, RecordingEnd::MaxSize).await;
    // It was one recording's limit: another may begin.
    owner.start(channel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_end_and_none_begins_when_all_have_used_up_their_room() {
    let server = Process::start(&[("ANTIPHON_RECORDING__QUOTA_MB", "1")]).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let (one, other) = (owner.make_channel("one").await, owner.make_channel("other").await);
    let silent = owner.start(other).await["id"].as_str().expect("an id").to_owned();
    fill(&server, &owner, one, RecordingEnd::Quota).await;
    let ended = owner.until(other, &silent, |recording| recording["ended_at"].is_string()).await;
    assert_eq!(ended["ended_why"], "quota", "whoever used it up");
    let path = format!("/api/channels/{other}/recordings");
    let (status, answer) = owner.ask(Method::POST, &path, Some(json!({}))).await;
    assert_eq!((status, &answer["error_code"]), (StatusCode::CONFLICT, &json!("LIMIT_REACHED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_ends_when_nobody_is_there_and_when_it_is_long_enough() {
    let settings = [("ANTIPHON_RECORDING__EMPTY_S", "5"), ("ANTIPHON_RECORDING__MAX_LENGTH_S", "10")];
    let server = Process::start(&settings).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let (empty, long) = (owner.make_channel("empty").await, owner.make_channel("long").await);
    let person = Person::join(&server, "somebody", long).await;
    let ids = [owner.start(empty).await, owner.start(long).await];
    let ids = ids.map(|recording| recording["id"].as_str().expect("an id").to_owned());
    let ended = |recording: &Value| recording["ended_at"].is_string();
    let first = owner.until(empty, &ids[0], ended).await;
    assert_eq!((&first["ended_why"], &first["ended_by"]), (&json!("empty"), &Value::Null));
    let second = owner.until(long, &ids[1], ended).await;
    assert_eq!(second["ended_why"], "max_length");
    assert_eq!(owner.until_finished(long, &ids[1]).await["tracks"], 0, "nobody said anything");
    drop(person);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_at_once_than_may_be_and_none_where_nothing_is_recorded() {
    let server = Process::start(&[("ANTIPHON_RECORDING__AT_ONCE", "1")]).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let (one, other) = (owner.make_channel("one").await, owner.make_channel("other").await);
    owner.start(one).await;
    let path = format!("/api/channels/{other}/recordings");
    let (status, answer) = owner.ask(Method::POST, &path, Some(json!({}))).await;
    assert_eq!((status, &answer["error_code"]), (StatusCode::CONFLICT, &json!("LIMIT_REACHED")));
    let (status, _) = owner.ask(Method::DELETE, &format!("/api/channels/{one}"), None).await;
    assert_eq!(status, StatusCode::OK, "a recording goes with its channel");
    owner.start(other).await;
    let full = Process::start(&[("ANTIPHON_RECORDING__FREE_MB", "4000000000")]).await;
    let admin = administrator(full.url()).await;
    let channel = admin.make_channel("lobby").await;
    let (status, answer) =
        admin.ask(Method::POST, &format!("/api/channels/{channel}/recordings"), Some(json!({}))).await;
    assert_eq!((status, &answer["error_code"]), (StatusCode::CONFLICT, &json!("LIMIT_REACHED")), "no disk has that");
    let deaf = Process::start(&[("ANTIPHON_RECORDING__ENABLED", "false")]).await;
    let admin = administrator(deaf.url()).await;
    let channel = admin.make_channel("lobby").await;
    let (status, _) = admin.ask(Method::POST, &format!("/api/channels/{channel}/recordings"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// Makes all recordings of a server that does not run have ended so many days ago.
async fn age(database: &Path, days: i64) {
    let url = format!("sqlite:{}", database.display());
    let database = sqlx::SqlitePool::connect(&url).await.expect("opens");
    let older = sqlx::query("UPDATE recordings SET ended_us = ended_us - $1").bind(days * 86_400_000_000);
    assert_eq!(older.execute(&database).await.expect("works").rows_affected(), 1);
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_kept_for_long_enough_is_removed_with_its_files() {
    let scratch = Scratch::new();
    let data = scratch.path().join("data");
    let settings = [("ANTIPHON_DATA_DIR", data.to_str().expect("text"))];
    let mut server = Process::start(&settings).await;
    let admin = administrator(server.url()).await;
    let channel = admin.make_channel("lobby").await;
    let mut person = Person::join(&server, "speaker", channel).await;
    person.udp_becomes(true).await;
    let id = admin.start(channel).await["id"].as_str().expect("an id").to_owned();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in 0..20 {
        ticks.tick().await;
        person.say(number).await;
    }
    admin.stop(channel).await;
    assert_eq!(admin.until_finished(channel, &id).await["tracks"], 1);
    server.kill();
    drop(server);
    let files = data.join("audio/recordings").join(&id);
    assert_eq!(std::fs::read_dir(&files).expect("there").count(), 2, "the sound, and what is known of it");
    let path = format!("/api/channels/{channel}/recordings/{id}");
    for (days, is_kept) in [(2, true), (2, false)] {
        age(&data.join("antiphon.db"), days).await;
        let settings = [settings[0], ("ANTIPHON_RECORDING__RETENTION_DAYS", "3")];
        let mut server = Process::start(&settings).await;
        let admin = admin.at(server.url());
        let wait = async {
            while admin.ask(Method::GET, &path, None).await.0 == StatusCode::OK || files.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let patience = if is_kept { Duration::from_secs(3) } else { PATIENCE };
        assert_eq!(tokio::time::timeout(patience, wait).await.is_err(), is_kept);
        server.kill();
    }
}
