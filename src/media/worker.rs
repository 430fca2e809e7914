//! A media worker: one thread, one socket, one engine.

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
};
use tokio::sync::mpsc;

use super::{
    Clock,
    counters::{Published, SocketCounter},
    inbox::Inbox,
    outbox::Outbox,
    spread::Spread,
    sys::{self, RECEIVE_BATCH, ReceiveBatch},
};

/// Full batches received in a row before what they brought is sent. More in a turn make bigger bundles when there is
/// much to do; no more than these may wait for each other.
const RECEIVES_PER_TURN: usize = 4;
/// Commands taken in a turn: a crowd joining must not keep frames waiting.
const COMMANDS_PER_TURN: usize = 64;
/// How often the kernel is asked for what it dropped.
const KERNEL_DROPS_INTERVAL: Micros = Micros::from_secs(1);

/// What the rest of the program and a worker share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) published: Published,
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
    pub(super) commands: mpsc::Receiver<Command>,
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
    commands: mpsc::Receiver<Command>,
    /// What was there when the inbox was looked into and is not taken yet.
    left: Option<Left>,
    inboxes: Arc<[Inbox]>,
    shared: Arc<Shared>,
    kernel_drops_asked_at: Micros,
}

impl Worker {
    /// To be called in the worker's thread.
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { index, clock, socket, hold, spread_from_percent, datagram_bytes_max, .. } = setup;
        let Setup { commands, events, inboxes, shared, .. } = setup;
        let socket = Arc::new(socket);
        let worker = WorkerIndex(u16::try_from(index).unwrap_or(u16::MAX));
        Self {
            index,
            clock,
            outbox: Outbox::new(Arc::clone(&socket), events, index, Arc::clone(&inboxes)),
            spread: Spread::new(clock.now(), spread_from_percent),
            socket,
            engine: Engine::new(EngineConfig { worker, hold, datagram_bytes_max }),
            commands,
            left: None,
            inboxes,
            shared,
            kernel_drops_asked_at: clock.now(),
        }
    }

    /// Works until told to stop; what was gathered by then is sent.
    pub(super) fn run(mut self) {
        sys::wake_on_time();
        let mut batch = ReceiveBatch::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let started_at = self.clock.now();
            let more = self.turn(started_at, &mut batch);
            let now = self.clock.now();
            self.outbox.stats.add(SocketCounter::Turns, 1);
            let busy = now.since(started_at);
            self.outbox.stats.add(SocketCounter::BusyMicros, busy.0);
            let others = self.inboxes.len() - 1;
            self.spread.worked(now, busy, others, &self.inboxes[self.index].load);
            self.outbox.sharing = self.spread.is_sharing();
            self.publish(now);
            if !more {
                self.sleep(now);
            }
        }
        self.outbox.flush();
        self.publish(self.clock.now());
    }

    /// Does all that is there to do now. True when there is more.
    fn turn(&mut self, now: Micros, batch: &mut ReceiveBatch) -> bool {
        let mut more = self.take_inbox(now);
        more |= self.receive(now, batch);
        self.engine.batch_end(now, &mut self.outbox);
        self.engine.timeout(now, &mut self.outbox);
        self.outbox.flush();
        more
    }

    /// Takes what other threads left, a bounded part of it in each turn. A frame never comes before the member it is of:
    /// those that are here now are taken once all commands that are here now have been, however many more come meanwhile.
    fn take_inbox(&mut self, now: Micros) -> bool {
        let inbox = &self.inboxes[self.index];
        for part in (0..inbox.parts.len()).map_while(|_| inbox.parts.pop()) {
            self.outbox.send_all(part.datagram(), part.to());
        }
        let Left { frames, handovers, commands } = self.left.take().unwrap_or_else(|| Left {
            frames: inbox.frames.len(),
            handovers: inbox.handovers.len(),
            commands: self.commands.len(),
        });
        let taken = commands.min(COMMANDS_PER_TURN);
        for _ in 0..taken {
            let Ok(command) = self.commands.try_recv() else { break };
            self.engine.command(now, command, &mut self.outbox);
            self.outbox.stats.add(SocketCounter::Commands, 1);
        }
        if taken < commands {
            self.left = Some(Left { frames, handovers, commands: commands - taken });
            return true;
        }
        for frame in (0..frames).map_while(|_| inbox.frames.pop()) {
            self.engine.command(now, frame, &mut self.outbox);
        }
        for handover in (0..handovers).map_while(|_| inbox.handovers.pop()) {
            self.engine.handover(now, handover, &mut self.outbox);
        }
        !inbox.is_empty() || !self.commands.is_empty()
    }

    /// Receives what is there, within bounds. True when there may be more.
    fn receive(&mut self, now: Micros, batch: &mut ReceiveBatch) -> bool {
        for _ in 0..RECEIVES_PER_TURN {
            let received = match batch.receive(self.socket.as_fd()) {
                Ok(received) => received,
                Err(error) => {
                    if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) {
                        self.outbox.stats.add(SocketCounter::ReceiveErrors, 1);
                    }
                    return false;
                }
            };
            self.outbox.stats.add(SocketCounter::ReceiveCalls, 1);
            for (from, datagram) in batch.datagrams(received) {
                self.outbox.stats.add(SocketCounter::DatagramsReceived, 1);
                self.outbox.stats.add(SocketCounter::BytesReceived, datagram.len() as u64);
                self.engine.datagram(now, from, datagram, &mut self.outbox);
            }
            if received < RECEIVE_BATCH {
                return false;
            }
        }
        true
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self, now: Micros) {
        let due_in = self.engine.poll_timeout().map(|at| Duration::from_micros(at.since(now).0));
        let inbox = &self.inboxes[self.index];
        inbox.waker().announce_sleep();
        let woken = if inbox.is_empty() && self.commands.is_empty() && !self.shared.stop.load(Ordering::Relaxed) {
            match sys::wait(self.socket.as_fd(), inbox.waker().as_fd(), due_in) {
                Ok(woken) => woken,
                Err(_) => {
                    self.outbox.stats.add(SocketCounter::ReceiveErrors, 1);
                    false
                }
            }
        } else {
            false
        };
        inbox.waker().awake(woken);
        self.outbox.stats.add(SocketCounter::Wakes, u64::from(woken));
    }

    fn publish(&mut self, now: Micros) {
        if now.since(self.kernel_drops_asked_at) >= KERNEL_DROPS_INTERVAL {
            self.kernel_drops_asked_at = now;
            if let Ok(drops) = sys::receive_drops(self.socket.as_fd()) {
                self.outbox.stats.set(SocketCounter::KernelDrops, drops);
            }
        }
        self.shared.published.store(self.engine.stats(), &self.outbox.stats);
    }
}
