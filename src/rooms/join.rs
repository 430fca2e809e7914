//! Entering a channel's voice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use antiphon_core::{
    engine::Command,
    gateway::{ErrorCode, JoinChannel, LeaveReason, MediaTransport, Removed, RequestId},
    ids::StreamId,
    quality::QualityAdvisor,
};

use super::{
    Rooms,
    admit::{Admission, channel_full, not_joined},
    outlet::Shared,
    presence::{Link, Place, Presence},
    quality::{bitrate, quality_hint},
    room::{LocalMember, Room, Switches, Turn},
    udp::UdpSession,
};
use crate::{
    cluster::{JoinRefused, Joined, Member, NewMember},
    error::AppError,
    random,
    telemetry::metrics::metrics,
};

impl Rooms {
    /// Makes a session a member of a channel, tells it so (`ChannelJoined`) and the others (`UserJoined`).
    ///
    /// # Errors
    /// When the channel does not exist for them, is full, bans them, or the request cannot be met. Nothing has
    /// changed then, except that an invite which let them in stays redeemed.
    pub async fn join(
        &self,
        presence: &Arc<Presence>,
        request: &JoinChannel,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let started = Instant::now();
        let joined = self.try_join(presence, request, request_id).await;
        metrics().rooms.joins.of(joined.is_ok().into()).increment(1);
        metrics().rooms.join_duration.record(started.elapsed().as_secs_f64());
        joined
    }

    async fn try_join(
        &self,
        presence: &Arc<Presence>,
        request: &JoinChannel,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        self.check_request(request)?;
        if let Some(place) = presence.place(request.channel_id) {
            return self.join_again(presence, &place, request, request_id).await;
        }
        self.check_session(presence, request)?;
        loop {
            let admission = self.admit(&presence.user, request).await?;
            let (room, mut turn) = self.turn_of_new(request.channel_id).await;
            // The channel, a ban or a role may have changed while it was looked up.
            let is_current = admission.decided_at == self.inner.changes.load(Ordering::Acquire);
            let entered = match is_current {
                true => Some(self.enter(presence, &room, &mut turn, admission, request, &request_id).await),
                false => None,
            };
            self.close_if_empty(&room, &mut turn).await;
            if let Some(entered) = entered {
                return entered;
            }
        }
    }

    fn check_session(&self, presence: &Presence, request: &JoinChannel) -> Result<(), AppError> {
        let state = presence.state();
        if state.ended {
            return Err(AppError::new(ErrorCode::Unauthenticated, "this session is over: connect anew"));
        }
        let most = self.inner.config.channels_per_session;
        if state.places.len() >= most {
            let message = format!("this session is in {most} channels, the most allowed: leave one first");
            return Err(AppError::new(ErrorCode::LimitReached, message));
        }
        match (&state.udp, request.cipher) {
            (Some(udp), Some(cipher)) if udp.cipher != cipher && request.media == MediaTransport::Udp => {
                Err(AppError::new(
                    ErrorCode::InvalidInput,
                    "all channels of a session share one UDP session and its cipher: leave `cipher` out or name the \
                     one in use",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The rest of a join, within the room's turn.
    async fn enter(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        turn: &mut Turn,
        admission: Admission,
        request: &JoinChannel,
        request_id: &Option<RequestId>,
    ) -> Result<(), AppError> {
        let Admission { channel, priority, muted_by, .. } = admission;
        if let Some(by) = muted_by {
            // What is known of members may have begun anew since; the database remembers.
            self.apply_server_mute(room, presence.user.id, true, by).await;
        }
        let joined = self.take_place(presence, room, channel.max_users, request.media).await?;
        if *turn == Turn::New {
            let open = Command::OpenChannel { channel: room.id, max_speakers: channel.max_speakers };
            self.inner.media.send(room.home, open).await;
            *turn = Turn::Open;
        }
        if let Some(left) = &joined.replaced {
            // The others see the older session's stream leave before the new one joins.
            let removed = Removed {
                channel_id: room.id,
                reason: LeaveReason::Replaced,
                by: Some(presence.user.id),
                message: None,
            };
            self.take_out(room, left, Some(&Shared::new(removed))).await;
        }
        room.live_mut().channel = Some(channel);
        let switches = Switches { server_muted: joined.member.server_muted, priority, ..Switches::default() };
        let udp = self.add_to_media(presence, room, &joined.member, switches, request).await;
        let link = self.settle_in(presence, room, &joined.member, switches, udp.clone(), request);
        self.greet(room, joined, udp.as_deref(), &link, request_id.clone());
        room.totals.joined(SystemTime::now());
        Ok(())
    }

    /// Tells the new member everything, then the others of it. Whatever happens in the channel later comes after that.
    fn greet(&self, room: &Room, joined: Joined, udp: Option<&UdpSession>, link: &Link, request_id: Option<RequestId>) {
        let stream = joined.member.stream;
        let (answer, next_key) = self.channel_joined(room, stream, udp, link, joined.members, joined.position);
        link.outlet.send(&Shared::answer(answer, request_id));
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        if let Some(hint) = quality_hint(room, stream) {
            link.outlet.send(&hint);
        }
        room.broadcast(&Shared::event(&joined.event), Some(stream));
    }

    async fn take_place(
        &self,
        presence: &Presence,
        room: &Room,
        max_users: u32,
        media: MediaTransport,
    ) -> Result<Joined, AppError> {
        loop {
            let stream = new_stream_id(presence);
            let new = NewMember { user: presence.user.clone(), session: presence.id, stream, media };
            match self.inner.membership.join(room.id, max_users, new).await {
                Ok(joined) => return Ok(joined),
                Err(JoinRefused::StreamTaken) => {}
                Err(JoinRefused::Full) => return Err(channel_full(max_users)),
            }
        }
    }

    async fn add_to_media(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        member: &Member,
        switches: Switches,
        request: &JoinChannel,
    ) -> Option<Arc<UdpSession>> {
        let place =
            Place { room: Arc::clone(room), stream: member.stream, uses_udp: request.media == MediaTransport::Udp };
        let udp = self.take_up_place(presence, place, request.cipher).await;
        if let Some(udp) = &udp {
            self.enter_group(room, udp.cipher).await;
        }
        let add = Command::AddMember {
            channel: room.id,
            stream: member.stream,
            udp: udp.as_ref().map(|udp| udp.as_member()),
            flags: switches.flags(),
            last_sequence: None,
        };
        self.inner.media.send(room.home, add).await;
        if let Some(udp) = &udp {
            self.attach_stream(udp, room, member.stream).await;
        }
        udp
    }

    /// Makes the member part of the room: from now on it gets what the room sends. Yields where its own messages go.
    fn settle_in(
        &self,
        presence: &Arc<Presence>,
        room: &Room,
        member: &Member,
        switches: Switches,
        udp: Option<Arc<UdpSession>>,
        request: &JoinChannel,
    ) -> Link {
        let link = presence.state().link.clone();
        let channels = request.channels.unwrap_or(self.inner.config.channels);
        let local = LocalMember {
            presence: Arc::clone(presence),
            outlet: Arc::clone(&link.outlet),
            media: member.media,
            udp,
            switches,
            speaking: false,
            sounding: false,
            announced: None,
            advisor: QualityAdvisor::new(bitrate(channels)),
        };
        room.live_mut().members.insert(member.stream, local);
        link
    }

    /// Joining a channel that the session is in already: the same answer anew, as things are now.
    async fn join_again(
        &self,
        presence: &Presence,
        place: &Place,
        request: &JoinChannel,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let room = &place.room;
        let _turn = room.turn.lock().await;
        let snapshot = self.inner.membership.snapshot(room.id, None).await;
        let current = room.live().members.get(&place.stream).map(|member| (member.media, member.udp.clone()));
        let (Some(snapshot), Some((media, udp))) = (snapshot, current) else { return Err(not_joined()) };
        let same_cipher = udp.as_ref().zip(request.cipher).is_none_or(|(udp, cipher)| udp.cipher == cipher);
        if media != request.media || !same_cipher {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "this session is in that channel with another `media` or `cipher`: send LeaveChannel first",
            ));
        }
        let link = presence.state().link.clone();
        let (answer, next_key) =
            self.channel_joined(room, place.stream, udp.as_deref(), &link, snapshot.members, snapshot.position);
        link.outlet.send(&Shared::answer(answer, request_id));
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        Ok(())
    }
}

/// A stream id that is none of the session's own: frames name only the stream, not the channel. Never zero, so that
/// clients may use that for none.
fn new_stream_id(presence: &Presence) -> StreamId {
    loop {
        let stream = StreamId(random::number());
        if stream.0 != 0 && presence.state().places.values().all(|place| place.stream != stream) {
            return stream;
        }
    }
}
