//! What one subscriber's way carries, and when it has become narrow all at once.
//!
//! Congestion control tells an average over some seconds, which keeps pictures from flickering but is of no use to the
//! voices on a way that shrank just now: what waits in it fills up within a few hundred milliseconds, and from then on
//! voices are lost beside the pictures. So two quick signs count as well: the newest estimate is far below the average and below
//! what is sent, or packets take much longer than they did and some of them are lost. Upon either, pictures stop until what
//! waits is through. An estimate that falls to what is sent, or above it, says only that no more was tried.

use crate::clock::Micros;

/// A newest estimate below this share of the average is a way that shrank.
const FALLEN_PERCENT: u64 = 60;
/// So much more than the shortest round trip, with losses, is a way in which packets wait.
const WAITING: Micros = Micros::from_millis(100);
/// Losses, in percent of the last second's packets, that are not a radio's.
const LOST_PERCENT: f32 = 3.0;
/// How long pictures stop: what fits in front of a slow way is through by then.
const CLEARS_WITHIN: Micros = Micros::from_millis(500);
/// A way that shrank is given so long, pause included, to tell by its average, which is one over three seconds.
const SETTLES_WITHIN: Micros = Micros::from_millis(3_500);
/// Of a longer round trip so much is taken over into the shortest by each sight: the way may have another length now.
const FORGETS: u64 = 256;

/// A look at the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// The newest estimate of what it carries, in bits per second.
    pub newest_bps: Option<u64>,
    /// The newest round trip.
    pub round_trip: Option<Micros>,
    /// Packets lost in the last second, in percent.
    pub lost_percent: Option<f32>,
    /// What pictures take of it now, in bits per second.
    pub pictures_bps: u64,
}

/// One subscriber's way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    average_bps: Option<u64>,
    newest_bps: Option<u64>,
    shortest: Option<Micros>,
    shrank_at: Option<Micros>,
    is_paused: bool,
    /// It shrank a short while ago.
    settles: bool,
}

impl Way {
    /// Congestion control's average; `None` while it has measured nothing.
    pub const fn measured(&mut self, average_bps: Option<u64>) {
        self.average_bps = average_bps;
    }

    /// Takes a look; true when pictures are to be chosen anew: they stop, or may begin again.
    pub fn seen(&mut self, now: Micros, sight: Sight) -> bool {
        self.newest_bps = sight.newest_bps;
        let waits = self.waits(sight);
        self.settles = self.shrank_at.is_some_and(|at| now.since(at) < SETTLES_WITHIN);
        let is_narrow = self.has_fallen() && sight.newest_bps.is_some_and(|newest| newest < sight.pictures_bps);
        if self.average_bps.is_some() && !self.settles && (waits || is_narrow) {
            self.shrank_at = Some(now);
            (self.is_paused, self.settles) = (true, true);
            return true;
        }
        let clears = self.shrank_at.is_some_and(|at| now.since(at) < CLEARS_WITHIN);
        let begins = self.is_paused && !clears;
        self.is_paused &= clears;
        begins
    }

    /// What it carries, in bits per second: nothing to speak of while what waits in it goes through, and for a while after
    /// that no more than the newest estimate; `None` while nothing was measured.
    #[must_use]
    pub fn carries_bps(&self) -> Option<u64> {
        if self.is_paused {
            return Some(0);
        }
        let average_bps = self.average_bps?;
        let counts = self.settles || self.has_fallen();
        Some(self.newest_bps.filter(|_| counts).map_or(average_bps, |newest| newest.min(average_bps)))
    }

    /// Whether the newest estimate is far below the average.
    fn has_fallen(&self) -> bool {
        let both = self.newest_bps.zip(self.average_bps);
        both.is_some_and(|(newest, average)| newest * 100 < average * FALLEN_PERCENT)
    }

    /// Whether packets take much longer than they did, and some are lost.
    fn waits(&mut self, sight: Sight) -> bool {
        let Some(round_trip) = sight.round_trip else { return false };
        let before = self.shortest.unwrap_or(round_trip);
        let longer = round_trip.since(before);
        self.shortest = Some(round_trip.min(Micros(before.0 + longer.0 / FORGETS)));
        longer >= WAITING && sight.lost_percent.is_some_and(|lost| lost >= LOST_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Sight = Sight {
        newest_bps: Some(1_000_000),
        round_trip: Some(Micros::from_millis(20)),
        lost_percent: Some(0.0),
        pictures_bps: 700_000,
    };

    fn calm_way() -> Way {
        let mut way = Way::default();
        assert_eq!(way.carries_bps(), None);
        way.measured(Some(1_000_000));
        assert!(!way.seen(at(0), CALM));
        way
    }

    fn at(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    #[test]
    fn pictures_stop_when_a_way_shrinks_and_begin_again_by_its_newest_estimate() {
        let mut way = calm_way();
        let shrunk = Sight { newest_bps: Some(250_000), ..CALM };
        assert!(way.seen(at(1_000), shrunk));
        assert_eq!(way.carries_bps(), Some(0));
        assert!(!way.seen(at(1_400), shrunk));
        assert_eq!(way.carries_bps(), Some(0));
        assert!(way.seen(at(1_500), shrunk), "what waited is through");
        assert_eq!(way.carries_bps(), Some(250_000));
        way.measured(Some(400_000));
        assert!(!way.seen(at(1_600), shrunk));
        assert_eq!(way.carries_bps(), Some(250_000));
        assert!(!way.seen(at(4_500), shrunk));
        assert_eq!(way.carries_bps(), Some(400_000), "the average has nearly come down: it counts again");
    }

    #[test]
    fn an_estimate_that_no_more_was_tried_than_stops_nothing() {
        let mut way = calm_way();
        let tried_less = Sight { newest_bps: Some(250_000), pictures_bps: 200_000, ..CALM };
        assert!(!way.seen(at(1_000), tried_less));
        assert_eq!(way.carries_bps(), Some(250_000), "and it has room for what is sent");
    }

    #[test]
    fn waiting_and_losses_together_stop_pictures_before_any_estimate_has_fallen() {
        let waits = Sight { round_trip: Some(at(150)), ..CALM };
        let loses = Sight { lost_percent: Some(10.0), ..CALM };
        let both = Sight { round_trip: Some(at(150)), ..loses };
        assert!(!calm_way().seen(at(1_000), waits), "a long queue that loses nothing");
        assert!(!calm_way().seen(at(1_000), loses), "a radio");
        let mut way = calm_way();
        assert!(way.seen(at(1_000), both));
        assert_eq!(way.carries_bps(), Some(0));
    }

    #[test]
    fn one_shrinking_is_one_pause() {
        let mut way = calm_way();
        let shrunk = Sight { newest_bps: Some(250_000), ..CALM };
        let mut changes = 0;
        for step in 0..60 {
            // An average over three seconds comes down.
            way.measured(Some(1_000_000 - 25_000 * step.min(30)));
            changes += u32::from(way.seen(at(1_000 + step * 100), shrunk));
        }
        assert_eq!(changes, 2, "a stop and a beginning");
    }

    #[test]
    fn nothing_is_paused_before_anything_was_measured() {
        let mut way = Way::default();
        assert!(!way.seen(at(0), Sight { newest_bps: Some(1), ..CALM }));
        assert_eq!(way.carries_bps(), None);
    }

    #[test]
    fn a_way_that_became_longer_is_in_time_taken_as_it_is() {
        let mut way = calm_way();
        let longer = Sight { round_trip: Some(at(400)), ..CALM };
        for step in 1..2_000 {
            assert!(!way.seen(at(step * 100), longer));
        }
        let loses = Sight { lost_percent: Some(10.0), ..longer };
        assert!(!way.seen(at(200_100), loses), "no packet waits longer than usual");
    }
}
