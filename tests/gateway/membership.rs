//! Switches, moderation and leaving, as the others in the channel see them.

use std::time::{Duration, Instant};

use antiphon_core::gateway::{
    AudioBytes, AudioData, ErrorCode, LeaveChannel, LeaveReason, MediaTransport, ServerMessage, SetVoiceState,
    StartAudio, StopAudio,
};

use crate::{client::of_type, server::Server};

#[tokio::test]
async fn switches_are_told_to_everyone_once() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let set = |muted, deafened| SetVoiceState { channel_id: channel, muted, deafened };
    assert_eq!(server.client("clara").await.refused(set(Some(true), None)).await, ErrorCode::PermissionDenied);

    anna.done(set(Some(true), None)).await;
    anna.done(set(None, Some(true))).await;
    anna.done(set(Some(true), Some(true))).await;
    for client in [&mut anna, &mut berta] {
        let muted = client.expect(of_type!(VoiceStateChanged)).await;
        assert_eq!((muted.muted, muted.deafened, muted.server_muted), (true, false, false));
        let deafened = client.expect(of_type!(VoiceStateChanged)).await;
        assert_eq!((deafened.muted, deafened.deafened), (true, true));
        assert_eq!((deafened.position.offset, deafened.by), (muted.position.offset + 1, deafened.user_id));
    }
    berta.stays_silent(|message| matches!(message, ServerMessage::QualityHint(_))).await;
    let members = server.rooms.members(channel).await.expect("known");
    assert!(members.iter().any(|member| member.user_id == anna.id() && member.muted && member.deafened));
}

#[tokio::test]
async fn a_moderators_mute_survives_a_rejoin() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    assert!(server.rooms.set_server_mute(channel, berta.id(), true, anna.id()).await.expect("said"));
    assert!(!server.rooms.set_server_mute(channel, berta.id(), true, anna.id()).await.expect("said"), "muted already");
    let changed = berta.expect(of_type!(VoiceStateChanged)).await;
    assert!(changed.server_muted && !changed.muted && changed.by == anna.id());
    assert_eq!(berta.refused(StartAudio { channel_id: channel }).await, ErrorCode::PermissionDenied);

    berta.request(LeaveChannel { channel_id: channel }).await;
    let joined = berta.join(channel, MediaTransport::Websocket).await;
    let own = joined.members.iter().find(|member| member.user_id == berta.id()).expect("in it");
    assert!(own.server_muted);
    assert_eq!(berta.refused(StartAudio { channel_id: channel }).await, ErrorCode::PermissionDenied);
    assert!(server.rooms.set_server_mute(channel, berta.id(), false, anna.id()).await.expect("said"));
    berta.done(StartAudio { channel_id: channel }).await;
}

#[tokio::test]
async fn announcements_are_told_once_and_end_with_a_mute() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    for _ in 0..2 {
        anna.done(StartAudio { channel_id: channel }).await;
    }
    assert_eq!(berta.expect(of_type!(AudioStarted)).await.user_id, anna.id());
    assert_eq!(server.rooms.traffic(channel).await.speaking_users, 1);
    anna.done(StopAudio { channel_id: channel }).await;
    assert_eq!(berta.expect(of_type!(AudioStopped)).await.user_id, anna.id());
    anna.done(StartAudio { channel_id: channel }).await;
    berta.expect(of_type!(AudioStarted)).await;
    anna.done(SetVoiceState { channel_id: channel, muted: Some(true), deafened: None }).await;
    berta.expect(of_type!(AudioStopped)).await;
    berta.expect(of_type!(VoiceStateChanged)).await;
    assert!(berta.passed_over.iter().all(|message| matches!(message, ServerMessage::QualityHint(_))));
    assert_eq!(anna.refused(StartAudio { channel_id: channel }).await, ErrorCode::InvalidInput);
}

#[tokio::test]
async fn an_announcement_without_sound_ends_by_itself() {
    let soon = Duration::from_millis(200);
    let server = Server::with(|_, rooms| rooms.announced_for = soon).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    // Announcing again once it has ended begins anew.
    for _ in 0..2 {
        let began = Instant::now();
        anna.done(StartAudio { channel_id: channel }).await;
        berta.expect(of_type!(AudioStarted)).await;
        berta.expect(of_type!(AudioStopped)).await;
        assert!(began.elapsed() >= soon, "{:?}", began.elapsed());
        assert_eq!(server.rooms.traffic(channel).await.speaking_users, 0);
    }
}

#[tokio::test]
async fn an_announcement_with_sound_lasts_as_long_as_the_sound() {
    let soon = Duration::from_millis(400);
    let server = Server::with(|_, rooms| rooms.announced_for = soon).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let frame = || AudioData {
        channel_id: channel,
        data: AudioBytes(vec![0xfc; 40]),
        sequence: None,
        timestamp: None,
        kind: None,
        level: Some(20),
    };
    loop {
        let began = Instant::now();
        anna.done(StartAudio { channel_id: channel }).await;
        let (mut last, mut pause) = (began, Duration::ZERO);
        while began.elapsed() < soon * 2 {
            anna.send(frame()).await;
            pause = pause.max(last.elapsed());
            last = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        berta.expect(of_type!(AudioStopped)).await;
        // A busy machine may have made a pause of its own, which ends a spurt: that shows nothing.
        if pause < Duration::from_millis(150) {
            assert!(last.elapsed() >= Duration::from_millis(250), "it ended with the sound, not with the announcement");
            break;
        }
        berta.passed_over.clear();
    }
}

#[tokio::test]
async fn a_kick_removes_and_lets_return() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    assert!(!server.rooms.kick(channel, berta.id(), anna.id(), None).await.expect("said"), "not in it");
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    assert!(server.rooms.kick(channel, berta.id(), anna.id(), None).await.expect("said"));
    let removed = berta.expect(of_type!(Removed)).await;
    assert_eq!((removed.reason, removed.by, removed.message), (LeaveReason::Kicked, Some(anna.id()), None));
    let left = anna.expect(of_type!(UserLeft)).await;
    assert_eq!((left.user_id, left.reason), (berta.id(), LeaveReason::Kicked));
    assert_eq!(berta.refused(LeaveChannel { channel_id: channel }).await, ErrorCode::PermissionDenied);
    berta.join(channel, MediaTransport::Udp).await;
}

#[tokio::test]
async fn a_goodbye_leaves_all_channels_at_once() {
    let server = Server::start().await;
    for code in [1000, 1001] {
        let mut anna = server.client(&format!("anna{code}")).await;
        let channels = [server.channel(anna.id(), 10).await, server.channel(anna.id(), 10).await];
        let mut berta = server.client(&format!("berta{code}")).await;
        for channel in channels {
            anna.join(channel, MediaTransport::Udp).await;
            berta.join(channel, MediaTransport::Websocket).await;
        }
        let id = anna.id();
        anna.close(code).await;
        for _ in channels {
            let left = berta.expect(of_type!(UserLeft)).await;
            assert_eq!((left.user_id, left.reason), (id, LeaveReason::Left));
        }
        assert_eq!(server.rooms.occupancies(&channels).await, [1, 1]);
        assert_eq!(server.gateway.sessions_count(), 1);
        berta.close(1000).await;
    }
}
