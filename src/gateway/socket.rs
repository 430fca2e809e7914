//! The raw side of a connection: from an HTTP request to a WebSocket, and its quiet end.

use std::time::Duration;

use antiphon_core::gateway::FRAME_BYTES_MAX;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::metered::Metered;

/// What a WebSocket runs on.
pub(super) type Io = Metered<TokioIo<Upgraded>>;

/// Idle connections keep such a buffer for reading; a longer message grows it for as long as it takes.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// So much is collected before it is written to the socket.
pub(super) const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// What a socket holds at most that its client does not read: more than the longest message, which is one that names all
/// members of a large channel.
const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So much of what a client still sends is read and thrown away after the Close.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request that asks for a WebSocket.
pub(super) struct Handshake {
    accept_key: String,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Checks a request (RFC 6455, 4.2.1).
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn of(request: &mut Parts) -> Result<Self, &'static str> {
        let headers = &request.headers;
        if request.method != Method::GET || !has_token(headers, header::CONNECTION, "upgrade") {
            return Err("this is a WebSocket: connect to it with an upgrade request");
        }
        if !has_token(headers, header::UPGRADE, "websocket") {
            return Err("the Upgrade header must be `websocket`");
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err("the Sec-WebSocket-Version must be 13");
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or("the Sec-WebSocket-Key is missing")?;
        let accept_key = derive_accept_key(key.as_bytes());
        let upgrade = request.extensions.remove::<OnUpgrade>().ok_or("this connection cannot be upgraded")?;
        Ok(Self { accept_key, upgrade })
    }

    /// The answer, and the WebSocket once it has been sent.
    pub(super) fn accept(
        self,
        protocol: Option<&'static str>,
    ) -> (Response<Body>, impl Future<Output = Option<WebSocketStream<Io>>> + Send) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let accept = HeaderValue::try_from(self.accept_key).expect("base64 is a header value");
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let upgrade = self.upgrade;
        let socket = async {
            let io = Metered::new(TokioIo::new(upgrade.await.ok()?));
            Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await)
        };
        (response, socket)
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// Whether a header's comma-separated values name `token`.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Ends a connection so that the client gets to read our Close: a socket that is closed with unread bytes is reset, and
/// what was on its way to the client is lost.
pub(super) async fn linger(io: Io, patience: Duration) {
    let mut io = io.into_inner();
    let drain = async {
        io.shutdown().await?;
        let mut thrown_away = [0; 4 * 1024];
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match io.read(&mut thrown_away).await? {
                0 => break,
                length => total += length,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    // The connection ends here in any case.
    let _ = tokio::time::timeout(patience, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = axum::http::Request::new(()).into_parts().0;
        for &(name, value) in headers {
            request.headers.append(name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_told_why() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (missing, part) in [(0, "upgrade request"), (1, "`websocket`"), (2, "must be 13"), (3, "Key is missing")] {
            let mut headers = whole.to_vec();
            headers.remove(missing);
            let error = Handshake::of(&mut request(&headers)).map(|_| ()).expect_err("incomplete");
            assert!(error.contains(part), "{error}");
        }
        let error = Handshake::of(&mut request(&whole)).map(|_| ()).expect_err("no connection to upgrade");
        assert!(error.contains("cannot be upgraded"), "{error}");
    }

    #[test]
    fn a_token_is_found_among_others() {
        let headers = request(&[("sec-websocket-protocol", "chat, antiphon.msgpack"), ("x", "y")]);
        let has = |token| has_token(&headers.headers, header::SEC_WEBSOCKET_PROTOCOL, token);
        assert!(has("antiphon.msgpack") && has("chat") && !has("antiphon"));
    }
}
