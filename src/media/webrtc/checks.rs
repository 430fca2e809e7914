//! Checks of a way that stands, answered past the library: clients make one every few seconds for as long as they are here, to see
//! that they still may send (RFC 7675, 5.1) and to keep their NAT's binding.
//!
//! ```text
//!  check ──► as one that the library answered lately, from where media goes? ─ yes ─► authentic? ── yes ──► answered here
//!                     │ no                                                          │ no
//!                     └──────────────────────────► the library ◄────────────────────┘
//! ```
//!
//! So nothing is answered that the library would refuse, and it hears often enough that a client is there.

use std::time::{Duration, Instant};

use antiphon_core::clock::Micros;
use str0m::{IceCreds, crypto::from_feature_flags, ice::StunMessage, net::Protocol};

use super::{
    Address, PeerCounter, Peers, demux,
    peer::{Peer, quiet_until},
};
use crate::media::outbox::Outbox;

/// The library hears of a check after so long. It takes a client for gone that it has not heard of for 15 s: of clients that check their way
/// every four to six seconds it hears each time, and one may be lost.
const HEARD_OF_EVERY: Duration = Duration::from_secs(4);

/// How a success response begins (RFC 8489, 5 and 18.2), and where a message's transaction is named.
const SUCCESS: [u8; 2] = [0x01, 0x01];
const TRANSACTION: std::ops::Range<usize> = 8..20;

/// A check that the library answered.
pub(super) struct Check {
    pub(super) at: Instant,
    /// Of both sides.
    pub(super) username: String,
    /// What its answer is sealed with, as it was.
    pub(super) password: String,
    /// It chose its way.
    nominates: bool,
}

/// The transaction that a message is a success response of.
pub(super) fn answered_in(message: &[u8]) -> Option<[u8; 12]> {
    if message.starts_with(&SUCCESS) { transaction_of(message) } else { None }
}

fn transaction_of(message: &[u8]) -> Option<[u8; 12]> {
    message.get(TRANSACTION)?.try_into().ok()
}

impl Check {
    /// Of a datagram that was answered; `None` for what is no check.
    fn of(at: Instant, datagram: &[u8], ours: IceCreds) -> Option<Self> {
        let message = StunMessage::parse(datagram).ok().filter(StunMessage::is_binding_request)?;
        let (username, nominates) = (message.username()?.to_owned(), message.use_candidate());
        Some(Self { at, username, password: ours.pass, nominates })
    }

    /// Writes the answer to one that is like it; its length.
    fn answer_like(&self, from: Address, datagram: &[u8], out: &mut [u8]) -> Option<usize> {
        let hmac = |key: &[u8], parts: &[&[u8]]| from_feature_flags().sha1_hmac_provider.sha1_hmac(key, parts);
        let password = self.password.as_bytes();
        let message = StunMessage::parse(datagram).ok().filter(StunMessage::is_binding_request)?;
        let is_like_it = message.username() == Some(&self.username)
            && message.ice_controlled().is_none()
            && (self.nominates || !message.use_candidate());
        if !is_like_it || !message.verify(password, hmac) {
            return None;
        }
        StunMessage::binding_reply(message.trans_id(), from.1).to_bytes(Some(password), out, hmac).ok()
    }
}

impl Peers {
    /// Answers a check that the library need not see; false for any other, such as one from where another client was heard since.
    pub(super) fn answers_check(
        &mut self,
        now: Micros,
        number: u32,
        from: Address,
        datagram: &[u8],
        outbox: &mut Outbox,
    ) -> bool {
        let (at, quiet_until) = (self.instant(now), self.setup.clock.instant(quiet_until(now)));
        let is_its_own = self.by_address.get(&from) == Some(&number);
        let Some(peer) = self.peers.get_mut(&number).filter(|_| is_its_own) else { return false };
        let to = demux::as_sent(from.1, self.setup.is_ipv6);
        let is_answered = outbox.sender.compose(to, |packet| peer.answer_check(at, from, datagram, packet));
        if is_answered {
            if peer.repeats.due().is_none() {
                peer.due = peer.due.max(quiet_until);
            }
            self.stats.count(PeerCounter::Sent);
        }
        is_answered
    }
}

impl Peer {
    /// Notes a check that came, if the library has answered it: that it took a datagram does not say that it is authentic.
    pub(super) fn note_check(&mut self, now: Instant, from: Address, datagram: &[u8]) {
        let answered = self.answered.take();
        if answered.is_some()
            && answered == transaction_of(datagram)
            && self.nominated == Some(from)
            && self.is_quiet(now)
        {
            self.checked = Check::of(now, datagram, self.rtc.direct_api().local_ice_credentials());
        }
    }

    /// Writes the answer to a check that the library need not see; its length.
    fn answer_check(&self, now: Instant, from: Address, datagram: &[u8], out: &mut [u8]) -> Option<usize> {
        let check = self.checked.as_ref().filter(|check| now.duration_since(check.at) < HEARD_OF_EVERY)?;
        let is_where_media_goes = from.0 == Protocol::Udp && self.nominated == Some(from);
        if is_where_media_goes && self.is_quiet(now) { check.answer_like(from, datagram, out) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use str0m::ice::TransId;

    use super::*;

    const USERNAME: &str = "AAours:theirs";
    const PASSWORD: &str = "a password of twenty-two";

    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        from_feature_flags().sha1_hmac_provider.sha1_hmac(key, parts)
    }

    fn from() -> Address {
        (Protocol::Udp, ([192, 0, 2, 7], 4_000).into())
    }

    fn sealed(message: StunMessage<'_>, password: &str) -> Vec<u8> {
        let mut bytes = [0; 200];
        let length = message.to_bytes(Some(password.as_bytes()), &mut bytes, hmac).expect("there is room");
        bytes[..length].to_vec()
    }

    fn check(username: &str, password: &str, is_controlling: bool) -> Vec<u8> {
        sealed(StunMessage::binding_request(username, TransId::new(), is_controlling, 5, 6, false), password)
    }

    fn nomination() -> Vec<u8> {
        sealed(StunMessage::binding_request(USERNAME, TransId::new(), true, 5, 6, true), PASSWORD)
    }

    fn check_like(datagram: &[u8]) -> Check {
        let ours = IceCreds { ufrag: "AAours".to_owned(), pass: PASSWORD.to_owned() };
        Check::of(Instant::now(), datagram, ours).expect("a check")
    }

    fn answer_after(before: &[u8], datagram: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; 200];
        check_like(before).answer_like(from(), datagram, &mut out).map(|length| out[..length].to_vec())
    }

    fn answer(datagram: &[u8]) -> Option<Vec<u8>> {
        answer_after(&check(USERNAME, PASSWORD, true), datagram)
    }

    #[test]
    fn an_answer_names_its_check_and_where_it_came_from() {
        let asked = check(USERNAME, PASSWORD, true);
        let answer = answer(&asked).expect("like the one before");
        assert_eq!(answered_in(&answer), transaction_of(&asked));
        assert_eq!(answered_in(&asked), None);
        let (asked, answer) = (StunMessage::parse(&asked).expect("STUN"), StunMessage::parse(&answer).expect("STUN"));
        assert!(answer.is_successful_binding_response() && answer.verify(PASSWORD.as_bytes(), hmac));
        assert_eq!((answer.trans_id(), answer.mapped_address()), (asked.trans_id(), Some(from().1)));
    }

    #[test]
    fn what_the_library_did_not_take_before_is_left_to_it() {
        let as_before = check(USERNAME, PASSWORD, true);
        assert_eq!(answer(&check("AAours:others", PASSWORD, true)), None);
        assert_eq!(answer(&check(USERNAME, "another password of some", true)), None);
        assert_eq!(answer(&check(USERNAME, PASSWORD, false)), None, "both would be controlled");
        assert_eq!(answer(&nomination()), None, "it chooses a way");
        assert!(answer_after(&nomination(), &nomination()).is_some(), "once more");
        assert!(answer_after(&nomination(), &as_before).is_some());
        assert_eq!(answer(&sealed(StunMessage::binding_reply(TransId::new(), from().1), PASSWORD)), None);
        for at in 0..as_before.len() - FINGERPRINT_BYTES {
            let mut changed = as_before.clone();
            changed[at] ^= 1;
            assert_eq!(answer(&changed), None, "{at}");
        }
        (0..as_before.len()).for_each(|length| assert_eq!(answer(&as_before[..length]), None, "{length}"));
    }

    /// What a message ends with (RFC 8489, 14.7): it is no part of what is authentic.
    const FINGERPRINT_BYTES: usize = 8;
}
