//! The client's task: it alone touches the gateway session, the socket and the voice session.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use antiphon_core::{
    gateway::{ChannelJoined, ClientMessage, ServerMessage, UdpSetup},
    ids::ChannelId,
    wire::datagram::DATAGRAM_BYTES_MAX,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{ClientError, ClientEvent, ClientStats, Clock, Command, HeardFrame, VoiceFrame};
use crate::{
    gateway::{Gateway, GatewayEvent},
    server_url::ServerUrl,
    voice::{Heard, OutgoingFrame, Sent, VoiceOutput, VoiceSession},
};

/// How long the server may take to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what still comes from the node before a Resume is listened to: as long as that sends it (docs/protocol.md, 3.2).
const FORMER_HEARD_FOR: Duration = Duration::from_secs(5);

/// Datagrams read at a time before others get their turn.
const RECEIVE_BATCH: usize = 64;

enum Waiting {
    Join(oneshot::Sender<Result<ChannelJoined, ClientError>>),
    Answer(oneshot::Sender<Result<ServerMessage, ClientError>>),
}

impl Waiting {
    fn fail(self, error: ClientError) {
        // Whoever asked may have stopped waiting.
        match self {
            Self::Join(reply) => drop(reply.send(Err(error))),
            Self::Answer(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// The task's state.
pub(super) struct Actor {
    /// The node that the session is at.
    server: ServerUrl,
    gateway: Gateway,
    clock: Clock,
    events: mpsc::Sender<ClientEvent>,
    voice: VoiceSession,
    socket: Option<UdpSocket>,
    /// The one before the last Resume, and until when it is listened to.
    former: Option<(UdpSocket, Instant)>,
    waiting: HashMap<i64, (Instant, Waiting)>,
    tunnelled: u64,
    unread: u64,
    buffer: Box<[u8; DATAGRAM_BYTES_MAX]>,
}

impl Actor {
    pub(super) fn new(server: ServerUrl, gateway: Gateway, clock: Clock, events: mpsc::Sender<ClientEvent>) -> Self {
        Self {
            server,
            gateway,
            clock,
            events,
            voice: VoiceSession::new(),
            socket: None,
            former: None,
            waiting: HashMap::new(),
            tunnelled: 0,
            unread: 0,
            buffer: Box::new([0; DATAGRAM_BYTES_MAX]),
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut gateway_events: mpsc::Receiver<GatewayEvent>,
    ) {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        self.gateway.close().await;
                        // Whoever closes may have stopped waiting.
                        let _unheard = reply.send(());
                        return;
                    }
                    Some(command) => self.command(command).await,
                    None => return self.gateway.close().await,
                },
                event = gateway_events.recv() => match event {
                    Some(event) => self.gateway_event(event).await,
                    None => return self.fail_waiting(|| ClientError::Closed),
                },
                () = readable(self.socket.as_ref()) => self.receive(),
                () = readable(self.former.as_ref().map(|(socket, _)| socket)) => self.receive_former(),
                () = tokio::time::sleep_until(deadline) => self.timeout(),
            }
            self.flush().await;
        }
    }

    fn deadline(&self) -> Instant {
        let voice = self.voice.poll_timeout().map(|at| self.clock.instant(at));
        let requests = self.waiting.values().map(|(until, _)| *until).min();
        let idle = Instant::now() + Duration::from_secs(3_600);
        let former = self.former.as_ref().map(|(_, until)| *until);
        [voice, requests, former].into_iter().flatten().min().unwrap_or(idle)
    }

    fn timeout(&mut self) {
        let now = Instant::now();
        self.former.take_if(|(_, until)| *until <= now);
        let late: Vec<i64> =
            self.waiting.iter().filter(|(_, (until, _))| *until <= now).map(|(request, _)| *request).collect();
        for request in late {
            if let Some((_, waiting)) = self.waiting.remove(&request) {
                waiting.fail(ClientError::TimedOut);
            }
        }
        self.voice.timeout(self.clock.now());
    }

    fn fail_waiting(&mut self, error: impl Fn() -> ClientError) {
        for (_, (_, waiting)) in self.waiting.drain() {
            waiting.fail(error());
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Join(join, reply) => self.ask((*join).into(), Waiting::Join(reply)).await,
            Command::Request(message, reply) => self.ask(message, Waiting::Answer(reply)).await,
            Command::Frame(channel, frame, reply) => {
                // Whoever sends may not care how it went.
                let _unheard = reply.send(self.send_frame(channel, &frame));
            }
            Command::Stats(reply) => {
                let _unheard = reply.send(self.stats());
            }
            Command::Close(_) => {}
        }
    }

    async fn ask(&mut self, message: ClientMessage, waiting: Waiting) {
        match self.gateway.send(message).await {
            Ok(request) => drop(self.waiting.insert(request, (Instant::now() + REQUEST_TIMEOUT, waiting))),
            Err(_) => waiting.fail(ClientError::Closed),
        }
    }

    fn send_frame(&mut self, channel: ChannelId, frame: &VoiceFrame) -> Result<(), ClientError> {
        let outgoing = OutgoingFrame {
            kind: frame.kind,
            flags: frame.flags,
            level: frame.level,
            timestamp: frame.timestamp,
            bytes: &frame.bytes,
        };
        match self.voice.send(self.clock.now(), channel, &outgoing, &mut self.buffer)? {
            Sent::Datagram(length) => transmit(self.socket.as_ref(), &self.buffer[..length]),
            Sent::Tunnel(audio) => self.gateway.send_audio(audio),
        }
        Ok(())
    }

    fn stats(&self) -> ClientStats {
        let now = self.clock.now();
        let ahead = |node: antiphon_core::clock::Micros| i64::try_from(i128::from(node.0) - i128::from(now.0)).ok();
        ClientStats {
            udp_works: self.voice.udp_works(),
            round_trip: self.voice.round_trip(),
            node_clock_ahead_us: self.voice.node_clock(now).and_then(ahead),
            udp: self.voice.udp_counters(),
            reception: self.voice.reception_counters(),
            tunnelled: self.tunnelled,
            unread: self.unread,
            unsent: self.gateway.audio_dropped(),
        }
    }

    async fn gateway_event(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::Message(message, request) => self.message(*message, request).await,
            GatewayEvent::Disconnected => {
                self.fail_waiting(|| ClientError::Disconnected);
                self.emit(ClientEvent::Disconnected).await;
            }
            GatewayEvent::Resumed { server, channels } => {
                self.server = server;
                if let Err(error) = self.resumed(&channels).await {
                    tracing::warn!(%error, "UDP is not used after the resume");
                }
                self.emit(ClientEvent::Resumed(channels)).await;
            }
            GatewayEvent::Closed(closed) => {
                self.fail_waiting(|| ClientError::Closed);
                self.emit(ClientEvent::Closed(closed)).await;
            }
        }
    }

    async fn message(&mut self, message: ServerMessage, request: Option<i64>) {
        let refused = self.apply(&message).await.err();
        let waiting = request.and_then(|request| self.waiting.remove(&request));
        match (waiting, message) {
            (Some((_, waiting)), ServerMessage::Error(error)) => waiting.fail(ClientError::Refused(error)),
            (Some((_, waiting)), message) => match (waiting, refused) {
                (waiting, Some(error)) => waiting.fail(error),
                (Waiting::Join(reply), None) => {
                    let name = message.name();
                    let joined = match message {
                        ServerMessage::ChannelJoined(joined) => Ok(joined),
                        _ => Err(ClientError::Unexpected(name)),
                    };
                    let _unheard = reply.send(joined);
                }
                (Waiting::Answer(reply), None) => {
                    let _unheard = reply.send(Ok(message));
                }
            },
            (None, ServerMessage::AudioFrame(_)) => {}
            (None, message) => {
                if let Some(error) = refused {
                    tracing::warn!(%error, message = message.name(), "a message of the server's cannot be used");
                }
                self.emit(ClientEvent::Message(Box::new(message))).await;
            }
        }
    }

    /// What a message means for the voice.
    async fn apply(&mut self, message: &ServerMessage) -> Result<(), ClientError> {
        let now = self.clock.now();
        match message {
            ServerMessage::ChannelJoined(joined) => {
                self.open_socket(joined.voice.udp.as_ref()).await?;
                self.voice.join(now, joined.channel_id, &joined.voice)?;
            }
            ServerMessage::ChannelLeft(left) => self.voice.leave(left.channel_id),
            ServerMessage::Removed(removed) => self.voice.leave(removed.channel_id),
            ServerMessage::UserJoined(joined) => self.voice.forget(joined.stream_id),
            ServerMessage::UserLeft(left) => self.voice.forget(left.stream_id),
            ServerMessage::AudioStarted(_) => self.voice.announced(now),
            ServerMessage::KeyRotated(rotated) => self.voice.rotate(now, rotated)?,
            ServerMessage::AudioFrame(frame) => {
                self.tunnelled += 1;
                let heard = self.voice.tunnelled(now, frame).map(|heard| owned(now, &heard));
                if let Some(frame) = heard {
                    self.emit_frame(frame);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn resumed(&mut self, channels: &[ChannelJoined]) -> Result<(), ClientError> {
        let setup = channels.iter().find_map(|joined| joined.voice.udp.as_ref());
        // What it has received and what is on its way to it would be lost with it.
        self.former = self.socket.take().map(|socket| (socket, Instant::now() + FORMER_HEARD_FOR));
        self.open_socket(setup).await?;
        Ok(self.voice.resumed(self.clock.now(), channels)?)
    }

    /// One socket serves all channels; the first join opens it.
    async fn open_socket(&mut self, setup: Option<&UdpSetup>) -> Result<(), ClientError> {
        let Some(setup) = setup else { return Ok(()) };
        if self.socket.is_none() || self.voice.media_session() != Some(setup.session_id) {
            let node = node_address(&self.server, setup).await?;
            let unspecified: IpAddr =
                if node.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((unspecified, 0)).await?;
            socket.connect(node).await?;
            // Until this has run once, tokio takes a new socket for not writable.
            socket.writable().await?;
            self.socket = Some(socket);
        }
        Ok(())
    }

    fn receive(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.receive_from(&socket);
            self.socket = Some(socket);
        }
    }

    fn receive_former(&mut self) {
        if let Some((socket, until)) = self.former.take() {
            self.receive_from(&socket);
            self.former = Some((socket, until));
        }
    }

    fn receive_from(&mut self, socket: &UdpSocket) {
        let now = self.clock.now();
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        let mut frames = Vec::new();
        for _ in 0..RECEIVE_BATCH {
            // Besides "nothing more" an error is an ICMP answer to what we sent; the path's own timers tell what to do.
            let Ok(length) = socket.try_recv(&mut buffer) else { break };
            // Why one was dropped is in the session's counters.
            let _dropped = self.voice.datagram(now, &mut buffer[..length], |heard| frames.push(owned(now, &heard)));
        }
        for frame in frames {
            self.emit_frame(frame);
        }
    }

    /// Sends what the voice session wants sent.
    async fn flush(&mut self) {
        while let Some(output) = self.voice.poll_output() {
            match output {
                VoiceOutput::Datagram(datagram) => transmit(self.socket.as_ref(), &datagram),
                VoiceOutput::Tunnel(audio) => self.gateway.send_audio(audio),
                VoiceOutput::UdpWorks(works) => self.emit(ClientEvent::UdpWorks(works)).await,
            }
        }
    }

    fn emit_frame(&mut self, frame: HeardFrame) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(ClientEvent::Frame(frame)) {
            self.unread += 1;
        }
    }

    /// A dropped receiver says that nobody wants to know.
    async fn emit(&self, event: ClientEvent) {
        let _unread = self.events.send(event).await;
    }
}

fn owned(now: antiphon_core::clock::Micros, heard: &Heard<'_>) -> HeardFrame {
    HeardFrame {
        at: now,
        channel: heard.channel,
        header: heard.header,
        bytes: heard.bytes.to_vec(),
        route: heard.route,
    }
}

/// A datagram that the kernel does not take is a lost datagram: voice goes on with the next.
fn transmit(socket: Option<&UdpSocket>, datagram: &[u8]) {
    if let Some(socket) = socket {
        let _lost = socket.try_send(datagram);
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        // An error shows again on reading.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// The first of the node's addresses that resolves. One that names no host (`0.0.0.0`) means the server's own.
pub(crate) async fn node_address(server: &ServerUrl, setup: &UdpSetup) -> Result<SocketAddr, io::Error> {
    for advertised in &setup.udp {
        let mut text = advertised.clone();
        if let Ok(address) = advertised.parse::<SocketAddr>()
            && address.ip().is_unspecified()
        {
            text = format!("{}:{}", server.host(), address.port());
        }
        if let Some(address) = tokio::net::lookup_host(&text).await.ok().and_then(|mut found| found.next()) {
            return Ok(address);
        }
    }
    let message = format!("none of the node's addresses resolves: {}", setup.udp.join(", "));
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message))
}
