//! Membership without faults.

use std::collections::HashSet;

use antiphon::cluster::{
    JoinRefused, Leave, MembershipConfig, Moves, News, Notice, Publishing, RedisConfig, VoiceChange,
};
use antiphon_core::{
    gateway::{LeaveReason, Position, RecordingFinished, ServerMessage},
    ids::{ChannelId, RecordingId, StreamId},
};
use uuid::Uuid;

use crate::{
    node::{CHANNEL, Node, config, id, leave, new, said, session},
    support::{databases::at_once, redis::RedisServer},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_at_once_over_three_nodes_fill_ten_places_twenty_times() {
    let redis = RedisServer::start();
    let mut nodes = [
        Node::start(&redis.url(), "a").await,
        Node::start(&redis.url(), "b").await,
        Node::start(&redis.url(), "c").await,
    ];
    for round in 0..20_u128 {
        let channel = ChannelId(Uuid::from_u128(0xC0 + round));
        for node in &nodes {
            node.membership.watch(channel).await.expect("watches");
        }
        let memberships: Vec<_> = nodes.iter().map(|node| node.membership.clone()).collect();
        let outcomes = at_once(60, |index| {
            let membership = memberships[index % 3].clone();
            async move { membership.join(channel, 10, new(index as u128 + 1), None).await }
        })
        .await;
        let joined: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(joined.len(), 10);
        assert!(outcomes.iter().all(|outcome| !matches!(outcome, Err(refused) if *refused != JoinRefused::Full)));
        let streams: HashSet<_> = joined.iter().map(|joined| joined.member.stream).collect();
        let offsets: HashSet<_> = joined.iter().map(|joined| joined.position.offset).collect();
        assert_eq!((streams.len(), offsets), (10, (1..=10).collect()));
        for node in &mut nodes {
            for offset in 1..=10 {
                assert_eq!(node.entry().await.position.offset, offset, "each node is told everything, in order");
            }
            node.membership.unwatch(channel).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_who_want_to_publish_at_once_over_three_nodes_get_four_places_twenty_times() {
    let redis = RedisServer::start();
    let nodes = [
        Node::start(&redis.url(), "a").await,
        Node::start(&redis.url(), "b").await,
        Node::start(&redis.url(), "c").await,
    ];
    let memberships: Vec<_> = nodes.iter().map(|node| node.membership.clone()).collect();
    let of = |number: u128| memberships[number as usize % 3].clone();
    for number in 1..=30 {
        of(number).join(CHANNEL, 30, new(number), None).await.expect("joins");
    }
    for round in 0..20 {
        let outcomes = at_once(30, |index| {
            let number = index as u128 + 1;
            let membership = of(number);
            async move { membership.publish(CHANNEL, id(number), session(number), Some(4)).await.expect("available") }
        })
        .await;
        let publish: Vec<u128> = (1..=30).filter(|number| outcomes[*number as usize - 1] == Publishing::Done).collect();
        assert_eq!(publish.len(), 4, "in round {round}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Publishing::Full).count(), 26);
        let told = nodes[0].membership.snapshot(CHANNEL, None).await.expect("available").expect("known").members;
        let have: Vec<_> = told.iter().filter(|member| member.publishes).map(|member| member.user.id).collect();
        assert_eq!(have, publish.iter().map(|number| id(*number)).collect::<Vec<_>>());
        for (place, number) in publish.into_iter().enumerate() {
            let again = of(number).publish(CHANNEL, id(number), session(number), Some(4)).await;
            assert_eq!(again, Ok(Publishing::Done), "who has a place keeps it");
            // A place is given back, or goes with whoever leaves or comes back by another session.
            if place % 2 == 0 {
                let back = of(number).publish(CHANNEL, id(number), session(number), None).await;
                assert_eq!(back, Ok(Publishing::Done));
            } else {
                of(number).leave(CHANNEL, &leave(number), None).await.expect("available").expect("a member");
                of(number).join(CHANNEL, 30, new(number), None).await.expect("joins");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_to_publish_is_its_members_and_moves_with_the_session() {
    let redis = RedisServer::start();
    let (a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let mut member = a.join(1).await.member;
    b.join(2).await;
    let publish = |node: &Node, number, session_of, most| {
        let membership = node.membership.clone();
        async move { membership.publish(CHANNEL, id(number), session(session_of), most).await.expect("available") }
    };
    assert_eq!(publish(&b, 1, 1, Some(1)).await, Publishing::None, "through another node");
    assert_eq!(publish(&a, 1, 2, Some(1)).await, Publishing::None, "another session's");
    assert_eq!(publish(&a, 3, 3, Some(1)).await, Publishing::None, "nobody's");
    assert_eq!(publish(&a, 1, 1, Some(1)).await, Publishing::Done);
    let adopted = b.membership.adopt(CHANNEL, id(1), session(1), Moves(1), None).await.expect("available");
    assert!(adopted.expect("in").members.iter().any(|member| member.publishes));
    assert_eq!(publish(&b, 2, 2, Some(1)).await, Publishing::Full);
    assert_eq!(publish(&a, 1, 1, None).await, Publishing::None, "through the node before");

    // What a node says again after a time without Redis holds for places as well.
    (member.node, member.publishes) = (b.registry.number(), false);
    let other = b.membership.snapshot(CHANNEL, None).await.expect("available").expect("known").members;
    let others = other.into_iter().filter(|other| other.user.id == id(2));
    b.membership.restore(CHANNEL, others.chain([member]).collect(), None).await.expect("available");
    assert_eq!(publish(&b, 2, 2, Some(1)).await, Publishing::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_brings_whoever_makes_it_up_to_date() {
    let redis = RedisServer::start();
    let (a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let first = a.join(1).await;
    assert!(matches!(&first.news, News::Entries(entries) if entries.len() == 1), "no place known: the change itself");
    b.join(2).await;
    let mute = VoiceChange { muted: Some(true), deafened: None };
    let changed = a.membership.set_voice(CHANNEL, id(1), session(1), mute, Some(&first.position)).await;
    let changed = changed.expect("available").expect("a member");
    let News::Entries(entries) = changed.news else { panic!("the journal reaches back") };
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), [("joined", 2), ("voice", 1)]);
    let about = entries[0].member().expect("about a member");
    assert_eq!((about.node, about.session), (b.registry.number(), session(2)));
    assert!(changed.member.muted);

    let same = a.membership.set_voice(CHANNEL, id(1), session(1), mute, None).await.expect("available");
    assert_eq!(same.expect("a member").news, News::Entries(Vec::new()), "nothing has changed");

    let kick = Leave {
        user: id(1),
        session: None,
        reason: LeaveReason::Kicked,
        by: Some(id(2)),
        message: Some("Tschüß".to_owned()),
    };
    let kicked = b.membership.leave(CHANNEL, &kick, None).await.expect("available").expect("a member");
    let News::Entries(entries) = kicked.news else { panic!("no place known") };
    let about = entries[0].member().expect("about a member");
    assert_eq!((about.by, about.message.as_deref()), (Some(id(2)), Some("Tschüß")));
    assert!(b.membership.leave(CHANNEL, &kick, None).await.expect("available").is_none(), "they have left");
    assert_eq!(a.membership.occupancy(&[CHANNEL, ChannelId(Uuid::nil())]).await, Ok(vec![1, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_session_takes_over_and_streams_are_unique() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url(), "a").await;
    node.membership.join(CHANNEL, 1, new(1), None).await.expect("joins");
    let taken = node.membership.join(CHANNEL, 9, antiphon::cluster::NewMember { user: new(2).user, ..new(1) }, None);
    assert_eq!(taken.await.map(|_| ()), Err(JoinRefused::StreamTaken));
    let second = antiphon::cluster::NewMember { session: session(7), stream: new(7).stream, ..new(1) };
    let joined = node.membership.join(CHANNEL, 1, second, None).await.expect("takes over though it is full");
    let News::Entries(entries) = joined.news else { panic!("no place known") };
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), [("left", 1), ("joined", 1)]);
    assert_eq!((joined.members.len(), joined.position.offset), (1, 3));
    assert!(node.membership.leave(CHANNEL, &leave(1), None).await.expect("available").is_none(), "the older session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moderators_mute_survives_leaving() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url(), "a").await;
    let mute = |muted| node.membership.set_server_mute(CHANNEL, id(1), muted, id(2), None);
    assert!(matches!(mute(true).await, Ok(Some(None))), "before they came");
    assert!(matches!(mute(true).await, Ok(None)), "muted already");
    assert!(node.join(1).await.member.server_muted);
    let unmuted = mute(false).await.expect("available").expect("muted before").expect("in");
    assert!(!unmuted.member.server_muted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_too_short_gives_way_to_the_state() {
    let redis = RedisServer::start();
    let short = MembershipConfig { journal_events: 2, ..MembershipConfig::default() };
    let config = RedisConfig { membership: short, ..config(&redis.url()) };
    let node = Node::start_with(config, "a").await;
    let first = node.join(1).await.position;
    node.join(2).await;
    let missed = |since: Position| {
        let membership = node.membership.clone();
        async move { membership.snapshot(CHANNEL, Some(&since)).await.expect("available").expect("known").missed }
    };
    assert_eq!(missed(first.clone()).await.expect("the journal has it").len(), 1);
    node.join(3).await;
    let late = node.membership.join(CHANNEL, 9, new(4), Some(&first)).await.expect("joins");
    assert!(matches!(late.news, News::State { members, position } if members.len() == 4 && position.offset == 4));
    assert!(missed(first).await.is_none());
    let elsewhere = Position { epoch: "another".to_owned(), offset: 4 };
    assert!(missed(elsewhere).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_channel_has_its_place_among_the_others() {
    let redis = RedisServer::start();
    let (a, mut b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let (channel_id, recording_id) = (CHANNEL, RecordingId(Uuid::from_u128(7)));
    let event = ServerMessage::from(RecordingFinished { channel_id, recording_id, tracks: 2, position: None });
    let first = a.membership.tell(CHANNEL, &event, None).await.expect("available");
    let News::Entries(entries) = first else { panic!("a journal of its own") };
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), [("recording", 7)]);
    b.membership.watch(CHANNEL).await.expect("available");
    let known = a.join(1).await.position;
    a.membership.tell(CHANNEL, &event, Some(&known)).await.expect("available");
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Notice::Entry { entry, .. } = b.notice().await {
            heard.push((said(&entry), entry.position.offset));
        }
    }
    assert_eq!(heard, [(("joined", 1), 2), (("recording", 7), 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_changes_no_member_that_another_has_adopted() {
    let redis = RedisServer::start();
    let (a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let joined = a.join(1).await;
    let adopted =
        b.membership.adopt(CHANNEL, id(1), session(1), Moves(2), Some(&joined.position)).await.expect("available");
    let adopted = adopted.expect("a member");
    assert_eq!((adopted.members[0].node, adopted.missed), (b.registry.number(), Some(Vec::new())), "nobody is told");
    assert_eq!(adopted.members[0].stream, joined.member.stream);

    let late = a.membership.adopt(CHANNEL, id(1), session(1), Moves(1), None).await.expect("available");
    assert!(late.is_none(), "of an earlier move");
    let mute = VoiceChange { muted: Some(true), deafened: None };
    assert!(a.membership.set_voice(CHANNEL, id(1), session(1), mute, None).await.expect("available").is_none());
    assert!(a.membership.leave(CHANNEL, &leave(1), None).await.expect("available").is_none());
    a.membership.restore(CHANNEL, vec![joined.member], None).await.expect("available");
    a.membership.restore(CHANNEL, Vec::new(), None).await.expect("available");
    assert_eq!(b.members().await, adopted.members, "and it neither takes them back nor removes them");
    assert!(b.membership.leave(CHANNEL, &leave(1), None).await.expect("available").is_some());
    assert!(b.membership.adopt(CHANNEL, id(1), session(1), Moves(3), None).await.expect("available").is_none(), "gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_who_its_members_are() {
    let redis = RedisServer::start();
    let (a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let one = a.join(1).await.member;
    a.join(2).await;
    let other = b.join(3).await.member;
    let muted = antiphon::cluster::Member { muted: true, ..one };
    let News::Entries(entries) = a.membership.restore(CHANNEL, vec![muted.clone()], None).await.expect("available")
    else {
        panic!("a few")
    };
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), [("left", 2), ("voice", 1)]);
    assert_eq!(b.members().await, [muted.clone(), other]);
    let nothing = a.membership.restore(CHANNEL, vec![muted.clone()], None).await.expect("available");
    assert_eq!(nothing, News::Entries(Vec::new()), "it is so already");
    // Who left and came back unheard has another stream.
    let again = antiphon::cluster::Member { stream: StreamId(99), ..muted };
    let News::Entries(entries) = a.membership.restore(CHANNEL, vec![again.clone()], None).await.expect("available")
    else {
        panic!("a few")
    };
    assert_eq!(entries.iter().map(said).collect::<Vec<_>>(), [("left", 1), ("joined", 1), ("voice", 1)]);
    assert!(b.members().await.contains(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_the_database_are_told_to_the_others() {
    let redis = RedisServer::start();
    let (mut a, mut b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let change = Notice::ChannelChanged { channel: CHANNEL };
    a.membership.announce(change.clone()).await;
    assert_eq!(b.notice().await, change);
    let standing = Notice::StandingChanged { channel: CHANNEL, user: id(1) };
    b.membership.announce(standing.clone()).await;
    assert_eq!(a.notice().await, standing, "and not one's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_channel_is_forgotten_when_nobody_is_in() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url(), "a").await;
    let first = node.join(1).await.position;
    node.membership.forget(CHANNEL).await;
    assert_eq!(node.members().await.len(), 1, "somebody is in");
    node.membership.leave(CHANNEL, &leave(1), None).await.expect("available").expect("a member");
    node.membership.forget(CHANNEL).await;
    assert!(node.membership.snapshot(CHANNEL, None).await.expect("available").is_none());
    assert_ne!(node.join(1).await.position.epoch, first.epoch);
}
