//! The gateway's entry in the OpenAPI document; the gateway itself serves it.

use antiphon_core::ids::ChannelId;

/// Opens the gateway: a WebSocket over which clients join, speak and hear who is there, as `docs/protocol.md` says.
///
/// A token may come in the `Authorization` header, in the query, or in an `Authenticate` message within ten seconds.
/// With `Sec-WebSocket-Protocol: antiphon.msgpack` both sides send MessagePack instead of JSON.
#[utoipa::path(get, path = "/ws", tag = "gateway", security((), ("bearer" = [])),
    params(("token" = Option<String>, Query, description = "An access token"),
        ("room_id" = Option<ChannelId>, Query, description = "The room that the connection is for")),
    responses((status = SWITCHING_PROTOCOLS, description = "The WebSocket is open"),
        (status = UNAUTHORIZED, description = "`UNAUTHENTICATED`: the token is wrong or has run out", body = crate::api::error::ErrorBody)))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) fn gateway() {}
