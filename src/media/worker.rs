//! A media worker: one thread, one engine and its socket, and in a cluster one relay and its socket.

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Engine, EngineConfig, Event},
    ids::WorkerIndex,
    mix::TOGETHER_MAX,
    relay::RelayCommand,
};
use tokio::sync::mpsc;

use super::{
    Clock,
    counters::{Published, SocketCounter, SocketStats},
    forwarding::ForwardingTimes,
    inbox::Inbox,
    outbox::{Outbox, SideOutlets},
    relayed::{Leaving, RelaySetup, RelaySide},
    spread::Spread,
    sys::{self, RECEIVE_BATCH, ReceiveBatch},
    webrtc::{Arrived, PeerCommand, Peers, PeersSetup, ToRelay},
};

/// Full batches received in a row before what they brought is sent. More in a turn make bigger bundles when there is
/// much to do; no more than these may wait for each other.
const RECEIVES_PER_TURN: usize = 4;
/// Commands taken in a turn: a crowd joining must not keep frames waiting.
const COMMANDS_PER_TURN: usize = 64;
/// Packets of mixes taken in a turn, and as many frames of them as those have listeners at most: each is sealed for one
/// listener, and whoever is forwarded waits for them.
const MIXED_PER_TURN: usize = 4;
const MIX_FRAMES_PER_TURN: usize = MIXED_PER_TURN * TOGETHER_MAX;
/// How often the kernel is asked for what it dropped.
const KERNEL_DROPS_INTERVAL: Micros = Micros::from_secs(1);

/// What the rest of the program and a worker share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) published: Published,
}

/// What the rest of the program wants of a worker.
pub(super) enum Order {
    /// Of its engine, and so of its relay.
    Engine(Command),
    /// Of its relay alone.
    Relay(RelayCommand),
    /// Of its WebRTC peers alone.
    Peers(PeerCommand),
}

/// What a worker's thread starts with.
pub(super) struct Setup {
    pub(super) index: usize,
    pub(super) clock: Clock,
    pub(super) socket: UdpSocket,
    /// How long a frame may wait for others.
    pub(super) hold: Micros,
    /// From which load on, in percent, other workers help with long lists.
    pub(super) spread_from_percent: u16,
    /// The longest datagram that is taken.
    pub(super) datagram_bytes_max: usize,
    pub(super) commands: mpsc::Receiver<Order>,
    pub(super) relay: Option<RelaySetup>,
    /// Where frames go that are wanted beside forwarding.
    pub(super) side: SideOutlets,
    /// `None` where there is no WebRTC.
    pub(super) peers: Option<PeersSetup>,
    pub(super) events: mpsc::Sender<Event>,
    /// All workers', by index.
    pub(super) inboxes: Arc<[Inbox]>,
    pub(super) shared: Arc<Shared>,
}

/// How much of each kind waited in the inbox at one moment.
struct Left {
    frames: usize,
    handovers: usize,
    commands: usize,
}

/// A worker in its thread.
pub(super) struct Worker {
    index: usize,
    clock: Clock,
    socket: Arc<UdpSocket>,
    engine: Engine,
    outbox: Outbox,
    spread: Spread,
    relay: Option<RelaySide>,
    peers: Option<Peers>,
    /// What the peers have for the engine and for the relay in a turn: empty in between.
    arrived: Vec<Arrived>,
    to_relay: Vec<ToRelay>,
    commands: mpsc::Receiver<Order>,
    /// What was there when the inbox was looked into and is not taken yet.
    left: Option<Left>,
    inboxes: Arc<[Inbox]>,
    shared: Arc<Shared>,
    kernel_drops_asked_at: Micros,
    forwarding: ForwardingTimes,
}

impl Worker {
    /// To be called in the worker's thread.
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { index, clock, socket, hold, spread_from_percent, datagram_bytes_max, .. } = setup;
        let Setup { commands, relay, side, peers, events, inboxes, shared, .. } = setup;
        let socket = Arc::new(socket);
        let worker = WorkerIndex(u16::try_from(index).unwrap_or(u16::MAX));
        Self {
            index,
            clock,
            outbox: Outbox::new(Arc::clone(&socket), events, index, Arc::clone(&inboxes), side),
            spread: Spread::new(clock.now(), spread_from_percent),
            socket,
            engine: Engine::new(EngineConfig { worker, hold, datagram_bytes_max, relayed: relay.is_some() }),
            relay: relay.map(RelaySide::new),
            peers: peers.map(Peers::new),
            arrived: Vec::new(),
            to_relay: Vec::new(),
            commands,
            left: None,
            inboxes,
            shared,
            kernel_drops_asked_at: clock.now(),
            forwarding: ForwardingTimes::default(),
        }
    }

    /// Works until told to stop; what was gathered by then is sent.
    pub(super) fn run(mut self) {
        sys::wake_on_time();
        sys::ask_for_short_turns();
        let mut batch = ReceiveBatch::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let started_at = self.clock.now();
            let more = self.turn(started_at, &mut batch);
            let now = self.clock.now();
            self.outbox.sender.stats.add(SocketCounter::Turns, 1);
            let busy = now.since(started_at);
            self.outbox.sender.stats.add(SocketCounter::BusyMicros, busy.0);
            if let Some(since) = self.engine.take_oldest_sent() {
                self.forwarding.record(now.since(since));
            }
            let others = self.inboxes.len() - 1;
            self.spread.worked(now, busy, others, &self.inboxes[self.index].load);
            self.outbox.sharing = self.spread.is_sharing();
            self.publish(now);
            if !more {
                self.sleep(now);
            }
        }
        self.outbox.sender.flush();
        self.publish(self.clock.now());
    }

    /// Does all that is there to do now. True when there is more.
    fn turn(&mut self, now: Micros, batch: &mut ReceiveBatch) -> bool {
        let mut more = self.take_inbox(now);
        more |= self.receive(now, batch);
        more |= self.receive_relayed(now, batch);
        more |= self.serve_peers(now);
        let Self { engine, outbox, relay, peers, to_relay, .. } = self;
        engine.batch_end(now, outbox);
        engine.timeout(now, outbox);
        if let Some(peers) = peers.as_mut().filter(|peers| !peers.is_idle()) {
            // What they were given in this turn leaves in it.
            more |= peers.turn(now, engine, outbox);
            peers.take_for_relay(to_relay);
            for given in to_relay.drain(..) {
                if let Some(relay) = relay {
                    relay.of_peers(now, given);
                }
            }
        }
        outbox.sender.flush();
        if let Some(relay) = relay {
            relay.turn_end(now);
        }
        more
    }

    /// Looks after the WebRTC peers; the voice that came by them goes to the engine. True when there is more.
    fn serve_peers(&mut self, now: Micros) -> bool {
        let Self { engine, outbox, relay, peers: Some(peers), arrived, .. } = self else { return false };
        if peers.is_idle() {
            return false;
        }
        let more = peers.turn(now, engine, outbox);
        peers.take_arrived(arrived);
        for frame in arrived.drain(..) {
            let leaving = &mut Leaving { now, outbox, relay: relay.as_mut(), peers: Some(&mut *peers) };
            engine.peer_frame(now, frame.channel, frame.header, frame.bytes(), leaving);
        }
        more
    }

    /// Takes what other threads left, a bounded part of it in each turn. A frame never comes before the member it is of:
    /// those that are here now are taken once all commands that are here now have been, however many more come meanwhile.
    fn take_inbox(&mut self, now: Micros) -> bool {
        let Self { engine, outbox, relay, peers, left, commands: orders, inboxes, index, .. } = self;
        let inbox = &inboxes[*index];
        for part in (0..inbox.parts.len()).map_while(|_| inbox.parts.pop()) {
            outbox.sender.fan_out(part.datagram(), part.to());
        }
        let Left { frames, handovers, commands } = left.take().unwrap_or_else(|| Left {
            frames: inbox.frames.len(),
            handovers: inbox.handovers.len(),
            commands: orders.len(),
        });
        let taken = commands.min(COMMANDS_PER_TURN);
        for _ in 0..taken {
            let Ok(order) = orders.try_recv() else { break };
            outbox.sender.stats.add(SocketCounter::Commands, 1);
            match (order, relay.as_mut(), peers.as_mut()) {
                (Order::Engine(command), mut relay, mut peers) => {
                    if let Some(relay) = &mut relay {
                        relay.follow(now, &command);
                    }
                    if let Some(peers) = &mut peers {
                        peers.follow(&command);
                    }
                    engine.command(now, command, &mut Leaving { now, outbox, relay, peers });
                }
                (Order::Relay(command), Some(relay), _) => relay.command(now, command),
                (Order::Peers(command), _, Some(peers)) => peers.command(now, command),
                (Order::Relay(_), None, _) | (Order::Peers(_), _, None) => {}
            }
        }
        if taken < commands {
            *left = Some(Left { frames, handovers, commands: commands - taken });
            return true;
        }
        if let Some(peers) = peers {
            for left in (0..inbox.for_peers.len()).map_while(|_| inbox.for_peers.pop()) {
                peers.handed_over(now, &left, (engine, outbox));
            }
        }
        let leaving = &mut Leaving { now, outbox, relay: relay.as_mut(), peers: peers.as_mut() };
        for frame in (0..frames).map_while(|_| inbox.frames.pop()) {
            engine.command(now, frame, leaving);
        }
        for handover in (0..handovers).map_while(|_| inbox.handovers.pop()) {
            engine.handover(now, handover, leaving);
        }
        for packet in (0..MIXED_PER_TURN).map_while(|_| inbox.mixed.pop()) {
            engine.mixed(now, &packet.frame(), leaving);
        }
        for frame in (0..MIX_FRAMES_PER_TURN).map_while(|_| inbox.mix_frames.pop()) {
            engine.handover(now, frame, leaving);
        }
        !inbox.is_empty() || !orders.is_empty()
    }

    /// Receives what clients sent, within bounds. True when there may be more.
    fn receive(&mut self, now: Micros, batch: &mut ReceiveBatch) -> bool {
        let Self { engine, outbox, relay, peers, socket, .. } = self;
        for _ in 0..RECEIVES_PER_TURN {
            let Some(received) = receive_batch(socket, batch, &mut outbox.sender.stats) else { return false };
            for (from, datagram) in batch.datagrams(received) {
                outbox.sender.stats.add(SocketCounter::DatagramsReceived, 1);
                outbox.sender.stats.add(SocketCounter::BytesReceived, datagram.len() as u64);
                match peers.as_mut() {
                    Some(peers) if is_of_webrtc(datagram) => peers.datagram(now, from, datagram, (engine, outbox)),
                    peers => {
                        let leaving = &mut Leaving { now, outbox, relay: relay.as_mut(), peers };
                        engine.datagram(now, from, datagram, leaving);
                    }
                }
            }
            if received < RECEIVE_BATCH {
                return false;
            }
        }
        true
    }

    /// Likewise what other nodes sent.
    fn receive_relayed(&mut self, now: Micros, batch: &mut ReceiveBatch) -> bool {
        let Self { engine, outbox, relay: Some(relay), peers, .. } = self else { return false };
        for _ in 0..RECEIVES_PER_TURN {
            let Some(received) = receive_batch(&relay.socket, batch, &mut relay.sender.stats) else { return false };
            for (_, datagram) in batch.datagrams(received) {
                relay.datagram(now, datagram, engine, outbox, peers.as_mut());
            }
            if received < RECEIVE_BATCH {
                return false;
            }
        }
        true
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self, now: Micros) {
        let relay_due = self.relay.as_ref().and_then(|side| side.relay.poll_timeout());
        let peers_due = self.peers.as_ref().and_then(|peers| peers.poll_timeout(now));
        let due_at = [self.engine.poll_timeout(), relay_due, peers_due].into_iter().flatten().min();
        let due_in = due_at.map(|at| Duration::from_micros(at.since(now).0));
        let inbox = &self.inboxes[self.index];
        inbox.waker().announce_sleep();
        let woken = if inbox.is_empty() && self.commands.is_empty() && !self.shared.stop.load(Ordering::Relaxed) {
            let relay_socket = self.relay.as_ref().map(|side| side.socket.as_fd());
            match sys::wait([Some(self.socket.as_fd()), relay_socket], inbox.waker().as_fd(), due_in) {
                Ok(woken) => woken,
                Err(_) => {
                    self.outbox.sender.stats.add(SocketCounter::ReceiveErrors, 1);
                    false
                }
            }
        } else {
            false
        };
        inbox.waker().awake(woken);
        self.outbox.sender.stats.add(SocketCounter::Wakes, u64::from(woken));
    }

    fn publish(&mut self, now: Micros) {
        let Self { outbox, relay, peers, shared, .. } = self;
        if now.since(self.kernel_drops_asked_at) >= KERNEL_DROPS_INTERVAL {
            self.kernel_drops_asked_at = now;
            note_kernel_drops(&self.socket, &mut outbox.sender.stats);
            if let Some(RelaySide { socket, sender, .. }) = relay {
                note_kernel_drops(socket, &mut sender.stats);
            }
        }
        shared.published.store(self.engine.stats(), &outbox.sender.stats, &self.forwarding);
        if let Some(peers) = peers {
            shared.published.store_peers(&peers.stats);
        }
        if let Some(side) = relay {
            shared.published.store_relay(side.relay.stats(), &side.sender.stats);
        }
    }
}

/// Whether a datagram's first byte says STUN, DTLS, RTP or RTCP (RFC 7983, 7).
fn is_of_webrtc(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| matches!(first, 0..=3 | 20..=63 | 128..=191))
}

/// Receives a batch: how many datagrams, or `None` when there are none.
fn receive_batch(socket: &UdpSocket, batch: &mut ReceiveBatch, stats: &mut SocketStats) -> Option<usize> {
    match batch.receive(socket.as_fd()) {
        Ok(received) => {
            stats.add(SocketCounter::ReceiveCalls, 1);
            Some(received)
        }
        Err(error) => {
            if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) {
                stats.add(SocketCounter::ReceiveErrors, 1);
            }
            None
        }
    }
}

fn note_kernel_drops(socket: &UdpSocket, stats: &mut SocketStats) {
    if let Ok(drops) = sys::receive_drops(socket.as_fd()) {
        stats.set(SocketCounter::KernelDrops, drops);
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        engine::{FrameBytes, Handover},
        ids::{ChannelId, MediaSessionId, StreamId},
        mix::MixTo,
        wire::frame::FrameHeader,
    };
    use uuid::Uuid;

    use super::{super::mixing::MixedPacket, *};

    fn worker(inboxes: &Arc<[Inbox]>) -> Worker {
        Worker::new(Setup {
            index: 0,
            clock: Clock::start(),
            socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            hold: Micros(0),
            spread_from_percent: 101,
            datagram_bytes_max: 1_500,
            commands: mpsc::channel(1).1,
            relay: None,
            side: SideOutlets::default(),
            peers: None,
            events: mpsc::channel(8).0,
            inboxes: Arc::clone(inboxes),
            shared: Arc::default(),
        })
    }

    #[test]
    fn a_crowd_that_hears_mixes_keeps_nobody_waiting() {
        let inboxes: Arc<[Inbox]> = Arc::new([Inbox::new(1_000).expect("an inbox")]);
        let (mut worker, inbox) = (worker(&inboxes), &inboxes[0]);
        let header = FrameHeader { stream: StreamId(1), sequence: 0, timestamp: 0, kind_flags: 0, level: 0 };
        for _ in 0..2 * MIXED_PER_TURN {
            let packet = MixedPacket::new(ChannelId(Uuid::nil()), &[MixTo::NOBODY; TOGETHER_MAX], 0, 0, &[1]);
            assert!(inbox.leave_mixed(packet));
        }
        for _ in 0..2 * MIX_FRAMES_PER_TURN {
            let (session, bytes) = (MediaSessionId(1), FrameBytes::copy_from(&[1]).expect("short"));
            assert!(inbox.leave_handover(Handover::Mixed { session, header, bytes }));
        }
        assert!(worker.take_inbox(Micros(1)), "there is more");
        assert_eq!((inbox.mixed.len(), inbox.mix_frames.len()), (MIXED_PER_TURN, MIX_FRAMES_PER_TURN));
        assert!(!worker.take_inbox(Micros(2)), "that was all");
    }
}
