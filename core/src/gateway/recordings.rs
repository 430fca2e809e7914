//! What members are told of recordings of their channel.

use serde::{Deserialize, Serialize};

use super::Position;
use crate::ids::{ChannelId, RecordingId, UserId};

/// A recording that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordingNow {
    /// Which.
    pub recording_id: RecordingId,
    /// Who began it.
    pub by: UserId,
    /// When, RFC 3339 UTC.
    pub started_at: String,
}

/// The channel is recorded from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingStarted {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The recording.
    #[serde(flatten)]
    pub recording: RecordingNow,
    /// The event's place in the journal; absent where it is told after a time without the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// The channel is not recorded any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingStopped {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Which recording.
    pub recording_id: RecordingId,
    /// Why.
    pub reason: RecordingEnd,
    /// Who ended it; `None` when the server did.
    pub by: Option<UserId>,
    /// As in [`RecordingStarted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// All that was recorded can be heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingFinished {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Which recording.
    pub recording_id: RecordingId,
    /// How many files it has: at least one for each who spoke.
    pub tracks: u32,
    /// As in [`RecordingStarted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RecordingEnd {
    /// Somebody ended it.
    Stopped,
    /// It was as long as a recording may be.
    MaxLength,
    /// It was as big as a recording may be.
    MaxSize,
    /// All recordings together are as big as they may be.
    Quota,
    /// The disk is nearly full.
    DiskFull,
    /// Nobody was in the channel for a while.
    Empty,
}

impl RecordingEnd {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Stopped, Self::MaxLength, Self::MaxSize, Self::Quota, Self::DiskFull, Self::Empty];

    /// Its text on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::MaxLength => "max_length",
            Self::MaxSize => "max_size",
            Self::Quota => "quota",
            Self::DiskFull => "disk_full",
            Self::Empty => "empty",
        }
    }

    /// The one of that text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_one_text() {
        for reason in RecordingEnd::ALL {
            assert_eq!(RecordingEnd::from_text(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_string(&reason).expect("serialises"), format!("\"{}\"", reason.as_str()));
        }
    }
}
