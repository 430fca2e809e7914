//! What a client sends.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    AskPresence, AskUnread, AudioBytes, Block, Cipher, DeleteMessage, DmHistory, EditMessage, JoinRoom, JoinText,
    Leave, LeaveText, MarkRead, MediaMode, MediaTransport, Position, PostMessage, PublishOffer, React, ReportMessage,
    RoomHistory, Search, SendDm, Subscribe, SubscribeAnswer, TrickleIce, Typing, WatchListening, codec::messages,
};
use crate::ids::{ChannelId, SessionId, UserId};

messages! {
    /// A message from a client.
    ClientMessage {
        /// Proves who this is, within 10 s of connecting.
        Authenticate,
        /// Keeps the session alive.
        Heartbeat,
        /// Takes a lost session up again, instead of `Authenticate`.
        Resume,
        /// Enters a channel's voice.
        JoinChannel,
        /// Leaves it.
        LeaveChannel,
        /// Announces speaking; makes no frame.
        StartAudio,
        /// Announces its end; makes no frame.
        StopAudio,
        /// Mutes or deafens oneself.
        SetVoiceState,
        /// Sets how loud one hears somebody in one's mix.
        SetMixGain,
        /// A frame, when UDP is blocked.
        AudioData,
        /// Asks for what was missed after a gap.
        Recover,
        /// Enters a room.
        JoinRoom = "join_room",
        /// Publishes in it.
        PublishOffer = "publish_offer",
        /// One more way to the client.
        TrickleIce = "trickle_ice",
        /// Chooses whom to hear and see.
        Subscribe = "subscribe",
        /// Answers `subscribe_offer`.
        SubscribeAnswer = "subscribe_answer",
        /// Leaves the room.
        Leave = "leave",
        /// Enters a room's text.
        JoinText = "join",
        /// Leaves it.
        LeaveText = "leave_room",
        /// Writes in a room.
        PostMessage = "message",
        /// Writes to somebody.
        SendDm = "dm",
        /// Asks for what was written in a room.
        RoomHistory = "room_history",
        /// Asks for what two people wrote to each other.
        DmHistory = "dm_history",
        /// Says that one writes.
        Typing = "typing",
        /// Changes a message.
        EditMessage = "edit",
        /// Takes a message away.
        DeleteMessage = "delete",
        /// Puts a sign to a message.
        React = "react",
        /// Says up to where one has read.
        MarkRead = "mark_read",
        /// Asks how much is unread.
        AskUnread = "unread",
        /// Looks for words.
        Search = "search",
        /// Asks who is there.
        AskPresence = "presence",
        /// Lets nothing of somebody through.
        Block = "block",
        /// Tells the moderators of a message.
        ReportMessage = "report",
        /// Has administrators told who listens.
        WatchListening,
    }
}

impl ClientMessage {
    /// Whether messages of a type are of the family of rooms, whose errors have a form of their own.
    #[must_use]
    pub fn is_of_rooms(name: &str) -> bool {
        ["join_room", "publish_offer", "trickle_ice", "subscribe", "subscribe_answer", "leave"].contains(&name)
    }
}

/// `token`, or `username` for a guest.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticate {
    /// An access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A guest's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

debug_without_secrets!(Authenticate { username });

/// Answered by `HeartbeatAck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {}

/// The lost session and the proof that it was ours.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// From the lost session's `Hello` or `Resumed`.
    pub session_id: SessionId,
    /// From the same message.
    pub resume_token: String,
    /// The last position seen of each channel; a channel given here answers with what was missed.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub positions: HashMap<ChannelId, Position>,
}

debug_without_secrets!(Resume { session_id, positions });

/// How to enter a channel's voice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinChannel {
    /// Which channel.
    pub channel_id: ChannelId,
    /// How voice is to travel.
    #[serde(default)]
    pub media: MediaTransport,
    /// Streams or one mix.
    #[serde(default)]
    pub mode: MediaMode,
    /// The cipher of the UDP session; `None` is the session's own, or AES-128-GCM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<Cipher>,
    /// In Hz; one of 8000, 12000, 16000, 24000, 48000. `None` is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// 1 or 2. `None` is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// An invite's code, for a private channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
}

/// Which channel to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveChannel {
    /// Which channel.
    pub channel_id: ChannelId,
}

/// Which channel one is about to speak in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartAudio {
    /// Which channel.
    pub channel_id: ChannelId,
}

/// Which channel one has stopped speaking in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAudio {
    /// Which channel.
    pub channel_id: ChannelId,
}

/// One's own mute and deafen switches; an absent one stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVoiceState {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Nothing of ours is forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<bool>,
    /// Nothing is sent to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deafened: Option<bool>,
}

/// How loud one hears a speaker in one's own mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMixGain {
    /// Which channel, joined with `mode: mixed`.
    pub channel_id: ChannelId,
    /// Whom.
    pub user_id: UserId,
    /// 0 is silence, 100 as they are, 200 twice the amplitude.
    pub gain_percent: u16,
}

/// One frame over the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioData {
    /// Which channel.
    pub channel_id: ChannelId,
    /// One Opus packet, or nothing for a stop or silence.
    pub data: AudioBytes,
    /// The frame's number; the node goes on from the last one it knows when absent (older clients' short form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u16>,
    /// 48 kHz sample clock; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u32>,
    /// Kind and flags as in a datagram's frame; 0, audio, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// RFC 6464 level, 0 to 127; 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
}

/// The last position seen before a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last event seen.
    pub position: Position,
}
