//! A channel that is recorded, with members of every family in it: a page by WebRTC, native clients by UDP and by the WebSocket, in
//! both encodings, and somebody who hears a mix. All are told, and all who speak are recorded.

use antiphon_core::{
    gateway::{Encoding, JoinChannel, MediaMode, MediaTransport, ServerMessage},
    ids::ChannelId,
};
use antiphon_loadtest::{
    client::Client,
    gateway::{GatewayConfig, Identity},
};
use serde_json::Value;

use crate::{
    chromium::{Chromium, Page},
    recording_channel::{Account, administrator, told},
    recording_files::{amplitude, decoded},
    rooms::{enter, id_of},
    support::{
        people::{Person, how_to_join},
        process::Process,
    },
    tone::{say, tone},
};

/// What the page says, and whoever has UDP, and whoever has not.
const TONES_HZ: [f64; 3] = [440.0, 880.0, 1_320.0];

/// A native client, by a way and in a form.
async fn native(server: &Process, room: ChannelId, name: &str, encoding: Encoding, join: JoinChannel) -> Person {
    let identity = Identity::Guest(name.to_owned());
    let config = GatewayConfig { server: server.url(), others: Vec::new(), encoding, identity };
    let (client, events) = Client::connect(config).await.expect("connected");
    let joined = client.join(JoinChannel { channel_id: room, ..join }).await.expect("joined");
    Person { client, events, joined }
}

/// Waits until a native client is told that a recording began, or ended.
async fn is_told(person: &mut Person, wanted: &str, recording: &str) {
    let said = told(person, |message| match message {
        ServerMessage::RecordingStarted(started) if wanted == "RecordingStarted" => {
            Some(started.recording.recording_id)
        }
        ServerMessage::RecordingStopped(stopped) if wanted == "RecordingStopped" => Some(stopped.recording_id),
        _ => None,
    });
    assert_eq!(said.await.to_string(), recording, "{wanted}");
}

/// The same of a page.
async fn page_is_told(page: &Page<'_>, wanted: &str, recording: &str) {
    let said = format!(
        "page.events.some((event) => event.type === '{wanted}' && JSON.stringify(event).includes('{recording}'))"
    );
    page.until(&said, |is_told| is_told == true).await;
}

/// A speaker's track has their own tone, and nobody else's.
async fn check_track(owner: &Account, finished: &Value, user: &str, own_hz: f64) {
    let tracks = finished["track_list"].as_array().expect("tracks");
    let track = tracks.iter().find(|track| track["user_id"] == user).expect("theirs");
    let samples = decoded(&owner.fetch(track["path"].as_str().expect("a path")).await);
    assert!(samples.len() > 96_000, "{} samples at {own_hz} Hz", samples.len());
    let middle = samples.len() / 2;
    let heard = &samples[middle - 24_000..middle + 24_000];
    for hz in TONES_HZ {
        let found = amplitude(heard, hz);
        println!("{own_hz} Hz: {found:.4} at {hz} Hz");
        assert!(
            if hz == own_hz { found > 0.2 } else { found < 0.02 },
            "{found} at {hz} Hz in the track of {own_hz} Hz"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_every_family_are_told_and_recorded() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let room = owner.make_channel("lobby").await;
    let page = browser.page().await;
    let page_id = id_of(&enter(&page, &server, room, "Page").await);
    page.call("speak", TONES_HZ[0].into()).await;
    let udp = how_to_join(room);
    let tunnel = JoinChannel { media: MediaTransport::Websocket, cipher: None, ..how_to_join(room) };
    let mixed = JoinChannel { mode: MediaMode::Mixed, ..how_to_join(room) };
    let mut natives = [
        native(&server, room, "by-udp", Encoding::Json, udp).await,
        native(&server, room, "by-websocket", Encoding::MessagePack, tunnel).await,
        native(&server, room, "hears-a-mix", Encoding::MessagePack, mixed).await,
    ];
    natives[0].udp_becomes(true).await;

    let id = owner.start(room).await["id"].as_str().expect("an id").to_owned();
    for person in &mut natives {
        is_told(person, "RecordingStarted", &id).await;
    }
    page_is_told(&page, "RecordingStarted", &id).await;
    let late = browser.page().await;
    let joined = enter(&late, &server, room, "Late").await;
    assert_eq!(joined["recording"]["recording_id"], id, "whoever comes later is told at the door");

    let frames = TONES_HZ.map(|hz| tone(hz as f32, 150));
    tokio::join!(say(&natives[0], &frames[1]), say(&natives[1], &frames[2]));
    owner.stop(room).await;
    for person in &mut natives {
        is_told(person, "RecordingStopped", &id).await;
    }
    for page in [&page, &late] {
        page_is_told(page, "RecordingStopped", &id).await;
    }
    let finished = owner.until_finished(room, &id).await;
    assert_eq!(finished["tracks"], 3, "who was silent has none: {finished}");
    let speakers = [page_id, natives[0].client.user().id.to_string(), natives[1].client.user().id.to_string()];
    for (user, hz) in speakers.iter().zip(TONES_HZ) {
        check_track(&owner, &finished, user, hz).await;
    }
}
