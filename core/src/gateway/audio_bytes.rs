//! Opus bytes in a gateway message: base64 text in JSON, plain bytes in `MessagePack`.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The bytes of one frame.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AudioBytes(pub Vec<u8>);

impl fmt::Debug for AudioBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AudioBytes({} bytes)", self.0.len())
    }
}

impl Serialize for AudioBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for AudioBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = AudioBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text (JSON) or bytes (MessagePack)")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AudioBytes, E> {
                STANDARD.decode(text).map(AudioBytes).map_err(|_| E::custom("data is not standard base64"))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<AudioBytes, E> {
                Ok(AudioBytes(bytes.to_vec()))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Either)
        } else {
            deserializer.deserialize_bytes(Either)
        }
    }
}
