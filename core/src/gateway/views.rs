//! The shapes that both HTTP answers and gateway messages show of users, channels and members.

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelId, StreamId, UserId};

/// A user as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserView {
    /// The account's id.
    pub id: UserId,
    /// The unique name.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// `user` or `admin`.
    pub role: Role,
    /// False once an administrator has switched the account off.
    pub is_active: bool,
    /// True for a guest, who has no password.
    pub is_guest: bool,
    /// RFC 3339 UTC.
    pub created_at: String,
}

/// What an account may do on the server as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// An ordinary account.
    #[default]
    User,
    /// May use the admin paths, and every channel.
    Admin,
}

/// A channel as its members and listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelView {
    /// The channel's id.
    pub id: ChannelId,
    /// Unique, case folded.
    pub name: String,
    /// Free text, possibly empty.
    pub description: String,
    /// The account that made it.
    pub owner_id: UserId,
    /// How many may be in voice at once, on all nodes together.
    pub max_users: u32,
    /// 0: everyone is forwarded; else the loudest so many.
    pub max_speakers: u32,
    /// Hidden from all but members and those invited.
    pub is_private: bool,
    /// How many are in voice now.
    pub current_users: u32,
    /// RFC 3339 UTC.
    pub created_at: String,
}

/// How a member's voice travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MediaTransport {
    /// Sealed datagrams, with the gateway as fallback.
    #[default]
    Udp,
    /// `AudioData` over the gateway.
    Websocket,
    /// A WebRTC peer connection.
    Webrtc,
}

/// Whether a member hears each speaker's own stream or one mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaMode {
    /// Each speaker's frames as they came.
    #[default]
    Forward,
    /// One stream mixed by the node.
    Mixed,
}

/// The AEAD that seals a session's and its groups' datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-128-GCM (RFC 5116), 16-byte keys.
    #[default]
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// ChaCha20-Poly1305 (RFC 8439), 32-byte keys.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    /// Both ciphers, in the order of their index.
    pub const ALL: [Self; 2] = [Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The length of this cipher's keys in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::ChaCha20Poly1305 => 32,
        }
    }
}

/// A member of a channel's voice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberView {
    /// Who.
    pub user: UserView,
    /// Who, again, where older clients look for them.
    pub user_id: UserId,
    /// Their stream in this channel.
    pub stream_id: StreamId,
    /// Muted themselves.
    pub muted: bool,
    /// Deafened themselves.
    pub deafened: bool,
    /// Muted by a moderator.
    pub server_muted: bool,
    /// In a talk spurt now.
    pub speaking: bool,
    /// How their voice travels.
    pub media: MediaTransport,
}

/// A place in a channel's journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Which journal: a new one begins after a time without the old.
    pub epoch: String,
    /// Grows by one with each event.
    pub offset: u64,
}

/// Why a member left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// By `LeaveChannel` or by closing the connection.
    Left,
    /// The resume grace ran out.
    Timeout,
    /// Removed by a moderator.
    Kicked,
    /// Banned by a moderator.
    Banned,
    /// Joined again from another session.
    Replaced,
    /// Moved to another channel.
    Moved,
}
