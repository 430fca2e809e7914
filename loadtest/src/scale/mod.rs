//! What a cluster of a thousand nodes would carry, found out without having one.
//!
//! ```text
//!  placement  computed   the owner of every channel by the real ring, and what moves when a node goes or comes
//!  load       computed   who is where and who speaks, by a stated model ([`model`]): what every way between two
//!                        workers carries, with the sizes of the real wire format
//!  world      simulated  real relays in virtual time over a seeded network; on it
//!  large        one channel over many nodes, and the deaths of its owner and of others
//!  check        some small clusters, by simulation and by the model: how far the model is off
//! ```
//!
//! The same configuration gives the same figures: nothing of this reads a clock or the system's randomness. Beside it,
//! [`measure_link`] measures what a frame between two nodes costs on this machine.

mod check;
mod large;
mod link;
mod load;
mod model;
mod placement;
mod wire;
mod world;

use antiphon_core::{clock::Micros, relay::WORKERS_MAX};
use serde::Serialize;

pub use check::{Agreement, Check};
pub use large::{Deaths, Large, LargeNode, Transit};
pub use link::{LinkConfig, LinkCost, Sending, measure_link};
pub use load::{Bundling, Control, Load, NodeLoad};
pub use placement::{Placement, Replaced};

/// Ways between two workers that are accounted for at most, 12 bytes each.
const PATHS_MAX: u64 = 1 << 24;
/// Channels at most.
const CHANNELS_MAX: u32 = 1 << 24;
/// Nodes of the large channel at most: what is simulated grows with the square.
const LARGE_NODES_MAX: u32 = 200;

/// The cluster and what people do in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaleConfig {
    /// How many nodes, all of one capacity.
    pub nodes: u32,
    /// Media workers of each.
    pub workers: u16,
    /// How many channels have members.
    pub channels: u32,
    /// How many memberships there are, on average: a channel has a geometrically distributed number, at least one.
    pub sessions: u64,
    /// Members of a channel are on so many nodes at most; 0: wherever they happen to be.
    pub spread: u32,
    /// The share of channels in which somebody speaks just now.
    pub talking: f64,
    /// How many speak at once in such a channel, on average.
    pub speakers: f64,
    /// Bytes of Opus in a frame.
    pub frame_bytes: usize,
    /// How long a worker's turn is: what comes in one turn for one place shares datagrams.
    pub turn_us: u64,
    /// Members of the large channel.
    pub listeners: u32,
    /// How many nodes those are on.
    pub large_nodes: u32,
    /// How many of them speak.
    pub large_speakers: u32,
    /// How many times a node of the large channel is killed, and how many times its owner.
    pub deaths: u32,
    /// Chooses channels, members, phases and delays.
    pub seed: u64,
}

impl Default for ScaleConfig {
    fn default() -> Self {
        Self {
            nodes: 1_000,
            workers: 8,
            channels: 1_000_000,
            sessions: 10_000_000,
            spread: 0,
            talking: 0.25,
            speakers: 1.2,
            frame_bytes: 80,
            turn_us: 250,
            listeners: 100_000,
            large_nodes: 50,
            large_speakers: 4,
            deaths: 20,
            seed: 1,
        }
    }
}

/// Why a configuration is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScaleError(&'static str);

impl ScaleConfig {
    /// Whether the figures can be had, in bounded time and memory.
    ///
    /// # Errors
    /// Says what is out of its bounds.
    pub fn check(&self) -> Result<(), ScaleError> {
        let paths = u64::from(self.nodes).pow(2).saturating_mul(self.workers.into());
        let wrong = [
            (self.nodes < 2, "there are at least 2 nodes"),
            (!(1..=WORKERS_MAX).contains(&self.workers), "a node has 1 to 256 workers"),
            (paths > PATHS_MAX, "nodes × nodes × workers is at most 16,777,216"),
            (!(1..=CHANNELS_MAX).contains(&self.channels), "there are 1 to 16,777,216 channels"),
            (self.sessions < self.channels.into(), "a channel has at least one member"),
            (self.sessions / u64::from(self.channels) > 10_000, "a channel has 10,000 members on average at most"),
            (!(0.0..=1.0).contains(&self.talking), "the share of talking channels is from 0 to 1"),
            (!(1.0..=100.0).contains(&self.speakers), "in a talking channel 1 to 100 speak on average"),
            (!(1..=1_100).contains(&self.frame_bytes), "a frame has 1 to 1,100 bytes"),
            (!(50..=10_000).contains(&self.turn_us), "a turn takes 50 to 10,000 µs"),
            (!(3..=LARGE_NODES_MAX).contains(&self.large_nodes), "the large channel is on 3 to 200 nodes"),
            (self.listeners < self.large_nodes, "each node of the large channel has a member"),
            (self.large_speakers < 1, "somebody speaks in the large channel"),
            (self.large_speakers + 2 > self.large_nodes, "on two nodes of the large channel nobody speaks"),
            (!(1..=1_000).contains(&self.deaths), "1 to 1,000 nodes are killed"),
        ];
        wrong.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(ScaleError(why)))
    }

    fn turn(&self) -> Micros {
        Micros(self.turn_us)
    }
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// What they are of.
    pub config: ScaleConfig,
    /// Computed: who owns what.
    pub placement: Placement,
    /// Computed: what nodes and links carry, with members wherever they are, or as `spread` says.
    pub load: Load,
    /// The same with a channel's members on at most three nodes.
    pub on_three_nodes: Load,
    /// Simulated: one channel over many nodes.
    pub large: Large,
    /// Simulated and computed: small clusters.
    pub checks: Vec<Check>,
}

/// Finds out all of it.
///
/// # Errors
/// See [`ScaleConfig::check`].
pub fn scale(config: &ScaleConfig) -> Result<Scale, ScaleError> {
    config.check()?;
    let (placement, owners) = placement::place(config);
    let load = load::load(config, &owners);
    let on_three_nodes = load::load(&ScaleConfig { spread: 3, ..config.clone() }, &owners);
    let (large, checks) = (large::large(config), check::checks(config));
    Ok(Scale { config: config.clone(), placement, load, on_three_nodes, large, checks })
}

/// The least, the mean and the most of some figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut sum, mut min, mut max) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for figure in figures {
            count += 1.0;
            sum += figure;
            min = figure.min(min);
            max = figure.max(max);
        }
        if count == 0.0 { Self::default() } else { Self { min, mean: sum / count, max } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ScaleConfig {
        ScaleConfig {
            nodes: 20,
            workers: 2,
            channels: 2_000,
            sessions: 12_000,
            listeners: 200,
            large_nodes: 5,
            large_speakers: 2,
            deaths: 2,
            ..ScaleConfig::default()
        }
    }

    #[test]
    fn a_seed_gives_the_same_figures_and_another_seed_others() {
        let figures = |seed| scale(&ScaleConfig { seed, ..small() }).expect("within bounds");
        let first = figures(1);
        assert_eq!(first, figures(1));
        let other = figures(2);
        assert_ne!((&first.placement, &first.load), (&other.placement, &other.load));
        assert_ne!(first.large, other.large);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        assert_eq!(small().check(), Ok(()));
        let wrong = [
            ScaleConfig { nodes: 1, ..small() },
            ScaleConfig { nodes: 5_000, ..small() },
            ScaleConfig { workers: 0, ..small() },
            ScaleConfig { sessions: 1_999, ..small() },
            ScaleConfig { talking: f64::NAN, ..small() },
            ScaleConfig { speakers: 0.5, ..small() },
            ScaleConfig { large_speakers: 6, ..small() },
            ScaleConfig { turn_us: 0, ..small() },
        ];
        assert!(wrong.iter().all(|config| config.check().is_err()));
    }

    #[test]
    fn a_spread_is_of_all_figures() {
        assert_eq!(Spread::of([2.0, 6.0, 1.0].into_iter()), Spread { min: 1.0, mean: 3.0, max: 6.0 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
