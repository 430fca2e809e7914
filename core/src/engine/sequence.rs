//! Which frames of a stream have been forwarded, by their sequence number, whichever way they came.

/// How far back duplicates are recognised: 512 frames, about 10 s of 20 ms frames.
const WINDOW: u16 = 512;
/// A larger gap is a jump to a new talk spurt, not a loss (docs/protocol.md, 2.3): one second of 20 ms frames.
const GAP_MAX: u16 = 50;

/// What a sequence number says about its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Newer than all before; so many before it are missing.
    Newest {
        /// Frames between the last and this one, 0 after a jump.
        missing: u16,
    },
    /// One that was missing.
    Late,
    /// Forwarded before.
    Duplicate,
}

/// A ring of bits indexed by the sequence number's remainder.
#[derive(Clone, Debug, Default)]
pub(super) struct SequenceWindow {
    newest: Option<u16>,
    seen: [u64; WINDOW as usize / 64],
}

impl SequenceWindow {
    /// A stream that goes on after `newest`.
    pub(super) fn new(newest: Option<u16>) -> Self {
        let mut window = Self::default();
        if let Some(newest) = newest {
            window.restart(newest);
        }
        window
    }

    /// The number to give a frame that has none.
    pub(super) fn next(&self) -> u16 {
        self.newest.map_or(0, |newest| newest.wrapping_add(1))
    }

    /// Takes in a frame's number.
    pub(super) fn note(&mut self, sequence: u16) -> Order {
        let Some(newest) = self.newest else {
            self.restart(sequence);
            return Order::Newest { missing: 0 };
        };
        let ahead = sequence.wrapping_sub(newest);
        let behind = newest.wrapping_sub(sequence);
        if ahead != 0 && ahead < behind {
            return self.advance(newest, ahead);
        }
        if behind >= WINDOW {
            self.restart(sequence);
            return Order::Newest { missing: 0 };
        }
        let (word, bit) = place(sequence);
        if self.seen[word] & bit != 0 {
            return Order::Duplicate;
        }
        self.seen[word] |= bit;
        Order::Late
    }

    fn advance(&mut self, newest: u16, ahead: u16) -> Order {
        let sequence = newest.wrapping_add(ahead);
        if ahead >= WINDOW {
            self.restart(sequence);
            return Order::Newest { missing: 0 };
        }
        for step in 1..=ahead {
            let (word, bit) = place(newest.wrapping_add(step));
            self.seen[word] &= !bit;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
        self.newest = Some(sequence);
        let missing = ahead - 1;
        Order::Newest { missing: if missing <= GAP_MAX { missing } else { 0 } }
    }

    /// Begins anew at `sequence`: nothing else counts as seen.
    fn restart(&mut self, sequence: u16) {
        self.seen = Default::default();
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
        self.newest = Some(sequence);
    }
}

fn place(sequence: u16) -> (usize, u64) {
    let index = sequence % WINDOW;
    (usize::from(index / 64), 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: Order = Order::Newest { missing: 0 };

    #[test]
    fn numbers_in_order_pass_once_even_round_the_end() {
        let mut window = SequenceWindow::default();
        for step in 0..3_000_u16 {
            let sequence = step.wrapping_sub(1_000);
            assert_eq!(window.note(sequence), NEXT);
            assert_eq!(window.note(sequence), Order::Duplicate);
        }
    }

    #[test]
    fn a_gap_is_missing_and_a_late_frame_passes_once() {
        let mut window = SequenceWindow::default();
        window.note(10);
        assert_eq!(window.note(14), Order::Newest { missing: 3 });
        assert_eq!(window.note(12), Order::Late);
        assert_eq!(window.note(12), Order::Duplicate);
        assert_eq!(window.note(10), Order::Duplicate);
        assert_eq!(window.note(9), Order::Late);
    }

    #[test]
    fn a_jump_either_way_is_no_loss() {
        let mut window = SequenceWindow::default();
        window.note(10);
        assert_eq!(window.note(62), NEXT);
        assert_eq!(window.note(30_000), NEXT);
        assert_eq!(window.note(5), NEXT, "a client that numbers anew");
        assert_eq!(window.note(6), NEXT);
        assert_eq!(window.note(5), Order::Duplicate);
    }

    #[test]
    fn bits_of_a_lap_ago_are_cleared() {
        let mut window = SequenceWindow::default();
        for sequence in 0..600 {
            window.note(sequence);
        }
        window.note(610);
        for late in 600..610 {
            assert_eq!(window.note(late), Order::Late, "{late}");
        }
    }

    #[test]
    fn a_resumed_stream_goes_on() {
        let mut window = SequenceWindow::new(Some(u16::MAX));
        assert_eq!(window.next(), 0);
        assert_eq!(window.note(u16::MAX), Order::Duplicate);
        assert_eq!(window.note(0), NEXT);
        assert_eq!(SequenceWindow::default().next(), 0);
    }
}
