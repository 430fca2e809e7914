//! A worker's relay beside its engine: a socket of its own, and frames passed from the one to the other.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
};

use antiphon_core::{
    clock::Micros,
    engine::{self, Command, Engine, Event, Handover},
    ids::{ChannelId, WorkerIndex},
    relay::{self, Relay, RelayCommand, RelayConfig, RelayEvent},
    wire::frame::FrameHeader,
};
use tokio::sync::mpsc;

use super::{
    counters::SocketCounter,
    outbox::Outbox,
    sender::Sender,
    sys,
    webrtc::{Peers, ToRelay},
};

/// One worker's relay and what it needs.
pub(super) struct RelaySide {
    pub(super) relay: Relay,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) sender: Sender,
    events: mpsc::Sender<RelayEvent>,
}

/// What a worker's thread makes it of.
pub(super) struct RelaySetup {
    pub(super) worker: WorkerIndex,
    pub(super) secret: Arc<[u8]>,
    pub(super) socket: UdpSocket,
    pub(super) events: mpsc::Sender<RelayEvent>,
}

impl RelaySide {
    /// To be called in the worker's thread.
    pub(super) fn new(setup: RelaySetup) -> Self {
        let RelaySetup { worker, secret, socket, events } = setup;
        let socket = Arc::new(socket);
        let relay = Relay::new(&RelayConfig { worker, secret });
        let segmenting = sys::can_segment(socket.as_fd());
        if !segmenting && worker == WorkerIndex(0) {
            tracing::info!("this kernel has no UDP_SEGMENT: datagrams to other nodes leave one by one");
        }
        let sender = if segmenting { Sender::segmenting } else { Sender::new }(Arc::clone(&socket));
        Self { relay, sender, socket, events }
    }

    /// The relay follows the channels of the engine.
    pub(super) fn follow(&mut self, now: Micros, command: &Command) {
        let follows = match command {
            Command::OpenChannel { channel, max_speakers } => {
                RelayCommand::Open { channel: *channel, max_speakers: *max_speakers }
            }
            Command::SetMaxSpeakers { channel, max_speakers } => {
                RelayCommand::SetMaxSpeakers { channel: *channel, max_speakers: *max_speakers }
            }
            Command::CloseChannel { channel } => RelayCommand::Close { channel: *channel },
            _ => return,
        };
        self.command(now, follows);
    }

    pub(super) fn command(&mut self, now: Micros, command: RelayCommand) {
        let Self { relay, sender, events, .. } = self;
        relay.command(now, command, &mut Away { sender, events });
    }

    /// A datagram of another node came: its frames go to the engine.
    pub(super) fn datagram(
        &mut self,
        now: Micros,
        datagram: &mut [u8],
        engine: &mut Engine,
        outbox: &mut Outbox,
        peers: Option<&mut Peers>,
    ) {
        let Self { relay, sender, events, .. } = self;
        sender.stats.add(SocketCounter::DatagramsReceived, 1);
        sender.stats.add(SocketCounter::BytesReceived, datagram.len() as u64);
        relay.datagram(now, datagram, &mut Arriving { now, away: Away { sender, events }, engine, outbox, peers });
    }

    /// Something of the WebRTC peers here for the other nodes.
    pub(super) fn of_peers(&mut self, now: Micros, given: ToRelay) {
        let Self { relay, sender, events, .. } = self;
        let away = &mut Away { sender, events };
        match given {
            ToRelay::Picture { channel, head, payload } => {
                relay.local_record(now, channel, true, (&head, &payload), away);
            }
            ToRelay::Meeting { channel, bytes, length } => {
                relay.local_record(now, channel, false, (&bytes[..length], &[]), away);
            }
            ToRelay::Command(command) => relay.command(now, command, away),
        }
    }

    /// The turn is over: what it has to send leaves.
    pub(super) fn turn_end(&mut self, now: Micros) {
        let Self { relay, sender, events, .. } = self;
        relay.timeout(now, &mut Away { sender, events });
        sender.flush();
    }
}

/// The relay's output while no datagram of another node is read: nothing arrives then.
struct Away<'a> {
    sender: &'a mut Sender,
    events: &'a mpsc::Sender<RelayEvent>,
}

impl relay::Output for Away<'_> {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sender.fan_out(datagram, &[to]);
    }

    fn deliver(&mut self, _: ChannelId, _: &FrameHeader, _: &[u8]) {}

    fn event(&mut self, event: RelayEvent) {
        if self.events.try_send(event).is_err() {
            self.sender.stats.add(SocketCounter::EventsDropped, 1);
        }
    }
}

/// The relay's output while a datagram of another node is read.
struct Arriving<'a> {
    now: Micros,
    away: Away<'a>,
    engine: &'a mut Engine,
    outbox: &'a mut Outbox,
    peers: Option<&'a mut Peers>,
}

impl relay::Output for Arriving<'_> {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.away.send(to, datagram);
    }

    fn deliver(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) {
        let Self { now, engine, outbox, peers, .. } = self;
        let leaving = &mut Leaving { now: *now, outbox, relay: None, peers: peers.as_deref_mut() };
        engine.remote_frame(*now, channel, header, bytes, leaving);
    }

    fn record(&mut self, channel: ChannelId, is_picture: bool, body: &[u8]) {
        if let Some(peers) = &mut self.peers {
            peers.remote_record(self.now, channel, is_picture, body);
        }
    }

    fn event(&mut self, event: RelayEvent) {
        self.away.event(event);
    }
}

/// The engine's output: the outbox, and the relay and WebRTC peers where there are any.
pub(super) struct Leaving<'a> {
    pub(super) now: Micros,
    pub(super) outbox: &'a mut Outbox,
    pub(super) relay: Option<&'a mut RelaySide>,
    pub(super) peers: Option<&'a mut Peers>,
}

impl engine::Output for Leaving<'_> {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.outbox.send(to, datagram);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        self.outbox.fan_out(datagram, to);
    }

    fn event(&mut self, event: Event) -> bool {
        self.outbox.event(event)
    }

    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool {
        self.outbox.handover(to, handover)
    }

    fn peers(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) {
        if let Some(peers) = &mut self.peers {
            peers.voice(self.now, channel, (header, bytes), self.outbox);
        }
    }

    fn mix(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.outbox.mix(now, channel, header, bytes)
    }

    fn record(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.outbox.record(now, channel, header, bytes)
    }

    fn relay(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some(RelaySide { relay, sender, events, .. }) = self.relay.as_deref_mut() else { return true };
        relay.local_frame(self.now, channel, header, bytes, &mut Away { sender, events })
    }
}
