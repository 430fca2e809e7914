//! Somebody who left cannot open what is said afterwards, even if they get hold of the datagrams.

use std::time::Duration;

use antiphon_core::{
    gateway::{Cipher, GroupKeySetup, ServerMessage},
    seal::{Direction, Key},
    wire::datagram::{Header, PacketType},
};
use antiphon_loadtest::client::ClientEvent;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::Instant;

use super::{
    people::{Person, make_channel, number_of},
    process::Process,
    udp_proxy::{Tapped, UdpProxy},
};

/// From then on the departed's keys open nothing new (docs/protocol.md, 2.2).
const KEYS_END_AFTER: Duration = Duration::from_secs(6);

fn opens(key: &Key, datagram: &[u8]) -> bool {
    let mut copy = datagram.to_vec();
    Header::parse(datagram).is_ok_and(|header| key.open(Direction::FromNode, &header, &mut copy).is_some())
}

fn is_media(datagram: &[u8]) -> bool {
    Header::parse(datagram).is_ok_and(|header| header.packet_type == PacketType::Media)
}

fn key(setup: &GroupKeySetup) -> Key {
    let bytes = STANDARD.decode(&setup.key).expect("base64");
    Key::new(Cipher::Aes128Gcm, &bytes).expect("16 bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departed_members_keys_open_nothing_new() {
    let proxy = UdpProxy::start().await.expect("a proxy");
    let advertise = proxy.address().to_string();
    let server = Process::start(&[("ANTIPHON_AUDIO__ADVERTISE", &advertise)]).await;
    proxy.forward_to(server.udp_address());
    let channel = make_channel(&server, "secrets", 10).await;
    let mut speaker = Person::join(&server, "speaker", channel).await;
    let mut stayer = Person::join(&server, "stayer", channel).await;
    let mut leaver = Person::join(&server, "leaver", channel).await;
    for person in [&mut speaker, &mut stayer, &mut leaver] {
        person.udp_becomes(true).await;
    }
    proxy.start_tap();
    speaker.say(0).await;
    assert_eq!(number_of(&leaver.hear().await), 0);
    assert_eq!(number_of(&stayer.hear().await), 0);

    let mut keys = vec![key(&leaver.joined.voice.udp.as_ref().expect("UDP").group_key)];
    leaver.client.leave(channel).await.expect("left");
    let left_at = Instant::now();
    while let Ok(event) = leaver.events.try_recv() {
        if let ClientEvent::Message(message) = event
            && let ServerMessage::KeyRotated(rotated) = *message
        {
            keys.push(key(&GroupKeySetup { key_id: rotated.key_id, key: rotated.key }));
        }
    }

    let until = left_at + KEYS_END_AFTER + Duration::from_secs(1);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut said = 1;
    while Instant::now() < until {
        ticks.tick().await;
        speaker.say(said).await;
        assert_eq!(number_of(&stayer.hear().await), said, "who stays misses nothing");
        said += 1;
    }
    let tapped = proxy.tapped();
    let media: Vec<&Tapped> = tapped.iter().filter(|tapped| is_media(&tapped.datagram)).collect();
    let (before, after): (Vec<&Tapped>, Vec<&Tapped>) = media.iter().partition(|tapped| tapped.at < left_at);
    assert!(before.iter().any(|tapped| keys.iter().any(|key| opens(key, &tapped.datagram))), "the keys were right");
    let late: Vec<_> = after.iter().filter(|tapped| tapped.at >= left_at + KEYS_END_AFTER).collect();
    assert!(late.len() > 10, "there was something to open: {}", late.len());
    assert!(!late.iter().any(|tapped| keys.iter().any(|key| opens(key, &tapped.datagram))), "a departed key opens it");
}
