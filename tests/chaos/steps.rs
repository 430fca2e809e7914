//! What happens, drawn from the seed alone: the same seed gives the same list.

use std::fmt;

use antiphon_core::prng::Prng;

use crate::model::Deed;

/// Something that breaks, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of a node, which is started again.
    Kill(usize),
    /// `SIGTERM` of a node, which is started again once it has ended.
    Drain(usize),
    /// `SIGSTOP` and `SIGCONT`.
    Freeze(usize),
    /// The relay's way between two nodes.
    CutRelay(usize, usize),
    /// A node's way to Redis.
    CutRedis(usize),
    /// `kill -9` of Redis.
    KillRedis {
        /// Started again with the data it had.
        keeps_data: bool,
    },
}

impl Fault {
    /// Whether a node's process ends, so that another is started.
    fn ends_a_node(self) -> bool {
        matches!(self, Self::Kill(_) | Self::Drain(_))
    }
}

/// A fault's place in its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) fault: Fault,
    pub(crate) begins_ms: u64,
    pub(crate) heals_ms: u64,
}

/// Something that happens at a time of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Begin(Fault),
    Heal(Fault),
    Do(usize, Deed),
}

/// One step: faults and what people do meanwhile; all is healed in its end.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) faults: Vec<Timed>,
    pub(crate) deeds: Vec<(u64, usize, Deed)>,
    /// Somebody whose node is killed never comes back.
    pub(crate) gives_up: bool,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) nodes: usize,
    pub(crate) channels: usize,
    /// Who changes channels of their own accord: these, by their indices.
    pub(crate) wanderers: (usize, usize),
}

/// Kinds of step. A run goes through all of them in random order, then again in another.
const KINDS: u64 = 11;

/// The endless list of steps of a seed.
pub(crate) struct Steps {
    prng: Prng,
    sizes: Sizes,
    deck: Vec<u64>,
}

impl Steps {
    pub(crate) fn new(prng: Prng, sizes: Sizes) -> Self {
        Self { prng, sizes, deck: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> Step {
        if self.deck.is_empty() {
            self.deck = (0..KINDS).collect();
            for last in (1..self.deck.len()).rev() {
                let other = self.index(last + 1);
                self.deck.swap(last, other);
            }
        }
        let kind = self.deck.pop().unwrap_or_default();
        let faults = self.faults(kind);
        let length_ms = faults.iter().map(|timed| timed.heals_ms).max().unwrap_or(2_000);
        let deeds = self.deeds(length_ms);
        let is_kill = matches!(faults[..], [Timed { fault: Fault::Kill(_), .. }]);
        Step { faults, deeds, gives_up: self.prng.chance(0.5) && is_kill }
    }

    fn faults(&mut self, kind: u64) -> Vec<Timed> {
        let node = self.index(self.sizes.nodes);
        match kind {
            0 => Vec::new(),
            1 => vec![self.lasting(Fault::Kill(node), 200, 7_000)],
            // The first node owns the channel of the watchers.
            2 => vec![self.lasting(Fault::Kill(0), 200, 7_000)],
            3 => vec![self.lasting(Fault::Drain(node), 500, 1_000)],
            4 => vec![self.lasting(Fault::Freeze(node), 300, 8_000)],
            5 => vec![self.cut_relay(node)],
            6 => vec![self.lasting(Fault::CutRedis(node), 500, 9_000)],
            7 => vec![self.lasting(Fault::KillRedis { keeps_data: true }, 500, 9_000)],
            8 => vec![self.lasting(Fault::KillRedis { keeps_data: false }, 500, 9_000)],
            _ => self.two(node),
        }
    }

    fn cut_relay(&mut self, node: usize) -> Timed {
        let other = (node + 1 + self.index(self.sizes.nodes - 1)) % self.sizes.nodes;
        self.lasting(Fault::CutRelay(node, other), 500, 6_000)
    }

    /// Something of a node, and of what all nodes share or of another node, at overlapping times.
    fn two(&mut self, node: usize) -> Vec<Timed> {
        let other = (node + 1) % self.sizes.nodes;
        let first = match self.index(4) {
            0 => Fault::Kill(node),
            1 => Fault::Freeze(node),
            2 => Fault::Drain(node),
            _ => Fault::CutRedis(node),
        };
        let second = match self.index(6) {
            0 => Fault::CutRedis(other),
            1 => Fault::CutRelay(node, other),
            2 => Fault::Freeze(other),
            3 => Fault::Kill(other),
            kept => Fault::KillRedis { keeps_data: kept == 4 },
        };
        let (mut first, mut second) = (self.lasting(first, 2_000, 7_000), self.lasting(second, 1_000, 5_000));
        let later = if self.prng.chance(0.5) { &mut first } else { &mut second };
        let delay_ms = self.prng.below(1_500);
        later.begins_ms += delay_ms;
        later.heals_ms += delay_ms;
        let (one, two) = (&mut first, &mut second);
        let (starts, works) = if one.fault.ends_a_node() { (one, two) } else { (two, one) };
        if starts.fault.ends_a_node() && !works.fault.ends_a_node() {
            // A node that starts waits for Redis, and its people for the others.
            starts.heals_ms = starts.heals_ms.max(works.heals_ms + 1);
        }
        vec![first, second]
    }

    fn lasting(&mut self, fault: Fault, least_ms: u64, most_ms: u64) -> Timed {
        let begins_ms = 500;
        Timed { fault, begins_ms, heals_ms: begins_ms + least_ms + self.prng.below(most_ms - least_ms) }
    }

    fn deeds(&mut self, length_ms: u64) -> Vec<(u64, usize, Deed)> {
        let (first, end) = self.sizes.wanderers;
        let mut deeds = Vec::new();
        let mut at_ms = self.prng.below(400);
        while at_ms < length_ms {
            let deed = match self.index(10) {
                0..4 => Deed::Go(self.index(self.sizes.channels)),
                4 | 5 => Deed::Leave,
                6 | 7 => Deed::Move(self.index(self.sizes.nodes)),
                kind => Deed::Mute(kind == 8),
            };
            deeds.push((at_ms, first + self.index(end - first), deed));
            at_ms += 50 + self.prng.below(400);
        }
        deeds
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.prng.below(bound as u64)).expect("below it")
    }
}

impl Step {
    /// All of it in the order in which it happens.
    pub(crate) fn timeline(&self) -> Vec<(u64, Event)> {
        let begins = self.faults.iter().map(|timed| (timed.begins_ms, Event::Begin(timed.fault)));
        let heals = self.faults.iter().map(|timed| (timed.heals_ms, Event::Heal(timed.fault)));
        let deeds = self.deeds.iter().map(|(at_ms, person, deed)| (*at_ms, Event::Do(*person, *deed)));
        let mut timeline: Vec<_> = begins.chain(heals).chain(deeds).collect();
        timeline.sort_by_key(|(at_ms, _)| *at_ms);
        timeline
    }

    /// Whether a fault concerns a node itself, so that its people are not to be measured by.
    pub(crate) fn concerns(&self, node: usize) -> bool {
        self.faults.iter().any(|timed| match timed.fault {
            Fault::Kill(at) | Fault::Drain(at) | Fault::Freeze(at) => at == node,
            Fault::CutRelay(..) | Fault::CutRedis(_) | Fault::KillRedis { .. } => false,
        })
    }

    /// Whether others, on nodes that it does not concern, are to lose no frame at all of a channel that node 0 owns.
    pub(crate) fn harms_nobody_else(&self) -> bool {
        self.faults.len() < 2
            && self.faults.iter().all(|timed| match timed.fault {
                Fault::Kill(node) | Fault::Freeze(node) => node != 0,
                // Others reach each other by the owner; whom that cannot reach finds another way.
                Fault::CutRelay(one, other) => one != 0 && other != 0,
                Fault::Drain(_) | Fault::CutRedis(_) | Fault::KillRedis { .. } => true,
            })
    }

    /// Whether a session may be lost by it: its node dies while its record is out of reach.
    pub(crate) fn may_end_sessions(&self) -> bool {
        self.faults.len() > 1
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            f.write_str("nothing breaks")?;
        }
        for (index, Timed { fault, begins_ms, heals_ms }) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{fault:?} from {begins_ms} to {heals_ms} ms")?;
        }
        write!(f, "; {} deeds", self.deeds.len())?;
        if self.gives_up { f.write_str(", one of the node's people never comes back") } else { Ok(()) }
    }
}
