//! Taking a session up again through another connection, and catching up after a gap.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{
    engine::Command,
    gateway::{Position, Recovered, RequestId, ResumedChannel, ServerMessage},
    ids::ChannelId,
};

use super::{
    Rooms,
    admit::not_joined,
    outlet::{Shared, event_value},
    presence::{Link, Place, Presence},
    setup::member_views,
    udp::UdpSession,
};
use crate::{cluster::Snapshot, error::AppError};

impl Rooms {
    /// Turns a session to another connection, with a new UDP session where it has one. Yields each channel as it is
    /// now, with what was missed since the `positions` given; what happens there later is sent to the new connection.
    /// The others see neither a leave nor a join. `None` when the session is over.
    pub async fn resume(
        &self,
        presence: &Arc<Presence>,
        link: &Link,
        positions: &HashMap<ChannelId, Position>,
    ) -> Option<Vec<ResumedChannel>> {
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
            channels.extend(self.resume_place(&place, link, replaced.as_ref(), since).await);
        }
        if let Some((old, new)) = replaced {
            self.retire_udp_session(old, new);
        }
        Some(channels)
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
        place: &Place,
        link: &Link,
        replaced: Option<&(Arc<UdpSession>, Arc<UdpSession>)>,
        since: Option<&Position>,
    ) -> Option<ResumedChannel> {
        let room = &place.room;
        let _turn = room.turn.lock().await;
        let udp = {
            let mut live = room.live_mut();
            let member = live.members.get_mut(&place.stream)?;
            member.outlet = Arc::clone(&link.outlet);
            if let (Some((_, new)), Some(_)) = (replaced, &member.udp) {
                member.udp = Some(Arc::clone(new));
            }
            member.udp.clone()
        };
        if let (Some(udp), Some(_)) = (&udp, replaced) {
            self.attach_stream(udp, room, place.stream).await;
            let take_over =
                Command::SetMemberUdp { channel: room.id, stream: place.stream, udp: Some(udp.as_member()) };
            self.inner.media.send(room.home, take_over).await;
        }
        let Snapshot { members, position, missed } = self.inner.membership.snapshot(room.id, since).await?;
        let (joined, next_key) = self.channel_joined(room, place.stream, udp.as_deref(), link, members, position);
        if let Some(next_key) = next_key {
            link.outlet.send(&Shared::new(next_key));
        }
        if let Some(udp) = &udp {
            // The lost connection's keys may have stayed behind with it.
            self.renew_key(room, udp.cipher).await;
        }
        let events = missed.map(|missed| event_values(&missed, link));
        Some(ResumedChannel { joined, recovered: since.map(|_| events.is_some()), events })
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
        let place = presence.place(channel).ok_or_else(not_joined)?;
        let _turn = place.room.turn.lock().await;
        let Snapshot { members, position, missed } =
            self.inner.membership.snapshot(channel, Some(since)).await.ok_or_else(not_joined)?;
        let link = presence.state().link.clone();
        let recovered = missed.is_some();
        let state = (!recovered).then(|| (member_views(Some(&place.room), members), position));
        let (members, position) = state.unzip();
        let events = missed.map(|missed| event_values(&missed, &link));
        let answer = Recovered { channel_id: channel, recovered, events, members, position };
        link.outlet.send(&Shared::answer(answer, request_id));
        Ok(())
    }
}

fn event_values(events: &[Arc<ServerMessage>], link: &Link) -> Vec<serde_json::Value> {
    let shape = link.outlet.shape();
    events.iter().map(|event| event_value(event, shape)).collect()
}
