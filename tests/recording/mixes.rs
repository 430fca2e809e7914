//! The mix of a recording: each voice is in it, at its time, by frequency.

use std::{sync::Arc, time::Duration};

use antiphon_core::wire::frame::FrameKind;
use antiphon_loadtest::client::{Client, VoiceFrame};
use opus::{Application, Channels, Encoder};
use reqwest::{Method, StatusCode};

use crate::{
    channel::{Account, administrator},
    files::{amplitude, decoded},
    support::{people::Person, process::Process},
};

const TONES_HZ: [f64; 2] = [430.0, 1_130.0];

/// Says a tone for two seconds.
async fn sound(client: &Client, person: antiphon_core::ids::ChannelId, hz: f64) {
    let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Audio).expect("an encoder");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut packet = vec![0; 1_275];
    for frame in 0..100_u32 {
        let sample = |index: u32| {
            let at = f64::from(frame * 960 + index) / 48_000.0;
            (0.3 * (std::f64::consts::TAU * hz * at).sin()) as f32
        };
        let samples: Vec<f32> = (0..960).map(sample).collect();
        let bytes = encoder.encode_float(&samples, &mut packet).expect("encodes");
        let kind = if frame == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
        let (flags, level, timestamp) = (0, 20, frame * 960);
        ticks.tick().await;
        let frame = VoiceFrame { kind, flags, level, timestamp, bytes: packet[..bytes].to_vec() };
        client.send(person, frame).await.expect("sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mix_has_every_voice_at_its_time() {
    let server = Process::start(&[]).await;
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let channel = owner.make_channel("lobby").await;
    let mut people = Vec::new();
    for index in 0..2 {
        let mut person = Person::join(&server, &format!("speaker-{index}"), channel).await;
        person.udp_becomes(true).await;
        people.push(person);
    }
    let id = owner.start(channel).await["id"].as_str().expect("an id").to_owned();
    let mix = format!("/api/channels/{channel}/recordings/{id}/mix");
    let (status, _) = owner.ask(Method::POST, &mix, None).await;
    assert_eq!(status, StatusCode::CONFLICT, "it goes on");
    // One after the other, each for two seconds.
    for (person, hz) in people.iter().zip(TONES_HZ) {
        sound(&person.client, channel, hz).await;
    }
    owner.stop(channel).await;
    let finished = owner.until_finished(channel, &id).await;
    let (status, answer) = owner.ask(Method::POST, &mix, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let owner = Arc::new(owner);
    let made = owner.until(channel, &id, |recording| recording["mix"]["state"] == "ready").await;
    let samples = decoded(&owner.fetch(made["mix"]["path"].as_str().expect("a path")).await);
    let tracks = finished["track_list"].as_array().expect("tracks");
    for (own, track) in tracks.iter().enumerate() {
        // The middle of what was said, half a second from each end.
        let from_us = track["offset_us"].as_u64().expect("an offset") + 500_000;
        let at = |us: u64| usize::try_from(us * 48 / 1_000).expect("short");
        let heard = &samples[at(from_us)..at(from_us + 1_000_000)];
        let (own, other) = (amplitude(heard, TONES_HZ[own]), amplitude(heard, TONES_HZ[1 - own]));
        assert!(own > 0.2 && other < 0.02, "{own} of their own tone, {other} of the other's");
    }
    let (status, _) = owner.ask(Method::POST, &mix, None).await;
    assert_eq!(status, StatusCode::OK, "it is there");
}
