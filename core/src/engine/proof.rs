//! Whether UDP *to* a client works: it does while the client echoes clocks that were sent to it (docs/protocol.md, 2.5).
//!
//! Only clocks that this session was really sent count, not ones of about the right time: a client that lies about
//! its address cannot know them, and so cannot have audio sent to somebody else for longer than one lifetime.

use crate::clock::Micros;

/// How old an echoed clock may be.
pub(super) const LIFETIME: Micros = Micros::from_secs(15);
/// How many clocks are under way at a time: a client repeats unanswered Pings every 500 ms.
const ISSUED: usize = 16;

/// The proof of one session.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Clocks of the last answers; zero where there was none.
    issued: [Micros; ISSUED],
    next: usize,
    until: Option<Micros>,
}

impl Proof {
    pub(super) fn is_proven(&self) -> bool {
        self.until.is_some()
    }

    /// When the proof lapses.
    pub(super) fn until(&self) -> Option<Micros> {
        self.until
    }

    /// An answer with this clock was sent to the session's address.
    pub(super) fn issue(&mut self, clock: Micros) {
        self.issued[self.next] = clock;
        self.next = (self.next + 1) % ISSUED;
    }

    /// A Ping echoes a clock.
    pub(super) fn echo(&mut self, now: Micros, clock: Micros) {
        if clock != Micros::ZERO && self.issued.contains(&clock) && now.since(clock) < LIFETIME {
            self.until = self.until.max(Some(clock + LIFETIME));
        }
    }

    /// The client is elsewhere: what was sent to its last address proves nothing more, the proof so far stands.
    pub(super) fn moved(&mut self) {
        self.issued = Default::default();
    }

    /// The client says that it cannot hear: only clocks issued from now on prove that it can.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Time passed.
    pub(super) fn poll(&mut self, now: Micros) {
        self.until.take_if(|until| *until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Micros {
        Micros::from_secs(seconds)
    }

    #[test]
    fn an_echo_proves_for_fifteen_seconds_from_its_issue() {
        let mut proof = Proof::default();
        proof.issue(s(1));
        assert!(!proof.is_proven());
        proof.echo(s(6), s(1));
        assert_eq!(proof.until(), Some(s(16)));
        proof.poll(Micros(15_999_999));
        assert!(proof.is_proven());
        proof.poll(s(16));
        assert!(!proof.is_proven());
        proof.echo(s(16), s(1));
        assert!(!proof.is_proven(), "too old");
    }

    #[test]
    fn only_what_was_issued_counts() {
        let mut proof = Proof::default();
        proof.issue(Micros(5_000_001));
        for guess in [Micros::ZERO, s(5), Micros(5_000_002)] {
            proof.echo(s(5), guess);
            assert!(!proof.is_proven());
        }
        proof.echo(s(6), Micros(5_000_001));
        assert!(proof.is_proven());
    }

    #[test]
    fn an_older_echo_does_not_shorten_it() {
        let mut proof = Proof::default();
        proof.issue(s(1));
        proof.issue(s(2));
        proof.echo(s(3), s(2));
        proof.echo(s(3), s(1));
        assert_eq!(proof.until(), Some(s(17)));
    }

    #[test]
    fn moving_keeps_the_proof_and_ending_does_not_but_both_forget_what_was_issued() {
        let mut proof = Proof::default();
        proof.issue(s(1));
        proof.echo(s(1), s(1));
        proof.moved();
        assert!(proof.is_proven());
        proof.echo(s(9), s(1));
        assert_eq!(proof.until(), Some(s(16)));
        proof.issue(s(9));
        proof.end();
        assert!(!proof.is_proven());
        proof.echo(s(9), s(9));
        assert!(!proof.is_proven());
    }
}
