//! The replay window: which counters of one key and direction have been seen.
//!
//! ```text
//!           forgotten: too old        the window                 newest    not yet seen
//!  counters  … x x x x x x x x x | 1 0 1 1 1 1 0 1 … 1 1 1 1 0 1 1 1 | 0 0 0 0 0 0 …
//!                                  `- 1: seen, dropped when it comes again
//! ```
//!
//! The bits lie in a ring of 64-bit words, one word more than the window needs, so that moving on clears whole
//! words instead of shifting bits (as in RFC 6479).

/// What an authentic datagram's counter says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Newer than all before: its source address is the sender's current one.
    pub newest: bool,
}

/// Remembers the last [`ReplayWindow::COUNTERS`] counters; with the default of 17 words, 1,024.
///
/// Ask [`check`](Self::check) before opening a datagram (a replay is not worth an AEAD), call
/// [`accept`](Self::accept) after: only what is authentic may move the window.
#[derive(Clone, Debug)]
pub struct ReplayWindow<const WORDS: usize = 17> {
    seen: [u64; WORDS],
    newest: u64,
    /// False until the first counter: 0 is as new as any other then.
    started: bool,
}

impl<const WORDS: usize> Default for ReplayWindow<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    /// How many counters, the newest included, are told apart; older ones are dropped.
    pub const COUNTERS: u64 = {
        assert!(WORDS >= 2, "the ring needs a word to spare");
        (WORDS as u64 - 1) * u64::BITS as u64
    };

    /// Nothing has been seen.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [0; WORDS], newest: 0, started: false }
    }

    /// Whether a datagram with this counter is neither seen nor too old. Changes nothing.
    #[inline]
    #[must_use]
    pub const fn check(&self, counter: u64) -> bool {
        if !self.started || counter > self.newest {
            return true;
        }
        self.newest - counter < Self::COUNTERS && self.seen[Self::word(counter)] & Self::bit(counter) == 0
    }

    /// Marks the counter of an authentic datagram that [`check`](Self::check) let pass. One that it would not
    /// have let pass changes nothing.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> Verdict {
        let newest = !self.started || counter > self.newest;
        if newest {
            self.advance_to(counter);
        } else if self.newest - counter >= Self::COUNTERS {
            return Verdict { newest: false };
        }
        self.seen[Self::word(counter)] |= Self::bit(counter);
        Verdict { newest }
    }

    /// Clears the words between the newest counter's and this one's.
    #[inline]
    fn advance_to(&mut self, counter: u64) {
        if self.started {
            let (from, to) = (self.newest / 64, counter / 64);
            let steps = (to - from).min(WORDS as u64);
            for block in to - steps..to {
                self.seen[((block + 1) % WORDS as u64) as usize] = 0;
            }
        }
        self.newest = counter;
        self.started = true;
    }

    const fn word(counter: u64) -> usize {
        ((counter / 64) % WORDS as u64) as usize
    }

    const fn bit(counter: u64) -> u64 {
        1 << (counter % 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_what_the_protocol_asks_for() {
        assert_eq!(ReplayWindow::<17>::COUNTERS, 1_024);
        assert!(size_of::<ReplayWindow>() <= 160);
    }

    #[test]
    fn nothing_is_accepted_twice() {
        let mut window: ReplayWindow = ReplayWindow::new();
        for counter in [0, 5, 3, 64, 63, 1_000, 70] {
            assert!(window.check(counter), "{counter}");
            window.accept(counter);
            assert!(!window.check(counter), "{counter}");
        }
    }

    #[test]
    fn only_what_is_newer_than_all_is_newest() {
        let mut window: ReplayWindow = ReplayWindow::new();
        let verdicts = [7, 9, 8, 9, 10].map(|counter| window.accept(counter).newest);
        assert_eq!(verdicts, [true, true, false, false, true]);
    }

    #[test]
    fn the_edge_of_the_window_is_exact() {
        let mut window: ReplayWindow = ReplayWindow::new();
        window.accept(5_000);
        assert!(window.check(5_000 - 1_023));
        assert!(!window.check(5_000 - 1_024));
    }

    #[test]
    fn a_jump_forgets_what_lies_behind_and_nothing_else() {
        let mut window: ReplayWindow = ReplayWindow::new();
        window.accept(100);
        window.accept(100 + 64 * 17);
        // The same word of the ring, one turn later.
        assert!(window.check(100 + 64 * 17 - 1));
        assert!(!window.check(100));
        window.accept(u64::MAX);
        assert!(window.check(u64::MAX - 1));
        assert!(!window.check(u64::MAX));
        assert!(!window.check(0));
    }

    #[test]
    fn a_counter_too_old_marks_nothing() {
        let mut window: ReplayWindow = ReplayWindow::new();
        window.accept(3_000);
        let before = window.clone();
        assert_eq!(window.accept(10), Verdict { newest: false });
        assert_eq!((window.seen, window.newest), (before.seen, before.newest));
    }

    #[test]
    fn the_first_counter_may_be_any() {
        for first in [0, 1, u64::MAX] {
            let mut window: ReplayWindow<2> = ReplayWindow::new();
            assert!(window.check(first));
            assert!(window.accept(first).newest);
            assert!(!window.check(first));
        }
    }
}
