//! What all nodes share is away for a while, for one node or with all that it knew.

use antiphon::store::Ban;
use antiphon_core::{
    gateway::{ErrorCode, LeaveChannel, LeaveReason, MediaTransport, ServerMessage, SetVoiceState},
    ids::{ChannelId, NodeNumber, UserId},
};

use crate::{
    client::{Client, join, of_type, resume},
    server::{PATIENCE, Server},
};

const ONE: NodeNumber = NodeNumber(1);

fn mute(channel: ChannelId, muted: bool) -> SetVoiceState {
    SetVoiceState { channel_id: channel, muted: Some(muted), deafened: None }
}

/// Waits until both nodes show exactly these members.
pub(crate) async fn agree(nodes: [&Server; 2], channel: ChannelId, who: &[UserId]) {
    let mut wanted = who.to_vec();
    wanted.sort_unstable();
    let settled = async {
        for server in nodes {
            loop {
                let members = server.rooms.members(channel).await.expect("known");
                if members.iter().map(|member| member.user_id).eq(wanted.iter().copied()) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("the nodes agree");
}

#[tokio::test]
async fn a_node_that_is_cut_off_goes_on_with_its_members() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let (mut clara, mut dora) = (one.client("clara").await, one.client("dora").await);
    let (channel, other) = (one.channel(anna.id(), 4).await, one.channel(anna.id(), 4).await);
    let before = anna.join(channel, MediaTransport::Udp).await.position;
    clara.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    anna.expect(of_type!(UserJoined)).await;
    assert_eq!(anna.expect(of_type!(UserJoined)).await.user_id, berta.id());
    berta.join(other, MediaTransport::Websocket).await;

    cluster.set_reachable(ONE, false);
    anna.done(mute(channel, true)).await;
    let alone = anna.expect(of_type!(VoiceStateChanged)).await.position;
    assert!(alone.epoch.starts_with("local-") && alone.offset == 1, "{alone:?}");
    assert_ne!(alone.epoch, before.epoch);
    // Known channels take whom they have room for; others are not guessed about.
    let joined = dora.join(channel, MediaTransport::Udp).await;
    assert_eq!((joined.members.len(), joined.position.offset), (4, 2));
    let mut emma = one.client("emma").await;
    assert_eq!(emma.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::ChannelFull);
    assert_eq!(emma.refused(join(other, MediaTransport::Udp)).await, ErrorCode::TemporarilyUnavailable);
    // What concerns members of this node can be done, what concerns others cannot.
    let refused = one.rooms.kick(channel, berta.id(), anna.id(), None).await.expect_err("out of reach");
    assert_eq!((refused.code, refused.retry_after_s.is_some()), (ErrorCode::TemporarilyUnavailable, true));
    assert!(one.rooms.set_server_mute(channel, dora.id(), true, anna.id()).await.expect("here"));
    clara.request(LeaveChannel { channel_id: channel }).await;
    // Meanwhile on the other node, which knows nothing of that.
    let frida = two.client("frida").await;
    let mut frida = frida;
    frida.join(channel, MediaTransport::Websocket).await;
    let people = [anna.id(), berta.id(), clara.id(), frida.id()];
    assert_eq!(two.rooms.members(channel).await.expect("known").len(), people.len());

    cluster.set_reachable(ONE, true);
    agree([&one, &two], channel, &[anna.id(), berta.id(), dora.id(), frida.id()]).await;
    assert_eq!(
        anna.expect(|message| match message {
            ServerMessage::UserJoined(event) if event.user_id == frida.id() => Some(event.position.epoch.clone()),
            _ => None,
        })
        .await,
        before.epoch
    );
    assert_eq!(berta.expect(of_type!(UserLeft)).await.user_id, clara.id());
    for server in [&one, &two] {
        let members = server.rooms.members(channel).await.expect("known");
        let muted = |id| members.iter().any(|member| member.user_id == id && (member.muted || member.server_muted));
        assert!(muted(anna.id()) && muted(dora.id()) && !muted(berta.id()));
    }
    // And all is as before.
    dora.request(LeaveChannel { channel_id: channel }).await;
    emma.join(channel, MediaTransport::Udp).await;
    agree([&one, &two], channel, &[anna.id(), berta.id(), emma.id(), frida.id()]).await;
}

#[tokio::test]
async fn what_was_decided_while_a_node_could_not_hear_of_it_holds_afterwards() {
    let (one, _two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channel = one.channel(anna.id(), 4).await;
    anna.join(channel, MediaTransport::Udp).await;
    cluster.set_reachable(ONE, false);
    one.store.set_active(berta.id(), false).await.expect("stored");
    cluster.set_reachable(ONE, true);
    assert_eq!(berta.closed().await.0, 4014, "switched off");
    anna.done(mute(channel, true)).await;
}

#[tokio::test]
async fn what_moderators_stored_while_it_could_not_be_told_takes_effect() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let mut clara = one.client("clara").await;
    let channel = one.channel(anna.id(), 4).await;
    for person in [&mut anna, &mut berta, &mut clara] {
        person.join(channel, MediaTransport::Udp).await;
    }
    cluster.set_reachable(ONE, false);
    let ban = Ban { channel, user: berta.id(), by: anna.id(), reason: None, until: None };
    one.store.set_ban(ban).await.expect("stored");
    one.store.set_server_mute(channel, clara.id(), anna.id()).await.expect("stored");
    cluster.set_reachable(ONE, true);
    assert_eq!(berta.expect(of_type!(Removed)).await.reason, LeaveReason::Banned);
    let muted = clara.expect(of_type!(VoiceStateChanged)).await;
    assert!(muted.server_muted && muted.user_id == clara.id(), "{muted:?}");
    agree([&one, &two], channel, &[anna.id(), clara.id()]).await;
}

#[tokio::test]
async fn a_moderators_mute_does_not_keep_anybody_out_of_a_room_alone() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, one.client("berta").await);
    let channel = one.channel(anna.id(), 4).await;
    anna.join(channel, MediaTransport::Udp).await;
    one.store.set_server_mute(channel, berta.id(), anna.id()).await.expect("stored");
    cluster.set_reachable(ONE, false);
    anna.done(mute(channel, true)).await;
    let joined = berta.join(channel, MediaTransport::Udp).await;
    let muted =
        |who: UserId| joined.members.iter().find(|member| member.user_id == who).map(|member| member.server_muted);
    assert_eq!((muted(berta.id()), muted(anna.id())), (Some(true), Some(false)));
    cluster.set_reachable(ONE, true);
    agree([&one, &two], channel, &[anna.id(), berta.id()]).await;
}

#[tokio::test]
async fn a_room_that_empties_while_it_is_alone_leaves_no_ghost() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 4).await;
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    cluster.set_reachable(ONE, false);
    anna.request(LeaveChannel { channel_id: channel }).await;
    assert_eq!(anna.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::TemporarilyUnavailable);
    assert_eq!(two.rooms.occupancy(channel).await, 2, "nobody could say so");
    cluster.set_reachable(ONE, true);
    assert_eq!(berta.expect(of_type!(UserLeft)).await.user_id, anna.id());
    agree([&one, &two], channel, &[berta.id()]).await;
    anna.join(channel, MediaTransport::Udp).await;
    agree([&one, &two], channel, &[anna.id(), berta.id()]).await;
}

#[tokio::test]
async fn who_leaves_and_comes_back_meanwhile_stays() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let mut clara = one.client("clara").await;
    let channel = one.channel(anna.id(), 4).await;
    clara.join(channel, MediaTransport::Websocket).await;
    let before = anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    cluster.set_reachable(ONE, false);
    anna.request(LeaveChannel { channel_id: channel }).await;
    let again = anna.join(channel, MediaTransport::Udp).await;
    assert_ne!(again.voice.stream_id, before.voice.stream_id);
    cluster.set_reachable(ONE, true);
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!(left.stream_id, before.voice.stream_id);
    assert_eq!(berta.expect(of_type!(UserJoined)).await.stream_id, again.voice.stream_id);
    // It is in the channel still, and nobody else is when it has gone.
    anna.done(mute(channel, true)).await;
    anna.request(LeaveChannel { channel_id: channel }).await;
    agree([&one, &two], channel, &[berta.id(), clara.id()]).await;
}

/// Nobody sees others leave and come back only because the store had to be filled anew.
#[tokio::test]
async fn lost_data_is_written_back_without_anybody_leaving() {
    let settle = std::time::Duration::from_millis(200);
    let (one, two, cluster) = Server::two(|_, rooms| rooms.settle = settle).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let channel = one.channel(anna.id(), 4).await;
    let before = anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    anna.expect(of_type!(UserJoined)).await;
    anna.done(mute(channel, true)).await;
    for node in [ONE, NodeNumber(2)] {
        cluster.set_reachable(node, false);
    }
    cluster.lose_everything();
    cluster.set_reachable(ONE, true);
    // The other node takes longer to notice than the first one waits before it looks at what is there.
    tokio::time::sleep(settle * 3 / 2).await;
    cluster.set_reachable(NodeNumber(2), true);
    // The session's record is written back, too.
    agree([&one, &two], channel, &[anna.id(), berta.id()]).await;
    let epoch = loop {
        berta.done(mute(channel, true)).await;
        berta.done(mute(channel, false)).await;
        let state = berta.expect(of_type!(VoiceStateChanged)).await;
        if state.position.epoch != before.position.epoch && !state.position.epoch.starts_with("local-") {
            break state.position.epoch;
        }
        // Within the account's rate.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let seen = anna.expect(|message| match message {
        ServerMessage::VoiceStateChanged(event) if event.position.epoch == epoch => Some(event.user_id),
        _ => None,
    });
    assert_eq!(seen.await, berta.id());
    for client in [&anna, &berta] {
        let moved = |message: &ServerMessage| matches!(message.name(), "UserLeft" | "UserJoined" | "Removed");
        assert!(!client.passed_over.iter().any(moved), "{:?}", client.passed_over);
    }
    let (_, resumed) = Client::resume(&two, resume(&anna.lose())).await;
    assert_eq!(resumed.channels[0].joined.voice.stream_id, before.voice.stream_id);
}

#[tokio::test]
async fn resume_while_it_is_away_works_on_the_sessions_node_alone() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let mut anna = one.client("anna").await;
    let channel = one.channel(anna.id(), 4).await;
    anna.join(channel, MediaTransport::Udp).await;
    for node in [ONE, NodeNumber(2)] {
        cluster.set_reachable(node, false);
    }
    let lost = anna.lose();
    let mut elsewhere = Client::connect(&two).await;
    assert_eq!(elsewhere.refused(resume(&lost)).await, ErrorCode::TemporarilyUnavailable);
    let (mut anna, resumed) = Client::resume(&one, resume(&lost)).await;
    assert_eq!(resumed.channels.len(), 1);
    anna.done(mute(channel, true)).await;
    for node in [ONE, NodeNumber(2)] {
        cluster.set_reachable(node, true);
    }
    agree([&one, &two], channel, &[anna.id()]).await;
}
