//! Entering a channel's voice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use antiphon_core::{
    engine::{Command, Hears},
    gateway::{Cipher, ErrorCode, JoinChannel, JoinedRoom, MediaTransport, MemberView, Position, RequestId},
    ids::StreamId,
    quality::QualityAdvisor,
};

use super::{
    Rooms,
    admit::{Admission, channel_full, not_joined},
    mixing::MixPlace,
    outlet::Shared,
    presence::{Link, Place, Presence},
    quality::{bitrate, quality_hint},
    room::{LocalMember, Room, Switches, Turn},
    setup::member_views,
    udp::UdpSession,
};
use crate::{
    cluster::{JoinRefused, Joined, Leave, Member, NewMember, News, Unavailable},
    error::AppError,
    random,
    store::{Channel, DISPLAY_NAME_CHARS_MAX, check_printable},
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
        self.join_as(presence, request, Manner::Channel, request_id).await
    }

    /// Likewise by WebRTC, and told so as rooms tell it (`joined`), under a name that is shown there.
    ///
    /// # Errors
    /// As [`Rooms::join`].
    pub async fn join_room(
        &self,
        presence: &Arc<Presence>,
        request: &JoinChannel,
        display: Option<String>,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        if let Some(display) = &display {
            check_printable("display", display, DISPLAY_NAME_CHARS_MAX)
                .map_err(|message| AppError::new(ErrorCode::InvalidInput, message))?;
        }
        self.join_as(presence, request, Manner::Room(display), request_id).await
    }

    async fn join_as(
        &self,
        presence: &Arc<Presence>,
        request: &JoinChannel,
        manner: Manner,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let started = Instant::now();
        let joined = self.try_join(presence, request, &manner, request_id).await;
        metrics().rooms.joins.of(joined.is_ok().into()).increment(1);
        metrics().rooms.join_duration.record(started.elapsed().as_secs_f64());
        joined
    }

    async fn try_join(
        &self,
        presence: &Arc<Presence>,
        request: &JoinChannel,
        manner: &Manner,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        self.check_request(request)?;
        if let Some(place) = presence.place(request.channel_id) {
            return self.join_again(presence, &place, request, manner, request_id).await;
        }
        self.check_session(presence, request)?;
        loop {
            let admission = self.admit(presence, request).await?;
            let (room, mut turn) = self.turn_of_new(request.channel_id).await;
            // The channel, a ban or a role may have changed while it was looked up.
            let is_current = admission.decided_at == self.inner.changes.load(Ordering::Acquire);
            let entered = match is_current {
                true => Some(self.enter(presence, &room, &mut turn, admission, request, (manner, &request_id)).await),
                false => None,
            };
            self.close_if_empty(&room, &mut turn).await;
            drop(turn);
            if let Some(entered) = entered {
                entered?;
                return self.confirm(presence, request).await;
            }
        }
    }

    /// Looks once more where another node may have banned the user, made the channel private or deleted it between the
    /// look and the join: it removes whoever it finds in voice after it has stored that, so that one of both sees the
    /// other.
    async fn confirm(&self, presence: &Presence, request: &JoinChannel) -> Result<(), AppError> {
        if !self.inner.membership.is_shared() {
            return Ok(());
        }
        match self.why_unwelcome(&presence.user, request.channel_id).await {
            // The database is away, which holds for the other node, too.
            Ok(None) | Err(_) => Ok(()),
            Ok(Some(reason)) => {
                let leave = Leave::forced(presence.user.id, reason, None, None);
                self.remove(request.channel_id, leave).await.map(|_| ())
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
        if request.media == MediaTransport::Webrtc && state.places.values().any(|place| place.is_meeting) {
            let message = "this session meets in another room by WebRTC: leave that first";
            return Err(AppError::new(ErrorCode::InvalidInput, message));
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
        (manner, request_id): (&Manner, &Option<RequestId>),
    ) -> Result<(), AppError> {
        let Admission { channel, priority, muted_by, seat, .. } = admission;
        if *turn == Turn::New {
            // Before the join, so that nothing after it goes unheard.
            self.inner.membership.watch(room.id).await?;
        }
        if let Some(by) = muted_by {
            self.mute_entering(room, presence.user.id, by).await?;
        }
        let Joined { member, members, position, news } =
            self.take_place(presence, room, channel.max_users, (request.media, manner)).await?;
        self.open(room, turn, channel).await;
        // The others, and an older session of the same user, are told before the new member is there.
        self.take_change(room, if room.applied().is_some() { news } else { state(&members, &position) }).await;
        let switches = Switches { server_muted: member.server_muted, priority, ..Switches::default() };
        let mix = seat.map(|seat| self.mix_place(presence, room, seat));
        let entry = Entrance { media: request.media, cipher: request.cipher, channels: self.channels_of(request), mix };
        let udp = self.add_to_media(presence, room, member.stream, switches, &entry).await;
        let link = self.settle_in(presence, room, member.stream, switches, udp.clone(), entry);
        match manner {
            Manner::Channel => {
                let state = self.state_for(room, members, position);
                self.greet(room, member.stream, state, udp.as_deref(), &link, request_id.clone());
            }
            Manner::Room(_) => self.greet_in_room(presence, room, request_id.clone()).await,
        }
        room.totals.joined(SystemTime::now());
        if room.live().told.is_none() {
            self.finish_chat_soon(room.id);
        }
        self.inner.ledger.joined(room.id, presence.user.id);
        Ok(())
    }

    /// The state that a new member begins with: that of its own join, or a later one where the room is ahead by now.
    fn state_for(&self, room: &Room, members: Vec<Member>, position: Position) -> (Vec<MemberView>, Position) {
        match room.applied() {
            Some(applied) if applied != position => (room.live().roster.views(), applied),
            _ => (member_views(Some(room), members), position),
        }
    }

    /// Notes a channel's settings and, where it has no members here yet, makes its worker ready for them.
    pub(super) async fn open(&self, room: &Room, turn: &mut Turn, channel: Channel) {
        if matches!(*turn, Turn::New | Turn::Text) {
            let open = Command::OpenChannel { channel: room.id, max_speakers: channel.max_speakers };
            self.inner.media.send(room.home, open).await;
            self.go_on_recording(room).await;
            *turn = Turn::Open;
        }
        room.live_mut().channel = Some(channel);
    }

    fn channels_of(&self, request: &JoinChannel) -> u8 {
        request.channels.unwrap_or_else(|| self.inner.channels.load(Ordering::Relaxed))
    }

    /// Tells the new member everything. Whatever happens in the channel later comes after that.
    fn greet(
        &self,
        room: &Room,
        stream: StreamId,
        (members, position): (Vec<MemberView>, Position),
        udp: Option<&UdpSession>,
        link: &Link,
        request_id: Option<RequestId>,
    ) {
        let (answer, next_key) = self.channel_joined(room, stream, udp, link, members, position);
        link.outlet.send(&Shared::answer(answer, request_id));
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        if let Some(hint) = quality_hint(room, stream) {
            link.outlet.send(&hint);
        }
    }

    /// Tells somebody who meets by WebRTC.
    async fn greet_in_room(&self, presence: &Presence, room: &Room, request_id: Option<RequestId>) {
        let joined = JoinedRoom::from(self.joined_room(room, presence).await);
        presence.state().link.outlet.send(&Shared::answer(joined, request_id));
    }

    async fn take_place(
        &self,
        presence: &Presence,
        room: &Room,
        max_users: u32,
        (media, manner): (MediaTransport, &Manner),
    ) -> Result<Joined, AppError> {
        let mut user = presence.user.clone();
        if let Manner::Room(Some(display)) = manner {
            user.display_name.clone_from(display);
        }
        let (membership, known) = (&self.inner.membership, room.applied());
        loop {
            let stream = new_stream_id(presence);
            let new = NewMember { user: user.clone(), session: presence.id, stream, media };
            let shared = async {
                match membership.join(room.id, max_users, new.clone(), known.as_ref()).await {
                    Err(JoinRefused::Unavailable) => Err(Unavailable),
                    joined => Ok(joined),
                }
            };
            let joined = self.step(room, shared, |alone| alone.join(membership.node(), max_users, new.clone(), None));
            match joined.await? {
                Ok(joined) => return Ok(joined),
                Err(JoinRefused::StreamTaken) => {}
                Err(JoinRefused::Full) => return Err(channel_full(max_users)),
                Err(JoinRefused::Unavailable) => return Err(Unavailable.into()),
            }
        }
    }

    pub(super) async fn add_to_media(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        stream: StreamId,
        switches: Switches,
        entrance: &Entrance,
    ) -> Option<Arc<UdpSession>> {
        self.recorder_hears_of(room, stream, &presence.user).await;
        let place = Place {
            room: Arc::clone(room),
            stream,
            uses_udp: entrance.media == MediaTransport::Udp,
            is_meeting: entrance.media == MediaTransport::Webrtc,
            mix: entrance.mix.as_ref().map(|mix| mix.stream),
        };
        let udp = self.take_up_place(presence, place, entrance.cipher).await;
        if let Some(udp) = &udp {
            self.enter_group(room, udp.cipher).await;
        }
        let hears = match (entrance.media, &entrance.mix) {
            (MediaTransport::Webrtc, _) => Hears::Peer,
            (MediaTransport::Udp | MediaTransport::Websocket, None) => Hears::Streams,
            (MediaTransport::Udp | MediaTransport::Websocket, Some(_)) => Hears::Mix,
        };
        let (channel, flags, last_sequence) = (room.id, switches.flags(), None);
        let member = udp.as_ref().map(|udp| udp.as_member());
        let add = Command::AddMember { channel, stream, udp: member, hears, flags, last_sequence };
        self.inner.media.send(room.home, add).await;
        if let Some(udp) = &udp {
            self.attach_stream(udp, room, stream).await;
        }
        if let Some(mix) = &entrance.mix {
            self.begin_mix(room, stream, mix, switches).await;
        }
        udp
    }

    /// Makes the member part of the room: from now on it gets what the room sends. Yields where its own messages go.
    pub(super) fn settle_in(
        &self,
        presence: &Arc<Presence>,
        room: &Room,
        stream: StreamId,
        switches: Switches,
        udp: Option<Arc<UdpSession>>,
        entrance: Entrance,
    ) -> Link {
        self.inner.ledger.came(room.id, stream, presence.user.id, Instant::now());
        let link = presence.state().link.clone();
        let local = LocalMember {
            presence: Arc::clone(presence),
            outlet: Arc::clone(&link.outlet),
            media: entrance.media,
            udp,
            switches,
            channels: entrance.channels,
            departing: false,
            sounding: false,
            announced: None,
            advisor: QualityAdvisor::new(bitrate(entrance.channels)),
            subscription: None,
            is_offered: false,
            mix: entrance.mix,
        };
        let live = &mut *room.live_mut();
        if let Some(text) = live.texts.get_mut(&presence.id) {
            text.is_in_voice = true;
        }
        live.members.insert(stream, local);
        if let Some(position) = live.roster.applied() {
            presence.state().note_entry(room.id, position.clone());
        }
        link
    }

    /// Joining a channel that the session is in already: the same answer anew, as things are now.
    async fn join_again(
        &self,
        presence: &Presence,
        place: &Place,
        request: &JoinChannel,
        manner: &Manner,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let room = &place.room;
        let _turn = room.turn.lock().await;
        let current =
            room.live().members.get(&place.stream).map(|member| (member.media, member.mode(), member.udp.clone()));
        let (Some(position), Some((media, mode, udp))) = (room.applied(), current) else { return Err(not_joined()) };
        let same_cipher = udp.as_ref().zip(request.cipher).is_none_or(|(udp, cipher)| udp.cipher == cipher);
        if media != request.media || mode != request.mode || !same_cipher {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "this session is in that channel with another `media`, `mode` or `cipher`: send LeaveChannel first",
            ));
        }
        if let Manner::Room(_) = manner {
            self.greet_in_room(presence, room, request_id).await;
            return Ok(());
        }
        let link = presence.state().link.clone();
        let members = room.live().roster.views();
        let (answer, next_key) = self.channel_joined(room, place.stream, udp.as_deref(), &link, members, position);
        link.outlet.send(&Shared::answer(answer, request_id));
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        Ok(())
    }
}

/// In which family's words somebody enters.
enum Manner {
    /// By `JoinChannel`.
    Channel,
    /// By `join_room`, with the name to show there if they gave one.
    Room(Option<String>),
}

/// How somebody enters, as their client chose.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) media: MediaTransport,
    pub(super) cipher: Option<Cipher>,
    /// Audio channels of their stream.
    pub(super) channels: u8,
    /// The mix that they hear instead of streams.
    pub(super) mix: Option<MixPlace>,
}

fn state(members: &[Member], position: &Position) -> News {
    News::State { members: members.to_vec(), position: position.clone() }
}

/// A stream id that is none of the session's own: frames name only the stream, not the channel. Never zero, so that
/// clients may use that for none.
pub(super) fn new_stream_id(presence: &Presence) -> StreamId {
    loop {
        let stream = StreamId(random::number());
        if stream.0 != 0 && presence.state().places.values().all(|place| !place.has(stream)) {
            return stream;
        }
    }
}
