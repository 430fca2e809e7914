//! One WebSocket connection: three loops in two tasks.
//!
//! ```text
//!  socket ──► reader ──(heartbeats, audio: at once)──────────────► outbox ──► writer ──► socket
//!                └────(all else, bounded queue)──► processor ────────┘ ▲
//!                                                                      └── events of the channels
//! ```
//!
//! The processor may wait for the database or a media worker; the reader never does, so that heartbeats and audio go on. The
//! writer is a task of its own, since it is woken most often by far, and whatever shares a task with it is looked at each time.
//! Whoever ends the connection says so to the outbox, which ends all three.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_core::{
    clock::Micros,
    gateway::{
        ChatError, ChatErrorData, ClientMessage, DecodeError, Encoding, Error, ErrorCode, HeartbeatAck, RequestId,
        RoomError, RoomErrorPayload, ServerMessage, UserView, decode_client, is_of_chat,
    },
    ids::{ChannelId, SessionId},
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tracing::Span;

use super::{
    Gateway,
    close::CloseCause,
    limits::{Allowance, Budget, Verdict},
    metered::{Meter, is_exceeded},
    outbox::{End, Outbox, Outgoing},
    sessions::Attachment,
    socket::{Io, WRITE_BUFFER_BYTES, linger},
    token::new_token,
};
use crate::{
    client_address::ClientAddress,
    error::AppError,
    places::Place,
    rooms::{Link, Outlet as _, Shared},
    telemetry::metrics::metrics,
};

/// The way to write to a client.
type Sink = SplitSink<WebSocketStream<Io>, Message>;

/// Messages that may wait for the processor.
const WAITING_MAX: usize = 64;

/// What is known of a connection before its first message.
pub(super) struct Arrival {
    pub(super) encoding: Encoding,
    /// Who the token on connecting stood for.
    pub(super) user: Option<UserView>,
    /// The client's address.
    pub(super) address: IpAddr,
    /// Its place among that address's connections.
    pub(super) place: Place,
    /// The host by which the client came.
    pub(super) reached_host: Arc<str>,
    /// The address of this machine that it reached.
    pub(super) reached_address: Option<IpAddr>,
    /// The room that the connection is for, if it was made for one.
    pub(super) room: Option<ChannelId>,
}

/// A message for the processor.
pub(super) struct Request {
    pub(super) message: ClientMessage,
    pub(super) request_id: Option<RequestId>,
}

/// What the loops of one connection share.
pub(super) struct Connection {
    pub(super) gateway: Gateway,
    /// The id and token that `Hello` gives; those of the session that `Authenticate` makes.
    pub(super) session_id: SessionId,
    pub(super) resume_token: String,
    pub(super) address: IpAddr,
    /// The room that it is for, if it was made for one.
    pub(super) room: Option<ChannelId>,
    pub(super) link: Link,
    pub(super) outbox: Arc<Outbox>,
    /// The session, once there is one.
    pub(super) attachment: OnceLock<Attachment>,
}

/// How the client's side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// The client said that it goes: its session is over.
    Closed,
    /// It was lost, or we closed it: its session waits to be resumed.
    Lost,
}

/// Serves a connection until it ends, and settles what becomes of its session.
pub(super) async fn run(gateway: Gateway, socket: WebSocketStream<Io>, arrival: Arrival) {
    let outbox = gateway.outbox(arrival.encoding);
    let _registered = gateway.register(&outbox);
    let _place = arrival.place;
    let address = Some(ClientAddress(arrival.address).limit_key());
    let Arrival { reached_host, reached_address, .. } = arrival;
    let link = Link { outlet: Arc::clone(&outbox) as _, reached_host, reached_address, address };
    let connection = Arc::new(Connection {
        session_id: SessionId(uuid::Uuid::now_v7()),
        resume_token: new_token(),
        address: arrival.address,
        room: arrival.room,
        link,
        outbox,
        attachment: OnceLock::new(),
        gateway,
    });
    // Whatever happens, a session whose connection is gone must not be taken for connected.
    let mut guard = LossGuard { connection: &connection, armed: true };
    let (departure, io) = serve(&connection, socket, arrival.user).await;
    guard.armed = false;
    drop(guard);
    connection.settle(departure).await;
    if let Some(io) = io {
        // On the heap, as its buffer would be part of every connection from its beginning.
        Box::pin(linger(io, connection.gateway.config().close_linger)).await;
    }
}

/// Runs the three loops. Yields how it ended, and the raw connection for a quiet end.
async fn serve(
    connection: &Arc<Connection>,
    socket: WebSocketStream<Io>,
    user: Option<UserView>,
) -> (Departure, Option<Io>) {
    let meter = socket.get_ref().meter();
    let (sink, mut stream) = socket.split();
    let writing = tokio::spawn(Arc::clone(connection).write(sink, Span::current()));
    let (requests, waiting) = mpsc::channel(WAITING_MAX);
    let reading = async {
        let departure = Reader::new(connection, requests, meter).read(&mut stream).await;
        connection.outbox.end(End::Gone);
        if departure == Departure::Lost {
            // The grace begins now, not when what is under way has ended.
            connection.lose();
        }
        departure
    };
    let processing = connection.process(user, waiting);
    let (departure, ()) = tokio::join!(reading, processing);
    // The outbox has ended, and with it the writer does.
    let sink = writing.await.ok();
    let socket = sink.and_then(|sink| sink.reunite(stream).ok());
    (departure, socket.map(WebSocketStream::into_inner))
}

impl Connection {
    pub(super) fn now(&self) -> Micros {
        self.gateway.rooms().now()
    }

    pub(super) fn send(&self, message: impl Into<ServerMessage>, request_id: Option<RequestId>) {
        self.outbox.send(&Shared::answer(message, request_id));
    }

    pub(super) fn fail(&self, error: AppError, request_id: Option<RequestId>) {
        metrics().gateway.errors.of(error.code).increment(1);
        let body = Error { error_code: error.code, error: error.message, timestamp: unix_seconds() };
        self.send(body, request_id);
    }

    /// Likewise in the words of the family that a message of this type is of.
    pub(super) fn fail_in_family(&self, name: &str, error: AppError, request_id: Option<RequestId>) {
        let AppError { code: error_code, message, .. } = error;
        let answer: ServerMessage = if is_of_chat(name) {
            ChatError::from(ChatErrorData { message, error_code }).into()
        } else if ClientMessage::is_of_rooms(name) {
            RoomError::from(RoomErrorPayload { error_code, error: message }).into()
        } else {
            return self.fail(AppError::new(error_code, message), request_id);
        };
        metrics().gateway.errors.of(error_code).increment(1);
        self.send(answer, request_id);
    }

    pub(super) fn close(&self, cause: CloseCause) {
        self.outbox.end(End::Close(cause));
    }

    /// Writes what the outbox holds until the end; yields the way to write. Nothing is written any more then, so nothing need be
    /// kept. What is logged is of the connection's `span`, in which the writer is not: to enter it costs at each waking.
    async fn write(self: Arc<Self>, mut sink: Sink, span: Span) -> Sink {
        let _gone = GoneGuard(&self.outbox);
        // A reader that is stuck in the middle of a frame gets so long to take it and the Close behind it.
        let overdue = async {
            self.outbox.until_ending().await;
            tokio::time::sleep(self.gateway.config().close_linger).await;
        };
        tokio::select! {
            biased;
            () = self.write_all(&mut sink, &span) => {}
            () = overdue => {}
        }
        sink
    }

    async fn write_all(&self, sink: &mut Sink, span: &Span) {
        let mut is_flushed = true;
        loop {
            let written = match self.outbox.next(is_flushed).await {
                Outgoing::Message(bytes) => {
                    is_flushed = false;
                    self.pass_on(sink, bytes).await
                }
                Outgoing::Flush => {
                    is_flushed = true;
                    let flushed = sink.flush().await;
                    self.outbox.rest();
                    flushed
                }
                Outgoing::End(End::Close(cause)) => {
                    metrics().gateway.closes.of(cause).increment(1);
                    span.in_scope(|| tracing::debug!(?cause, "closing"));
                    let _ = sink.send(Message::Close(Some(self.close_frame(cause)))).await;
                    return;
                }
                Outgoing::End(End::Gone) => {
                    // The answer to the client's own Close, if it sent one.
                    let _ = sink.flush().await;
                    return;
                }
            };
            if written.is_err() {
                return;
            }
        }
    }

    /// Gives a message to the socket. Of a long one that has a copy until the client reads: so long it is waited for, and the message
    /// counts among what is unread.
    async fn pass_on(&self, sink: &mut Sink, bytes: Bytes) -> Result<(), SocketError> {
        let unread = (bytes.len() > WRITE_BUFFER_BYTES).then(|| bytes.clone());
        sink.feed(framed(self.outbox.encoding(), bytes)).await?;
        if unread.is_some() {
            sink.flush().await?;
        }
        Ok(())
    }

    fn close_frame(&self, cause: CloseCause) -> CloseFrame {
        let reason = cause.reason();
        let reason = if self.attachment.get().is_some() { reason } else { reason.without_session() };
        CloseFrame { code: CloseCode::from(reason.code), reason: reason.text().into() }
    }

    /// Gives the session up as lost, if there is one.
    fn lose(&self) {
        if let Some(attachment) = self.attachment.get() {
            self.gateway.lose_session(attachment);
        }
    }

    async fn settle(&self, departure: Departure) {
        match (departure, self.attachment.get()) {
            (Departure::Closed, Some(attachment)) => self.gateway.end_session(attachment).await,
            // Once more: the session may have been made after the connection was gone.
            _ => self.lose(),
        }
    }
}

/// Ends the outbox of a writer that has ended, however it did.
struct GoneGuard<'a>(&'a Outbox);

impl Drop for GoneGuard<'_> {
    fn drop(&mut self) {
        self.0.end(End::Gone);
    }
}

/// Gives a session up as lost where its connection's task does not get to the end.
struct LossGuard<'a> {
    connection: &'a Connection,
    armed: bool,
}

impl Drop for LossGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.connection.outbox.end(End::Gone);
            self.connection.lose();
        }
    }
}

/// The reading loop with what it must remember.
struct Reader<'a> {
    connection: &'a Connection,
    requests: mpsc::Sender<Box<Request>>,
    meter: Meter,
    /// What may be sent before somebody authenticated; then the account's allowance counts.
    allowance: Allowance,
    malformed: Budget,
    opened_at: Instant,
    heard_at: Instant,
    /// The session's token is known to have arrived: something came after it.
    confirmed: bool,
}

impl<'a> Reader<'a> {
    fn new(connection: &'a Connection, requests: mpsc::Sender<Box<Request>>, meter: Meter) -> Self {
        let config = connection.gateway.config();
        Self {
            connection,
            requests,
            meter,
            allowance: Allowance::new(config.rates, connection.now()),
            malformed: Budget::new(config.malformed_per_minute),
            opened_at: Instant::now(),
            heard_at: Instant::now(),
            confirmed: false,
        }
    }

    async fn read(mut self, stream: &mut SplitStream<WebSocketStream<Io>>) -> Departure {
        let ending = self.connection.outbox.until_ending();
        let timer = tokio::time::sleep_until(self.next_look());
        tokio::pin!(ending, timer);
        loop {
            tokio::select! {
                biased;
                _ = &mut ending => return Departure::Lost,
                () = &mut timer => match self.late() {
                    Some(cause) => self.connection.close(cause),
                    None => timer.as_mut().reset(self.next_look()),
                },
                received = stream.next() => {
                    self.heard_at = Instant::now();
                    match received {
                        Some(Ok(Message::Close(frame))) => return departure(frame.as_ref()),
                        Some(Ok(message)) => {
                            self.meter.whole(message.len());
                            self.received(&message);
                        }
                        Some(Err(error)) => match cause_of(&error) {
                            Some(cause) => self.connection.close(cause),
                            None => return Departure::Lost,
                        },
                        None => return Departure::Lost,
                    }
                }
            }
        }
    }

    /// Until when something must have happened.
    fn deadline(&self) -> Instant {
        let config = self.connection.gateway.config();
        let silence = self.heard_at + config.heartbeat * SILENT_HEARTBEATS;
        if self.connection.attachment.get().is_some() { silence } else { self.opened_at + config.authentication }
    }

    /// When to look whether the deadline has passed. It may come nearer meanwhile, when somebody authenticates.
    fn next_look(&self) -> Instant {
        self.deadline().min(Instant::now() + self.connection.gateway.config().heartbeat * SILENT_HEARTBEATS)
    }

    /// Why the connection ends, if the deadline has passed.
    fn late(&self) -> Option<CloseCause> {
        if self.deadline() > Instant::now() {
            return None;
        }
        let is_session = self.connection.attachment.get().is_some();
        Some(if is_session { CloseCause::TimedOut } else { CloseCause::NotAuthenticated })
    }

    fn received(&mut self, message: &Message) {
        let encoding = self.connection.outbox.encoding();
        let decoded = match (message, encoding) {
            (Message::Text(text), Encoding::Json) => decode_client(encoding, text.as_bytes()),
            (Message::Binary(bytes), Encoding::MessagePack) => decode_client(encoding, bytes),
            (Message::Text(_), _) => Err(wrong_frame("a text frame on a connection with MessagePack in binary frames")),
            (Message::Binary(_), _) => Err(wrong_frame("a binary frame on a connection with JSON in text frames")),
            // The socket answers pings by itself; each counts as a message, since each costs as much.
            _ => {
                self.refuse(false, "", &None);
                return;
            }
        };
        match decoded {
            Ok((message, request_id, shape)) => {
                self.connection.outbox.answer_in_kind(shape);
                self.accept(message, request_id);
            }
            Err(error) => self.malformed(error),
        }
    }

    fn malformed(&mut self, error: DecodeError) {
        let message = error.to_string();
        let (name, code, request_id, counts) = match error {
            DecodeError::Malformed(_) => ("", ErrorCode::InvalidInput, None, true),
            DecodeError::UnknownType { request_id, .. } => ("", ErrorCode::UnknownMessage, request_id, true),
            DecodeError::Invalid { name, request_id, shape, .. } => {
                self.connection.outbox.answer_in_kind(shape);
                (name, ErrorCode::InvalidInput, request_id, false)
            }
        };
        if !counts && self.refuse(false, name, &request_id) {
            return;
        }
        self.connection.fail_in_family(name, AppError::new(code, message), request_id);
        if counts && !self.malformed.spend(self.connection.now()) {
            self.connection.close(CloseCause::RateLimited);
        }
    }

    fn accept(&mut self, message: ClientMessage, request_id: Option<RequestId>) {
        if !self.confirmed
            && let Some(attachment) = self.connection.attachment.get()
        {
            self.confirmed = true;
            if attachment.token_arrived() {
                self.connection.gateway.refresh_record_soon(&attachment.session);
            }
        }
        if self.refuse(matches!(message, ClientMessage::AudioData(_)), message.name(), &request_id) {
            return;
        }
        match message {
            ClientMessage::Heartbeat(_) => {
                let server_time_us = self.connection.now().0;
                self.connection.send(HeartbeatAck { server_time_us }, request_id);
            }
            ClientMessage::AudioData(audio) if self.is_in(audio.channel_id) => {
                self.connection.frame(audio, request_id);
            }
            message => self.enqueue(Request { message, request_id }),
        }
    }

    fn is_in(&self, channel: ChannelId) -> bool {
        self.connection.attachment.get().is_some_and(|attachment| attachment.session.presence.is_in(channel))
    }

    /// Whether a message of a type is over the rate; then it was answered.
    fn refuse(&mut self, is_frame: bool, name: &str, request_id: &Option<RequestId>) -> bool {
        let now = self.connection.now();
        let verdict = match self.connection.attachment.get() {
            Some(attachment) => attachment.session.allowance.lock().take(is_frame, now),
            None => self.allowance.take(is_frame, now),
        };
        if verdict == Verdict::Granted {
            return false;
        }
        metrics().gateway.refused.of(is_frame.into()).increment(1);
        if !is_frame || verdict == Verdict::Over {
            let message = "too many messages: slow down, or the connection is closed";
            let error = AppError::new(ErrorCode::RateLimited, message);
            self.connection.fail_in_family(name, error, request_id.clone());
        }
        if verdict == Verdict::Over {
            self.connection.close(CloseCause::RateLimited);
        }
        true
    }

    fn enqueue(&self, request: Request) {
        if let Err(refused) = self.requests.try_send(Box::new(request)) {
            let request = refused.into_inner();
            let message = format!("{WAITING_MAX} messages wait already: await their answers first");
            let error = AppError::new(ErrorCode::RateLimited, message);
            self.connection.fail_in_family(request.message.name(), error, request.request_id);
        }
    }
}

/// A session is lost after so many heartbeats did not come.
const SILENT_HEARTBEATS: u32 = 3;

fn wrong_frame(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

/// What a client's Close means. Without a code it is a normal one, as browsers send it.
fn departure(frame: Option<&CloseFrame>) -> Departure {
    match frame.map(|frame| frame.code) {
        None | Some(CloseCode::Normal | CloseCode::Away | CloseCode::Status) => Departure::Closed,
        Some(_) => Departure::Lost,
    }
}

/// How a connection whose frames cannot be read is closed; `None` when it is gone already.
fn cause_of(error: &SocketError) -> Option<CloseCause> {
    match error {
        SocketError::Capacity(_) => Some(CloseCause::TooLong),
        SocketError::Io(error) if is_exceeded(error) => Some(CloseCause::TooLong),
        SocketError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            None
        }
        SocketError::Protocol(_) => Some(CloseCause::ProtocolError),
        SocketError::Utf8(_) => Some(CloseCause::NotUtf8),
        _ => None,
    }
}

fn framed(encoding: Encoding, bytes: Bytes) -> Message {
    match encoding {
        Encoding::Json => Message::Text(Utf8Bytes::try_from(bytes).expect("JSON is written as UTF-8")),
        Encoding::MessagePack => Message::Binary(bytes),
    }
}

fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}
