//! What a client that was away gets back, and what the others see of that.

use std::{collections::HashMap, time::Duration};

use antiphon_core::{
    gateway::{
        ErrorCode, Heartbeat, LeaveChannel, LeaveReason, MediaTransport, Position, Recover, Resume, ResumedChannel,
        ServerMessage, SetVoiceState,
    },
    ids::ChannelId,
};

use crate::{
    client::{Client, join, of_type, resume},
    server::Server,
};

fn mute(channel: ChannelId, muted: bool) -> SetVoiceState {
    SetVoiceState { channel_id: channel, muted: Some(muted), deafened: None }
}

fn offsets(events: &[serde_json::Value]) -> Vec<u64> {
    events.iter().map(|event| event["position"]["offset"].as_u64().expect("a place")).collect()
}

#[tokio::test]
async fn nothing_is_missed_and_the_others_see_nothing() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut clara = server.client("clara").await;
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    let before = berta.join(channel, MediaTransport::Udp).await;
    let id = berta.id();
    let lost = berta.lose();

    anna.done(mute(channel, true)).await;
    clara.join(channel, MediaTransport::Websocket).await;
    clara.request(LeaveChannel { channel_id: channel }).await;
    let positions = HashMap::from([(channel, before.position.clone())]);
    let (mut berta, resumed) = Client::resume(&server, Resume { positions, ..resume(&lost) }).await;
    anna.done(mute(channel, false)).await;

    assert_eq!((resumed.session_id, resumed.user.id), (lost.session_id, id));
    assert_ne!(resumed.resume_token, lost.resume_token);
    let [ResumedChannel { joined, recovered, events }] = &resumed.channels[..] else { panic!("one channel") };
    assert_eq!(*recovered, Some(true));
    let events = events.as_deref().expect("all that was missed");
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["VoiceStateChanged", "UserJoined", "UserLeft"]);
    let first = before.position.offset;
    assert_eq!(offsets(events), [first + 1, first + 2, first + 3]);
    assert_eq!((joined.position.offset, joined.members.len()), (first + 3, 2));
    // What came later comes by itself.
    assert_eq!(berta.expect(of_type!(VoiceStateChanged)).await.position.offset, first + 4);

    // The same stream, everything else of the UDP session new.
    assert_eq!(joined.voice.stream_id, before.voice.stream_id);
    let (new, old) = (joined.voice.udp.as_ref().expect("udp"), before.voice.udp.as_ref().expect("udp"));
    assert_ne!((new.session_id, &new.session_key), (old.session_id, &old.session_key));
    // The group's key is in force or announced; after a resume it changes.
    let rotated = berta.expect(of_type!(KeyRotated)).await;
    assert_eq!(rotated.group_id, new.group_id);
    assert_ne!(rotated.key, old.group_key.key);

    // Anna saw Clara, and nothing of Berta.
    for expected in [clara.id(), clara.id()] {
        let about = anna.expect(|message| match message {
            ServerMessage::UserJoined(event) if event.user_id != id => Some(event.user_id),
            ServerMessage::UserLeft(event) => Some(event.user_id),
            _ => None,
        });
        assert_eq!(about.await, expected);
    }
}

#[tokio::test]
async fn every_channel_comes_back_and_a_position_decides_what_is_told() {
    let server = Server::with(|_, rooms| rooms.membership.journal_events = 3).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut channels = Vec::new();
    let mut positions = HashMap::new();
    for _ in 0..3 {
        let channel = server.channel(anna.id(), 10).await;
        anna.join(channel, MediaTransport::Websocket).await;
        positions.insert(channel, berta.join(channel, MediaTransport::Websocket).await.position);
        channels.push(channel);
    }
    let lost = berta.lose();
    for muted in [true, false, true, false] {
        anna.done(mute(channels[1], muted)).await;
    }
    positions.remove(&channels[2]);
    let (_, resumed) = Client::resume(&server, Resume { positions, ..resume(&lost) }).await;
    let of = |channel| resumed.channels.iter().find(|one| one.joined.channel_id == channel).expect("resumed");
    assert_eq!(resumed.channels.len(), 3);
    assert_eq!((of(channels[0]).recovered, of(channels[0]).events.as_deref()), (Some(true), Some(&[][..])));
    assert_eq!((of(channels[1]).recovered, &of(channels[1]).events), (Some(false), &None));
    assert_eq!((of(channels[2]).recovered, &of(channels[2]).events), (None, &None));
    assert!(resumed.channels.iter().all(|one| one.joined.members.len() == 2));
}

#[tokio::test]
async fn a_gap_is_filled_with_every_event_or_with_the_state() {
    let server = Server::with(|_, rooms| rooms.membership.journal_events = 3).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let position = anna.join(channel, MediaTransport::Websocket).await.position;
    berta.join(channel, MediaTransport::Websocket).await;
    for muted in [true, false] {
        berta.done(mute(channel, muted)).await;
    }
    let recover = |offset: u64, epoch: &str| Recover {
        channel_id: channel,
        position: Position { epoch: epoch.to_owned(), offset },
    };
    let first = position.offset;
    let ServerMessage::Recovered(all) = anna.request(recover(first, &position.epoch)).await else { panic!("refused") };
    assert!(all.recovered && all.members.is_none() && all.position.is_none());
    assert_eq!(offsets(&all.events.expect("all")), [first + 1, first + 2, first + 3]);
    let ServerMessage::Recovered(none) = anna.request(recover(first + 3, &position.epoch)).await else {
        panic!("refused")
    };
    assert_eq!((none.recovered, none.events), (true, Some(Vec::new())));

    berta.done(mute(channel, true)).await;
    for (offset, epoch) in [(first, position.epoch.as_str()), (first + 3, "another"), (first + 99, &position.epoch)] {
        let ServerMessage::Recovered(state) = anna.request(recover(offset, epoch)).await else { panic!("refused") };
        assert!(!state.recovered && state.events.is_none());
        assert_eq!(state.members.expect("all members").len(), 2);
        assert_eq!(state.position, Some(Position { epoch: position.epoch.clone(), offset: first + 4 }));
    }
    let mut stranger = server.client("clara").await;
    assert_eq!(stranger.refused(recover(first, &position.epoch)).await, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_lost_session_keeps_its_places_for_the_grace() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 1).await;
    anna.join(channel, MediaTransport::Udp).await;
    let lost = anna.lose();
    assert_eq!(berta.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::ChannelFull);
    let (mut anna, resumed) = Client::resume(&server, resume(&lost)).await;
    assert_eq!(resumed.channels.len(), 1);
    anna.request(LeaveChannel { channel_id: channel }).await;
    berta.join(channel, MediaTransport::Udp).await;
}

#[tokio::test]
async fn after_the_grace_the_others_see_it_leave() {
    let server = Server::with(|gateway, _| gateway.resume_grace = Duration::from_millis(50)).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    let id = anna.id();
    let lost = anna.lose();
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!((left.user_id, left.reason), (id, LeaveReason::Timeout));
    assert_eq!(server.rooms.occupancy(channel).await, 1);
    let mut late = Client::connect(&server).await;
    assert_eq!(late.refused(resume(&lost)).await, ErrorCode::Unauthenticated);
    assert_eq!(late.closed().await.0, 4009);
    assert_eq!(server.gateway.sessions_count(), 1);
}

#[tokio::test]
async fn a_used_token_is_worth_nothing() {
    let server = Server::start().await;
    let anna = server.client("anna").await;
    let first = anna.lose();
    let (mut second, _) = Client::resume(&server, resume(&first)).await;
    second.send(Heartbeat {}).await;
    second.expect(of_type!(HeartbeatAck)).await;
    let mut thief = Client::connect(&server).await;
    assert_eq!(thief.refused(resume(&first)).await, ErrorCode::Unauthenticated);
    assert_eq!(thief.closed().await.0, 4003);
    // The rightful one is undisturbed.
    let (mut third, _) = Client::resume(&server, resume(&second.hello)).await;
    third.send(Heartbeat {}).await;
    third.expect(of_type!(HeartbeatAck)).await;
}

#[tokio::test]
async fn who_was_removed_while_away_is_not_in_the_channel_any_more() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channels = [server.channel(anna.id(), 10).await, server.channel(anna.id(), 10).await];
    for channel in channels {
        berta.join(channel, MediaTransport::Udp).await;
    }
    let id = berta.id();
    let lost = berta.lose();
    assert!(server.rooms.kick(channels[0], id, anna.id(), None).await.expect("said"));
    let (_, resumed) = Client::resume(&server, resume(&lost)).await;
    let left: Vec<_> = resumed.channels.iter().map(|one| one.joined.channel_id).collect();
    assert_eq!(left, [channels[1]]);
    anna.join(channels[0], MediaTransport::Udp).await;
    assert_eq!(server.rooms.occupancy(channels[0]).await, 1);
}

/// Guards against events that fall between the state in `Resumed` and what is sent after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_during_a_resume_are_neither_lost_nor_doubled() {
    let server = Server::with(|_, rooms| rooms.membership.journal_events = 10_000).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    let mut position = berta.join(channel, MediaTransport::Websocket).await.position;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let noise = tokio::spawn({
        let stop = std::sync::Arc::clone(&stop);
        async move {
            let mut muted = false;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                muted = !muted;
                anna.done(mute(channel, muted)).await;
                anna.passed_over.clear();
                // Within the account's rate.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for _ in 0..20 {
        let positions = HashMap::from([(channel, position.clone())]);
        let (next, resumed) = Client::resume(&server, Resume { positions, ..resume(&berta.lose()) }).await;
        berta = next;
        let events = resumed.channels[0].events.as_deref().expect("all that was missed");
        let expected: Vec<u64> = (position.offset + 1..=resumed.channels[0].joined.position.offset).collect();
        assert_eq!(offsets(events), expected);
        position = resumed.channels[0].joined.position.clone();
        for _ in 0..5 {
            let changed = berta.expect(of_type!(VoiceStateChanged)).await;
            assert_eq!(changed.position.offset, position.offset + 1);
            position = changed.position;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    noise.await.expect("the noise ends");
}
