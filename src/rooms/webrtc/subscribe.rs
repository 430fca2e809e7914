//! Subscribing: whom a member hears and sees, and how that follows what others publish.

use std::{
    collections::{HashMap, HashSet},
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
};

/// Publishers that one may choose by name.
const CHOSEN_MAX: usize = 1_000;
/// Answers that are read to each offer: reading a long one takes a while, and a client has no use for more than to try again.
pub(super) const ANSWERS_PER_OFFER: u8 = 3;

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

/// Counts an answer against the offer that it is to.
fn take_answer(live: &mut Live, stream: StreamId) -> Result<(), AppError> {
    let member = live.members.get_mut(&stream).filter(|member| member.answers_left > 0);
    member
        .ok_or(PeerError::OutOfTurn(
            "there is no offer to answer, or three answers to it were read: subscribe with ice_restart for another",
        ))?
        .answers_left -= 1;
    Ok(())
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
    /// When there was none, or the answer cannot be used.
    pub async fn subscribe_answer(&self, presence: &Presence, request: SubscribeAnswerPayload) -> Result<(), AppError> {
        let place = self.meeting_place(presence)?;
        take_answer(&mut place.room.live_mut(), place.stream)?;
        let answer = description::answer(&request.sdp)?;
        let key = key_of(&place, PeerRole::Subscriber);
        self.ask(&place, |reply| PeerCommand::Answer { key, answer, reply }).await
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
