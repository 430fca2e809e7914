//! Publishing: a client's offers and candidates.

use std::time::Duration;

use antiphon_core::{
    gateway::{
        ErrorCode, PeerRole, PublishAnswer, PublishAnswerPayload, PublishKind, PublishOfferPayload, RequestId,
        TrickleIcePayload,
    },
    ids::{ChannelId, StreamId, UserId},
};
use str0m::change::SdpOffer;
use tokio::sync::oneshot;

use super::super::{
    Rooms,
    outlet::Shared,
    presence::{Place, Presence},
};
use super::description;
use crate::{
    error::AppError,
    media::webrtc::{Described, PeerCommand, PeerError, PeerKey, Reply},
    telemetry::metrics::metrics,
};

/// A worker answers within a turn or a few.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// When to come again to one that did not.
const BUSY_S: u64 = 5;

impl Rooms {
    /// Takes an offer to publish and answers it (`publish_answer`).
    ///
    /// # Errors
    /// When the session is in no room, its account makes too many offers, this one cannot be used, or as many publish as may.
    pub async fn publish(
        &self,
        presence: &Presence,
        request: PublishOfferPayload,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let place = self.meeting_place(presence)?;
        self.count_offer(presence.user_id())?;
        let offer = description::offer_to_publish(&request.sdp)?;
        let sdp = self.publish_at(presence, &place, offer, request.kind).await?;
        let answer = PublishAnswer::from(PublishAnswerPayload { sdp });
        presence.state().link.outlet.send(&Shared::answer(answer, request_id));
        Ok(())
    }

    /// Counts an offer of an account, before it is read.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next one is taken.
    pub fn count_offer(&self, user: UserId) -> Result<(), AppError> {
        let Some(offers) = &self.inner.offers else { return Ok(()) };
        let counted = offers.check(&user, "WebRTC offers of this account");
        counted.inspect_err(|_| metrics().webrtc.offers_refused.increment(1))
    }

    /// Reads an offer, once [it is counted](Self::count_offer).
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn read_offer(sdp: &str, role: PeerRole) -> Result<Described<SdpOffer>, AppError> {
        match role {
            PeerRole::Publisher => description::offer_to_publish(sdp),
            PeerRole::Subscriber => description::offer_to_play(sdp),
        }
    }

    /// Takes an offer to publish in a channel and yields the answer.
    ///
    /// # Errors
    /// As [`Rooms::publish`].
    pub async fn publish_in(
        &self,
        presence: &Presence,
        channel: ChannelId,
        offer: Described<SdpOffer>,
    ) -> Result<String, AppError> {
        let place = presence.place(channel).ok_or_else(super::super::admit::not_joined)?;
        self.publish_at(presence, &place, offer, PublishKind::Video).await
    }

    async fn publish_at(
        &self,
        presence: &Presence,
        place: &Place,
        offer: Described<SdpOffer>,
        kind: PublishKind,
    ) -> Result<String, AppError> {
        self.take_publishing_place(presence, place).await?;
        let key = key_of(place, PeerRole::Publisher);
        let link = presence.state().link.clone();
        let ways = self.ways(&link).await;
        let answer = self.ask(place, |reply| PeerCommand::Publish { key, ways, offer, kind, reply }).await;
        if answer.is_err() {
            self.return_place(place).await;
        }
        answer
    }

    /// Takes one more way to a client.
    ///
    /// # Errors
    /// When the session is in no room, has no such connection, or the candidate cannot be used.
    pub async fn trickle(&self, presence: &Presence, request: TrickleIcePayload) -> Result<(), AppError> {
        let place = self.meeting_place(presence)?;
        self.trickle_at(&place, request.target, &[&request.candidate.candidate]).await
    }

    /// Takes more ways to a client in a channel: none of them where one cannot be read, or they are too many.
    ///
    /// # Errors
    /// As [`Rooms::trickle`].
    pub async fn trickle_in(
        &self,
        presence: &Presence,
        channel: ChannelId,
        role: PeerRole,
        candidates: &[&str],
    ) -> Result<(), AppError> {
        let place = presence.place(channel).ok_or_else(super::super::admit::not_joined)?;
        self.trickle_at(&place, role, candidates).await
    }

    async fn trickle_at(&self, place: &Place, role: PeerRole, candidates: &[&str]) -> Result<(), AppError> {
        let (key, candidates) = (key_of(place, role), description::candidates(candidates)?);
        self.ask(place, |reply| PeerCommand::Candidates { key, candidates, reply }).await
    }

    /// Asks the worker of a place and waits for the answer.
    pub(super) async fn ask<T>(
        &self,
        place: &Place,
        command: impl FnOnce(Reply<T>) -> PeerCommand,
    ) -> Result<T, AppError> {
        let (reply, answer) = oneshot::channel();
        self.inner.media.send_to_peers(place.room.home, command(reply)).await;
        match tokio::time::timeout(ANSWER_PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(PeerError::Stopping.into()),
            Err(_) => {
                let message = "this node is too busy with WebRTC connections to answer now: try again in some seconds";
                Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, BUSY_S))
            }
        }
    }
}

pub(super) fn key_of(place: &Place, role: PeerRole) -> PeerKey {
    key_of_stream(place.room.id, place.stream, role)
}

pub(super) const fn key_of_stream(channel: ChannelId, stream: StreamId, role: PeerRole) -> PeerKey {
    PeerKey { channel, stream, role }
}
