//! What is for single people: messages between two, who writes, what was read.
//!
//! Two people's messages come in the order of their numbers on every node: a node knows the newest that it has told a pair,
//! and reads from the database what lies between. A notice that gets lost is made up for by the next, or by the look at what
//! has changed (`upkeep`).

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    gateway::{ReadData, ReadMarked, TypingData, TypingSeen},
    ids::{ChannelId, MessageId, UserId},
};
use dashmap::DashMap;
use tokio::sync::{Mutex, mpsc};

use super::Chat;
use crate::{
    cluster::Direct,
    error::AppError,
    rooms::{Presence, Shared, Stored, event_of},
    store::{Event, Scope},
};

/// For each pair of which somebody is here, the newest number that was told.
pub(super) type Pairs = DashMap<Scope, Arc<Mutex<Option<MessageId>>>>;

/// What is read of a pair at once.
const READ_AT_ONCE: u32 = 200;

/// Before a notice of another node that cannot be acted on is given up, since the database is away; the look at what has
/// changed follows.
const PATIENCE: Duration = Duration::from_secs(5);

impl Chat {
    /// Acts on what other nodes have for single people, in order, until there is no more.
    pub(super) async fn hear(self, mut direct: mpsc::Receiver<Direct>) {
        while let Some(direct) = direct.recv().await {
            match direct {
                Direct::Written { low, high, previous, newest } => {
                    let telling = self.tell_pair(Scope::Pair(low, high), previous, newest, &[]);
                    let _ = tokio::time::timeout(PATIENCE, telling).await;
                }
                Direct::Typing { from, username, to } => self.show_typing(from, username, to),
                Direct::TypingIn { from, username, channel } => self.show_typing_in(from, username, channel).await,
                Direct::Read { user, id, channel, with } => self.show_read(user, id, channel, with).await,
                Direct::Presence { user } => self.moved_elsewhere(user),
                Direct::Notified { user, id } => self.show_notification(user, id).await,
                Direct::NotificationsRead { user } => self.show_notifications_read(user).await,
            }
        }
    }

    /// Tells two people, on all nodes, what was stored of them; each sender with their `request_id`.
    pub(super) async fn pair_stored(&self, scope: Scope, stored: Stored) {
        let Stored { previous, events } = stored;
        let (Scope::Pair(low, high), Some(newest)) = (scope, events.last().map(|event| event.number)) else { return };
        self.tell_pair(scope, previous, newest, &events).await;
        for event in &events {
            // Whom nobody could be told to.
            self.answer_sender(event);
        }
        self.rooms().announce_direct(Direct::Written { low, high, previous, newest }).await;
    }

    /// Tells those of a pair who are here everything up to `newest`; each sender who waits for it is answered.
    pub(super) async fn tell_pair(&self, scope: Scope, previous: MessageId, newest: MessageId, events: &[Event]) {
        let Scope::Pair(low, high) = scope else { return };
        if !self.inner.people.is_here(low) && !self.inner.people.is_here(high) {
            self.inner.pairs.remove(&scope);
            return;
        }
        let turn = Arc::clone(&self.inner.pairs.entry(scope).or_default());
        let mut told = turn.lock().await;
        let mut known = *told.get_or_insert(previous);
        if known == previous && !events.is_empty() {
            events.iter().for_each(|event| self.tell_both(event, (low, high)));
            known = newest;
        }
        while known < newest {
            let Ok(missed) = self.store().happened(scope, known, READ_AT_ONCE).await else { break };
            let Some(last) = missed.last().map(|event| event.number) else { break };
            missed.iter().for_each(|event| self.tell_both(event, (low, high)));
            known = last;
        }
        *told = Some(known);
    }

    fn tell_both(&self, event: &Event, (low, high): (UserId, UserId)) {
        let shared = Shared::new(event_of(event, ""));
        let sender = self.answer_sender(event);
        let others = if low == high { vec![low] } else { vec![low, high] };
        for presence in others.into_iter().flat_map(|user| self.inner.people.sessions(user)) {
            if sender.as_ref().is_none_or(|sender| sender.id != presence.id) {
                presence.send(&shared);
            }
        }
    }

    /// Answers who waits for an event with it, unless they are answered already: through which session.
    fn answer_sender(&self, event: &Event) -> Option<Arc<Presence>> {
        let sent = self.rooms().awaited().take(event.number)?;
        sent.presence.send(&Shared::answer(event_of(event, ""), sent.request_id));
        Some(sent.presence)
    }

    /// Forgets what was told to pairs of whom nobody is here.
    pub(super) fn forget_pairs(&self) {
        self.inner.pairs.retain(|scope, turn| match scope {
            Scope::Pair(low, high) => {
                // One that is being told keeps its place.
                Arc::strong_count(turn) > 1 || self.inner.people.is_here(*low) || self.inner.people.is_here(*high)
            }
            Scope::Room(_) => false,
        });
    }

    /// The newest number that a pair was told here.
    pub(super) async fn told_pair(&self, scope: Scope) -> Option<MessageId> {
        let turn = self.inner.pairs.get(&scope).map(|turn| Arc::clone(&turn))?;
        *turn.lock().await
    }

    /// Tells somebody that somebody writes to them, here and on other nodes.
    pub(super) async fn typing_to(&self, presence: &Presence, to: UserId) -> Result<(), AppError> {
        if self.store().has_blocked(to, presence.user.id).await? {
            return Ok(());
        }
        let (from, username) = (presence.user.id, presence.user.username.clone());
        self.show_typing(from, username.clone(), to);
        self.rooms().announce_direct(Direct::Typing { from, username, to }).await;
        Ok(())
    }

    fn show_typing(&self, from_user: UserId, username: String, to: UserId) {
        let data = TypingData { from_user, username, room: None, channel_id: None };
        self.inner.people.send(to, &Shared::new(TypingSeen::from(data)));
    }

    async fn show_typing_in(&self, from_user: UserId, username: String, channel: ChannelId) {
        let Some(name) = self.rooms().name_here(channel) else { return };
        let data = TypingData { from_user, username, room: Some(name), channel_id: Some(channel) };
        self.rooms().tell_of_typing(channel, TypingSeen::from(data), None);
    }

    /// Tells a reader's other sessions here up to where they have read.
    pub(super) async fn show_read(
        &self,
        user: UserId,
        id: MessageId,
        channel: Option<ChannelId>,
        with: Option<UserId>,
    ) {
        if !self.inner.people.is_here(user) {
            return;
        }
        let room = match channel {
            Some(channel) => self.store().channel(channel).await.ok().flatten().map(|channel| channel.name),
            None => None,
        };
        let data = ReadData { id, room, channel_id: channel, with };
        self.inner.people.send(user, &Shared::new(ReadMarked::from(data)));
    }
}
