//! Channels that limit their speakers, contenders on different nodes.

use antiphon_core::{prng::Prng, relay::Counter};

use crate::world::{NOTHING, World, channel_id, good, ms, seeds, unruly};

fn limited(seed: u64, nodes: usize, max_speakers: u32) -> World {
    let mut prng = Prng::new(seed);
    let config = if seed == 0 { good() } else { unruly(&mut prng) };
    let mut world = World::new(seed, &vec![1; nodes], config);
    world.tell_all(1);
    (0..nodes).for_each(|node| world.open(node, channel_id(seed.into()), max_speakers));
    world.run(ms(500));
    world
}

#[test]
fn the_loudest_win_wherever_they_are() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let nodes = 3 + prng.below(3) as usize;
        let mut world = limited(seed, nodes, 2);
        let channel = channel_id(seed.into());
        // Quiet ones first: they take the seats, and the loud ones must win them.
        for speaker in 0..6 {
            let level = if speaker < 4 { 60 + 2 * speaker } else { 20 };
            world.speaker(prng.below(nodes as u64) as usize, channel, level);
            world.run(ms(100));
        }
        world.run(ms(2_000));
        let before: Vec<_> = (0..6)
            .map(|speaker| (0..nodes).map(|node| world.heard_of(node, speaker)).collect())
            .collect::<Vec<Vec<_>>>();
        let dropped_by_owner = world.total(Counter::ReceivedToOwner);
        world.run(ms(1_000));
        for (speaker, before) in before.iter().enumerate() {
            for listener in (0..nodes).filter(|node| *node != world.speakers[speaker].node) {
                let more = world.heard_of(listener, speaker) - before[listener];
                assert!(
                    if speaker < 4 { more == 0 } else { more >= 45 },
                    "seed {seed}: {more} of {speaker} at {listener}"
                );
            }
        }
        // At most the two that are forwarded reach the owner: the rest are dropped at the source.
        assert!(world.total(Counter::ReceivedToOwner) - dropped_by_owner <= 104, "seed {seed}");
    }
}

#[test]
fn a_first_syllable_is_heard_while_there_is_room() {
    for seed in seeds(200) {
        let mut world = limited(seed, 4, 2);
        let channel = channel_id(seed.into());
        let first = world.speaker(0, channel, 30);
        world.run(ms(1_000));
        let second = world.speaker(1, channel, 60);
        world.run(ms(500));
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        // A seat idle for 400 ms is free to anyone, and the edges must know.
        world.run(ms(600));
        let third = world.speaker(2, channel, 70);
        world.run(ms(300));
        world.speakers[third].speaking = false;
        world.run(ms(200));
        for (speaker, name) in [(first, "first"), (second, "second"), (third, "third")] {
            for listener in (0..4).filter(|node| *node != world.speakers[speaker].node) {
                assert_eq!(world.missing(listener, speaker, 0), NOTHING, "seed {seed}: the {name} at {listener}");
            }
        }
    }
}

#[test]
fn no_more_than_the_limit_are_heard_at_once() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let mut world = limited(seed, 4, 3);
        let channel = channel_id(seed.into());
        for speaker in 0..20 {
            world.speaker(speaker % 4, channel, 20 + prng.below(5) as u8);
        }
        world.run(ms(1_000));
        let from = world.now;
        world.run(ms(1_000));
        // What a node's own people say is not relayed to it.
        let heard = |node: &crate::world::Node| node.heard.iter().filter(|heard| heard.at > from).count();
        let most = world.nodes.iter().map(heard).max().expect("nodes");
        assert!((3 * 40..3 * 50 + 10).contains(&most), "seed {seed}: {most}");
        let passed: u64 = world.speakers.iter().map(|speaker| speaker.passed).sum();
        assert!(passed < 20 * 100 / 3, "seed {seed}: the speakers' own nodes hold to it: {passed}");
    }
}

#[test]
fn the_limit_goes_on_after_the_owners_death() {
    let mut world = limited(0, 4, 1);
    let channel = channel_id(0);
    let owner = world.owner(channel).expect("one view");
    let others: Vec<_> = (0..4).filter(|node| *node != owner).collect();
    let quiet = world.speaker(others[0], channel, 70);
    let loud = world.speaker(others[1], channel, 15);
    world.run(ms(2_000));
    let at = world.now;
    world.kill(owner);
    world.run(ms(3_000));
    assert!(world.silence(others[2], loud, at) < ms(300));
    let heard = world.heard_of(others[2], quiet);
    world.run(ms(1_000));
    assert_eq!(world.heard_of(others[2], quiet), heard);
}

#[test]
fn a_limit_that_changes_holds_once_all_know_it() {
    let mut world = limited(0, 3, 1);
    let channel = channel_id(0);
    let speakers: Vec<_> = (0..3).map(|node| world.speaker(node, channel, 30)).collect();
    world.run(ms(1_000));
    for node in 0..3 {
        let command = antiphon_core::relay::RelayCommand::SetMaxSpeakers { channel, max_speakers: 0 };
        world.command(node, Some(channel), &command);
        world.run(ms(100));
    }
    world.run(ms(100));
    let first = world.speakers[0].sequence;
    world.run(ms(1_000));
    world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
    world.run(ms(100));
    for speaker in speakers {
        for listener in (0..3).filter(|node| *node != world.speakers[speaker].node) {
            assert_eq!(world.missing(listener, speaker, first), NOTHING, "{speaker} at {listener}");
        }
    }
}
