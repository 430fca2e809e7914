//! What a fault sounds like. Of every listener and speaker the longest time without a frame is kept, from one fault to
//! the next; who sat on the node of the fault is told from those who did not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::Counts;

/// A listener who has heard nothing of a speaker for so long when all is over does not hear them any more.
const GONE_AFTER_NS: u64 = 500_000_000;

/// Times are kept in steps of so many µs: finer would say nothing of silences.
const STEP_US: u64 = 100;

/// What one listener has heard of one speaker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    /// When last; 0 before the first frame.
    heard_ns: u64,
    longest_ns: u64,
    /// When the longest silence ended.
    longest_until_ns: u64,
    /// Frames of the measured time.
    delivered: u64,
}

/// How a pair did in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closed {
    longest_ns: u64,
    /// How long of the longest silence that is over lay in the period; `None` when they hear them no more. It is not when
    /// it was over: whoever is never gone, as in a drain, has a longest one, too, of an everyday length and anywhere.
    back_after_ns: Option<u64>,
}

impl Pair {
    /// A frame arrived for the first time; `counted` says whether it was sent in the measured time. Silences that ended
    /// before `from_ns` are not looked at.
    pub(super) fn heard(&mut self, at_ns: u64, from_ns: u64, counted: bool) {
        let silent_ns = at_ns.saturating_sub(self.heard_ns);
        if self.heard_ns > 0 && at_ns >= from_ns && silent_ns > self.longest_ns {
            (self.longest_ns, self.longest_until_ns) = (silent_ns, at_ns);
        }
        self.heard_ns = self.heard_ns.max(at_ns);
        self.delivered += u64::from(counted);
    }

    /// Ends a period; the next one begins.
    fn close(&mut self, from_ns: u64, to_ns: u64) -> Closed {
        let since_ns = if self.heard_ns == 0 { from_ns } else { self.heard_ns };
        let open_ns = to_ns.saturating_sub(since_ns);
        let (until_ns, closed_ns) = (self.longest_until_ns, self.longest_ns);
        let in_period_ns = closed_ns.min(until_ns.saturating_sub(from_ns));
        let back_after_ns = (open_ns < GONE_AFTER_NS && closed_ns > 0).then_some(in_period_ns);
        (self.longest_ns, self.longest_until_ns) = (0, 0);
        Closed { longest_ns: closed_ns.max(open_ns), back_after_ns }
    }
}

/// A pair and who it is.
pub(super) struct Ends<'a> {
    pub(super) listener: usize,
    pub(super) speaker: usize,
    /// Frames that the speaker sent in the measured time.
    pub(super) sent: u64,
    pub(super) pair: &'a mut Pair,
}

/// What followed from one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silences {
    /// The longest time without a frame of each listener and speaker who both sat on other nodes, in µs.
    pub survivors_us: Counts,
    /// Of those, the ones who sat on different nodes.
    pub survivors_across_us: Counts,
    /// The same where one of them sat on the node of the fault and the other did not.
    pub moved_us: Counts,
    /// How long a speaker who sat on its node was not heard, from the fault on or since, until the first of those on
    /// others heard them again, in µs. Who was heard all along has what lies between two frames.
    pub heard_again_us: Counts,
    /// How long a listener who sat on its node heard nobody, likewise, until they heard the first of those on others
    /// again, in µs.
    pub hear_again_us: Counts,
    /// Speakers who sat there and whom nobody heard any more.
    pub never_heard_again: u64,
    /// Listeners who sat there and heard nobody any more.
    pub never_hear_again: u64,
}

/// Frames that should have been delivered, and were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Deliveries that should have been.
    pub expected: u64,
    /// Those that were not.
    pub lost: u64,
}

/// What was lost over the whole measured time, by whom a fault hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostBySeat {
    /// Between those who never sat on the node of a fault.
    pub survivors: Lost,
    /// All else.
    pub moved: Lost,
    /// Of a speaker's frames who was moved, how many each surviving listener missed.
    pub of_moved_speakers: Counts,
    /// Of a surviving speaker's frames, how many each listener who was moved missed.
    pub to_moved_listeners: Counts,
}

/// Keeps watch over all pairs.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    from_ns: u64,
    /// Whom the fault hit that began this period; nobody before the first.
    hit: Option<Hit>,
    hit_by_any: Vec<bool>,
    before_us: Counts,
    faults: Vec<(u64, Silences)>,
}

/// Whom a fault hits.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// Its node.
    pub(super) node: usize,
    /// Which node whoever is in each slot sits on.
    pub(super) seats: Vec<usize>,
}

impl Hit {
    fn at(&self, slot: usize) -> bool {
        self.seats[slot] == self.node
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// The longest silences before the first fault.
    pub(super) before_us: Counts,
    /// When each fault was, and what followed.
    pub(super) faults: Vec<(u64, Silences)>,
    pub(super) lost: LostBySeat,
}

impl Watch {
    /// Watches `slots` clients from then on.
    pub(super) fn new(from_ns: u64, slots: usize) -> Self {
        let (hit_by_any, before_us) = (vec![false; slots], Counts::default());
        Self { from_ns, hit: None, hit_by_any, before_us, faults: Vec::new() }
    }

    /// Since when silences count.
    pub(super) const fn since_ns(&self) -> u64 {
        self.from_ns
    }

    /// A fault begins.
    pub(super) fn fault<'a>(&mut self, at_ns: u64, hit: Hit, pairs: impl Iterator<Item = Ends<'a>>) {
        self.close(at_ns, pairs);
        for (any, seat) in self.hit_by_any.iter_mut().zip(&hit.seats) {
            *any |= *seat == hit.node;
        }
        self.from_ns = at_ns;
        self.hit = Some(hit);
    }

    /// The measured time is over.
    pub(super) fn end<'a>(mut self, to_ns: u64, pairs: impl Iterator<Item = Ends<'a>>) -> Watched {
        let mut lost = LostBySeat::default();
        let hit_by_any = std::mem::take(&mut self.hit_by_any);
        self.close(to_ns, pairs.inspect(|ends| lost.note(ends, &hit_by_any)));
        Watched { before_us: self.before_us, faults: self.faults, lost }
    }

    fn close<'a>(&mut self, to_ns: u64, pairs: impl Iterator<Item = Ends<'a>>) {
        let from_ns = self.from_ns;
        let closed = pairs.map(|ends| (ends.listener, ends.speaker, ends.pair.close(from_ns, to_ns)));
        match &self.hit {
            None => closed.for_each(|(_, _, closed)| self.before_us.record(steps_us(closed.longest_ns))),
            Some(hit) => self.faults.push((from_ns, Silences::of(hit, closed))),
        }
    }
}

impl Silences {
    fn of(hit: &Hit, pairs: impl Iterator<Item = (usize, usize, Closed)>) -> Self {
        let mut silences = Self::default();
        let (mut speakers, mut listeners) = (BTreeMap::new(), BTreeMap::new());
        for (listener, speaker, Closed { longest_ns, back_after_ns }) in pairs {
            let longest_us = steps_us(longest_ns);
            match (hit.at(listener), hit.at(speaker)) {
                (false, false) => {
                    silences.survivors_us.record(longest_us);
                    if hit.seats[listener] != hit.seats[speaker] {
                        silences.survivors_across_us.record(longest_us);
                    }
                }
                (false, true) => shortest(speakers.entry(speaker).or_default(), back_after_ns),
                (true, false) => shortest(listeners.entry(listener).or_default(), back_after_ns),
                (true, true) => {}
            }
            if hit.at(listener) != hit.at(speaker) {
                silences.moved_us.record(longest_us);
            }
        }
        let tell = |members: BTreeMap<usize, Option<u64>>, again_us: &mut Counts| {
            let back = members.values().flatten();
            back.for_each(|after_ns| again_us.record(steps_us(*after_ns)));
            members.len() as u64 - again_us.total()
        };
        silences.never_heard_again = tell(speakers, &mut silences.heard_again_us);
        silences.never_hear_again = tell(listeners, &mut silences.hear_again_us);
        silences
    }

    /// What followed from all of these.
    pub(super) fn all<'a>(several: impl Iterator<Item = &'a Self>) -> Self {
        several.fold(Self::default(), |mut sum, one| {
            sum.merge(one);
            sum
        })
    }

    /// Adds what followed from another fault.
    pub fn merge(&mut self, other: &Self) {
        self.survivors_us.merge(&other.survivors_us);
        self.survivors_across_us.merge(&other.survivors_across_us);
        self.moved_us.merge(&other.moved_us);
        self.heard_again_us.merge(&other.heard_again_us);
        self.hear_again_us.merge(&other.hear_again_us);
        self.never_heard_again += other.never_heard_again;
        self.never_hear_again += other.never_hear_again;
    }
}

impl LostBySeat {
    fn note(&mut self, ends: &Ends<'_>, hit: &[bool]) {
        let lost = ends.sent.saturating_sub(ends.pair.delivered);
        let sum = match (hit[ends.listener], hit[ends.speaker]) {
            (false, false) => &mut self.survivors,
            _ => &mut self.moved,
        };
        sum.expected += ends.sent;
        sum.lost += lost;
        match (hit[ends.listener], hit[ends.speaker]) {
            (false, true) => self.of_moved_speakers.record(lost),
            (true, false) => self.to_moved_listeners.record(lost),
            _ => {}
        }
    }

    /// Adds what was lost in another run.
    pub fn merge(&mut self, other: &Self) {
        for (sum, other) in [(&mut self.survivors, other.survivors), (&mut self.moved, other.moved)] {
            sum.expected += other.expected;
            sum.lost += other.lost;
        }
        self.of_moved_speakers.merge(&other.of_moved_speakers);
        self.to_moved_listeners.merge(&other.to_moved_listeners);
    }
}

fn shortest(known: &mut Option<u64>, after_ns: Option<u64>) {
    *known = [*known, after_ns].into_iter().flatten().min();
}

fn steps_us(ns: u64) -> u64 {
    ns / 1_000 / STEP_US * STEP_US
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Frames every 20 ms in `range`, but not in `without`, all in ms.
    fn hear(pair: &mut Pair, watch: &Watch, range: std::ops::Range<u64>, without: std::ops::Range<u64>) {
        for at in range.step_by(20).filter(|at| !without.contains(at)) {
            pair.heard(at * MS, watch.since_ns(), true);
        }
    }

    fn ends(pairs: &mut [(usize, usize, Pair)]) -> impl Iterator<Item = Ends<'_>> {
        pairs.iter_mut().map(|(listener, speaker, pair)| Ends {
            listener: *listener,
            speaker: *speaker,
            sent: 145,
            pair,
        })
    }

    /// 0, 1 and 4 sit where nothing happens, 2 and 3 on the node that dies at 2.005 s; 0 and 2 speak, from 0.1 s to 3 s.
    fn watched() -> Watched {
        let pairs = [(1, 0), (1, 2), (3, 0), (0, 2), (4, 0)];
        let mut pairs = pairs.map(|(listener, speaker)| (listener, speaker, Pair::default()));
        let mut watch = Watch::new(1_000 * MS, 5);
        for (_, _, pair) in &mut pairs {
            hear(pair, &watch, 100..2_005, 0..0);
        }
        watch.fault(2_005 * MS, Hit { node: 9, seats: vec![7, 8, 9, 9, 7] }, ends(&mut pairs));
        let back_ms = [2_120, 2_500, 4_000, 2_400, 0];
        for ((_, _, pair), back_ms) in pairs.iter_mut().zip(back_ms) {
            hear(pair, &watch, 2_020..3_000, 2_001..back_ms);
        }
        watch.end(3_000 * MS, ends(&mut pairs))
    }

    #[test]
    fn survivors_silence_is_told_from_that_of_those_who_moved() {
        let Watched { before_us, faults, .. } = watched();
        assert_eq!((before_us.total(), before_us.max()), (5, 20_000));
        let [(at_ns, silences)] = faults.as_slice() else { panic!("{faults:?}") };
        assert_eq!(*at_ns, 2_005 * MS);
        let (all, across) = (&silences.survivors_us, &silences.survivors_across_us);
        assert_eq!((all.total(), all.quantile(0.5), all.max()), (2, 20_000, 120_000), "2,000 to 2,120 ms");
        assert_eq!((across.total(), across.max()), (1, 120_000), "0 and 4 sit on the same node");
        assert_eq!((silences.moved_us.total(), silences.moved_us.max()), (3, 1_000_000), "one hears nothing any more");
    }

    #[test]
    fn whoever_moved_is_back_with_the_first_who_hears_them_or_never() {
        let (_, silences) = watched().faults.remove(0);
        assert_eq!(
            (silences.heard_again_us.total(), silences.heard_again_us.max()),
            (1, 395_000),
            "0 hears 2 at 2.4 s"
        );
        assert_eq!((silences.never_heard_again, silences.never_hear_again), (0, 1), "3 hears 0 no more");
        assert_eq!(silences.hear_again_us.total(), 0);
    }

    #[test]
    fn losses_are_told_apart_by_where_people_sat() {
        let lost = watched().lost;
        assert_eq!(lost.survivors, Lost { expected: 2 * 145, lost: 5 });
        assert_eq!(lost.moved, Lost { expected: 3 * 145, lost: 24 + 49 + 19 });
        assert_eq!((lost.of_moved_speakers.total(), lost.of_moved_speakers.max()), (2, 24));
        assert_eq!((lost.to_moved_listeners.total(), lost.to_moved_listeners.max()), (1, 49));
        let mut twice = lost.clone();
        twice.merge(&lost);
        assert_eq!((twice.survivors.lost, twice.of_moved_speakers.total()), (10, 4));
    }

    #[test]
    fn a_drain_without_a_silence_leaves_nobody_gone() {
        let mut pairs = [(0, 1, Pair::default())];
        let mut watch = Watch::new(0, 2);
        hear(&mut pairs[0].2, &watch, 100..1_000, 0..0);
        watch.fault(1_000 * MS, Hit { node: 1, seats: vec![0, 1] }, ends(&mut pairs));
        hear(&mut pairs[0].2, &watch, 1_000..3_000, 0..0);
        let watched = watch.end(3_005 * MS, ends(&mut pairs));
        let silences = &watched.faults[0].1;
        assert_eq!((silences.never_heard_again, silences.moved_us.max()), (0, 25_000), "the open end counts, too");
    }

    #[test]
    fn who_was_heard_all_along_is_not_gone_until_their_longest_pause() {
        let mut pairs = [(0, 1, Pair::default()), (2, 1, Pair::default())];
        let mut watch = Watch::new(0, 3);
        let frames = |pairs: &mut [(usize, usize, Pair)], watch: &Watch, range: std::ops::Range<u64>, late: u64| {
            for (_, _, pair) in pairs {
                for at in range.clone().step_by(20) {
                    // One frame, long after the fault, comes to both 4 ms after its time.
                    let at = if at == late { at + 4 } else { at };
                    pair.heard(at * MS, watch.since_ns(), true);
                }
            }
        };
        frames(&mut pairs, &watch, 100..1_000, 0);
        watch.fault(1_000 * MS, Hit { node: 1, seats: vec![0, 1, 2] }, ends(&mut pairs));
        frames(&mut pairs, &watch, 1_000..9_000, 7_800);
        let silences = watch.end(9_000 * MS, ends(&mut pairs)).faults.remove(0).1;
        assert_eq!((silences.heard_again_us.total(), silences.heard_again_us.max()), (1, 24_000));
    }

    #[test]
    fn a_speaker_who_is_moved_late_was_gone_for_as_long_as_nobody_heard_them() {
        let mut pairs = [(0, 1, Pair::default())];
        let mut watch = Watch::new(0, 2);
        hear(&mut pairs[0].2, &watch, 100..1_000, 0..0);
        watch.fault(1_000 * MS, Hit { node: 1, seats: vec![0, 1] }, ends(&mut pairs));
        hear(&mut pairs[0].2, &watch, 1_000..5_000, 3_001..3_100);
        let silences = watch.end(5_000 * MS, ends(&mut pairs)).faults.remove(0).1;
        assert_eq!(silences.heard_again_us.max(), 100_000, "from 3.0 s to 3.1 s, not until 2.1 s after the fault");
    }

    #[test]
    fn late_frames_neither_shorten_nor_make_a_silence() {
        let mut pair = Pair::default();
        for at in [100, 200, 150, 220] {
            pair.heard(at * MS, 0, false);
        }
        assert_eq!(pair.close(0, 230 * MS), Closed { longest_ns: 100 * MS, back_after_ns: Some(100 * MS) });
        assert_eq!(pair.close(230 * MS, 800 * MS), Closed { longest_ns: 580 * MS, back_after_ns: None });
        assert_eq!(Pair::default().close(100 * MS, 900 * MS), Closed { longest_ns: 800 * MS, back_after_ns: None });
    }
}
