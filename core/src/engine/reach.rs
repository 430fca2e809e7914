//! Where UDP to a session works, and who must know: the workers of its channels and the control plane.
//!
//! Nobody may fall between the two ways to be heard. When UDP is lost, the control plane is told before the channels,
//! which then give it every frame. When it works again, the channels are told before the control plane. What either has
//! no room for is told again.

use super::{Counter, Engine, Event, Handover, MemberUdp, Output, SlabKey, Turn, timers::Due};
use crate::{
    clock::Micros,
    ids::{MediaSessionId, StreamId},
};

/// How soon something that could not be told is told again.
const RETELL_INTERVAL: Micros = Micros::from_millis(100);
/// How long the control plane goes on tunnelling after other workers were told of a proof, so that they have taken it
/// in: what comes twice meanwhile is dropped by its sequence number.
const OVERLAP: Micros = Micros::from_millis(50);

impl Engine {
    /// The client sent over the gateway, so it does not trust UDP: the way to it must be proven anew.
    pub(super) fn end_proof(&mut self, now: Micros, session: MediaSessionId, out: &mut impl Output) {
        let Some(&key) = self.by_session.get(&session) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.proof.end();
        self.tell_proof(now, key, out);
        if self.sessions.get(key).is_some_and(|session| session.reach_told.is_some()) {
            self.announce(now, key, out);
        }
    }

    /// The proof may have lapsed.
    pub(super) fn proof_due(&mut self, now: Micros, key: SlabKey, out: &mut impl Output) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.proof_armed = false;
        session.proof.poll(now);
        self.arm_proof(key);
        if self.sessions.get(key).is_some_and(|session| !session.proof.is_proven()) {
            self.tell_proof(now, key, out);
            self.announce(now, key, out);
        }
    }

    /// Something was to be told again.
    pub(super) fn retell_due(&mut self, now: Micros, key: SlabKey, out: &mut impl Output) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.retell_armed = false;
        if session.reach_refused {
            self.announce(now, key, out);
        }
        self.tell_proof(now, key, out);
    }

    /// Sees to it that the end of a proof is noticed.
    pub(super) fn arm_proof(&mut self, key: SlabKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(until) = session.proof.until().filter(|_| !session.proof_armed) {
            session.proof_armed = true;
            self.work.timers.arm(until, Due::Proof(key));
        }
    }

    /// Tells the control plane whether UDP to the session works, unless it knows. Call it before [`Self::announce`] when
    /// it no longer does, and after when it does again.
    pub(super) fn tell_proof(&mut self, now: Micros, key: SlabKey, out: &mut impl Output) {
        let Some(session) = self.sessions.get(key) else { return };
        let proven = session.proof.is_proven();
        if session.proven_told == proven {
            return;
        }
        let elsewhere = session.streams.iter().any(|route| route.home != self.worker);
        let taken_in_at = session.reach_told_at + OVERLAP;
        if proven && elsewhere && now < taken_in_at {
            self.arm_retell(key, taken_in_at);
        } else {
            self.tell_control(now, key, proven, out);
        }
    }

    fn tell_control(&mut self, now: Micros, key: SlabKey, proven: bool, out: &mut impl Output) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let told = Event::Proven { session: session.id, proven };
        if (Turn { now, out, work: &mut self.work }).tell(told) {
            session.proven_told = proven;
            let stats = &mut self.work.stats;
            if proven { stats.count(Counter::SessionsProven) } else { stats.down(Counter::SessionsProven) }
        } else {
            self.arm_retell(key, now + RETELL_INTERVAL);
        }
    }

    /// Tells the workers of all the session's channels where it is reached.
    pub(super) fn announce(&mut self, now: Micros, key: SlabKey, out: &mut impl Output) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.reach_told != session.reach() {
            session.reach_told_at = now;
        }
        session.reach_told = session.reach();
        session.reach_refused = false;
        let streams = session.streams.len();
        for index in 0..streams {
            let stream =
                self.sessions.get(key).and_then(|session| session.streams.get(index)).map(|route| route.stream);
            if let Some(stream) = stream {
                self.announce_stream(now, key, stream, out);
            }
        }
    }

    /// Tells the worker of one channel where the session is reached.
    pub(super) fn announce_stream(&mut self, now: Micros, key: SlabKey, stream: StreamId, out: &mut impl Output) {
        let Some(session) = self.sessions.get(key).filter(|session| session.address.is_some()) else { return };
        let Some(route) = session.route(stream) else { return };
        let (id, address) = (session.id, session.reach());
        if route.home == self.worker {
            let retired = self
                .channel_turn(now, route.channel, out)
                .and_then(|(channel, mut turn)| channel.set_reach(&mut turn, stream, id, address));
            self.retire(retired, out);
        } else if !out.handover(route.home, Handover::Reach { channel: route.channel, stream, session: id, address }) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.reach_refused = true;
                session.reach_told_at = now;
            }
            self.arm_retell(key, now + RETELL_INTERVAL);
        }
    }

    /// Drops a replaced session, wherever it lives.
    pub(super) fn retire(&mut self, udp: impl IntoIterator<Item = MemberUdp>, out: &mut impl Output) {
        for udp in udp {
            if udp.worker == self.worker {
                self.forget_session(udp.session);
            } else {
                out.handover(udp.worker, Handover::Retire { session: udp.session });
            }
        }
    }

    fn arm_retell(&mut self, key: SlabKey, at: Micros) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.retell_armed {
            session.retell_armed = true;
            self.work.timers.arm(at, Due::Retell(key));
        }
    }
}
