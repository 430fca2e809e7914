//! What one subscriber's way carries, when it has become narrow all at once, and when it is to be tried for more.
//!
//! Congestion control tells an average over some seconds, which keeps pictures from flickering but is of no use to the
//! voices on a way that shrank just now: what waits in it fills up within a few hundred milliseconds, and from then on
//! voices are lost beside the pictures. So two quick signs count as well: how packets cross ([`super::crossing`]), with the first
//! report that can show it, and a newest estimate far below the average and below what is sent. Upon either, pictures stop until what
//! waits is through. An estimate that falls to what is sent, or above it, says only that no more was tried.
//!
//! Nor does congestion control find by itself that a way is wide again while what is sent is near to its estimate: it raises that by
//! what comes through, which is no more than is sent, and tries for more only when it is sent much less. So where pictures could
//! be better it is made to try, as often as costs a narrow way next to nothing.

use super::crossing::{Crossing, Narrow};
use crate::{clock::Micros, twcc::read_feedback};

/// A newest estimate below this share of the average is a way that shrank.
const FALLEN_PERCENT: u64 = 60;
/// How long pictures stop: what fits in front of a slow way is through by then.
const CLEARS_WITHIN: Micros = Micros::from_millis(500);
/// A way that shrank is given so long, pause included, to tell by its average, which is one over three seconds.
const SETTLES_WITHIN: Micros = Micros::from_millis(3_500);
/// A way that shrank is tried so soon: what waits in a short queue is through, and pictures are not there yet.
const TRIED_AFTER: Micros = Micros::from_millis(250);
/// How often a way is tried: a try takes a kilobyte or two, and what it waits for voices wait for too.
const TRIED_EVERY: Micros = Micros::from_secs(1);
/// So many tries that have not moved the estimate at all were not made: congestion control holds back, and begins anew.
const UNMOVED_MAX: u32 = 2;
/// It begins anew with so much of what it has in percent: its first tries are for three and six times this.
const ANEW_PERCENT: u64 = 50;
/// Likewise of what a way that shrank lets through: its first tries are for three quarters of that and one and a half times as much.
/// They are made of pictures' packets that were lost, and more of these would fill a short queue again.
const SHRUNK_PERCENT: u64 = 25;
/// Likewise of what was proved, where the estimate has fallen below that.
const FALLEN_ANEW_PERCENT: u64 = 50;
/// A way that shrank is not found to have shrunk again so soon, since those tries fill it, unless what waits in it stays.
const AGAIN_AFTER: Micros = Micros::from_millis(1_200);
/// So much of what came out of a way that shrank pictures may take whatever is estimated: estimates fall below what little is sent
/// whenever a try has filled the way.
const PROVED_PERCENT: u64 = 75;

/// A look at the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// The connection has stood for long enough that an estimate means something: the first ones are of what little was sent.
    pub is_measured: bool,
    /// The newest estimate of what it carries, in bits per second.
    pub newest_bps: Option<u64>,
    /// What pictures take of it now, in bits per second.
    pub pictures_bps: u64,
    /// What they would take at their best, in bits per second.
    pub desired_bps: u64,
}

/// What congestion control is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So much is desired, in bits per second. When that rises above the estimate the way is tried for more.
    Desire(u64),
    /// To forget what it knows and begin at so much, in bits per second.
    Anew(u64),
}

/// One subscriber's way.
#[derive(Clone, Debug, Default)]
pub struct Way {
    average_bps: Option<u64>,
    newest_bps: Option<u64>,
    crossing: Crossing,
    shrank_at: Option<Micros>,
    is_paused: bool,
    /// It shrank a short while ago.
    settles: bool,
    /// What came out of it then, less a margin, until it has turned out to carry much more.
    proved_bps: u64,
    tried_at: Micros,
    /// Less is desired than what there is to gain, so that the next look raises it.
    is_lowered: bool,
    /// The estimate at the last try, and how many tries before had not moved it.
    unmoved: (u64, u32),
}

impl Way {
    /// Congestion control's average; `None` while it has measured nothing.
    pub fn measured(&mut self, average_bps: Option<u64>) {
        self.average_bps = average_bps;
        if average_bps.is_some_and(|average| average > 2 * self.proved_bps) && !self.settles {
            self.proved_bps = 0;
            self.crossing.widens();
        }
    }

    /// A packet of a picture, of so many bytes, is sent under a number of all streams.
    pub fn sent(&mut self, now: Micros, number: u16, bytes: usize) {
        self.crossing.sent(now, number, bytes);
    }

    /// Takes RTCP in which the receiver tells of such packets. Where it shows that the way has become too narrow for pictures of
    /// `pictures_bps`, they stop, and congestion control is to begin anew.
    pub fn fed_back(&mut self, now: Micros, compound: &[u8], pictures_bps: u64) -> Option<Step> {
        read_feedback(compound, |number, came| self.crossing.told(now, number, came));
        let Narrow { carries_bps, is_filled } = self.crossing.is_narrow(now, pictures_bps)?;
        let is_again = self.shrank_at.is_some_and(|at| now.since(at) < AGAIN_AFTER);
        if self.average_bps.is_none() || (is_again && !is_filled) {
            return None;
        }
        self.shrinks(now);
        self.proved_bps = carries_bps * PROVED_PERCENT / 100;
        let anew_bps = carries_bps * SHRUNK_PERCENT / 100;
        self.newest_bps = Some(anew_bps);
        Some(Step::Anew(anew_bps))
    }

    /// Since when voices that were sent beside the pictures may have been lost.
    #[must_use]
    pub fn doubtful_since(&self, now: Micros) -> Micros {
        self.crossing.doubtful_since(now)
    }

    /// Takes a look; true when pictures are to be chosen anew: they stop, or may begin again.
    pub fn seen(&mut self, now: Micros, sight: Sight) -> bool {
        self.newest_bps = sight.newest_bps;
        self.settles = self.shrank_at.is_some_and(|at| now.since(at) < SETTLES_WITHIN);
        let is_less = |newest: u64| newest.max(self.proved_bps) < sight.pictures_bps;
        let is_narrow = sight.is_measured && self.has_fallen() && sight.newest_bps.is_some_and(is_less);
        if self.average_bps.is_some() && !self.settles && is_narrow {
            self.shrinks(now);
            return true;
        }
        let clears = self.shrank_at.is_some_and(|at| now.since(at) < CLEARS_WITHIN);
        let begins = self.is_paused && !clears;
        self.is_paused &= clears;
        begins
    }

    fn shrinks(&mut self, now: Micros) {
        self.shrank_at = Some(now);
        self.crossing.clears(now);
        (self.is_paused, self.settles, self.proved_bps) = (true, true, 0);
        // The first try is while pictures have stopped.
        self.tried_at = now;
        (self.is_lowered, self.unmoved) = (true, (0, 0));
    }

    /// What congestion control is to be told after a look, so that it tries the way for more.
    pub fn tries(&mut self, now: Micros, sight: Sight) -> Option<Step> {
        let newest_bps = sight.newest_bps.filter(|newest| *newest < sight.desired_bps && !self.is_full(now))?;
        if std::mem::take(&mut self.is_lowered) {
            return Some(Step::Desire(sight.desired_bps));
        }
        if self.average_bps.is_none() || now.since(self.tried_at) < TRIED_EVERY {
            return None;
        }
        self.tried_at = now;
        if newest_bps < self.proved_bps {
            return Some(Step::Anew(self.proved_bps * FALLEN_ANEW_PERCENT / 100));
        }
        self.unmoved = if self.unmoved.0 == newest_bps { (newest_bps, self.unmoved.1 + 1) } else { (newest_bps, 0) };
        if self.unmoved.1 == UNMOVED_MAX {
            self.unmoved.1 = 0;
            return Some(Step::Anew(newest_bps * ANEW_PERCENT / 100));
        }
        self.is_lowered = true;
        Some(Step::Desire(newest_bps))
    }

    /// Whether it shrank a short while ago.
    #[must_use]
    pub const fn settles(&self) -> bool {
        self.settles
    }

    /// Whether it shrank just now, so that nothing at all is to be sent on it but voices.
    #[must_use]
    pub fn is_full(&self, now: Micros) -> bool {
        self.is_paused && self.shrank_at.is_some_and(|at| now.since(at) < TRIED_AFTER)
    }

    /// What it carries, in bits per second: nothing to speak of while what waits in it goes through, and for a while after
    /// that no more than the newest estimate, but what is known to have come out; `None` while nothing was measured.
    #[must_use]
    pub fn carries_bps(&self) -> Option<u64> {
        if self.is_paused {
            return Some(0);
        }
        let average_bps = self.average_bps?;
        let newest_bps = self.newest_bps.filter(|_| self.settles || self.has_fallen());
        Some(newest_bps.map_or(average_bps, |newest| newest.min(average_bps)).max(self.proved_bps))
    }

    /// Whether the newest estimate is far below the average.
    fn has_fallen(&self) -> bool {
        let both = self.newest_bps.zip(self.average_bps);
        both.is_some_and(|(newest, average)| newest * 100 < average * FALLEN_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Sight =
        Sight { is_measured: true, newest_bps: Some(1_000_000), pictures_bps: 700_000, desired_bps: 800_000 };

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
    fn the_first_estimates_of_a_connection_stop_nothing() {
        let mut way = calm_way();
        let first = Sight { is_measured: false, newest_bps: Some(250_000), ..CALM };
        assert!(!way.seen(at(1_000), first));
        assert_ne!(way.carries_bps(), Some(0));
        assert!(way.seen(at(1_100), Sight { is_measured: true, ..first }), "later they do");
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
    fn a_way_that_could_carry_better_pictures_is_tried_every_second() {
        let mut way = calm_way();
        let mut tried = Vec::new();
        for step in 0..50_u64 {
            // The estimate moves a little, as it does when it is measured.
            let narrow =
                Sight { newest_bps: Some(300_000 + step), pictures_bps: 150_000, desired_bps: 1_500_000, ..CALM };
            assert!(!way.seen(at(step * 100), narrow));
            tried.extend(way.tries(at(step * 100), narrow).map(|told| (step, told)));
        }
        let lowered: Vec<_> = tried.iter().step_by(2).map(|(step, told)| (*step, *told)).collect();
        assert_eq!(lowered, [10, 20, 30, 40].map(|step| (step, Step::Desire(300_000 + step))));
        let raised: Vec<_> = tried.iter().skip(1).step_by(2).copied().collect();
        assert_eq!(raised, [11, 21, 31, 41].map(|step| (step, Step::Desire(1_500_000))));
        let enough = Sight { newest_bps: Some(1_500_000), desired_bps: 1_500_000, ..CALM };
        assert_eq!(way.tries(at(60_000), enough), None);
    }

    #[test]
    fn congestion_control_that_holds_back_begins_anew() {
        let mut way = calm_way();
        let stuck = Sight { newest_bps: Some(300_000), pictures_bps: 150_000, desired_bps: 1_500_000, ..CALM };
        let tried: Vec<_> = (0..70).filter_map(|step| way.tries(at(2_000 + step * 100), stuck)).collect();
        let lowered = [Step::Desire(300_000), Step::Desire(1_500_000)];
        let anew = [Step::Anew(150_000)];
        assert_eq!(tried, [&lowered[..], &lowered, &anew, &lowered, &anew, &lowered, &anew].concat());
    }

    #[test]
    fn the_first_report_that_shows_a_narrow_way_stops_pictures_at_once() {
        let mut way = calm_way();
        for number in 0..20_u16 {
            way.sent(at(1_000 + u64::from(number) * 5), number, 1_200);
        }
        // Of 20 packets in 100 ms the first six came, and then two that had waited.
        let mut report = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 20, 0, 0, 0, 0];
        report.extend([0xbf, 0x00, 0xa4, 0x20]);
        report.extend([20, 20, 20, 20, 20, 20, 255, 128, 0, 0, 0, 0]);
        assert_eq!(way.fed_back(at(1_150), &report, 80_000), None, "pictures have room");
        for number in 0..20_u16 {
            way.sent(at(1_000 + u64::from(number) * 5), number, 1_200);
        }
        let Some(Step::Anew(bps)) = way.fed_back(at(1_150), &report, 1_500_000) else { panic!("it is narrow") };
        assert!((100_000..=500_000).contains(&bps), "{bps}");
        assert_eq!((way.is_full(at(1_300)), way.is_full(at(1_400)), way.carries_bps()), (true, false, Some(0)));
        assert!(way.seen(at(1_700), Sight { newest_bps: Some(bps), ..CALM }), "what waited is through");
        let proved = way.carries_bps().expect("measured");
        assert!(proved > bps && proved <= bps * 3, "{proved} after {bps}");
    }

    /// Tells of packets that were sent every 10 ms from `at_ms` on, under the numbers from `first` on, and waited for so long, in
    /// milliseconds: a run of two-byte times.
    fn feeds_back(way: &mut Way, at_ms: u64, first: u16, waited_ms: &[u64]) -> Option<Step> {
        use crate::twcc::TICKS_PER_MS;
        let count = waited_ms.len() as u16;
        let mut body =
            [first.to_be_bytes(), count.to_be_bytes(), [0, 0], [0, 0], (0x4000 | count).to_be_bytes()].concat();
        let mut before = 0;
        for (place, waited_ms) in waited_ms.iter().enumerate() {
            let sent_ms = at_ms + 10 * place as u64;
            way.sent(at(sent_ms), first + place as u16, 1_200);
            let came = (sent_ms + waited_ms) as u16 * TICKS_PER_MS as u16;
            body.extend((came - before).to_be_bytes());
            before = came;
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let words = (body.len() / 4 + 2) as u16;
        let head = [&[0x8f, 205][..], &words.to_be_bytes(), &[0; 8]].concat();
        way.fed_back(at(at_ms + 10 * u64::from(count)), &[head, body].concat(), 1_500_000)
    }

    #[test]
    fn pictures_that_fill_a_way_again_stop_before_it_could_be_found_to_shrink_again() {
        let mut way = calm_way();
        assert_eq!(feeds_back(&mut way, 1_000, 0, &[5; 20]), None, "nothing waits");
        assert!(way.seen(at(1_200), Sight { newest_bps: Some(250_000), ..CALM }), "an estimate says that it shrank");
        let again = 1_200 + AGAIN_AFTER.0 / 1_000;
        let mut early = way.clone();
        // They come out slower and slower, the first of them at once.
        let slower: Vec<u64> = (0..12).map(|place| 20 * place).collect();
        assert_eq!(feeds_back(&mut early, again - 320, 20, &slower), None, "the tries may have done that");
        let Some(Step::Anew(_)) = feeds_back(&mut early, again - 200, 32, &[230; 12]) else { panic!("it is filled") };
        assert!(early.is_full(at(again - 50)));
        // Later it is found to shrink by that alone.
        assert!(matches!(feeds_back(&mut way, again + 10, 20, &slower), Some(Step::Anew(_))));
    }
}
