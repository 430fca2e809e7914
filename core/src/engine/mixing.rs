//! What the mixer made, on its way to those who hear it: each gets their frame under their session's key.

use super::{Counter, Engine, Event, FrameBytes, Handover, Output};
use crate::{
    clock::Micros,
    ids::{ChannelId, MediaSessionId},
    mix::MixTo,
    wire::{
        datagram::HEADER_BYTES,
        frame::{FrameHeader, write_frame},
    },
};

/// A packet of a channel's mix, for one or several of its members.
#[derive(Clone, Copy, Debug)]
pub struct MixedFrame<'a> {
    /// Which channel.
    pub channel: ChannelId,
    /// For whom, and which frame of their stream it is.
    pub to: &'a [MixTo],
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// RFC 6464 level.
    pub level: u8,
    /// One Opus packet, or nothing.
    pub bytes: &'a [u8],
}

impl Engine {
    /// The mixer brings a frame. Members who have left, or hear nothing any more, do not get it.
    pub fn mixed(&mut self, now: Micros, mixed: &MixedFrame<'_>, out: &mut impl Output) {
        for to in mixed.to {
            let Some((channel, mut turn)) = self.channel_turn(now, mixed.channel, out) else { return };
            let Some(ways) = channel.ways_of_mix(&mut turn, to.member, mixed.bytes.len()) else { continue };
            let header = to.header(mixed.timestamp, mixed.level);
            match ways.udp {
                Some(udp) if udp.worker == self.worker => self.send_mix(udp.session, &header, mixed.bytes, out),
                Some(udp) => self.hand_mix_over(udp, header, mixed.bytes, out),
                None => {}
            }
            if ways.is_tunnelled {
                self.tunnel_mix(mixed, to, header, out);
            }
        }
    }

    fn hand_mix_over(&mut self, udp: super::MemberUdp, header: FrameHeader, bytes: &[u8], out: &mut impl Output) {
        let Some(bytes) = FrameBytes::copy_from(bytes) else { return };
        let handed = out.handover(udp.worker, Handover::Mixed { session: udp.session, header, bytes });
        self.work.stats.count(if handed { Counter::FramesHandedOver } else { Counter::FrameWorkerBusy });
    }

    fn tunnel_mix(&mut self, mixed: &MixedFrame<'_>, to: &MixTo, header: FrameHeader, out: &mut impl Output) {
        let Some(bytes) = FrameBytes::copy_from(mixed.bytes) else { return };
        if !out.event(Event::TunnelMix { channel: mixed.channel, member: to.member, header, bytes }) {
            self.work.stats.count(Counter::EventsLost);
        }
    }

    /// Seals a frame of a mix for the session of this worker that it is for, and sends it.
    pub(super) fn send_mix(
        &mut self,
        session: MediaSessionId,
        header: &FrameHeader,
        bytes: &[u8],
        out: &mut impl Output,
    ) {
        let Self { sessions, by_session, work, .. } = self;
        let session = by_session.get(&session).and_then(|key| sessions.get_mut(*key));
        // It may have lost its way, or be over, since its channel's worker heard of it.
        let Some((session, address)) = session.and_then(|session| session.reach().map(|address| (session, address)))
        else {
            return work.stats.count(Counter::FrameUnknownMember);
        };
        let Some(length) = write_frame(header, bytes, &mut work.datagram[HEADER_BYTES..]) else {
            return work.stats.count(Counter::FrameTooLong);
        };
        let length = session.seal_mix(&mut work.datagram[..], length);
        out.send(address, &work.datagram[..length]);
        work.stats.count(Counter::Sealed);
        work.stats.count(Counter::DatagramsOfOne);
        work.stats.add(Counter::BytesSent, length as u64);
    }
}
