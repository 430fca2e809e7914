//! Nodes come, go, die and sleep.

use std::time::{Duration, Instant};

use antiphon::cluster::{JoinRefused, Load, Moves, NodeState, Unavailable, VoiceChange};
use antiphon_core::{
    gateway::{LeaveReason, ServerMessage},
    ids::NodeNumber,
};

use crate::{
    node::{CHANNEL, Node, config, id, new, said, session},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_see_all_nodes() {
    let redis = RedisServer::start();
    let mut a = Node::start(&redis.url(), "a").await;
    let first = a.view.borrow().epoch;
    let mut b = Node::start(&redis.url(), "b").await;
    a.sees_nodes(2).await;
    b.sees_nodes(2).await;
    let numbers: Vec<NodeNumber> = a.view.borrow().nodes.iter().map(|node| node.number).collect();
    assert!(
        numbers[0] != numbers[1] && numbers.contains(&a.registry.number()) && numbers.contains(&b.registry.number())
    );
    let second = a.view.borrow().epoch;
    assert!(second > first);

    b.registry.report_load(Load { sessions: 7, members: 3, busy: 0.25 });
    a.sees(|view| view.nodes.iter().any(|node| node.load.sessions == 7)).await;
    assert_eq!(a.view.borrow().epoch, second, "load moves no channel");
    b.registry.set_state(NodeState::Draining);
    a.sees(|view| view.nodes.iter().any(|node| node.state == NodeState::Draining)).await;
    let third = a.view.borrow().epoch;
    assert!(third > second);
    b.registry.unregister().await;
    a.sees_nodes(1).await;
    assert!(a.view.borrow().epoch > third);
    assert_eq!(b.membership.snapshot(CHANNEL, None).await.map(|_| ()), Err(Unavailable), "it acts no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_leaves_is_swept_once_unless_somebody_goes_on_with_it() {
    let redis = RedisServer::start();
    let mut a = Node::start(&redis.url(), "a").await;
    let mut b = Node::start(&redis.url(), "b").await;
    let dead = Node::start(&redis.url(), "dead").await;
    for node in [&a, &b] {
        node.membership.watch(CHANNEL).await.expect("watches");
    }
    for who in 1..=4 {
        dead.join(who).await;
    }
    a.join(5).await;
    a.sees_nodes(3).await;
    drop(dead);
    let died = Instant::now();
    a.sees_nodes(2).await;
    b.sees_nodes(2).await;
    assert!(died.elapsed() < Duration::from_secs(4), "lease and a renewal: {:?}", died.elapsed());
    b.membership.adopt(CHANNEL, id(1), session(1), Moves(1), None).await.expect("available").expect("still a member");
    for node in [&mut a, &mut b] {
        let mut left = Vec::new();
        while left.len() < 3 {
            let entry = node.entry().await;
            if let ServerMessage::UserLeft(gone) = &*entry.event {
                assert_eq!(gone.reason, LeaveReason::Timeout);
                left.push(said(&entry).1);
            }
        }
        left.sort_unstable();
        assert_eq!(left, [2, 3, 4]);
    }
    let last = a.membership.snapshot(CHANNEL, None).await.expect("available").expect("known");
    assert_eq!(last.position.offset, 5 + 3, "each left once");
    assert_eq!(last.members.iter().map(|member| member.user.id).collect::<Vec<_>>(), [id(1), id(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_past_its_lease_acts_only_under_a_new_number() {
    let redis = RedisServer::start();
    let mut a = Node::start(&redis.url(), "a").await;
    let url = redis.url();
    // A thread of its own, which sleeps as a stopped process does: nothing of the node runs meanwhile.
    let (awake, asleep) = std::sync::mpsc::channel();
    let (wake, woken) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut config = config(&url);
            config.sweep_grace = Duration::from_secs(60);
            let mut node = Node::start_with(config, "sleeper").await;
            let before = node.registry.number();
            let member = node.join(1).await.member;
            awake.send(before).expect("the test waits");
            let () = woken.recv().expect("the test goes on");
            let refused = node.membership.join(CHANNEL, 9, new(2), None).await.map(|_| ());
            assert_eq!(refused, Err(JoinRefused::Unavailable), "its lease has run out by its own clock");
            node.reconnected().await;
            let after = node.registry.number();
            assert_ne!(after, before);
            let mute = VoiceChange { muted: Some(true), deafened: None };
            let muted = node.membership.set_voice(CHANNEL, id(1), session(1), mute, None).await.expect("available");
            assert!(muted.is_some(), "they are its, though under its old number still");
            node.membership.restore(CHANNEL, vec![member], None).await.expect("available");
            assert_eq!(node.members().await[0].node, after, "its members are its again");
            let () = woken.recv().expect("the other has seen it");
            node.registry.unregister().await;
        });
    });
    let before = asleep.recv().expect("the node starts");
    a.sees(|view| view.nodes.iter().any(|node| node.number == before)).await;
    a.sees(|view| view.nodes.iter().all(|node| node.number != before)).await;
    wake.send(()).expect("the node sleeps");
    a.sees(|view| view.nodes.len() == 2).await;
    wake.send(()).expect("the node waits");
    tokio::task::spawn_blocking(|| sleeper.join().expect("no assertion failed")).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_started_again_takes_its_names_place_at_once() {
    let redis = RedisServer::start();
    let mut a = Node::start(&redis.url(), "a").await;
    let first = Node::start(&redis.url(), "twin").await;
    let number = first.registry.number();
    let second = Node::start(&redis.url(), "twin").await;
    assert_ne!(second.registry.number(), number, "another number each time");
    a.sees(|view| view.nodes.iter().all(|node| node.number != number)).await;
    // The older process runs on: it is refused for as long as the newer one lives.
    let mut first = first;
    first.is_away().await;
    assert_eq!(first.membership.snapshot(CHANNEL, None).await.map(|_| ()), Err(Unavailable));
    assert_eq!(second.membership.snapshot(CHANNEL, None).await.map(|_| ()), Ok(()));
}
