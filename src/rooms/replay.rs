//! What a session may be told again of a channel's journal. Messages are in it, and it reaches back to before many came: who
//! may not read what was written before they came must not get it by asking for what they missed.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{
    gateway::{Position, UserView},
    ids::ChannelId,
    permission::{Action, Decision, decide},
};

use super::{
    Rooms,
    alone::is_local,
    presence::{Presence, PresenceState},
    resume::Missed,
    room::Room,
};
use crate::{error::AppError, store::StoreError};

/// From which place on a session gets what happens, in each channel that it is in.
pub(super) type Entries = HashMap<ChannelId, Position>;

impl Rooms {
    /// Every event after `since` that a session may be told again; `None` when that cannot be said.
    pub(super) async fn missed_by(&self, presence: &Presence, room: &Arc<Room>, since: Option<&Position>) -> Missed {
        let since = self.told_since(presence, room.id, since?).await?;
        self.missed(room, &since).await
    }

    /// From where on a session may be told again: from `since`, unless it came later, and what was written before is not for
    /// it. `None` when that cannot be said.
    async fn told_since(&self, presence: &Presence, channel: ChannelId, since: &Position) -> Option<Position> {
        let entry = presence.state().entries.get(&channel).cloned();
        let was_there = entry.as_ref().is_some_and(|entry| is_not_before(since, entry));
        if was_there || self.reads_history(&presence.user, channel).await.unwrap_or(false) {
            return Some(since.clone());
        }
        entry.filter(|entry| entry.epoch == since.epoch)
    }

    /// Whether somebody may read what was written in a channel before they came.
    async fn reads_history(&self, user: &UserView, channel: ChannelId) -> Result<bool, AppError> {
        let found = self.inner.store.channel(channel).await?.ok_or(StoreError::Missing)?;
        let history = self.inner.store.chat_terms(channel).await?.history;
        let (standing, _) = self.standing(channel, user).await?;
        Ok(decide(&standing, found.is_private, Action::ReadHistory(history)) == Decision::Allowed)
    }
}

/// Whether somebody who came at `entry` was there at `since`. Another journal than the one that they came by began later; but
/// that of a room alone, by which they came, ends, and the one of all nodes goes on from before.
fn is_not_before(since: &Position, entry: &Position) -> bool {
    if since.epoch == entry.epoch { since.offset >= entry.offset } else { !is_local(&entry.epoch) }
}

impl PresenceState {
    /// Notes from where on the session is in a channel, unless it is already.
    pub(super) fn note_entry(&mut self, channel: ChannelId, position: Position) {
        self.entries.entry(channel).or_insert(position);
    }

    /// Forgets that of a channel where the session neither reads nor speaks any more.
    pub(super) fn forget_entry(&mut self, channel: ChannelId) {
        if !self.texts.contains_key(&channel) && !self.places.contains_key(&channel) {
            self.entries.remove(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.to_owned(), offset }
    }

    #[test]
    fn who_came_later_was_not_there() {
        for (since, entry, was_there) in [
            (at("a", 7), at("a", 7), true),
            (at("a", 8), at("a", 7), true),
            (at("a", 6), at("a", 7), false),
            (at("b", 0), at("a", 7), true),
            (at("local-1", 0), at("a", 7), true),
            (at("a", 99), at("local-1", 7), false),
            (at("local-1", 6), at("local-1", 7), false),
        ] {
            assert_eq!(is_not_before(&since, &entry), was_there, "{since:?} {entry:?}");
        }
    }
}
