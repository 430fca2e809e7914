//! Who is where, and who speaks: the stated model.
//!
//! A channel's size is geometric with the mean `sessions / channels`, at least one: many small channels and a few large
//! ones. Each member is on a node of its own choice, as a balancer that knows nothing of channels makes it; with a
//! `spread`, on one of so many nodes chosen for the channel. In a share `talking` of channels somebody speaks, on
//! average `speakers` people at once, 50 frames a second each. All of it follows from the seed and the channel's index.

use antiphon_core::{ids::ChannelId, prng::Prng};
use uuid::Uuid;

use super::ScaleConfig;

/// One channel's people.
#[derive(Debug, Default)]
pub(super) struct People {
    /// The node of each member; the first ones speak.
    pub(super) nodes: Vec<u32>,
    /// Those nodes, each once.
    pub(super) edges: Vec<u32>,
    /// How many of the members speak.
    pub(super) speakers: usize,
}

/// A channel's id.
pub(super) fn channel_id(seed: u64, index: u32) -> ChannelId {
    let mut prng = prng(seed, index, 1);
    ChannelId(Uuid::from_u64_pair(prng.next_u64(), prng.next_u64()))
}

/// Draws the people of a channel.
pub(super) fn draw(config: &ScaleConfig, index: u32, people: &mut People) {
    let mut prng = prng(config.seed, index, 2);
    let size = size(&mut prng, config.sessions as f64 / f64::from(config.channels));
    people.nodes.clear();
    people.edges.clear();
    let mut chosen = [0; 16];
    let spread = (config.spread as usize).min(chosen.len());
    chosen[..spread].fill_with(|| node(&mut prng, config));
    for _ in 0..size {
        let at = match spread {
            0 => node(&mut prng, config),
            spread => chosen[prng.below(spread as u64) as usize],
        };
        people.nodes.push(at);
    }
    people.edges.extend_from_slice(&people.nodes);
    people.edges.sort_unstable();
    people.edges.dedup();
    people.speakers = if prng.chance(config.talking) { speakers(&mut prng, config.speakers).min(size) } else { 0 };
}

fn node(prng: &mut Prng, config: &ScaleConfig) -> u32 {
    prng.below(config.nodes.into()) as u32
}

fn size(prng: &mut Prng, mean: f64) -> usize {
    let others = (1.0 - prng.unit()).ln() / (1.0 - 1.0 / mean).ln();
    1 + others as usize
}

fn speakers(prng: &mut Prng, mean: f64) -> usize {
    mean as usize + usize::from(prng.chance(mean.fract()))
}

fn prng(seed: u64, index: u32, use_: u64) -> Prng {
    Prng::new((seed << 34) ^ (use_ << 32) ^ u64::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_asked_for() {
        let config = ScaleConfig { nodes: 40, channels: 20_000, sessions: 160_000, ..ScaleConfig::default() };
        let (mut people, mut members, mut talking, mut speaking, mut at_first) = (People::default(), 0, 0, 0, 0);
        for index in 0..config.channels {
            draw(&config, index, &mut people);
            members += people.nodes.len();
            talking += usize::from(people.speakers > 0);
            speaking += people.speakers;
            at_first += people.nodes.iter().filter(|node| **node == 0).count();
        }
        let about = |count: usize, expected: f64| (count as f64 / expected - 1.0).abs() < 0.05;
        assert!(about(members, 160_000.0) && about(talking, 5_000.0) && about(at_first, 4_000.0));
        // One channel in eight has nobody who could be the second speaker.
        assert!(about(speaking, talking as f64 * (1.0 + 0.2 * 7.0 / 8.0)), "{speaking} of {talking}");
    }

    #[test]
    fn a_spread_keeps_members_together() {
        let config = ScaleConfig { spread: 3, channels: 100, sessions: 3_000, ..ScaleConfig::default() };
        let mut people = People::default();
        let edges = (0..100).map(|index| {
            draw(&config, index, &mut people);
            assert!(people.nodes.iter().all(|node| people.edges.contains(node)));
            people.edges.len()
        });
        assert_eq!(edges.max(), Some(3));
    }

    #[test]
    fn a_mean_of_one_is_one() {
        let mut prng = Prng::new(1);
        assert!((0..1_000).all(|_| size(&mut prng, 1.0) == 1));
    }
}
