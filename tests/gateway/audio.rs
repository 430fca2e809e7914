//! Voice, over the gateway and over UDP: who hears it, by which way, and with which keys.

use std::time::Duration;

use antiphon_core::{
    gateway::{
        AudioBytes, AudioData, AudioFrame, ErrorCode, JoinChannel, LeaveChannel, MediaTransport, ServerMessage,
        SetVoiceState,
    },
    ids::ChannelId,
};

use crate::{
    client::{Client, join, of_type, resume},
    server::{PATIENCE, Server},
    udp::Udp,
};

/// How long a frame lasts: who speaks faster is cut off.
const FRAME: Duration = Duration::from_millis(20);

/// Long enough for an answer, where none is to come.
const A_WHILE: Duration = Duration::from_millis(200);

fn audio(channel: ChannelId, sequence: u16) -> AudioData {
    AudioData {
        channel_id: channel,
        data: AudioBytes(vec![0xfc, sequence as u8]),
        sequence: Some(sequence),
        timestamp: Some(u32::from(sequence) * 960),
        kind: None,
        level: None,
    }
}

async fn heard(client: &mut Client) -> AudioFrame {
    client.expect(of_type!(AudioFrame)).await
}

fn is_no_audio(message: &ServerMessage) -> bool {
    !matches!(message, ServerMessage::AudioFrame(_))
}

#[tokio::test]
async fn a_frame_reaches_all_others_as_it_is() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut clara = server.client("clara").await;
    let channel = server.channel(anna.id(), 10).await;
    let own = anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    // UDP to Clara is not proven.
    clara.join(channel, MediaTransport::Udp).await;
    for sequence in 0..5 {
        anna.send(audio(channel, sequence)).await;
    }
    anna.done(audio(channel, 5)).await;
    for listener in [&mut berta, &mut clara] {
        for sequence in 0..6 {
            let frame = heard(listener).await;
            assert_eq!((frame.user_id, frame.stream_id, frame.channel_id), (anna.id(), own.voice.stream_id, channel));
            assert_eq!((frame.sequence, frame.timestamp, frame.level), (sequence, u32::from(sequence) * 960, 30));
            assert_eq!(frame.data, audio(channel, sequence).data);
        }
        assert_eq!(listener.expect(of_type!(AudioStarted)).await.user_id, anna.id());
        // By sound: it ends after 300 ms without.
        assert_eq!(listener.expect(of_type!(AudioStopped)).await.user_id, anna.id());
    }
    assert!(anna.passed_over.iter().all(is_no_audio), "nobody hears themselves");
}

#[tokio::test]
async fn the_short_form_is_numbered_by_the_node() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let short = AudioData { sequence: None, timestamp: None, ..audio(channel, 0) };
        anna.done(short).await;
        let frame = heard(&mut berta).await;
        numbers.push((frame.sequence, frame.timestamp));
    }
    for pair in numbers.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.wrapping_add(1));
        assert_eq!(pair[1].1, pair[0].1.wrapping_add(960));
    }
}

#[tokio::test]
async fn what_is_no_frame_is_refused() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    assert_eq!(anna.refused(audio(channel, 1)).await, ErrorCode::PermissionDenied, "not joined");
    anna.join(channel, MediaTransport::Websocket).await;
    for wrong in [
        AudioData { data: AudioBytes(Vec::new()), ..audio(channel, 1) },
        AudioData { data: AudioBytes(vec![0xfc; 1_455]), ..audio(channel, 1) },
        AudioData { kind: Some(9), ..audio(channel, 1) },
    ] {
        assert_eq!(anna.refused(wrong).await, ErrorCode::InvalidInput);
    }
    anna.send_text(&format!(r#"{{"type":"AudioData","channel_id":"{channel}","data":"%%%"}}"#)).await;
    assert!(anna.expect(of_type!(Error)).await.error.contains("base64"));
}

#[tokio::test]
async fn the_muted_are_not_heard_and_the_deaf_hear_nothing() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut clara = server.client("clara").await;
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let setup = clara.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let mut clara_udp = Udp::connected(&setup).await;
    let set = |muted, deafened| SetVoiceState { channel_id: channel, muted, deafened };

    anna.done(set(Some(true), None)).await;
    anna.done(audio(channel, 1)).await;
    // Of what waits for it a worker takes commands before frames: it is to have taken this one before the next command.
    server.media.probe().await;
    anna.done(set(Some(false), None)).await;
    assert!(server.rooms.set_server_mute(channel, anna.id(), true, berta.id()).await.expect("said"));
    anna.done(audio(channel, 2)).await;
    server.media.probe().await;
    assert!(server.rooms.set_server_mute(channel, anna.id(), false, berta.id()).await.expect("said"));
    anna.done(audio(channel, 3)).await;
    assert_eq!(heard(&mut berta).await.sequence, 3, "not those while muted, by themselves or by a moderator");
    let frames = clara_udp.media().await.frames.expect("opens");
    assert_eq!(frames[0].0.sequence, 3);

    berta.done(set(None, Some(true))).await;
    clara.done(set(None, Some(true))).await;
    anna.done(audio(channel, 4)).await;
    server.media.probe().await;
    clara_udp.stays_silent().await;
    berta.stays_silent(is_no_audio).await;
    assert!(clara.passed_over.iter().all(is_no_audio));
    berta.done(set(None, Some(false))).await;
    clara.done(set(None, Some(false))).await;
    anna.done(audio(channel, 5)).await;
    assert_eq!(heard(&mut berta).await.sequence, 5);
    assert_eq!(clara_udp.media().await.frames.expect("opens")[0].0.sequence, 5);
}

#[tokio::test]
async fn udp_carries_it_once_it_is_proven() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let own = anna.join(channel, MediaTransport::Udp).await;
    let setup = berta.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let mut anna_udp = Udp::connected(own.voice.udp.as_ref().expect("udp")).await;

    anna_udp.speak(own.voice.stream_id, 1, b"opus").await;
    let frame = heard(&mut berta).await;
    assert_eq!((frame.sequence, frame.data.0.as_slice()), (1, &b"opus"[..]));
    let mut berta_udp = Udp::connected(&setup).await;
    for sequence in 2..6 {
        anna_udp.speak(own.voice.stream_id, sequence, b"opus").await;
        let frames = berta_udp.media().await.frames.expect("opens");
        assert_eq!((frames[0].0.stream, frames[0].0.sequence), (own.voice.stream_id, sequence));
    }
    // Berta says that she lost UDP by sending over the gateway.
    berta.done(AudioData { kind: Some(3), data: AudioBytes(Vec::new()), ..audio(channel, 1) }).await;
    anna_udp.speak(own.voice.stream_id, 6, b"opus").await;
    loop {
        // One that was on its way when UDP was proven may have come both ways.
        let frame = heard(&mut berta).await;
        if frame.sequence == 6 {
            break;
        }
    }
}

#[tokio::test]
async fn whoever_left_cannot_open_what_comes_after_the_change() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut clara = server.client("clara").await;
    let channel = server.channel(anna.id(), 10).await;
    let own = anna.join(channel, MediaTransport::Udp).await;
    let berta_setup = berta.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let clara_setup = clara.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    assert_eq!(berta_setup.group_key, clara_setup.group_key, "one group, one key");
    let mut anna_udp = Udp::connected(own.voice.udp.as_ref().expect("udp")).await;
    let mut berta_udp = Udp::connected(&berta_setup).await;
    // With Clara's keys, but on Berta's socket: as if Clara went on listening.
    clara.request(LeaveChannel { channel_id: channel }).await;
    let rotated = berta.expect(of_type!(KeyRotated)).await;
    assert_eq!((rotated.group_id, rotated.key_id), (berta_setup.group_id, berta_setup.group_key.key_id.next()));
    assert_eq!(anna.expect(of_type!(KeyRotated)).await, rotated);
    assert!(clara.passed_over.iter().all(|message| !matches!(message, ServerMessage::KeyRotated(_))));

    // The old key is in force for 200 ms more; then only the new one opens what comes.
    let mut sequence = 0;
    let mut pace = tokio::time::interval(FRAME);
    let sealed_with_new = loop {
        pace.tick().await;
        sequence += 1;
        anna_udp.speak(own.voice.stream_id, sequence, b"opus").await;
        let media = berta_udp.media().await;
        if media.key_id == rotated.key_id {
            break media;
        }
        assert!(media.frames.is_some(), "the key in force opens");
    };
    assert!(sealed_with_new.frames.is_none(), "the departed's key does not");
    berta_udp.rotate(&rotated);
    anna_udp.speak(own.voice.stream_id, sequence + 1, b"opus").await;
    assert!(berta_udp.media().await.frames.is_some());

    // Whoever comes now gets the new key.
    let joined = server.client("dora").await.join(channel, MediaTransport::Udp).await;
    let group_key = joined.voice.udp.expect("udp").group_key;
    assert_eq!((group_key.key_id, group_key.key), (rotated.key_id, rotated.key));
}

#[tokio::test]
async fn a_resumed_session_speaks_and_hears_with_new_keys() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let own = anna.join(channel, MediaTransport::Udp).await;
    let before = berta.join(channel, MediaTransport::Udp).await;
    let mut anna_udp = Udp::connected(own.voice.udp.as_ref().expect("udp")).await;
    let mut old_udp = Udp::connected(before.voice.udp.as_ref().expect("udp")).await;

    let (mut berta, resumed) = Client::resume(&server, resume(&berta.lose())).await;
    // The old UDP session works until the new one is bound.
    assert!(old_udp.is_served(PATIENCE).await);
    let mut new_udp = Udp::connected(resumed.channels[0].joined.voice.udp.as_ref().expect("udp")).await;
    new_udp.rotate(&berta.expect(of_type!(KeyRotated)).await);
    anna_udp.rotate(&anna.expect(of_type!(KeyRotated)).await);
    while old_udp.is_served(A_WHILE).await {}

    anna_udp.speak(own.voice.stream_id, 1, b"to berta").await;
    let frames = new_udp.media().await.frames.expect("opens");
    assert_eq!(frames[0].1, b"to berta");
    new_udp.speak(before.voice.stream_id, 1, b"to anna").await;
    let frames = anna_udp.media().await.frames.expect("opens");
    assert_eq!((frames[0].0.stream, frames[0].1.as_slice()), (before.voice.stream_id, &b"to anna"[..]));
}

#[tokio::test]
async fn an_old_udp_session_ends_also_when_the_new_one_is_never_bound() {
    let server = Server::with(|_, rooms| rooms.old_udp_grace = Duration::from_millis(50)).await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    let setup = anna.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let mut old_udp = Udp::connected(&setup).await;
    Client::resume(&server, resume(&anna.lose())).await;
    while old_udp.is_served(A_WHILE).await {}
}

#[tokio::test]
async fn a_leaver_is_neither_heard_nor_served() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let own = anna.join(channel, MediaTransport::Udp).await;
    let setup = berta.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let mut anna_udp = Udp::connected(own.voice.udp.as_ref().expect("udp")).await;
    let mut berta_udp = Udp::connected(&setup).await;
    anna_udp.speak(own.voice.stream_id, 1, b"opus").await;
    berta_udp.media().await;
    anna.request(LeaveChannel { channel_id: channel }).await;
    assert!(!anna_udp.is_served(A_WHILE).await, "the UDP session went with the last channel");
    anna_udp.speak(own.voice.stream_id, 2, b"opus").await;
    berta_udp.stays_silent().await;
    let stats = server.rooms.traffic(channel).await;
    assert_eq!((stats.current_users, stats.joins), (1, 2));
}

#[tokio::test]
async fn what_a_channel_carried_is_counted() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    assert_eq!(server.rooms.traffic(channel).await.since, None);
    let own = anna.join(channel, MediaTransport::Udp).await;
    let setup = berta.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let mut anna_udp = Udp::connected(own.voice.udp.as_ref().expect("udp")).await;
    let mut berta_udp = Udp::connected(&setup).await;
    let mut sequence = 0;
    let mut pace = tokio::time::interval(FRAME);
    let stats = loop {
        pace.tick().await;
        sequence += 1;
        anna_udp.speak(own.voice.stream_id, sequence, &[0xfc; 80]).await;
        berta_udp.media().await;
        let stats = server.rooms.traffic(channel).await;
        if stats.traffic.frames_in > 0 {
            break stats;
        }
    };
    assert_eq!(stats.traffic.frames_in, stats.traffic.frames_out, "one listener");
    assert_eq!(stats.traffic.bytes_in, 80 * stats.traffic.frames_in);
    assert!(stats.traffic.bytes_out > stats.traffic.bytes_in && stats.since.is_some());
}

#[tokio::test]
async fn speakers_are_told_when_their_listeners_lose_frames() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let mono = JoinChannel { channels: Some(1), ..join(channel, MediaTransport::Udp) };
    let ServerMessage::ChannelJoined(own) = anna.request(mono).await else { panic!("not joined") };
    let setup = berta.join(channel, MediaTransport::Udp).await.voice.udp.expect("udp");
    let first = anna.expect(of_type!(QualityHint)).await;
    assert_eq!((first.bitrate, first.fec, first.expected_loss), (32_000, false, 0.0));
    let to_berta = berta.expect(of_type!(QualityHint)).await;
    assert_eq!((to_berta.bitrate, to_berta.phase_us), (64_000, first.phase_us), "stereo, and the same phase");

    let mut berta_udp = Udp::connected(&setup).await;
    let mut pace = tokio::time::interval(Duration::from_millis(600));
    let told = loop {
        // A report every 500 ms is taken, more often is not.
        tokio::select! {
            _ = pace.tick() => berta_udp.report(own.voice.stream_id, 0.2).await,
            hint = anna.expect(of_type!(QualityHint)) => break hint,
        }
    };
    assert!(told.fec && told.expected_loss > 0.0, "{told:?}");
    let stats = server.rooms.traffic(channel).await;
    assert_eq!(stats.round_trip_ms, Some(40.0));
    assert!((stats.reported_loss.expect("reported") - 0.2).abs() < 0.01);
}
