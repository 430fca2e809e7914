//! What becomes of a frame that is passed on: each way to those who hear it, and who hears by which.

use super::{Channel, Side};
use crate::{
    engine::{Counter, Event, FrameBytes, Output, member::MixWays, turn::Turn},
    gateway::Cipher,
    ids::StreamId,
    red,
    slab::SlabKey,
    wire::{datagram::HEADER_BYTES, frame::FrameHeader},
};

impl Channel {
    /// Gives a frame to the control plane when members other than its speaker hear through the gateway.
    pub(super) fn tunnel<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        speaker: Option<SlabKey>,
        header: FrameHeader,
        bytes: &[u8],
    ) {
        let own = speaker.and_then(|key| self.members.get(key)).is_some_and(|member| member.tunnelled);
        let hearing = self.tunnelled - u64::from(own);
        if hearing == 0 {
            return;
        }
        let Some(copy) = FrameBytes::copy_from(bytes) else { return };
        if turn.out.event(Event::Tunnel { channel: self.id, header, bytes: copy }) {
            turn.work.stats.count(Counter::FramesTunnelled);
            self.traffic.frames_out += hearing;
            self.traffic.bytes_out += hearing * bytes.len() as u64;
        } else {
            turn.work.stats.count(Counter::EventsLost);
        }
    }

    /// Gives a frame to the worker's WebRTC peers when members other than its speaker hear by them. Browsers play plain Opus alone: of
    /// redundant frames they get the newest, and none that only the members can open.
    pub(super) fn give_to_peers<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        speaker: Option<SlabKey>,
        header: FrameHeader,
        bytes: &[u8],
    ) {
        let own = speaker.and_then(|key| self.members.get(key)).is_some_and(|member| member.hears_by_peer);
        let hearing = self.by_peer - u64::from(own);
        if hearing == 0 {
            return;
        }
        if header.has(FrameHeader::FLAG_ENCRYPTED) {
            return turn.work.stats.count(Counter::FramePeersEncrypted);
        }
        let is_redundant = header.has(FrameHeader::FLAG_REDUNDANT) && !bytes.is_empty();
        let newest = if is_redundant { red::newest(bytes) } else { Some(bytes) };
        let Some(bytes) = newest else { return turn.work.stats.count(Counter::FramePeersMalformed) };
        turn.out.peers(self.id, &header.with_flag(FrameHeader::FLAG_REDUNDANT, false), bytes);
        turn.work.stats.add(Counter::FramesToPeers, hearing);
        self.traffic.frames_out += hearing;
        self.traffic.bytes_out += hearing * bytes.len() as u64;
    }

    /// Gives a frame to the mixer when anybody but its speaker hears a mix, unless nobody but the members can open it.
    pub(super) fn give_to_mixer<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        speaker: Option<SlabKey>,
        header: FrameHeader,
        bytes: &[u8],
    ) {
        let own = speaker.and_then(|key| self.members.get(key)).is_some_and(|member| member.hears_mix);
        if self.mixed == u64::from(own) && !self.overheard {
            return;
        }
        if header.has(FrameHeader::FLAG_ENCRYPTED) {
            return turn.work.stats.count(Counter::FrameMixerEncrypted);
        }
        let is_taken = turn.out.mix(turn.now, self.id, &header, bytes);
        turn.work.stats.count(if is_taken { Counter::FramesToMixer } else { Counter::FrameMixerBusy });
    }

    /// Gives a frame of a member here to the recorder while the channel is recorded: each node records its own members, so
    /// that no other node's end takes anything from a recording.
    pub(super) fn give_to_recorder<O: Output>(&mut self, turn: &mut Turn<'_, O>, header: &FrameHeader, bytes: &[u8]) {
        if !self.recorded || bytes.is_empty() {
            return;
        }
        if header.has(FrameHeader::FLAG_ENCRYPTED) {
            return turn.work.stats.count(Counter::FrameRecorderEncrypted);
        }
        let is_taken = turn.out.record(turn.now, self.id, header, bytes);
        turn.work.stats.count(if is_taken { Counter::FramesToRecorder } else { Counter::FrameRecorderBusy });
    }

    /// The ways of a frame of a member's mix, which is counted; `None` when they hear none.
    pub(in crate::engine) fn ways_of_mix<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        member: StreamId,
        bytes: usize,
    ) -> Option<MixWays> {
        let ways = self.member_mut(member).filter(|(_, member)| member.hears_mix)?.1.ways_of_mix();
        turn.work.stats.count(Counter::FramesMixed);
        self.traffic.frames_out += 1;
        self.traffic.bytes_out += bytes as u64;
        if !self.traffic_armed {
            self.arm_traffic(turn);
        }
        Some(ways)
    }

    pub(super) fn bundle_frame<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        speaker: Option<SlabKey>,
        header: FrameHeader,
        bytes: &[u8],
    ) {
        let own = speaker.and_then(|key| self.members.get(key)).is_some_and(|member| member.listening.is_some());
        if self.listeners() == usize::from(own) {
            return;
        }
        if !self.bundle.has_room(bytes.len()) {
            self.flush(turn);
        }
        self.bundle.push(turn.now, speaker, &header, bytes);
        if !self.dirty {
            self.dirty = true;
            turn.work.dirty.push(self.key);
        }
    }

    /// Seals the waiting frames once for each cipher and sends them to all its listeners; those whose own frames are
    /// among them get the others' alone.
    pub(super) fn flush<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        if self.bundle.is_empty() {
            return;
        }
        for cipher in Cipher::ALL {
            self.flush_side(turn, cipher);
        }
        self.bundle.clear();
    }

    fn flush_side<O: Output>(&mut self, turn: &mut Turn<'_, O>, cipher: Cipher) {
        let Self { members, sides, bundle, traffic, .. } = self;
        let Side { group, listeners } = &mut sides[cipher as usize];
        let frames = bundle.frames().len();
        if listeners.len() == 0 {
            return;
        }
        let Some(group) = group else {
            return turn.work.stats.add(Counter::FrameNoGroupKey, frames as u64);
        };
        let mut speakers = std::mem::take(&mut turn.work.speakers);
        speakers.clear();
        for frame in bundle.frames() {
            let Some(key) = frame.member else { continue };
            let place = members.get(key).and_then(|member| member.listening);
            if let Some((_, index)) = place.filter(|(side, _)| *side == cipher)
                && !speakers.contains(&(index, key))
            {
                speakers.push((index, key));
            }
        }
        speakers.sort_unstable();
        if listeners.len() > speakers.len() {
            let length = bundle.copy_all(&mut turn.work.datagram[HEADER_BYTES..]);
            let length = group.seal(turn.now, &mut turn.work.datagram[..], length);
            let mut from = 0;
            for index in speakers.iter().map(|(index, _)| *index).chain([listeners.len()]) {
                turn.fan_out(length, &listeners.addresses()[from..index]);
                from = index + 1;
            }
            turn.note_sent(bundle.since());
            turn.count_sent(traffic, frames, length, listeners.len() - speakers.len());
        }
        for (index, member) in &speakers {
            let (frames, length) = bundle.copy_without(*member, &mut turn.work.datagram[HEADER_BYTES..]);
            if frames > 0 {
                let length = group.seal(turn.now, &mut turn.work.datagram[..], length);
                turn.fan_out(length, &listeners.addresses()[*index..=*index]);
                turn.note_sent(bundle.since());
                turn.count_sent(traffic, frames, length, 1);
            }
        }
        turn.work.speakers = speakers;
    }

    /// Brings a member's place among the listeners, the tunnelled, those by WebRTC and those who hear a mix up to date.
    pub(super) fn refresh_listener(&mut self, key: SlabKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let needs_tunnel = member.needs_tunnel();
        self.tunnelled -= u64::from(member.tunnelled);
        self.tunnelled += u64::from(needs_tunnel);
        member.tunnelled = needs_tunnel;
        let needs_peer = member.needs_peer();
        self.by_peer -= u64::from(member.hears_by_peer);
        self.by_peer += u64::from(needs_peer);
        member.hears_by_peer = needs_peer;
        let needs_mix = member.needs_mix();
        self.mixed -= u64::from(member.hears_mix);
        self.mixed += u64::from(needs_mix);
        member.hears_mix = needs_mix;
        match (member.listening, member.listens_at()) {
            (Some((side, index)), Some((cipher, address))) if side == cipher => {
                self.sides[cipher as usize].listeners.set_address(index, address);
            }
            (_, at) => {
                self.stop_listening(key);
                let Some((cipher, address)) = at else { return };
                let index = self.sides[cipher as usize].listeners.push(key, address);
                if let Some(member) = self.members.get_mut(key) {
                    member.listening = Some((cipher, index));
                }
            }
        }
    }

    pub(super) fn stop_listening(&mut self, key: SlabKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let Some((cipher, index)) = member.listening.take() else { return };
        let moved = self.sides[cipher as usize].listeners.swap_remove(index);
        if let Some(moved) = moved.and_then(|moved| self.members.get_mut(moved)) {
            moved.listening = Some((cipher, index));
        }
    }
}
