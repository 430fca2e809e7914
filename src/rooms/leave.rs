//! Leaving a channel, of one's own accord or with the session.

use std::{sync::Arc, time::Instant};

use antiphon_core::{
    engine::Command,
    gateway::{ChannelLeft, LeaveReason, LeftRoom, LeftRoomPayload, RequestId},
    ids::{ChannelId, SessionId, StreamId},
};

use super::{
    Rooms,
    admit::not_joined,
    outlet::Shared,
    presence::{Place, Presence},
    room::{LocalMember, Room, Turn},
};
use crate::{
    cluster::{Changed, Leave, Unavailable},
    error::AppError,
};

impl Rooms {
    /// Takes a session out of a channel, tells it so (`ChannelLeft`) and the others (`UserLeft`).
    ///
    /// # Errors
    /// When the session is not in the channel.
    pub async fn leave(
        &self,
        presence: &Presence,
        channel: ChannelId,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        let place = presence.place(channel).ok_or_else(not_joined)?;
        let answer = Shared::answer(ChannelLeft { channel_id: channel }, request_id);
        if self.leave_place(presence, &place, LeaveReason::Left, Some(&answer)).await {
            Ok(())
        } else {
            Err(not_joined())
        }
    }

    /// Takes a session out of the room that it meets in by WebRTC, and tells it so (`left`).
    ///
    /// # Errors
    /// When it is in none.
    pub async fn leave_room(&self, presence: &Presence, request_id: Option<RequestId>) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        let place = self.meeting_place(presence)?;
        let answer = Shared::answer(LeftRoom::from(LeftRoomPayload { room_id: place.room.id }), request_id);
        if self.leave_place(presence, &place, LeaveReason::Left, Some(&answer)).await {
            Ok(())
        } else {
            Err(not_joined())
        }
    }

    /// Ends a session: it leaves all channels, and joins none any more.
    pub async fn end(&self, presence: &Presence, reason: LeaveReason) {
        let _turn = presence.turn.lock().await;
        let places: Vec<Place> = {
            let mut state = presence.state();
            state.ended = true;
            state.places.values().cloned().collect()
        };
        for place in places {
            self.leave_place(presence, &place, reason, None).await;
        }
        self.unattend_all(presence).await;
    }

    /// False when the session was removed from there meanwhile.
    pub(super) async fn leave_place(
        &self,
        presence: &Presence,
        place: &Place,
        reason: LeaveReason,
        farewell: Option<&Shared>,
    ) -> bool {
        let room = &place.room;
        let mut turn = room.turn.lock().await;
        let leave = Leave::own(presence.user.id, Some(presence.id), reason);
        let outlet = room.live().members.get(&place.stream).map(|member| Arc::clone(&member.outlet));
        let left = self.end_membership(room, &leave).await.unwrap_or(false);
        if let (true, Some(outlet), Some(farewell)) = (left, outlet, farewell) {
            outlet.send(farewell);
        }
        self.close_if_empty(room, &mut turn).await;
        left
    }

    /// Ends a membership within the room's turn, with all that follows. False when there is none.
    pub(super) async fn end_membership(&self, room: &Arc<Room>, leave: &Leave) -> Result<bool, Unavailable> {
        let (membership, known) = (&self.inner.membership, room.applied());
        let shared = membership.leave(room.id, leave, known.as_ref());
        let node = membership.node();
        let mut left = self.step_about(room, leave.user, shared, |alone| alone.leave(node, leave, None)).await?;
        if left.is_none() && leave.session.is_none() {
            left = self.leave_forgotten(room, leave).await;
        }
        let Some(left) = left else {
            if let (Some(session), Some(_)) = (leave.session, known) {
                self.let_go_of(room, session).await;
            }
            return Ok(false);
        };
        // Without members here there is nobody to tell.
        if known.is_some() {
            self.take_change(room, left.news).await;
        }
        Ok(true)
    }

    /// Ends the membership of somebody who is here, though what all nodes share knows nothing of it. Word that they left may be
    /// on its way. Else they were lost with all that was kept there, and this node is about to write them back: the room goes
    /// on by itself without them.
    async fn leave_forgotten(&self, room: &Arc<Room>, leave: &Leave) -> Option<Changed> {
        let is_here = || room.live().has_here(leave.user);
        if !is_here() {
            return None;
        }
        self.read_on(room).await;
        if !is_here() {
            return None;
        }
        let (node, lost) = (self.inner.membership.node(), std::future::ready(Err(Unavailable)));
        let left = self.step(room, lost, |alone| alone.leave(node, leave, None)).await;
        self.reconcile_soon(room);
        left.ok().flatten()
    }

    /// Ends what this node does for a session that is no longer its to answer for in a room.
    async fn let_go_of(&self, room: &Arc<Room>, session: SessionId) {
        // Somebody else ended it, and word of that is still on its way; or else another node has it.
        self.read_on(room).await;
        let stream = {
            let live = room.live();
            let is_its = |(_, member): &(&StreamId, &LocalMember)| member.presence.id == session;
            live.members.iter().find(is_its).map(|(stream, _)| *stream)
        };
        if let Some(stream) = stream {
            self.drop_stream(room, stream).await;
        }
    }

    /// Ends what this node does for a member, within the room's turn: nothing more is forwarded from or to them, and
    /// they get `farewell`. `None` when they are not here.
    pub(super) async fn take_out(
        &self,
        room: &Arc<Room>,
        stream: StreamId,
        farewell: Option<&Shared>,
    ) -> Option<LocalMember> {
        let member = {
            let live = &mut *room.live_mut();
            let member = live.members.remove(&stream)?;
            if let Some(text) = live.texts.get_mut(&member.presence.id) {
                text.is_in_voice = false;
            }
            member
        };
        self.inner.ledger.went(room.id, stream, Instant::now());
        self.remove_from_media(room, stream, &member).await;
        if let Some(farewell) = farewell {
            member.outlet.send(farewell);
        }
        Some(member)
    }

    async fn remove_from_media(&self, room: &Room, stream: StreamId, member: &LocalMember) {
        let media = &self.inner.media;
        media.send(room.home, Command::RemoveMember { channel: room.id, stream }).await;
        self.recorder_lets_go_of(room, stream).await;
        if member.mix.is_some() {
            self.end_mix(room, stream).await;
        }
        let unused = member.presence.give_up(room.id, stream);
        if let Some(udp) = unused {
            self.remove_udp_session(&udp).await;
        } else if let Some(udp) = &member.udp {
            media.send(udp.worker, Command::DetachStream { session: udp.id, stream }).await;
        }
    }

    /// Closes a room that has no members, within its turn.
    pub(super) async fn close_if_empty(&self, room: &Arc<Room>, turn: &mut Turn) {
        if *turn == Turn::Closed || !room.live().is_empty() {
            return;
        }
        match *turn {
            Turn::New | Turn::Text => self.inner.media.give_back(room.home),
            Turn::Open => self.inner.media.send(room.home, Command::CloseChannel { channel: room.id }).await,
            Turn::Closed => {}
        }
        *turn = Turn::Closed;
        self.recorder_closes(room).await;
        self.close_alone(room);
        self.inner.membership.unwatch(room.id).await;
        self.inner.rooms.remove_if(&room.id, |_, known| Arc::ptr_eq(known, room));
    }
}
