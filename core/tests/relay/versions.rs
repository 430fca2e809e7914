//! Nodes of several releases: they speak the newest version that both know, and where there is none they say nothing.

use antiphon_core::relay::{Counter, Versions};

use crate::world::{NOTHING, World, channel_id, good, ms};

const OLD: Versions = Versions { min: 1, max: 1 };
const BETWEEN: Versions = Versions { min: 1, max: 2 };
const NEW: Versions = Versions { min: 2, max: 3 };

/// Nodes of these releases with one channel, everyone speaking for a while.
fn talking(releases: &[Versions], channel: u128) -> World {
    let mut world = World::new(1, &vec![2; releases.len()], good());
    world.nodes.iter_mut().zip(releases).for_each(|(node, versions)| node.info.versions = *versions);
    world.tell_all(1);
    (0..releases.len()).for_each(|node| world.open(node, channel_id(channel), 0));
    world.run(ms(500));
    (0..releases.len()).for_each(|node| _ = world.speaker(node, channel_id(channel), 30));
    world.run(ms(1_000));
    world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
    world.run(ms(100));
    world
}

#[test]
fn neighbouring_releases_relay_to_each_other() {
    for releases in [[OLD, OLD], [OLD, BETWEEN], [BETWEEN, NEW], [NEW, NEW]] {
        let world = talking(&releases, 7);
        assert_eq!((world.missing(1, 0, 0), world.missing(0, 1, 0)), (NOTHING.into(), NOTHING.into()), "{releases:?}");
    }
}

#[test]
fn releases_without_a_common_version_say_nothing_to_each_other() {
    let world = talking(&[OLD, NEW], 7);
    assert_eq!((world.heard_of(1, 0), world.heard_of(0, 1)), (0, 0));
    for node in &world.nodes {
        let stats = node.stats();
        let seen = [Counter::PeersKnown, Counter::BytesSent, Counter::DatagramsReceived, Counter::DroppedUnknownPeer];
        assert_eq!(seen.map(|counter| stats[counter]), [0; 4], "{}", node.info.id.0);
    }
}

/// A cluster that is being brought from one release to the next, node by node.
#[test]
fn a_node_between_two_releases_relays_for_both() {
    let owned_by_the_second =
        (0..).find(|number| talking(&[BETWEEN; 3], *number).owner(channel_id(*number)) == Some(1));
    let world = talking(&[OLD, BETWEEN, NEW], owned_by_the_second.expect("one of them"));
    for (speaker, listener) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        assert_eq!(world.missing(listener, speaker, 0), NOTHING, "{speaker} at {listener}");
    }
    let known = |index: usize| world.nodes[index].stats()[Counter::PeersKnown];
    assert_eq!([known(0), known(1), known(2)], [2, 4, 2], "as each of two workers counts");
}
