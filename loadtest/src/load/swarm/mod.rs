//! All clients' sockets in one thread, which nothing wakes: it sleeps until a frame is due or until it is time to sweep
//! the sockets for what has arrived. So the server's sends wake nobody, and the kernel's stamps still tell to the
//! microsecond when each datagram came.

mod client;
mod hearing;
mod shared;
mod speaking;
mod sweeping;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::{ChannelJoined, ServerMessage},
    ids::ChannelId,
    wire::datagram::DATAGRAM_BYTES_MAX,
};
use tokio::sync::{mpsc, oneshot};

use self::{
    client::{Socket, SwarmClient, Totals},
    hearing::{Hearing, pairs},
    shared::SharedSockets,
    speaking::Run,
};
use super::{
    outcome::ClientHealth,
    process::{CpuSample, CpuUsed},
    quality::{Ear, Quality},
    schedule::{FRAME, Schedule},
    silence::{Hit, Pair, Watch, Watched},
    system::{Batch, StampedSocket, realtime_ns},
    talk::Talker,
    tally::{Listener, Seen, Speaker, Tally, Times},
    wire::Wire,
};
use crate::gateway::Gateway;
pub(super) use speaking::Plan;

/// Messages taken between two looks at what is due to be sent.
const MESSAGES_AT_ONCE: usize = 64;

/// After the last frame so long is still listened.
const DRAIN: Duration = Duration::from_millis(1_000);

/// The longest that this may take when the load client is too slow for its own sockets.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Since the last frame was sent, the sockets are swept whole so many times.
const SWEEPS_AT_END: usize = 1;

/// After the measured time the server's CPU clock is read with so much delay, which lets it send what it holds.
const CPU_DELAY: Duration = Duration::from_millis(20);

/// The place of a node that is none of the servers that were named.
const ELSEWHERE: usize = usize::MAX;

/// A clock for the voice sessions that the kernel's stamps can be read on.
#[derive(Clone, Copy, Debug)]
pub(super) struct SwarmClock {
    origin: Instant,
    origin_ns: u64,
}

impl SwarmClock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now(), origin_ns: realtime_ns() }
    }

    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn of_stamp(&self, stamp_ns: u64) -> Micros {
        Micros(stamp_ns.saturating_sub(self.origin_ns) / 1_000)
    }

    fn stamp_of(&self, at: Micros) -> u64 {
        self.origin_ns + at.0 * 1_000
    }

    pub(in crate::load) fn instant_of(&self, at: Micros) -> Instant {
        self.origin + Duration::from_micros(at.0)
    }
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Stays, and hears or speaks.
    Stays,
    /// Comes and goes; what it misses is not counted.
    Passes,
}

/// A client that has joined.
pub(super) struct NewClient {
    pub(super) slot: usize,
    pub(super) role: Role,
    /// The channel's number and id.
    pub(super) channel: usize,
    pub(super) channel_id: ChannelId,
    /// The place of the node in the list of servers, and its address.
    pub(super) node: usize,
    /// `None` when their voice travels in the WebSocket.
    pub(super) peer: Option<SocketAddr>,
    /// Nobody will talk in their channel: they may share a socket with others of that kind.
    pub(super) quiet: bool,
    pub(super) wire: Wire,
    /// For what UDP does not carry.
    pub(super) gateway: Option<Arc<Gateway>>,
}

/// Told to the thread.
pub(super) enum ToSwarm {
    Add(Box<NewClient>),
    Remove(usize),
    /// A message, and when it came by the kernel's clock.
    Message(usize, Box<ServerMessage>, u64),
    /// A node offers a WebRTC connection, or a change of it: the answer is wanted.
    Offer {
        slot: usize,
        sdp: String,
        answer: oneshot::Sender<String>,
    },
    /// The client's session goes on, at a node with that address.
    Resumed(usize, Option<SocketAddr>, Vec<ChannelJoined>),
    /// From now on those at that node are hit by a fault.
    Fault {
        node: usize,
        at_ns: u64,
    },
    /// Carry this out, and tell what it came to.
    Run(Box<Plan>, oneshot::Sender<Measured>),
    Stop,
}

/// Seen by others while the thread runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Clients that stay and whose way works.
    pub(super) working: AtomicUsize,
    /// Frames delivered in the measured time.
    pub(super) delivered: AtomicU64,
    /// Deliveries that those sent so far should lead to.
    pub(super) expected: AtomicU64,
    /// The 99th percentile of the last step's latency.
    pub(super) p99_us: AtomicU64,
    /// Joins that were answered, by all who ever joined.
    pub(super) joins: AtomicU64,
}

/// How the thread is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct SwarmConfig {
    pub(super) clock: SwarmClock,
    pub(super) frame_bytes: usize,
    pub(super) sweep_interval: Duration,
    pub(super) receive_buffer_bytes: usize,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) sent: u64,
    pub(super) expected: u64,
    /// Deliveries missed that the run's own impairment explains.
    pub(super) explained: u64,
    pub(super) quality: Option<Quality>,
    pub(super) tally: Tally,
    /// Duplicates that the clients themselves dropped.
    pub(super) dropped_as_duplicate: u64,
    /// Datagrams that opened with no key.
    pub(super) unopened: u64,
    pub(super) client: ClientHealth,
    /// Of each process; `None` of one that has ended.
    pub(super) cpu: Vec<Option<CpuUsed>>,
    pub(super) measured: Duration,
    /// What was heard of faults, where there were to be any.
    pub(super) watched: Option<Watched>,
}

/// The thread's state.
pub(super) struct Swarm {
    config: SwarmConfig,
    commands: mpsc::Receiver<ToSwarm>,
    progress: Arc<Progress>,
    clients: Vec<Option<SwarmClient>>,
    /// Which node is at which address.
    nodes: HashMap<SocketAddr, usize>,
    batch: Batch,
    shared: SharedSockets,
    hearing: Hearing,
    talkers: Vec<Talker>,
    speakers_of_channel: Vec<usize>,
    run: Option<Run>,
    watch: Option<Watch>,
    lateness: Times,
    sweep_gap: Times,
    next_sweep: Instant,
    last_sweep: Option<Instant>,
    cursor: usize,
    round: usize,
    /// When whose next datagram has passed an impaired way to the node.
    departures: BinaryHeap<Reverse<(Micros, usize)>>,
    /// What those who have gone had counted.
    gone: Totals,
    /// What all had counted when the run began.
    before: Totals,
    datagram: Box<[u8; DATAGRAM_BYTES_MAX]>,
    frame: Vec<u8>,
}

impl Swarm {
    pub(super) fn new(config: SwarmConfig, commands: mpsc::Receiver<ToSwarm>, progress: Arc<Progress>) -> Self {
        let (tally, frame_bytes) = (Tally::new(0, 0..0), config.frame_bytes);
        Self {
            config,
            commands,
            progress,
            clients: Vec::new(),
            nodes: HashMap::new(),
            batch: Batch::new(),
            shared: SharedSockets::default(),
            hearing: Hearing { tally, speakers: Vec::new(), frame_bytes, unopened: 0 },
            talkers: Vec::new(),
            speakers_of_channel: Vec::new(),
            run: None,
            watch: None,
            lateness: Times::new(),
            sweep_gap: Times::new(),
            next_sweep: Instant::now(),
            last_sweep: None,
            cursor: 0,
            round: 0,
            departures: BinaryHeap::new(),
            gone: Totals::default(),
            before: Totals::default(),
            datagram: Box::new([0; DATAGRAM_BYTES_MAX]),
            frame: vec![0; config.frame_bytes],
        }
    }

    /// Runs until it is told to stop. What a plan came to goes to whoever gave it; the clients stay and are swept, so
    /// that those on their way out can leave in good order.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            self.send_due();
            self.let_depart();
            if !self.take_messages()? {
                return Ok(());
            }
            if self.advance_run()?
                && let Some(run) = self.run.take()
            {
                let measured = self.measured(&run)?;
                // Whoever gave the plan may have given up.
                let _unheard = run.done.send(measured);
            }
            let now = Instant::now();
            if self.cursor > 0 || now >= self.next_sweep {
                self.sweep_slice(now)?;
            } else {
                std::thread::sleep(self.wake_at().saturating_duration_since(now));
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let due = self.run.as_ref().and_then(Run::next_due);
        let departure = self.departures.peek().map(|Reverse((at, _))| self.config.clock.instant_of(*at));
        [due, departure].into_iter().flatten().fold(self.next_sweep, Instant::min)
    }

    /// False when the thread is to end.
    fn take_messages(&mut self) -> io::Result<bool> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.commands.try_recv() {
                Ok(ToSwarm::Add(client)) => self.add(*client)?,
                Ok(ToSwarm::Remove(slot)) => self.remove(slot)?,
                Ok(ToSwarm::Message(slot, message, at_ns)) => self.message(slot, &message, at_ns),
                Ok(ToSwarm::Offer { slot, sdp, answer }) => self.offered(slot, &sdp, answer),
                Ok(ToSwarm::Resumed(slot, peer, channels)) => self.resumed(slot, peer, &channels)?,
                Ok(ToSwarm::Fault { node, at_ns }) => self.fault(node, at_ns),
                Ok(ToSwarm::Run(plan, done)) => self.begin(*plan, done),
                Ok(ToSwarm::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => return Ok(false),
                Err(mpsc::error::TryRecvError::Empty) => break,
            }
        }
        Ok(true)
    }

    fn add(&mut self, new: NewClient) -> io::Result<()> {
        let NewClient { slot, role, channel, channel_id, node, peer, quiet, mut wire, gateway } = new;
        self.nodes.extend(peer.map(|peer| (peer, node)));
        if self.clients.len() <= slot {
            self.clients.resize_with(slot + 1, || None);
        }
        self.remove(slot)?;
        let socket = peer.map(|peer| self.socket(peer, slot, &wire, quiet)).transpose()?;
        if let (Wire::Peer(wire), Some(socket)) = (&mut wire, &socket) {
            wire.bind(socket.socket.local_addr()?, socket.peer);
        }
        let seen = vec![Seen::default(); self.speakers_of_channel.get(channel).copied().unwrap_or(0)];
        let (pairs, ear) = (Vec::new(), Ear::default());
        let client = SwarmClient { socket, node, wire, role, channel, channel_id, gateway, seen, pairs, ear };
        self.clients[slot] = Some(client);
        Ok(())
    }

    /// A socket for the client in that slot, behind the way that everyone has now.
    fn socket(&mut self, peer: SocketAddr, slot: usize, wire: &Wire, quiet: bool) -> io::Result<Socket> {
        let bytes = self.config.receive_buffer_bytes;
        let session = wire.session().filter(|_| quiet);
        let socket = match session {
            Some(session) => self.shared.take(peer, session, slot, bytes)?,
            None => Arc::new(StampedSocket::connect(peer, bytes)?),
        };
        let way = self.run.as_ref().and_then(|run| run.plan.way(slot));
        Ok(Socket { socket, shared: session.is_some(), peer, way, departs_at: None })
    }

    fn remove(&mut self, slot: usize) -> io::Result<()> {
        if let Some(client) = self.clients.get_mut(slot).and_then(Option::take) {
            self.gone.add(&client)?;
            if client.shares() {
                self.shared.leave(slot);
            }
        }
        Ok(())
    }

    fn message(&mut self, slot: usize, message: &ServerMessage, at_ns: u64) {
        let now = self.config.clock.now();
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let Wire::Node(voice) = &mut client.wire else { return };
        match message {
            ServerMessage::KeyRotated(rotated) => {
                if let Err(error) = voice.rotate(now, rotated) {
                    tracing::warn!(%error, "a rotated key cannot be used");
                }
            }
            ServerMessage::AudioStarted(_) => voice.announced(now),
            ServerMessage::UserJoined(joined) => voice.forget(joined.stream_id),
            ServerMessage::UserLeft(left) => voice.forget(left.stream_id),
            ServerMessage::AudioFrame(frame) => {
                let Some(heard) = voice.tunnelled(now, frame) else { return };
                let SwarmClient { role, channel, seen, pairs, ear, .. } = client;
                let mut listener = Listener { role: *role, channel: *channel, seen, pairs, ear };
                self.hearing.heard(&mut listener, heard.bytes, at_ns, heard.route);
            }
            _ => {}
        }
    }

    /// A node's offer; one that cannot be answered is dropped, which whoever waits for the answer hears.
    fn offered(&mut self, slot: usize, sdp: &str, answer: oneshot::Sender<String>) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let Wire::Peer(peer) = &mut client.wire else { return };
        match peer.accept(sdp) {
            // Whoever waited may have given up.
            Ok(sdp) => drop(answer.send(sdp)),
            Err(error) => tracing::warn!(slot, %error, "an offer cannot be answered"),
        }
    }

    fn resumed(&mut self, slot: usize, peer: Option<SocketAddr>, channels: &[ChannelJoined]) -> io::Result<()> {
        // What has arrived can only be opened with the keys of before.
        self.sweep(slot)?;
        let now = self.config.clock.now();
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        if let Wire::Node(voice) = &mut client.wire {
            self.gone.duplicates += voice.udp_counters().replayed;
            if let Err(error) = voice.resumed(now, channels) {
                tracing::warn!(%error, "UDP is not used after the resume");
            }
        }
        let Some(peer) = peer else { return Ok(()) };
        let moves = client.socket.as_ref().is_some_and(|socket| socket.shared || socket.peer != peer);
        if moves && let Some(mut client) = self.clients[slot].take() {
            let quiet = client.shares();
            if let Some(socket) = client.own_socket() {
                self.gone.receive_drops += u64::from(socket.dropped()?);
            }
            self.shared.leave(slot);
            client.socket = Some(self.socket(peer, slot, &client.wire, quiet)?);
            client.node = self.nodes.get(&peer).copied().unwrap_or(ELSEWHERE);
            self.clients[slot] = Some(client);
        }
        Ok(())
    }

    fn fault(&mut self, node: usize, at_ns: u64) {
        let seats = self.clients.iter().map(|client| client.as_ref().map_or(ELSEWHERE, |client| client.node));
        let hit = Hit { node, seats: seats.collect() };
        if let Some(watch) = &mut self.watch {
            watch.fault(at_ns, hit, pairs(&self.hearing.speakers, &mut self.clients));
            self.hearing.tally.silences_from_ns = watch.since_ns();
        }
    }

    fn begin(&mut self, plan: Plan, done: oneshot::Sender<Measured>) {
        let start = Instant::now() + FRAME;
        let begun_ns = realtime_ns();
        let measured_from = begun_ns + ns(FRAME + plan.warm_up);
        self.hearing.tally = Tally::new(begun_ns, measured_from..measured_from + ns(plan.measured));
        self.seat_speakers(&plan);
        self.watch = plan.has_faults.then(|| Watch::new(measured_from, self.clients.len()));
        let schedule = Schedule::new(plan.places.clone());
        let (cpu_before, cpu) = (Vec::new(), Vec::new());
        let cycles_before = (self.config.clock.now().0 / FRAME.as_micros() as u64) as u32;
        self.run = Some(Run {
            start,
            plan,
            done,
            schedule,
            cycles_before,
            cpu_before,
            cpu,
            began: false,
            stopped_in_round: None,
        });
        self.lateness = Times::new();
        self.sweep_gap = Times::new();
        self.last_sweep = None;
    }

    /// Makes everyone ready to hear who will talk.
    fn seat_speakers(&mut self, plan: &Plan) {
        let mut counts: Vec<usize> = Vec::new();
        let mut stayers: Vec<u64> = Vec::new();
        let stay = self.clients.iter().flatten().filter(|client| client.role == Role::Stays);
        for channel in stay.map(|client| client.channel) {
            stayers.resize(stayers.len().max(channel + 1), 0);
            stayers[channel] += 1;
        }
        self.hearing.speakers.clear();
        for &(slot, channel) in &plan.speakers {
            counts.resize(counts.len().max(channel + 1), 0);
            let listeners = stayers.get(channel).map_or(0, |count| count.saturating_sub(1));
            let local = counts[channel];
            let speaker = Speaker { slot, channel, local, frames: 0, counted: 0, lost_on_way: 0, listeners };
            self.hearing.speakers.push(speaker);
            counts[channel] += 1;
        }
        self.talkers = (0..).zip(&plan.speakers).map(|(number, _)| plan.talker(number)).collect();
        self.departures.clear();
        for (slot, client) in self.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            let speakers = counts.get(client.channel).copied().unwrap_or(0);
            client.seen = vec![Seen::default(); speakers];
            client.pairs = vec![Pair::default(); if plan.has_faults { speakers } else { 0 }];
            client.ear = Ear::default();
            if let Some(socket) = &mut client.socket {
                (socket.way, socket.departs_at) = (plan.way(slot), None);
            }
        }
        self.speakers_of_channel = counts;
    }

    /// Reads the CPU clock at both ends of the measured time; true when all is over.
    fn advance_run(&mut self) -> io::Result<bool> {
        let before = match &self.run {
            Some(run) if !run.began && Instant::now() >= run.start + run.plan.warm_up => Some(self.totals()?),
            _ => None,
        };
        let Some(run) = &mut self.run else { return Ok(false) };
        let now = Instant::now();
        let measured_to = run.start + run.plan.warm_up + run.plan.measured;
        if let Some(before) = before {
            self.before = before;
            run.began = true;
            // One that an earlier phase has ended has none.
            run.cpu_before = run.plan.pids.iter().map(|pid| CpuSample::take(*pid).ok()).collect();
        }
        if run.cpu.is_empty() && now >= measured_to + CPU_DELAY {
            // One that was killed meanwhile has none any more.
            let used = |(pid, before): (&u32, &Option<CpuSample>)| {
                before.as_ref().and_then(|before| Some(CpuSample::take(*pid).ok()?.since(before)))
            };
            run.cpu = run.plan.pids.iter().zip(&run.cpu_before).map(used).collect();
        }
        if run.stopped_in_round.is_none() && now >= measured_to {
            run.stopped_in_round = Some(self.round);
            self.stop_speaking();
            return Ok(false);
        }
        // What has arrived lies in the sockets until they were swept once more, from the first to the last.
        let swept = run.stopped_in_round.is_some_and(|round| self.round > round + SWEEPS_AT_END);
        Ok(now >= measured_to + DRAIN && (swept || now >= measured_to + DRAIN_MAX))
    }

    fn totals(&self) -> io::Result<Totals> {
        let mut totals = Totals { unopened: self.hearing.unopened, ..self.gone };
        totals.receive_drops += self.shared.dropped()?;
        self.clients.iter().flatten().try_for_each(|client| totals.add(client))?;
        Ok(totals)
    }

    fn measured(&mut self, run: &Run) -> io::Result<Measured> {
        let end_ns = self.hearing.tally.window_ns.end;
        let (explained, quality) = self.experienced();
        let Hearing { tally, speakers, .. } = &self.hearing;
        let watched = self.watch.take().map(|watch| watch.end(end_ns, pairs(speakers, &mut self.clients)));
        let (totals, before) = (self.totals()?, self.before);
        Ok(Measured {
            sent: speakers.iter().map(|speaker| speaker.counted).sum(),
            expected: speakers.iter().map(|speaker| speaker.counted * speaker.listeners).sum(),
            explained,
            quality,
            tally: tally.clone(),
            dropped_as_duplicate: totals.duplicates - before.duplicates,
            unopened: totals.unopened - before.unopened,
            client: ClientHealth {
                lateness: self.lateness.summary(),
                sweep_gap: self.sweep_gap.summary(),
                receive_drops: totals.receive_drops - before.receive_drops,
                tunnel_drops: totals.tunnel_drops - before.tunnel_drops,
                cpu_cores: None,
                memory_bytes: None,
            },
            cpu: run.cpu.clone(),
            measured: run.plan.measured,
            watched,
        })
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
