//! A client for ordinary use: one gateway session, one UDP socket, and the voice between them.
//!
//! [`Client::connect`] leaves a task behind that owns both and drives the [`VoiceSession`](crate::voice::VoiceSession).
//! Everything that happens comes out of one queue of [`ClientEvent`]s, in order; frames in the order of their arrival,
//! each once, whichever way they came.

mod actor;

pub(crate) use actor::node_address;

use antiphon_core::{
    clock::Micros,
    gateway::{ChannelJoined, ClientMessage, Error, JoinChannel, LeaveChannel, ServerMessage, UserView},
    ids::ChannelId,
    wire::frame::{FrameHeader, FrameKind},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    gateway::{Closed, Gateway, GatewayConfig, GatewayError},
    voice::{ReceptionCounters, Route, SendError, SetupError, UdpCounters},
};

/// Commands waiting for the task; more make the caller wait.
const COMMANDS_MAX: usize = 64;

/// Events waiting to be read: some 20 s of one speaker. Further frames are dropped and counted; messages wait.
const EVENTS_MAX: usize = 1_024;

/// A client's own clock: microseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant of a time, for sleeping until it.
    #[must_use]
    pub fn instant(&self, at: Micros) -> Instant {
        self.origin + std::time::Duration::from_micros(at.0)
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The session is over.
    #[error("the session is over")]
    Closed,
    /// The connection was lost before the answer came.
    #[error("the connection was lost before the answer came")]
    Disconnected,
    /// No answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server said no.
    #[error("{} ({})", .0.error, .0.error_code.as_str())]
    Refused(Error),
    /// The server's answer to a join cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The server answered with something that is no answer to this.
    #[error("the server answered with {0}")]
    Unexpected(&'static str),
    /// The frame was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The machine has no UDP socket for us.
    #[error("no UDP socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceFrame {
    /// What it is.
    pub kind: FrameKind,
    /// The flags of [`FrameHeader`].
    pub flags: u8,
    /// RFC 6464 level.
    pub level: u8,
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// One Opus packet, or nothing.
    pub bytes: Vec<u8>,
}

/// A frame heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardFrame {
    /// When it arrived, by [`Client::clock`].
    pub at: Micros,
    /// Where.
    pub channel: ChannelId,
    /// Whose, and which.
    pub header: FrameHeader,
    /// One Opus packet, or nothing.
    pub bytes: Vec<u8>,
    /// Which way it came.
    pub route: Route,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// A frame was heard for the first time.
    Frame(HeardFrame),
    /// A message that is neither a frame nor the answer to one of our requests.
    Message(Box<ServerMessage>),
    /// Whether frames go by UDP has changed.
    UdpWorks(bool),
    /// The connection is lost; the session may go on.
    Disconnected,
    /// The session goes on, in these channels.
    Resumed(Vec<ChannelJoined>),
    /// The session is over.
    Closed(Closed),
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Whether frames go by UDP.
    pub udp_works: bool,
    /// The smoothed round-trip time over UDP.
    pub round_trip: Option<Micros>,
    /// The node's clock minus ours, in µs.
    pub node_clock_ahead_us: Option<i64>,
    /// What came by UDP.
    pub udp: UdpCounters,
    /// What was heard.
    pub reception: ReceptionCounters,
    /// Frames that came over the gateway.
    pub tunnelled: u64,
    /// Frames heard but dropped, since nobody read the events in time.
    pub unread: u64,
    /// Frames not sent, since the gateway connection could not keep up.
    pub unsent: u64,
}

enum Command {
    Join(Box<JoinChannel>, oneshot::Sender<Result<ChannelJoined, ClientError>>),
    Request(ClientMessage, oneshot::Sender<Result<ServerMessage, ClientError>>),
    Frame(ChannelId, VoiceFrame, oneshot::Sender<Result<(), ClientError>>),
    Stats(oneshot::Sender<ClientStats>),
    Close(oneshot::Sender<()>),
}

/// A handle on the client. When it is dropped, the client leaves in good order.
pub struct Client {
    commands: mpsc::Sender<Command>,
    user: UserView,
    guest_tokens: Option<(String, String)>,
    clock: Clock,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects and authenticates. The events are to be read, or their receiver dropped: with neither, the client
    /// stops reading in turn.
    ///
    /// # Errors
    /// When there is no connection or the server refuses.
    pub async fn connect(config: GatewayConfig) -> Result<(Self, mpsc::Receiver<ClientEvent>), GatewayError> {
        let (gateway, gateway_events) = Gateway::connect(config.clone()).await?;
        let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
        let (events, events_rx) = mpsc::channel(EVENTS_MAX);
        let clock = Clock::start();
        let user = gateway.user().clone();
        let guest_tokens = gateway.guest_tokens().map(|(access, refresh)| (access.to_owned(), refresh.to_owned()));
        let actor = actor::Actor::new(config.server, gateway, clock, events);
        let task = tokio::spawn(actor.run(commands_rx, gateway_events));
        Ok((Self { commands, user, guest_tokens, clock, task }, events_rx))
    }

    /// Who we are.
    pub fn user(&self) -> &UserView {
        &self.user
    }

    /// A guest's access and refresh tokens.
    pub fn guest_tokens(&self) -> Option<(&str, &str)> {
        self.guest_tokens.as_ref().map(|(access, refresh)| (access.as_str(), refresh.as_str()))
    }

    /// The clock of every time the client gives or takes.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Enters a channel's voice.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn join(&self, join: JoinChannel) -> Result<ChannelJoined, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Join(Box::new(join), reply), answer).await?
    }

    /// Leaves a channel's voice.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn leave(&self, channel: ChannelId) -> Result<(), ClientError> {
        self.request(LeaveChannel { channel_id: channel }).await.map(drop)
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn request(&self, message: impl Into<ClientMessage>) -> Result<ServerMessage, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Request(message.into(), reply), answer).await?
    }

    /// Sends a frame, the way that works.
    ///
    /// # Errors
    /// When the channel is not joined or the frame is too long.
    pub async fn send(&self, channel: ChannelId, frame: VoiceFrame) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Frame(channel, frame, reply), answer).await?
    }

    /// How things stand.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn stats(&self) -> Result<ClientStats, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Stats(reply), answer).await
    }

    /// Leaves in good order and waits until that is done.
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // An error says that the task has ended by itself.
            let _closed = closed.await;
        }
        let _ended = self.task.await;
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)
    }
}
