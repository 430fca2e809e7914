//! The session's task: authenticate, keep alive, resume.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::gateway::{
    AudioData, Authenticate, Authenticated, ChannelJoined, ClientMessage, Encoding, Error, Heartbeat, Hello, Reconnect,
    Resume, Resumed, ServerMessage, UserView,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior},
};

use super::{
    connection::{Closed, Connection, ConnectionError},
    journal::Journals,
    patience::{Backoff, HEARTBEATS_UNANSWERED_MAX, RESUME_FOR, is_final},
};
use crate::server_url::ServerUrl;

/// Messages waiting to be written; more make the sender wait.
const OUTGOING_MAX: usize = 64;

/// Frames waiting to be written; more are dropped and counted, since late sound is no sound.
const AUDIO_MAX: usize = 64;

/// Events waiting to be read; more keep the task from reading on, until the server closes a reader so slow.
const EVENTS_MAX: usize = 1_024;

/// How long the server may take to greet and to authenticate.
const GREETING_TIMEOUT: Duration = Duration::from_secs(15);

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// An account, by its access token.
    Token(String),
    /// A guest, made on the spot.
    Guest(String),
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The server.
    pub server: ServerUrl,
    /// Other nodes of the same cluster, tried in turn when a lost session cannot be resumed there. A node that drains
    /// names others by itself.
    pub others: Vec<ServerUrl>,
    /// JSON or `MessagePack`.
    pub encoding: Encoding,
    /// Who.
    pub identity: Identity,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No connection.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The server said no.
    #[error("{} ({})", .0.error, .0.error_code.as_str())]
    Refused(Error),
    /// The server did not do what the protocol says.
    #[error("the server {0}")]
    Protocol(&'static str),
}

impl GatewayError {
    /// Whether trying again a little later may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused(error) => !is_final(error.error_code),
            Self::Connection(error) => matches!(error, ConnectionError::Refused(429 | 503)),
            Self::Protocol(_) => false,
        }
    }
}

/// The session is over: nothing can be sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway session is over")]
pub struct GatewayClosed;

/// What happens on a session.
#[derive(Clone, Debug, PartialEq)]
pub enum GatewayEvent {
    /// A message, with the number of the request it answers.
    Message(Box<ServerMessage>, Option<i64>),
    /// The connection is lost; the session may go on. Requests not answered yet never will be.
    Disconnected,
    /// The session goes on; what was missed follows.
    Resumed {
        /// The node that it is at now.
        server: ServerUrl,
        /// Its channels.
        channels: Vec<ChannelJoined>,
    },
    /// The session is over.
    Closed(Closed),
}

/// A handle on the session. When it is dropped the session ends in good order.
pub struct Gateway {
    outgoing: mpsc::Sender<(ClientMessage, Option<i64>)>,
    audio: mpsc::Sender<AudioData>,
    audio_dropped: AtomicU64,
    next_request: AtomicI64,
    authenticated: Authenticated,
    closing: Arc<Notify>,
}

impl Gateway {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// When there is no connection or the server refuses.
    pub async fn connect(config: GatewayConfig) -> Result<(Self, mpsc::Receiver<GatewayEvent>), GatewayError> {
        let (connection, hello, authenticated) =
            tokio::time::timeout(GREETING_TIMEOUT, greet(&config)).await.map_err(|_| ConnectionError::TimedOut)??;
        let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING_MAX);
        let (audio, audio_rx) = mpsc::channel(AUDIO_MAX);
        let (events, events_rx) = mpsc::channel(EVENTS_MAX);
        let closing = Arc::new(Notify::new());
        let task = Task {
            config,
            hello,
            journals: Journals::default(),
            outgoing: outgoing_rx,
            audio: audio_rx,
            events,
            closing: Arc::clone(&closing),
        };
        tokio::spawn(task.run(connection));
        let gateway = Self {
            outgoing,
            audio,
            audio_dropped: AtomicU64::new(0),
            next_request: AtomicI64::new(1),
            authenticated,
            closing,
        };
        Ok((gateway, events_rx))
    }

    /// Who we are.
    pub fn user(&self) -> &UserView {
        &self.authenticated.user
    }

    /// A guest's tokens: access and refresh.
    pub fn guest_tokens(&self) -> Option<(&str, &str)> {
        let Authenticated { access_token, refresh_token, .. } = &self.authenticated;
        access_token.as_deref().zip(refresh_token.as_deref())
    }

    /// Sends a message and returns the number that its answer will carry.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn send(&self, message: impl Into<ClientMessage>) -> Result<i64, GatewayClosed> {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        self.outgoing.send((message.into(), Some(request))).await.map_err(|_| GatewayClosed)?;
        Ok(request)
    }

    /// Sends a frame, or drops and counts it when the connection cannot keep up.
    pub fn send_audio(&self, audio: AudioData) {
        if self.audio.try_send(audio).is_err() {
            self.audio_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Frames dropped since the connection could not keep up.
    pub fn audio_dropped(&self) -> u64 {
        self.audio_dropped.load(Ordering::Relaxed)
    }

    /// Leaves in good order and waits until that is done.
    pub async fn close(&self) {
        self.closing.notify_one();
        self.outgoing.closed().await;
    }
}

/// Opens a connection and authenticates on it.
async fn greet(config: &GatewayConfig) -> Result<(Connection, Hello, Authenticated), GatewayError> {
    let token = match &config.identity {
        Identity::Token(token) => Some(token.as_str()),
        Identity::Guest(_) => None,
    };
    let mut connection = Connection::open(&config.server.gateway(), config.encoding, token).await?;
    let hello = expect_hello(&mut connection).await?;
    if let Identity::Guest(username) = &config.identity {
        let authenticate = Authenticate { token: None, username: Some(username.clone()) };
        connection.send(&authenticate.into(), None).await?;
    }
    match connection.next().await?.0 {
        ServerMessage::Authenticated(authenticated) => Ok((connection, hello, authenticated)),
        ServerMessage::Error(error) => Err(GatewayError::Refused(error)),
        _ => Err(GatewayError::Protocol("sent something else before it authenticated us")),
    }
}

async fn expect_hello(connection: &mut Connection) -> Result<Hello, GatewayError> {
    match connection.next().await?.0 {
        ServerMessage::Hello(hello) => Ok(hello),
        ServerMessage::Error(error) => Err(GatewayError::Refused(error)),
        _ => Err(GatewayError::Protocol("did not begin with Hello")),
    }
}

struct Task {
    config: GatewayConfig,
    /// The session and the proof that it is ours, as of the last `Hello` or `Resumed`.
    hello: Hello,
    journals: Journals,
    outgoing: mpsc::Receiver<(ClientMessage, Option<i64>)>,
    audio: mpsc::Receiver<AudioData>,
    events: mpsc::Sender<GatewayEvent>,
    closing: Arc<Notify>,
}

/// Why a connection's time is over.
enum End {
    /// We want no more.
    Wanted(Box<Connection>),
    /// The node asks us to go to these; the connection still works.
    Moved(Box<Connection>, Vec<ServerUrl>),
    /// It broke or was closed.
    Lost(Closed),
}

impl Task {
    async fn run(mut self, mut connection: Connection) {
        loop {
            let closed = match self.serve(connection).await {
                End::Wanted(connection) => return connection.close().await,
                End::Moved(old, nodes) => match self.move_to(&nodes).await {
                    Some(new) => {
                        connection = new;
                        // It ends by itself: its node hears that another has the session.
                        drop(old);
                        continue;
                    }
                    None => {
                        connection = *old;
                        continue;
                    }
                },
                End::Lost(closed) => closed,
            };
            if !closed.resume {
                return self.emit(GatewayEvent::Closed(closed)).await;
            }
            self.emit(GatewayEvent::Disconnected).await;
            connection = match self.resume().await {
                Ok(connection) => connection,
                Err(closed) => return self.emit(GatewayEvent::Closed(closed)).await,
            };
        }
    }

    /// Nobody reading the events any more is noticed by the closing of the other channels.
    async fn emit(&self, event: GatewayEvent) {
        let _unread = self.events.send(event).await;
    }

    async fn serve(&mut self, mut connection: Connection) -> End {
        let period = Duration::from_millis(self.hello.heartbeat_ms.max(100));
        let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            let result = tokio::select! {
                incoming = connection.next() => match incoming {
                    Ok((message, request_id)) => {
                        heard_at = Instant::now();
                        let nodes = nodes_named(&message);
                        match self.incoming(&mut connection, message, request_id).await {
                            Ok(()) if !nodes.is_empty() => return End::Moved(Box::new(connection), nodes),
                            result => result,
                        }
                    }
                    Err(error) => Err(error),
                },
                outgoing = self.outgoing.recv() => match outgoing {
                    Some((message, request_id)) => connection.send(&message, request_id).await,
                    None => return End::Wanted(Box::new(connection)),
                },
                () = self.closing.notified() => return End::Wanted(Box::new(connection)),
                Some(audio) = self.audio.recv() => connection.send(&audio.into(), None).await,
                _ = heartbeat.tick() => {
                    if heard_at.elapsed() > period * (HEARTBEATS_UNANSWERED_MAX + 1) {
                        return End::Lost(Closed::BROKEN);
                    }
                    self.beat(&mut connection).await
                }
            };
            match result {
                Ok(()) => {}
                Err(ConnectionError::Closed(closed)) => return End::Lost(closed),
                Err(error) => {
                    tracing::debug!(%error, "the gateway connection broke");
                    return End::Lost(Closed::BROKEN);
                }
            }
        }
    }

    async fn beat(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        for recover in self.journals.unanswered() {
            connection.send(&recover.into(), None).await?;
        }
        connection.send(&Heartbeat {}.into(), None).await
    }

    async fn incoming(
        &mut self,
        connection: &mut Connection,
        message: ServerMessage,
        request_id: Option<i64>,
    ) -> Result<(), ConnectionError> {
        if matches!(message, ServerMessage::HeartbeatAck(_)) {
            return Ok(());
        }
        let step = self.journals.take(message);
        for message in step.deliver {
            self.emit(GatewayEvent::Message(Box::new(message), request_id)).await;
        }
        match step.ask {
            Some(recover) => connection.send(&recover.into(), None).await,
            None => Ok(()),
        }
    }

    /// Tries each of these nodes once. The connection that works until then is neither read nor written meanwhile.
    async fn move_to(&mut self, nodes: &[ServerUrl]) -> Option<Connection> {
        for node in nodes {
            match tokio::time::timeout(GREETING_TIMEOUT, self.try_resume(node)).await {
                Ok(Ok(connection)) => {
                    self.now_at(node.clone());
                    return Some(connection);
                }
                Ok(Err(error)) => tracing::debug!(%error, "not moved to the node that was named"),
                Err(_) => tracing::debug!("not moved to the node that was named: it did not answer"),
            }
        }
        None
    }

    /// The session is at this node now; the one before is one of the others.
    fn now_at(&mut self, node: ServerUrl) {
        let before = std::mem::replace(&mut self.config.server, node);
        self.config.others.retain(|other| *other != self.config.server && *other != before);
        if before != self.config.server {
            self.config.others.push(before);
        }
    }

    /// Tries until the session goes on or is gone for good: where it was, then at each of the other nodes in turn.
    async fn resume(&mut self) -> Result<Connection, Closed> {
        let give_up_at = Instant::now() + RESUME_FOR;
        let mut backoff = Backoff::new();
        let nodes: Vec<ServerUrl> = std::iter::once(&self.config.server).chain(&self.config.others).cloned().collect();
        for node in nodes.iter().cycle() {
            let nobody = Closed { resume: false, ..Closed::BROKEN };
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.closing.notified() => return Err(nobody),
            }
            match tokio::time::timeout(GREETING_TIMEOUT, self.try_resume(node)).await {
                Ok(Ok(connection)) => {
                    self.now_at(node.clone());
                    return Ok(connection);
                }
                Ok(Err(error)) if error.ends_session() => {
                    return Err(match error {
                        GatewayError::Connection(ConnectionError::Closed(closed)) => closed,
                        _ => Closed { code: 4003, reconnect: true, resume: false },
                    });
                }
                Ok(Err(error)) => tracing::debug!(%error, "not resumed yet"),
                Err(_) => tracing::debug!("not resumed yet: the server did not answer"),
            }
            // Whoever held the handle has gone: nobody wants the session any more.
            if Instant::now() >= give_up_at || self.outgoing.is_closed() {
                return Err(nobody);
            }
        }
        Err(Closed { resume: false, ..Closed::BROKEN })
    }

    async fn try_resume(&mut self, node: &ServerUrl) -> Result<Connection, GatewayError> {
        let mut connection = Connection::open(&node.gateway(), self.config.encoding, None).await?;
        let hello = expect_hello(&mut connection).await?;
        let resume = Resume {
            session_id: self.hello.session_id,
            resume_token: self.hello.resume_token.clone(),
            positions: self.journals.positions(),
        };
        connection.send(&resume.into(), None).await?;
        match connection.next().await?.0 {
            ServerMessage::Resumed(resumed) => {
                let (session_id, resume_token) = (resumed.session_id, resumed.resume_token.clone());
                self.hello = Hello { session_id, resume_token, ..hello };
                self.resumed(node.clone(), resumed).await;
                Ok(connection)
            }
            ServerMessage::Error(error) => Err(GatewayError::Refused(error)),
            _ => Err(GatewayError::Protocol("answered Resume with something else")),
        }
    }

    async fn resumed(&mut self, server: ServerUrl, resumed: Resumed) {
        let channels = resumed.channels.iter().map(|channel| channel.joined.clone()).collect();
        self.emit(GatewayEvent::Resumed { server, channels }).await;
        let before = std::mem::take(&mut self.journals).positions();
        let voice = resumed
            .channels
            .into_iter()
            .map(|channel| (channel.joined.channel_id, channel.joined.position, channel.recovered, channel.events));
        let text = resumed.rooms.into_iter().map(|room| (room.channel_id, room.position, room.recovered, room.events));
        for (id, position, recovered, events) in voice.chain(text) {
            let Some(known) = before.get(&id).filter(|_| recovered == Some(true)) else {
                self.journals.begin(id, position);
                continue;
            };
            self.journals.begin(id, known.clone());
            for event in self.journals.missed(id, events.as_deref().unwrap_or_default()) {
                self.emit(GatewayEvent::Message(Box::new(event), None)).await;
            }
        }
    }
}

/// Where a node that drains would have us go.
fn nodes_named(message: &ServerMessage) -> Vec<ServerUrl> {
    match message {
        ServerMessage::Reconnect(reconnect) => nodes_of(reconnect),
        _ => Vec::new(),
    }
}

/// The nodes that it names.
pub(crate) fn nodes_of(reconnect: &Reconnect) -> Vec<ServerUrl> {
    reconnect.nodes.iter().filter_map(|node| node.parse().ok()).collect()
}
