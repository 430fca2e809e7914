//! Sessions that move to another node by Resume.

use std::{collections::HashMap, time::Duration};

use antiphon_core::{
    engine::Counter,
    gateway::{
        ChannelJoined, ErrorCode, LeaveChannel, LeaveReason, MediaTransport, PublishKind, Resume, ServerMessage,
        SetVoiceState,
    },
    ids::{ChannelId, SessionId},
};

use crate::{
    client::{Client, Received, of_type, resume},
    rooms::{enter, offer, publish},
    server::{PATIENCE, Server},
    udp::Udp,
};

fn mute(channel: ChannelId, muted: bool) -> SetVoiceState {
    SetVoiceState { channel_id: channel, muted: Some(muted), deafened: None }
}

/// Joins, and waits until the other node may know.
async fn join_for_good(client: &mut Client, channel: ChannelId, media: MediaTransport) -> ChannelJoined {
    let joined = client.join(channel, media).await;
    // What changes nothing is answered after what came before it is done.
    client.done(mute(channel, false)).await;
    joined
}

#[tokio::test]
async fn the_others_see_nothing_and_nothing_is_missed() {
    let (one, two, _cluster) = Server::two(|_, rooms| rooms.old_udp_grace = Duration::from_millis(100)).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    let before = join_for_good(&mut berta, channel, MediaTransport::Udp).await;
    berta.done(mute(channel, true)).await;
    let known = berta.expect(of_type!(VoiceStateChanged)).await.position;
    anna.done(mute(channel, true)).await;

    let positions = HashMap::from([(channel, known.clone())]);
    let (mut moved, resumed) = Client::resume(&two, Resume { positions, ..resume(&berta.hello) }).await;
    let (code, reason) = berta.closed().await;
    assert_eq!((code, &reason["resume"]), (4015, &serde_json::Value::Bool(false)));
    let [one_channel] = &resumed.channels[..] else { panic!("one channel") };
    assert_eq!((one_channel.recovered, one_channel.events.as_ref().map(Vec::len)), (Some(true), Some(1)));
    let (joined, old) = (&one_channel.joined, before.voice.udp.as_ref().expect("udp"));
    assert_eq!((joined.voice.stream_id, joined.members.len()), (before.voice.stream_id, 2));
    assert!(joined.members.iter().all(|member| member.muted), "one's own switches came along");
    let new = joined.voice.udp.as_ref().expect("udp");
    assert_eq!(new.cipher, old.cipher);
    assert_ne!(new.session_key, old.session_key);
    Udp::connected(new).await;

    // It is in the channel here, and what happens comes in order.
    moved.done(mute(channel, false)).await;
    let state = moved.expect(of_type!(VoiceStateChanged)).await;
    assert_eq!((state.user_id, state.position.offset), (moved.id(), known.offset + 2));
    anna.expect(of_type!(VoiceStateChanged)).await;
    let (own, theirs) =
        (anna.expect(of_type!(VoiceStateChanged)).await, anna.expect(of_type!(VoiceStateChanged)).await);
    assert_eq!((own.user_id, theirs.user_id), (anna.id(), moved.id()));
    assert!(anna.passed_over.iter().all(|message| !matches!(message.name(), "UserLeft" | "KeyRotated")));

    // Nothing of it is left on the first node.
    let left = async {
        while one.media.counters().engine[Counter::MembersPresent] != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("it lets go");
    assert_eq!((one.gateway.sessions_count(), two.gateway.sessions_count()), (1, 1));
    moved.request(LeaveChannel { channel_id: channel }).await;
    assert_eq!(anna.expect(of_type!(UserLeft)).await.reason, LeaveReason::Left);
}

#[tokio::test]
async fn a_token_is_worth_one_move() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let mut anna = one.client("anna").await;
    let channel = one.channel(anna.id(), 10).await;
    join_for_good(&mut anna, channel, MediaTransport::Websocket).await;
    let first = anna.hello.clone();
    let (mut moved, _) = Client::resume(&two, resume(&first)).await;
    assert_eq!(anna.closed().await.0, 4015);
    // The client shows that it has read the new token.
    moved.done(mute(channel, true)).await;
    moved.done(mute(channel, false)).await;
    for server in [&one, &two] {
        let mut thief = Client::connect(server).await;
        assert_eq!(thief.refused(resume(&first)).await, ErrorCode::Unauthenticated);
    }
    let unknown = Resume { session_id: SessionId(uuid::Uuid::now_v7()), ..resume(&first) };
    let mut stranger = Client::connect(&one).await;
    assert_eq!(stranger.refused(unknown).await, ErrorCode::Unauthenticated);
    // Back again, before the first node has let go of everything.
    let (mut back, resumed) = Client::resume(&one, resume(&moved.hello)).await;
    assert_eq!(moved.closed().await.0, 4015);
    assert_eq!(resumed.channels.len(), 1);
    back.done(mute(channel, true)).await;
    assert_eq!((one.rooms.occupancy(channel).await, two.gateway.sessions_count()), (1, 0));
    back.close(1000).await;
    assert_eq!(two.rooms.occupancy(channel).await, 0);
}

#[tokio::test]
async fn who_was_removed_while_on_the_way_is_not_in_the_channel_any_more() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channels = [one.channel(anna.id(), 10).await, one.channel(anna.id(), 10).await];
    anna.join(channels[1], MediaTransport::Websocket).await;
    for channel in channels {
        join_for_good(&mut berta, channel, MediaTransport::Udp).await;
    }
    let (id, lost) = (berta.id(), berta.lose());
    assert!(two.rooms.kick(channels[0], id, anna.id(), None).await.expect("said"));
    let (_, resumed) = Client::resume(&two, resume(&lost)).await;
    let places: Vec<_> = resumed.channels.iter().map(|one| one.joined.channel_id).collect();
    assert_eq!(places, [channels[1]]);
    assert_eq!((one.rooms.occupancy(channels[0]).await, one.rooms.occupancy(channels[1]).await), (0, 2));
}

/// The grace of a connection lost on the old node must not end what goes on elsewhere.
#[tokio::test]
async fn the_old_nodes_grace_ends_nothing() {
    let (one, two, _cluster) = Server::two(|gateway, rooms| {
        gateway.resume_grace = Duration::from_millis(300);
        rooms.old_udp_grace = Duration::from_millis(20);
    })
    .await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    join_for_good(&mut berta, channel, MediaTransport::Websocket).await;
    let (mut moved, _) = Client::resume(&two, resume(&berta.lose())).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    moved.done(mute(channel, true)).await;
    assert!(anna.expect(of_type!(VoiceStateChanged)).await.muted);
    assert_eq!(one.rooms.occupancy(channel).await, 2);
    // Lost there, it ends there.
    let id = moved.id();
    moved.lose();
    let left = anna.expect(of_type!(UserLeft)).await;
    assert_eq!((left.user_id, left.reason), (id, LeaveReason::Timeout));
}

/// A join whose record was not written when the session moved is undone: nobody stays whom no node has.
#[tokio::test]
async fn who_moves_in_the_moment_of_a_join_is_in_the_channel_or_not() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let mut anna = one.client("anna").await;
    let channel = one.channel(anna.id(), 100).await;
    anna.join(channel, MediaTransport::Websocket).await;
    for number in 0..20 {
        let mut berta = one.client(&format!("berta{number}")).await;
        berta.join(channel, MediaTransport::Udp).await;
        let (moved, resumed) = Client::resume(&two, resume(&berta.hello)).await;
        assert_eq!(berta.closed().await.0, 4015);
        let id = moved.id();
        moved.close(1000).await;
        let left = anna.expect(of_type!(UserLeft)).await;
        assert_eq!(left.user_id, id, "{} channels were resumed", resumed.channels.len());
    }
    assert_eq!(one.rooms.occupancy(channel).await, 1);
}

/// A client that does not hear back tries again, perhaps elsewhere: the last one has the session, and nobody is left
/// behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_resumes_at_once_on_two_nodes_the_last_one_has_everything() {
    for round in 0..10 {
        let (one, two, _cluster) = Server::two(|_, rooms| {
            rooms.old_udp_grace = Duration::from_millis(50);
            rooms.resume_grace = Duration::from_millis(500);
        })
        .await;
        let mut anna = one.client("anna").await;
        let channel = one.channel(anna.id(), 3).await;
        join_for_good(&mut anna, channel, MediaTransport::Udp).await;
        let id = anna.id();
        let hello = anna.lose();
        let attempt = async |server: &Server| {
            let mut client = Client::connect(server).await;
            client.send(resume(&hello)).await;
            // Whoever came too early is replaced, perhaps before there is an answer.
            let resumed = loop {
                match client.received().await {
                    Received::Message(message, ..) if matches!(*message, ServerMessage::Resumed(_)) => break true,
                    Received::Message(message, ..) if matches!(*message, ServerMessage::Error(_)) => break false,
                    Received::Message(..) => {}
                    Received::Closed(..) => break false,
                }
            };
            (resumed, client)
        };
        let attempts = tokio::join!(attempt(&one), attempt(&two), attempt(&one), attempt(&two));
        let (mut resumed, clients): (Vec<_>, Vec<_>) =
            [attempts.0, attempts.1, attempts.2, attempts.3].into_iter().unzip();
        assert!(resumed.drain(..).any(|resumed| resumed), "round {round}: somebody has it");
        let has = async |server: &Server| {
            let members = server.rooms.members(channel).await.expect("known");
            members.iter().filter(|member| member.user_id == id).count()
        };
        assert_eq!((has(&one).await, has(&two).await), (1, 1), "round {round}");
        for mut client in clients {
            // Of those that were replaced it is closed already.
            let _ = client.socket.close(None).await;
        }
        let gone = async {
            while has(&one).await + has(&two).await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("round {round}: a ghost"));
    }
}

#[tokio::test]
async fn who_sees_a_publisher_is_not_told_that_they_stopped_when_they_have_moved() {
    let (one, two, _cluster) = Server::two(|_, rooms| rooms.old_udp_grace = Duration::from_secs(2)).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.request(enter(Some(channel), None)).await;
    berta.request(enter(Some(channel), None)).await;
    assert!(matches!(anna.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    // What changes nothing is answered after what came before it is done.
    anna.done(mute(channel, false)).await;
    let (mut moved, _) = Client::resume(&two, resume(&anna.hello)).await;
    assert!(matches!(moved.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    let left = async {
        while one.media.counters().engine[Counter::MembersPresent] != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("it lets go");
    // What a worker tells is told on in order: whatever it said of her is there before what it says of another.
    let mut carla = one.client("carla").await;
    carla.request(enter(Some(channel), None)).await;
    assert!(matches!(carla.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    let mut of_anna = Vec::new();
    loop {
        let told = berta.expect(of_type!(PublisherJoined)).await.payload.publisher;
        match (told.id == moved.id(), told.kinds) {
            (true, kinds) => of_anna.push(kinds),
            (false, kinds) if kinds.is_empty() => {}
            (false, _) => break,
        }
    }
    assert_eq!(of_anna, [vec![PublishKind::Audio]]);
}
