//! When a talker talks: always, or in spurts as people do in conversations.
//!
//! ITU-T P.59 (03/93) gives, for one side of a conversation, talk spurts of 1.004 s on average and pauses of 1.587 s. Both
//! are taken as exponentially distributed here, in whole frames. In a pause the talker's codec is silent (DTX) but for a
//! frame of comfort noise now and then.

use antiphon_core::prng::Prng;

use super::schedule::FRAME;
use crate::scenario::Talk;

/// ITU-T P.59, table 1: the mean talk spurt.
const SPURT_MEAN_S: f64 = 1.004;

/// ITU-T P.59, table 1: the mean pause.
const PAUSE_MEAN_S: f64 = 1.587;

/// In a pause at most one frame of comfort noise in 400 ms, as Opus has it with DTX.
const COMFORT_EVERY: u32 = 20;

/// What a talker does in one place of the 20 ms grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// The first frame of a spurt.
    Start,
    /// A frame of speech.
    Speech,
    /// The end of a spurt.
    Stop,
    /// Comfort noise.
    Comfort,
    /// Nothing.
    Nothing,
}

/// One talker.
#[derive(Debug)]
pub(super) struct Talker {
    state: State,
    prng: Prng,
}

#[derive(Debug)]
enum State {
    /// Talks without end.
    Endless { begun: bool },
    /// So many frames of the spurt are left.
    Spurt { left: u32, begun: bool },
    /// So many places of the pause are left; `passed` have gone by.
    Pause { left: u32, passed: u32 },
}

impl Talker {
    /// One of that kind, somewhere in their conversation.
    pub(super) fn new(talk: Talk, seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let state = match talk {
            Talk::Continuous => State::Endless { begun: false },
            // What is left of an exponential time is as long as all of it.
            Talk::P59 if prng.chance(SPURT_MEAN_S / (SPURT_MEAN_S + PAUSE_MEAN_S)) => spurt(&mut prng),
            Talk::P59 => State::Pause { left: frames(&mut prng, PAUSE_MEAN_S), passed: 1 },
        };
        Self { state, prng }
    }

    /// What they do in the next place.
    pub(super) fn next(&mut self) -> Say {
        match &mut self.state {
            State::Endless { begun } => begin(begun),
            State::Spurt { left: 0, .. } => {
                self.state = State::Pause { left: frames(&mut self.prng, PAUSE_MEAN_S), passed: 1 };
                Say::Stop
            }
            State::Spurt { left, begun } => {
                *left -= 1;
                begin(begun)
            }
            State::Pause { left: 0 | 1, .. } => {
                self.state = spurt(&mut self.prng);
                self.next()
            }
            State::Pause { left, passed } => {
                (*left, *passed) = (*left - 1, *passed + 1);
                if passed.is_multiple_of(COMFORT_EVERY) { Say::Comfort } else { Say::Nothing }
            }
        }
    }

    /// Whether a spurt has begun and not ended.
    pub(super) fn in_spurt(&self) -> bool {
        matches!(self.state, State::Endless { begun: true } | State::Spurt { begun: true, .. })
    }
}

fn begin(begun: &mut bool) -> Say {
    if std::mem::replace(begun, true) { Say::Speech } else { Say::Start }
}

fn spurt(prng: &mut Prng) -> State {
    State::Spurt { left: frames(prng, SPURT_MEAN_S), begun: false }
}

/// An exponential time in frames, one at least.
fn frames(prng: &mut Prng, mean_s: f64) -> u32 {
    let seconds = -mean_s * (1.0 - prng.unit()).ln();
    (seconds / FRAME.as_secs_f64()).round().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(seed: u64) -> Vec<Say> {
        let mut talker = Talker::new(Talk::P59, seed);
        (0..180_000).map(|_| talker.next()).collect()
    }

    #[test]
    fn an_hours_spurts_and_pauses_last_as_long_as_p59_says() {
        let said: Vec<Say> = (0..10).flat_map(hour).collect();
        let count = |wanted: &[Say]| said.iter().filter(|say| wanted.contains(say)).count() as f64;
        let spurts = count(&[Say::Start]);
        let spurt_s = count(&[Say::Start, Say::Speech]) / spurts * 0.02;
        let pause_s = count(&[Say::Stop, Say::Comfort, Say::Nothing]) / spurts * 0.02;
        assert!((spurt_s - 1.004).abs() < 0.03, "{spurt_s}");
        assert!((pause_s - 1.587).abs() < 0.05, "{pause_s}");
    }

    #[test]
    fn spurts_begin_and_end_and_comfort_noise_is_rare() {
        let said = hour(3);
        for pair in said.windows(2) {
            let right = match pair[0] {
                Say::Start | Say::Speech => matches!(pair[1], Say::Speech | Say::Stop),
                Say::Stop | Say::Comfort | Say::Nothing => matches!(pair[1], Say::Start | Say::Comfort | Say::Nothing),
            };
            assert!(right, "{pair:?}");
        }
        let comfort: Vec<usize> = (0..said.len()).filter(|at| said[*at] == Say::Comfort).collect();
        assert!(comfort.len() > 1_000 && comfort.windows(2).all(|pair| pair[1] - pair[0] >= 20));
    }

    #[test]
    fn a_seed_is_a_conversation_and_who_talks_on_never_stops() {
        assert_eq!(hour(1), hour(1));
        assert_ne!(hour(1), hour(2));
        let mut talker = Talker::new(Talk::Continuous, 1);
        assert!(!talker.in_spurt());
        let said: Vec<Say> = (0..1_000).map(|_| talker.next()).collect();
        assert!(said[0] == Say::Start && said[1..].iter().all(|say| *say == Say::Speech) && talker.in_spurt());
    }
}
