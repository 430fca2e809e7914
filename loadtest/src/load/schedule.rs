//! When each speaker's frames are due: an absolute schedule of one frame every 20 ms, each speaker at a place of
//! its own in that grid.

use std::time::Duration;

use antiphon_core::prng::Prng;
use serde::{Deserialize, Serialize};

/// One frame of 20 ms.
pub(super) const FRAME: Duration = Duration::from_millis(20);

/// How the speakers of a channel lie in the 20 ms grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phases {
    /// Each anywhere.
    #[default]
    Random,
    /// All of a channel at the place that the server names for it; channels anywhere.
    Aligned,
}

/// The speakers in the order of their places, over and over.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Place in the grid and speaker.
    places: Vec<(Duration, usize)>,
    next: usize,
    cycle: u32,
}

impl Schedule {
    pub(super) fn new(mut places: Vec<(Duration, usize)>) -> Self {
        places.sort_unstable();
        Self { places, next: 0, cycle: 0 }
    }

    /// The next frame's time since the start, and its speaker.
    pub(super) fn peek(&self) -> Option<(Duration, usize)> {
        let (place, speaker) = *self.places.get(self.next)?;
        Some((FRAME * self.cycle + place, speaker))
    }

    /// How often all have had their turn.
    pub(super) const fn cycle(&self) -> u32 {
        self.cycle
    }

    /// Goes on to the frame after.
    pub(super) fn advance(&mut self) {
        self.next += 1;
        if self.next == self.places.len() {
            self.next = 0;
            self.cycle += 1;
        }
    }
}

/// A place for each of `speakers`, given as their channels: by `hint` where the channel has one, else by `random`.
pub(super) fn places(
    phases: Phases,
    speakers: &[usize],
    hint: impl Fn(usize) -> Option<u32>,
    random: &mut Prng,
) -> Vec<(Duration, usize)> {
    let grid_us = FRAME.as_micros() as u64;
    let channels = speakers.iter().max().map_or(0, |last| last + 1);
    let of_channel: Vec<u64> =
        (0..channels).map(|channel| hint(channel).map_or_else(|| random.below(grid_us), u64::from) % grid_us).collect();
    let place = |random: &mut Prng, channel: usize| match phases {
        Phases::Random => random.below(grid_us),
        Phases::Aligned => of_channel[channel],
    };
    speakers
        .iter()
        .enumerate()
        .map(|(speaker, &channel)| (Duration::from_micros(place(random, channel)), speaker))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_due_once_in_each_20_ms() {
        let ms = Duration::from_millis;
        let mut schedule = Schedule::new(vec![(ms(7), 0), (ms(3), 1), (ms(19), 2)]);
        let due: Vec<_> = (0..7)
            .map(|_| {
                let due = schedule.peek().expect("never ends");
                schedule.advance();
                due
            })
            .collect();
        let expected = [(ms(3), 1), (ms(7), 0), (ms(19), 2), (ms(23), 1), (ms(27), 0), (ms(39), 2), (ms(43), 1)];
        assert_eq!(due, expected);
        assert_eq!(Schedule::new(Vec::new()).peek(), None);
    }

    #[test]
    fn aligned_speakers_of_a_channel_share_a_place_and_random_ones_do_not() {
        let speakers = [0, 0, 0, 1, 1, 2];
        let hint = |channel| (channel == 1).then_some(25_000);
        let aligned = places(Phases::Aligned, &speakers, hint, &mut Prng::new(1));
        assert!(aligned[0].0 == aligned[1].0 && aligned[1].0 == aligned[2].0);
        assert_eq!((aligned[3].0, aligned[4].0), (Duration::from_millis(5), Duration::from_millis(5)));
        let random = places(Phases::Random, &speakers, hint, &mut Prng::new(1));
        assert!(random[0].0 != random[1].0 && random[1].0 != random[2].0);
        assert!(random.iter().all(|(place, _)| *place < FRAME));
    }
}
