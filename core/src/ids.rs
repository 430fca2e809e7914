//! Identifiers as types, so that none can stand where another belongs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A UUID that travels as a string in every encoding (JSON and MessagePack alike).
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a UUID as a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

uuid_id!(
    /// A person's account, or a guest's.
    UserId
);
uuid_id!(
    /// A channel: the one place where people talk, share video and write.
    ChannelId
);
uuid_id!(
    /// A gateway session: outlives its WebSocket connection by the resume grace.
    SessionId
);

uuid_id!(
    /// A place outside that is told what happens in a channel.
    WebhookId
);

uuid_id!(
    /// Something that one person is told of. What tells repetitions of it.
    NotificationId
);

uuid_id!(
    /// One way outside that a notification takes: the same in each attempt.
    DeliveryId
);

uuid_id!(
    /// A browser that a push service knows.
    PushId
);

uuid_id!(
    /// One recording of a channel: from its start to its stop, all who spoke in it.
    RecordingId
);

uuid_id!(
    /// One file of a recording: one speaker as one node heard them, from some moment on.
    TrackId
);

uuid_id!(
    /// One listener's session with one audio file.
    ListeningId
);

/// An unsigned number that travels as a number.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A client's UDP session on one node. Its remainder by the number of media workers names its worker.
    MediaSessionId(u32)
);
number_id!(
    /// The members of one channel with one cipher on one node: what a datagram from the node is addressed to.
    GroupId(u32)
);
number_id!(
    /// One user in one channel at one sample rate and channel count. Unique in the channel.
    StreamId(u32)
);
number_id!(
    /// Which of a group's keys sealed a datagram: 1 to 255 and round again; 0 is always the session key.
    KeyId(u8)
);
number_id!(
    /// A node while it runs: 1 to [`NodeNumber::MAX`], unique among those that live, another at each start.
    NodeNumber(u32)
);
number_id!(
    /// A message. Below 2^53, so that every client's numbers hold it.
    MessageId(u64)
);
number_id!(
    /// The index of a media worker on its node.
    WorkerIndex(u16)
);
/// A node's name, which it keeps over restarts (the setting `cluster.node_id`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl NodeNumber {
    /// The highest: 24 bits, so that a number and a worker share the id in a relay datagram.
    pub const MAX: Self = Self(0xff_ffff);
}

impl KeyId {
    /// The session key's id.
    pub const SESSION: Self = Self(0);
    /// A group's first key.
    pub const FIRST: Self = Self(1);

    /// The id after this one in a group: 1 to 255 and round again.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(if self.0 == u8::MAX { 1 } else { self.0 + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_travel_as_strings_and_name_what_is_wrong() {
        let id = ChannelId(Uuid::from_u128(7));
        let json = serde_json::to_string(&id).expect("serialises");
        assert_eq!(json, "\"00000000-0000-0000-0000-000000000007\"");
        assert_eq!(serde_json::from_str::<ChannelId>(&json).expect("parses"), id);
        let error = serde_json::from_str::<ChannelId>("\"lobby\"").expect_err("no UUID");
        assert!(error.to_string().contains("a UUID as a string"), "{error}");
    }

    #[test]
    fn group_key_ids_never_become_the_sessions() {
        let mut id = KeyId::FIRST;
        for _ in 0..1_000 {
            id = id.next();
            assert_ne!(id, KeyId::SESSION);
        }
    }
}
