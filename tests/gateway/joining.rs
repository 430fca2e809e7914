//! Who gets into a channel, and what everybody then knows.

use antiphon::{
    rooms::RoomsConfig,
    store::{Ban, ChannelChange, ChannelRole, Membership, NewInvite},
};
use antiphon_core::{
    gateway::{
        Cipher, ErrorCode, JoinChannel, LeaveChannel, LeaveReason, MediaMode, MediaTransport, Position, Role,
        ServerMessage,
    },
    ids::ChannelId,
};
use uuid::Uuid;

use crate::{
    client::{Client, join, of_type},
    server::Server,
};

/// The place that an event of the journal has, if the message is one.
fn place(message: &ServerMessage) -> Option<&Position> {
    match message {
        ServerMessage::UserJoined(event) => Some(&event.position),
        ServerMessage::UserLeft(event) => Some(&event.position),
        ServerMessage::VoiceStateChanged(event) => Some(&event.position),
        _ => None,
    }
}

#[tokio::test]
async fn whoever_is_switched_off_joins_nothing_while_their_session_still_lives() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    assert!(server.store.set_active(anna.id(), false).await.expect("stored"));
    assert_eq!(anna.refused(join(channel, MediaTransport::Websocket)).await, ErrorCode::PermissionDenied);
    assert!(server.store.set_active(anna.id(), true).await.expect("stored"));
    anna.join(channel, MediaTransport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_at_once_into_ten_places() {
    let server = Server::start().await;
    let owner = server.guest("owner").await.user.id;
    let channel = server.channel(owner, 10).await;
    let mut clients = Vec::new();
    for number in 0..40 {
        clients.push(server.client(&format!("user{number}")).await);
    }
    let joins = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let answer = client.request(join(channel, MediaTransport::Udp)).await;
            (client, answer)
        })
    });
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for done in joins.collect::<Vec<_>>() {
        match done.await.expect("joined or refused") {
            (client, ServerMessage::ChannelJoined(joined)) => inside.push((client, joined)),
            (client, ServerMessage::Error(error)) => outside.push((client, error)),
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!((inside.len(), outside.len()), (10, 30));
    assert!(outside.iter().all(|(_, error)| error.error_code == ErrorCode::ChannelFull));
    assert_eq!(server.rooms.occupancy(channel).await, 10);
    assert_eq!(server.rooms.members(channel).await.expect("known").len(), 10);
    assert_eq!(server.rooms.traffic(channel).await.joins, 10);

    // Nothing else changed: the places are 1 to 10, each member knows those before it and hears of those after it.
    let mut offsets: Vec<u64> = inside.iter().map(|(_, joined)| joined.position.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (1..=10).collect::<Vec<u64>>());
    for (client, joined) in &mut inside {
        assert_eq!(joined.members.len() as u64, joined.position.offset);
        for offset in joined.position.offset + 1..=10 {
            assert_eq!(client.expect(of_type!(UserJoined)).await.position.offset, offset);
        }
    }
    for (client, _) in &mut outside {
        client.stays_silent(|_| false).await;
    }
    // A place that becomes free can be had.
    let (mut leaver, _) = inside.pop().expect("ten");
    assert!(matches!(leaver.request(LeaveChannel { channel_id: channel }).await, ServerMessage::ChannelLeft(_)));
    outside[0].0.join(channel, MediaTransport::Udp).await;
}

/// Guards against events that overtake the answer to the join, or get lost between it and the first event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_comes_first_and_then_every_event_in_order() {
    let server = Server::start().await;
    let owner = server.guest("owner").await.user.id;
    let channel = server.channel(owner, 100).await;
    let clients = (0..12).map(|number| {
        let name = format!("user{number}");
        let server = &server;
        async move { server.client(&name).await }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        let mut client = client.await;
        tasks.spawn(async move {
            for _ in 0..10 {
                client.send(join(channel, MediaTransport::Websocket)).await;
                let joined = client.expect(of_type!(ChannelJoined)).await;
                assert!(client.passed_over.iter().all(|message| place(message).is_none()), "an event came first");
                client.send(LeaveChannel { channel_id: channel }).await;
                client.expect(of_type!(ChannelLeft)).await;
                let mut next = joined.position.offset + 1;
                for message in std::mem::take(&mut client.passed_over) {
                    let Some(position) = place(&message) else { continue };
                    assert_eq!((&position.epoch, position.offset), (&joined.position.epoch, next));
                    next += 1;
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(server.rooms.occupancy(channel).await, 0);
}

#[tokio::test]
async fn a_user_is_in_a_channel_once() {
    let server = Server::start().await;
    let token = server.guest("anna").await.access_token;
    let mut older = Client::with_token(&server, &token).await;
    let mut newer = Client::with_token(&server, &token).await;
    let mut berta = server.client("berta").await;
    let channel = server.channel(older.id(), 2).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let first = older.join(channel, MediaTransport::Udp).await;
    let joined = newer.join(channel, MediaTransport::Udp).await;
    assert_ne!(joined.voice.stream_id, first.voice.stream_id);
    assert_eq!(joined.members.len(), 2, "full, but it is their own place");

    let removed = older.expect(of_type!(Removed)).await;
    assert_eq!((removed.reason, removed.by), (LeaveReason::Replaced, Some(older.id())));
    assert_eq!(berta.expect(of_type!(UserJoined)).await.stream_id, first.voice.stream_id);
    let left = berta.expect(of_type!(UserLeft)).await;
    assert_eq!((left.reason, left.stream_id), (LeaveReason::Replaced, first.voice.stream_id));
    let came = berta.expect(of_type!(UserJoined)).await;
    assert_eq!(came.stream_id, joined.voice.stream_id);
    assert_eq!((left.position.offset + 1, came.position), (joined.position.offset, joined.position));
    // The older session stays, and no longer speaks for the member.
    assert_eq!(older.refused(LeaveChannel { channel_id: channel }).await, ErrorCode::PermissionDenied);
    assert_eq!(server.rooms.occupancy(channel).await, 2);
}

#[tokio::test]
async fn joining_again_is_answered_anew() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 2).await;
    let first = anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    let again = anna.join(channel, MediaTransport::Udp).await;
    assert_eq!(again.voice, first.voice);
    assert_eq!((again.members.len(), again.position.offset), (2, first.position.offset + 1));
    assert_eq!(anna.refused(join(channel, MediaTransport::Websocket)).await, ErrorCode::InvalidInput);
    berta.stays_silent(|message| matches!(message, ServerMessage::QualityHint(_))).await;
}

#[tokio::test]
async fn what_cannot_be_had_is_said() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    let usual = join(channel, MediaTransport::Udp);
    for wrong in [
        JoinChannel { mode: MediaMode::Mixed, ..usual.clone() },
        JoinChannel { sample_rate: Some(44_100), ..usual.clone() },
        JoinChannel { channels: Some(3), ..usual.clone() },
        JoinChannel { channels: Some(0), ..usual.clone() },
    ] {
        assert_eq!(anna.refused(wrong).await, ErrorCode::InvalidInput);
    }
    let nowhere = join(ChannelId(Uuid::now_v7()), MediaTransport::Udp);
    assert_eq!(anna.refused(nowhere).await, ErrorCode::ChannelNotFound);
    assert_eq!(server.rooms.occupancy(channel).await, 0);
    anna.done_join(JoinChannel { sample_rate: Some(16_000), channels: Some(1), ..usual }).await;
}

impl Client {
    async fn done_join(&mut self, request: JoinChannel) {
        let answer = self.request(request).await;
        assert!(matches!(answer, ServerMessage::ChannelJoined(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn channels_of_a_session_share_its_udp_session() {
    let server = Server::with(|_, rooms: &mut RoomsConfig| rooms.channels_per_session = 3).await;
    let mut anna = server.client("anna").await;
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(server.channel(anna.id(), 10).await);
    }
    let with = |index: usize, cipher| JoinChannel { cipher, ..join(channels[index], MediaTransport::Udp) };
    let ServerMessage::ChannelJoined(first) = anna.request(with(0, Some(Cipher::ChaCha20Poly1305))).await else {
        panic!("not joined")
    };
    assert_eq!(anna.refused(with(1, Some(Cipher::Aes128Gcm))).await, ErrorCode::InvalidInput);
    let ServerMessage::ChannelJoined(second) = anna.request(with(1, None)).await else { panic!("not joined") };
    let (first_udp, second_udp) = (first.voice.udp.expect("udp"), second.voice.udp.expect("udp"));
    assert_eq!(first_udp.session_id, second_udp.session_id);
    assert_eq!(first_udp.session_key, second_udp.session_key);
    assert_eq!(second_udp.cipher, Cipher::ChaCha20Poly1305);
    assert_ne!(first_udp.group_id, second_udp.group_id);
    assert_ne!(first_udp.group_key.key, second_udp.group_key.key);
    assert_ne!(first.voice.stream_id, second.voice.stream_id);
    let port = server.media.local_addr().port();
    assert_eq!(first_udp.udp, [format!("127.0.0.1:{port}")], "the address by which the client came");

    anna.join(channels[2], MediaTransport::Websocket).await;
    assert_eq!(anna.refused(with(3, None)).await, ErrorCode::LimitReached);
    // Once no channel needs it, the next begins another.
    for channel in &channels[..2] {
        anna.request(LeaveChannel { channel_id: *channel }).await;
    }
    let ServerMessage::ChannelJoined(third) = anna.request(with(3, Some(Cipher::Aes128Gcm))).await else {
        panic!("not joined")
    };
    assert_ne!(third.voice.udp.expect("udp").session_id, first_udp.session_id);
}

#[tokio::test]
async fn advertised_addresses_are_the_ones_set() {
    let advertised = ["voice.example.org:3002".to_owned(), "[2001:db8::7]:3002".to_owned()];
    let server = Server::with(|_, rooms| rooms.advertise = advertised.to_vec()).await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    let joined = anna.join(channel, MediaTransport::Udp).await;
    assert_eq!(joined.voice.udp.expect("udp").udp, advertised);
}

#[tokio::test]
async fn an_administrator_is_one_no_longer_than_the_database_says() {
    let server = Server::start().await;
    let owner = server.guest("owner").await.user.id;
    let channel = server.make_channel(owner, 10, true).await.id;
    let tokens = server.guest("root").await;
    server.store.set_role(tokens.user.id, Role::Admin).await.expect("granted");
    let mut root = Client::with_token(&server, &tokens.access_token).await;
    root.join(channel, MediaTransport::Websocket).await;
    root.request(LeaveChannel { channel_id: channel }).await;
    server.store.set_role(tokens.user.id, Role::User).await.expect("revoked");
    assert_eq!(root.refused(join(channel, MediaTransport::Websocket)).await, ErrorCode::ChannelNotFound);
}

#[tokio::test]
async fn a_private_channel_is_not_there_without_an_invite() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let owner = server.guest("owner").await.user.id;
    let channel = server.make_channel(owner, 1, true).await;
    let other = server.make_channel(owner, 10, true).await;
    let invite = |channel, max_uses| NewInvite { channel, by: owner, max_uses, expires_at: None };
    let code = server.store.create_invite(invite(channel.id, Some(1)), 10).await.expect("an invite").code;
    let wrong = server.store.create_invite(invite(other.id, Some(1)), 10).await.expect("an invite").code;
    let with = |code: &str| JoinChannel { invite: Some(code.to_owned()), ..join(channel.id, MediaTransport::Udp) };

    assert_eq!(anna.refused(join(channel.id, MediaTransport::Udp)).await, ErrorCode::ChannelNotFound);
    assert_eq!(anna.refused(with("no such code")).await, ErrorCode::ChannelNotFound);
    assert_eq!(anna.refused(with(&wrong)).await, ErrorCode::ChannelNotFound, "an invite to another channel");
    assert!(server.store.membership(other.id, anna.id()).await.expect("asked").is_none(), "it was not redeemed");

    // A full channel leaves the invite as it is.
    let token = server.auth.guest(server.address.ip(), "insider", None).await.expect("a guest");
    let membership = Membership { role: ChannelRole::Member, priority: false };
    server.store.set_membership(channel.id, token.user.id, membership).await.expect("a member");
    let mut insider = Client::with_token(&server, &token.access_token).await;
    insider.join(channel.id, MediaTransport::Udp).await;
    assert_eq!(anna.refused(with(&code)).await, ErrorCode::ChannelFull);
    assert!(server.store.membership(channel.id, anna.id()).await.expect("asked").is_none());
    insider.request(LeaveChannel { channel_id: channel.id }).await;

    anna.done_join(with(&code)).await;
    anna.request(LeaveChannel { channel_id: channel.id }).await;
    // A member from now on.
    anna.join(channel.id, MediaTransport::Udp).await;
}

#[tokio::test]
async fn the_banned_stay_out() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Udp).await;
    let ban = Ban { channel, user: berta.id(), by: anna.id(), reason: None, until: None };
    server.store.set_ban(ban).await.expect("banned");
    assert!(server.rooms.ban(channel, berta.id(), anna.id(), Some("noise".to_owned())).await.expect("said"));
    let removed = berta.expect(of_type!(Removed)).await;
    assert_eq!((removed.reason, removed.by), (LeaveReason::Banned, Some(anna.id())));
    assert_eq!(removed.message.as_deref(), Some("noise"));
    assert_eq!(anna.expect(of_type!(UserLeft)).await.reason, LeaveReason::Banned);
    assert_eq!(berta.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::PermissionDenied);
    server.store.remove_ban(channel, berta.id()).await.expect("lifted");
    berta.join(channel, MediaTransport::Udp).await;
}

#[tokio::test]
async fn a_deleted_channel_has_nobody_in_it() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let renamed = ChannelChange { max_users: Some(3), ..ChannelChange::default() };
    let changed = server.store.update_channel(channel, renamed).await.expect("asked").expect("changed");
    server.rooms.channel_changed(changed).await;
    assert_eq!(anna.join(channel, MediaTransport::Udp).await.channel.max_users, 3);
    server.store.delete_channel(channel).await.expect("deleted");
    server.rooms.channel_deleted(channel).await;
    for client in [&mut anna, &mut berta] {
        let removed = client.expect(of_type!(Removed)).await;
        assert_eq!((removed.channel_id, removed.by), (channel, None));
        assert_eq!(client.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::ChannelNotFound);
    }
    assert_eq!(server.rooms.occupancy(channel).await, 0);
}
