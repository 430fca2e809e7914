//! What one person is told of (docs/protocol.md, 3.5): in the chat family's form.

use serde::{Deserialize, Serialize};

use super::InData;
use crate::ids::{ChannelId, MessageId, NotificationId, UserId};

/// Why somebody is told of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NotificationKind {
    /// A message in a room names them.
    Mention,
    /// A message in a room answers one of theirs.
    Reply,
    /// Somebody wrote to them.
    DirectMessage,
    /// They were made a member of a channel.
    Invitation,
}

impl NotificationKind {
    /// Each kind.
    pub const ALL: [Self; 4] = [Self::Mention, Self::Reply, Self::DirectMessage, Self::Invitation];

    /// The kind's text on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mention => "mention",
            Self::Reply => "reply",
            Self::DirectMessage => "direct_message",
            Self::Invitation => "invitation",
        }
    }

    /// The kind of that text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something is for oneself. It may come twice, with the same id.
pub type Notified = InData<NotificationData>;
/// One has read some of it, perhaps through another session.
pub type NotificationsRead = InData<NotificationsReadData>;

/// See [`Notified`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationData {
    /// Grows with time; repetitions have the same.
    pub id: NotificationId,
    /// Why.
    pub kind: NotificationKind,
    /// Who wrote, or invited.
    #[serde(rename = "fromUser")]
    pub from_user: UserId,
    /// What they were called then.
    pub username: String,
    /// RFC 3339 UTC.
    pub timestamp: String,
    /// The beginning of what they wrote, as it is now; empty for an invitation.
    pub content: String,
    /// The channel's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The channel's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<ChannelId>,
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
}

debug_without_secrets!(NotificationData { id, kind, from_user, channel_id });

/// See [`NotificationsRead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationsReadData {
    /// How many are left unread; 1000 stands for that many or more.
    pub unread: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_text_of_its_own() {
        for kind in NotificationKind::ALL {
            assert_eq!(NotificationKind::from_text(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("serialises"), kind.as_str());
        }
        assert_eq!(NotificationKind::from_text("other"), None);
    }
}
