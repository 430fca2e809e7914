//! Sessions that move between nodes by Resume: the new node takes them into its rooms, the old one lets go of them.
//!
//! The others see neither a leave nor a join, and the journal has no entry of it. The old node goes on for a moment with
//! the session's datagrams, so that nothing is lost until the client has bound the new UDP session.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{
    gateway::{LeaveReason, Position, ResumedChannel, ResumedText},
    ids::{ChannelId, StreamId},
};

use super::{
    Rooms,
    join::Entrance,
    presence::{Place as LocalPlace, Presence},
    room::{Room, Switches, Turn},
};
use crate::{
    cluster::{Leave, Member, Moves, Place, Snapshot, Unavailable},
    media::webrtc::PeerCommand,
    store::{Channel, StoreError},
    telemetry::metrics::{Move, metrics},
};

/// How often a place is tried for that cannot be taken up because what all nodes share does not answer: each time takes
/// as long as that is waited for.
const TRIES_MAX: usize = 4;

/// What the database says of a place.
struct Terms {
    channel: Known,
    priority: bool,
}

/// A channel's settings.
enum Known {
    As(Channel),
    Gone,
    /// They could not be read.
    Unknown,
}

impl From<Result<Option<Channel>, StoreError>> for Known {
    fn from(read: Result<Option<Channel>, StoreError>) -> Self {
        match read {
            Ok(Some(channel)) => Self::As(channel),
            Ok(None) => Self::Gone,
            Err(_) => Self::Unknown,
        }
    }
}

impl Rooms {
    /// Where a session is, for the node that may go on with it.
    #[must_use]
    pub fn places(&self, presence: &Presence) -> Vec<Place> {
        let places: Vec<LocalPlace> = presence.state().places.values().cloned().collect();
        let place = |place: LocalPlace| {
            let live = place.room.live();
            let member = live.members.get(&place.stream)?;
            Some(Place {
                channel: place.room.id,
                stream: place.stream,
                media: member.media,
                cipher: member.udp.as_ref().map(|udp| udp.cipher),
                channels: member.channels,
                mode: member.mode(),
            })
        };
        places.into_iter().filter_map(place).collect()
    }

    /// Takes a session that was another node's into the rooms here: with the same streams, new keys and a new UDP
    /// session. Yields each channel as it is now, as [`Rooms::resume`] does; those that it was removed from meanwhile
    /// are not among them. `moves` says how often the session had moved when it moved here.
    ///
    /// # Errors
    /// When a place can neither be taken up nor is known to be lost. Whatever was taken up must be let go of then, with
    /// [`Rooms::disown`].
    pub async fn adopt(
        &self,
        presence: &Arc<Presence>,
        (places, texts): (&[Place], &[ChannelId]),
        moves: Moves,
        positions: &HashMap<ChannelId, Position>,
    ) -> Result<(Vec<ResumedChannel>, Vec<ResumedText>), Unavailable> {
        let _turn = presence.turn.lock().await;
        metrics().rooms.moves.of(Move::In).increment(1);
        let mut channels = Vec::with_capacity(places.len());
        for place in places {
            // It may have moved on meanwhile.
            if presence.state().ended {
                return Err(Unavailable);
            }
            let adopted = self.adopt_place(presence, place, moves, positions.get(&place.channel)).await?;
            if adopted.is_none() {
                presence.state().forget_entry(place.channel);
            }
            channels.extend(adopted);
        }
        channels.sort_unstable_by_key(|channel| channel.joined.channel_id);
        Ok((channels, self.adopt_texts(presence, texts, positions).await?))
    }

    async fn adopt_place(
        &self,
        presence: &Arc<Presence>,
        place: &Place,
        moves: Moves,
        since: Option<&Position>,
    ) -> Result<Option<ResumedChannel>, Unavailable> {
        let terms = self.terms(presence, place.channel).await;
        if let Some(since) = since {
            // A node of the release before does not say since when it is there; its client does.
            presence.state().note_entry(place.channel, since.clone());
        }
        let (room, mut turn) = self.turn_of_new(place.channel).await;
        let adopted = self.adopt_into(presence, &room, &mut turn, (place, moves), terms).await;
        let resumed = match adopted {
            Ok(true) => {
                let missed = self.missed_by(presence, &room, since).await;
                let link = presence.state().link.clone();
                Ok(self.resumed_channel(&room, place.stream, &link, since.zip(Some(missed))))
            }
            Ok(false) => Ok(None),
            Err(Unavailable) => Err(Unavailable),
        };
        self.close_if_empty(&room, &mut turn).await;
        resumed
    }

    /// Within the room's turn; false when the session is no longer in the channel.
    async fn adopt_into(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        turn: &mut Turn,
        (place, moves): (&Place, Moves),
        terms: Terms,
    ) -> Result<bool, Unavailable> {
        let known = match terms.channel {
            Known::Unknown => room.live().channel.clone().map_or(Known::Unknown, Known::As),
            known => known,
        };
        if matches!(known, Known::Unknown) {
            return Err(Unavailable);
        }
        let Some(member) = self.claim_place(presence, room, turn, (place, moves)).await? else { return Ok(false) };
        let Known::As(channel) = known else {
            // Nobody stays in a channel that is no more.
            self.leave_behind(presence, room).await;
            return Ok(false);
        };
        self.adopt_member(presence, room, turn, place, member, (channel, terms.priority)).await;
        Ok(true)
    }

    async fn terms(&self, presence: &Presence, channel: ChannelId) -> Terms {
        let store = &self.inner.store;
        let membership = store.membership(channel, presence.user.id).await;
        let priority = membership.ok().flatten().is_some_and(|membership| membership.priority);
        Terms { channel: store.channel(channel).await.into(), priority }
    }

    /// Makes the session's member this node's and brings the room up to that. `None` when there is no such member.
    async fn claim_place(
        &self,
        presence: &Presence,
        room: &Arc<Room>,
        turn: &mut Turn,
        (place, moves): (&Place, Moves),
    ) -> Result<Option<Member>, Unavailable> {
        let membership = &self.inner.membership;
        if *turn == Turn::New {
            membership.watch(room.id).await?;
        }
        let Some(snapshot) = self.ask_for_place(presence, room, moves).await? else { return Ok(None) };
        if !room.is_alone() {
            self.take_snapshot(room, snapshot).await;
        }
        let live = &mut *room.live_mut();
        let listed = live.roster.get_mut(place.stream).filter(|listed| listed.member.session == presence.id);
        Ok(listed.map(|listed| {
            listed.member.node = membership.node();
            listed.member.clone()
        }))
    }

    /// Asks again where there was no answer: the session is this node's already, so nobody else does.
    async fn ask_for_place(
        &self,
        presence: &Presence,
        room: &Room,
        moves: Moves,
    ) -> Result<Option<Snapshot>, Unavailable> {
        let known = room.applied();
        let mut adopted = Err(Unavailable);
        for _ in 0..TRIES_MAX {
            let (user, session) = (presence.user.id, presence.id);
            adopted = self.inner.membership.adopt(room.id, user, session, moves, known.as_ref()).await;
            if adopted.is_ok() {
                break;
            }
        }
        adopted
    }

    async fn adopt_member(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        turn: &mut Turn,
        place: &Place,
        member: Member,
        (settings, priority): (Channel, bool),
    ) {
        // The session may have been here a moment ago.
        self.drop_stream(room, place.stream).await;
        self.open(room, turn, settings).await;
        let (muted, deafened, server_muted) = member.switches();
        let switches = Switches { muted, deafened, server_muted, priority };
        let mix = self.seat_to_take_over(presence, place.mode).map(|seat| self.mix_place(presence, room, seat));
        let entrance = Entrance { media: place.media, cipher: place.cipher, channels: place.channels, mix };
        let udp = self.add_to_media(presence, room, place.stream, switches, &entrance).await;
        self.settle_in(presence, room, place.stream, switches, udp, entrance);
    }

    /// Lets go of a session that another node has taken up: at once of what it may do, and of its voice when its client
    /// has had the time to change over. It leaves places that are not among those `recorded`: the other node does not
    /// know of them.
    pub async fn disown(&self, presence: &Arc<Presence>, recorded: &[Place]) {
        // At once, so that nothing more is begun for it.
        presence.state().ended = true;
        let _turn = presence.turn.lock().await;
        metrics().rooms.moves.of(Move::Out).increment(1);
        let places: Vec<LocalPlace> = presence.state().places.values().cloned().collect();
        let is_recorded = |place: &LocalPlace| {
            recorded.iter().any(|known| (known.channel, known.stream) == (place.room.id, place.stream))
        };
        let (places, unknown): (Vec<LocalPlace>, Vec<LocalPlace>) = places.into_iter().partition(is_recorded);
        for place in &unknown {
            self.leave_place(presence, place, LeaveReason::Left, None).await;
        }
        self.unattend_all(presence).await;
        self.depart(presence, &places).await;
        let (rooms, presence) = (self.clone(), Arc::clone(presence));
        tokio::spawn(async move {
            tokio::time::sleep(rooms.inner.config.old_udp_grace).await;
            let mut left_over = Vec::new();
            for place in places {
                if rooms.is_taken_up(&presence, &place).await {
                    rooms.let_go(&presence, &place, false).await;
                } else {
                    left_over.push(place);
                }
            }
            // Its client may still try for as long as any lost session waits.
            tokio::time::sleep(rooms.inner.config.resume_grace).await;
            for place in left_over {
                rooms.let_go(&presence, &place, true).await;
            }
        });
    }

    /// Has figures leave out what is left here of a disowned session, and whatever the other node tells of it go before.
    async fn depart(&self, presence: &Arc<Presence>, places: &[LocalPlace]) {
        for place in places {
            let (channel, stream) = (place.room.id, place.stream);
            let is_left = place.room.live_mut().members.get_mut(&stream).is_some_and(|member| {
                member.departing |= Arc::ptr_eq(&member.presence, presence);
                member.departing
            });
            if is_left && place.is_meeting {
                self.inner.media.send_to_peers(place.room.home, PeerCommand::Depart { channel, stream }).await;
            }
        }
    }

    /// Whether another node has a disowned session's place, or nobody has it any more. False where that cannot be said.
    async fn is_taken_up(&self, presence: &Presence, place: &LocalPlace) -> bool {
        let membership = &self.inner.membership;
        let Ok(snapshot) = membership.snapshot(place.room.id, None).await else { return false };
        let members = snapshot.into_iter().flat_map(|snapshot| snapshot.members);
        let is_ours = |member: Member| member.session == presence.id && member.node == membership.node();
        !members.into_iter().any(is_ours)
    }

    /// Ends what is left here of a disowned session, and with `leaves` also its place, should it still be this node's.
    async fn let_go(&self, presence: &Arc<Presence>, place: &LocalPlace, leaves: bool) {
        let room = &place.room;
        let mut turn = room.turn.lock().await;
        let is_here =
            room.live().members.get(&place.stream).is_some_and(|member| Arc::ptr_eq(&member.presence, presence));
        if is_here {
            self.drop_stream(room, place.stream).await;
            if leaves {
                self.leave_behind(presence, room).await;
            }
            self.close_if_empty(room, &mut turn).await;
        }
    }

    /// Leaves a place that nobody has: it would stay taken for ever. One that is another node's by now stays as it is.
    async fn leave_behind(&self, presence: &Presence, room: &Arc<Room>) {
        let leave = Leave::own(presence.user.id, Some(presence.id), LeaveReason::Timeout);
        let known = room.applied();
        match self.inner.membership.leave(room.id, &leave, known.as_ref()).await {
            Ok(Some(left)) => self.take_change(room, left.news).await,
            Ok(None) => {}
            Err(Unavailable) => {
                self.inner.left_alone.insert(room.id);
            }
        }
    }

    /// Ends what this node does for a member who stays in the channel. That is no leave, so no key changes.
    pub(super) async fn drop_stream(&self, room: &Arc<Room>, stream: StreamId) {
        let member = self.take_out(room, stream, None).await;
        if let Some(udp) = member.and_then(|member| member.udp) {
            self.shrink_group(room, udp.cipher);
        }
    }
}
