//! Voice on its way to subscribers, past the library: once a connection stands, its packets are numbered, sealed and sent here, and
//! what their receivers report of them is read here. Why, and why no two packets share a nonce:
//! [ADR 0019](../../../docs/adr/0019-voice-goes-past-the-library.md).

use std::collections::HashMap;

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, StreamId},
    rtcp::{self, SENDER_REPORT_BYTES_MAX, SenderReport},
    srtp::{OVERHEAD_BYTES_MAX, Srtp},
    wire::{datagram::DATAGRAM_BYTES_MAX, frame::FrameHeader},
};
use str0m::net::Protocol;
use tokio::sync::mpsc;

use super::{
    Address, ByNumber, PeerCounter, PeerEvent, PeerStats, Peers, demux,
    keys::Keys,
    peer::{Peer, Side},
    subscribing::Track,
};
use crate::media::outbox::Outbox;

/// The first index of our reports. The library numbers its own from zero, under the same key: half of the indices are each
/// one's, so that none is sealed twice, whatever source a report begins with. Either lasts for a thousand years.
const FIRST_REPORT: u32 = 1 << 30;

/// What packets and reports of voice are sealed with that do not go by the library.
pub(super) struct Sealing {
    keys: Keys,
    next_report: u32,
}

impl Sealing {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, next_report: FIRST_REPORT }
    }

    pub(super) fn srtp(&self) -> &Srtp {
        &self.keys.outgoing
    }

    /// What a client reports, opened in its place.
    pub(super) fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        self.keys.incoming.open_rtcp(packet)
    }

    /// Seals a report: its length.
    fn seal(&mut self, report: &SenderReport<'_>, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..SENDER_REPORT_BYTES_MAX + OVERHEAD_BYTES_MAX)?;
        let length = report.write(out.first_chunk_mut()?);
        let index = self.next_report;
        self.next_report += 1;
        self.keys.outgoing.seal_rtcp(index, out, length)
    }
}

/// The way out for what is sealed here.
struct Post<'a> {
    outbox: &'a mut Outbox,
    tcp: &'a HashMap<Address, mpsc::Sender<Box<[u8]>>>,
    stats: &'a mut PeerStats,
    is_ipv6: bool,
}

impl Post<'_> {
    /// Sends what `write` makes; false when it makes nothing.
    fn send(
        &mut self,
        (proto, to): Address,
        write: impl FnOnce(&mut [u8; DATAGRAM_BYTES_MAX]) -> Option<usize>,
    ) -> bool {
        let written = match proto {
            Protocol::Udp => self.outbox.sender.compose(demux::as_sent(to, self.is_ipv6), write),
            _ => self.send_by_tcp((proto, to), write),
        };
        if written {
            self.stats.count(PeerCounter::Sent);
        }
        written
    }

    fn send_by_tcp(&mut self, to: Address, write: impl FnOnce(&mut [u8; DATAGRAM_BYTES_MAX]) -> Option<usize>) -> bool {
        let mut packet = [0; DATAGRAM_BYTES_MAX];
        let Some(packet) = write(&mut packet).and_then(|length| packet.get(..length)) else { return false };
        if self.tcp.get(&to).is_none_or(|way| way.try_send(packet.into()).is_err()) {
            self.stats.count(PeerCounter::TcpDropped);
        }
        true
    }
}

impl Peers {
    /// A frame of the engine for the peers of its channel.
    pub(in crate::media) fn voice(
        &mut self,
        now: Micros,
        channel: ChannelId,
        frame: (&FrameHeader, &[u8]),
        outbox: &mut Outbox,
    ) {
        let Self { rooms, peers, tcp, stats, setup, .. } = self;
        let Some(room) = rooms.get(&channel) else { return };
        let post = &mut Post { outbox, tcp, stats, is_ipv6: setup.is_ipv6 };
        for (place, number) in room.subscribers.iter().enumerate() {
            foresee(peers, &room.subscribers[place..], frame.0.stream);
            if let Some(peer) = peers.get_mut(number) {
                say(peer, now, frame, post, || rtcp::ntp(setup.clock.unix_us(now)));
            }
        }
    }

    /// Sends a subscriber again what is due of the voices that it may have lost.
    pub(super) fn repeat_voices(&mut self, now: Micros, number: u32, outbox: &mut Outbox) {
        let Self { peers, tcp, stats, setup, .. } = self;
        let Some(Peer { repeats, nominated: Some(to), .. }) = peers.get_mut(&number).map(|peer| &mut **peer) else {
            return;
        };
        let post = &mut Post { outbox, tcp, stats, is_ipv6: setup.is_ipv6 };
        while let Some(packet) = repeats.take_due(now) {
            let bytes = packet.bytes();
            let copy = |out: &mut [u8; DATAGRAM_BYTES_MAX]| {
                out.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            };
            if post.send(*to, copy) {
                post.stats.count(PeerCounter::AudioRepeated);
            }
        }
    }

    /// Reads what a subscriber reports of its voices, and tells of it; true when that is all that a datagram is about.
    pub(super) fn reports_on_voice(&mut self, now: Micros, number: u32, from: Address, datagram: &[u8]) -> bool {
        if !begins_with_report(datagram) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&number) else { return false };
        let Peer { key, side: Side::Subscribing(side), sealing: Some(sealing), nominated, .. } = &mut **peer else {
            return false;
        };
        let mut packet = [0; DATAGRAM_BYTES_MAX];
        let Some(packet) = packet.get_mut(..datagram.len()).filter(|_| *nominated == Some(from)) else { return false };
        packet.copy_from_slice(datagram);
        let Some(compound) = sealing.open_rtcp(packet) else { return false };
        let times = (now, rtcp::ntp(self.setup.clock.unix_us(now)));
        let (key, mut lost, mut heard, mut all_of_voice) = (*key, 0, Vec::new(), true);
        let all_read = rtcp::read_reports(compound, |reception| match side.voice_by_ssrc(reception.ssrc) {
            Some(Track { voice, of, .. }) => {
                lost += voice.received(&reception);
                heard.extend(of.and_then(|(stream, _)| voice.heard(times, stream, &reception)));
            }
            None => all_of_voice = false,
        });
        self.stats.add(PeerCounter::AudioLost, lost);
        heard.into_iter().for_each(|block| self.reported(PeerEvent::Heard { key, block }));
        all_read && all_of_voice
    }
}

/// RTCP whose first packet is a report: what else there is of it is none of voice.
fn begins_with_report(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 200 | 201, ..])
}

/// So many listeners further on it is their turn: what is needed of each is fetched from memory meanwhile, since it lies strewn, and
/// waiting for it would cost more than all that is done with it. First the peer, then its key and its list of sections, then the section.
const FORESEEN: [usize; 3] = [8, 5, 2];

/// Has what the next listeners' turns need fetched.
fn foresee(peers: &ByNumber<Box<Peer>>, listeners: &[u32], stream: StreamId) {
    let [far, nearer, near] = FORESEEN.map(|ahead| listeners.get(ahead).and_then(|number| peers.get(number)));
    if let Some(peer) = far {
        peer.prefetch_front();
    }
    if let Some(Peer { sealing: Some(sealing), side: Side::Subscribing(side), .. }) = nearer.map(|peer| &**peer) {
        sealing.srtp().prefetch_rtp();
        side.prefetch_voices(stream);
    }
    if let Some(Side::Subscribing(side)) = near.map(|peer| &peer.side)
        && let Some(track) = side.expected_track(stream)
    {
        track.prefetch_front();
    }
}

/// Sends a frame to a peer that is to have it, and the report that is due with it.
fn say(peer: &mut Peer, now: Micros, frame: (&FrameHeader, &[u8]), post: &mut Post<'_>, ntp: impl FnOnce() -> u64) {
    let Peer {
        key,
        side: Side::Subscribing(side),
        connected: true,
        sealing: Some(sealing),
        nominated: Some(to),
        repeats,
        ..
    } = peer
    else {
        return;
    };
    let stream = frame.0.stream;
    if key.stream == stream || side.deafened {
        return;
    }
    // Voices alone make no way narrow, and what goes by TCP is not lost.
    let may_be_lost = side.desired_bps > 0 && to.0 == Protocol::Udp;
    let Some(track) = side.voice_track(now, stream).filter(|track| track.is_open()) else {
        return post.stats.count(PeerCounter::NoTrack);
    };
    let seal = |packet: &mut [u8; DATAGRAM_BYTES_MAX]| {
        let length = track.voice.seal(now, sealing.srtp(), frame, packet)?;
        if may_be_lost {
            repeats.keep(now, &packet[..length]);
        }
        Some(length)
    };
    if !post.send(*to, seal) {
        return;
    }
    track.heard_at = now;
    post.stats.count(PeerCounter::AudioOut);
    if let Some(report) = track.voice.report(now, ntp, &track.cname) {
        post.send(*to, |packet| sealing.seal(&report, packet));
    }
}
