//! A channel's journal for whoever is in none of its rooms: what happened, as members were told.

use std::sync::Arc;

use antiphon_core::{
    gateway::{Position, ServerMessage, Shape},
    ids::ChannelId,
};

use super::{Rooms, outlet::event_value};
use crate::{
    cluster::{Entry, Unavailable},
    error::AppError,
    store::Scope,
};

/// What happened after a place.
#[derive(Clone, Debug)]
pub struct EventsSince {
    /// Each with its place, in order; `None` when the journal does not reach back so far.
    pub events: Option<Vec<(Position, Arc<ServerMessage>)>>,
    /// The newest place.
    pub position: Position,
}

impl Rooms {
    /// The newest place in a channel's journal, which begins now if there is none.
    ///
    /// # Errors
    /// When the database or what all nodes share cannot be reached.
    pub async fn journal_position(&self, channel: ChannelId) -> Result<Position, AppError> {
        let newest = self.inner.store.newest(Scope::Room(channel)).await?;
        Ok(self.inner.membership.append(channel, newest, &[], None).await?.position)
    }

    /// What happened in a channel after `since`, as all nodes know it.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn events_since(&self, channel: ChannelId, since: &Position) -> Result<EventsSince, Unavailable> {
        let event = |entry: Entry| (entry.position, entry.event);
        match self.inner.membership.snapshot(channel, Some(since)).await? {
            Some(found) => {
                let events = found.missed.map(|missed| missed.into_iter().map(event).collect());
                Ok(EventsSince { events, position: found.position })
            }
            // A journal that was forgotten begins anew with the next event.
            None => Ok(EventsSince { events: Some(Vec::new()), position: since.clone() }),
        }
    }
}

/// An event as clients get it in JSON.
#[must_use]
pub fn event_json(event: &ServerMessage) -> serde_json::Value {
    event_value(event, Shape::Tagged)
}
