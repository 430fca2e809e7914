//! Meeting by WebRTC: what members publish, whom each hears and sees, and the descriptions that go to and fro.
//!
//! A member with `media: webrtc` has two connections at most, one each way, in the media worker of their channel. What
//! somebody publishes is known by the worker, which tells it here (`Publishes`); from that and the roster comes what each
//! subscriber wishes for, which the worker turns into offers. Voice of native members is a wish like any other.

mod description;
mod host_names;
mod ice;
mod places;
mod publish;
mod subscribe;

use std::sync::Arc;

use antiphon_core::{
    gateway::{
        ErrorCode, JoinedRoomPayload, LeaveReason, MediaTransport, PeerRole, PublishKind, PublisherJoined,
        PublisherJoinedPayload, PublisherLeft, PublisherLeftPayload, PublisherView, RoomView, SubscribeOffer,
        SubscribeOfferPayload, SubscribedTrack,
    },
    ids::{StreamId, UserId},
};
use tokio::sync::mpsc;

use super::{
    Rooms,
    outlet::Shared,
    presence::{Place, Presence},
    room::{Live, Room},
};
use crate::{
    cluster::Member,
    error::AppError,
    media::webrtc::{OfferedTrack, PeerError, PeerEvent, PeerKey},
};

pub(super) use description::OFFER_LINES_MAX;
pub(super) use host_names::HostNames;
pub use ice::IceConfig;
pub(super) use subscribe::Subscription;

impl From<PeerError> for AppError {
    fn from(error: PeerError) -> Self {
        let code = match &error {
            PeerError::Sdp(_) | PeerError::OutOfTurn(_) => ErrorCode::InvalidInput,
            PeerError::TooMany(_) => ErrorCode::LimitReached,
            PeerError::Stopping => ErrorCode::TemporarilyUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl Rooms {
    /// Acts on what the media workers' peers tell, in order, until the workers have stopped.
    pub(super) async fn follow_peers(self, mut events: mpsc::Receiver<PeerEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                PeerEvent::Offer { key, sdp, tracks } => self.offered(key, sdp, &tracks),
                PeerEvent::Publishes { channel, stream, kinds } => {
                    if let Some((room, _turn)) = self.turn_of(channel).await {
                        self.publishes(&room, stream, kinds).await;
                    }
                }
                PeerEvent::Connected { key } => tracing::debug!(role = ?key.role, "a WebRTC connection stands"),
                PeerEvent::Gone { key } => self.peer_gone(key),
                PeerEvent::Heard { key, block } => self.peer_reported(key, &block),
            }
        }
    }

    /// A connection has ended by itself. Who has no other to the server has left with it; a subscriber is in the room as
    /// before, and may subscribe anew.
    fn peer_gone(&self, key: PeerKey) {
        tracing::debug!(role = ?key.role, "a WebRTC connection ended");
        let Some(room) = self.room(key.channel) else { return };
        let mut live = room.live_mut();
        let Some(member) = live.members.get_mut(&key.stream) else { return };
        if key.role == PeerRole::Subscriber {
            member.subscription = None;
        }
        if member.presence.is_standalone {
            let (rooms, presence) = (self.clone(), Arc::clone(&member.presence));
            tokio::spawn(async move { rooms.end(&presence, LeaveReason::Timeout).await });
        }
    }

    /// A worker offers a subscriber what they may hear and see.
    fn offered(&self, key: PeerKey, sdp: String, tracks: &[OfferedTrack]) {
        let Some(room) = self.room(key.channel) else { return };
        let live = &mut *room.live_mut();
        let Some(member) = live.members.get_mut(&key.stream) else { return };
        member.is_offered = true;
        let track = |offered: &OfferedTrack| {
            let publisher_id = live.roster.get(offered.stream)?.member.user.id;
            Some(SubscribedTrack { mid: offered.mid.clone(), publisher_id, kind: offered.kind })
        };
        let tracks = tracks.iter().filter_map(track).collect();
        member.outlet.send(&Shared::new(SubscribeOffer::from(SubscribeOfferPayload { sdp, tracks })));
    }

    /// Somebody publishes something else than before, here or on another node.
    async fn publishes(&self, room: &Arc<Room>, stream: StreamId, kinds: Vec<PublishKind>) {
        let has_any = !kinds.is_empty();
        {
            let live = &mut *room.live_mut();
            if kinds.is_empty() {
                live.publishes.remove(&stream)
            } else {
                live.publishes.insert(stream, kinds)
            };
        }
        self.follow_place(room, stream, has_any).await;
        self.tell_publisher(room, stream);
        self.refresh_subscriptions(room).await;
    }

    /// Somebody came: whoever meets by WebRTC hears of a publisher.
    pub(super) async fn publisher_came(&self, room: &Arc<Room>, stream: StreamId) {
        self.tell_publisher(room, stream);
        self.refresh_subscriptions(room).await;
    }

    fn tell_publisher(&self, room: &Room, stream: StreamId) {
        let message = {
            let live = room.live();
            let Some(listed) = live.roster.get(stream) else { return };
            let publisher = publisher_view(&live, &listed.member);
            Shared::new(PublisherJoined::from(PublisherJoinedPayload { publisher }))
        };
        tell_meeting(room, &message, Some(stream));
    }

    /// Somebody went.
    pub(super) async fn publisher_went(&self, room: &Arc<Room>, user: UserId, stream: StreamId) {
        room.live_mut().publishes.remove(&stream);
        let message = Shared::new(PublisherLeft::from(PublisherLeftPayload { publisher_id: user }));
        tell_meeting(room, &message, Some(stream));
        self.refresh_subscriptions(room).await;
    }

    /// What somebody who enters a room is told.
    pub(super) async fn joined_room(&self, room: &Room, presence: &Presence) -> JoinedRoomPayload {
        let view = self.room_view(room).await;
        let live = room.live();
        let others = live.roster.members().filter(|member| member.user.id != presence.user.id);
        let mut publishers: Vec<PublisherView> = others.map(|member| publisher_view(&live, member)).collect();
        publishers.sort_unstable_by_key(|publisher| publisher.id);
        JoinedRoomPayload {
            room: view,
            participant_id: presence.user.id,
            publishers,
            ice_servers: self.ice_servers(presence.user.id),
            recording: live.recording.clone(),
        }
    }

    async fn room_view(&self, room: &Room) -> RoomView {
        // Where the database is away, the room is shown as a channel that stays.
        let terms = self.inner.store.room_terms(room.id).await.ok().flatten();
        let live = room.live();
        let channel = live.channel.as_ref().expect("set with the first member, before anybody is told of the room");
        channel.room_view(terms, u32::try_from(live.roster.len()).unwrap_or(u32::MAX))
    }

    /// The place that a session meets in by WebRTC.
    pub(super) fn meeting_place(&self, presence: &Presence) -> Result<Place, AppError> {
        let state = presence.state();
        state
            .places
            .values()
            .find(|place| place.is_meeting)
            .cloned()
            .ok_or_else(|| AppError::new(ErrorCode::InvalidInput, "this session is in no room: send join_room first"))
    }
}

/// Tells all members here who meet by WebRTC, but `except`.
fn tell_meeting(room: &Room, message: &Shared, except: Option<StreamId>) {
    for (stream, member) in &room.live().members {
        if member.media == MediaTransport::Webrtc && Some(*stream) != except {
            member.outlet.send(message);
        }
    }
}

/// What a member publishes: native ones their voice.
fn kinds_of(live: &Live, member: &Member) -> Vec<PublishKind> {
    match member.media {
        MediaTransport::Webrtc => live.publishes.get(&member.stream).cloned().unwrap_or_default(),
        MediaTransport::Udp | MediaTransport::Websocket => vec![PublishKind::Audio],
    }
}

fn publisher_view(live: &Live, member: &Member) -> PublisherView {
    PublisherView {
        id: member.user.id,
        user_id: member.user.id,
        display: member.user.display_name.clone(),
        kinds: kinds_of(live, member),
        media: member.media,
    }
}
