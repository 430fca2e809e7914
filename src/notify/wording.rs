//! What is said outside of a notification.

use antiphon_core::gateway::NotificationKind;

use crate::{chat::notification_data, store::Notification};

/// Characters of a short message: two of the usual length, should all be of GSM's alphabet.
const SMS_CHARS_MAX: usize = 300;

/// A notification in words.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// In one line, without control characters.
    pub(super) title: String,
    /// The beginning of the message; may be empty.
    pub(super) text: String,
    /// Where it is on the page, if that is known.
    pub(super) link: Option<String>,
}

impl Words {
    pub(super) fn of(notification: &Notification, public_url: Option<&str>) -> Self {
        let (from, data) = (&notification.from_name, notification_data(notification));
        let room = data.room.as_deref().unwrap_or("a channel");
        let title = match notification.kind {
            NotificationKind::Mention => format!("{from} mentions you in {room}"),
            NotificationKind::Reply => format!("{from} answers you in {room}"),
            NotificationKind::DirectMessage => format!("{from} writes to you"),
            NotificationKind::Invitation => format!("{from} made you a member of {room}"),
        };
        let place = data.channel_id.map_or_else(String::new, |id| format!("#channel={id}"));
        let link = public_url.map(|url| format!("{}/{place}", url.trim_end_matches('/')));
        Self { title: one_line(&title), text: data.content, link }
    }

    /// As a mail.
    pub(super) fn mail(&self) -> String {
        let parts = [Some(self.title.as_str()), Some(self.text.as_str()), self.link.as_deref()];
        let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let farewell =
            "You get this because this address is in your account's notifications, where you can turn it off.";
        format!("{}\n\n-- \n{farewell}\n", parts.join("\n\n"))
    }

    /// As a short message.
    pub(super) fn sms(&self) -> String {
        let text = if self.text.is_empty() { self.title.clone() } else { format!("{}: {}", self.title, self.text) };
        let text = one_line(&text);
        match text.char_indices().nth(SMS_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// A text without line breaks and other control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::{ChannelId, MessageId, NotificationId, UserId};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn mention(content: &str) -> Notification {
        Notification {
            id: NotificationId(Uuid::from_u128(1)),
            user: UserId(Uuid::from_u128(2)),
            kind: NotificationKind::Mention,
            from: UserId(Uuid::from_u128(3)),
            from_name: "ada\r\nBcc: eve".to_owned(),
            channel: Some(ChannelId(Uuid::from_u128(4))),
            channel_name: Some("lobby".to_owned()),
            message: Some(MessageId(5)),
            content: content.to_owned(),
            is_deleted: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
            read_at: None,
        }
    }

    #[test]
    fn a_title_is_one_line_whatever_people_are_called() {
        let words = Words::of(&mention("hi"), Some("https://talk.example.org/"));
        assert_eq!(words.title, "ada  Bcc: eve mentions you in lobby");
        let link = words.link.as_deref().expect("a link");
        assert_eq!(link, "https://talk.example.org/#channel=00000000-0000-0000-0000-000000000004");
        assert!(words.mail().contains("hi\n\nhttps://talk"), "{}", words.mail());
    }

    #[test]
    fn short_messages_are_short() {
        let words = Words::of(&mention(&"word\n".repeat(1_000)), None);
        assert_eq!(words.link, None);
        let sms = words.sms();
        assert!(sms.chars().count() <= SMS_CHARS_MAX + 1 && !sms.contains('\n'), "{sms}");
    }
}
