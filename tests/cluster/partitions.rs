//! Nodes that cannot reach each other, or Redis, for a while.

use std::time::{Duration, Instant};

use crate::support::{
    nodes::{Nodes, SILENCE_MAX},
    people::make_channel,
    talkers::{Talker, all_hear_each_other, all_see_each_other},
};

/// Longer than an owner that is not heard is relied on (400 ms) and than interest lasts (3 s).
const CUT: Duration = Duration::from_secs(5);

/// When a node is given another number the others do not hear it until they have read the register: a frame or a few, or
/// as many as are said in a second where word of it was lost. A test asserts less than two seconds of them.
const LOST_MAX: usize = 100;

const PAIRS: [(usize, usize); 6] = [(0, 1), (1, 0), (2, 0), (0, 2), (1, 2), (2, 1)];

/// One person on each of three nodes, in a channel that `owner` owns.
async fn on_each(cluster: &Nodes, owner: usize, names: &str) -> Vec<Talker> {
    let channel = cluster.channel_owned_by(owner).await;
    let mut people = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        people.push(Talker::join(node, &format!("{names}-{index}"), channel).await);
    }
    all_hear_each_other(&[&people[0], &people[1], &people[2]]).await;
    people
}

/// For each two of them the longest that the second did not hear the first.
fn silences(people: &[Talker], since: Instant) -> Vec<((usize, usize), Duration)> {
    PAIRS.into_iter().map(|(from, to)| ((from, to), people[to].silence(&people[from], since))).collect()
}

/// Which frames since these numbers were not heard: who said them, and who did not hear them.
async fn missed(people: &[Talker], since: &[u32]) -> Vec<((usize, usize), Vec<u32>)> {
    let mut all = Vec::new();
    for (from, to) in PAIRS {
        let missed = people[to].missed(&people[from], since[from]..people[from].next_number()).await;
        if !missed.is_empty() {
            all.push(((from, to), missed));
        }
    }
    all
}

/// Lets `cut` hold for [`CUT`]; the silences of the whole time and those of its last two seconds.
async fn cut_for_a_while(people: &[Talker], cut: impl Fn(bool)) -> [Vec<((usize, usize), Duration)>; 2] {
    let begun = Instant::now();
    cut(true);
    tokio::time::sleep_until((begun + CUT - Duration::from_secs(2)).into()).await;
    let settled = Instant::now();
    tokio::time::sleep_until((begun + CUT).into()).await;
    let silences = [silences(people, begun), silences(people, settled)];
    let healed = Instant::now();
    cut(false);
    all_hear_each_other(&[&people[0], &people[1], &people[2]]).await;
    println!("  all hear each other {:?} after it healed", healed.elapsed());
    silences
}

fn assert_heard(silences: &[((usize, usize), Duration)], most: Duration) {
    for (pair, silence) in silences {
        assert!(*silence < most, "{pair:?}: {silence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_cannot_reach_each_other_hear_each_other_by_a_third() {
    let cluster = Nodes::start(3).await;
    for owner in [2, 0] {
        let people = on_each(&cluster, owner, &format!("of-{owner}")).await;
        let numbers: Vec<_> = people.iter().map(Talker::next_number).collect();
        println!("0 and 1 cut off from each other, owner {owner}:");
        let [ever, at_last] = cut_for_a_while(&people, |cut| cluster.cut_between(0, 1, cut)).await;
        println!("  longest silences {ever:?}");
        assert_heard(&ever, SILENCE_MAX);
        assert_heard(&at_last, Duration::from_secs(1));
        // Where the owner is the third, nothing changes for anyone.
        if owner == 2 {
            assert_eq!(missed(&people, &numbers).await, vec![]);
        }
    }
    let people = on_each(&cluster, 0, "one-way").await;
    for (from, to) in [(0, 1), (1, 0)] {
        println!("{to} does not hear {from}, which hears {to}; the owner is 0:");
        let [ever, at_last] = cut_for_a_while(&people, |cut| cluster.cut_way(from, to, cut)).await;
        println!("  longest silences {ever:?}");
        assert_heard(&ever, SILENCE_MAX);
        assert_heard(&at_last, Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_the_others_relays_is_missed_by_nobody_else() {
    let cluster = Nodes::start(3).await;
    for owner in [2, 0] {
        let people = on_each(&cluster, owner, &format!("of-{owner}")).await;
        println!("2 cut off from 0 and 1, owner {owner}:");
        let cut = |cut| [0, 1].into_iter().for_each(|other| cluster.cut_between(2, other, cut));
        let [ever, _] = cut_for_a_while(&people, cut).await;
        let (within, across): (Vec<_>, Vec<_>) = ever.into_iter().partition(|((from, to), _)| *from != 2 && *to != 2);
        println!("  longest silences between 0 and 1 {within:?}");
        assert_heard(&within, SILENCE_MAX);
        for (pair, silence) in across {
            assert!(silence > CUT / 2, "{pair:?} heard through the cut: {silence:?}");
        }
        all_see_each_other(&[&people[0], &people[1], &people[2]]).await;
    }
}

/// The network parts: a node reaches neither the others nor Redis.
#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_partition_talks_within_itself_and_all_agree_when_it_heals() {
    let cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 20).await;
    let one = Talker::join(&cluster.nodes[0], "one", channel).await;
    let two = Talker::join(&cluster.nodes[1], "two", channel).await;
    let three = Talker::join(&cluster.nodes[2], "three", channel).await;
    let four = Talker::join(&cluster.nodes[2], "four", channel).await;
    all_hear_each_other(&[&one, &two, &three, &four]).await;
    let cut = |cut| {
        [0, 1].into_iter().for_each(|other| cluster.cut_between(2, other, cut));
        cluster.cut_from_redis(2, cut);
    };
    let begun = Instant::now();
    cut(true);
    // The others take it for dead; it keeps its people.
    cluster.node_sees(0, 2).await;
    let five = Talker::join(&cluster.nodes[0], "five", channel).await;
    let six = Talker::join(&cluster.nodes[2], "six", channel).await;
    all_hear_each_other(&[&one, &two, &five]).await;
    all_hear_each_other(&[&three, &four, &six]).await;
    let within =
        [(&one, &two), (&two, &one), (&three, &four), (&four, &three)].map(|(to, from)| to.silence(from, begun));
    println!("longest silences within the sides {within:?} in {:?}", begun.elapsed());
    assert!(within.iter().all(|silence| *silence < SILENCE_MAX), "{within:?}");
    cut(false);
    let healed = Instant::now();
    let everyone = [&one, &two, &three, &four, &five, &six];
    all_hear_each_other(&everyone).await;
    let heard = healed.elapsed();
    all_see_each_other(&everyone).await;
    cluster.views_become(channel, 6).await;
    println!("after it healed all heard each other within {heard:?} and agreed within {:?}", healed.elapsed());
    for person in [&one, &two, &three, &four] {
        let told: Vec<_> = [&one, &two, &three, &four].iter().map(|other| person.told_of(other, begun)).collect();
        assert_eq!(told, vec![(0, vec![]); 4], "nobody of before came or left");
    }
    // Their lease was over for a while: they are not removed later on for that.
    cluster.all_see(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_nothing_but_redis_is_heard_by_all() {
    let cluster = Nodes::start(3).await;
    let people = on_each(&cluster, 1, "of-1").await;
    let numbers: Vec<_> = people.iter().map(Talker::next_number).collect();
    cluster.cut_from_redis(1, true);
    let begun = Instant::now();
    cluster.node_sees(0, 2).await;
    println!("the others gave it up after {:?}", begun.elapsed());
    // Longer than nodes that are not listed may own channels.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(missed(&people, &numbers).await, vec![]);
    let numbers: Vec<_> = people.iter().map(Talker::next_number).collect();
    cluster.cut_from_redis(1, false);
    let healed = Instant::now();
    cluster.all_see(3).await;
    all_see_each_other(&[&people[0], &people[1], &people[2]]).await;
    println!("all agreed {:?} after it was back, {:?} after the cut", healed.elapsed(), begun.elapsed());
    for (from, to) in PAIRS {
        assert_eq!(people[to].told_of(&people[from], begun), (0, vec![]));
    }
    // It has another number then, and is not heard by others until they know of it.
    let lost = missed(&people, &numbers).await;
    println!("frames lost when it was back: {lost:?}");
    assert!(lost.iter().all(|(_, lost)| lost.len() < LOST_MAX), "{lost:?}");
}
