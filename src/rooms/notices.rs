//! What other nodes did, as this one hears of it.
//!
//! Notices come in one queue for all channels. Each room has a bounded inbox of its own and takes it in when it has its
//! turn, so that one that is slow holds up no other; where more comes than it holds, it reads the journal instead.

use std::{collections::VecDeque, sync::Arc};

use antiphon_core::ids::{ChannelId, StreamId, UserId};
use tokio::sync::mpsc;

use super::{Rooms, room::Room};
use crate::{
    cluster::{Direct, Entry, News, Notice},
    error::AppError,
    telemetry::metrics::metrics,
};

/// Entries that may wait for a room. A journal of the usual length holds twice as many.
const INBOX_MAX: usize = 256;

/// What a room has heard and not taken in yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    entries: VecDeque<Entry>,
    /// More came than it holds: the journal has it.
    overflowed: bool,
    /// A task takes it in.
    is_served: bool,
}

/// What is taken out of an inbox at once.
enum Batch {
    Entries(Vec<Entry>),
    /// Read the journal.
    Overflowed,
}

impl Inbox {
    /// True when nobody serves the inbox, which whoever put something in must then do.
    fn put(&mut self, entry: Entry) -> bool {
        if self.overflowed || self.entries.len() >= INBOX_MAX {
            metrics().rooms.notices_dropped.increment(1);
            return self.put_unknown();
        }
        self.entries.push_back(entry);
        !std::mem::replace(&mut self.is_served, true)
    }

    /// Likewise for entries that are known only to be there.
    fn put_unknown(&mut self) -> bool {
        self.entries = VecDeque::new();
        self.overflowed = true;
        !std::mem::replace(&mut self.is_served, true)
    }

    /// `None` when there is nothing left, and nobody serves it any more.
    fn take(&mut self) -> Option<Batch> {
        if std::mem::take(&mut self.overflowed) {
            return Some(Batch::Overflowed);
        }
        if self.entries.is_empty() {
            self.is_served = false;
            return None;
        }
        Some(Batch::Entries(std::mem::take(&mut self.entries).into()))
    }
}

impl Rooms {
    /// Acts on notices, in order, until there are no more.
    pub(super) async fn hear(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Entry { channel, entry } => self.heard(channel, |inbox| inbox.put(entry)),
                Notice::Lost { channel } => self.heard(channel, Inbox::put_unknown),
                Notice::Reconnected => self.reconcile_all(),
                Notice::Direct(direct) => self.pass_on(direct),
                Notice::Removed { channel, leave } => {
                    self.note_change();
                    self.spawn_for(channel, move |rooms, channel| async move {
                        rooms.remove_texts_here(channel, &leave).await;
                    });
                }
                Notice::ChannelChanged { channel } => {
                    self.note_change();
                    self.review_texts_soon(channel);
                    self.spawn_for(channel, |rooms, channel| async move {
                        let read = rooms.refresh_settings(channel).await;
                        rooms.or_fall_behind(channel, read);
                    });
                }
                Notice::StandingChanged { channel, user } => {
                    self.note_change();
                    self.review_texts_soon(channel);
                    self.spawn_for(channel, move |rooms, channel| async move {
                        let read = rooms.refresh_priority(channel, user).await;
                        rooms.or_fall_behind(channel, read);
                    });
                }
            }
        }
    }

    fn pass_on(&self, direct: Direct) {
        if let Some(taker) = self.inner.direct.get()
            && taker.try_send(direct).is_err()
        {
            metrics().chat.direct_dropped.increment(1);
        }
    }

    fn heard(&self, channel: ChannelId, put: impl FnOnce(&mut Inbox) -> bool) {
        let Some(room) = self.room(channel) else { return };
        let is_unserved = put(&mut room.inbox.lock());
        if is_unserved {
            let rooms = self.clone();
            tokio::spawn(async move { rooms.serve_inbox(&room).await });
        }
    }

    async fn serve_inbox(&self, room: &Arc<Room>) {
        loop {
            let mut turn = room.turn.lock().await;
            let Some(batch) = room.inbox.lock().take() else { return };
            // What came before the first member is in the state that the room begins with.
            if !turn.is_open() {
                continue;
            }
            match batch {
                // They are here, so they are written back instead.
                Batch::Entries(entries) if room.live().took_for_dead(&entries) => self.reconcile_soon(room),
                Batch::Entries(entries) => self.take_in(room, News::Entries(entries)).await,
                Batch::Overflowed => self.read_on(room).await,
            }
            self.close_if_empty(room, &mut turn).await;
        }
    }

    /// Does `act` for a channel that this node knows, in a task of its own: it may wait for the database.
    fn spawn_for<F>(&self, channel: ChannelId, act: impl FnOnce(Self, ChannelId) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.room(channel).is_some() || self.inner.totals.contains_key(&channel) {
            let rooms = self.clone();
            tokio::spawn(act(rooms, channel));
        }
    }

    /// Takes over a channel's settings from the database, or its end.
    pub(super) async fn refresh_settings(&self, channel: ChannelId) -> Result<(), AppError> {
        match self.inner.store.channel(channel).await? {
            Some(channel) => self.take_settings(channel).await,
            None => self.empty(channel).await,
        }
        Ok(())
    }

    /// Takes over who of the members here has the right to be heard first.
    pub(super) async fn refresh_priorities(&self, room: &Arc<Room>) -> Result<(), AppError> {
        let priorities = self.inner.store.priorities(room.id).await?;
        let _turn = room.turn.lock().await;
        let changed: Vec<(StreamId, bool)> = {
            let live = room.live();
            let have = live.members.iter().map(|(stream, member)| {
                let has = priorities.contains(&member.presence.user.id);
                (*stream, member.switches.priority, has)
            });
            have.filter(|(_, had, has)| had != has).map(|(stream, _, has)| (stream, has)).collect()
        };
        for (stream, priority) in changed {
            self.set_switches(room, stream, |switches| switches.priority = priority).await;
        }
        Ok(())
    }

    async fn refresh_priority(&self, channel: ChannelId, user: UserId) -> Result<(), AppError> {
        let membership = self.inner.store.membership(channel, user).await?;
        self.take_priority(channel, user, membership.is_some_and(|membership| membership.priority)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        gateway::{HeartbeatAck, Position},
        ids::MessageId,
    };

    use super::*;
    use crate::cluster::{About, AboutChat};

    fn entry(offset: u64) -> Entry {
        Entry {
            position: Position { epoch: "one".to_owned(), offset },
            event: Arc::new(HeartbeatAck { server_time_us: 0 }.into()),
            about: About::Chat(AboutChat { number: MessageId(offset), previous: MessageId(offset - 1) }),
        }
    }

    #[test]
    fn an_inbox_is_served_once_and_says_when_it_is_too_small() {
        let mut inbox = Inbox::default();
        assert!(inbox.put(entry(1)) && !inbox.put(entry(2)), "one server is enough");
        assert!(matches!(inbox.take(), Some(Batch::Entries(entries)) if entries.len() == 2));
        assert!(inbox.take().is_none());
        assert!(inbox.put(entry(3)), "the next one needs a server again");
        for offset in 4..300 {
            assert!(!inbox.put(entry(offset)));
        }
        assert!(inbox.entries.is_empty(), "the journal has them");
        assert!(matches!(inbox.take(), Some(Batch::Overflowed)) && inbox.take().is_none());
        assert!(inbox.put_unknown() && matches!(inbox.take(), Some(Batch::Overflowed)));
    }
}
