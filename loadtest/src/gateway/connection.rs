//! One WebSocket to a gateway: messages out, messages in.

use std::{io, sync::Once, time::Duration};

use antiphon_core::gateway::{
    ClientMessage, Encoding, MSGPACK_SUBPROTOCOL, RequestId, ServerMessage, Shape, decode_server, encode_client,
};
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::scheme::WrongScheme;
use crate::tls;

/// The longest message taken from a server: the state of a channel of some ten thousand members.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Small, so that thousands of connections fit in one process.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// How long connecting, and closing, may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The server did not accept the WebSocket.
    #[error("the server refused the WebSocket with HTTP status {0}")]
    Refused(u16),
    /// The URL's scheme is not the server's.
    #[error("{0}")]
    Scheme(WrongScheme),
    /// It took too long.
    #[error("the server did not answer within {HANDSHAKE_TIMEOUT:?}")]
    TimedOut,
    /// The token cannot be sent.
    #[error("the token holds characters that no HTTP header can")]
    Token,
    /// The network failed, or the peer broke the protocol.
    #[error(transparent)]
    WebSocket(Box<tungstenite::Error>),
    /// The server sent what is no message.
    #[error("the server sent what is no message: {0}")]
    Message(String),
    /// The connection was closed.
    #[error("closed: {0}")]
    Closed(Closed),
}

impl From<tungstenite::Error> for ConnectionError {
    fn from(error: tungstenite::Error) -> Self {
        if let Some(wrong) = WrongScheme::of_refusal(&error) {
            return Self::Scheme(wrong);
        }
        match error {
            tungstenite::Error::Http(response) => Self::Refused(response.status().as_u16()),
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        tungstenite::Error::from(error).into()
    }
}

/// How the server closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The WebSocket's close code; 1006 when there was none.
    pub code: u16,
    /// Whether connecting anew makes sense.
    pub reconnect: bool,
    /// Whether the session may be resumed.
    pub resume: bool,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match self.code {
            1000 | 1001 => "normal",
            1006 => "the connection broke",
            1009 => "a message was too long",
            4001 => "not authenticated in time",
            4003 => "authentication failed",
            4008 => "too many messages, or too many malformed ones",
            4009 => "the session timed out",
            4011 => "we read too slowly",
            4012 => "the node is draining",
            4014 => "banned from the server",
            4015 => "replaced by a newer connection",
            _ => "for a reason unknown to this client",
        };
        write!(f, "{meaning} (code {})", self.code)
    }
}

impl Closed {
    /// The connection broke without a word.
    pub(crate) const BROKEN: Self = Self { code: 1006, reconnect: true, resume: true };

    pub(super) fn from_frame(frame: Option<CloseFrame>) -> Self {
        #[derive(Deserialize)]
        struct Reason {
            reconnect: bool,
            resume: bool,
        }
        let Some(frame) = frame else { return Self::BROKEN };
        // A server of another make may give no reason in JSON: then nothing says that the session is gone.
        let reason = serde_json::from_str(&frame.reason).unwrap_or(Reason { reconnect: true, resume: true });
        Self { code: frame.code.into(), reconnect: reason.reconnect, resume: reason.resume }
    }
}

/// The connection.
pub(super) struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
}

impl Connection {
    pub(super) async fn open(url: &Url, encoding: Encoding, token: Option<&str>) -> Result<Self, ConnectionError> {
        install_crypto_provider();
        let request = request(url, encoding, token)?;
        let connector = tls::chosen().map(Connector::Rustls);
        let connecting = connect_async_tls_with_config(request, Some(config()), true, connector);
        let (socket, _) =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| ConnectionError::TimedOut)??;
        Ok(Self { socket, encoding })
    }

    pub(super) async fn send(
        &mut self,
        message: &ClientMessage,
        request_id: Option<i64>,
    ) -> Result<(), ConnectionError> {
        Ok(self.socket.send(frame(self.encoding, message, request_id)?).await?)
    }

    /// The next message with the request it answers. Cancelling this loses nothing.
    ///
    /// # Errors
    /// When the connection is over, or the server sent what is no message.
    pub(super) async fn next(&mut self) -> Result<(ServerMessage, Option<i64>), ConnectionError> {
        loop {
            let frame = match self.socket.next().await {
                Some(frame) => frame?,
                None => return Err(ConnectionError::Closed(Closed::BROKEN)),
            };
            let (encoding, bytes) = match frame {
                Message::Text(text) => (Encoding::Json, bytes_of(text)),
                Message::Binary(bytes) => (Encoding::MessagePack, bytes),
                Message::Close(frame) => return Err(ConnectionError::Closed(Closed::from_frame(frame))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let (message, request_id, _) =
                decode_server(encoding, &bytes).map_err(|error| ConnectionError::Message(error.to_string()))?;
            let request_id = match request_id {
                Some(RequestId::Number(number)) => Some(number),
                Some(RequestId::Text(_)) | None => None,
            };
            return Ok((message, request_id));
        }
    }

    /// Leaves in good order: the server ends the session at once.
    pub(super) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let closing = async {
            self.socket.close(Some(frame)).await?;
            // Until the peer has answered, the kernel might throw away what it has not sent.
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, tungstenite::Error>(())
        };
        // A peer that does not answer is gone either way.
        let _closed = tokio::time::timeout(HANDSHAKE_TIMEOUT, closing).await;
    }
}

/// Asks for a WebSocket in that encoding, as whom the token stands for.
pub(super) fn request(url: &Url, encoding: Encoding, token: Option<&str>) -> Result<Request, ConnectionError> {
    let mut request = url.as_str().into_client_request()?;
    if encoding == Encoding::MessagePack {
        let protocol = HeaderValue::from_static(MSGPACK_SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().map_err(|_| ConnectionError::Token)?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

/// Messages leave at once, and thousands of connections fit in one process.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// A message as it travels.
pub(super) fn frame(
    encoding: Encoding,
    message: &ClientMessage,
    request_id: Option<i64>,
) -> Result<Message, ConnectionError> {
    let request_id = request_id.map(RequestId::Number);
    let bytes = encode_client(encoding, Shape::Tagged, message, request_id.as_ref());
    match encoding {
        Encoding::Json => {
            let text = String::from_utf8(bytes).map_err(|error| ConnectionError::Message(error.to_string()))?;
            Ok(Message::text(text))
        }
        Encoding::MessagePack => Ok(Message::binary(bytes)),
    }
}

fn bytes_of(text: tungstenite::Utf8Bytes) -> tungstenite::Bytes {
    text.into()
}

/// TLS needs to know whose cryptography to use; the first caller decides for the process.
pub(crate) fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error says that the program has chosen one already.
        let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
