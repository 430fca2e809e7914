//! Voices that are sent again to a listener whose way has become narrow: the very same packets, as they were sealed.
//!
//! In front of such a way a queue is full within some tens of milliseconds, and voices are lost beside pictures until a report
//! has shown it and pictures have stopped ([`crate::video::Way`]). No report says which: voices are not numbered over all streams.
//! But from when on some may have been lost follows from the pictures, and all since then are sent again, once: those
//! that the listener has are dropped by their indices (RFC 3711, 3.3.2). The newest go first, as they may yet come in time to be heard.

use std::collections::VecDeque;

use crate::clock::Micros;

/// Packets kept: 1.2 s of one voice, half of that where two speak at once. Of more the older ones are not sent again: on a way
/// that is narrow they would take the room of what is said now.
const KEPT_MAX: usize = 64;
/// The longest that is kept: 80 ms of Opus at 20 kbit/s, 20 ms at 80.
const BYTES_MAX: usize = 250;
/// How long one is kept: what a way's becoming narrow takes to be seen, and what was lost before that.
const KEPT_FOR: Micros = Micros::from_millis(700);
/// Pictures that were under way when they stopped have come to the queue by then, and it has room again.
const ROOM_AFTER: Micros = Micros::from_millis(60);
/// Nobody waits so long for a voice.
const TOO_LATE: Micros = Micros::from_secs(1);

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    at: Micros,
    length: u16,
    bytes: [u8; BYTES_MAX],
}

impl Kept {
    /// As it was sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// What is being sent again.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// What was sent from then on,
    from: Micros,
    /// until it begins.
    begins: Micros,
    due: Micros,
    bps: u64,
}

/// One listener's newest packets.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    kept: VecDeque<Kept>,
    round: Option<Round>,
}

impl Repeats {
    /// A sealed packet is sent. Allocates once, with the first.
    pub fn keep(&mut self, now: Micros, packet: &[u8]) {
        let is_sending_again = self.round.is_some_and(|round| round.begins < now);
        if is_sending_again || packet.len() > BYTES_MAX {
            return;
        }
        if self.kept.capacity() == 0 {
            self.kept.reserve_exact(KEPT_MAX);
        }
        while self.kept.pop_front_if(|oldest| now.since(oldest.at) > KEPT_FOR).is_some() {}
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        let mut bytes = [0; BYTES_MAX];
        bytes[..packet.len()].copy_from_slice(packet);
        self.kept.push_back(Kept { at: now, length: packet.len() as u16, bytes });
    }

    /// What was sent since `from` may have been lost. It is sent again at `bps` bits per second at most, as soon as there is room.
    pub fn begin(&mut self, now: Micros, from: Micros, bps: u64) {
        let begins = now + ROOM_AFTER;
        self.round = Some(Round { from, begins, due: begins, bps: bps.max(1) });
    }

    /// When [`Self::take_due`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.round.map(|round| round.due)
    }

    /// The packet that is to be sent again now.
    pub fn take_due(&mut self, now: Micros) -> Option<Kept> {
        let round = self.round.as_mut().filter(|round| round.due <= now)?;
        let is_wanted = |newest: &mut Kept| newest.at >= round.from && now.since(newest.at) <= TOO_LATE;
        let Some(packet) = self.kept.pop_back_if(is_wanted) else {
            self.round = None;
            self.kept.clear();
            return None;
        };
        // On a way of next to nothing the round is over when the next one is too late.
        round.due = now + Micros(u64::from(packet.length) * 8 * 1_000_000 / round.bps).min(TOO_LATE);
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    /// A packet of 100 bytes every 20 ms, each made of its number, until then.
    fn speak(repeats: &mut Repeats, from_ms: u64, to_ms: u64) {
        for ms in (from_ms..to_ms).step_by(20) {
            repeats.keep(at(ms), &[(ms / 20) as u8; 100]);
        }
    }

    /// What is sent again until then, and when.
    fn sent_again(repeats: &mut Repeats, until_ms: u64) -> Vec<(u64, u8)> {
        let mut sent = Vec::new();
        while let Some(due) = repeats.due().filter(|due| *due <= at(until_ms)) {
            sent.extend(repeats.take_due(due).map(|packet| (due.0 / 1_000, packet.bytes()[0])));
        }
        sent
    }

    #[test]
    fn what_was_sent_since_is_sent_again_once_the_newest_first_and_no_faster_than_there_is_room() {
        let mut repeats = Repeats::default();
        speak(&mut repeats, 0, 300);
        repeats.begin(at(300), at(220), 100_000);
        speak(&mut repeats, 300, 400);
        assert_eq!(repeats.due(), Some(at(360)));
        assert!(repeats.take_due(at(359)).is_none());
        // Eight milliseconds for each; those that are sent when that has begun are not among them.
        let expected: Vec<_> =
            (11..=18).rev().enumerate().map(|(place, number)| (360 + 8 * place as u64, number)).collect();
        assert_eq!(sent_again(&mut repeats, 2_000), expected);
        assert_eq!((repeats.due(), repeats.kept.len()), (None, 0));
    }

    #[test]
    fn what_is_kept_and_what_is_sent_again_is_bounded() {
        let mut repeats = Repeats::default();
        speak(&mut repeats, 0, 5_000);
        assert_eq!(repeats.kept.len() as u64, KEPT_FOR.0 / 20_000 + 1);
        for _ in 0..1_000 {
            repeats.keep(at(5_000), &[1; BYTES_MAX]);
        }
        repeats.keep(at(5_000), &[1; BYTES_MAX + 1]);
        assert_eq!((repeats.kept.len(), repeats.kept.capacity()), (KEPT_MAX, KEPT_MAX));
        // On a way on which each takes 100 ms the older ones would come too late.
        repeats.begin(at(5_000), at(0), 20_000);
        let sent = sent_again(&mut repeats, 60_000);
        assert_eq!((sent.len(), sent.first(), sent.last()), (10, Some(&(5_060, 1)), Some(&(5_960, 1))));
        assert!(repeats.due().is_none());
    }

    #[test]
    fn what_is_said_of_a_way_keeps_no_round_going() {
        let mut repeats = Repeats::default();
        speak(&mut repeats, 0, 300);
        repeats.begin(at(300), at(0), 0);
        assert_eq!(sent_again(&mut repeats, 360).len(), 1);
        assert!(repeats.due().is_some_and(|due| due <= at(360) + TOO_LATE));
        sent_again(&mut repeats, 2_000);
        speak(&mut repeats, 2_000, 2_100);
        assert_eq!(repeats.kept.len(), 5);
    }
}
