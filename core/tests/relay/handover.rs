//! Owners that change although nobody died.

use antiphon_core::{
    ids::NodeNumber,
    netsim::NetworkConfig,
    prng::Prng,
    relay::{Counter, RelayEvent},
};

use crate::world::{NOTHING, World, channel_id, good, ms, seeds, unruly};

/// Three to five nodes that know each other, on a network that delays, reorders and duplicates.
fn unruly_world(seed: u64) -> (World, Prng) {
    let mut prng = Prng::new(seed);
    let nodes = 3 + prng.below(3) as usize;
    let config = unruly(&mut prng);
    let mut world = World::new(seed, &vec![1 + prng.below(3) as u16; nodes], config);
    world.tell_all(1);
    (world, prng)
}

/// Everyone hears of everyone as they are now, in some order, within 900 ms: views differ meanwhile.
fn tell_in_some_order(world: &mut World, prng: &mut Prng, epoch: u64) {
    let all: Vec<_> = (0..world.nodes.len()).collect();
    let mut order = all.clone();
    for index in 0..order.len() {
        order.swap(index, prng.below(all.len() as u64) as usize);
    }
    for node in order {
        world.run(ms(prng.below(900 / all.len() as u64)));
        world.tell(node, epoch, &all);
    }
}

fn nobody_misses_anything(world: &World, seed: u64) {
    for speaker in 0..world.speakers.len() {
        for listener in (0..world.nodes.len()).filter(|node| *node != world.speakers[speaker].node) {
            assert_eq!(world.missing(listener, speaker, 0), NOTHING, "seed {seed}: {speaker} at {listener}");
        }
    }
}

/// Nodes and channels in turmoil: who serves changes all the time, each node hears of it when it does, and nothing of what
/// anyone says is lost.
#[test]
fn a_planned_change_loses_no_frame() {
    let mut changes = 0;
    for seed in seeds(200) {
        let (mut world, mut prng) = unruly_world(seed);
        let nodes = world.nodes.len();
        let channels: Vec<_> = (0..6).map(channel_id).collect();
        for channel in &channels {
            (0..nodes).for_each(|node| world.open(node, *channel, 0));
        }
        world.run(ms(500));
        for channel in &channels {
            world.speaker(prng.below(nodes as u64) as usize, *channel, 30);
        }
        world.run(ms(200));
        for epoch in 2..6 {
            let drained = prng.below(nodes as u64) as usize;
            world.nodes.iter_mut().enumerate().for_each(|(index, node)| node.info.serving = index != drained);
            tell_in_some_order(&mut world, &mut prng, epoch);
            world.run(ms(prng.below(1_500)));
        }
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(300));
        changes += world.total(Counter::OwnerChanges);
        nobody_misses_anything(&world, seed);
        for channel in channels {
            assert!(world.owner(channel).is_some(), "seed {seed}: one view in the end");
        }
    }
    assert!(changes > 0);
}

/// A node that was given up while it could not reach the registry goes on under another number: each hears of it when it does,
/// and nothing of what anyone says is lost.
#[test]
fn another_number_loses_no_frame() {
    for seed in seeds(200) {
        let (mut world, mut prng) = unruly_world(seed);
        let nodes = world.nodes.len();
        let channel = channel_id(u128::from(seed));
        (0..nodes).for_each(|node| world.open(node, channel, 0));
        world.run(ms(500));
        (0..nodes).for_each(|node| _ = world.speaker(node, channel, 30));
        world.run(ms(200));
        for epoch in 2..5 {
            let renumbered = &mut world.nodes[prng.below(nodes as u64) as usize].info;
            renumbered.number = NodeNumber(renumbered.number.0 + 1_000);
            tell_in_some_order(&mut world, &mut prng, epoch);
            // Whoever is given up again has been away for a lease's length.
            world.run(ms(1_000 + prng.below(1_500)));
        }
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(300));
        nobody_misses_anything(&world, seed);
    }
}

/// A new node is told of before the others know it, or after: until they do, it is refused, and nobody is disturbed.
#[test]
fn a_new_node_takes_its_channels_over_without_a_gap() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let mut world = World::new(seed, &[1, 1, 1], good());
        world.tell_all(1);
        let channels: Vec<_> = (0..12).map(channel_id).collect();
        for (number, channel) in channels.iter().enumerate() {
            (0..3).for_each(|node| world.open(node, *channel, 0));
            world.speaker(number % 3, *channel, 30);
        }
        world.run(ms(500));
        world.start(1);
        let mut order = [0, 1, 2, 3];
        order.swap(0, prng.below(4) as usize);
        order.swap(1, 1 + prng.below(3) as usize);
        for node in order {
            world.tell(node, 2, &[0, 1, 2, 3]);
            world.run(ms(prng.below(400)));
        }
        channels.iter().for_each(|channel| world.open(3, *channel, 0));
        world.run(ms(3_000));
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(200));
        let owners: Vec<_> = channels.iter().map(|channel| world.owner(*channel)).collect();
        assert!(owners.contains(&Some(3)) && !owners.contains(&None), "seed {seed}: {owners:?}");
        for speaker in 0..channels.len() {
            for listener in (0..3).filter(|node| *node != world.speakers[speaker].node) {
                assert_eq!(world.missing(listener, speaker, 10), NOTHING, "seed {seed}: {speaker} at {listener}");
            }
        }
    }
}

/// Nodes that the registry has left behind for long follow those that know more, as far as they know the owner.
#[test]
fn views_that_differ_for_long_are_brought_together_by_the_newer_epoch() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let config = unruly(&mut prng);
        let mut world = World::new(seed, &[2, 1, 2, 1], config);
        world.tell_all(1);
        let channels: Vec<_> = (0..8).map(channel_id).collect();
        for (number, channel) in channels.iter().enumerate() {
            (0..4).for_each(|node| world.open(node, *channel, 0));
            world.speaker(number % 4, *channel, 30);
        }
        world.run(ms(500));
        world.nodes[prng.below(4) as usize].info.serving = false;
        let informed = prng.below(4) as usize;
        world.tell(informed, 2, &[0, 1, 2, 3]);
        world.run(ms(8_000));
        let last = world.speakers[0].sequence;
        for channel in &channels {
            assert!(world.owner(*channel).is_some(), "seed {seed}: the owner by the newer epoch");
        }
        world.tell_all(2);
        world.run(ms(1_000));
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(300));
        assert!(world.speakers[0].sequence > last);
        for speaker in 0..channels.len() {
            for listener in (0..4).filter(|node| *node != world.speakers[speaker].node) {
                assert_eq!(world.missing(listener, speaker, 10), NOTHING, "seed {seed}: {speaker} at {listener}");
            }
        }
        let behind = |node: usize| {
            world.nodes[node].out.events.iter().any(|event| matches!(event, RelayEvent::RingBehind { epoch: 2 }))
        };
        assert!((0..4).filter(|node| *node != informed).any(behind), "seed {seed}");
        assert!(!behind(informed));
    }
}

/// Turmoil of everything at once: in the end, everyone hears everyone, and nothing is left behind.
#[test]
fn after_any_turmoil_everyone_hears_everyone() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let config = NetworkConfig { loss: prng.unit() * 0.2, loss_burst_mean: 2.0, ..unruly(&mut prng) };
        let mut world = World::new(seed, &[1, 2, 1, 2, 1], config);
        world.tell_all(1);
        let all = [0, 1, 2, 3, 4];
        let channels: Vec<_> = (0..3).map(channel_id).collect();
        channels.iter().for_each(|channel| (0..5).for_each(|node| _ = world.speaker(node, *channel, 30)));
        let mut epoch = 1;
        for _ in 0..40 {
            let (node, other) = (prng.below(5) as usize, prng.below(5) as usize);
            let channel = channels[prng.below(3) as usize];
            match prng.below(8) {
                0 | 1 => world.open(node, channel, 0),
                2 => world.close(node, channel),
                3 => {
                    epoch += 1;
                    world.nodes[node].info.serving = prng.chance(0.5);
                    world.tell(other, epoch, &all);
                }
                4 => world.tell(node, epoch, &all),
                5 => world.tell(node, epoch, &[node, other]),
                6 if node != other => world.block(node, other, true),
                _ => world.partition(&[node], &[(node + 1) % 5], false),
            }
            world.run(ms(prng.below(700)));
        }
        world.set_network(&good());
        pairs(5).for_each(|(from, to)| world.block(from, to, false));
        world.tell_all(epoch + 1);
        channels.iter().for_each(|channel| (0..5).for_each(|node| world.open(node, *channel, 0)));
        world.run(ms(7_000));
        let first = world.speakers[0].sequence;
        let direct = world.total(Counter::SentDirect);
        world.run(ms(1_000));
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(100));
        assert_eq!(world.total(Counter::SentDirect), direct, "seed {seed}");
        for speaker in 0..world.speakers.len() {
            for listener in (0..5).filter(|node| *node != world.speakers[speaker].node) {
                assert_eq!(world.missing(listener, speaker, first), NOTHING, "seed {seed}: {speaker} at {listener}");
            }
        }
        channels.iter().for_each(|channel| (0..5).for_each(|node| world.close(node, *channel)));
        world.run(ms(4_000));
        assert_eq!((world.total(Counter::ChannelsOwned), world.total(Counter::ChannelsOpen)), (0, 0), "seed {seed}");
        let sent = world.total(Counter::BytesSent);
        world.run(ms(2_000));
        assert_eq!(world.total(Counter::BytesSent), sent, "seed {seed}: nothing is left that speaks");
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to)
}
