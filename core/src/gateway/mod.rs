//! The gateway's messages: what travels on the WebSocket, for server and client alike.
//!
//! `client` and `server` define the messages of the session and voice families (docs/protocol.md, section 3), `rooms` those of
//! rooms, `chat` those of the chat family, `notifications` what one person is told of, `listening` what administrators are told of listeners,
//! `codec` their three forms: JSON with `type`, `MessagePack` with `type`, and the externally tagged form.

/// `Debug` that shows the named fields only: the others are secrets, which belong in no log.
macro_rules! debug_without_secrets {
    ($type:ident { $($shown:ident),* }) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($shown), &self.$shown))*.finish_non_exhaustive()
            }
        }
    };
}

mod audio_bytes;
mod chat;
mod client;
mod codec;
mod error_code;
mod listening;
mod notifications;
mod recordings;
mod rooms;
mod server;
mod views;

pub use audio_bytes::AudioBytes;
pub use chat::*;
pub use client::*;
pub use codec::{
    DecodeError, Encoding, RequestId, Shape, decode_client, decode_server, encode_client, encode_server,
    without_type_names,
};
pub use error_code::ErrorCode;
pub use listening::*;
pub use notifications::*;
pub use recordings::*;
pub use rooms::*;
pub use server::*;
pub use views::*;

/// The WebSocket subprotocol that selects `MessagePack` in binary frames.
pub const MSGPACK_SUBPROTOCOL: &str = "antiphon.msgpack";

/// The longest frame a gateway accepts; a longer one closes with 1009.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
