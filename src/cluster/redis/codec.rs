//! What is kept in Redis and told over it: `MessagePack` maps behind one byte that says which version they are.
//!
//! Scripts read and write the same maps, so that a change of a member needs no second step. A field added later has a
//! default here, and scripts keep fields that they do not know.

use std::sync::Arc;

use antiphon_core::{
    gateway::{
        Cipher, Encoding, LeaveReason, MediaMode, MediaTransport, Position, ServerMessage, Shape, UserJoined, UserLeft,
        UserView, VoiceStateChanged, decode_server, encode_server,
    },
    ids::{ChannelId, MessageId, NodeNumber, SessionId, StreamId, UserId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::cluster::{
    entry::{About, AboutChat, AboutMember, Direct, Entry, Leave, Member},
    listening::ListeningNews,
    sessions::Place,
};

/// The version of everything that is written.
const VERSION: u8 = 1;

/// What is read is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("unreadable record: {0}")]
pub(super) struct Unreadable(pub(super) String);

/// A record's bytes.
pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    record.serialize(&mut serializer).expect("our records have nothing that MessagePack has not");
    bytes
}

/// The record in bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, body)) => rmp_serde::from_slice(body).map_err(|error| Unreadable(error.to_string())),
        Some((version, _)) => Err(Unreadable(format!("version {version}"))),
        None => Err(Unreadable("empty".to_owned())),
    }
}

/// A member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MemberRecord {
    user: UserView,
    session: SessionId,
    stream: StreamId,
    media: MediaTransport,
    muted: bool,
    deafened: bool,
    server_muted: bool,
    /// Absent in records of nodes of releases that had none.
    #[serde(default)]
    publishes: bool,
    node: NodeNumber,
}

impl From<Member> for MemberRecord {
    fn from(member: Member) -> Self {
        let Member { user, session, stream, media, muted, deafened, server_muted, publishes, node } = member;
        Self { user, session, stream, media, muted, deafened, server_muted, publishes, node }
    }
}

impl From<MemberRecord> for Member {
    fn from(record: MemberRecord) -> Self {
        let MemberRecord { user, session, stream, media, muted, deafened, server_muted, publishes, node } = record;
        Self { user, session, stream, media, muted, deafened, server_muted, publishes, node }
    }
}

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryKind {
    Joined,
    Left,
    Voice,
    Chat,
    Told,
}

/// An entry of a channel's journal. Scripts write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EntryRecord {
    kind: EntryKind,
    epoch: String,
    offset: u64,
    /// As the member is after it, or was when they left; absent where it is about something written.
    #[serde(default)]
    member: Option<MemberRecord>,
    /// What was written.
    #[serde(default)]
    chat: Option<ChatRecord>,
    /// What is told of the channel itself, as [`ChatRecord::event`].
    #[serde(default)]
    told: Option<String>,
    #[serde(default)]
    reason: Option<LeaveReason>,
    #[serde(default)]
    by: Option<UserId>,
    #[serde(default)]
    message: Option<String>,
}

/// Something written.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ChatRecord {
    number: MessageId,
    previous: MessageId,
    /// The message to members as JSON, without a place: text that scripts hand on as it is.
    event: String,
}

/// What members are told of something written, as the journal keeps it.
pub(super) fn event_text(event: &ServerMessage) -> Vec<u8> {
    encode_server(Encoding::Json, Shape::Tagged, event, None)
}

impl ChatRecord {
    fn into_entry(self, position: Position) -> Result<Entry, Unreadable> {
        let about = AboutChat { number: self.number, previous: self.previous };
        Ok(Entry { event: placed_event(&self.event, &position)?, position, about: About::Chat(about) })
    }
}

fn placed_event(text: &str, position: &Position) -> Result<Arc<ServerMessage>, Unreadable> {
    let (event, ..) = decode_server(Encoding::Json, text.as_bytes()).map_err(|error| Unreadable(error.to_string()))?;
    Ok(Arc::new(event.placed(position)))
}

impl EntryRecord {
    pub(super) fn into_entry(self, channel: ChannelId) -> Result<Entry, Unreadable> {
        let position = Position { epoch: self.epoch, offset: self.offset };
        if let Some(chat) = self.chat {
            return chat.into_entry(position);
        }
        if let Some(told) = self.told {
            return Ok(Entry { event: placed_event(&told, &position)?, position, about: About::Channel });
        }
        let member = self.member.ok_or_else(|| Unreadable("an entry about nothing".to_owned()))?;
        let MemberRecord { user, session, stream, media, muted, deafened, server_muted, node, .. } = member;
        let user_id = user.id;
        let event: ServerMessage = match self.kind {
            EntryKind::Chat | EntryKind::Told => return Err(Unreadable("an entry about nothing".to_owned())),
            EntryKind::Joined => {
                UserJoined { channel_id: channel, user_id, stream_id: stream, user, media, position: position.clone() }
                    .into()
            }
            EntryKind::Left => UserLeft {
                channel_id: channel,
                user_id,
                stream_id: stream,
                reason: self.reason.unwrap_or(LeaveReason::Left),
                position: position.clone(),
            }
            .into(),
            EntryKind::Voice => VoiceStateChanged {
                user_id,
                channel_id: channel,
                muted,
                deafened,
                server_muted,
                by: self.by.unwrap_or(user_id),
                position: position.clone(),
            }
            .into(),
        };
        let about = AboutMember { session, node, server_muted, by: self.by, message: self.message };
        Ok(Entry { position, event: Arc::new(event), about: About::Member(about) })
    }
}

/// Why somebody left, as `leave` puts it into the entry.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LeaveRecord<'a> {
    reason: LeaveReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl<'a> From<&'a Leave> for LeaveRecord<'a> {
    fn from(leave: &'a Leave) -> Self {
        Self { reason: leave.reason, by: leave.by, message: leave.message.as_deref() }
    }
}

/// Numbers that a node had before.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NumbersRecord {
    pub(super) numbers: Vec<NodeNumber>,
}

/// What a session needs to go on elsewhere; its tokens and its node are beside it, where scripts compare them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionBody {
    pub(super) user: UserView,
    pub(super) places: Vec<PlaceRecord>,
    /// Where it reads and writes without voice.
    #[serde(default)]
    pub(super) texts: Vec<ChannelId>,
    /// From where on it is in each of them. Nodes of the release before write none.
    #[serde(default)]
    pub(super) entries: Vec<(ChannelId, Position)>,
}

/// A session's place in a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PlaceRecord {
    channel: ChannelId,
    stream: StreamId,
    media: MediaTransport,
    cipher: Option<Cipher>,
    channels: u8,
    /// Nodes of the release before write none.
    #[serde(default)]
    mode: MediaMode,
}

impl From<Place> for PlaceRecord {
    fn from(place: Place) -> Self {
        let Place { channel, stream, media, cipher, channels, mode } = place;
        Self { channel, stream, media, cipher, channels, mode }
    }
}

impl From<PlaceRecord> for Place {
    fn from(record: PlaceRecord) -> Self {
        let PlaceRecord { channel, stream, media, cipher, channels, mode } = record;
        Self { channel, stream, media, cipher, channels, mode }
    }
}

/// What is said to one node, or to all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NodeMessage {
    /// The process that says it, by its start.
    pub(super) from: u64,
    /// What it says.
    #[serde(flatten)]
    pub(super) said: Said,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Said {
    /// A session is another node's now.
    SessionClaimed {
        /// Which.
        session: SessionId,
    },
    /// An account was switched off.
    AccountDisabled {
        /// Which.
        user: UserId,
    },
    /// A channel is otherwise in the database.
    ChannelChanged {
        /// Which.
        channel: ChannelId,
    },
    /// What somebody is in a channel is otherwise in the database.
    StandingChanged {
        /// In which.
        channel: ChannelId,
        /// Who.
        user: UserId,
    },
    /// Somebody was put out of a channel.
    Removed {
        /// Of which.
        channel: ChannelId,
        /// Who, and why.
        leave: Leave,
    },
    /// Who begins and ends to listen, for who watches.
    Listening {
        /// What happened.
        news: ListeningNews,
    },
    /// Something for single people.
    Direct {
        /// What.
        direct: Direct,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_its_version() {
        let said = Said::SessionClaimed { session: SessionId(uuid::Uuid::from_u128(7)) };
        let message = NodeMessage { from: 1, said };
        let mut bytes = encode(&message);
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode::<NodeMessage>(&bytes).expect("ours"), message);
        bytes[0] = 9;
        assert!(decode::<NodeMessage>(&bytes).expect_err("of another release").to_string().contains("version 9"));
        assert!(decode::<NodeMessage>(&[]).is_err());
    }
}
