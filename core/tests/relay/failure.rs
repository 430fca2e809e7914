//! Nodes that die, networks that part and heal.

use antiphon_core::{
    netsim::NetworkConfig,
    prng::Prng,
    relay::{Counter, RelayEvent},
};

use crate::world::{NOTHING, World, channel_id, good, ms, seeds, unruly};

/// Three to six nodes with one channel, everyone speaking; its number is chosen so that `owner` owns it.
fn talking(seed: u64, nodes: usize, owner: usize, config: NetworkConfig) -> World {
    let mut world = World::new(seed, &vec![2; nodes], config);
    world.tell_all(1);
    let number = (0..).find(|number| {
        let mut probe = World::new(seed, &vec![2; nodes], good());
        probe.tell_all(1);
        probe.open(owner, channel_id(*number), 0);
        probe.run(ms(1));
        probe.owner(channel_id(*number)) == Some(owner)
    });
    let channel = channel_id(number.expect("one of them"));
    (0..nodes).for_each(|node| world.open(node, channel, 0));
    world.run(ms(500));
    (0..nodes).for_each(|node| _ = world.speaker(node, channel, 30));
    world.run(ms(500));
    world
}

#[test]
fn an_owners_death_silences_nobody_for_400_ms() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let nodes = 3 + prng.below(4) as usize;
        let config = unruly(&mut prng);
        let mut world = talking(seed, nodes, 0, config);
        let at = world.now;
        world.kill(0);
        world.run(ms(1_500));
        for speaker in 1..nodes {
            for listener in (1..nodes).filter(|listener| *listener != speaker) {
                let silence = world.silence(listener, speaker, at);
                assert!(silence < ms(300), "seed {seed}: {speaker} at {listener} silent for {silence:?}");
            }
        }
        let channel = world.speakers[0].channel;
        let next = world.owner(channel);
        assert!(next.is_some_and(|next| next != 0), "seed {seed}: one view, {next:?}");
        let first = world.speakers[1].sequence;
        world.run(ms(6_000));
        let sent = world.total(Counter::SentDirect);
        world.run(ms(1_000));
        assert_eq!(world.total(Counter::SentDirect), sent, "seed {seed}: the next owner alone forwards");
        let missing = world.missing(2, 1, first);
        assert!(missing.iter().all(|sequence| *sequence + 5 > world.speakers[1].sequence), "seed {seed}: {missing:?}");
    }
}

#[test]
fn the_death_of_another_than_the_owner_is_not_heard() {
    let mut world = talking(7, 4, 0, good());
    let first = world.speakers[1].sequence;
    world.kill(3);
    world.run(ms(5_000));
    world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
    world.run(ms(100));
    assert_eq!((world.missing(2, 1, first), world.missing(0, 2, first)), (vec![], vec![]));
    let sent = world.nodes[0].stats();
    world.run(ms(1_000));
    assert_eq!(world.nodes[0].stats()[Counter::SentFromOwner], sent[Counter::SentFromOwner]);
}

#[test]
fn an_edge_that_is_silent_for_three_seconds_is_forgotten() {
    let mut world = talking(8, 3, 0, good());
    world.kill(2);
    let forwarded = |world: &World| world.nodes[0].stats()[Counter::SentFromOwner];
    // Its last interest may be a second old.
    world.run(ms(1_900));
    let before = forwarded(&world);
    world.run(ms(100));
    // The owner's and one edge's voices: two frames to that edge's node, one and its own, and two to the dead one's.
    assert_eq!(forwarded(&world) - before, 5 * 3);
    world.run(ms(1_200));
    let before = forwarded(&world);
    world.run(ms(100));
    assert_eq!(forwarded(&world) - before, 5, "the owner's own voice to the one edge that is left");
}

#[test]
fn a_node_that_starts_again_gets_its_channels_back() {
    let mut world = talking(9, 3, 0, good());
    world.kill(0);
    world.run(ms(2_000));
    world.restart(0);
    world.tell_all(2);
    let channel = world.speakers[0].channel;
    world.open(0, channel, 0);
    let first = world.speakers[1].sequence;
    world.run(ms(2_000));
    assert_eq!(world.owner(channel), Some(0));
    world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
    world.run(ms(100));
    assert_eq!((world.missing(2, 1, first), world.missing(1, 2, first)), (vec![], vec![]));
}

/// Each side of a partition talks within itself; once healed, everyone hears everyone, without the registry.
#[test]
fn a_partition_heals_by_itself() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let config = unruly(&mut prng);
        let mut world = talking(seed, 5, prng.below(5) as usize, config);
        let (one, other) = (vec![0, 1], vec![2, 3, 4]);
        let sides = [&one[..], &other[..]];
        let at = world.now;
        world.partition(&one, &other, true);
        world.run(ms(600 + prng.below(8_000)));
        for side in sides {
            for (speaker, listener) in pairs(side) {
                let silence = world.silence(listener, speaker, at);
                assert!(silence < ms(300), "seed {seed}: {speaker} at {listener} silent for {silence:?}");
            }
        }
        for (speaker, listener) in one.iter().flat_map(|a| other.iter().map(|b| (*a, *b))) {
            let silence = world.silence(listener, speaker, at);
            assert!(silence > ms(500), "seed {seed}: {speaker} heard at {listener} through a partition");
        }
        world.partition(&one, &other, false);
        let healed = world.now;
        world.run(ms(1_000));
        let first = world.speakers[0].sequence;
        for side in sides {
            for (speaker, listener) in pairs(side) {
                let silence = world.silence(listener, speaker, healed);
                assert!(silence < ms(300), "seed {seed}: healing silenced {speaker} at {listener} for {silence:?}");
            }
        }
        world.run(ms(1_000));
        assert!(world.owner(world.speakers[0].channel).is_some(), "seed {seed}: one view");
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(200));
        for (speaker, listener) in pairs(&[0, 1, 2, 3, 4]) {
            assert_eq!(world.missing(listener, speaker, first), NOTHING, "seed {seed}: {speaker} at {listener}");
        }
    }
}

fn pairs(nodes: &[usize]) -> Vec<(usize, usize)> {
    let all = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
    all.filter(|(a, b)| a != b).collect()
}

/// One direction between an edge and the owner is cut: the edge is suspect to nobody but suspects the owner.
#[test]
fn an_owner_that_cannot_be_heard_by_one_is_left_by_that_one() {
    let mut world = talking(11, 3, 0, good());
    let at = world.now;
    world.block(0, 1, true);
    world.run(ms(3_000));
    assert!(world.silence(2, 1, at) < ms(300), "what 1 says still reaches 2");
    assert!(world.nodes[1].out.events.iter().any(|event| matches!(event, RelayEvent::PeerLost { .. })));
    world.block(0, 1, false);
    world.run(ms(1_500));
    let first = world.speakers[0].sequence;
    world.run(ms(1_000));
    world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
    world.run(ms(100));
    for (speaker, listener) in pairs(&[0, 1, 2]) {
        assert_eq!(world.missing(listener, speaker, first), NOTHING, "{speaker} at {listener}");
    }
    assert!(world.nodes[1].out.events.iter().any(|event| matches!(event, RelayEvent::PeerBack { .. })));
}

/// Two nodes that do not hear each other, in one direction or both, while a third hears both: everyone goes on hearing
/// everyone, however long it lasts, by way of the third.
#[test]
fn who_loses_the_owner_alone_is_led_to_it_by_another() {
    let mut longest = [ms(0); 2];
    for seed in seeds(60) {
        let mut prng = Prng::new(seed);
        let nodes = 3 + prng.below(3) as usize;
        let config = unruly(&mut prng);
        let mut world = talking(seed, nodes, 0, config);
        let (both, back) = (prng.chance(0.5), prng.chance(0.5));
        let ways = if both {
            vec![(0, 1), (1, 0)]
        } else if back {
            vec![(1, 0)]
        } else {
            vec![(0, 1)]
        };
        let at = world.now;
        ways.iter().for_each(|(from, to)| world.block(*from, *to, true));
        world.run(ms(2_500));
        let settled = world.now;
        world.run(ms(8_000 + prng.below(8_000)));
        // An edge that the owner does not hear learns so when it next tells its interest, a second later at most.
        let most = if ways == [(1, 0)] { ms(2_000) } else { ms(800) };
        let everyone: Vec<_> = (0..nodes).collect();
        for (speaker, listener) in pairs(&everyone) {
            let silence = world.silence(listener, speaker, settled);
            assert!(silence < ms(150), "seed {seed}, {ways:?}: {speaker} at {listener} silent for {silence:?} at last");
            let silence = world.silence(listener, speaker, at);
            assert!(silence < most, "seed {seed}, {ways:?}: {speaker} at {listener} silent for {silence:?}");
            let longest = &mut longest[usize::from(ways == [(1, 0)])];
            *longest = silence.max(*longest);
        }
        ways.iter().for_each(|(from, to)| world.block(*from, *to, false));
        let healed = world.now;
        world.run(ms(1_000));
        let first = world.speakers[0].sequence;
        world.run(ms(6_000));
        let sent = world.total(Counter::SentDirect);
        world.run(ms(1_000));
        assert_eq!(world.total(Counter::SentDirect), sent, "seed {seed}: the owner alone forwards again");
        assert_eq!(world.owner(world.speakers[0].channel), Some(0), "seed {seed}: one view");
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(200));
        for (speaker, listener) in pairs(&everyone) {
            let silence = world.silence(listener, speaker, healed);
            assert!(
                silence < ms(350),
                "seed {seed}, {ways:?}: healing silenced {speaker} at {listener} for {silence:?}"
            );
            assert_eq!(
                world.missing(listener, speaker, first),
                NOTHING,
                "seed {seed}, {ways:?}: {speaker} at {listener}"
            );
        }
    }
    println!("longest silence of any pair: {:?}, {:?} where the owner hears nothing", longest[0], longest[1]);
}

/// A short outage makes the edges send directly, and changes no owner.
#[test]
fn a_short_silence_of_the_owner_costs_little_and_changes_nothing() {
    let mut world = talking(12, 4, 0, good());
    let at = world.now;
    world.partition(&[0], &[1, 2, 3], true);
    world.run(ms(300));
    world.partition(&[0], &[1, 2, 3], false);
    world.run(ms(1_000));
    for (speaker, listener) in pairs(&[1, 2, 3]) {
        assert!(world.silence(listener, speaker, at) < ms(220), "{:?}", world.silence(listener, speaker, at));
    }
    assert!(world.total(Counter::DirectEntries) >= 3);
    assert_eq!((world.total(Counter::PeersLost), world.owner(world.speakers[0].channel)), (0, Some(0)));
}
