//! Subscribing: whom a member hears and sees, and how that follows what others publish.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
};

use antiphon_core::{
    gateway::{ErrorCode, PeerRole, PublishKind, SubscribeAnswerPayload, SubscribePayload, VideoQuality},
    ids::{ChannelId, StreamId, UserId},
};
use str0m::change::SdpOffer;

use super::{
    super::{
        Rooms,
        presence::Presence,
        room::{Live, Room},
    },
    description, kinds_of,
    publish::key_of,
};
use crate::{
    error::AppError,
    media::webrtc::{Described, PeerCommand, PeerError, PeerKey, Wish},
    telemetry::metrics::metrics,
};

/// Publishers that one may choose by name.
const CHOSEN_MAX: usize = 1_000;

/// So long is a line of a browser's answer in the mean.
const LINE_BYTES: usize = 30;

/// What a member asked to hear and see, and what their worker was told of it.
#[derive(Debug, Default)]
pub(in crate::rooms) struct Subscription {
    /// All, now and later, when `None`.
    publishers: Option<HashSet<UserId>>,
    quality: HashMap<UserId, VideoQuality>,
    told: Vec<Wish>,
}

impl Subscription {
    fn new(request: SubscribePayload) -> Result<Self, AppError> {
        let chosen = request.publishers.as_ref().map_or(0, Vec::len).max(request.quality.len());
        if chosen > CHOSEN_MAX {
            let message = format!("{chosen} publishers: at most {CHOSEN_MAX} may be named");
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        Ok(Self {
            publishers: request.publishers.map(|publishers| publishers.into_iter().collect()),
            quality: request.quality.into_iter().map(|of| (of.publisher_id, of.video)).collect(),
            told: Vec::new(),
        })
    }

    /// What it comes to as things are now.
    fn wishes(&self, live: &Live, own: StreamId) -> Vec<Wish> {
        let is_chosen = |user: UserId| self.publishers.as_ref().is_none_or(|chosen| chosen.contains(&user));
        let others = live.roster.members().filter(|member| member.stream != own && is_chosen(member.user.id));
        let mut wishes: Vec<Wish> = others
            .flat_map(|member| {
                let quality = self.quality.get(&member.user.id).copied().unwrap_or_default();
                let kinds = kinds_of(live, member).into_iter();
                let shown = kinds.filter(move |kind| *kind == PublishKind::Audio || quality != VideoQuality::Off);
                shown.map(move |kind| Wish { stream: member.stream, kind, quality })
            })
            .collect();
        wishes.sort_unstable_by_key(|wish| (wish.kind, wish.stream));
        wishes
    }
}

/// Lines of a description; what is longer than lines are in the mean counts for several.
fn count_of_lines(sdp: &str) -> NonZeroU32 {
    let lines = sdp.lines().count().max(sdp.len() / LINE_BYTES);
    u32::try_from(lines).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

impl Rooms {
    /// Takes what a member wants to hear and see; offers follow (`subscribe_offer`), now and when others come and go.
    ///
    /// # Errors
    /// When the session is in no room, or the node has no place for one more connection, and `RATE_LIMITED` for one restart too many.
    pub async fn subscribe(&self, presence: &Presence, request: SubscribePayload) -> Result<(), AppError> {
        let place = self.meeting_place(presence)?;
        let restart = request.ice_restart;
        if restart {
            // Another offer each time, whatever became of those before.
            self.count_offer(presence.user.id)?;
        }
        let mut subscription = Subscription::new(request)?;
        let _turn = place.room.turn.lock().await;
        let link = presence.state().link.clone();
        let ways = self.ways(&link).await;
        let (wishes, restart) = {
            let live = &mut *place.room.live_mut();
            let wishes = subscription.wishes(live, place.stream);
            subscription.told.clone_from(&wishes);
            let Some(member) = live.members.get_mut(&place.stream) else {
                return Err(super::super::admit::not_joined());
            };
            let is_first = member.subscription.is_none();
            member.subscription = Some(subscription);
            (wishes, restart && !is_first)
        };
        let key = key_of(&place, PeerRole::Subscriber);
        let subscribed = self.ask(&place, |reply| PeerCommand::Subscribe { key, ways, wishes, restart, reply }).await;
        if subscribed.is_err()
            && let Some(member) = place.room.live_mut().members.get_mut(&place.stream)
        {
            member.subscription = None;
        }
        subscribed
    }

    /// Takes the answer to an offer.
    ///
    /// # Errors
    /// When there was none, or the answer cannot be used, and `RATE_LIMITED` for more of them than an account may have read.
    pub async fn subscribe_answer(&self, presence: &Presence, request: SubscribeAnswerPayload) -> Result<(), AppError> {
        let place = self.meeting_place(presence)?;
        if !place.room.live().members.get(&place.stream).is_some_and(|member| member.is_offered) {
            return Err(PeerError::OutOfTurn("there is no offer to answer").into());
        }
        self.count_answer(presence.user_id(), &request.sdp)?;
        let answer = description::answer(&request.sdp)?;
        let set_offered = |is_offered: bool| {
            if let Some(member) = place.room.live_mut().members.get_mut(&place.stream) {
                member.is_offered = is_offered;
            }
        };
        // Before the worker takes it, which may offer anew at once.
        set_offered(false);
        let key = key_of(&place, PeerRole::Subscriber);
        let taken = self.ask(&place, |reply| PeerCommand::Answer { key, answer, reply }).await;
        if taken.as_ref().is_err_and(|error| error.code == ErrorCode::TemporarilyUnavailable) {
            set_offered(true);
        }
        taken
    }

    /// Counts an answer of an account by its length, before it is read: what reading takes goes by that, and answers are as many as others
    /// come and go.
    fn count_answer(&self, user: UserId, sdp: &str) -> Result<(), AppError> {
        let Some(rates) = &self.inner.answered_lines else { return Ok(()) };
        let counted = rates.check_all(&user, count_of_lines(sdp), "lines of answers to WebRTC offers of this account");
        counted.inspect_err(|_| metrics().webrtc.answers_refused.increment(1))
    }

    /// Takes an offer to hear and see a channel by, and yields the answer.
    ///
    /// # Errors
    /// When the session is not in the channel, or the offer cannot be used.
    pub async fn play_in(
        &self,
        presence: &Presence,
        channel: ChannelId,
        offer: Described<SdpOffer>,
    ) -> Result<String, AppError> {
        let place = presence.place(channel).ok_or_else(super::super::admit::not_joined)?;
        let key = key_of(&place, PeerRole::Subscriber);
        let link = presence.state().link.clone();
        let ways = self.ways(&link).await;
        self.ask(&place, |reply| PeerCommand::Play { key, ways, offer, reply }).await
    }

    /// Tells the worker what subscribers here wish for, where that has changed. Within the room's turn.
    pub(super) async fn refresh_subscriptions(&self, room: &Arc<Room>) {
        let changed: Vec<(StreamId, Vec<Wish>)> = {
            let live = &mut *room.live_mut();
            let mut changed = Vec::new();
            for (stream, member) in &live.members {
                let Some(subscription) = &member.subscription else { continue };
                let wishes = subscription.wishes(live, *stream);
                if wishes != subscription.told {
                    changed.push((*stream, wishes));
                }
            }
            for (stream, wishes) in &changed {
                if let Some(subscription) = live.members.get_mut(stream).and_then(|member| member.subscription.as_mut())
                {
                    subscription.told.clone_from(wishes);
                }
            }
            changed
        };
        for (stream, wishes) in changed {
            let key = PeerKey { channel: room.id, stream, role: PeerRole::Subscriber };
            self.inner.media.send_to_peers(room.home, PeerCommand::Wish { key, wishes }).await;
        }
    }
}
