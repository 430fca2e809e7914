//! Nodes and Redis die, and people keep talking.

use std::time::{Duration, Instant};

use antiphon_core::gateway::{LeaveReason, ServerMessage};
use antiphon_loadtest::{client::ClientEvent, gateway::Identity, rest::Rest};
use tokio::time::timeout;

use crate::support::{
    nodes::{Nodes, SILENCE_MAX, until_heard},
    people::{PATIENCE, Person, make_channel, number_of},
};

/// Lets somebody speak 50 frames a second until the listener has heard frames for so long; the longest silence.
async fn longest_silence(speaker: &Person, listener: &mut Person, first: u32, duration: Duration) -> Duration {
    let begun = Instant::now();
    let (mut heard_at, mut longest, mut number) = (Instant::now(), Duration::ZERO, first);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while begun.elapsed() < duration {
        tokio::select! {
            _ = ticks.tick() => {
                speaker.say(number).await;
                number += 1;
            }
            frame = listener.hear() => {
                assert!(number_of(&frame) < number);
                longest = longest.max(heard_at.elapsed());
                heard_at = Instant::now();
            }
        }
    }
    longest.max(heard_at.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_death_is_a_short_silence_for_the_others() {
    let mut cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let owner = cluster.owner_of(channel);
    let survivors: Vec<usize> = (0..3).filter(|index| *index != owner).collect();
    let mut speaker = Person::join(&cluster.nodes[survivors[0]], "speaker", channel).await;
    let mut listener = Person::join(&cluster.nodes[survivors[1]], "listener", channel).await;
    speaker.udp_becomes(true).await;
    listener.udp_becomes(true).await;
    let next = until_heard(&speaker, &mut [&mut listener]).await;
    let before = longest_silence(&speaker, &mut listener, next, Duration::from_secs(1)).await;
    cluster.nodes[owner].kill();
    let after = longest_silence(&speaker, &mut listener, next + 1_000, Duration::from_secs(4)).await;
    println!("longest silence: {before:?} before, {after:?} by the owner's death");
    assert!(after < SILENCE_MAX, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_node_dies_goes_on_elsewhere_and_nobody_sees_it() {
    let mut cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let mut moving = Person::join_with(&cluster.nodes[1], cluster.others(1), "moving", channel).await;
    let mut staying = Person::join(&cluster.nodes[2], "staying", channel).await;
    moving.udp_becomes(true).await;
    staying.udp_becomes(true).await;
    let next = until_heard(&moving, &mut [&mut staying]).await;
    cluster.nodes[1].kill();
    let begun = Instant::now();
    let resumed = async {
        loop {
            match moving.events.recv().await.expect("the session lives") {
                ClientEvent::Resumed(channels) => return channels,
                ClientEvent::Closed(closed) => panic!("closed: {closed:?}"),
                _ => {}
            }
        }
    };
    let resumed = timeout(PATIENCE, resumed).await.expect("resumed");
    println!("resumed after {:?}", begun.elapsed());
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].voice.stream_id, moving.joined.voice.stream_id, "the same stream");
    assert_eq!(resumed[0].members.len(), 2);
    let mut number = next;
    let frame = loop {
        moving.say(number).await;
        number += 1;
        if let Ok(frame) = timeout(Duration::from_millis(40), staying.hear_or_see_left()).await
            && number_of(&frame) >= next
        {
            break frame;
        }
        assert!(begun.elapsed() < PATIENCE, "heard again");
    };
    println!("heard again after {:?}", begun.elapsed());
    assert_eq!(frame.header.stream, moving.joined.voice.stream_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_dies_and_comes_back_and_nothing_is_lost() {
    for keeps_data in [true, false] {
        let mut cluster = Nodes::start(2).await;
        let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
        let mut speaker = Person::join(&cluster.nodes[0], "speaker", channel).await;
        let mut listener = Person::join(&cluster.nodes[1], "listener", channel).await;
        speaker.udp_becomes(true).await;
        listener.udp_becomes(true).await;
        let next = until_heard(&speaker, &mut [&mut listener]).await;
        // Voice may be there before the node has heard of who came to the other.
        let heard_of = async {
            loop {
                if let ClientEvent::Message(message) = speaker.events.recv().await.expect("the session lives")
                    && matches!(*message, ServerMessage::UserJoined(_))
                {
                    break;
                }
            }
        };
        timeout(PATIENCE, heard_of).await.expect("told of the listener");
        cluster.redis.kill();
        // Longer than the leases last.
        hears_all(&speaker, &mut listener, next, 400).await;
        let here = Person::join(&cluster.nodes[0], "here", channel).await;
        let names: Vec<_> = here.joined.members.iter().map(|member| member.user.username.as_str()).collect();
        assert_eq!(names.len(), 3, "whoever the node knew, and the new one: {names:?}");
        cluster.redis.start_again(keeps_data);
        hears_all(&speaker, &mut listener, next + 400, 100).await;
        let took = cluster.views_become(channel, 3).await;
        println!("views are equal {took:?} after Redis came back");
        drop(here);
    }
}

/// Redis is back before anybody noticed that it was away, and has lost everything: whoever joins first begins a new journal,
/// which must not send those away who were there.
#[tokio::test]
async fn redis_loses_everything_unnoticed_and_nobody_is_sent_away() {
    let cluster = Nodes::start(2).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let mut speaker = Person::join(&cluster.nodes[0], "speaker", channel).await;
    let mut listener = Person::join(&cluster.nodes[1], "listener", channel).await;
    speaker.udp_becomes(true).await;
    listener.udp_becomes(true).await;
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    let token = rest.register("mover", "a long enough password").await.expect("registered").access_token;
    let mover = async |node: usize| {
        Person::join_as(cluster.nodes[node].url(), Vec::new(), Identity::Token(token.clone()), channel).await
    };
    let mut before = mover(1).await;
    let next = until_heard(&speaker, &mut [&mut listener]).await;
    let keys = cluster.redis.cli(&["--scan"]);
    let of_channel: Vec<&str> = keys.lines().filter(|key| key.contains(&channel.to_string())).collect();
    assert!(!of_channel.is_empty(), "{keys}");
    cluster.redis.cli(&[&["DEL"], &of_channel[..]].concat());
    let _new = Person::join(&cluster.nodes[0], "new", channel).await;
    let mut after = mover(0).await;
    hears_all(&speaker, &mut listener, next, 100).await;
    // One person is there once: whichever session was written back last is told so, and the room is that of all nodes again.
    timeout(PATIENCE, async {
        tokio::select! {
            () = is_replaced(&mut before) => {}
            () = is_replaced(&mut after) => {}
        }
    })
    .await
    .expect("told");
    cluster.views_become(channel, 4).await;
    while let Ok(event) = speaker.events.try_recv() {
        if let ClientEvent::Message(message) = event {
            assert!(!matches!(*message, ServerMessage::Removed(_)), "{message:?}");
        }
    }
}

async fn is_replaced(person: &mut Person) {
    loop {
        if let ClientEvent::Message(message) = person.events.recv().await.expect("the session lives")
            && let ServerMessage::Removed(removed) = *message
        {
            return assert_eq!(removed.reason, LeaveReason::Replaced);
        }
    }
}

/// Lets somebody speak, and another hear every frame.
async fn hears_all(speaker: &Person, listener: &mut Person, first: u32, frames: u32) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in first..first + frames {
        ticks.tick().await;
        speaker.say(number).await;
        let heard = loop {
            let heard = number_of(&listener.hear().await);
            if heard >= first {
                break heard;
            }
        };
        assert_eq!(heard, number);
    }
}

impl Person {
    /// The next frame; nobody may have left until then.
    async fn hear_or_see_left(&mut self) -> antiphon_loadtest::client::HeardFrame {
        loop {
            match self.events.recv().await.expect("the session lives") {
                ClientEvent::Frame(frame) => return frame,
                ClientEvent::Message(message) => {
                    assert!(
                        !matches!(*message, ServerMessage::UserLeft(_) | ServerMessage::UserJoined(_)),
                        "{message:?}"
                    );
                }
                _ => {}
            }
        }
    }
}
