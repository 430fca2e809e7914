//! The gateway's messages: what travels on the WebSocket, for server and client alike.
//!
//! `client` and `server` define the messages of the session and voice families (docs/protocol.md, section 3),
//! `codec` their three forms: JSON with `type`, `MessagePack` with `type`, and the externally tagged form.

mod audio_bytes;
mod client;
mod codec;
mod error_code;
mod server;
mod views;

pub use audio_bytes::AudioBytes;
pub use client::*;
pub use codec::{DecodeError, Encoding, RequestId, Shape, decode_client, decode_server, encode_client, encode_server};
pub use error_code::ErrorCode;
pub use server::*;
pub use views::*;

/// The WebSocket subprotocol that selects `MessagePack` in binary frames.
pub const MSGPACK_SUBPROTOCOL: &str = "antiphon.msgpack";

/// The longest frame a gateway accepts; a longer one closes with 1009.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
