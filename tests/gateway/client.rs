//! A client of the gateway that shows every message.

use std::{collections::VecDeque, time::Duration};

use antiphon_core::{
    gateway::{
        Authenticate, ChannelJoined, ClientMessage, Encoding, Error, ErrorCode, Hello, JoinChannel,
        MSGPACK_SUBPROTOCOL, MediaMode, MediaTransport, RequestId, Resume, Resumed, ServerMessage, Shape, UserView,
        decode_server, encode_client,
    },
    ids::ChannelId,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error as SocketError, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Response},
        protocol::frame::coding::CloseCode,
    },
};

use crate::server::{PATIENCE, Server};

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) hello: Hello,
    pub(crate) user: Option<UserView>,
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    /// Messages that were not what was waited for, in order.
    pub(crate) passed_over: VecDeque<ServerMessage>,
    next_request: i64,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Box<ServerMessage>, Option<RequestId>, Shape),
    /// The close code and the reason.
    Closed(u16, serde_json::Value),
}

impl Client {
    /// Connected, not authenticated.
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::open(server, "/ws", &[]).await.expect("connects")
    }

    pub(crate) async fn with_token(server: &Server, token: &str) -> Self {
        let mut client = Self::open(server, &format!("/ws?token={token}"), &[]).await.expect("connects");
        client.authenticated().await;
        client
    }

    pub(crate) async fn packed(server: &Server, token: &str) -> Self {
        let header = [("sec-websocket-protocol", MSGPACK_SUBPROTOCOL)];
        let mut client = Self::open(server, &format!("/ws?token={token}"), &header).await.expect("connects");
        client.authenticated().await;
        client
    }

    pub(crate) async fn open(
        server: &Server,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let stream = TcpStream::connect(server.address).await.expect("the server listens");
        Self::over(stream, path, headers).await
    }

    pub(crate) async fn over(
        stream: TcpStream,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let address = stream.peer_addr().expect("connected");
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::try_from(*value).expect("a header"));
        }
        let (socket, response) = match client_async(request, stream).await {
            Ok(connected) => connected,
            Err(SocketError::Http(response)) => return Err(*response),
            Err(error) => panic!("no handshake: {error}"),
        };
        let packed = response.headers().get("sec-websocket-protocol").is_some_and(|name| name == MSGPACK_SUBPROTOCOL);
        let encoding = if packed { Encoding::MessagePack } else { Encoding::Json };
        let hello = Hello {
            session_id: antiphon_core::ids::SessionId(uuid::Uuid::nil()),
            resume_token: String::new(),
            heartbeat_ms: 0,
            node: String::new(),
            server_time_us: 0,
        };
        let mut client = Self {
            socket,
            hello,
            user: None,
            encoding,
            shape: Shape::Tagged,
            passed_over: VecDeque::new(),
            next_request: 1,
        };
        let ServerMessage::Hello(hello) = client.message().await else { panic!("Hello is the first message") };
        client.hello = hello;
        Ok(client)
    }

    async fn authenticated(&mut self) {
        let ServerMessage::Authenticated(answer) = self.message().await else { panic!("Authenticated follows Hello") };
        self.user = Some(answer.user);
    }

    pub(crate) fn id(&self) -> antiphon_core::ids::UserId {
        self.user.as_ref().expect("authenticated").id
    }

    pub(crate) async fn send(&mut self, message: impl Into<ClientMessage>) {
        self.send_as(message, None).await;
    }

    pub(crate) async fn send_as(&mut self, message: impl Into<ClientMessage>, request_id: Option<RequestId>) {
        let bytes = encode_client(self.encoding, self.shape, &message.into(), request_id.as_ref());
        let frame = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes).expect("JSON")),
            Encoding::MessagePack => Message::binary(bytes),
        };
        self.socket.send(frame).await.expect("the connection is open");
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the connection is open");
    }

    /// Whatever comes next.
    pub(crate) async fn received(&mut self) -> Received {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes in time");
            let bytes = match frame {
                Some(Ok(Message::Text(text))) if self.encoding == Encoding::Json => text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) if self.encoding == Encoding::MessagePack => bytes.to_vec(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(Some(frame)))) => {
                    let reason = serde_json::from_str(&frame.reason).unwrap_or_default();
                    return Received::Closed(frame.code.into(), reason);
                }
                other => panic!("an unexpected frame or end: {other:?}"),
            };
            let (message, id, shape) = decode_server(self.encoding, &bytes).expect("a message of the protocol");
            return Received::Message(Box::new(message), id, shape);
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> ServerMessage {
        match self.received().await {
            Received::Message(message, ..) => *message,
            Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    /// The next message that `pick` takes; others are kept aside.
    pub(crate) async fn expect<T>(&mut self, mut pick: impl FnMut(&ServerMessage) -> Option<T>) -> T {
        let found = self.passed_over.iter().position(|message| pick(message).is_some());
        if let Some(message) = found.and_then(|index| self.passed_over.remove(index)) {
            return pick(&message).expect("picked just now");
        }
        loop {
            let message = self.message().await;
            match pick(&message) {
                Some(found) => return found,
                None => self.passed_over.push_back(message),
            }
        }
    }

    /// The answer to a message that carries a request id.
    pub(crate) async fn request(&mut self, message: impl Into<ClientMessage>) -> ServerMessage {
        let id = RequestId::Number(self.next_request);
        self.next_request += 1;
        self.send_as(message, Some(id.clone())).await;
        loop {
            match self.received().await {
                Received::Message(message, Some(answered), _) if answered == id => return *message,
                Received::Message(message, ..) => self.passed_over.push_back(*message),
                Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
            }
        }
    }

    /// The code of the error that answers a message.
    pub(crate) async fn refused(&mut self, message: impl Into<ClientMessage>) -> ErrorCode {
        match self.request(message).await {
            ServerMessage::Error(Error { error_code, error, timestamp }) => {
                assert!(!error.is_empty() && timestamp > 1_700_000_000);
                error_code
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The answer is only that it was done.
    pub(crate) async fn done(&mut self, message: impl Into<ClientMessage>) {
        let answer = self.request(message).await;
        assert!(matches!(answer, ServerMessage::Ack(_)), "{answer:?}");
    }

    pub(crate) async fn join(&mut self, channel: ChannelId, media: MediaTransport) -> ChannelJoined {
        match self.request(join(channel, media)).await {
            ServerMessage::ChannelJoined(joined) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    /// The code and reason of the server's Close; messages before it are kept aside.
    pub(crate) async fn closed(&mut self) -> (u16, serde_json::Value) {
        loop {
            match self.received().await {
                Received::Message(message, ..) => self.passed_over.push_back(*message),
                Received::Closed(code, reason) => return (code, reason),
            }
        }
    }

    /// Breaks the connection off, as a lost network does.
    pub(crate) fn lose(self) -> Hello {
        self.hello
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self, code: u16) {
        let frame =
            tokio_tungstenite::tungstenite::protocol::CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).await.expect("closes");
        while let Ok(Some(Ok(_))) = tokio::time::timeout(PATIENCE, self.socket.next()).await {}
    }

    pub(crate) async fn authenticate(&mut self, token: &str) -> ServerMessage {
        self.request(Authenticate { token: Some(token.to_owned()), username: None }).await
    }

    /// Takes a lost session up through a new connection.
    pub(crate) async fn resume(server: &Server, resume: Resume) -> (Self, Resumed) {
        let mut client = Self::connect(server).await;
        let ServerMessage::Resumed(resumed) = client.request(resume).await else { panic!("not resumed") };
        assert!(client.passed_over.is_empty(), "Resumed is the first: {:?}", client.passed_over);
        client.user = Some(resumed.user.clone());
        client.hello.session_id = resumed.session_id;
        client.hello.resume_token.clone_from(&resumed.resume_token);
        (client, resumed)
    }

    /// Nothing comes for a while but what `ignored` takes. Only to show that something does not happen, after what would
    /// have caused it has been seen to be done.
    pub(crate) async fn stays_silent(&mut self, ignored: impl Fn(&ServerMessage) -> bool) {
        let silence = tokio::time::timeout(Duration::from_millis(100), async {
            loop {
                let message = self.message().await;
                assert!(ignored(&message), "{message:?}");
            }
        });
        assert!(silence.await.is_err());
    }
}

pub(crate) fn join(channel: ChannelId, media: MediaTransport) -> JoinChannel {
    JoinChannel {
        channel_id: channel,
        media,
        mode: MediaMode::Forward,
        cipher: None,
        sample_rate: None,
        channels: None,
        invite: None,
    }
}

pub(crate) fn resume(hello: &Hello) -> Resume {
    Resume {
        session_id: hello.session_id,
        resume_token: hello.resume_token.clone(),
        positions: std::collections::HashMap::new(),
    }
}

/// Picks a message of one type.
macro_rules! of_type {
    ($type:ident) => {
        |message: &antiphon_core::gateway::ServerMessage| match message {
            antiphon_core::gateway::ServerMessage::$type(body) => Some(body.clone()),
            _ => None,
        }
    };
}
pub(crate) use of_type;
