//! What a server sends.

use serde::{Deserialize, Serialize};

use super::{
    AudioBytes, ChannelView, ChatError, Cipher, DmHistoryPage, DmPosted, ErrorCode, JoinAck, JoinedRoom, LeaveReason,
    LeftRoom, ListeningBegun, ListeningEnded, ListeningStats, MediaTransport, MemberView, MessageDeleted,
    MessageEdited, MessagePosted, NotificationsRead, Notified, Position, PresenceSeen, PublishAnswer, PublisherJoined,
    PublisherLeft, ReactionsChanged, ReadMarked, RecordingFinished, RecordingNow, RecordingStarted, RecordingStopped,
    RoomError, RoomHistoryPage, SearchFound, SubscribeOffer, TypingSeen, UnreadCounts, UserView, codec::messages,
};
use crate::ids::{ChannelId, GroupId, KeyId, MediaSessionId, SessionId, StreamId, UserId};

messages! {
    /// A message from a server.
    ServerMessage {
        /// First of all on a connection.
        Hello,
        /// The session is somebody's.
        Authenticated,
        /// Answers `Heartbeat`.
        HeartbeatAck,
        /// A lost session goes on.
        Resumed,
        /// Resume elsewhere: this node is about to stop.
        Reconnect,
        /// A message could not be carried out.
        Error,
        /// A message without an answer of its own was carried out.
        Ack,
        /// One is in a channel's voice.
        ChannelJoined,
        /// One has left it.
        ChannelLeft,
        /// One was removed from it.
        Removed,
        /// Another member came.
        UserJoined,
        /// Another member went.
        UserLeft,
        /// A talk spurt began.
        AudioStarted,
        /// A talk spurt ended.
        AudioStopped,
        /// Somebody was muted or deafened.
        VoiceStateChanged,
        /// The channel is recorded from now on.
        RecordingStarted,
        /// The channel is not recorded any more.
        RecordingStopped,
        /// All that was recorded can be heard.
        RecordingFinished,
        /// A frame of another member, when UDP to us is not proven.
        AudioFrame = "AudioData",
        /// The group's next key.
        KeyRotated,
        /// How to encode from now on.
        QualityHint,
        /// Answers `Recover`.
        Recovered,
        /// Answers `join_room`.
        JoinedRoom = "joined",
        /// Somebody can be heard or seen.
        PublisherJoined = "publisher_joined",
        /// Somebody has gone.
        PublisherLeft = "publisher_left",
        /// Answers `publish_offer`.
        PublishAnswer = "publish_answer",
        /// What one may hear and see has changed.
        SubscribeOffer = "subscribe_offer",
        /// Answers `leave`.
        LeftRoom = "left",
        /// A message about rooms could not be carried out.
        RoomError = "error",
        /// Answers `join`.
        JoinAck = "join_ack",
        /// Somebody wrote in a room.
        MessagePosted = "message",
        /// Somebody wrote to somebody.
        DmPosted = "dm",
        /// Answers `room_history`.
        RoomHistoryPage = "room_history",
        /// Answers `dm_history`.
        DmHistoryPage = "dm_history",
        /// Somebody writes.
        TypingSeen = "typing",
        /// A message says something else now.
        MessageEdited = "message_edited",
        /// A message was taken away.
        MessageDeleted = "message_deleted",
        /// Which signs a message has now.
        ReactionsChanged = "reactions",
        /// One has read up to here.
        ReadMarked = "read",
        /// Answers `unread`.
        UnreadCounts = "unread",
        /// Answers `search`.
        SearchFound = "search",
        /// Who is there.
        PresenceSeen = "presence",
        /// Something is for oneself.
        Notified = "notification",
        /// One has read what was for oneself.
        NotificationsRead = "notifications_read",
        /// A message of the chat family could not be carried out.
        ChatError = "error",
        /// Somebody begins to listen to a file.
        ListeningBegun,
        /// They are done.
        ListeningEnded,
        /// How many listen.
        ListeningStats,
    }
}

/// Greets a connection before anything else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The new session.
    pub session_id: SessionId,
    /// Proves later that the session was ours.
    pub resume_token: String,
    /// How often to send `Heartbeat`; the session times out after three silent ones.
    pub heartbeat_ms: u64,
    /// The node's id.
    pub node: String,
    /// The node's clock.
    pub server_time_us: u64,
}

debug_without_secrets!(Hello { session_id, heartbeat_ms, node, server_time_us });

/// Who the session is; for a guest also their new tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// Who.
    pub user: UserView,
    /// Only for a guest made by this `Authenticate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
}

debug_without_secrets!(Authenticated { user });

/// The node's clock, for what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The node's clock.
    pub server_time_us: u64,
}

/// The session goes on, with new keys and addresses.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The session, as before.
    pub session_id: SessionId,
    /// A new token for the next time.
    pub resume_token: String,
    /// Who.
    pub user: UserView,
    /// Each channel the session is in.
    pub channels: Vec<ResumedChannel>,
    /// Each room that it reads and writes in by `join`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<ResumedText>,
}

debug_without_secrets!(Resumed { session_id, user, channels });

/// A channel that the session is still in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedChannel {
    /// What `ChannelJoined` says: the same stream id, new keys and addresses.
    #[serde(flatten)]
    pub joined: ChannelJoined,
    /// Present when a position was given: whether `events` is everything missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Every missed event in order, when `recovered` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<serde_json::Value>>,
}

/// A room that the session still reads and writes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedText {
    /// The channel's id.
    pub channel_id: ChannelId,
    /// The place in its journal from which on everything is told.
    pub position: Position,
    /// Present when a position was given: whether `events` is everything missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Every missed event in order, when `recovered` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<serde_json::Value>>,
}

/// Where to resume before the node stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconnect {
    /// Why.
    pub reason: String,
    /// How long this connection still works.
    pub grace_ms: u64,
    /// HTTP URLs of other nodes; empty when there is none.
    pub nodes: Vec<String>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// For programs.
    pub error_code: ErrorCode,
    /// For people: what is wrong and what would be right.
    pub error: String,
    /// Unix seconds.
    pub timestamp: u64,
}

/// Done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {}

/// Everything about the channel one has just entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelJoined {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Its settings.
    pub channel: ChannelView,
    /// Everyone in it, oneself included.
    pub members: Vec<MemberView>,
    /// The place of one's own join in the journal.
    pub position: Position,
    /// How to send and receive.
    pub voice: VoiceSetup,
    /// The recording that goes on; absent while the channel is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingNow>,
}

/// How to send and receive in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoiceSetup {
    /// One's own stream.
    pub stream_id: StreamId,
    /// The stream of one's mix, only with `mode: mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix_stream_id: Option<StreamId>,
    /// Only for `udp`.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpSetup>,
}

/// How to send and receive over UDP.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpSetup {
    /// What datagrams to the node carry.
    pub session_id: MediaSessionId,
    /// What Media from the node carries for this channel.
    pub group_id: GroupId,
    /// The node's addresses, `host:port`.
    pub udp: Vec<String>,
    /// What seals.
    pub cipher: Cipher,
    /// Standard base64.
    pub session_key: String,
    /// The group's key in force.
    pub group_key: GroupKeySetup,
    /// How often to send a Ping.
    pub ping_ms: u64,
}

debug_without_secrets!(UdpSetup { session_id, group_id, udp, cipher, group_key, ping_ms });

/// One key of a group.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupKeySetup {
    /// Which of the group's keys.
    pub key_id: KeyId,
    /// Standard base64.
    pub key: String,
}

debug_without_secrets!(GroupKeySetup { key_id });

/// One has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelLeft {
    /// Which channel.
    pub channel_id: ChannelId,
}

/// One was removed; the session stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Why.
    pub reason: LeaveReason,
    /// Who did it; `None` when the server did.
    pub by: Option<UserId>,
    /// Their own words, where they gave any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Another member came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserJoined {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Who.
    pub user_id: UserId,
    /// Their stream.
    pub stream_id: StreamId,
    /// Who, in full.
    pub user: UserView,
    /// How their voice travels.
    pub media: MediaTransport,
    /// The event's place in the journal.
    pub position: Position,
}

/// Another member went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLeft {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Who.
    pub user_id: UserId,
    /// Their stream.
    pub stream_id: StreamId,
    /// Why.
    pub reason: LeaveReason,
    /// The event's place in the journal.
    pub position: Position,
}

/// A talk spurt began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioStarted {
    /// Who speaks.
    pub user_id: UserId,
    /// Where.
    pub channel_id: ChannelId,
}

/// A talk spurt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioStopped {
    /// Who spoke.
    pub user_id: UserId,
    /// Where.
    pub channel_id: ChannelId,
}

/// A member's switches, all three as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoiceStateChanged {
    /// Whose.
    pub user_id: UserId,
    /// Where.
    pub channel_id: ChannelId,
    /// Muted themselves.
    pub muted: bool,
    /// Deafened themselves.
    pub deafened: bool,
    /// Muted by a moderator.
    pub server_muted: bool,
    /// Who changed it.
    pub by: UserId,
    /// The event's place in the journal.
    pub position: Position,
}

/// One frame of another member over the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioFrame {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Who speaks.
    pub user_id: UserId,
    /// Their stream.
    pub stream_id: StreamId,
    /// One Opus packet.
    pub data: AudioBytes,
    /// The frame's number.
    pub sequence: u16,
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// Kind and flags as in a datagram's frame.
    pub kind: u8,
    /// RFC 6464 level.
    pub level: u8,
}

/// The key that the node will seal with 200 ms from now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Which group of it.
    pub group_id: GroupId,
    /// Which key.
    pub key_id: KeyId,
    /// Standard base64.
    pub key: String,
}

debug_without_secrets!(KeyRotated { channel_id, group_id, key_id });

/// How to encode from now on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityHint {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Bits per second.
    pub bitrate: u32,
    /// Opus in-band forward error correction.
    pub fec: bool,
    /// Opus discontinuous transmission.
    pub dtx: bool,
    /// The share of frames to expect lost, 0 to 1.
    pub expected_loss: f32,
    /// Where in a 20 ms grid of the node's clock to start capture, so that a channel's speakers share datagrams.
    pub phase_us: u32,
}

/// What was missed: every event, or the full state. Never a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Whether `events` is everything missed.
    pub recovered: bool,
    /// With true: every missed event, in order, as it was sent (with its `type`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<serde_json::Value>>,
    /// With false: everyone in the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<MemberView>>,
    /// With false: the place that `members` is the state at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// With false: the recording that goes on; absent while the channel is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingNow>,
}
