//! Channels with members on two nodes: what one node does reaches the others' members, in the journal's order.

use antiphon::store::{Ban, ChannelChange};
use antiphon_core::{
    engine::{Event, FrameBytes},
    gateway::{
        ErrorCode, LeaveChannel, LeaveReason, MediaTransport, Position, Recover, ServerMessage, SetVoiceState,
        StartAudio,
    },
    ids::ChannelId,
    wire::frame::FrameHeader,
};

use crate::{
    client::{Client, join, of_type},
    server::Server,
};

fn mute(channel: ChannelId, muted: bool) -> SetVoiceState {
    SetVoiceState { channel_id: channel, muted: Some(muted), deafened: None }
}

/// The place of what has one in the channel's journal.
pub(crate) fn place(message: &ServerMessage) -> Option<Position> {
    match message {
        ServerMessage::UserJoined(event) => Some(event.position.clone()),
        ServerMessage::UserLeft(event) => Some(event.position.clone()),
        ServerMessage::VoiceStateChanged(event) => Some(event.position.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn members_of_both_nodes_see_each_other_in_one_order() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    let first = anna.join(channel, MediaTransport::Udp).await;
    let second = berta.join(channel, MediaTransport::Websocket).await;
    assert_eq!((second.members.len(), second.channel.current_users), (2, 2));
    assert_eq!(second.position.offset, first.position.offset + 1);
    let came = anna.expect(of_type!(UserJoined)).await;
    assert_eq!((came.user_id, came.stream_id), (berta.id(), second.voice.stream_id));
    assert_eq!((came.media, came.position), (MediaTransport::Websocket, second.position.clone()));

    anna.done(mute(channel, true)).await;
    berta.done(mute(channel, true)).await;
    for client in [&mut anna, &mut berta] {
        let states =
            [client.expect(of_type!(VoiceStateChanged)).await, client.expect(of_type!(VoiceStateChanged)).await];
        let offsets = states.map(|state| state.position.offset);
        assert_eq!(offsets, [second.position.offset + 1, second.position.offset + 2]);
    }
    for server in [&one, &two] {
        let members = server.rooms.members(channel).await.expect("known");
        assert!(members.len() == 2 && members.iter().all(|member| member.muted));
        assert_eq!(server.rooms.occupancy(channel).await, 2);
    }
    anna.request(LeaveChannel { channel_id: channel }).await;
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!((left.user_id, left.reason), (anna.id(), LeaveReason::Left));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_counted_over_both_nodes() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let owner = one.guest("owner").await.user.id;
    let channel = one.channel(owner, 10).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        for (node, server) in [("one", &one), ("two", &two)] {
            clients.push(server.client(&format!("{node}{number}")).await);
        }
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let answer = client.request(join(channel, MediaTransport::Websocket)).await;
            let joined = matches!(answer, ServerMessage::ChannelJoined(_));
            (client, joined)
        });
    }
    let clients = tasks.join_all().await;
    assert_eq!(clients.iter().filter(|(_, joined)| *joined).count(), 10);
    assert_eq!((one.rooms.occupancy(channel).await, two.rooms.occupancy(channel).await), (10, 10));
}

#[tokio::test]
async fn moderators_reach_members_of_another_node() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Udp).await;

    assert!(one.rooms.set_server_mute(channel, berta.id(), true, anna.id()).await.expect("said"));
    let state = berta.expect(of_type!(VoiceStateChanged)).await;
    assert!(state.server_muted && state.by == anna.id());
    assert_eq!(berta.refused(StartAudio { channel_id: channel }).await, ErrorCode::PermissionDenied);

    let words = Some("enough".to_owned());
    assert!(one.rooms.kick(channel, berta.id(), anna.id(), words.clone()).await.expect("said"));
    let removed = berta.expect(of_type!(Removed)).await;
    assert_eq!((removed.reason, removed.by, removed.message), (LeaveReason::Kicked, Some(anna.id()), words));
    assert_eq!(anna.expect(of_type!(UserLeft)).await.reason, LeaveReason::Kicked);
    assert_eq!(berta.refused(LeaveChannel { channel_id: channel }).await, ErrorCode::PermissionDenied);

    // The mute holds over nodes and rejoins, also where nobody of the channel is.
    berta.join(channel, MediaTransport::Udp).await;
    assert_eq!(berta.refused(StartAudio { channel_id: channel }).await, ErrorCode::PermissionDenied);
    let members = one.rooms.members(channel).await.expect("known");
    assert!(members.iter().any(|member| member.user_id == berta.id() && member.server_muted));

    let (user, by) = (berta.id(), anna.id());
    one.store.set_ban(Ban { channel, user, by, reason: None, until: None }).await.expect("stored");
    assert!(two.rooms.ban(channel, user, by, None).await.expect("said"));
    assert_eq!(berta.expect(of_type!(Removed)).await.reason, LeaveReason::Banned);
    assert_eq!(berta.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::PermissionDenied);
    assert_eq!(one.rooms.occupancy(channel).await, 1);
}

#[tokio::test]
async fn a_user_who_joins_on_another_node_leaves_on_the_first() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let token = one.guest("anna").await.access_token;
    let mut older = Client::with_token(&one, &token).await;
    let mut newer = Client::with_token(&two, &token).await;
    let mut berta = one.client("berta").await;
    let channel = one.channel(older.id(), 2).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let first = older.join(channel, MediaTransport::Udp).await;
    let joined = newer.join(channel, MediaTransport::Udp).await;
    assert_eq!(joined.members.len(), 2, "full, but it is their own place");
    let removed = older.expect(of_type!(Removed)).await;
    assert_eq!((removed.reason, removed.by), (LeaveReason::Replaced, Some(older.id())));
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!((left.reason, left.stream_id), (LeaveReason::Replaced, first.voice.stream_id));
    let came = berta.expect(|message| match message {
        ServerMessage::UserJoined(event) if event.stream_id == joined.voice.stream_id => Some(event.position.clone()),
        _ => None,
    });
    assert_eq!(came.await, joined.position);
    assert_eq!(older.refused(LeaveChannel { channel_id: channel }).await, ErrorCode::PermissionDenied);
    newer.request(LeaveChannel { channel_id: channel }).await;
    assert_eq!(berta.expect(of_type!(UserLeft)).await.reason, LeaveReason::Left);
}

#[tokio::test]
async fn what_the_api_changes_on_one_node_holds_on_the_other() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let change = ChannelChange { max_users: Some(3), ..ChannelChange::default() };
    let changed = one.store.update_channel(channel, change).await.expect("asked").expect("changed");
    one.rooms.channel_changed(changed).await;
    // Joining again shows the channel as the node knows it.
    while berta.join(channel, MediaTransport::Websocket).await.channel.max_users != 3 {
        tokio::task::yield_now().await;
    }

    one.store.delete_channel(channel).await.expect("deleted");
    one.rooms.channel_deleted(channel).await;
    for client in [&mut anna, &mut berta] {
        let removed = client.expect(of_type!(Removed)).await;
        assert_eq!((removed.reason, removed.by), (LeaveReason::Kicked, None));
        assert_eq!(client.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::ChannelNotFound);
    }
    one.gateway.disconnect_user(berta.id()).await;
    assert_eq!(berta.closed().await.0, 4014);
    assert_eq!(two.gateway.sessions_count(), 0);
}

#[tokio::test]
async fn voices_of_another_node_are_told_and_tunnelled() {
    let (one, two, _cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    let stream = anna.join(channel, MediaTransport::Udp).await.voice.stream_id;
    berta.join(channel, MediaTransport::Websocket).await;
    // As the media workers tell of what comes over the relay.
    let header = FrameHeader { stream, sequence: 7, timestamp: 960, kind_flags: 0, level: 30 };
    let bytes = FrameBytes::copy_from(&[0xfc; 40]).expect("short");
    two.events.send(Event::Speaking { channel, stream, speaking: true }).await.expect("taken");
    two.events.send(Event::Tunnel { channel, header, bytes }).await.expect("taken");
    assert_eq!(berta.expect(of_type!(AudioStarted)).await.user_id, anna.id());
    let frame = berta.expect(of_type!(AudioFrame)).await;
    assert_eq!((frame.user_id, frame.stream_id, frame.sequence, frame.data.0.len()), (anna.id(), stream, 7, 40));
    assert_eq!(two.rooms.traffic(channel).await.speaking_users, 1);
    // A mute ends it at once, also by hand of a moderator on the other node.
    one.rooms.set_server_mute(channel, anna.id(), true, berta.id()).await.expect("said");
    assert_eq!(berta.expect(of_type!(AudioStopped)).await.user_id, anna.id());
}

/// A node whose queue of notices is short misses some; its members miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_notices_are_not_seen() {
    let (one, two, _cluster) = Server::two(|_, rooms| {
        rooms.membership.notices = 1;
        rooms.membership.journal_events = 10_000;
    })
    .await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    let mut newest = berta.join(channel, MediaTransport::Websocket).await.position;
    for round in 0..200 {
        anna.done(mute(channel, round % 2 == 0)).await;
        anna.passed_over.clear();
    }
    let end = newest.offset + 200;
    while newest.offset < end {
        let next = berta.expect(place).await;
        assert_eq!((&next.epoch, next.offset), (&newest.epoch, newest.offset + 1));
        newest = next;
    }
}

/// Where the journal does not reach back, members are told the difference, and a client's `Recover` gets the state.
#[tokio::test]
async fn a_journal_that_is_too_short_is_made_up_for_by_the_state() {
    let (one, two, cluster) = Server::two(|_, rooms| rooms.membership.journal_events = 2).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let mut clara = one.client("clara").await;
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    clara.join(channel, MediaTransport::Websocket).await;
    let known = berta.join(channel, MediaTransport::Websocket).await.position;
    cluster.set_reachable(antiphon_core::ids::NodeNumber(2), false);
    clara.request(LeaveChannel { channel_id: channel }).await;
    for muted in [true, false, true] {
        anna.done(mute(channel, muted)).await;
    }
    cluster.set_reachable(antiphon_core::ids::NodeNumber(2), true);
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!((left.user_id, left.position.offset), (clara.id(), known.offset + 4));
    let state = berta.expect(of_type!(VoiceStateChanged)).await;
    assert!(state.user_id == anna.id() && state.muted && state.position == left.position);
    let recover = Recover { channel_id: channel, position: known };
    let ServerMessage::Recovered(answer) = berta.request(recover).await else { panic!("refused") };
    assert!(!answer.recovered);
    assert_eq!((answer.members.expect("all").len(), answer.position), (2, Some(left.position)));
}
