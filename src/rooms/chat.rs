//! What is written in a channel, on its way from the database to everyone in it.
//!
//! ```text
//!  database ──append──► journal of all nodes ──entries──► each node's room ──told──► who is there
//!     │  (compare the newest number, so that any node can finish what another began)      ▲
//!     └───────────────read, where the journal lacks something──────────────────────────────┘
//! ```
//!
//! A room knows the newest number that it has told. An entry says its number and the one before it: a lower number was told
//! already, and where the one before was not, what lies between is read from the database. So everybody gets everything once
//! and in order of the numbers, whatever becomes of the journal.

use std::sync::Arc;

use antiphon_core::{
    gateway::{
        DeletedData, DmData, DmPosted, EditedData, MessageData, MessageDeleted, MessageEdited, MessagePosted, Position,
        Reaction, ReactionsChanged, ReactionsData, ServerMessage, UserView,
    },
    ids::{ChannelId, MessageId, SessionId, UserId},
    permission::Standing,
};

use super::{
    Rooms,
    awaited::{Awaited, Sent},
    outlet::Shared,
    presence::Presence,
    room::{Live, Room, Turn},
};
use crate::{
    cluster::{AboutChat, Appended, Entry, News, Unavailable, Written},
    error::AppError,
    store::{Channel, Event, Happening, Message, Scope, Signs, StoreError, folded, rfc3339},
    telemetry::metrics::metrics,
};

/// What is read of a channel at once.
const READ_AT_ONCE: u32 = 200;

/// How often a node tries to append while others do so, too: each time one of them got further.
const TRIES_MAX: usize = 32;

/// What was stored in one step.
#[derive(Debug)]
pub struct Stored {
    /// The newest number before.
    pub previous: MessageId,
    /// What happened, in order; may be nothing, to see to what another node left unfinished.
    pub events: Vec<Event>,
}

impl Rooms {
    /// Tells everyone in a channel, on all nodes, what was stored, each sender that is [awaited](Self::awaited) with their
    /// `request_id`. While the others cannot be reached those here are told, and the others when they can. Returns once each
    /// sender is answered.
    pub async fn chat_stored(&self, channel: ChannelId, name: &str, stored: Stored) {
        let Stored { previous, events } = stored;
        let written: Vec<Written> = events.iter().map(|event| written(event, name)).collect();
        let Some((room, mut turn)) = self.turn_of(channel).await else {
            self.append_unheard(channel, name, previous, written).await;
            self.answer_rest(&events, name);
            return;
        };
        if turn.is_open() && self.tell(&room, previous, written).await.is_err() {
            tracing::warn!(%channel, "what was written is told later: the database cannot be read");
        }
        self.answer_rest(&events, name);
        self.close_if_empty(&room, &mut turn).await;
    }

    /// Who waits to hear of what they wrote.
    #[must_use]
    pub fn awaited(&self) -> &Awaited {
        &self.inner.awaited
    }

    /// Answers those whom nobody has answered yet, because nobody could be told.
    fn answer_rest(&self, events: &[Event], name: &str) {
        for event in events {
            if let Some(sent) = self.inner.awaited.take(event.number) {
                answer(&sent, &Arc::new(event_of(event, name)));
            }
        }
    }

    /// Sees to it that everything stored in a channel is told in its room here.
    pub(super) async fn finish_chat(&self, channel: ChannelId) {
        let Some((room, mut turn)) = self.turn_of(channel).await else { return };
        if turn.is_open()
            && let Err(error) = self.finish_within(&room).await
        {
            tracing::debug!(%channel, %error, "what was written is told later");
        }
        self.close_if_empty(&room, &mut turn).await;
    }

    pub(super) fn finish_chat_soon(&self, channel: ChannelId) {
        let rooms = self.clone();
        tokio::spawn(async move { rooms.finish_chat(channel).await });
    }

    /// Likewise for each of `changed`, channels with their newest numbers, that has a room here which is behind.
    pub async fn finish_chats(&self, changed: &[(ChannelId, MessageId)]) {
        for (channel, newest) in changed {
            let is_behind = |room: Arc<Room>| room.live().told.is_none_or(|told| told < *newest);
            if self.room(*channel).is_some_and(is_behind) {
                metrics().chat.finished.increment(1);
                self.finish_chat(*channel).await;
            }
        }
    }

    async fn finish_within(&self, room: &Arc<Room>) -> Result<(), StoreError> {
        let newest = self.inner.store.newest(Scope::Room(room.id)).await?;
        if newest == MessageId(0) {
            // Nothing was ever written, so everything that comes is new.
            room.live_mut().told.get_or_insert(newest);
            return Ok(());
        }
        self.tell(room, newest, Vec::new()).await
    }

    /// Appends what was written after `previous`, or else everything that the journal lacks, and tells it here.
    async fn tell(&self, room: &Arc<Room>, previous: MessageId, written: Vec<Written>) -> Result<(), StoreError> {
        let (mut previous, mut written) = (previous, written);
        let newest = written.last().map_or(previous, |written| written.number);
        for _ in 0..TRIES_MAX {
            if room.is_alone() {
                break;
            }
            let known = room.applied();
            match self.inner.membership.append(room.id, previous, &written, known.as_ref()).await {
                Ok(appended) => {
                    self.take_appended(room, &appended, known.as_ref()).await;
                    if appended.newest >= newest {
                        return self.tell_stored(room, appended.newest).await;
                    }
                    previous = appended.newest;
                    written = self.written_after(room, previous).await?;
                    if written.is_empty() {
                        return Ok(());
                    }
                }
                Err(Unavailable) if self.go_alone(room) => {}
                Err(Unavailable) => return Ok(()),
            }
        }
        self.tell_alone(room, previous).await
    }

    /// Takes in what an answer brought. A room without a place in the journal has nobody to tell.
    async fn take_appended(&self, room: &Arc<Room>, appended: &Appended, known: Option<&Position>) {
        if known.is_some() {
            self.take_in(room, appended.news.clone()).await;
        }
        let begin = told_at(appended);
        room.live_mut().told.get_or_insert(begin);
    }

    /// Tells those here what was written, under the room's own journal.
    async fn tell_alone(&self, room: &Arc<Room>, previous: MessageId) -> Result<(), StoreError> {
        loop {
            let told = *room.live_mut().told.get_or_insert(previous);
            let written = self.written_after(room, told).await?;
            if written.is_empty() {
                return Ok(());
            }
            let news = {
                let live = &mut *room.live_mut();
                let Some(alone) = &mut live.alone else { return Ok(()) };
                let newest = alone.state.append(told, &[], None).newest;
                let written: Vec<Written> = written.into_iter().filter(|written| written.number > newest).collect();
                alone.state.append(newest, &written, None).news
            };
            self.take_in(room, news).await;
            if room.live().told == Some(told) {
                return Ok(());
            }
        }
    }

    /// Writes into the journal of all nodes what a room alone has told; its state of now then includes it.
    pub(super) async fn append_told_alone(&self, room: &Room) -> Result<(), StoreError> {
        let newest = self.inner.store.newest(Scope::Room(room.id)).await?;
        let (mut previous, mut written) = (newest, Vec::new());
        for _ in 0..TRIES_MAX {
            if newest == MessageId(0) {
                break;
            }
            let Ok(appended) = self.inner.membership.append(room.id, previous, &written, None).await else { break };
            if appended.newest >= newest {
                break;
            }
            previous = appended.newest;
            written = self.written_after(room, previous).await?;
        }
        Ok(())
    }

    /// The same for a channel without a room here.
    async fn append_unheard(&self, channel: ChannelId, name: &str, previous: MessageId, written: Vec<Written>) {
        let (mut previous, mut written) = (previous, written);
        let Some(newest) = written.last().map(|written| written.number) else { return };
        for _ in 0..TRIES_MAX {
            // Where it cannot be reached, whoever has somebody in the channel finds out when it can.
            let Ok(appended) = self.inner.membership.append(channel, previous, &written, None).await else { return };
            if appended.newest >= newest {
                return;
            }
            previous = appended.newest;
            let Ok(events) = self.inner.store.happened(Scope::Room(channel), previous, READ_AT_ONCE).await else {
                return;
            };
            written = events.iter().map(|event| self::written(event, name)).collect();
        }
    }

    async fn written_after(&self, room: &Room, number: MessageId) -> Result<Vec<Written>, StoreError> {
        let name = self.name_of(room).await?;
        let events = self.inner.store.happened(Scope::Room(room.id), number, READ_AT_ONCE).await?;
        Ok(events.iter().map(|event| written(event, &name)).collect())
    }

    async fn name_of(&self, room: &Room) -> Result<String, StoreError> {
        let known = room.live().channel.as_ref().map(|channel| channel.name.clone());
        match known {
            Some(name) => Ok(name),
            None => Ok(self.inner.store.channel(room.id).await?.ok_or(StoreError::Missing)?.name),
        }
    }

    /// Tells what is stored up to `newest` and was not told, without a place in the journal.
    async fn tell_stored(&self, room: &Arc<Room>, newest: MessageId) -> Result<(), StoreError> {
        loop {
            let told = *room.live_mut().told.get_or_insert(newest);
            if told >= newest {
                return Ok(());
            }
            let written = self.written_after(room, told).await?;
            let written: Vec<Written> = written.into_iter().filter(|written| written.number <= newest).collect();
            if written.is_empty() {
                // What is missing was changed again, and comes with that change.
                room.live_mut().told = Some(newest);
                return Ok(());
            }
            metrics().chat.read_again.increment(u64::try_from(written.len()).unwrap_or(u64::MAX));
            for Written { number, event } in written {
                self.tell_here(room, number, &Arc::new(event));
            }
        }
    }

    /// An entry of the journal about something written.
    pub(super) async fn chat_happened(&self, room: &Arc<Room>, entry: &Entry, about: AboutChat) {
        let told = room.live().told;
        if told.is_some_and(|told| about.previous > told) && self.tell_stored(room, about.previous).await.is_err() {
            // Left as it is: the rest is told, with this, when the database can be read.
            return;
        }
        if told.is_none_or(|told| about.number > told) {
            self.tell_here(room, about.number, &entry.event);
        }
    }

    /// Tells everyone here; who sent it is answered.
    fn tell_here(&self, room: &Room, number: MessageId, event: &Arc<ServerMessage>) {
        room.live_mut().told = Some(number);
        let sent = self.inner.awaited.take(number);
        let message = Shared::event(event);
        room.live().each_listener(|session, outlet| match &sent {
            Some(sent) if sent.presence.id == session => {}
            _ => outlet.send(&message),
        });
        if let Some(sent) = sent {
            answer(&sent, event);
        }
    }

    /// The channel that a session gets what is written of, by its name or id, as this node knows it.
    #[must_use]
    pub fn attended(&self, presence: &Presence, named: &str) -> Option<Channel> {
        let (texts, voices) = presence.channels();
        let settings = |channel| self.room(channel)?.live().channel.clone();
        if let Ok(id) = named.parse::<ChannelId>() {
            return settings(id).filter(|_| texts.contains(&id) || voices.contains(&id));
        }
        let name = folded(named);
        texts.into_iter().chain(voices).filter_map(settings).find(|channel| folded(&channel.name) == name)
    }

    /// The name of a channel that has somebody here.
    #[must_use]
    pub fn name_here(&self, channel: ChannelId) -> Option<String> {
        self.room(channel)?.live().channel.as_ref().map(|channel| channel.name.clone())
    }

    /// Whether somebody is in a talk spurt in a channel that has somebody here.
    #[must_use]
    pub fn is_speaking(&self, channel: ChannelId, user: UserId) -> bool {
        let Some(room) = self.room(channel) else { return false };
        let live = room.live();
        let listed = live.roster.stream_of(user).and_then(|stream| live.roster.get(stream));
        listed.is_some_and(|listed| listed.speaking)
    }

    /// How somebody stands to a channel.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing_of(&self, user: &UserView, channel: ChannelId) -> Result<Standing, AppError> {
        Ok(self.standing(channel, user).await?.0)
    }

    /// Tells everyone who is in a channel on this node, without a place in the journal: nothing is lost if it is.
    pub fn tell_of_typing(&self, channel: ChannelId, message: impl Into<ServerMessage>, except: Option<&Presence>) {
        let Some(room) = self.room(channel) else { return };
        // As what is written, which it would else come before.
        let message = Shared::event(&Arc::new(message.into()));
        room.live().each_listener(|session, outlet| {
            if except.is_none_or(|except| except.id != session) {
                outlet.send(&message);
            }
        });
    }
}

/// The number up to which everything had been told before what an answer brought.
fn told_at(appended: &Appended) -> MessageId {
    let entries = match &appended.news {
        News::Entries(entries) => entries.as_slice(),
        News::State { .. } => &[],
    };
    let first = entries.iter().find_map(|entry| match &entry.about {
        crate::cluster::About::Chat(about) => Some(about.previous),
        crate::cluster::About::Member(_) | crate::cluster::About::Channel => None,
    });
    first.unwrap_or(appended.newest)
}

fn answer(sent: &Sent, event: &Arc<ServerMessage>) {
    let outlet = Arc::clone(&sent.presence.state().link.outlet);
    outlet.send(&Shared::answer_event(event, sent.request_id.clone()));
}

impl Live {
    /// Everyone here who gets what happens in the channel, each session once.
    pub(super) fn each_listener(&self, mut act: impl FnMut(SessionId, &dyn super::Outlet)) {
        for member in self.members.values() {
            act(member.presence.id, &*member.outlet);
        }
        for (session, text) in self.texts.iter().filter(|(_, text)| !text.is_in_voice) {
            act(*session, &*text.outlet);
        }
    }
}

impl Turn {
    /// Whether somebody is there, or was a moment ago.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Text)
    }
}

/// What members are told of something stored.
fn written(event: &Event, name: &str) -> Written {
    let Event { number, what, message, reactions } = event;
    let (room, channel_id) = match message.scope {
        Scope::Room(channel) => (Some(name.to_owned()), Some(channel)),
        Scope::Pair(..) => (None, None),
    };
    let id = message.id;
    let event: ServerMessage = match (what, message_data(message, name, reactions)) {
        (Happening::Posted, Some(data)) => MessagePosted::from(data).into(),
        (Happening::Posted, None) => DmPosted::from(dm_data(message, reactions)).into(),
        (Happening::Deleted, _) => {
            MessageDeleted::from(DeletedData { id, room, channel_id, by: message.deleted_by, position: None }).into()
        }
        (Happening::Reacted, _) => {
            let reactions = signs(reactions);
            ReactionsChanged::from(ReactionsData { id, reactions, room, channel_id, position: None }).into()
        }
        (Happening::Edited, _) => MessageEdited::from(EditedData {
            id,
            content: message.content.clone(),
            edited_at: rfc3339(message.edited_at.unwrap_or(message.created_at)),
            reactions: Some(signs(reactions)).filter(|reactions| !reactions.is_empty()),
            room,
            channel_id,
            position: None,
        })
        .into(),
    };
    Written { number: *number, event }
}

/// What people are told of something stored, wherever it is.
#[must_use]
pub fn event_of(event: &Event, name: &str) -> ServerMessage {
    written(event, name).event
}

/// Signs as clients see them.
pub(super) fn signs(signs: &[Signs]) -> Vec<Reaction> {
    let sign = |sign: &Signs| Reaction { emoji: sign.emoji.clone(), users: sign.users.clone(), count: sign.count };
    signs.iter().map(sign).collect()
}

/// A channel's message as clients see it; `None` for one between two people.
#[must_use]
pub fn message_data(message: &Message, name: &str, reactions: &[Signs]) -> Option<MessageData> {
    let Scope::Room(channel_id) = message.scope else { return None };
    Some(MessageData {
        id: message.id,
        from_user: message.from,
        username: message.username.clone(),
        content: message.content.clone(),
        timestamp: rfc3339(message.created_at),
        room: name.to_owned(),
        channel_id,
        reply_to: message.reply_to,
        edited_at: message.edited_at.map(rfc3339),
        deleted: message.deleted_by.map(|_| true),
        reactions: Some(signs(reactions)).filter(|reactions| !reactions.is_empty()),
        mentions: Some(message.mentions.clone()).filter(|mentions| !mentions.is_empty()),
        position: None,
    })
}

/// A message between two people as they see it.
#[must_use]
pub fn dm_data(message: &Message, reactions: &[Signs]) -> DmData {
    let to_user = match message.scope {
        Scope::Pair(low, high) if low == message.from => high,
        Scope::Pair(low, _) => low,
        Scope::Room(_) => message.from,
    };
    DmData {
        id: message.id,
        from_user: message.from,
        to_user,
        username: message.username.clone(),
        content: message.content.clone(),
        timestamp: rfc3339(message.created_at),
        reply_to: message.reply_to,
        edited_at: message.edited_at.map(rfc3339),
        deleted: message.deleted_by.map(|_| true),
        reactions: Some(signs(reactions)).filter(|reactions| !reactions.is_empty()),
    }
}

/// The answer to whoever is not in the room that they write in.
pub(super) fn not_attending() -> AppError {
    AppError::new(
        antiphon_core::gateway::ErrorCode::PermissionDenied,
        "this session is not in that room: send join first",
    )
}
