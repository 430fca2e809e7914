//! A channel in its home worker: its members, its listeners, and the frames on their way to them.

mod ways;

use super::{
    ChannelTraffic, Counter, Event, GatewayFrame, MemberFlags, MemberUdp, Output,
    bundle::{Bundle, FRAME_BYTES_MAX},
    group::{Group, GroupKey, Listeners},
    member::Member,
    remote::Remotes,
    sequence::Order,
    timers::{self, Due},
    turn::{Turn, Work},
    voice::Passed,
};
use crate::{
    clock::Micros,
    gateway::Cipher,
    hash::IdMap,
    ids::{ChannelId, GroupId, MediaSessionId, StreamId},
    slab::{Slab, SlabKey},
    speech::select::{Candidate, Selector},
    wire::frame::{FrameHeader, FrameKind},
};

/// Two streams that were heard within this time speak at once: three usual frames.
const ACTIVE: Micros = Micros::from_millis(60);
/// Fewer listeners gain nothing from waiting: of two people who talk to each other, each hears one.
const LISTENERS_WORTH_HOLDING: usize = 3;
/// How often a channel's traffic is told.
const TRAFFIC_INTERVAL: Micros = Micros::from_secs(1);

/// The listeners with one cipher and what seals for them.
#[derive(Debug, Default)]
struct Side {
    group: Option<Group>,
    listeners: Listeners,
}

/// The two streams heard last: whether more than one speaks.
#[derive(Debug, Default)]
struct Recent {
    last: Option<(StreamId, Micros)>,
    other: Option<(StreamId, Micros)>,
}

impl Recent {
    fn heard(&mut self, now: Micros, stream: StreamId) {
        if self.last.is_some_and(|(last, _)| last != stream) {
            self.other = self.last;
        }
        self.last = Some((stream, now));
    }

    fn several(&self, now: Micros) -> bool {
        self.other.is_some_and(|(_, at)| now.since(at) < ACTIVE)
    }
}

/// A channel.
pub(super) struct Channel {
    id: ChannelId,
    key: SlabKey,
    members: Slab<Member>,
    by_stream: IdMap<StreamId, SlabKey>,
    /// Streams of members on other nodes.
    remotes: Remotes,
    sides: [Side; Cipher::ALL.len()],
    /// How many hear through the gateway.
    tunnelled: u64,
    /// How many hear by WebRTC.
    by_peer: u64,
    /// How many hear a mix.
    mixed: u64,
    /// Whether what members here send goes to the recorder, too.
    recorded: bool,
    /// Somebody who is no member hears one.
    overheard: bool,
    selector: Selector,
    recent: Recent,
    bundle: Bundle,
    /// It is among the channels that got frames in this batch.
    dirty: bool,
    flush_armed: bool,
    traffic: ChannelTraffic,
    traffic_armed: bool,
}

impl Channel {
    pub(super) fn new(id: ChannelId, key: SlabKey, max_speakers: u32) -> Self {
        Self {
            id,
            key,
            members: Slab::default(),
            by_stream: IdMap::default(),
            remotes: Remotes::default(),
            sides: Default::default(),
            tunnelled: 0,
            by_peer: 0,
            mixed: 0,
            recorded: false,
            overheard: false,
            selector: Selector::new(max_speakers),
            recent: Recent::default(),
            bundle: Bundle::new(),
            dirty: false,
            flush_armed: false,
            traffic: ChannelTraffic::default(),
            traffic_armed: false,
        }
    }

    pub(super) fn set_max_speakers(&mut self, now: Micros, max_speakers: u32) {
        self.selector.set_max_speakers(now, max_speakers, self.members.len());
    }

    pub(super) fn set_recorded(&mut self, recorded: bool) {
        self.recorded = recorded;
    }

    /// Whether somebody who is no member hears the mix.
    pub(super) fn set_overheard(&mut self, overheard: bool) {
        self.overheard = overheard;
    }

    /// A group's key; another group's id begins a new group.
    pub(super) fn set_group_key(&mut self, group: GroupId, cipher: Cipher, activate_at: Micros, key: GroupKey) {
        let side = &mut self.sides[cipher as usize];
        match &mut side.group {
            Some(present) if present.id() == group => present.set_next(activate_at, key),
            other => *other = Some(Group::new(group, key)),
        }
    }

    /// Adds a member, or replaces the one with this stream.
    pub(super) fn add_member(&mut self, work: &mut Work, member: Member) {
        self.remove_member(work, member.stream);
        work.timers.reserve(timers::PER_MEMBER);
        work.stats.count(Counter::MembersPresent);
        let stream = member.stream;
        let key = self.members.insert_with(|_| member);
        self.by_stream.insert(stream, key);
        self.selector.reserve(self.members.len());
        self.sides.iter_mut().for_each(|side| side.listeners.reserve(self.members.len()));
        self.refresh_listener(key);
    }

    /// Takes a member out, if there is one with this stream. Their UDP session is the caller's.
    pub(super) fn remove_member(&mut self, work: &mut Work, stream: StreamId) {
        let Some(key) = self.by_stream.remove(&stream) else { return };
        self.stop_listening(key);
        self.selector.release(stream);
        let Some(mut member) = self.members.remove(key) else { return };
        self.count_lost(work, member.voice.take_missing());
        self.tunnelled -= u64::from(member.tunnelled);
        self.by_peer -= u64::from(member.hears_by_peer);
        self.mixed -= u64::from(member.hears_mix);
        work.timers.release(timers::PER_MEMBER);
        work.stats.down(Counter::MembersPresent);
    }

    /// A member's switches.
    pub(super) fn set_flags<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        stream: StreamId,
        flags: MemberFlags,
    ) -> Option<()> {
        let (key, member) = self.member_mut(stream)?;
        member.flags = flags;
        if flags.muted {
            member.voice.speaking.end(turn.now);
            self.selector.release(stream);
            self.tell_speaking(turn, key);
        }
        self.refresh_listener(key);
        Some(())
    }

    /// A member's UDP session is another; sessions to drop.
    pub(super) fn set_udp<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        stream: StreamId,
        udp: Option<MemberUdp>,
    ) -> Option<[Option<MemberUdp>; 2]> {
        let channel = self.key;
        let (key, member) = self.member_mut(stream)?;
        let retired = member.set_udp(turn.now, udp);
        if let Some(until) = member.replaced_until().filter(|_| !member.replaced_armed) {
            member.replaced_armed = true;
            turn.work.timers.arm(until, Due::Replaced { channel, member: key });
        }
        self.refresh_listener(key);
        Some(retired)
    }

    /// Where a member's UDP session reaches them. A session to drop.
    pub(super) fn set_reach<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        stream: StreamId,
        session: MediaSessionId,
        address: Option<std::net::SocketAddr>,
    ) -> Option<MemberUdp> {
        if address.is_none() {
            // What waits was not tunnelled for them: it leaves while they still are a listener.
            self.flush(turn);
        }
        let (key, member) = self.member_mut(stream)?;
        let retired = member.set_reach(session, address);
        self.refresh_listener(key);
        retired
    }

    /// The newest UDP session of a member.
    pub(super) fn udp_of(&self, stream: StreamId) -> Option<MemberUdp> {
        self.by_stream.get(&stream).and_then(|key| self.members.get(*key)).and_then(Member::udp)
    }

    /// The number that a member's next frame has where the server numbers their stream.
    pub(super) fn next_sequence(&self, stream: StreamId) -> Option<u16> {
        let member = self.by_stream.get(&stream).and_then(|key| self.members.get(*key))?;
        Some(member.voice.next_sequence())
    }

    /// The header of a member's frame from the gateway.
    pub(super) fn number(&self, now: Micros, stream: StreamId, frame: &GatewayFrame) -> Option<FrameHeader> {
        let member = self.by_stream.get(&stream).and_then(|key| self.members.get(*key))?;
        Some(member.voice.number(now, stream, frame))
    }

    /// A member's frame, however it came: checks it and sends it on its way.
    pub(super) fn accept<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        header: FrameHeader,
        bytes: &[u8],
    ) -> Result<(), Counter> {
        let now = turn.now;
        let (key, member) = self.member_mut(header.stream).ok_or(Counter::FrameUnknownMember)?;
        let passed = member.voice.check(now, member.flags.muted, &header, bytes)?;
        let header = header.with_flag(FrameHeader::FLAG_PRIORITY, member.flags.priority);
        member.voice.accepted.frames += 1;
        member.voice.accepted.bytes += bytes.len() as u64;
        self.count_accepted(turn, bytes.len());
        if passed.newest {
            self.follow_spurt(turn, key, passed.kind, header.level);
        }
        let Some(member) = self.members.get_mut(key) else { return Err(Counter::FrameUnknownMember) };
        let header = member.voice.forwarded(passed, header);
        let selected = match turn.work.relayed {
            true => turn.out.relay(self.id, &header, bytes),
            false => self.is_selected(now, key, passed, header.level),
        };
        if !selected {
            if let Some(member) = self.members.get_mut(key) {
                member.voice.withhold();
            }
            return Err(Counter::FrameNotSelected);
        }
        self.give_to_recorder(turn, &header, bytes);
        self.pass_on(turn, Some(key), header, bytes);
        Ok(())
    }

    /// A frame of a member on another node, where it was checked. One of a member who is here belongs to the time before
    /// they came.
    pub(super) fn accept_remote<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        header: FrameHeader,
        bytes: &[u8],
    ) -> Result<(), Counter> {
        let kind = header.kind().filter(|_| header.allows(bytes)).ok_or(Counter::FrameMalformed)?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Counter::FrameTooLong);
        }
        let speaker = match self.member_mut(header.stream) {
            Some((key, member)) => match member.voice.note_elsewhere(header.sequence) {
                Order::Duplicate => return Err(Counter::FrameDuplicate),
                Order::Late | Order::Newest { .. } => Some(key),
            },
            None => {
                self.follow_remote(turn, kind, &header)?;
                None
            }
        };
        turn.work.stats.count(Counter::FramesRemote);
        if !self.traffic_armed {
            self.arm_traffic(turn);
        }
        self.pass_on(turn, speaker, header, bytes);
        Ok(())
    }

    /// Takes in a frame of another node's stream: whether it came before, and whether its speaker speaks.
    fn follow_remote<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        kind: FrameKind,
        header: &FrameHeader,
    ) -> Result<(), Counter> {
        let channel = self.key;
        let remote = self.remotes.of(turn.now, header.stream, channel, turn.work);
        let (key, remote) = remote.ok_or(Counter::FrameRemoteStreams)?;
        match remote.note(turn.now, header.sequence) {
            Order::Duplicate => return Err(Counter::FrameDuplicate),
            Order::Late => {}
            Order::Newest { .. } => {
                remote.speaking.frame(turn.now, kind, header.level);
                remote.speaking.tell(turn, self.id, header.stream, Due::RemoteSpurt { channel, remote: key });
            }
        }
        Ok(())
    }

    /// Sends a frame to all who listen here but its speaker.
    fn pass_on<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        speaker: Option<SlabKey>,
        header: FrameHeader,
        bytes: &[u8],
    ) {
        self.recent.heard(turn.now, header.stream);
        self.tunnel(turn, speaker, header, bytes);
        self.give_to_peers(turn, speaker, header, bytes);
        self.give_to_mixer(turn, speaker, header, bytes);
        self.bundle_frame(turn, speaker, header, bytes);
    }

    /// The batch that brought frames is over: they leave, or wait for others to join them.
    pub(super) fn settle<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.dirty = false;
        if self.bundle.is_empty() {
            return;
        }
        let hold = turn.work.hold;
        if hold == Micros::ZERO || !self.recent.several(turn.now) || self.listeners() < LISTENERS_WORTH_HOLDING {
            self.flush(turn);
        } else if !self.flush_armed {
            self.flush_armed = true;
            turn.work.timers.arm(self.bundle.since() + hold, Due::Flush(self.key));
        }
    }

    /// The oldest frame may have waited long enough.
    pub(super) fn flush_due<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.flush_armed = false;
        if self.bundle.is_empty() {
            return;
        }
        let due_at = self.bundle.since() + turn.work.hold;
        if due_at <= turn.now {
            self.flush(turn);
        } else {
            self.flush_armed = true;
            turn.work.timers.arm(due_at, Due::Flush(self.key));
        }
    }

    /// A member's talk spurt may have ended.
    pub(super) fn spurt_due<O: Output>(&mut self, turn: &mut Turn<'_, O>, member: SlabKey) {
        let Some(entry) = self.members.get_mut(member) else { return };
        entry.voice.speaking.due(turn.now);
        self.tell_speaking(turn, member);
    }

    /// A talk spurt of another node's stream may have ended.
    pub(super) fn remote_spurt_due<O: Output>(&mut self, turn: &mut Turn<'_, O>, key: SlabKey) {
        let Some(remote) = self.remotes.get_mut(key) else { return };
        remote.speaking.due(turn.now);
        let due = Due::RemoteSpurt { channel: self.key, remote: key };
        remote.speaking.tell(turn, self.id, remote.stream, due);
    }

    /// A stream of another node may not have been heard for long.
    pub(super) fn remote_silent_due<O: Output>(&mut self, turn: &mut Turn<'_, O>, key: SlabKey) {
        self.remotes.silent_due(turn.now, key, self.key, turn.work);
    }

    /// A member's replaced session may have had its time. A session to drop.
    pub(super) fn replaced_due<O: Output>(&mut self, turn: &mut Turn<'_, O>, key: SlabKey) -> Option<MemberUdp> {
        let channel = self.key;
        let member = self.members.get_mut(key)?;
        member.replaced_armed = false;
        let retired = member.end_replaced(turn.now);
        if let Some(until) = member.replaced_until() {
            member.replaced_armed = true;
            turn.work.timers.arm(until, Due::Replaced { channel, member: key });
        }
        self.refresh_listener(key);
        retired
    }

    /// Tells the control plane what was carried since the last time.
    pub(super) fn tell_traffic<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.traffic_armed = false;
        if !self.tell_members(turn) {
            self.arm_traffic(turn);
        }
        let missing: u64 = self.members.values_mut().map(|member| member.voice.take_missing()).sum();
        self.count_lost(turn.work, missing);
        if self.traffic == ChannelTraffic::default() {
            return;
        }
        let traffic = ChannelTraffic { jitter_us: self.mean_jitter_us(), ..self.traffic };
        if turn.tell(Event::ChannelTraffic { channel: self.id, traffic }) {
            self.traffic = ChannelTraffic::default();
            self.members.values_mut().for_each(|member| member.voice.heard = false);
        } else if !self.traffic_armed {
            self.arm_traffic(turn);
        }
    }

    /// Tells what each member sent, until there is no more room: false, and the rest is to be told later.
    fn tell_members<O: Output>(&mut self, turn: &mut Turn<'_, O>) -> bool {
        let channel = self.id;
        self.members.values_mut().all(|member| member.tell_accepted(turn, channel))
    }

    /// Tells what a member sent who is about to leave.
    pub(super) fn tell_member<O: Output>(&mut self, turn: &mut Turn<'_, O>, stream: StreamId) {
        let channel = self.id;
        if let Some((_, member)) = self.member_mut(stream) {
            // What there is no room for is counted as delayed, and lost with the member.
            let _ = member.tell_accepted(turn, channel);
        }
    }

    /// The channel closes: what it holds leaves, what it carried is told.
    pub(super) fn close<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.flush(turn);
        self.tell_traffic(turn);
        for stream in self.by_stream.keys().copied().collect::<Vec<_>>() {
            self.remove_member(turn.work, stream);
        }
        self.remotes.clear(turn.work);
    }

    fn member_mut(&mut self, stream: StreamId) -> Option<(SlabKey, &mut Member)> {
        let key = *self.by_stream.get(&stream)?;
        Some((key, self.members.get_mut(key)?))
    }

    fn listeners(&self) -> usize {
        self.sides.iter().map(|side| side.listeners.len()).sum()
    }

    fn count_accepted<O: Output>(&mut self, turn: &mut Turn<'_, O>, bytes: usize) {
        turn.work.stats.count(Counter::FramesAccepted);
        self.traffic.frames_in += 1;
        self.traffic.bytes_in += bytes as u64;
        if !self.traffic_armed {
            self.arm_traffic(turn);
        }
    }

    /// Counts frames that are missing as lost: what comes of them now is too late to be of use.
    fn count_lost(&mut self, work: &mut Work, frames: u64) {
        work.stats.add(Counter::FramesLost, frames);
        self.traffic.frames_lost += frames;
    }

    fn arm_traffic<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.traffic_armed = true;
        turn.work.timers.arm(turn.now + TRAFFIC_INTERVAL, Due::Traffic(self.key));
    }

    fn mean_jitter_us(&mut self) -> u32 {
        let heard = self.members.values_mut().filter(|member| member.voice.heard);
        let (sum, count) = heard
            .fold((0_u64, 0_u64), |(sum, count), member| (sum + u64::from(member.voice.jitter.micros()), count + 1));
        sum.checked_div(count).and_then(|mean| u32::try_from(mean).ok()).unwrap_or(0)
    }

    fn follow_spurt<O: Output>(&mut self, turn: &mut Turn<'_, O>, key: SlabKey, kind: FrameKind, level: u8) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.voice.speaking.frame(turn.now, kind, level);
        self.tell_speaking(turn, key);
    }

    fn tell_speaking<O: Output>(&mut self, turn: &mut Turn<'_, O>, key: SlabKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let due = Due::Spurt { channel: self.key, member: key };
        member.voice.speaking.tell(turn, self.id, member.stream, due);
    }

    fn is_selected(&mut self, now: Micros, key: SlabKey, passed: Passed, level: u8) -> bool {
        let Some(member) = self.members.get(key) else { return false };
        let selected = self.selector.admit(
            now,
            Candidate {
                stream: member.stream,
                priority: member.flags.priority,
                loudness: member.voice.loudness,
                sounding: passed.newest && passed.kind.is_sound(level),
            },
        );
        if passed.kind == FrameKind::AudioStop && passed.newest {
            self.selector.release(member.stream);
        }
        selected
    }
}
