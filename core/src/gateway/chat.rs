//! The chat family: writing in rooms and to people (docs/protocol.md, section 3.5).
//!
//! A client's fields stand beside `type`; a server's stand in `data`. Chat is never externally tagged.

use serde::{Deserialize, Serialize};

use super::{ErrorCode, Position, ServerMessage};
use crate::ids::{ChannelId, MessageId, UserId};

/// A server's message of this family: its fields stand in `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InData<T> {
    /// The fields.
    pub data: T,
}

impl<T> From<T> for InData<T> {
    fn from(data: T) -> Self {
        Self { data }
    }
}

macro_rules! optional {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty,)* ? $($(#[$optional_doc:meta])* $optional:ident : $optional_type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        $vis struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$optional_doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $optional: Option<$optional_type>,)*
        }
    };
}

/// Enters a room to read and write there; it takes no place of `max_users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinText {
    /// A channel's name or id.
    pub room: String,
}

/// Leaves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveText {
    /// A channel's name or id.
    pub room: String,
}

optional! {
    /// Writes in a room.
    pub struct PostMessage {
        /// A channel's name or id.
        room: String,
        /// What is written.
        content: String,
        ?
        /// The sender's own name for it: sent again, it is stored and told once.
        nonce: String,
        /// The message of the same room that it answers.
        reply_to: MessageId,
    }
}

debug_without_secrets!(PostMessage { room, nonce, reply_to });

optional! {
    /// Writes to somebody.
    pub struct SendDm {
        /// A user's id or name.
        to: String,
        /// What is written.
        content: String,
        ?
        /// The sender's own name for it: sent again, it is stored and told once.
        nonce: String,
        /// The message between the same two that it answers.
        reply_to: MessageId,
    }
}

debug_without_secrets!(SendDm { to, nonce, reply_to });

optional! {
    /// Asks for what was written in a room: the newest, those before or those after a message.
    pub struct RoomHistory {
        /// A channel's name or id.
        room: String,
        ?
        /// At most so many, 1 to 200; 50 when absent.
        limit: u32,
        /// Only what is older than this one.
        before: MessageId,
        /// Only what is newer than this one, the oldest of that first.
        after: MessageId,
    }
}

debug_without_secrets!(RoomHistory { room, limit, before, after });

optional! {
    /// Likewise for what two people wrote to each other.
    pub struct DmHistory {
        /// The other's id or name.
        with: String,
        ?
        /// At most so many, 1 to 200; 50 when absent.
        limit: u32,
        /// Only what is older than this one.
        before: MessageId,
        /// Only what is newer than this one, the oldest of that first.
        after: MessageId,
    }
}

debug_without_secrets!(DmHistory { with, limit, before, after });

optional! {
    /// Says that one writes, in a room or to somebody.
    pub struct Typing {
        ?
        /// A channel's name or id.
        room: String,
        /// A user's id or name.
        to: String,
    }
}

debug_without_secrets!(Typing { room, to });

/// Changes a message of one's own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMessage {
    /// Which.
    pub id: MessageId,
    /// What it is to say.
    pub content: String,
}

debug_without_secrets!(EditMessage { id });

/// Takes a message away: one's own, or as a moderator somebody's in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMessage {
    /// Which.
    pub id: MessageId,
}

/// Puts a sign to a message, or takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct React {
    /// To which.
    pub id: MessageId,
    /// The sign, usually an emoji: up to 32 bytes.
    pub emoji: String,
    /// Take it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

optional! {
    /// Says up to where one has read.
    pub struct MarkRead {
        /// The newest message read. What is read stays read.
        id: MessageId,
        ?
        /// In which room: a channel's name or id.
        room: String,
        /// Or of whom: a user's id or name.
        with: String,
    }
}

debug_without_secrets!(MarkRead { id, room, with });

/// Asks how much is unread in the rooms one belongs to or has read, and of people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskUnread {}

optional! {
    /// Looks for words.
    pub struct Search {
        /// All of these words, whatever their case and accents.
        query: String,
        ?
        /// Only in this room; else in all that one belongs to or is in, and in what one wrote to people and they to one.
        room: String,
        /// At most so many, 1 to 200; 50 when absent.
        limit: u32,
        /// Only what is older than this one.
        before: MessageId,
    }
}

debug_without_secrets!(Search { room, limit, before });

/// Asks who of some people is there, and follows it from then on for as long as the session lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskPresence {
    /// Their ids, at most 200; whom one follows is replaced.
    pub users: Vec<UserId>,
}

/// Lets nothing of somebody through to oneself, or lets it through again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// A user's id or name.
    pub user: String,
    /// Let it through again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

/// Tells the moderators of a message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportMessage {
    /// Which.
    pub id: MessageId,
    /// Why, up to 500 characters.
    pub reason: String,
}

debug_without_secrets!(ReportMessage { id });

/// One may read and write in a room.
pub type JoinAck = InData<JoinAckData>;
/// Somebody wrote in a room. With the `request_id` of one's own: it is stored.
pub type MessagePosted = InData<MessageData>;
/// Somebody wrote to one, or one to somebody.
pub type DmPosted = InData<DmData>;
/// Answers `room_history`, the oldest first.
pub type RoomHistoryPage = InData<Vec<MessageData>>;
/// Answers `dm_history`, the oldest first.
pub type DmHistoryPage = InData<Vec<DmData>>;
/// Somebody writes.
pub type TypingSeen = InData<TypingData>;
/// A message says something else now.
pub type MessageEdited = InData<EditedData>;
/// A message was taken away.
pub type MessageDeleted = InData<DeletedData>;
/// Which signs a message has now.
pub type ReactionsChanged = InData<ReactionsData>;
/// One has read up to here, perhaps through another session.
pub type ReadMarked = InData<ReadData>;
/// Answers `unread`.
pub type UnreadCounts = InData<Vec<UnreadData>>;
/// Answers `search`, the newest first.
pub type SearchFound = InData<FoundData>;
/// Who is there: answers `presence`, and follows by itself when something changes.
pub type PresenceSeen = InData<Vec<PresenceData>>;
/// A message of this family could not be carried out.
pub type ChatError = InData<ChatErrorData>;

/// See [`JoinAck`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAckData {
    /// As it was asked for.
    pub room: String,
    /// The channel's id.
    pub channel_id: ChannelId,
    /// `ok`.
    pub status: String,
    /// The place in the channel's journal from which on everything is told.
    pub position: Position,
}

optional! {
    /// A message of a room.
    pub struct MessageData {
        /// Grows in the order in which members see messages.
        id: MessageId,
        /// Who wrote it.
        #[serde(rename = "fromUser")]
        from_user: UserId,
        /// What they were called then.
        username: String,
        /// What they wrote; empty once it was taken away.
        content: String,
        /// RFC 3339 UTC.
        timestamp: String,
        /// The channel's name.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        ?
        /// The message that it answers.
        reply_to: MessageId,
        /// When it was changed, RFC 3339 UTC.
        edited_at: String,
        /// True once it was taken away.
        deleted: bool,
        /// Its signs.
        reactions: Vec<Reaction>,
        /// Whom it names.
        mentions: Vec<UserId>,
        /// Its place in the journal; absent in histories, and where it is told again after a time without the journal.
        position: Position,
    }
}

debug_without_secrets!(MessageData { id, channel_id, from_user });

optional! {
    /// A message between two people.
    pub struct DmData {
        /// Grows in the order of the messages between the two.
        id: MessageId,
        /// Who wrote it.
        #[serde(rename = "fromUser")]
        from_user: UserId,
        /// To whom.
        #[serde(rename = "toUser")]
        to_user: UserId,
        /// What the writer was called then.
        username: String,
        /// What they wrote; empty once it was taken away.
        content: String,
        /// RFC 3339 UTC.
        timestamp: String,
        ?
        /// The message that it answers.
        reply_to: MessageId,
        /// When it was changed, RFC 3339 UTC.
        edited_at: String,
        /// True once it was taken away.
        deleted: bool,
        /// Its signs.
        reactions: Vec<Reaction>,
    }
}

debug_without_secrets!(DmData { id, from_user, to_user });

/// A sign at a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// The sign.
    pub emoji: String,
    /// Whose it is, at most 100 of them, who came first before others.
    pub users: Vec<UserId>,
    /// How many there are.
    pub count: u32,
}

optional! {
    /// See [`TypingSeen`].
    pub struct TypingData {
        /// Who writes.
        #[serde(rename = "fromUser")]
        from_user: UserId,
        /// Their name.
        username: String,
        ?
        /// In which room, by name; absent where it is to the one who reads this.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
    }
}

debug_without_secrets!(TypingData { from_user, room });

optional! {
    /// See [`MessageEdited`].
    pub struct EditedData {
        /// Which.
        id: MessageId,
        /// What it says now.
        content: String,
        /// RFC 3339 UTC.
        edited_at: String,
        ?
        /// All of its signs, where they may have changed, too.
        reactions: Vec<Reaction>,
        /// The channel's name; absent between two people.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        /// Its place in the journal.
        position: Position,
    }
}

debug_without_secrets!(EditedData { id, channel_id });

optional! {
    /// See [`MessageDeleted`].
    #[derive(Debug)]
    pub struct DeletedData {
        /// Which.
        id: MessageId,
        ?
        /// The channel's name; absent between two people.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        /// Who took it away.
        by: UserId,
        /// Its place in the journal.
        position: Position,
    }
}

optional! {
    /// See [`ReactionsChanged`].
    #[derive(Debug)]
    pub struct ReactionsData {
        /// Of which message.
        id: MessageId,
        /// All of them.
        reactions: Vec<Reaction>,
        ?
        /// The channel's name; absent between two people.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        /// Its place in the journal.
        position: Position,
    }
}

optional! {
    /// See [`ReadMarked`].
    #[derive(Debug)]
    pub struct ReadData {
        /// The newest message read.
        id: MessageId,
        ?
        /// The channel's name.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        /// Or the other's id.
        with: UserId,
    }
}

optional! {
    /// What is unread in one room, or of one person.
    #[derive(Debug)]
    pub struct UnreadData {
        /// So many that one has not read, of others; 1000 stands for that many or more.
        unread: u32,
        /// Of those, how many name one.
        mentions: u32,
        /// The newest message read; 0 when none was.
        last_read: MessageId,
        /// The newest message there is.
        last_id: MessageId,
        ?
        /// The channel's name.
        room: String,
        /// The channel's id.
        channel_id: ChannelId,
        /// Or the other's id.
        with: UserId,
        /// The other's name.
        username: String,
    }
}

/// See [`SearchFound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundData {
    /// In rooms.
    pub messages: Vec<MessageData>,
    /// Between people.
    pub dms: Vec<DmData>,
}

/// Whether somebody is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceData {
    /// Who.
    pub user_id: UserId,
    /// Whether they are connected, to any node.
    pub online: bool,
    /// The channels they are in, as far as the asker may see those.
    pub channels: Vec<ChannelPresence>,
    /// When they were last there, RFC 3339 UTC; absent where that is not known, or they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
}

/// Somebody in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPresence {
    /// Which.
    pub channel_id: ChannelId,
    /// In its voice.
    pub voice: bool,
    /// In a talk spurt now, as far as the asker's node hears the channel.
    pub speaking: bool,
}

/// See [`ChatError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatErrorData {
    /// For people: what is wrong and what would be right.
    pub message: String,
    /// For programs.
    pub error_code: ErrorCode,
}

/// The types of a client's messages of this family.
const CLIENT_NAMES: [&str; 16] = [
    "join",
    "leave_room",
    "message",
    "dm",
    "room_history",
    "dm_history",
    "typing",
    "edit",
    "delete",
    "react",
    "mark_read",
    "unread",
    "search",
    "presence",
    "block",
    "report",
];

/// Whether a client's message of this type is of the chat family, whose errors have a form of their own.
#[must_use]
pub fn is_of_chat(name: &str) -> bool {
    CLIENT_NAMES.contains(&name)
}

impl ServerMessage {
    /// Whether it is of the chat family, which is never externally tagged.
    pub(super) const fn is_of_chat(&self) -> bool {
        matches!(
            self,
            Self::JoinAck(_)
                | Self::MessagePosted(_)
                | Self::DmPosted(_)
                | Self::RoomHistoryPage(_)
                | Self::DmHistoryPage(_)
                | Self::TypingSeen(_)
                | Self::MessageEdited(_)
                | Self::MessageDeleted(_)
                | Self::ReactionsChanged(_)
                | Self::ReadMarked(_)
                | Self::UnreadCounts(_)
                | Self::SearchFound(_)
                | Self::PresenceSeen(_)
                | Self::Notified(_)
                | Self::NotificationsRead(_)
                | Self::ChatError(_)
        )
    }

    /// An event of a room's chat or recordings at its place in the journal. Other messages stay as they are.
    #[must_use]
    pub fn placed(mut self, position: &Position) -> Self {
        let place = match &mut self {
            Self::MessagePosted(event) => &mut event.data.position,
            Self::MessageEdited(event) => &mut event.data.position,
            Self::MessageDeleted(event) => &mut event.data.position,
            Self::ReactionsChanged(event) => &mut event.data.position,
            Self::RecordingStarted(event) => &mut event.position,
            Self::RecordingStopped(event) => &mut event.position,
            Self::RecordingFinished(event) => &mut event.position,
            _ => return self,
        };
        *place = Some(position.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{ClientMessage, Encoding, Shape, decode_client, decode_server, encode_server};

    fn message() -> MessageData {
        MessageData {
            id: MessageId(123),
            from_user: UserId(uuid::Uuid::from_u128(4)),
            username: "alice".to_owned(),
            content: "Hello world!".to_owned(),
            timestamp: "2025-01-01T12:00:00Z".to_owned(),
            room: "general".to_owned(),
            channel_id: ChannelId(uuid::Uuid::from_u128(5)),
            reply_to: None,
            edited_at: None,
            deleted: None,
            reactions: None,
            mentions: None,
            position: None,
        }
    }

    #[test]
    fn every_name_of_the_family_is_a_message() {
        for name in CLIENT_NAMES {
            assert!(ClientMessage::NAMES.contains(&name), "{name}");
        }
    }

    #[test]
    fn fields_of_servers_stand_in_data_whatever_the_clients_shape() {
        let posted = ServerMessage::from(MessagePosted::from(message()));
        for shape in [Shape::Tagged, Shape::External] {
            let bytes = encode_server(Encoding::Json, shape, &posted, None);
            let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!((&value["type"], &value["data"]["id"]), (&"message".into(), &123.into()));
            assert_eq!(value["data"]["fromUser"], "00000000-0000-0000-0000-000000000004");
            assert_eq!(decode_server(Encoding::Json, &bytes).expect("a message").0, posted);
        }
    }

    #[test]
    fn an_event_gets_its_place() {
        let position = Position { epoch: "a".to_owned(), offset: 7 };
        let placed = ServerMessage::from(MessagePosted::from(message())).placed(&position);
        assert!(matches!(placed, ServerMessage::MessagePosted(event) if event.data.position == Some(position)));
    }

    #[test]
    fn what_people_write_is_not_shown() {
        let json = br#"{"type":"message","room":"general","content":"between us","nonce":"n"}"#;
        let (decoded, ..) = decode_client(Encoding::Json, json).expect("a message");
        let shown = format!("{decoded:?}");
        assert!(shown.contains("general") && !shown.contains("between us"), "{shown}");
    }
}
