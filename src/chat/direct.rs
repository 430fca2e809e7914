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
    rooms::{Presence, Sent, Shared, Stored, event_of},
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
                    let telling = self.tell_pair(Scope::Pair(low, high), previous, newest, &[], &[]);
                    let _ = tokio::time::timeout(PATIENCE, telling).await;
                }
                Direct::Typing { from, username, to } => self.show_typing(from, username, to),
                Direct::TypingIn { from, username, channel } => self.show_typing_in(from, username, channel).await,
                Direct::Read { user, id, channel, with } => self.show_read(user, id, channel, with).await,
                Direct::Presence { user } => self.look_for_followers(Some(user)).await,
                Direct::Notified { user, id } => self.show_notification(user, id).await,
                Direct::NotificationsRead { user } => self.show_notifications_read(user).await,
            }
        }
    }

    /// Tells two people, on all nodes, what was stored of them; each sender with their `request_id`.
    pub(super) async fn pair_stored(&self, scope: Scope, stored: Stored) {
        let Stored { previous, events, sent } = stored;
        let (Scope::Pair(low, high), Some(newest)) = (scope, events.last().map(|event| event.number)) else { return };
        let answered = self.tell_pair(scope, previous, newest, &events, &sent).await;
        for sent in sent.iter().filter(|sent| !answered.contains(&sent.number)) {
            if let Some(event) = events.iter().find(|event| event.number == sent.number) {
                sent.presence.send(&Shared::answer(event_of(event, ""), sent.request_id.clone()));
            }
        }
        self.rooms().announce_direct(Direct::Written { low, high, previous, newest }).await;
    }

    /// Tells those of a pair who are here everything up to `newest`; the numbers of `sent` that were answered with it.
    pub(super) async fn tell_pair(
        &self,
        scope: Scope,
        previous: MessageId,
        newest: MessageId,
        events: &[Event],
        sent: &[Sent],
    ) -> Vec<MessageId> {
        let Scope::Pair(low, high) = scope else { return Vec::new() };
        if !self.inner.people.is_here(low) && !self.inner.people.is_here(high) {
            self.inner.pairs.remove(&scope);
            return Vec::new();
        }
        let turn = Arc::clone(&self.inner.pairs.entry(scope).or_default());
        let mut told = turn.lock().await;
        let mut known = *told.get_or_insert(previous);
        let mut answered = Vec::new();
        if known == previous && !events.is_empty() {
            answered.extend(events.iter().filter_map(|event| self.tell_both(event, (low, high), sent)));
            known = newest;
        }
        while known < newest {
            let Ok(missed) = self.store().happened(scope, known, READ_AT_ONCE).await else { break };
            let Some(last) = missed.last().map(|event| event.number) else { break };
            answered.extend(missed.iter().filter_map(|event| self.tell_both(event, (low, high), sent)));
            known = last;
        }
        *told = Some(known);
        answered
    }

    /// The event's number, if its sender was answered with it.
    fn tell_both(&self, event: &Event, (low, high): (UserId, UserId), sent: &[Sent]) -> Option<MessageId> {
        let message = event_of(event, "");
        let shared = Shared::new(message.clone());
        let sender = sent.iter().find(|sent| sent.number == event.number);
        let others = if low == high { vec![low] } else { vec![low, high] };
        for presence in others.into_iter().flat_map(|user| self.inner.people.sessions(user)) {
            if sender.is_none_or(|sender| sender.presence.id != presence.id) {
                presence.send(&shared);
            }
        }
        let sender = sender?;
        sender.presence.send(&Shared::answer(message, sender.request_id.clone()));
        Some(event.number)
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
