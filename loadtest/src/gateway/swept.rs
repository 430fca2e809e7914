//! A WebSocket without a task of its own: it is opened waiting, and from then on read by whoever sweeps many of them.

use std::io::{self, Read, Write};

use antiphon_core::gateway::{ClientMessage, Encoding, ServerMessage, decode_server};
use reqwest::Url;
use tokio_tungstenite::tungstenite::{
    self, Bytes, Connector, HandshakeError, Message, WebSocket, client_tls_with_config, protocol::CloseFrame,
    protocol::frame::coding::CloseCode, stream::MaybeTlsStream,
};

use super::connection::{Closed, ConnectionError, config, frame, install_crypto_provider, request};
use crate::tls;

/// The connection, over a stream that may, or may not, wait.
pub(crate) struct SweptConnection<S: Read + Write> {
    socket: WebSocket<MaybeTlsStream<S>>,
    encoding: Encoding,
    /// The stream has not taken all that was sent.
    holds_back: bool,
}

impl<S: Read + Write> SweptConnection<S> {
    /// Asks for a WebSocket on a stream that waits; `token` says who asks, whoever has none resumes.
    pub(crate) fn open(stream: S, url: &Url, encoding: Encoding, token: Option<&str>) -> Result<Self, ConnectionError> {
        install_crypto_provider();
        let request = request(url, encoding, token)?;
        let connector = tls::chosen().map(Connector::Rustls);
        let opened = client_tls_with_config(request, stream, Some(config()), connector);
        let (socket, _) = opened.map_err(|error| match error {
            HandshakeError::Failure(error) => ConnectionError::from(error),
            HandshakeError::Interrupted(_) => ConnectionError::TimedOut,
        })?;
        Ok(Self { socket, encoding, holds_back: false })
    }

    /// Sends a message, or keeps it for the next time where the stream takes nothing now.
    pub(crate) fn send(&mut self, message: &ClientMessage, request_id: Option<i64>) -> Result<(), ConnectionError> {
        let sent = self.socket.send(frame(self.encoding, message, request_id)?);
        self.note_sent(sent)
    }

    fn note_sent(&mut self, sent: Result<(), tungstenite::Error>) -> Result<(), ConnectionError> {
        self.holds_back = matches!(&sent, Err(error) if would_wait(error));
        if self.holds_back { Ok(()) } else { Ok(sent?) }
    }

    /// The bytes of the next message; `None` when there is none now, or the stream has waited long enough.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        if self.holds_back {
            let sent = self.socket.flush();
            self.note_sent(sent)?;
        }
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.into())),
                Ok(Message::Binary(bytes)) => return Ok(Some(bytes)),
                Ok(Message::Close(frame)) => return Err(ConnectionError::Closed(Closed::from_frame(frame))),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) if would_wait(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message of a stream that waits.
    pub(crate) fn expect(&mut self) -> Result<ServerMessage, ConnectionError> {
        let bytes = self.next()?.ok_or(ConnectionError::TimedOut)?;
        let decoded = decode_server(self.encoding, &bytes);
        Ok(decoded.map_err(|error| ConnectionError::Message(error.to_string()))?.0)
    }

    /// Says that it leaves; nobody waits for the answer.
    pub(crate) fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // A peer that takes nothing is gone either way.
        let _closed = self.socket.close(Some(frame));
        let _flushed = self.socket.flush();
    }
}

fn would_wait(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
