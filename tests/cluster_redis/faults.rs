//! Redis dies, freezes, forgets, and comes back.

use std::time::{Duration, Instant};

use antiphon::cluster::{JoinRefused, NewMember, Notice, Unavailable};
use antiphon_core::ids::StreamId;
use tokio::time::timeout;

use crate::{
    node::{CHANNEL, Node, PATIENCE, leave, new},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_dead_everything_is_refused_at_once_and_afterwards_works_by_itself() {
    let mut redis = RedisServer::start();
    let (mut a, mut b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let number = a.registry.number();
    for node in [&a, &b] {
        node.membership.watch(CHANNEL).await.expect("watches");
    }
    a.join(1).await;
    assert_eq!((a.entry().await.position.offset, b.entry().await.position.offset), (1, 1));

    redis.kill();
    let asked = Instant::now();
    let refused = a.membership.join(CHANNEL, 9, new(2), None).await.map(|_| ());
    assert_eq!(refused, Err(JoinRefused::Unavailable));
    assert_eq!(a.membership.snapshot(CHANNEL, None).await.map(|_| ()), Err(Unavailable));
    assert!(asked.elapsed() < Duration::from_secs(2), "each within a second: {:?}", asked.elapsed());
    a.is_away().await;
    b.is_away().await;
    let asked = Instant::now();
    assert_eq!(a.membership.leave(CHANNEL, &leave(1), None).await.map(|_| ()), Err(Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(50), "it is known to be away: {:?}", asked.elapsed());

    redis.start_again(true);
    let back = Instant::now();
    a.reconnected().await;
    b.reconnected().await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(a.registry.number(), number, "nobody had given it up");
    a.join(2).await;
    assert_eq!(b.entry().await.position.offset, 2, "subscriptions are alive");
    assert_eq!(a.members().await, b.members().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_server_was_asked_is_not_done_when_it_thaws() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis.url(), "a").await;
    node.membership.watch(CHANNEL).await.expect("watches");
    redis.freeze();
    let frozen = Instant::now();
    assert_eq!(node.membership.join(CHANNEL, 9, new(1), None).await.map(|_| ()), Err(JoinRefused::Unavailable));
    assert!(frozen.elapsed() < Duration::from_secs(1), "{:?}", frozen.elapsed());
    node.is_away().await;
    assert!(frozen.elapsed() < Duration::from_secs(3), "noticed after {:?}", frozen.elapsed());
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(frozen.elapsed())).await;
    redis.thaw();
    let thawed = Instant::now();
    node.reconnected().await;
    assert!(thawed.elapsed() < Duration::from_secs(2), "{:?}", thawed.elapsed());
    assert!(node.members().await.is_empty(), "nobody waited for the join any more");
    assert_eq!(node.join(2).await.position.offset, 1);
    assert_eq!(node.entry().await.position.offset, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_without_its_data_is_given_it_back_by_the_nodes() {
    let mut redis = RedisServer::start();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&redis.url(), name).await);
    }
    let mut own = Vec::new();
    for (node, first) in nodes.iter().zip([1_u128, 3, 5]) {
        node.membership.watch(CHANNEL).await.expect("watches");
        own.push(vec![node.join(first).await.member, node.join(first + 1).await.member]);
    }
    let before = nodes[0].membership.snapshot(CHANNEL, None).await.expect("available").expect("known");
    let numbers: Vec<_> = nodes.iter().map(|node| node.registry.number()).collect();

    redis.kill();
    redis.start_again(false);
    for (node, own) in nodes.iter_mut().zip(own) {
        node.reconnected().await;
        node.membership.restore(CHANNEL, own, Some(&before.position)).await.expect("available");
    }
    let after = nodes[0].membership.snapshot(CHANNEL, None).await.expect("available").expect("known");
    assert_eq!(after.members, before.members, "everyone, each with their stream and node");
    assert_ne!(after.position.epoch, before.position.epoch);
    for node in &mut nodes {
        node.sees_nodes(3).await;
        assert_eq!(node.members().await, after.members);
    }
    assert_eq!(nodes.iter().map(|node| node.registry.number()).collect::<Vec<_>>(), numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_missed_are_told_from_the_journal_each_once_and_in_order() {
    let redis = RedisServer::start();
    let (mut a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    a.membership.watch(CHANNEL).await.expect("watches");
    let mut newest = 0;
    for round in 0..5_u128 {
        // The subscription of each is cut while things happen.
        redis.cli(&["client", "kill", "type", "pubsub"]);
        for number in 0..20 {
            let (who, stream) =
                (round * 20 + number + 1, StreamId(u32::try_from(round * 20 + number + 1).expect("small")));
            let new = NewMember { stream, ..new(who) };
            // It is refused while b itself connects again.
            let joining = async {
                while b.membership.join(CHANNEL, 1_000, new.clone(), None).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, joining).await.expect("joins");
            newest += 1;
        }
        a.reconnected().await;
        // One more, so that a sees how far things are.
        let marker = NewMember { stream: StreamId(1_000 + newest), ..new(1_000 + u128::from(newest)) };
        while b.membership.join(CHANNEL, 1_000, marker.clone(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        newest += 1;
    }
    drop(b);
    let position = a.membership.snapshot(CHANNEL, None).await.expect("available").expect("known").position;
    assert!(position.offset >= u64::from(newest), "a join may have been counted twice where its answer was lost");
    let mut told = Vec::new();
    while told.last() != Some(&position.offset) {
        if let Ok(Some(notice)) = timeout(Duration::from_secs(2), a.notices.recv()).await {
            if let Notice::Entry { entry, .. } = notice {
                told.push(entry.position.offset);
            }
        } else {
            panic!("told up to {:?} of {}", told.last(), position.offset);
        }
    }
    let first = told[0];
    assert_eq!(told, (first..=position.offset).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_journal_began_anew_is_to_be_read_anew() {
    let redis = RedisServer::start();
    let (mut a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    a.membership.watch(CHANNEL).await.expect("watches");
    b.join(1).await;
    let first = a.entry().await.position;
    // As when the server lost it, without anybody's connection being cut.
    for key in ["meta", "members", "streams", "journal"] {
        redis.cli(&["del", &format!("antiphon:{{{CHANNEL}}}:{key}")]);
    }
    let second = b.join(2).await.position;
    assert_ne!(first.epoch, second.epoch);
    assert_eq!(a.notice().await, Notice::Lost { channel: CHANNEL });
    b.join(3).await;
    let entry = a.entry().await;
    assert_eq!((entry.position.epoch, entry.position.offset), (second.epoch, 2), "and then goes on");
}
