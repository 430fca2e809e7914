//! Sessions that move between nodes by Resume: the new node takes them into its rooms, the old one lets go of them.
//!
//! The others see neither a leave nor a join, and the journal has no entry of it. The old node goes on for a moment with
//! the session's datagrams, so that nothing is lost until the client has bound the new UDP session.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{
    gateway::{LeaveReason, Position, ResumedChannel},
    ids::{ChannelId, StreamId},
};

use super::{
    Rooms,
    join::Entrance,
    presence::{Place as LocalPlace, Presence},
    room::{Room, Switches, Turn},
};
use crate::{
    cluster::{Leave, Member, Place},
    store::Channel,
    telemetry::metrics::{Move, metrics},
};

/// What the database says of a place.
struct Terms {
    /// `None` when the channel is gone or cannot be read.
    channel: Option<Channel>,
    priority: bool,
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
            })
        };
        places.into_iter().filter_map(place).collect()
    }

    /// Takes a session that was another node's into the rooms here: with the same streams, new keys and a new UDP
    /// session. Yields each channel as it is now, as [`Rooms::resume`] does; those that it was removed from meanwhile
    /// are not among them.
    pub async fn adopt(
        &self,
        presence: &Arc<Presence>,
        places: &[Place],
        positions: &HashMap<ChannelId, Position>,
    ) -> Vec<ResumedChannel> {
        let _turn = presence.turn.lock().await;
        metrics().rooms.moves.of(Move::In).increment(1);
        let mut channels = Vec::with_capacity(places.len());
        for place in places {
            channels.extend(self.adopt_place(presence, place, positions.get(&place.channel)).await);
        }
        channels.sort_unstable_by_key(|channel| channel.joined.channel_id);
        channels
    }

    async fn adopt_place(
        &self,
        presence: &Arc<Presence>,
        place: &Place,
        since: Option<&Position>,
    ) -> Option<ResumedChannel> {
        let terms = self.terms(presence, place.channel).await;
        let (room, mut turn) = self.turn_of_new(place.channel).await;
        let adopted = match self.claim_place(presence, &room, &mut turn, place).await {
            Some(member) => self.adopt_member(presence, &room, &mut turn, place, member, terms).await,
            None => None,
        };
        let resumed = match adopted {
            Some(()) => {
                let missed = self.missed(&room, since).await;
                let link = presence.state().link.clone();
                self.resumed_channel(&room, place.stream, &link, since.zip(Some(missed)))
            }
            None => None,
        };
        self.close_if_empty(&room, &mut turn).await;
        resumed
    }

    async fn terms(&self, presence: &Presence, channel: ChannelId) -> Terms {
        let store = &self.inner.store;
        let membership = store.membership(channel, presence.user.id).await;
        let priority = membership.ok().flatten().is_some_and(|membership| membership.priority);
        Terms { channel: store.channel(channel).await.ok().flatten(), priority }
    }

    /// Makes the session's member this node's and brings the room up to that. `None` when there is no such member.
    async fn claim_place(
        &self,
        presence: &Presence,
        room: &Arc<Room>,
        turn: &mut Turn,
        place: &Place,
    ) -> Option<Member> {
        let membership = &self.inner.membership;
        if *turn == Turn::New {
            membership.watch(room.id).await.ok()?;
        }
        let known = room.applied();
        let snapshot = membership.adopt(room.id, presence.user.id, presence.id, known.as_ref()).await.ok()??;
        if !room.is_alone() {
            self.take_snapshot(room, snapshot).await;
        }
        let live = &mut *room.live_mut();
        let listed = live.roster.get_mut(place.stream).filter(|listed| listed.member.session == presence.id)?;
        listed.member.node = membership.node();
        Some(listed.member.clone())
    }

    async fn adopt_member(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        turn: &mut Turn,
        place: &Place,
        member: Member,
        Terms { channel, priority }: Terms,
    ) -> Option<()> {
        let settings = channel.or_else(|| room.live().channel.clone());
        let Some(settings) = settings else {
            // Nobody stays in a channel that they cannot be told of.
            let leave = Leave::own(presence.user.id, Some(presence.id), LeaveReason::Timeout);
            let _ = self.inner.membership.leave(room.id, &leave, None).await;
            return None;
        };
        // The session may have been here a moment ago.
        self.drop_stream(room, place.stream).await;
        self.open(room, turn, settings).await;
        let (muted, deafened, server_muted) = member.switches();
        let switches = Switches { muted, deafened, server_muted, priority };
        let entrance = Entrance { media: place.media, cipher: place.cipher, channels: place.channels };
        let udp = self.add_to_media(presence, room, place.stream, switches, &entrance).await;
        self.settle_in(presence, room, place.stream, switches, udp, &entrance);
        Some(())
    }

    /// Lets go of a session that another node has taken up: at once of what it may do, and of its voice when its client
    /// has had the time to change over. It leaves places that are not among those `recorded`: the other node does not
    /// know of them.
    pub async fn disown(&self, presence: &Arc<Presence>, recorded: &[Place]) {
        let _turn = presence.turn.lock().await;
        metrics().rooms.moves.of(Move::Out).increment(1);
        let places: Vec<LocalPlace> = {
            let mut state = presence.state();
            state.ended = true;
            state.places.values().cloned().collect()
        };
        let is_recorded = |place: &LocalPlace| {
            recorded.iter().any(|known| (known.channel, known.stream) == (place.room.id, place.stream))
        };
        let (places, unknown): (Vec<LocalPlace>, Vec<LocalPlace>) = places.into_iter().partition(is_recorded);
        for place in &unknown {
            self.leave_place(presence, place, LeaveReason::Left, None).await;
        }
        for place in &places {
            if let Some(member) = place.room.live_mut().members.get_mut(&place.stream) {
                member.departing |= Arc::ptr_eq(&member.presence, presence);
            }
        }
        let (rooms, presence) = (self.clone(), Arc::clone(presence));
        tokio::spawn(async move {
            tokio::time::sleep(rooms.inner.config.old_udp_grace).await;
            for place in places {
                rooms.let_go(&presence, &place).await;
            }
        });
    }

    async fn let_go(&self, presence: &Arc<Presence>, place: &LocalPlace) {
        let room = &place.room;
        let mut turn = room.turn.lock().await;
        let is_here =
            room.live().members.get(&place.stream).is_some_and(|member| Arc::ptr_eq(&member.presence, presence));
        if is_here {
            self.drop_stream(room, place.stream).await;
            self.close_if_empty(room, &mut turn).await;
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
