//! The three forms of a message, both ways.
//!
//! | form | example |
//! |---|---|
//! | tagged JSON | `{"type":"JoinChannel","request_id":1,"channel_id":"…"}` in a text frame |
//! | tagged `MessagePack` | the same map in a binary frame; only audio is bytes instead of base64 |
//! | externally tagged | `{"JoinChannel":{"request_id":1,"channel_id":"…"}}`, in either encoding; `"Heartbeat"` where there are no fields |

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, IgnoredAny, MapAccess},
    ser::SerializeMap,
};

use super::{ClientMessage, ServerMessage};

/// How bytes encode a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text frames.
    #[default]
    Json,
    /// Binary frames.
    MessagePack,
}

/// Where a message carries its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    /// In a field `type`.
    #[default]
    Tagged,
    /// As the only key of the outer map.
    External,
}

/// A client's own number or text for a message; its direct answer carries the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A whole number.
    Number(i64),
    /// Text of at most [`RequestId::TEXT_BYTES_MAX`] bytes.
    Text(String),
}

impl RequestId {
    /// The longest text accepted.
    pub const TEXT_BYTES_MAX: usize = 128;
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the encoding, or no map with a type.
    #[error("not a message: {0}; send a map with a `type`")]
    Malformed(String),
    /// A well-formed message of no known type.
    #[error("unknown message type `{name}`")]
    UnknownType {
        /// The type as sent, cut to 64 characters.
        name: String,
        /// To be echoed in the error.
        request_id: Option<RequestId>,
    },
    /// A known type with wrong fields.
    #[error("{name}: {reason}")]
    Invalid {
        /// The message type.
        name: &'static str,
        /// What is wrong and what would be right.
        reason: String,
        /// To be echoed in the error.
        request_id: Option<RequestId>,
        /// The form to answer in.
        shape: Shape,
    },
}

/// Defines a family's enum and its three encodings from a list of body types.
macro_rules! messages {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident $(= $wire:literal)?,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $enum {
            $($(#[$variant_doc])* $variant($variant),)*
        }

        $(impl From<$variant> for $enum {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*

        impl $enum {
            /// The type names on the wire.
            pub const NAMES: &'static [&'static str] = &[$($crate::gateway::codec::wire_name!($variant $(= $wire)?)),*];

            /// The message's type on the wire.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $crate::gateway::codec::wire_name!($variant $(= $wire)?),)*
                }
            }
        }

        impl $crate::gateway::codec::Family for $enum {
            fn names() -> &'static [&'static str] {
                Self::NAMES
            }

            fn parse_body<B: $crate::gateway::codec::Body>(name: &str, body: B) -> Result<Self, String> {
                // Families share the name `error`: of several with one name, it is the one that can be read.
                let mut wrong = format!("unknown type {name}");
                $(if name == $crate::gateway::codec::wire_name!($variant $(= $wire)?) {
                    match body.parse::<$variant>() {
                        Ok(body) => return Ok(Self::$variant(body)),
                        Err(reason) => wrong = reason,
                    }
                })*
                Err(wrong)
            }

            fn write<W: $crate::gateway::codec::WriteBody>(&self, writer: W) -> Result<W::Output, W::Error> {
                match self {
                    $(Self::$variant(body) => writer.write(self.name(), body),)*
                }
            }
        }
    };
}
pub(super) use messages;

macro_rules! wire_name {
    ($variant:ident = $wire:literal) => {
        $wire
    };
    ($variant:ident) => {
        stringify!($variant)
    };
}
pub(super) use wire_name;

/// A set of messages that travel in one direction.
pub(super) trait Family: Sized {
    fn names() -> &'static [&'static str];
    fn parse_body<B: Body>(name: &str, body: B) -> Result<Self, String>;
    fn write<W: WriteBody>(&self, writer: W) -> Result<W::Output, W::Error>;
}

/// The encoded fields of one message, in either encoding and shape.
pub(super) trait Body: Copy {
    fn parse<T: DeserializeOwned>(self) -> Result<T, String>;
}

/// Something that writes one message's fields under its type.
pub(super) trait WriteBody {
    type Output;
    type Error;
    fn write<T: Serialize>(self, name: &'static str, body: &T) -> Result<Self::Output, Self::Error>;
}

/// Decodes a client's message.
///
/// # Errors
/// When the bytes are no message of the family; the error says which part and what would be right.
pub fn decode_client(
    encoding: Encoding,
    bytes: &[u8],
) -> Result<(ClientMessage, Option<RequestId>, Shape), DecodeError> {
    decode(encoding, bytes)
}

/// Decodes a server's message.
///
/// # Errors
/// As [`decode_client`].
pub fn decode_server(
    encoding: Encoding,
    bytes: &[u8],
) -> Result<(ServerMessage, Option<RequestId>, Shape), DecodeError> {
    decode(encoding, bytes)
}

/// Encodes a server's message.
#[must_use]
pub fn encode_server(
    encoding: Encoding,
    shape: Shape,
    message: &ServerMessage,
    request_id: Option<&RequestId>,
) -> Vec<u8> {
    let shape = if message.is_of_chat() { Shape::Tagged } else { shape };
    encode(encoding, shape, message, request_id)
}

/// Encodes a client's message.
#[must_use]
pub fn encode_client(
    encoding: Encoding,
    shape: Shape,
    message: &ClientMessage,
    request_id: Option<&RequestId>,
) -> Vec<u8> {
    encode(encoding, shape, message, request_id)
}

fn encode<F: Family>(encoding: Encoding, shape: Shape, message: &F, request_id: Option<&RequestId>) -> Vec<u8> {
    let framed = Framed { shape, message, request_id };
    match encoding {
        Encoding::Json => serde_json::to_vec(&framed).expect("messages are maps of strings and numbers"),
        Encoding::MessagePack => rmp_serde::to_vec_named(&framed).expect("messages are maps of strings and numbers"),
    }
}

struct Framed<'a, F> {
    shape: Shape,
    message: &'a F,
    request_id: Option<&'a RequestId>,
}

impl<F: Family> Serialize for Framed<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.message.write(FramedWriter { shape: self.shape, request_id: self.request_id, serializer })
    }
}

struct FramedWriter<'a, S> {
    shape: Shape,
    request_id: Option<&'a RequestId>,
    serializer: S,
}

/// A message's fields with what frames them.
#[derive(Serialize)]
struct Fields<'a, T> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RequestId>,
    #[serde(flatten)]
    body: &'a T,
}

impl<S: Serializer> WriteBody for FramedWriter<'_, S> {
    type Output = S::Ok;
    type Error = S::Error;

    fn write<T: Serialize>(self, name: &'static str, body: &T) -> Result<S::Ok, S::Error> {
        let tagged = matches!(self.shape, Shape::Tagged);
        let fields = Fields { name: tagged.then_some(name), request_id: self.request_id, body };
        if tagged {
            return fields.serialize(self.serializer);
        }
        let mut map = self.serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &fields)?;
        map.end()
    }
}

fn decode<F: Family>(encoding: Encoding, bytes: &[u8]) -> Result<(F, Option<RequestId>, Shape), DecodeError> {
    let head: Head = parse(encoding, bytes).map_err(DecodeError::Malformed)?;
    let (name, shape) = match (head.tag, head.only_key) {
        (Some(tag), _) => (tag, Shape::Tagged),
        (None, Some(key)) => (key, Shape::External),
        (None, None) => return Err(DecodeError::Malformed("it has no `type`".to_owned())),
    };
    let given = match shape {
        Shape::Tagged => Ok(head.request_id),
        Shape::External => parse::<External<RequestIdOnly>>(encoding, bytes).map(|outer| outer.0.request_id),
    };
    let (request_id, wrong_id) = match given.and_then(|given| given.map(GivenId::read).transpose()) {
        Ok(request_id) => (request_id, None),
        Err(reason) => (None, Some(reason)),
    };
    let Some(&name) = F::names().iter().find(|known| **known == name) else {
        return Err(DecodeError::UnknownType { name: name.chars().take(64).collect(), request_id });
    };
    if let Some(reason) = wrong_id {
        return Err(DecodeError::Invalid { name, reason, request_id, shape });
    }
    match F::parse_body(name, EncodedBody { encoding, shape, bytes }) {
        Ok(message) => Ok((message, request_id, shape)),
        Err(reason) => Err(DecodeError::Invalid { name, reason, request_id, shape }),
    }
}

#[derive(Clone, Copy)]
struct EncodedBody<'a> {
    encoding: Encoding,
    shape: Shape,
    bytes: &'a [u8],
}

impl Body for EncodedBody<'_> {
    fn parse<T: DeserializeOwned>(self) -> Result<T, String> {
        match self.shape {
            Shape::Tagged => parse(self.encoding, self.bytes),
            Shape::External => parse::<External<T>>(self.encoding, self.bytes).map(|outer| outer.0),
        }
    }
}

fn parse<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|error| without_type_names(&error.to_string())),
        Encoding::MessagePack => rmp_serde::from_slice(bytes).map_err(|error| without_type_names(&error.to_string())),
    }
}

/// What a reader of maps says is wrong, without what our types are called: that is of no use to who reads it.
#[must_use]
pub fn without_type_names(reason: &str) -> String {
    const NAMED: &str = "expected struct ";
    let Some((before, rest)) = reason.rsplit_once(NAMED) else { return reason.to_owned() };
    let after = rest.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_');
    format!("{before}expected a map{after}")
}

#[derive(Deserialize)]
struct RequestIdOnly {
    #[serde(default)]
    request_id: Option<GivenId>,
}

/// What a client gives for a `request_id`.
#[derive(Deserialize)]
#[serde(untagged)]
enum GivenId {
    Number(i64),
    Text(String),
    Other(IgnoredAny),
}

impl GivenId {
    fn read(self) -> Result<RequestId, String> {
        match self {
            Self::Number(number) => Ok(RequestId::Number(number)),
            Self::Text(text) if text.len() <= RequestId::TEXT_BYTES_MAX => Ok(RequestId::Text(text)),
            Self::Text(_) => Err(format!("request_id is longer than {} bytes", RequestId::TEXT_BYTES_MAX)),
            Self::Other(_) => Err("request_id is neither a whole number from -2^63 to 2^63-1 nor text".to_owned()),
        }
    }
}

/// What tells a message's type, whichever shape it has.
struct Head {
    tag: Option<String>,
    request_id: Option<GivenId>,
    /// The outer map's key, where it has just one and that is not `type`; or the name that stands there by itself.
    only_key: Option<String>,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;
        impl<'de> de::Visitor<'de> for HeadVisitor {
            type Value = Head;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with a `type`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
                let mut head = Head { tag: None, request_id: None, only_key: None };
                let mut keys = 0_usize;
                while let Some(key) = map.next_key::<String>()? {
                    keys += 1;
                    match key.as_str() {
                        "type" => head.tag = Some(map.next_value()?),
                        "request_id" => head.request_id = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            head.only_key = Some(key);
                        }
                    }
                }
                if keys != 1 {
                    head.only_key = None;
                }
                Ok(head)
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Head, E> {
                Ok(Head { tag: None, request_id: None, only_key: Some(name.to_owned()) })
            }
        }
        deserializer.deserialize_any(HeadVisitor)
    }
}

/// The value of a map's only entry; without a map, of fields that are all left out.
struct External<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for External<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Only<T> {
            type Value = External<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with the message type as its only key")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<External<T>, A::Error> {
                map.next_key::<IgnoredAny>()?;
                let body = map.next_value()?;
                Ok(External(body))
            }
            fn visit_str<E: de::Error>(self, _name: &str) -> Result<External<T>, E> {
                T::deserialize(de::value::MapDeserializer::new(std::iter::empty::<((), ())>())).map(External)
            }
        }
        deserializer.deserialize_any(Only(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::*, ids::*};

    fn channel() -> ChannelId {
        ChannelId(uuid::Uuid::from_u128(0xC0))
    }

    #[test]
    fn older_clients_forms_are_understood() {
        let tagged = br#"{"type":"JoinChannel","channel_id":"00000000-0000-0000-0000-0000000000c0","user_id":"x"}"#;
        let external = br#"{"JoinChannel":{"channel_id":"00000000-0000-0000-0000-0000000000c0","request_id":"a"}}"#;
        let (message, id, shape) = decode_client(Encoding::Json, tagged).expect("tagged");
        assert!(matches!(message, ClientMessage::JoinChannel(join) if join.channel_id == channel()));
        assert_eq!((id, shape), (None, Shape::Tagged));
        let (message, id, shape) = decode_client(Encoding::Json, external).expect("external");
        assert!(matches!(message, ClientMessage::JoinChannel(join) if join.channel_id == channel()));
        assert_eq!((id, shape), (Some(RequestId::Text("a".into())), Shape::External));
    }

    #[test]
    fn a_request_id_of_another_kind_is_said_to_be_wrong_in_either_form() {
        for wrong in ["{}", "1.5", "[1]", "true", "18446744073709551615"] {
            let tagged = format!(r#"{{"type":"Heartbeat","request_id":{wrong}}}"#);
            let external = format!(r#"{{"Heartbeat":{{"request_id":{wrong}}}}}"#);
            for text in [tagged, external] {
                let error = decode_client(Encoding::Json, text.as_bytes()).expect_err("no id");
                assert_eq!(
                    error.to_string(),
                    "Heartbeat: request_id is neither a whole number from -2^63 to 2^63-1 nor text",
                    "{text}"
                );
            }
        }
        for unreadable in [r#""request_id":1e400"#, r#""request_id":"\ud800""#, r#""request_id":1,"request_id":2"#] {
            let error = decode_client(Encoding::Json, format!(r#"{{"Heartbeat":{{{unreadable}}}}}"#).as_bytes());
            assert!(matches!(error, Err(DecodeError::Invalid { name: "Heartbeat", .. })), "{unreadable}: {error:?}");
        }
        let (_, none, _) = decode_client(Encoding::Json, br#"{"type":"Heartbeat","request_id":null}"#).expect("no id");
        assert_eq!(none, None);
    }

    #[test]
    fn what_is_wrong_is_said_without_our_names() {
        let offer = br#"{"type":"publish_offer","payload":null}"#;
        let error = decode_client(Encoding::Json, offer).expect_err("no payload").to_string();
        assert!(error.starts_with("publish_offer: invalid type: null, expected a map"), "{error}");
        assert_eq!(without_type_names("missing field `a`"), "missing field `a`");
    }

    #[test]
    fn a_message_without_fields_may_be_its_name_alone() {
        for (encoding, bytes) in [(Encoding::Json, &br#""Heartbeat""#[..]), (Encoding::MessagePack, b"\xa9Heartbeat")] {
            let (message, id, shape) = decode_client(encoding, bytes).expect("understood");
            assert!(matches!(message, ClientMessage::Heartbeat(_)), "{message:?}");
            assert_eq!((id, shape), (None, Shape::External));
        }
        let without = decode_client(Encoding::Json, br#""JoinChannel""#);
        assert!(
            matches!(without, Err(DecodeError::Invalid { name: "JoinChannel", ref reason, .. }) if reason.contains("channel_id")),
            "{without:?}"
        );
    }

    #[test]
    fn audio_is_base64_in_json_and_bytes_in_messagepack() {
        let audio: ServerMessage = AudioFrame {
            channel_id: channel(),
            user_id: UserId(uuid::Uuid::from_u128(1)),
            stream_id: StreamId(5),
            data: AudioBytes(vec![0xfc, 0xff, 0xfe]),
            sequence: 1,
            timestamp: 960,
            kind: 0,
            level: 30,
        }
        .into();
        let json = encode_server(Encoding::Json, Shape::Tagged, &audio, None);
        assert!(String::from_utf8(json).expect("UTF-8").contains(r#""type":"AudioData""#));
        let packed = encode_server(Encoding::MessagePack, Shape::Tagged, &audio, None);
        // bin 8, length 3, then the bytes themselves
        assert!(packed.windows(5).any(|window| window == [0xc4, 3, 0xfc, 0xff, 0xfe]));
    }

    #[test]
    fn every_form_round_trips() {
        let message: ClientMessage = AudioData {
            channel_id: channel(),
            data: AudioBytes(vec![1, 2, 3]),
            sequence: Some(9),
            timestamp: None,
            kind: None,
            level: Some(3),
        }
        .into();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            for shape in [Shape::Tagged, Shape::External] {
                let id = Some(RequestId::Number(4));
                let bytes = encode_client(encoding, shape, &message, id.as_ref());
                assert_eq!(decode_client(encoding, &bytes), Ok((message.clone(), id, shape)), "{encoding:?} {shape:?}");
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let unknown = decode_client(Encoding::Json, br#"{"type":"Dance","request_id":3}"#);
        assert_eq!(
            unknown,
            Err(DecodeError::UnknownType { name: "Dance".into(), request_id: Some(RequestId::Number(3)) })
        );
        let invalid = decode_client(Encoding::Json, br#"{"type":"JoinChannel","channel_id":"lobby"}"#);
        assert!(
            matches!(invalid, Err(DecodeError::Invalid { name: "JoinChannel", ref reason, .. }) if reason.contains("UUID"))
        );
        for garbage in [&b"[1]"[..], b"{", b"17", b"{}", b"\xff"] {
            assert!(matches!(decode_client(Encoding::Json, garbage), Err(DecodeError::Malformed(_))), "{garbage:?}");
        }
    }
}
