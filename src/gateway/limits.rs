//! What one account may send: a rate with room for bursts, and a bound on what is refused before the connection ends.

use antiphon_core::clock::Micros;

/// How many messages may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many each second.
    pub per_second: u32,
    /// So many at once, after a pause.
    pub burst: u32,
}

/// What one account may send, over all its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Messages other than audio.
    pub messages: Rate,
    /// Frames of audio.
    pub frames: Rate,
    /// So many messages over the rate are refused within a minute before the connection is closed.
    pub refused_messages: u32,
    /// Likewise frames.
    pub refused_frames: u32,
}

impl Default for Rates {
    /// People send a few messages a minute, and 50 frames a second in each channel they speak in; programs more.
    fn default() -> Self {
        Self {
            messages: Rate { per_second: 20, burst: 1_200 },
            frames: Rate { per_second: 500, burst: 30_000 },
            refused_messages: 20,
            refused_frames: 1_000,
        }
    }
}

/// What an account has left of its rates.
#[derive(Debug)]
pub(super) struct Allowance {
    messages: (Bucket, Budget),
    frames: (Bucket, Budget),
}

/// Whether something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes.
    Granted,
    /// No, it is too much at once.
    Refused,
    /// No, and it was refused too often.
    Over,
}

impl Allowance {
    pub(super) fn new(rates: Rates, now: Micros) -> Self {
        Self {
            messages: (Bucket::new(rates.messages, now), Budget::new(rates.refused_messages)),
            frames: (Bucket::new(rates.frames, now), Budget::new(rates.refused_frames)),
        }
    }

    /// Counts a message, or a frame of audio.
    pub(super) fn take(&mut self, is_frame: bool, now: Micros) -> Verdict {
        let (bucket, refused) = if is_frame { &mut self.frames } else { &mut self.messages };
        if bucket.take(now) {
            Verdict::Granted
        } else if refused.spend(now) {
            Verdict::Refused
        } else {
            Verdict::Over
        }
    }

    /// Whether a new one would allow no more.
    pub(super) fn is_whole(&self, now: Micros) -> bool {
        [&self.messages, &self.frames].iter().all(|(bucket, refused)| bucket.is_full(now) && refused.is_unspent(now))
    }
}

/// A token bucket: full at first, refilled continuously.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    /// In millionths of a message, so that any rate refills exactly.
    level: u64,
    refilled_at: Micros,
}

/// A bucket's unit.
const MESSAGE: u64 = 1_000_000;

impl Bucket {
    fn new(rate: Rate, now: Micros) -> Self {
        Self { rate, level: u64::from(rate.burst) * MESSAGE, refilled_at: now }
    }

    /// Whether one more is within the rate.
    fn take(&mut self, now: Micros) -> bool {
        self.level = self.level_at(now);
        self.refilled_at = now;
        let enough = self.level >= MESSAGE;
        if enough {
            self.level -= MESSAGE;
        }
        enough
    }

    fn is_full(&self, now: Micros) -> bool {
        self.level_at(now) == self.most()
    }

    fn level_at(&self, now: Micros) -> u64 {
        let refill = now.since(self.refilled_at).0.saturating_mul(u64::from(self.rate.per_second));
        self.level.saturating_add(refill).min(self.most())
    }

    fn most(&self) -> u64 {
        u64::from(self.rate.burst) * MESSAGE
    }
}

/// How often something may happen within a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    most: u32,
    used: u32,
    /// When the first of this minute happened.
    began_at: Micros,
}

const MINUTE: Micros = Micros::from_secs(60);

impl Budget {
    pub(super) fn new(most: u32) -> Self {
        Self { most, used: 0, began_at: Micros::ZERO }
    }

    fn is_unspent(&self, now: Micros) -> bool {
        self.used == 0 || now.since(self.began_at) >= MINUTE
    }

    /// Counts one. False for the last that may happen within a minute, and for those after it.
    pub(super) fn spend(&mut self, now: Micros) -> bool {
        if self.is_unspent(now) {
            self.began_at = now;
            self.used = 0;
        }
        self.used = self.used.saturating_add(1);
        self.used < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 50, burst: 100 }, Micros::ZERO);
        let passed = (0..1_000).filter(|_| bucket.take(Micros::ZERO)).count();
        assert_eq!(passed, 100);
        // Ten seconds of twice the rate, one every 10 ms: half of them pass.
        let passed = (1..=1_000).filter(|step| bucket.take(Micros::from_millis(step * 10))).count();
        assert_eq!(passed, 500);
        let passed = (0..1_000).filter(|_| bucket.take(Micros::from_secs(3_600))).count();
        assert_eq!(passed, 100, "no more than a burst is saved up");
    }

    #[test]
    fn too_much_is_refused_and_too_much_of_that_ends_it() {
        let rates = Rates { messages: Rate { per_second: 1, burst: 5 }, refused_messages: 3, ..Rates::default() };
        let mut allowance = Allowance::new(rates, Micros::ZERO);
        let verdicts: Vec<Verdict> = (0..9).map(|_| allowance.take(false, Micros::ZERO)).collect();
        assert_eq!(verdicts[..5], [Verdict::Granted; 5]);
        assert_eq!(verdicts[5..], [Verdict::Refused, Verdict::Refused, Verdict::Over, Verdict::Over]);
        assert_eq!(allowance.take(true, Micros::ZERO), Verdict::Granted, "audio has a rate of its own");
    }

    #[test]
    fn an_allowance_is_whole_when_all_of_it_has_come_back() {
        let rates = Rates { messages: Rate { per_second: 1, burst: 2 }, refused_messages: 3, ..Rates::default() };
        let mut allowance = Allowance::new(rates, Micros::ZERO);
        assert!(allowance.is_whole(Micros::ZERO));
        assert_eq!(allowance.take(false, Micros::ZERO), Verdict::Granted);
        assert!(!allowance.is_whole(Micros(999_999)) && allowance.is_whole(Micros::from_secs(1)));
        let refused = (0..3).map(|_| allowance.take(false, Micros::from_secs(1))).last();
        assert_eq!(refused, Some(Verdict::Refused));
        assert!(!allowance.is_whole(Micros::from_secs(60)), "the refusal counts for a minute");
        assert!(allowance.is_whole(Micros::from_secs(61)));
    }

    #[test]
    fn a_budget_is_spent_with_the_last_and_new_each_minute() {
        let mut budget = Budget::new(10);
        let spend_nine = |budget: &mut Budget, at: Micros| (0..9).all(|_| budget.spend(at));
        assert!(spend_nine(&mut budget, Micros::from_secs(5)));
        assert!(!budget.spend(Micros::from_secs(64)), "the tenth within a minute");
        assert!(spend_nine(&mut budget, Micros::from_secs(65)), "the next minute");
    }
}
