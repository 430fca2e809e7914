//! How packets cross a way, from what its receiver tells of each: whether they wait in it, are lost, and what it lets through.
//!
//! An estimate of what a way carries comes from averages, and comes late. What is known of single packets shows a way that has just
//! become narrow with the first report that can show it: packets wait far longer than they did or are lost, while less comes out
//! than is put in. A radio loses some and lets the others through as fast; a receiver that was away for a moment finds all that
//! came meanwhile at once, the newest of which have not waited.

use crate::{clock::Micros, twcc::TICKS_PER_MS};

/// Packets that are remembered: those of a second at 5 Mbit/s.
const SENT_MAX: usize = 512;
/// So many packets, sent over so long, show how a way is: fewer are no more than a burst. It is looked at by those that were sent
/// within so long before the newest that is told of.
const SHOWN_BY: usize = 6;
const SHOWN_OVER: u32 = 40 * TICKS_PER_MS;
const LOOK_WITHIN: u32 = 120 * TICKS_PER_MS;
/// Where all that comes out has waited so long and goes on to, pictures fill the way, be it only by a little: voices wait with them, and are
/// lost beside them once it holds no more.
const FILLED_WAIT: u32 = 150 * TICKS_PER_MS;
const FILLED_WITHIN: u32 = 80 * TICKS_PER_MS;
const FILLED_OVER: u32 = 40 * TICKS_PER_MS;
/// What shows that waiting grows less: that what is sent is less than what comes out.
const LESS_WAIT: u32 = 10 * TICKS_PER_MS;
/// A way that has overflowed holds no more than what waited then, so it is filled by so much of that in percent, whether or not more comes.
const BRIM_PERCENT: u32 = 70;
/// That is not looked at so soon after a stop: what is tried in a way that has just shrunk fills it once more.
const FILLED_AFTER: u32 = 800 * TICKS_PER_MS;
/// So many stops in a row are believed without a loss to speak of. From then on, as it may only be a way whose delay rises and falls, each has to be
/// twice as long after the last as the one before, up to 51 s.
const LOSSLESS_SOON: u32 = 4;
const LOSSLESS_DOUBLINGS_MAX: u32 = 6;
/// Stops that are further apart than twice as long are no row.
const LOSSLESS_ROW: u32 = 2 * (FILLED_AFTER << LOSSLESS_DOUBLINGS_MAX);
/// How long it is known how much a way holds.
const KNOWN_FOR: u32 = 60_000 * TICKS_PER_MS;
/// A receiver that says that packets waited for longer is not believed.
const WAIT_MAX: u32 = 60_000 * TICKS_PER_MS;
/// Packets of one look: the rest of a report that tells of more is passed over.
const LOOK_MAX: usize = 512;
/// Where the newest that came have all waited so long, and others are lost, there is a queue, be it a short one.
const SHORT_WAIT: u32 = 15 * TICKS_PER_MS;
/// Where they have waited so long nothing needs to be lost.
const LONG_WAIT: u32 = 80 * TICKS_PER_MS;
const NEWEST: usize = 3;
/// Of the packets of a look, in percent: losses that go with a queue, and such as show a way without one.
const SOME_LOST_PERCENT: usize = 10;
const MANY_LOST_PERCENT: usize = 30;
/// A way that lets less than this share of what is sent come out is too narrow for it.
const SCARCE_PERCENT: u64 = 65;
/// What pictures take is measured now and then, and a publisher that has just begun raises it meanwhile: what was sent within so long
/// before counts as well.
const LATELY: u32 = 500 * TICKS_PER_MS;
/// Lost packets that were sent so soon after each other were lost for one reason.
const LOST_TOGETHER: u32 = 150 * TICKS_PER_MS;
/// A voice may be lost so long before the first picture: between two pictures, and the first of two that come so may find room.
const BESIDE: Micros = Micros::from_millis(80);
/// How long the shortest crossing counts: the way may have another length by then, and clocks drift.
const SHORTEST_FOR: Micros = Micros::from_secs(10);

/// A packet that was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    at: u32,
    number: u16,
    bytes: u16,
    is_told: bool,
}

/// A packet that was told of.
#[derive(Clone, Copy, Debug)]
struct Crossed {
    sent: u32,
    bytes: u16,
    /// When it came out by the receiver's clock, and how much longer it was on its way than the quickest.
    came: Option<(u32, u32)>,
}

/// A way too narrow for what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    /// What it lets through, in bits per second.
    pub(super) carries_bps: u64,
    /// Seen by how long packets wait, be what comes out of it little less than what is sent.
    pub(super) is_filled: bool,
}

/// When pictures stopped last, and how the way was until then: one that loses has overflowed, or pictures had filled it.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: u32,
    /// The quickest crossing until then, by which what was sent until then goes on being measured.
    quickest: u32,
    /// How much longer than that it was on its way at most.
    deepest: u32,
    /// Some of it was lost, or was in doubt: there is no room for more.
    loses: bool,
}

impl Stop {
    /// Whether a packet was sent before.
    const fn had(&self, sent: u32) -> bool {
        !is_at_most(self.at, sent)
    }
}

/// One way's packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Crossing {
    /// By their numbers' ends; empty before the first.
    sent: Vec<Sent>,
    look: Vec<Crossed>,
    shortest: Option<u32>,
    /// Since [`Self::began`], for when that is over.
    next_shortest: Option<u32>,
    began: Micros,
    /// When the newest packet that was told of was sent.
    newest: Option<u32>,
    /// When the first and the last of those that were lost together were sent, the newest such.
    lost: Option<(u32, u32)>,
    stop: Option<Stop>,
    /// When pictures stopped last, and how often in a row: meanwhile little was lost, and nothing beside a queue.
    lossless: Option<(u32, u32)>,
}

impl Crossing {
    /// A packet of so many bytes is sent.
    pub(super) fn sent(&mut self, now: Micros, number: u16, bytes: usize) {
        if self.sent.is_empty() {
            self.sent.resize(SENT_MAX, Sent::default());
        }
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.sent[usize::from(number) % SENT_MAX] = Sent { at: ticks(now), number, bytes, is_told: false };
    }

    /// The receiver tells of a packet. That it had not come counts once; it may come yet, and is then as if it never had.
    pub(super) fn told(&mut self, now: Micros, number: u16, came: Option<u32>) {
        let Some(sent) = self.sent.get_mut(usize::from(number) % SENT_MAX) else { return };
        if sent.number != number || sent.bytes == 0 || sent.is_told || self.look.len() == LOOK_MAX {
            return;
        }
        sent.is_told = true;
        let Sent { at, bytes, .. } = *sent;
        self.newest = Some(at);
        if came.is_none() {
            self.lost = Some((self.lost_since(at).unwrap_or(at), at));
            if let Some(stop) = self.stop.as_mut().filter(|stop| stop.had(at)) {
                stop.loses = true;
            }
        }
        let came = came.map(|came| (came, self.waited(now, at, came.wrapping_sub(at))));
        self.look.push(Crossed { sent: at, bytes, came });
    }

    /// Since when those were sent that were lost together with one that is sent `at`.
    fn lost_since(&self, at: u32) -> Option<u32> {
        self.lost.filter(|(_, last)| at.wrapping_sub(*last) <= LOST_TOGETHER).map(|(first, _)| first)
    }

    /// Since when something that was sent besides may have been lost: since pictures were, or else of which nothing is told yet.
    pub(super) fn doubtful_since(&self, now: Micros) -> Micros {
        let Some(newest) = self.newest else { return now };
        let ago = ticks(now).wrapping_sub(self.lost_since(newest).unwrap_or(newest));
        now - Micros(u64::from(ago) * 1_000 / u64::from(TICKS_PER_MS)) - BESIDE
    }

    /// What waits goes through now: how long the way is shows anew. How much it holds shows by what is still to be told of.
    pub(super) fn clears(&mut self, now: Micros) {
        let loses = self.newest.is_some_and(|newest| self.lost_since(newest).is_some());
        let is_known = |stop: &Stop| stop.loses && ticks(now).wrapping_sub(stop.at) < KNOWN_FOR;
        let before = self.stop.filter(is_known);
        let quickest = self.shortest.or(self.stop.map(|stop| stop.quickest));
        self.stop = quickest.map(|quickest| Stop {
            at: ticks(now),
            quickest,
            deepest: before.map_or(0, |before| before.deepest),
            loses: loses || before.is_some(),
        });
        self.lossless = Some((ticks(now), self.stops_in_a_row(now) + 1));
        (self.shortest, self.next_shortest, self.began) = (None, None, now);
        self.look.clear();
    }

    /// It has become wide: how much it held when it was narrow says nothing any more.
    pub(super) fn widens(&mut self) {
        self.stop = None;
    }

    /// How much longer than the quickest a packet was on its way that was sent `at`.
    fn waited(&mut self, now: Micros, at: u32, crossing: u32) -> u32 {
        let is_before = |stop: &&mut Stop| stop.had(at) && ticks(now).wrapping_sub(stop.at) < KNOWN_FOR;
        if let Some(stop) = self.stop.as_mut().filter(is_before) {
            let waited = if is_at_most(stop.quickest, crossing) { crossing.wrapping_sub(stop.quickest) } else { 0 };
            stop.deepest = stop.deepest.max(waited.min(WAIT_MAX));
            return waited;
        }
        if now.since(self.began) >= SHORTEST_FOR {
            self.shortest = self.next_shortest.take().or(self.shortest);
            self.began = now;
        }
        let shorter = |one: Option<u32>| one.filter(|one| is_at_most(*one, crossing)).unwrap_or(crossing);
        let shortest = shorter(self.shortest);
        self.shortest = Some(shortest);
        self.next_shortest = Some(shorter(self.next_shortest));
        crossing.wrapping_sub(shortest)
    }

    /// Whether the way lets too little through for `pictures_bps` and what was sent, or a queue that stands in it overflows, or is about
    /// to: to be asked after each report.
    pub(super) fn is_narrow(&mut self, now: Micros, pictures_bps: u64) -> Option<Narrow> {
        let last = self.look.last()?.sent;
        if self.look.len() == LOOK_MAX {
            // Else there is no room for newer ones when all of these were sent within a look.
            self.look.drain(..LOOK_MAX / 2);
        }
        self.look.retain(|packet| last.wrapping_sub(packet.sent) <= LOOK_WITHIN);
        let sent_over = last.wrapping_sub(self.look.first()?.sent);
        let shows = self.look.len() >= SHOWN_BY && sent_over >= SHOWN_OVER;
        if self.loses() {
            self.lossless = None;
        }
        if self.has_stopped_too_often(now) {
            return None;
        }
        let judged = if shows { self.judge(now, pictures_bps, sent_over) } else { None };
        let narrow = judged.map(|carries_bps| Narrow { carries_bps, is_filled: false });
        let narrow = self.fills(now).or(narrow);
        if narrow.is_some() {
            self.look.clear();
        }
        narrow
    }

    /// Whether pictures fill the way: then what was sent since is in doubt.
    fn fills(&mut self, now: Micros) -> Option<Narrow> {
        let ago = self.stop.map(|stop| ticks(now).wrapping_sub(stop.at));
        if ago.is_some_and(|ago| ago < FILLED_AFTER) {
            return None;
        }
        let is_known = |stop: &Stop| stop.loses && ago.is_some_and(|ago| ago < KNOWN_FOR);
        let deepest = self.stop.filter(is_known).map(|stop| stop.deepest);
        // In a shorter queue a single whole picture waits as long.
        let brim = deepest.map(|deepest| deepest * BRIM_PERCENT / 100).filter(|brim| *brim >= LONG_WAIT);
        let filled = brim.map_or(FILLED_WAIT, |brim| brim.min(FILLED_WAIT));
        let is_new = |packet: &&Crossed| self.stop.is_none_or(|stop| !stop.had(packet.sent));
        let came: Vec<Came> = self.look.iter().filter(is_new).filter_map(Came::of).collect();
        let last = came.last()?;
        let since = came.iter().position(|packet| last.sent.wrapping_sub(packet.sent) <= FILLED_WITHIN)?;
        let first = came[since];
        let goes_on = brim.is_some() || last.waited.saturating_add(LESS_WAIT) >= first.waited;
        let is_long = came.len() - since >= NEWEST && last.sent.wrapping_sub(first.sent) >= FILLED_OVER;
        if !(is_long && goes_on && came[since..].iter().all(|packet| packet.waited >= filled)) {
            return None;
        }
        // What comes at once after a stall came slower before.
        let sent_over = last.sent.wrapping_sub(came.first()?.sent);
        let sent_bps = bps(came.iter().skip(1).map(|packet| u64::from(packet.bytes)).sum(), sent_over)?;
        let carries_bps = let_through(&came)?.min(sent_bps);
        self.lost = Some((self.lost_since(first.sent).unwrap_or(first.sent), last.sent));
        Some(Narrow { carries_bps, is_filled: true })
    }

    /// Whether voices are lost, too: much of what is looked at is, or some of it, and what came last had to wait.
    fn loses(&self) -> bool {
        let lost = self.look.iter().filter(|packet| packet.came.is_none()).count();
        let newest = self.look.iter().rev().filter_map(Came::of).take(NEWEST);
        let waiting = newest.filter(|packet| packet.waited >= SHORT_WAIT).count();
        (lost >= 1 && waiting == NEWEST) || (lost >= 2 && lost * 100 >= self.look.len() * MANY_LOST_PERCENT)
    }

    fn stops_in_a_row(&self, now: Micros) -> u32 {
        let row = self.lossless.filter(|(last, _)| ticks(now).wrapping_sub(*last) < LOSSLESS_ROW);
        row.map_or(0, |(_, count)| count)
    }

    fn has_stopped_too_often(&self, now: Micros) -> bool {
        let Some(over) = self.stops_in_a_row(now).checked_sub(LOSSLESS_SOON) else { return false };
        let doublings = (over + 1).min(LOSSLESS_DOUBLINGS_MAX);
        self.lossless.is_some_and(|(last, _)| ticks(now).wrapping_sub(last) < FILLED_AFTER << doublings)
    }

    /// What was sent of late, in bits per second: of no more packets than are remembered.
    fn lately_bps(&self, now: Micros) -> u64 {
        let is_late = |sent: &&Sent| sent.bytes > 0 && ticks(now).wrapping_sub(sent.at) < LATELY;
        bps(self.sent.iter().filter(is_late).map(|sent| u64::from(sent.bytes)).sum(), LATELY).unwrap_or(0)
    }

    fn judge(&self, now: Micros, pictures_bps: u64, sent_over: u32) -> Option<u64> {
        let came: Vec<Came> = self.look.iter().filter_map(Came::of).collect();
        let lost = self.look.len() - came.len();
        let bytes: u64 = self.look.iter().skip(1).map(|packet| u64::from(packet.bytes)).sum();
        let sent_bps = bps(bytes, sent_over)?;
        let newest = &came[came.len().checked_sub(NEWEST)?..];
        let all_wait = |at_least| newest.iter().all(|packet| packet.waited >= at_least);
        let loses = |percent| lost >= 2 && lost * 100 >= self.look.len() * percent;
        let has_short_queue = loses(SOME_LOST_PERCENT) && all_wait(SHORT_WAIT);
        let has_long_queue = all_wait(LONG_WAIT);
        if !(has_long_queue || has_short_queue || loses(MANY_LOST_PERCENT)) {
            return None;
        }
        let through_bps = let_through(&came)?;
        let queued: Vec<Came> = came.iter().copied().filter(|packet| packet.waited >= SHORT_WAIT).collect();
        let carries_bps = let_through(&queued).unwrap_or(through_bps).min(through_bps);
        let is_scarce = |wanted: u64, there: u64| there * 100 < wanted * SCARCE_PERCENT;
        let wanted_bps = pictures_bps.max(self.lately_bps(now));
        let is_too_much = is_scarce(sent_bps, through_bps) && is_scarce(wanted_bps, carries_bps);
        // A queue that stands and loses a tenth, be what comes out little less than what was sent, and whoever else fills it. What comes all
        // at once after a stall is no queue: more comes out of it than was sent.
        let overflows = has_long_queue && loses(SOME_LOST_PERCENT) && through_bps < sent_bps;
        (is_too_much || overflows).then_some(carries_bps)
    }
}

/// A packet that came out.
#[derive(Clone, Copy)]
struct Came {
    sent: u32,
    at: u32,
    waited: u32,
    bytes: u16,
}

impl Came {
    fn of(packet: &Crossed) -> Option<Self> {
        packet.came.map(|(at, waited)| Self { sent: packet.sent, at, waited, bytes: packet.bytes })
    }
}

/// What came out in bits per second; `None` for less than shows it. All of it is nothing while it came at once.
fn let_through(came: &[Came]) -> Option<u64> {
    let (first, last) = (came.first()?.at, came.last()?.at);
    let bytes: u64 = came.iter().skip(1).map(|packet| u64::from(packet.bytes)).sum();
    if came.len() < NEWEST || !is_at_most(1, last.wrapping_sub(first)) {
        return None;
    }
    bps(bytes, last.wrapping_sub(first))
}

fn bps(bytes: u64, within: u32) -> Option<u64> {
    (bytes * 8 * 1_000 * u64::from(TICKS_PER_MS)).checked_div(within.into())
}

/// Of times that come round.
const fn is_at_most(one: u32, other: u32) -> bool {
    other.wrapping_sub(one) as i32 >= 0
}

/// Our time in the receiver's measure.
const fn ticks(now: Micros) -> u32 {
    (now.0 * TICKS_PER_MS as u64 / 1_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    const BYTES: usize = 1_200;
    /// The receiver's clock says something else than ours, and comes round meanwhile.
    const OTHER_CLOCK: u32 = u32::MAX - 3_000;

    /// Pictures of 1.5 Mbit/s: a packet of 1,200 bytes every 6.4 ms, over a way that carries so much behind a queue of so long.
    struct Way {
        crossing: Crossing,
        prng: Prng,
        now: Micros,
        number: u16,
        free_at: Micros,
        carries_bps: u64,
        queue: Micros,
        loss: f64,
        jitter_ms: u64,
        /// How much longer everything is on its way, up to 200 ms, and how much more so each packet is.
        later: Micros,
        rises: Micros,
        /// What pictures are said to take.
        pictures_bps: u64,
        told_from: u16,
        came: Vec<Option<u32>>,
        lost: u32,
        is_filled: bool,
    }

    impl Way {
        fn new(seed: u64) -> Self {
            Self {
                crossing: Crossing::default(),
                prng: Prng::new(seed),
                now: Micros::from_secs(1),
                number: 65_000,
                free_at: Micros::ZERO,
                carries_bps: 20_000_000,
                queue: Micros::from_millis(100),
                loss: 0.0,
                jitter_ms: 0,
                later: Micros::ZERO,
                rises: Micros::ZERO,
                pictures_bps: 1_500_000,
                told_from: 65_000,
                came: Vec::new(),
                lost: 0,
                is_filled: false,
            }
        }

        fn send(&mut self) {
            self.now = self.now + Micros(6_400);
            self.crossing.sent(self.now, self.number, BYTES);
            let begins = self.free_at.max(self.now);
            self.later = (self.later + self.rises).min(Micros::from_millis(200));
            let mut came = None;
            if begins.since(self.now) <= self.queue && !self.prng.chance(self.loss) {
                self.free_at = begins + Micros(BYTES as u64 * 8_000_000 / self.carries_bps);
                let jitter = Micros(self.prng.below(1_000 * self.jitter_ms + 1));
                came =
                    Some(ticks(self.free_at + Micros::from_millis(40) + self.later + jitter).wrapping_add(OTHER_CLOCK));
            }
            self.came.push(came);
            self.lost += u32::from(came.is_none());
            self.number = self.number.wrapping_add(1);
        }

        /// Nothing is sent for half a second, in which all that waits goes through and is told of; then less than before.
        fn clears(&mut self, carries_bps: u64) {
            self.crossing.clears(self.now);
            self.now = self.now + Micros::from_millis(500);
            for came in self.came.drain(..) {
                self.crossing.told(self.now, self.told_from, came);
                self.told_from = self.told_from.wrapping_add(1);
            }
            (self.carries_bps, self.lost) = (carries_bps, 0);
        }

        /// Sends for so long and tells of what has come every 100 ms; when it is said to be narrow, and what it carries.
        fn run(&mut self, for_ms: u64) -> Option<(u64, u64)> {
            let begun = self.now;
            let mut report_at = self.now + Micros::from_millis(100);
            while self.now.since(begun) < Micros::from_millis(for_ms) {
                self.send();
                if self.now < report_at {
                    continue;
                }
                report_at = report_at + Micros::from_millis(100);
                let by_now = ticks(self.now).wrapping_add(OTHER_CLOCK);
                let has_come = |came: &Option<u32>| came.is_some_and(|came| is_at_most(came, by_now));
                let count = self.came.iter().rposition(has_come).map_or(0, |last| last + 1);
                for came in self.came.drain(..count) {
                    self.crossing.told(self.now, self.told_from, came);
                    self.told_from = self.told_from.wrapping_add(1);
                }
                if let Some(narrow) = self.crossing.is_narrow(self.now, self.pictures_bps) {
                    self.is_filled = narrow.is_filled;
                    return Some((self.now.since(begun).0 / 1_000, narrow.carries_bps));
                }
            }
            None
        }
    }

    #[test]
    fn a_way_that_becomes_narrow_is_seen_by_the_first_or_second_report_whatever_its_queue() {
        for seed in 0..200 {
            let mut way = Way::new(seed);
            let queue_ms = [0, 30, 60, 100, 200, 2_000][seed as usize % 6];
            (way.queue, way.jitter_ms) = (Micros::from_millis(queue_ms), seed % 12);
            assert_eq!(way.run(3_000 + seed * 7), None, "it carries all of it");
            way.carries_bps = 300_000;
            let (after_ms, carries_bps) = way.run(1_000).expect("narrow");
            assert!(after_ms <= 300, "{after_ms} ms with a queue of {queue_ms} ms");
            assert!((150_000..=1_000_000).contains(&carries_bps), "{carries_bps} with a queue of {queue_ms} ms");
        }
    }

    #[test]
    fn pictures_that_are_said_to_take_less_than_they_do_hide_nothing() {
        for seed in 0..100 {
            let mut way = Way::new(seed);
            (way.queue, way.jitter_ms, way.pictures_bps) = (Micros::from_millis(200), seed % 12, 150_000);
            assert_eq!(way.run(3_000 + seed * 7), None, "it carries all of it");
            way.carries_bps = 300_000;
            assert!(way.run(300).is_some());
        }
    }

    #[test]
    fn a_way_that_is_a_little_too_narrow_is_seen_once_its_queue_is_full() {
        for seed in 0..100 {
            let mut way = Way::new(seed);
            (way.queue, way.jitter_ms) = (Micros::from_millis(200), seed % 12);
            assert_eq!(way.run(3_000 + seed * 7), None, "it carries all of it");
            way.carries_bps = 1_250_000;
            let (after_ms, carries_bps) = way.run(3_000).expect("narrow");
            assert!((1_000..=1_700).contains(&after_ms), "{after_ms} ms");
            assert!((1_100_000..=1_500_000).contains(&carries_bps), "{carries_bps}");
        }
    }

    #[test]
    fn a_way_that_has_overflowed_is_seen_before_it_does_again() {
        for seed in 0..100 {
            let mut way = Way::new(seed);
            (way.queue, way.jitter_ms) = (Micros::from_millis(150 + seed), seed % 12);
            assert_eq!(way.run(1_000 + seed * 7), None, "it carries all of it");
            way.carries_bps = 900_000;
            assert!(way.run(1_000).is_some());
            assert!(!way.is_filled);
            // What is under way when pictures stop fills it up.
            (0..40).for_each(|_| way.send());
            // Now a little less than is sent.
            way.clears(1_430_000);
            let (after_ms, carries_bps) = way.run(6_000).expect("it fills again");
            assert!(way.is_filled, "{after_ms} ms");
            assert_eq!(way.lost, 0, "{after_ms} ms");
            assert!((1_000_000..=2_000_000).contains(&carries_bps), "{carries_bps}");
            assert!(way.crossing.doubtful_since(way.now) < way.now - BESIDE - Micros::from_millis(100));
            // As wide as before, it is not said to be full.
            way.clears(20_000_000);
            way.crossing.widens();
            assert_eq!(way.run(2_000), None);
        }
    }

    #[test]
    fn a_way_that_fills_slowly_is_seen_before_voices_have_waited_for_long_however_much_it_holds() {
        for seed in 0..100 {
            let mut way = Way::new(seed);
            (way.queue, way.jitter_ms) = (Micros::from_millis(250 + seed * 50), seed % 12);
            assert_eq!(way.run(1_000 + seed * 7), None, "it carries all of it");
            way.carries_bps = 1_430_000;
            let (after_ms, carries_bps) = way.run(6_000).expect("it fills");
            assert!(way.is_filled && way.lost == 0, "{after_ms} ms");
            let waits = way.free_at.since(way.now);
            assert!(waits <= Micros::from_millis(200), "{waits:?} after {after_ms} ms");
            assert!((1_000_000..=2_000_000).contains(&carries_bps), "{carries_bps}");
        }
    }

    /// How often pictures stop where the delay rises so many times, each time by so much with each packet, and stays up for a while. Between,
    /// so long, it is as before.
    fn stops(way: &mut Way, times: usize, rises: Micros, between_ms: u64) -> usize {
        (0..times)
            .filter(|_| {
                (way.later, way.rises) = (Micros::ZERO, Micros::ZERO);
                assert_eq!(way.run(between_ms), None, "it carries all of it");
                way.rises = rises;
                let is_stop = way.run(1_000).is_some();
                if is_stop {
                    way.clears(way.carries_bps);
                }
                is_stop
            })
            .count()
    }

    #[test]
    fn a_way_whose_delay_rises_again_and_again_stops_pictures_ever_less_often() {
        for seed in 0..20 {
            for (rises_ms, between_ms) in [(2, 1_500), (4, 1_500), (2, 9_000), (4, 23_000)] {
                let mut way = Way::new(seed);
                (way.queue, way.jitter_ms) = (Micros::from_millis(200), seed % 12);
                let (rises, between_ms) = (Micros::from_millis(rises_ms), between_ms + seed);
                let soon = stops(&mut way, 4, rises, between_ms);
                assert_eq!(soon, 4, "by {rises_ms} ms, after {between_ms}");
                let for_ms: usize = 400_000;
                let times = for_ms / (between_ms as usize + 1_000);
                let later = stops(&mut way, times, rises, between_ms);
                // The gaps are 1.6, 3.2 … 51.2 s, and each lasts until the next rise.
                assert!((4..=13).contains(&later), "{later} of {times} by {rises_ms} ms, after {between_ms}");
            }
        }
    }

    #[test]
    fn a_way_that_loses_stops_pictures_however_often_they_have_stopped_for_nothing() {
        for seed in 0..50 {
            // The last one lets nothing wait.
            for (carries_bps, loss, lost_max) in [(600_000, 0.0, 60), (1_450_000, 0.0, 12), (20_000_000, 0.5, 60)] {
                let mut way = Way::new(seed);
                (way.queue, way.jitter_ms) = (Micros::from_millis(200), seed % 12);
                assert!(stops(&mut way, 40, Micros::from_millis(2), 1_500 + seed) >= 4);
                (way.later, way.rises, way.carries_bps, way.loss) = (Micros::ZERO, Micros::ZERO, carries_bps, loss);
                way.clears(carries_bps);
                let stopped = way.run(12_000).is_some();
                assert!(stopped && way.lost <= lost_max, "{} lost at {carries_bps}", way.lost);
            }
        }
    }

    #[test]
    fn a_way_that_empties_by_itself_is_not_filled() {
        for (empties_ms, is_filled) in [(4, false), (0, true)] {
            let mut crossing = Crossing::default();
            let mut tell = |number: u16, waited_ms: u32| {
                let now = Micros::from_millis(1_000 + 10 * u64::from(number));
                crossing.sent(now, number, BYTES);
                crossing.told(now, number, Some(ticks(now) + waited_ms * TICKS_PER_MS));
                crossing.is_narrow(now, 1_000_000).map(|narrow| narrow.is_filled)
            };
            assert_eq!(tell(0, 0), None);
            let seen = (20..50).find_map(|number| tell(number, 400 - empties_ms * u32::from(number)));
            assert_eq!(seen, is_filled.then_some(true));
        }
    }

    #[test]
    fn a_receiver_that_tells_of_impossible_times_breaks_nothing() {
        let mut crossing = Crossing::default();
        let at = |number: u16| Micros::from_millis(1_000 + 10 * u64::from(number));
        for number in 0..30 {
            crossing.sent(at(number), number, BYTES);
            if number < 20 {
                crossing.told(at(number), number, (number % 10 != 7).then_some(ticks(at(number))));
            }
        }
        crossing.clears(at(30));
        // What was under way then is said to have come after days.
        (20..30).for_each(|number| crossing.told(at(31), number, Some(ticks(at(number)) + 0x7000_0000)));
        for number in 200..300 {
            crossing.sent(at(number), number, BYTES);
            crossing.told(at(number), number, Some(ticks(at(number)) + 0x7fff_0000));
            assert_eq!(crossing.is_narrow(at(number), 1_000_000), None);
        }
    }

    #[test]
    fn a_radio_and_a_receiver_that_was_away_are_no_narrow_ways() {
        for seed in 0..100 {
            let mut way = Way::new(seed);
            (way.loss, way.jitter_ms) = (0.03, 20);
            assert_eq!(way.run(5_000), None, "a radio");
            way.loss = 0.0;
            // Nothing comes for 150 ms, and then all of it.
            for _ in 0..24 {
                way.send();
            }
            let all_at = ticks(way.now + Micros::from_millis(41)).wrapping_add(OTHER_CLOCK);
            way.came.iter_mut().for_each(|came| *came = came.map(|_| all_at));
            assert_eq!(way.run(5_000), None);
        }
    }

    #[test]
    fn what_comes_all_at_once_after_a_stall_shows_no_way_that_carries_more_than_was_sent() {
        let mut crossing = Crossing::default();
        let at = |number: u16| Micros(1_000_000 + 6_400 * u64::from(number));
        for number in 0..100 {
            crossing.sent(at(number), number, BYTES);
        }
        // The first ten come as they are sent, the others within 4 ms, when the last of them is 100 ms late and the first 480; one of seven
        // does not come at all.
        for number in 0..70 {
            let came = if number < 10 { ticks(at(number)) } else { ticks(at(85)) + u32::from(number) / 4 };
            crossing.told(at(99), number, (number % 7 != 3).then_some(came));
        }
        assert_eq!(crossing.is_narrow(at(99), 1_500_000), None);
    }

    #[test]
    fn a_burst_that_fills_a_look_hides_nothing_that_comes_later() {
        let mut crossing = Crossing::default();
        for number in 0..SENT_MAX as u16 {
            crossing.sent(Micros::from_secs(1), number, BYTES);
            crossing.told(Micros::from_secs(1), number, Some(ticks(Micros::from_secs(1))));
        }
        assert_eq!(crossing.is_narrow(Micros::from_secs(1), 1_500_000), None);
        let later = |number: u16| Micros(1_200_000 + 5_000 * u64::from(number));
        for number in 0..20 {
            crossing.sent(later(number), 1_000 + number, BYTES);
            let came = number % 3 == 0;
            crossing.told(later(20), 1_000 + number, came.then(|| ticks(later(number)) + 100 * TICKS_PER_MS));
        }
        assert!(crossing.is_narrow(later(20), 1_500_000).is_some());
    }

    #[test]
    fn a_way_that_became_longer_is_in_time_taken_as_it_is() {
        let mut crossing = Crossing::default();
        for step in 0..30_u64 {
            let now = Micros::from_secs(step);
            let longer = if step < 5 { 0 } else { 100 * TICKS_PER_MS };
            crossing.sent(now, step as u16, BYTES);
            crossing.told(now, step as u16, Some(ticks(now) + 7 + longer));
        }
        let waited = |at: usize| crossing.look[at].came.expect("it came").1;
        assert_eq!((waited(4), waited(9), waited(29)), (0, 100 * TICKS_PER_MS, 0));
        crossing.clears(Micros::from_secs(30));
        for (step, longer) in [(30, 700), (31, 650), (32, 690)] {
            crossing.sent(Micros::from_secs(step), step as u16, BYTES);
            crossing.told(Micros::from_secs(step), step as u16, Some(ticks(Micros::from_secs(step)) + longer));
        }
        assert_eq!([0, 1, 2].map(|at: usize| crossing.look[at].came.expect("it came").1), [0, 0, 40]);
    }

    #[test]
    fn doubt_begins_with_those_lost_together_and_without_any_with_what_nothing_is_told_of() {
        let mut crossing = Crossing::default();
        let at = |number: u16| Micros::from_millis(1_000 + 20 * u64::from(number));
        let tell = |crossing: &mut Crossing, numbers: std::ops::Range<u16>, lost: &[u16]| {
            for number in numbers {
                crossing.sent(at(number), number, BYTES);
                let came = (!lost.contains(&number)).then(|| ticks(at(number)));
                crossing.told(at(number), number, came);
            }
        };
        assert_eq!(crossing.doubtful_since(at(0)), at(0));
        tell(&mut crossing, 0..25, &[2, 20, 22, 23]);
        assert_eq!(crossing.doubtful_since(at(30)), at(16), "what a radio lost long before is something else");
        tell(&mut crossing, 25..40, &[]);
        assert_eq!(crossing.doubtful_since(at(50)), at(35));
    }

    #[test]
    fn what_was_never_sent_or_was_told_of_counts_for_nothing() {
        let mut crossing = Crossing::default();
        crossing.told(Micros::ZERO, 5, Some(1));
        crossing.sent(Micros::ZERO, 5, BYTES);
        crossing.told(Micros::ZERO, 5 + SENT_MAX as u16, Some(1));
        assert!(crossing.look.is_empty());
        crossing.told(Micros::ZERO, 5, None);
        crossing.told(Micros::ZERO, 5, Some(1));
        assert_eq!(crossing.look.len(), 1);
        assert_eq!(crossing.is_narrow(Micros::ZERO, 1_500_000), None);
    }
}
