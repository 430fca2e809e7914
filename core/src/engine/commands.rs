//! What the control plane asks of an engine.

use super::{
    Command, Counter, Engine, GatewayFrame, Handover, Output,
    channel::Channel,
    group::GroupKey,
    member::Member,
    session::{Session, StreamRoute},
    timers,
};
use crate::{
    clock::Micros,
    gateway::Cipher,
    ids::{ChannelId, MediaSessionId, StreamId},
    seal::Key,
};

impl Engine {
    /// Does what is asked, or `None` when it names what does not exist or carries a key of the wrong length. To remove
    /// what is gone is no error.
    pub(super) fn obey(&mut self, now: Micros, command: Command, out: &mut impl Output) -> Option<()> {
        match command {
            Command::AddSession { session, cipher, key } => self.add_session(session, cipher, &key.0),
            Command::RemoveSession { session } => {
                self.remove_session(now, session, out);
                Some(())
            }
            Command::AttachStream { session, stream, channel, home } => {
                self.attach(now, session, StreamRoute { stream, channel, home }, out)
            }
            Command::DetachStream { session, stream } => {
                self.detach(session, stream);
                Some(())
            }
            Command::OpenChannel { channel, max_speakers } => {
                self.open_channel(now, channel, max_speakers);
                Some(())
            }
            Command::SetMaxSpeakers { channel, max_speakers } => {
                let (channel, turn) = self.channel_turn(now, channel, out)?;
                channel.set_max_speakers(turn.now, max_speakers);
                Some(())
            }
            Command::CloseChannel { channel } => {
                self.close_channel(now, channel, out);
                Some(())
            }
            Command::SetGroupKey { channel, group, cipher, key_id, key, activate_at } => {
                let key = Key::new(cipher, &key.0).ok()?;
                let (channel, _) = self.channel_turn(now, channel, out)?;
                channel.set_group_key(group, cipher, activate_at, GroupKey::new(key_id, key));
                Some(())
            }
            Command::AddMember { channel, stream, udp, hears, flags, last_sequence } => {
                let (channel, turn) = self.channel_turn(now, channel, out)?;
                channel.add_member(turn.work, Member::new(stream, udp, hears, flags, last_sequence));
                Some(())
            }
            Command::SetRecorded { channel, recorded } => {
                if let Some((channel, _)) = self.channel_turn(now, channel, out) {
                    channel.set_recorded(recorded);
                }
                Some(())
            }
            Command::SetOverheard { channel, overheard } => {
                let (channel, _) = self.channel_turn(now, channel, out)?;
                channel.set_overheard(overheard);
                Some(())
            }
            Command::SetMemberFlags { channel, stream, flags } => {
                let (channel, mut turn) = self.channel_turn(now, channel, out)?;
                channel.set_flags(&mut turn, stream, flags)
            }
            Command::SetMemberUdp { channel, stream, udp } => {
                let (channel, mut turn) = self.channel_turn(now, channel, out)?;
                let retired = channel.set_udp(&mut turn, stream, udp)?;
                self.retire(retired.into_iter().flatten(), out);
                Some(())
            }
            Command::RemoveMember { channel, stream } => {
                if let Some((channel, mut turn)) = self.channel_turn(now, channel, out) {
                    channel.tell_member(&mut turn, stream);
                    channel.remove_member(turn.work, stream);
                }
                Some(())
            }
            Command::Frame { channel, stream, frame } => {
                self.gateway_frame(now, channel, stream, &frame, out);
                Some(())
            }
        }
    }

    fn add_session(&mut self, id: MediaSessionId, cipher: Cipher, key: &[u8]) -> Option<()> {
        let session = Session::new(id, cipher, key).ok()?;
        self.forget_session(id);
        let key = self.sessions.insert_with(|_| session);
        self.by_session.insert(id, key);
        self.work.timers.reserve(timers::PER_SESSION);
        self.work.stats.count(Counter::SessionsOpen);
        Some(())
    }

    /// No fault where it has gone already: a session that was replaced is dropped as soon as the new one is bound, and
    /// removed by the control plane, whose commands are never lost, at about the same time.
    fn remove_session(&mut self, now: Micros, id: MediaSessionId, out: &mut impl Output) {
        let Some(&key) = self.by_session.get(&id) else { return };
        if let Some(session) = self.sessions.get_mut(key) {
            session.proof.end();
        }
        self.announce(now, key, out);
        self.forget_session(id);
    }

    /// Drops a session without telling its channels.
    pub(super) fn forget_session(&mut self, id: MediaSessionId) {
        let Some(key) = self.by_session.remove(&id) else { return };
        let Some(session) = self.sessions.remove(key) else { return };
        self.work.timers.release(timers::PER_SESSION);
        self.work.stats.down(Counter::SessionsOpen);
        if session.proven_told {
            self.work.stats.down(Counter::SessionsProven);
        }
    }

    fn attach(&mut self, now: Micros, id: MediaSessionId, route: StreamRoute, out: &mut impl Output) -> Option<()> {
        let key = *self.by_session.get(&id)?;
        let session = self.sessions.get_mut(key)?;
        session.streams.retain(|other| other.stream != route.stream);
        session.streams.push(route);
        self.announce_stream(now, key, route.stream, out);
        Some(())
    }

    fn detach(&mut self, id: MediaSessionId, stream: StreamId) {
        let session = self.by_session.get(&id).and_then(|key| self.sessions.get_mut(*key));
        if let Some(session) = session {
            session.streams.retain(|route| route.stream != stream);
        }
    }

    /// Opens a channel; one that is open already keeps its members.
    fn open_channel(&mut self, now: Micros, id: ChannelId, max_speakers: u32) {
        if let Some(channel) = self.by_channel.get(&id).and_then(|key| self.channels.get_mut(*key)) {
            channel.set_max_speakers(now, max_speakers);
            return;
        }
        let key = self.channels.insert_with(|key| Channel::new(id, key, max_speakers));
        self.by_channel.insert(id, key);
        self.work.reserve_channel(self.channels.len());
        self.work.stats.count(Counter::ChannelsOpen);
    }

    fn close_channel(&mut self, now: Micros, id: ChannelId, out: &mut impl Output) {
        let Some((channel, mut turn)) = self.channel_turn(now, id, out) else { return };
        channel.close(&mut turn);
        if let Some(key) = self.by_channel.remove(&id) {
            self.channels.remove(key);
        }
        self.work.timers.release(timers::PER_CHANNEL);
        self.work.stats.down(Counter::ChannelsOpen);
    }

    /// A frame that came over the gateway: its sender has no UDP that works.
    fn gateway_frame(
        &mut self,
        now: Micros,
        channel: ChannelId,
        stream: StreamId,
        frame: &GatewayFrame,
        out: &mut impl Output,
    ) {
        let numbered = self
            .channel_turn(now, channel, out)
            .and_then(|(channel, turn)| Some((channel.number(turn.now, stream, frame)?, channel.udp_of(stream))));
        let Some((header, udp)) = numbered else {
            return self.work.stats.count(Counter::FrameUnknownMember);
        };
        match udp {
            Some(udp) if udp.worker == self.worker => self.end_proof(now, udp.session, out),
            // Repeated with each frame: the other worker may have missed it.
            Some(udp) => _ = out.handover(udp.worker, Handover::Unprove { session: udp.session }),
            None => {}
        }
        self.accept(now, channel, header, &frame.bytes, out);
    }
}
