//! What was written before, what is unread of it, and looking for words.

use antiphon_core::{
    gateway::{
        DmData, DmHistory, DmHistoryPage, ErrorCode, FoundData, MarkRead, MessageData, ReadData, ReadMarked, RequestId,
        RoomHistory, RoomHistoryPage, Search, SearchFound, UnreadCounts, UnreadData,
    },
    ids::{MessageId, UserId},
    permission::Action,
};

use serde::Serialize;

use super::{
    Chat,
    page::{fitting, page},
    require,
};
use crate::{
    cluster::Direct,
    error::AppError,
    rooms::{Presence, Shared, dm_data, message_data},
    store::{Channel, Part, Scope, Unread, words},
};

/// The most messages of one answer.
const PAGE_MAX: u32 = 200;

/// As many where none are asked for.
const PAGE: u32 = 50;

/// Words of one search.
const WORDS_MAX: usize = 16;

fn invalid(message: impl Into<String>) -> AppError {
    AppError::new(ErrorCode::InvalidInput, message)
}

fn limit_of(limit: Option<u32>) -> Result<u32, AppError> {
    let limit = limit.unwrap_or(PAGE);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(invalid(format!("limit must be from 1 to {PAGE_MAX}, not {limit}")))
}

fn part(before: Option<MessageId>, after: Option<MessageId>) -> Result<Part, AppError> {
    match (before, after) {
        (None, None) => Ok(Part::Newest),
        (Some(before), None) => Ok(Part::Before(before)),
        (None, Some(after)) => Ok(Part::After(after)),
        (Some(_), Some(_)) => Err(invalid("either `before` or `after`, not both")),
    }
}

/// What a search finds.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Message(MessageData),
    Dm(DmData),
}

impl Chat {
    /// A page of a room's messages.
    pub(super) async fn room_history(
        &self,
        presence: &Presence,
        request: RoomHistory,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let (limit, part) = (limit_of(request.limit)?, part(request.before, request.after)?);
        let channel = self.readable(presence, &request.room).await?;
        let found = self.store().history(Scope::Room(channel.id), part, limit).await?;
        let messages: Vec<MessageData> =
            found.iter().filter_map(|(message, signs)| message_data(message, &channel.name, signs)).collect();
        presence.send(&Shared::answer(RoomHistoryPage::from(page(messages, part)), request_id));
        Ok(())
    }

    /// The room of that name, if somebody may read what was written there.
    async fn readable(&self, presence: &Presence, room: &str) -> Result<Channel, AppError> {
        let (channel, standing) = self.channel(&presence.user, room).await?;
        let terms = self.store().chat_terms(channel.id).await?;
        require(&standing, channel.is_private, Action::ReadHistory(terms.history))?;
        Ok(channel)
    }

    /// A page of what two people wrote to each other.
    pub(super) async fn dm_history(
        &self,
        presence: &Presence,
        request: DmHistory,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let (limit, part) = (limit_of(request.limit)?, part(request.before, request.after)?);
        let scope = Scope::pair(presence.user.id, self.person(&request.with).await?);
        let found = self.store().history(scope, part, limit).await?;
        let messages: Vec<DmData> = found.iter().map(|(message, signs)| dm_data(message, signs)).collect();
        presence.send(&Shared::answer(DmHistoryPage::from(page(messages, part)), request_id));
        Ok(())
    }

    /// Somebody's id, also where the account is gone: what they wrote may still be there.
    async fn person(&self, named: &str) -> Result<UserId, AppError> {
        match named.parse::<UserId>() {
            Ok(id) => Ok(id),
            Err(_) => Ok(self.user(named).await?.id),
        }
    }

    /// Notes up to where somebody has read, and tells their other sessions.
    pub(super) async fn mark_read(
        &self,
        presence: &Presence,
        request: MarkRead,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let user = presence.user.id;
        let (scope, room, channel_id, with) = match (&request.room, &request.with) {
            (Some(room), None) => {
                let (channel, standing) = self.channel(&presence.user, room).await?;
                require(&standing, channel.is_private, Action::Join)?;
                (Scope::Room(channel.id), Some(channel.name), Some(channel.id), None)
            }
            (None, Some(with)) => {
                let with = self.person(with).await?;
                (Scope::pair(user, with), None, None, Some(with))
            }
            _ => return Err(invalid("mark_read needs either `room` or `with`")),
        };
        let id = self.store().mark_read(user, scope, request.id).await?;
        let id = id.ok_or_else(|| AppError::new(ErrorCode::NotFound, "nothing was written there yet"))?;
        if self.store().read_notifications_in(user, scope, id).await? > 0 {
            self.tell_notifications_read(user).await;
        }
        let data = ReadData { id, room, channel_id, with };
        let others = Shared::new(ReadMarked::from(data.clone()));
        for other in self.inner.people.sessions(user).iter().filter(|other| other.id != presence.id) {
            other.send(&others);
        }
        presence.send(&Shared::answer(ReadMarked::from(data), request_id));
        self.rooms().announce_direct(Direct::Read { user, id, channel: channel_id, with }).await;
        Ok(())
    }

    /// What is unread, where somebody belongs or has read, and of people.
    pub(super) async fn unread(&self, presence: &Presence, request_id: Option<RequestId>) -> Result<(), AppError> {
        let user = &presence.user;
        let mut counts = Vec::new();
        for unread in self.store().unread(user.id).await? {
            let Unread { scope, unread, mentions, last_read, last_id } = unread;
            let mut data = UnreadData {
                unread,
                mentions,
                last_read,
                last_id,
                room: None,
                channel_id: None,
                with: None,
                username: None,
            };
            match scope {
                Scope::Room(id) => {
                    // Where they may not read any more, there is nothing to be said.
                    let Ok(channel) = self.readable(presence, &id.to_string()).await else { continue };
                    (data.room, data.channel_id) = (Some(channel.name), Some(id));
                }
                Scope::Pair(low, high) => {
                    let other = if low == user.id { high } else { low };
                    data.username = self.store().user(other).await?.map(|user| user.username);
                    data.with = Some(other);
                }
            }
            counts.push(data);
        }
        presence.send(&Shared::answer(UnreadCounts::from(counts), request_id));
        Ok(())
    }

    /// Looks for words where somebody may read.
    pub(super) async fn search(
        &self,
        presence: &Presence,
        request: Search,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let (limit, words) = (limit_of(request.limit)?, words(&request.query));
        if words.is_empty() || words.len() > WORDS_MAX {
            return Err(invalid(format!("query must have 1 to {WORDS_MAX} words of letters and numbers")));
        }
        let channels = match &request.room {
            Some(room) => vec![self.readable(presence, room).await?],
            None => self.readable_channels(presence).await?,
        };
        let pairs_of = request.room.is_none().then_some(presence.user.id);
        let ids: Vec<_> = channels.iter().map(|channel| channel.id).collect();
        let found = self.store().search(&words, &ids, pairs_of, request.before, limit).await?;
        let name = |id| channels.iter().find(|channel| channel.id == id).map(|channel| channel.name.as_str());
        let found = found.iter().filter_map(|message| match message.scope {
            Scope::Room(id) => message_data(message, name(id).unwrap_or_default(), &[]).map(Found::Message),
            Scope::Pair(..) => Some(Found::Dm(dm_data(message, &[]))),
        });
        let mut data = FoundData { messages: Vec::new(), dms: Vec::new() };
        for found in fitting(found) {
            match found {
                Found::Message(message) => data.messages.push(message),
                Found::Dm(dm) => data.dms.push(dm),
            }
        }
        presence.send(&Shared::answer(SearchFound::from(data), request_id));
        Ok(())
    }

    /// The channels that somebody belongs to or is in, and may read what was written in.
    async fn readable_channels(&self, presence: &Presence) -> Result<Vec<Channel>, AppError> {
        let mut channels = self.store().channels_of(presence.user.id).await?;
        let (texts, voices) = presence.channels();
        for id in texts.into_iter().chain(voices) {
            if channels.iter().all(|channel| channel.id != id) {
                channels.extend(self.store().channel(id).await?);
            }
        }
        let mut readable = Vec::new();
        for channel in channels {
            if let Ok(channel) = self.readable(presence, &channel.id.to_string()).await {
                readable.push(channel);
            }
        }
        Ok(readable)
    }
}
