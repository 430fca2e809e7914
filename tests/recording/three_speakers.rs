//! Three people speak, one of them with a pause, while their channel is recorded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use antiphon_core::gateway::ServerMessage;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    channel::{Account, administrator, told},
    files::{number, probed_s, said},
    support::{
        people::{Person, payload, voice_frame},
        process::Process,
    },
};

const FRAMES: u32 = 150;
const FRAME: Duration = Duration::from_millis(20);

fn wall_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros()).expect("for long")
}

/// Says all frames, but those of a pause; when the first was said, as far as the speaker can tell: a test's process is
/// kept waiting now and then, so the quickest frame counts.
async fn speak(person: Person, pause: std::ops::Range<u32>) -> (Person, i64) {
    let mut ticks = tokio::time::interval(FRAME);
    let mut began_us = i64::MAX;
    for frame in 0..FRAMES {
        ticks.tick().await;
        if pause.contains(&frame) {
            continue;
        }
        began_us = began_us.min(wall_us() - i64::from(frame) * 20_000);
        person.client.send(person.channel(), voice_frame(frame)).await.expect("sent");
    }
    (person, began_us)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_speakers_have_a_file_each_of_the_packets_they_sent_where_they_said_them() {
    let server = Process::start(&[]).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let channel = owner.make_channel("lobby").await;
    let mut people = Vec::new();
    for index in 0..3 {
        let mut person = Person::join(&server, &format!("speaker-{index}"), channel).await;
        person.udp_becomes(true).await;
        assert_eq!(person.joined.recording, None);
        people.push(person);
    }
    let recording = owner.start(channel).await;
    let id = recording["id"].as_str().expect("an id").to_owned();
    for person in &mut people {
        let started = told(person, |message| match message {
            ServerMessage::RecordingStarted(started) => Some(started),
            _ => None,
        });
        let started = started.await;
        assert_eq!(started.recording.recording_id.to_string(), id);
        assert_eq!(started.recording.by.to_string(), owner.id);
        assert!(started.position.is_some(), "it has its place in the journal");
    }
    let late = Person::join(&server, "late", channel).await;
    assert_eq!(late.joined.recording.as_ref().map(|now| now.recording_id.to_string()), Some(id.clone()));
    let pauses = [0..0, 40..110, 0..0];
    let mut speaking = Vec::new();
    for (person, pause) in people.into_iter().zip(pauses.clone()) {
        speaking.push(tokio::spawn(speak(person, pause)));
        tokio::time::sleep(Duration::from_millis(130)).await;
    }
    let mut people = Vec::new();
    for speaking in speaking {
        people.push(speaking.await.expect("they spoke"));
    }
    let stopped = owner.stop(channel).await;
    assert_eq!((&stopped["ended_why"], &stopped["ended_by"]), (&json!("stopped"), &json!(owner.id)));
    let finished = owner.until_finished(channel, &id).await;
    assert_eq!((&finished["tracks"], &finished["name"]), (&json!(3), &json!("a talk")));
    let timeline = owner.timeline(channel, &id).await;
    for ((person, began_us), pause) in people.iter().zip(&pauses) {
        check_track(&owner, &timeline, person, *began_us, pause).await;
    }
    let waveform = finished["track_list"][0]["path"].as_str().expect("a path");
    let (status, answer) = owner.ask(Method::GET, &format!("/api/streams/{waveform}/waveform"), None).await;
    assert!(status == StatusCode::OK || answer["error_code"] == "TEMPORARILY_UNAVAILABLE", "{answer}");
    let (mut listener, _) = people.remove(0);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let name = told(&mut listener, |message| match message {
            ServerMessage::RecordingStopped(_) => Some("stopped"),
            ServerMessage::RecordingFinished(finished) => {
                assert_eq!(finished.tracks, 3);
                Some("finished")
            }
            _ => None,
        });
        seen.push(name.await);
    }
    assert_eq!(seen, ["stopped", "finished"]);
}

async fn check_track(owner: &Account, timeline: &Value, person: &Person, began_us: i64, pause: &std::ops::Range<u32>) {
    let user = person.client.user().id.to_string();
    let tracks = timeline["tracks"].as_array().expect("tracks");
    let track = tracks.iter().find(|track| track["user_id"] == user).expect("theirs");
    let file = owner.fetch(track["path"].as_str().expect("a path")).await;
    let said = said(&file);
    let expected: Vec<u32> = (0..FRAMES).filter(|frame| !pause.contains(frame)).collect();
    let numbers: Vec<u32> = said.iter().map(|(_, packet)| number(packet)).collect();
    assert_eq!(numbers, expected);
    let first = i64::try_from(said[0].0).expect("short");
    for (at_us, packet) in &said {
        assert_eq!(*packet, payload(number(packet)), "bit for bit");
        let right_us = i64::from(number(packet)) * 20_000;
        let off_us = i64::try_from(*at_us).expect("short") - first - right_us;
        assert!(off_us.abs() <= 2_500, "packet {} is {off_us} µs off", number(packet));
    }
    let started_us = timeline["started_us"].as_i64().expect("a time");
    let off_us = started_us + track["offset_us"].as_i64().expect("an offset") - began_us;
    println!("{}: begins {off_us} µs after it was said", track["username"]);
    assert!(off_us.abs() <= 20_000, "{off_us} µs");
    let length_s = f64::from(FRAMES) * 0.02;
    let probed_s = probed_s(&file);
    assert!((probed_s - length_s).abs() < 0.02, "a player has {probed_s} s instead of {length_s}");
    let spurts = track["spurts"].as_array().expect("spurts");
    assert_eq!(spurts.len(), if pause.is_empty() { 1 } else { 2 });
}
