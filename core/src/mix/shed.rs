//! What a mixing thread gives up when it cannot keep up: first how well it encodes, then further listeners.

use crate::clock::Micros;

/// How much is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    /// Nothing.
    #[default]
    Nothing,
    /// Packets are encoded with half of the effort.
    Half,
    /// Packets are encoded with the least effort.
    Least,
    /// Likewise, and no further listener is taken.
    Refusing,
}

impl Shed {
    /// Every level, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Half, Self::Least, Self::Refusing];

    /// The complexity to encode with where `usual` is what is set.
    #[must_use]
    pub const fn complexity(self, usual: u8) -> u8 {
        match self {
            Self::Nothing => usual,
            Self::Half => usual / 2,
            Self::Least | Self::Refusing => 0,
        }
    }

    fn more(self) -> Self {
        match self {
            Self::Nothing => Self::Half,
            Self::Half => Self::Least,
            Self::Least | Self::Refusing => Self::Refusing,
        }
    }

    fn less(self) -> Self {
        match self {
            Self::Nothing | Self::Half => Self::Nothing,
            Self::Least => Self::Half,
            Self::Refusing => Self::Least,
        }
    }
}

/// From this share of its time on a thread gives something up.
const BUSY: f32 = 0.7;
/// Below this it takes something back.
const IDLE: f32 = 0.35;
/// Each tick makes up one in so many of what is remembered: half a second.
const MEMORY_TICKS: f32 = 25.0;
/// What was given up must have shown its effect before more is.
const STEP_UP_AFTER: Micros = Micros::from_secs(1);
/// Calm must last before something is taken back, so that it does not go to and fro.
const STEP_DOWN_AFTER: Micros = Micros::from_secs(5);

/// Decides what a mixing thread gives up.
#[derive(Clone, Debug)]
pub struct Shedder {
    tick: Micros,
    load: f32,
    shed: Shed,
    changed_at: Micros,
    /// Since when the load is low.
    calm_since: Option<Micros>,
}

impl Shedder {
    /// For a thread that has `tick` for each of its ticks.
    #[must_use]
    pub fn new(now: Micros, tick: Micros) -> Self {
        Self { tick, load: 0.0, shed: Shed::Nothing, changed_at: now, calm_since: Some(now) }
    }

    /// A tick took `busy`; `skipped` ticks before it were left out for lack of time. What is given up from now on.
    pub fn ticked(&mut self, now: Micros, busy: Micros, skipped: u64) -> Shed {
        let share = if skipped > 0 { 1.0 } else { (busy.0 as f32 / self.tick.0 as f32).min(1.0) };
        self.load += (share - self.load) / MEMORY_TICKS;
        if self.load >= IDLE {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        let is_calm = self.calm_since.is_some_and(|since| now.since(since) >= STEP_DOWN_AFTER);
        let since_change = now.since(self.changed_at);
        let next = if self.load > BUSY && since_change >= STEP_UP_AFTER {
            self.shed.more()
        } else if is_calm && since_change >= STEP_DOWN_AFTER {
            self.shed.less()
        } else {
            self.shed
        };
        if next != self.shed {
            (self.shed, self.changed_at) = (next, now);
        }
        self.shed
    }

    /// The share of its time that the thread is busy, 0 to 1.
    #[must_use]
    pub fn load(&self) -> f32 {
        self.load
    }

    /// What is given up now.
    #[must_use]
    pub fn shed(&self) -> Shed {
        self.shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Micros = Micros::from_millis(20);

    /// Ticks of one length for some seconds: what was given up at each change, and when.
    fn run(shedder: &mut Shedder, from_s: u64, to_s: u64, busy_ms: u64, skipped: u64) -> Vec<(u64, Shed)> {
        let mut changes = Vec::new();
        for tick in from_s * 50..to_s * 50 {
            let before = shedder.shed();
            let now = Micros(tick * TICK.0);
            let after = shedder.ticked(now, Micros::from_millis(busy_ms), skipped);
            if after != before {
                changes.push((now.0 / 1_000_000, after));
            }
        }
        changes
    }

    #[test]
    fn a_thread_with_time_gives_nothing_up() {
        let mut shedder = Shedder::new(Micros::ZERO, TICK);
        assert!(run(&mut shedder, 0, 60, 13, 0).is_empty(), "65 % of its time");
        assert!((0.6..0.7).contains(&shedder.load()));
    }

    #[test]
    fn an_overloaded_one_gives_up_step_by_step_and_takes_back_in_time() {
        let mut shedder = Shedder::new(Micros::ZERO, TICK);
        let up: Vec<Shed> = run(&mut shedder, 0, 10, 18, 0).into_iter().map(|(_, shed)| shed).collect();
        assert_eq!(up, [Shed::Half, Shed::Least, Shed::Refusing]);
        assert!(run(&mut shedder, 10, 40, 10, 0).is_empty(), "half of its time: it stays as it is");
        let down = run(&mut shedder, 40, 70, 2, 0);
        assert_eq!(down.iter().map(|(_, shed)| *shed).collect::<Vec<_>>(), [Shed::Least, Shed::Half, Shed::Nothing]);
        assert!(down[0].0 >= 45 && down[1].0 - down[0].0 >= 5, "{down:?}");
    }

    #[test]
    fn skipped_ticks_count_as_full_ones() {
        let mut shedder = Shedder::new(Micros::ZERO, TICK);
        assert_eq!(run(&mut shedder, 0, 10, 1, 1).last(), Some(&(3, Shed::Refusing)));
    }

    #[test]
    fn effort_falls_with_what_is_given_up() {
        assert_eq!(Shed::ALL.map(|shed| shed.complexity(5)), [5, 2, 0, 0]);
    }
}
