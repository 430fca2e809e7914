//! A member of a channel's voice, as the channel's worker knows them.

use std::net::SocketAddr;

use super::{Event, Hears, MemberFlags, MemberTraffic, MemberUdp, Output, turn::Turn, voice::Voice};
use crate::{
    clock::Micros,
    gateway::Cipher,
    ids::{ChannelId, MediaSessionId, StreamId},
};

/// How long a replaced UDP session goes on at most (docs/protocol.md, 2.2).
pub(super) const REPLACED_LIFETIME: Micros = Micros::from_secs(5);

/// A UDP session and the proven address of its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) udp: MemberUdp,
    pub(super) address: Option<SocketAddr>,
}

/// A UDP session that another took the place of, and that serves until the other does.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    reached: Reached,
    until: Micros,
    /// Its worker was told to drop it.
    retired: bool,
}

/// The ways of a mix to its listener: by UDP where that is proven, and through the gateway where it is not, or where only
/// a replaced session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MixWays {
    pub(super) udp: Option<MemberUdp>,
    pub(super) is_tunnelled: bool,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) stream: StreamId,
    pub(super) flags: MemberFlags,
    reached: Option<Reached>,
    replaced: Option<Replaced>,
    /// The timer of the replaced session's end is pending.
    pub(super) replaced_armed: bool,
    /// Their place in the listeners of a cipher.
    pub(super) listening: Option<(Cipher, usize)>,
    /// They are counted among those who hear through the gateway.
    pub(super) tunnelled: bool,
    hears: Hears,
    /// They are counted among those who hear by WebRTC.
    pub(super) hears_by_peer: bool,
    /// They are counted among those who hear one.
    pub(super) hears_mix: bool,
    pub(super) voice: Voice,
}

impl Member {
    pub(super) fn new(
        stream: StreamId,
        udp: Option<MemberUdp>,
        hears: Hears,
        flags: MemberFlags,
        last_sequence: Option<u16>,
    ) -> Self {
        Self {
            stream,
            flags,
            reached: udp.map(|udp| Reached { udp, address: None }),
            replaced: None,
            replaced_armed: false,
            listening: None,
            tunnelled: false,
            hears,
            hears_by_peer: false,
            hears_mix: false,
            voice: Voice::new(last_sequence),
        }
    }

    /// Tells the control plane what was accepted of them since the last time. False when it has no room.
    pub(super) fn tell_accepted<O: Output>(&mut self, turn: &mut Turn<'_, O>, channel: ChannelId) -> bool {
        let traffic = self.voice.accepted;
        let told = traffic.frames == 0 || turn.tell(Event::MemberTraffic { channel, stream: self.stream, traffic });
        if told {
            self.voice.accepted = MemberTraffic::default();
        }
        told
    }

    /// Whether they hear a mix.
    pub(super) fn needs_mix(&self) -> bool {
        self.hears == Hears::Mix && !self.flags.deafened
    }

    /// Which ways their mix goes to them.
    pub(super) fn ways_of_mix(&self) -> MixWays {
        let has_address = |reached: &&Reached| reached.address.is_some();
        let newest = self.reached.as_ref().filter(has_address);
        let replaced = self.replaced.as_ref().map(|replaced| &replaced.reached).filter(has_address);
        MixWays { udp: newest.or(replaced).map(|reached| reached.udp), is_tunnelled: newest.is_none() }
    }

    /// Whether they hear by WebRTC.
    pub(super) fn needs_peer(&self) -> bool {
        self.hears == Hears::Peer && !self.flags.deafened
    }

    /// Their newest UDP session.
    pub(super) fn udp(&self) -> Option<MemberUdp> {
        self.reached.map(|reached| reached.udp)
    }

    /// Where and in which group they hear: at their newest session's address, before that is proven at the replaced
    /// one's.
    pub(super) fn listens_at(&self) -> Option<(Cipher, SocketAddr)> {
        let at = |reached: &Reached| reached.address.map(|address| (reached.udp.cipher, address));
        if self.flags.deafened || self.hears == Hears::Mix {
            return None;
        }
        let replaced = self.replaced.as_ref().map(|replaced| &replaced.reached);
        self.reached.as_ref().and_then(at).or_else(|| replaced.and_then(at))
    }

    /// Whether they must hear through the gateway. Beside a replaced session they do, too: it may no longer work, and
    /// receivers drop what comes twice.
    pub(super) fn needs_tunnel(&self) -> bool {
        let hears_streams = self.hears == Hears::Streams && !self.flags.deafened;
        hears_streams && self.reached.is_none_or(|reached| reached.address.is_none())
    }

    /// One of their sessions tells where it reaches them. The replaced session that is to be dropped, as its successor
    /// is bound.
    pub(super) fn set_reach(&mut self, session: MediaSessionId, address: Option<SocketAddr>) -> Option<MemberUdp> {
        if let Some(replaced) = &mut self.replaced
            && replaced.reached.udp.session == session
        {
            replaced.reached.address = address;
            return None;
        }
        let reached = self.reached.as_mut().filter(|reached| reached.udp.session == session)?;
        reached.address = address;
        let retired = self.retire();
        if address.is_some() {
            self.replaced = None;
        }
        retired
    }

    /// Their UDP session is another from now on. Sessions to drop at once.
    pub(super) fn set_udp(&mut self, now: Micros, udp: Option<MemberUdp>) -> [Option<MemberUdp>; 2] {
        if self.udp() == udp {
            return [None, None];
        }
        let before = self.retire();
        self.replaced = None;
        let last = self.reached.take();
        self.reached = udp.map(|udp| Reached { udp, address: None });
        if udp.is_none() {
            return [before, last.map(|last| last.udp)];
        }
        self.replaced = last.map(|reached| Replaced { reached, until: now + REPLACED_LIFETIME, retired: false });
        [before, None]
    }

    /// When the replaced session has had its time.
    pub(super) fn replaced_until(&self) -> Option<Micros> {
        self.replaced.as_ref().map(|replaced| replaced.until)
    }

    /// Time passed. The replaced session that is to be dropped, if it has had its time.
    pub(super) fn end_replaced(&mut self, now: Micros) -> Option<MemberUdp> {
        if self.replaced_until()? > now {
            return None;
        }
        let retired = self.retire();
        self.replaced = None;
        retired
    }

    /// The replaced session, once.
    fn retire(&mut self) -> Option<MemberUdp> {
        let replaced = self.replaced.as_mut().filter(|replaced| !replaced.retired)?;
        replaced.retired = true;
        Some(replaced.reached.udp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkerIndex;

    fn udp(session: u32) -> MemberUdp {
        MemberUdp { session: MediaSessionId(session), worker: WorkerIndex(0), cipher: Cipher::Aes128Gcm }
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn member() -> Member {
        let mut member = Member::new(StreamId(1), Some(udp(1)), Hears::Streams, MemberFlags::default(), None);
        member.set_reach(MediaSessionId(1), Some(address(1)));
        member
    }

    fn port(member: &Member) -> Option<u16> {
        member.listens_at().map(|(_, address)| address.port())
    }

    #[test]
    fn a_member_hears_where_they_are_reached_and_else_through_the_gateway() {
        let mut member = member();
        assert_eq!((port(&member), member.needs_tunnel()), (Some(1), false));
        assert_eq!(member.set_reach(MediaSessionId(9), Some(address(9))), None);
        assert_eq!(port(&member), Some(1), "not their session");
        member.set_reach(MediaSessionId(1), None);
        assert_eq!((port(&member), member.needs_tunnel()), (None, true));
        member.flags.deafened = true;
        assert_eq!((port(&member), member.needs_tunnel()), (None, false));
        assert!(Member::new(StreamId(1), None, Hears::Streams, MemberFlags::default(), None).needs_tunnel());
    }

    #[test]
    fn a_replaced_session_serves_until_the_new_one_is_proven_and_is_dropped_once_it_is_bound() {
        let mut member = member();
        assert_eq!(member.set_udp(Micros::ZERO, Some(udp(2))), [None, None]);
        assert_eq!((port(&member), member.needs_tunnel()), (Some(1), true));
        assert_eq!(member.set_reach(MediaSessionId(2), None), Some(udp(1)), "bound");
        assert_eq!(member.set_reach(MediaSessionId(2), None), None, "told once");
        assert_eq!(port(&member), Some(1));
        assert_eq!(member.set_reach(MediaSessionId(2), Some(address(2))), None);
        assert_eq!((port(&member), member.needs_tunnel()), (Some(2), false));
        assert_eq!(member.replaced_until(), None);
    }

    #[test]
    fn a_mix_goes_where_its_listener_is_reached() {
        let mut member = Member::new(StreamId(1), Some(udp(1)), Hears::Mix, MemberFlags::default(), None);
        assert_eq!(member.ways_of_mix(), MixWays { udp: None, is_tunnelled: true });
        member.set_reach(MediaSessionId(1), Some(address(1)));
        assert_eq!(member.ways_of_mix(), MixWays { udp: Some(udp(1)), is_tunnelled: false });
        assert_eq!((port(&member), member.needs_tunnel(), member.needs_mix()), (None, false, true), "no streams");
        member.set_udp(Micros::ZERO, Some(udp(2)));
        assert_eq!(member.ways_of_mix(), MixWays { udp: Some(udp(1)), is_tunnelled: true }, "the old one serves on");
        member.set_reach(MediaSessionId(2), Some(address(2)));
        assert_eq!(member.ways_of_mix(), MixWays { udp: Some(udp(2)), is_tunnelled: false });
        member.flags.deafened = true;
        assert!(!member.needs_mix());
        assert!(!Member::new(StreamId(1), None, Hears::Streams, MemberFlags::default(), None).needs_mix());
    }

    #[test]
    fn a_replaced_session_has_five_seconds() {
        let mut member = member();
        member.set_udp(Micros::from_secs(1), Some(udp(2)));
        assert_eq!(member.end_replaced(Micros(5_999_999)), None);
        assert_eq!(member.end_replaced(Micros::from_secs(6)), Some(udp(1)));
        assert_eq!((port(&member), member.needs_tunnel()), (None, true));
    }

    #[test]
    fn replacing_again_or_by_none_drops_what_was() {
        let mut member = member();
        assert_eq!(member.set_udp(Micros::ZERO, Some(udp(1))), [None, None], "the same");
        assert_eq!(member.replaced_until(), None);
        member.set_udp(Micros::ZERO, Some(udp(2)));
        assert_eq!(member.set_udp(Micros::ZERO, Some(udp(3))), [Some(udp(1)), None]);
        assert_eq!(member.set_udp(Micros::ZERO, None), [Some(udp(2)), Some(udp(3))]);
        assert_eq!(member.listens_at(), None);
    }
}
