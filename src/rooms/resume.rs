//! Taking a session up again through another connection, and catching up after a gap.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{
    engine::Command,
    gateway::{Position, Recovered, RequestId, ResumedChannel, ResumedText, ServerMessage},
    ids::{ChannelId, StreamId},
};

use super::{
    Rooms,
    admit::not_joined,
    outlet::{Shared, event_value},
    presence::{Link, Place, Presence},
    room::Room,
    udp::UdpSession,
};
use crate::error::AppError;

/// What goes on of a session's place: its old UDP session with the new one in its place, and the place in the journal that its
/// client knows.
type Known<'a> = (Option<&'a (Arc<UdpSession>, Arc<UdpSession>)>, Option<&'a Position>);

impl Rooms {
    /// Turns a session to another connection, with a new UDP session where it has one. Yields each channel as it is
    /// now, with what was missed since the `positions` given; what happens there later is sent to the new connection.
    /// The others see neither a leave nor a join. `None` when the session is over.
    pub async fn resume(
        &self,
        presence: &Arc<Presence>,
        link: &Link,
        positions: &HashMap<ChannelId, Position>,
    ) -> Option<(Vec<ResumedChannel>, Vec<ResumedText>)> {
        let _turn = presence.turn.lock().await;
        let mut places: Vec<Place> = {
            let mut state = presence.state();
            if state.ended {
                return None;
            }
            state.link = link.clone();
            state.places.values().cloned().collect()
        };
        places.sort_unstable_by_key(|place| place.room.id);
        let replaced = self.replace_udp_session(presence).await;
        let mut channels = Vec::with_capacity(places.len());
        for place in places {
            let since = positions.get(&place.room.id);
            channels.extend(self.resume_place(presence, &place, link, (replaced.as_ref(), since)).await);
        }
        if let Some((old, new)) = replaced {
            self.retire_udp_session(old, new);
        }
        Some((channels, self.resume_texts(presence, link, positions).await))
    }

    /// Gives the session a new UDP session in the place of the one it has: the old and the new one.
    async fn replace_udp_session(&self, presence: &Arc<Presence>) -> Option<(Arc<UdpSession>, Arc<UdpSession>)> {
        let old = presence.state().udp.clone()?;
        let new = self.new_udp_session(presence, old.worker, old.cipher);
        // Known to the worker before anybody can see it, and so end it.
        self.add_udp_session(&new).await;
        let exchanged = {
            let mut state = presence.state();
            let in_use = state.udp.is_some();
            if in_use {
                state.udp = Some(Arc::clone(&new));
            }
            in_use
        };
        if exchanged {
            return Some((old, new));
        }
        // A moderator removed the session from its last channel meanwhile.
        self.remove_udp_session(&new).await;
        None
    }

    /// `None` when the session was removed from the channel meanwhile.
    async fn resume_place(
        &self,
        presence: &Presence,
        place: &Place,
        link: &Link,
        known: Known<'_>,
    ) -> Option<ResumedChannel> {
        let room = &place.room;
        let mut turn = room.turn.lock().await;
        let resumed = self.resume_within(presence, room, place.stream, link, known).await;
        self.close_if_empty(room, &mut turn).await;
        resumed
    }

    async fn resume_within(
        &self,
        presence: &Presence,
        room: &Arc<Room>,
        stream: StreamId,
        link: &Link,
        (replaced, since): Known<'_>,
    ) -> Option<ResumedChannel> {
        let udp = {
            let mut live = room.live_mut();
            let member = live.members.get_mut(&stream)?;
            member.outlet = Arc::clone(&link.outlet);
            if let (Some((_, new)), Some(_)) = (replaced, &member.udp) {
                member.udp = Some(Arc::clone(new));
            }
            member.udp.clone()
        };
        if let (Some(udp), Some(_)) = (&udp, replaced) {
            self.attach_stream(udp, room, stream).await;
            let take_over = Command::SetMemberUdp { channel: room.id, stream, udp: Some(udp.as_member()) };
            self.inner.media.send(room.home, take_over).await;
        }
        let missed = self.missed_by(presence, room, since).await;
        // What was missed may be that they were removed.
        let resumed = self.resumed_channel(room, stream, link, since.zip(Some(missed)))?;
        if let Some(udp) = &udp {
            // The lost connection's keys may have stayed behind with it.
            self.renew_key(room, udp.cipher).await;
        }
        Some(resumed)
    }

    /// What a member is told of a channel on resuming, as the room is now. `None` when they are no longer in it.
    pub(super) fn resumed_channel(
        &self,
        room: &Room,
        stream: StreamId,
        link: &Link,
        missed: Option<(&Position, Missed)>,
    ) -> Option<ResumedChannel> {
        let (members, position, udp) = {
            let live = room.live();
            let udp = live.members.get(&stream)?.udp.clone();
            (live.roster.views(), live.roster.applied()?.clone(), udp)
        };
        let (joined, next_key) = self.channel_joined(room, stream, udp.as_deref(), link, members, position);
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        let recovered = missed.as_ref().map(|(_, missed)| missed.is_some());
        let events = missed.and_then(|(_, missed)| missed).map(|missed| event_values(&missed, link));
        Some(ResumedChannel { joined, recovered, events })
    }

    /// Every event after `since` up to the newest that the room has taken in; `None` when that cannot be said. Events
    /// that come later are sent later.
    pub(super) async fn missed(&self, room: &Arc<Room>, since: &Position) -> Missed {
        if room.is_alone() {
            return room.live().alone.as_ref()?.state.missed(since);
        }
        let snapshot = self.inner.membership.snapshot(room.id, Some(since)).await.ok()??;
        let is_behind = room
            .applied()
            .is_none_or(|applied| applied.epoch != snapshot.position.epoch || applied.offset < since.offset);
        if is_behind {
            // The client has heard more, on another node, than this room.
            self.read_on(room).await;
        }
        let applied = room.applied()?;
        let known = snapshot.missed?.into_iter().filter(|entry| entry.position.offset <= applied.offset);
        (applied.epoch == snapshot.position.epoch).then(|| known.map(|entry| entry.event).collect())
    }

    /// Answers with what happened in a channel after `since`, or with the full state when that cannot be said. Events
    /// that come later are sent later.
    ///
    /// # Errors
    /// When the session is not in the channel.
    pub async fn recover(
        &self,
        presence: &Presence,
        channel: ChannelId,
        since: &Position,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let (place, text) = (presence.place(channel), presence.state().texts.get(&channel).cloned());
        let room = &place.map(|place| place.room).or(text).ok_or_else(not_joined)?;
        let mut turn = room.turn.lock().await;
        let missed = self.missed_by(presence, room, Some(since)).await;
        self.close_if_empty(room, &mut turn).await;
        let is_there = self.is_attending(presence, channel);
        let position = room.applied().filter(|_| is_there);
        let position = position.ok_or_else(not_joined)?;
        let link = presence.state().link.clone();
        let recovered = missed.is_some();
        let state = (!recovered).then(|| (room.live().roster.views(), position));
        let (members, position) = state.unzip();
        let events = missed.map(|missed| event_values(&missed, &link));
        let recording = room.live().recording.clone().filter(|_| !recovered);
        let answer = Recovered { channel_id: channel, recovered, events, members, position, recording };
        link.outlet.send(&Shared::answer(answer, request_id));
        Ok(())
    }
}

/// Every event that somebody missed, or that this cannot be said.
pub(super) type Missed = Option<Vec<Arc<ServerMessage>>>;

pub(super) fn event_values(events: &[Arc<ServerMessage>], link: &Link) -> Vec<serde_json::Value> {
    let shape = link.outlet.shape();
    events.iter().map(|event| event_value(event, shape)).collect()
}
