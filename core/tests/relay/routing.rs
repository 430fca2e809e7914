//! Who hears what while nothing fails.

use antiphon_core::{netsim::NetworkConfig, prng::Prng, relay::Counter};

use crate::world::{NOTHING, World, channel_id, good, ms, seeds, unruly};

#[test]
fn everyone_hears_everyone_once_and_nobody_themselves() {
    let mut world = World::new(1, &[2, 2, 2], good());
    world.tell_all(1);
    let channel = channel_id(1);
    (0..3).for_each(|node| world.open(node, channel, 0));
    world.run(ms(200));
    let speakers: Vec<_> = (0..3).map(|node| world.speaker(node, channel, 30)).collect();
    world.run(ms(2_000));
    speakers.iter().for_each(|speaker| world.speakers[*speaker].speaking = false);
    world.run(ms(200));
    for speaker in speakers {
        for listener in 0..3 {
            let heard = world.heard_of(listener, speaker);
            let expected = if listener == world.speakers[speaker].node { 0 } else { 100 };
            assert_eq!(heard, expected, "{speaker} heard by {listener}");
        }
    }
    assert!(world.nodes.iter().all(|node| node.duplicates == 0));
    assert!(world.slowest() < ms(3), "{:?}", world.slowest());
    assert_eq!(world.total(Counter::DirectEntries), 0);
    assert_eq!(world.total(Counter::SentDirect), 0);
}

#[test]
fn a_channel_of_one_node_sends_no_audio() {
    let mut world = World::new(2, &[1, 1, 1], good());
    world.tell_all(1);
    for channel in 0..20 {
        world.open(0, channel_id(channel), 0);
        world.speaker(0, channel_id(channel), 30);
    }
    world.run(ms(100));
    let before = world.total(Counter::SentToOwner);
    world.run(ms(2_000));
    assert_eq!(world.total(Counter::SentToOwner), before);
    assert_eq!(world.total(Counter::SentFromOwner), 0);
}

#[test]
fn frames_of_several_channels_and_speakers_share_datagrams() {
    let mut world = World::new(3, &[1, 1], good());
    world.tell_all(1);
    for number in 0..10 {
        (0..2).for_each(|node| world.open(node, channel_id(number), 0));
    }
    world.run(ms(100));
    (0..10).for_each(|number| _ = world.speaker(0, channel_id(number), 30));
    world.run(ms(510));
    let bundled = world.nodes[0].stats()[Counter::DatagramsOfMore] + world.nodes[0].stats()[Counter::DatagramsOfEight];
    assert!(bundled >= 24, "{bundled}");
    assert_eq!(world.missing(1, 3, 0), NOTHING);
}

/// Nodes with different numbers of workers, clocks that differ, networks that delay, reorder and duplicate: nothing is lost.
#[test]
fn nothing_is_lost_where_the_network_loses_nothing() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let workers: Vec<_> = (0..2 + prng.below(4)).map(|_| 1 + prng.below(4) as u16).collect();
        let config = unruly(&mut prng);
        let mut world = World::new(seed, &workers, config);
        world.tell_all(1);
        let channels: Vec<_> = (0..1 + prng.below(4)).map(|number| channel_id(number.into())).collect();
        for channel in &channels {
            for node in 0..workers.len() {
                world.open(node, *channel, 0);
            }
        }
        world.run(ms(400));
        for channel in &channels {
            (0..workers.len()).for_each(|node| _ = world.speaker(node, *channel, 30));
        }
        world.run(ms(1_500));
        world.speakers.iter_mut().for_each(|speaker| speaker.speaking = false);
        world.run(ms(300));
        for speaker in 0..world.speakers.len() {
            for listener in (0..workers.len()).filter(|node| *node != world.speakers[speaker].node) {
                assert_eq!(world.missing(listener, speaker, 0), NOTHING, "seed {seed}: {speaker} at {listener}");
            }
        }
        assert_eq!(world.total(Counter::DroppedNotAuthentic), 0);
        assert_eq!(world.total(Counter::DroppedWrongWorker), 0);
    }
}

/// Loss costs what it takes and no more: two hops lose twice.
#[test]
fn loss_stays_within_what_the_network_loses() {
    for seed in seeds(200) {
        let mut prng = Prng::new(seed);
        let loss = prng.unit() * 0.1;
        let config = NetworkConfig { loss, loss_burst_mean: 1.0 + prng.unit(), ..unruly(&mut prng) };
        let mut world = World::new(seed, &[1, 2, 1], config);
        world.tell_all(1);
        let channel = channel_id(seed.into());
        (0..3).for_each(|node| world.open(node, channel, 0));
        world.run(ms(1_500));
        let speakers: Vec<_> = (0..3).map(|node| world.speaker(node, channel, 30)).collect();
        world.run(ms(6_000));
        for speaker in speakers {
            for listener in (0..3).filter(|node| *node != world.speakers[speaker].node) {
                let share = world.missing(listener, speaker, 0).len() as f64 / 300.0;
                assert!(share < 2.0 * loss + 0.1, "seed {seed}: {share} of {loss} at {listener}");
            }
        }
    }
}

#[test]
fn who_joins_later_hears_within_a_round_trip_and_who_leaves_is_sent_nothing() {
    let mut world = World::new(5, &[1, 1, 1, 1], good());
    world.tell_all(1);
    let channel = channel_id(4);
    world.open(0, channel, 0);
    world.open(1, channel, 0);
    let speaker = world.speaker(0, channel, 30);
    world.run(ms(300));
    let at = world.now;
    world.open(2, channel, 0);
    world.open(3, channel, 0);
    world.run(ms(200));
    for late in [2, 3] {
        assert!(world.silence(late, speaker, at) < ms(45), "{:?}", world.silence(late, speaker, at));
    }
    world.close(3, channel);
    world.run(ms(50));
    let before = world.nodes[3].stats();
    world.run(ms(1_000));
    assert_eq!(world.nodes[3].stats()[Counter::ReceivedFromOwner], before[Counter::ReceivedFromOwner]);
    assert_eq!(world.nodes[3].stats()[Counter::ChannelsOpen], 0);
}

#[test]
fn what_nobody_needs_is_forgotten() {
    let mut world = World::new(6, &[2, 2, 2], good());
    world.tell_all(1);
    for number in 0..50 {
        (0..3).for_each(|node| world.open(node, channel_id(number), 0));
    }
    world.run(ms(500));
    assert!(world.total(Counter::ChannelsOwned) >= 50);
    for number in 0..50 {
        (0..3).for_each(|node| world.close(node, channel_id(number)));
    }
    world.run(ms(4_000));
    assert_eq!((world.total(Counter::ChannelsOwned), world.total(Counter::ChannelsOpen)), (0, 0));
    let before = world.total(Counter::BytesSent);
    world.run(ms(2_000));
    assert_eq!(world.total(Counter::BytesSent), before, "and no heartbeat goes anywhere");
}
