//! What is written, which proves itself, and what is read of a message: no more than is needed, borrowed from its bytes.

use antiphon_core::gateway::Encoding;
use serde::Deserialize;

/// A content begins with the message's number in so many hexadecimal digits.
const DIGITS: usize = 8;

/// The shortest content.
pub(super) const MESSAGE_BYTES_MIN: usize = DIGITS;

/// The content of the message with that number: the number, and a fill that follows from it.
pub(super) fn content(number: u32, bytes: usize) -> String {
    let mut text = format!("{number:08x}");
    text.extend((DIGITS..bytes).map(|place| char::from(fill(number, place))));
    text
}

/// The number of a content that is whole.
pub(super) fn number_of(content: &str, bytes: usize) -> Option<u32> {
    let (digits, rest) = content.split_at_checked(DIGITS)?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    let mut filled = (DIGITS..).zip(rest.bytes());
    let is_whole = content.len() == bytes && filled.all(|(place, byte)| byte == fill(number, place));
    is_whole.then_some(number)
}

/// A letter that JSON and MessagePack have as it is.
const fn fill(number: u32, place: usize) -> u8 {
    b'a' + (number as u8).wrapping_add(place as u8) % 16
}

/// What is needed of a message from the server.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Heard<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) name: &'a str,
    #[serde(default)]
    pub(super) request_id: Option<i64>,
    /// Of an error of no family.
    #[serde(default, borrow)]
    error_code: Option<&'a str>,
    #[serde(default, borrow)]
    pub(super) data: Option<HeardData<'a>>,
}

/// What stands in `data`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct HeardData<'a> {
    #[serde(default)]
    pub(super) id: Option<u64>,
    #[serde(default, borrow)]
    pub(super) content: Option<&'a str>,
    #[serde(default, borrow)]
    pub(super) position: Option<HeardPosition<'a>>,
    #[serde(default, borrow)]
    error_code: Option<&'a str>,
}

/// Where it stands in the room's journal.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct HeardPosition<'a> {
    pub(super) epoch: &'a str,
    pub(super) offset: u64,
}

impl<'a> Heard<'a> {
    /// Reads it; `None` for messages of another make, which are none of ours.
    pub(super) fn read(encoding: Encoding, bytes: &'a [u8]) -> Option<Self> {
        match encoding {
            Encoding::Json => serde_json::from_slice(bytes).ok(),
            Encoding::MessagePack => rmp_serde::from_slice(bytes).ok(),
        }
    }

    /// Why a request was refused.
    pub(super) fn refusal(&self) -> Option<&'a str> {
        let code = self.data.as_ref().and_then(|data| data.error_code).or(self.error_code);
        code.filter(|_| self.name.eq_ignore_ascii_case("error"))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        gateway::{
            ChatErrorData, Error, ErrorCode, InData, MessageData, Position, RequestId, ServerMessage, Shape,
            encode_server,
        },
        ids::{ChannelId, MessageId, UserId},
    };

    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

    fn encoded(encoding: Encoding, message: impl Into<ServerMessage>, request: Option<i64>) -> Vec<u8> {
        encode_server(encoding, Shape::Tagged, &message.into(), request.map(RequestId::Number).as_ref())
    }

    fn posted(text: String) -> InData<MessageData> {
        InData::from(MessageData {
            id: MessageId(17),
            from_user: UserId(uuid::Uuid::nil()),
            username: "ann \"the\" first".to_owned(),
            content: text,
            timestamp: "2026-11-20T12:00:00Z".to_owned(),
            room: "lobby".to_owned(),
            channel_id: ChannelId(uuid::Uuid::nil()),
            reply_to: None,
            edited_at: None,
            deleted: None,
            reactions: None,
            mentions: None,
            position: Some(Position { epoch: "k3v9".to_owned(), offset: 42 }),
        })
    }

    #[test]
    fn a_content_is_its_number_and_nothing_else_passes_for_it() {
        for number in [0, 1, 25, 4_711, u32::MAX] {
            for bytes in [MESSAGE_BYTES_MIN, 100, 4_000] {
                let text = content(number, bytes);
                assert_eq!((text.len(), number_of(&text, bytes)), (bytes, Some(number)));
                assert_eq!(number_of(&text, bytes + 1), None);
                assert_eq!(number_of(&text.replacen('b', "c", 1), bytes), (bytes == 8).then_some(number));
            }
        }
        assert_eq!(number_of("hello", 5), None);
    }

    #[test]
    fn what_is_needed_is_read_in_either_encoding() {
        for encoding in BOTH {
            let bytes = encoded(encoding, posted(content(5, 30)), Some(5));
            let heard = Heard::read(encoding, &bytes).expect("a message");
            let data = heard.data.as_ref().expect("its data");
            assert_eq!((heard.name, heard.request_id, heard.refusal()), ("message", Some(5), None));
            assert_eq!((data.id, data.content.and_then(|text| number_of(text, 30))), (Some(17), Some(5)));
            let position = data.position.as_ref().map(|position| (position.epoch, position.offset));
            assert_eq!(position, Some(("k3v9", 42)));
        }
    }

    #[test]
    fn refusals_are_read_in_either_familys_words() {
        for encoding in BOTH {
            let error_code = ErrorCode::RateLimited;
            let chat = InData::from(ChatErrorData { message: "slowly".to_owned(), error_code });
            let bytes = encoded(encoding, chat, Some(3));
            assert_eq!(Heard::read(encoding, &bytes).expect("an error").refusal(), Some("RATE_LIMITED"));
            let error = Error { error: "slowly".to_owned(), error_code, timestamp: 1 };
            let bytes = encoded(encoding, error, None);
            assert_eq!(Heard::read(encoding, &bytes).expect("an error").refusal(), Some("RATE_LIMITED"));
        }
    }
}
