//! All clients' sockets in one thread, which nothing wakes: it sleeps until a frame is due or until it is time to sweep
//! the sockets for what has arrived. So the server's sends wake nobody, and the kernel's stamps still tell to the
//! microsecond when each datagram came.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::{ChannelJoined, ServerMessage},
    ids::ChannelId,
    wire::{datagram::DATAGRAM_BYTES_MAX, frame::FrameKind},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    outcome::ClientHealth,
    payload::{COMFORT, Payload},
    process::{CpuSample, CpuUsed},
    quality::{Ear, Experience, Quality},
    schedule::{FRAME, Schedule},
    silence::{Ends, Hit, Pair, Watch, Watched},
    system::{Batch, StampedSocket, realtime_ns},
    talk::{Say, Talker},
    tally::{Listener, Seen, Speaker, Tally, Times},
    way::Way,
    wire::{Ready, Wire},
};
use crate::{
    gateway::Gateway,
    scenario::{Impairment, Talk},
    voice::{OutgoingFrame, Route, VoiceOutput},
};

/// Clients swept between two looks at what is due to be sent.
const SLICE: usize = 32;

/// Messages taken between two looks at what is due to be sent.
const MESSAGES_AT_ONCE: usize = 64;

/// After the last frame so long is still listened.
const DRAIN: Duration = Duration::from_millis(1_000);

/// After the measured time the server's CPU clock is read with so much delay, which lets it send what it holds.
const CPU_DELAY: Duration = Duration::from_millis(20);

/// The place of a node that is none of the servers that were named.
const ELSEWHERE: usize = usize::MAX;

/// The level that speakers speak at.
const LEVEL: u8 = 25;

/// The level of comfort noise.
const LEVEL_COMFORT: u8 = 90;

/// Clients in channels where nobody talks are swept once in so many rounds: all that comes to them are answers to pings,
/// and those carry the time of their arrival.
const QUIET_ROUNDS: usize = 16;

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

    fn instant_of(&self, at: Micros) -> Instant {
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
    pub(super) wire: Wire,
    /// For what UDP does not carry.
    pub(super) gateway: Option<Arc<Gateway>>,
}

/// What is to be spoken, and when it is measured.
pub(super) struct Plan {
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    /// Place in the 20 ms grid and number of each speaker.
    pub(super) places: Vec<(Duration, usize)>,
    /// The slot and the channel of each speaker.
    pub(super) speakers: Vec<(usize, usize)>,
    /// When they talk, and what chooses that.
    pub(super) talk: Talk,
    pub(super) seed: u64,
    /// What everyone's way is like.
    pub(super) impairment: Option<Impairment>,
    /// Whose CPU time to read.
    pub(super) pids: Vec<u32>,
    /// Whether there will be faults, and silences to watch for.
    pub(super) has_faults: bool,
}

/// Told to the thread.
pub(super) enum ToSwarm {
    Add(Box<NewClient>),
    Remove(usize),
    /// A message, and when it came by the kernel's clock.
    Message(usize, Box<ServerMessage>, u64),
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

struct SwarmClient {
    /// `None` of those whose voice travels in the WebSocket.
    socket: Option<Socket>,
    node: usize,
    wire: Wire,
    role: Role,
    channel: usize,
    channel_id: ChannelId,
    gateway: Option<Arc<Gateway>>,
    /// Of each speaker of the channel.
    seen: Vec<Seen>,
    pairs: Vec<Pair>,
    ear: Ear,
}

/// A client's own end of its way to the node.
struct Socket {
    socket: StampedSocket,
    peer: SocketAddr,
    /// Where the way is impaired.
    way: Option<Box<Way>>,
    /// When the swarm will look at the way next.
    departs_at: Option<Micros>,
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

/// What is heard, by whomever.
struct Hearing {
    tally: Tally,
    speakers: Vec<Speaker>,
    frame_bytes: usize,
    unopened: u64,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Datagrams that found no room in our own sockets.
    receive_drops: u64,
    /// Duplicates that clients dropped.
    duplicates: u64,
    /// Frames that found no room on their way into a WebSocket.
    tunnel_drops: u64,
    unopened: u64,
}

/// A run under way.
struct Run {
    start: Instant,
    plan: Plan,
    done: oneshot::Sender<Measured>,
    schedule: Schedule,
    /// Frames of 20 ms between the start of the clock and this run's: time stamps go on from run to run.
    cycles_before: u32,
    /// The processes' CPU times when the measured time began, and what they used until its end.
    cpu_before: Vec<Option<CpuSample>>,
    cpu: Vec<Option<CpuUsed>>,
    began: bool,
    stopped: bool,
}

impl Swarm {
    pub(super) fn new(config: SwarmConfig, commands: mpsc::Receiver<ToSwarm>, progress: Arc<Progress>) -> Self {
        let (tally, frame_bytes) = (Tally::new(0..0), config.frame_bytes);
        Self {
            config,
            commands,
            progress,
            clients: Vec::new(),
            nodes: HashMap::new(),
            batch: Batch::new(),
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
        let NewClient { slot, role, channel, channel_id, node, peer, wire, gateway } = new;
        let socket = peer.map(|peer| self.socket(peer, slot)).transpose()?;
        self.nodes.extend(peer.map(|peer| (peer, node)));
        if self.clients.len() <= slot {
            self.clients.resize_with(slot + 1, || None);
        }
        self.remove(slot)?;
        let seen = vec![Seen::default(); self.speakers_of_channel.get(channel).copied().unwrap_or(0)];
        let (pairs, ear) = (Vec::new(), Ear::default());
        let client = SwarmClient { socket, node, wire, role, channel, channel_id, gateway, seen, pairs, ear };
        self.clients[slot] = Some(client);
        Ok(())
    }

    /// A socket for the client in that slot, behind the way that everyone has now.
    fn socket(&self, peer: SocketAddr, slot: usize) -> io::Result<Socket> {
        let socket = StampedSocket::connect(peer, self.config.receive_buffer_bytes)?;
        let plan = self.run.as_ref().map(|run| &run.plan);
        Ok(Socket { socket, peer, way: plan.and_then(|plan| plan.way(slot)), departs_at: None })
    }

    fn remove(&mut self, slot: usize) -> io::Result<()> {
        if let Some(client) = self.clients.get_mut(slot).and_then(Option::take) {
            self.gone.add(&client)?;
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

    fn resumed(&mut self, slot: usize, peer: Option<SocketAddr>, channels: &[ChannelJoined]) -> io::Result<()> {
        // What has arrived can only be opened with the keys of before.
        self.sweep(slot)?;
        let now = self.config.clock.now();
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        if let Some(peer) = peer
            && let Some(socket) = client.socket.as_mut().filter(|socket| socket.peer != peer)
        {
            self.gone.receive_drops += u64::from(socket.socket.dropped()?);
            socket.socket = StampedSocket::connect(peer, self.config.receive_buffer_bytes)?;
            socket.peer = peer;
            client.node = self.nodes.get(&peer).copied().unwrap_or(ELSEWHERE);
        }
        if let Wire::Node(voice) = &mut client.wire {
            self.gone.duplicates += voice.udp_counters().replayed;
            if let Err(error) = voice.resumed(now, channels) {
                tracing::warn!(%error, "UDP is not used after the resume");
            }
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
        let measured_from = realtime_ns() + ns(FRAME + plan.warm_up);
        self.hearing.tally = Tally::new(measured_from..measured_from + ns(plan.measured));
        self.seat_speakers(&plan);
        self.watch = plan.has_faults.then(|| Watch::new(measured_from, self.clients.len()));
        let schedule = Schedule::new(plan.places.clone());
        let (cpu_before, cpu) = (Vec::new(), Vec::new());
        let cycles_before = (self.config.clock.now().0 / FRAME.as_micros() as u64) as u32;
        self.run =
            Some(Run { start, plan, done, schedule, cycles_before, cpu_before, cpu, began: false, stopped: false });
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
        if !run.stopped && now >= measured_to {
            run.stopped = true;
            self.stop_speaking();
            return Ok(false);
        }
        Ok(now >= measured_to + DRAIN)
    }

    fn send_due(&mut self) {
        while let Some((due, speaker)) = self.run.as_ref().and_then(Run::due) {
            match self.talkers[speaker].next() {
                Say::Nothing => {}
                Say::Start => self.speak(speaker, FrameKind::AudioStart, due),
                Say::Speech => self.speak(speaker, FrameKind::Audio, due),
                Say::Stop => self.send(speaker, FrameKind::AudioStop, Bytes::None),
                Say::Comfort => self.send(speaker, FrameKind::Silence, Bytes::Comfort),
            }
            if let Some(run) = &mut self.run {
                run.schedule.advance();
            }
        }
    }

    /// Sends a frame that proves itself.
    fn speak(&mut self, speaker: usize, kind: FrameKind, due: Instant) {
        self.lateness.record_us(Instant::now().saturating_duration_since(due).as_micros() as u64);
        let sent_ns = realtime_ns();
        let Hearing { tally, speakers, .. } = &mut self.hearing;
        let Speaker { frames, counted, listeners, .. } = &mut speakers[speaker];
        Payload { speaker: speaker as u32, sequence: *frames, sent_ns }.write(&mut self.frame);
        *frames += 1;
        let counts = tally.window_ns.contains(&sent_ns);
        if counts {
            *counted += 1;
            tally.series.sent(sent_ns, *listeners);
        }
        self.send(speaker, kind, Bytes::Frame { counts });
    }

    fn stop_speaking(&mut self) {
        for speaker in 0..self.hearing.speakers.len() {
            if self.talkers[speaker].in_spurt() {
                self.send(speaker, FrameKind::AudioStop, Bytes::None);
            }
        }
    }

    fn send(&mut self, speaker: usize, kind: FrameKind, bytes: Bytes) {
        let slot = self.hearing.speakers[speaker].slot;
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let cycle = self.run.as_ref().map_or(0, |run| run.cycles_before.wrapping_add(run.schedule.cycle()));
        let (level, bytes, counts) = match bytes {
            Bytes::Frame { counts } => (LEVEL, &*self.frame, counts),
            Bytes::Comfort => (LEVEL_COMFORT, COMFORT, false),
            Bytes::None => (LEVEL, &[][..], false),
        };
        let outgoing = OutgoingFrame { kind, flags: 0, level, timestamp: cycle.wrapping_mul(960), bytes };
        let now = self.config.clock.now();
        match client.wire.send(now, client.channel_id, &outgoing, &mut self.datagram) {
            Some(Ready::Datagram(length)) => {
                let leaves = client.transmit(now, &self.datagram[..length]);
                self.hearing.speakers[speaker].lost_on_way += u64::from(counts && !leaves);
            }
            Some(Ready::Output(output)) => client.output(now, output),
            None => {}
        }
        self.departures.extend(client.next_departure(slot));
    }

    /// Sends what has passed an impaired way.
    fn let_depart(&mut self) {
        let now = self.config.clock.now();
        while let Some(Reverse((at, slot))) = self.departures.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.departures.pop();
            let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { continue };
            client.depart(at);
            self.departures.extend(client.next_departure(slot));
        }
    }

    /// Empties the next few sockets.
    fn sweep_slice(&mut self, now: Instant) -> io::Result<()> {
        if self.cursor == 0 {
            if let Some(last) = self.last_sweep.replace(now) {
                self.sweep_gap.record_us((now - last).as_micros() as u64);
            }
            self.next_sweep = now + self.config.sweep_interval;
        }
        let end = (self.cursor + SLICE).min(self.clients.len());
        for slot in self.cursor..end {
            if (slot + self.round).is_multiple_of(QUIET_ROUNDS) || self.hears(slot) {
                self.sweep(slot)?;
            }
        }
        self.cursor = end;
        if end == self.clients.len() {
            self.cursor = 0;
            self.round += 1;
            self.tell_progress();
        }
        Ok(())
    }

    /// Whether somebody talks, or will, in that client's channel.
    fn hears(&self, slot: usize) -> bool {
        let client = self.clients.get(slot).and_then(Option::as_ref);
        client.is_some_and(|client| !client.seen.is_empty() || !client.works())
    }

    fn tell_progress(&self) {
        let stays = |client: &&SwarmClient| client.role == Role::Stays && client.works();
        let (progress, tally) = (&self.progress, &self.hearing.tally);
        progress.working.store(self.clients.iter().flatten().filter(stays).count(), Ordering::Relaxed);
        progress.delivered.store(tally.delivered, Ordering::Relaxed);
        let expected = self.hearing.speakers.iter().map(|speaker| speaker.counted * speaker.listeners).sum();
        progress.expected.store(expected, Ordering::Relaxed);
        progress.p99_us.store(tally.series.latest_p99_us(realtime_ns()), Ordering::Relaxed);
    }

    fn sweep(&mut self, slot: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let clock = self.config.clock;
        loop {
            let Some(Socket { socket, way, .. }) = &mut client.socket else { break };
            let count = socket.receive(&mut self.batch)?;
            let mut lost = Vec::new();
            for index in 0..count {
                let (datagram, stamp_ns) = self.batch.datagram(index);
                let stamp_ns = stamp_ns.unwrap_or_else(realtime_ns);
                if let Some(way) = way
                    && !way.arrive(clock.of_stamp(stamp_ns), datagram)
                {
                    lost.push(index);
                }
            }
            let impaired = way.is_some();
            for index in 0..count {
                let (datagram, stamp_ns) = self.batch.datagram(index);
                if lost.contains(&index) {
                    self.hearing.missed(client, datagram);
                } else if !impaired {
                    let stamp_ns = stamp_ns.unwrap_or_else(realtime_ns);
                    self.hearing.datagram(client, clock.of_stamp(stamp_ns), stamp_ns, datagram);
                }
            }
            if count < Batch::DATAGRAMS {
                break;
            }
        }
        let now = clock.now();
        while let Some((at, mut datagram)) = client.next_arrival(now) {
            self.hearing.datagram(client, at, clock.stamp_of(at), &mut datagram);
        }
        while let Some(output) = client.wire.poll(now) {
            client.output(now, output);
        }
        self.departures.extend(client.next_departure(slot));
        Ok(())
    }

    fn totals(&self) -> io::Result<Totals> {
        let mut totals = Totals { unopened: self.hearing.unopened, ..self.gone };
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
            },
            cpu: run.cpu.clone(),
            measured: run.plan.measured,
            watched,
        })
    }

    /// How many missed deliveries the impairment explains, and how it sounded to those who stayed.
    fn experienced(&self) -> (u64, Option<Quality>) {
        let speakers = &self.hearing.speakers;
        let mut of_channel = vec![(0, 0); self.speakers_of_channel.len()];
        for speaker in speakers {
            let (counted, lost) = &mut of_channel[speaker.channel];
            (*counted, *lost) = (*counted + speaker.counted, *lost + speaker.lost_on_way);
        }
        let own: HashMap<usize, (u64, u64)> =
            speakers.iter().map(|speaker| (speaker.slot, (speaker.counted, speaker.lost_on_way))).collect();
        let mut explained = 0;
        let stays = self.clients.iter().enumerate().filter_map(|(slot, client)| Some((slot, client.as_ref()?)));
        let stays = stays.filter(|(_, client)| client.role == Role::Stays);
        let experiences = stays.map(|(slot, client)| {
            let (counted, lost) = of_channel.get(client.channel).copied().unwrap_or_default();
            let (own_counted, own_lost) = own.get(&slot).copied().unwrap_or_default();
            let expected = counted - own_counted;
            let missed = expected.saturating_sub(client.ear.delivered);
            explained += missed.min(client.ear.lost_on_way + lost - own_lost);
            Experience { expected, ear: client.ear, jitter_us: client.jitter_us() }
        });
        let quality = Quality::of(experiences);
        (explained, quality)
    }
}

/// What a frame holds.
#[derive(Clone, Copy)]
enum Bytes {
    /// The frame that was written; whether it is one of the measured time.
    Frame {
        counts: bool,
    },
    Comfort,
    None,
}

impl Hearing {
    fn heard(&mut self, listener: &mut Listener<'_>, bytes: &[u8], at_ns: u64, route: Route) -> bool {
        self.tally.heard(listener, &self.speakers, bytes, self.frame_bytes, at_ns, route)
    }

    /// Opens a datagram that has come to a client.
    fn datagram(&mut self, client: &mut SwarmClient, at: Micros, at_ns: u64, datagram: &mut [u8]) {
        let SwarmClient { wire, role, channel, seen, pairs, ear, .. } = client;
        let mut listener = Listener { role: *role, channel: *channel, seen, pairs, ear };
        let mut counted = false;
        let opened = wire.open(at, datagram, |bytes, route| counted |= self.heard(&mut listener, bytes, at_ns, route));
        self.unopened += u64::from(!opened);
        self.tally.datagrams += u64::from(counted);
    }

    /// Takes note of a datagram that the impairment has lost.
    fn missed(&mut self, client: &mut SwarmClient, datagram: &mut [u8]) {
        let SwarmClient { wire, role, channel, seen, pairs, ear, .. } = client;
        let mut listener = Listener { role: *role, channel: *channel, seen, pairs, ear };
        if let Wire::Node(voice) = wire {
            voice.missed(datagram, |bytes| self.tally.lost_on_way(&mut listener, bytes, self.frame_bytes));
        }
    }
}

impl Totals {
    fn add(&mut self, client: &SwarmClient) -> io::Result<()> {
        if let Some(socket) = &client.socket {
            self.receive_drops += u64::from(socket.socket.dropped()?);
        }
        self.duplicates += client.wire.duplicates();
        self.tunnel_drops += client.gateway.as_ref().map_or(0, |gateway| gateway.audio_dropped());
        Ok(())
    }
}

impl Plan {
    /// The way of the client in that slot.
    fn way(&self, slot: usize) -> Option<Box<Way>> {
        self.impairment.map(|impairment| Box::new(Way::new(&impairment, self.seed, slot)))
    }

    /// The talker of that number.
    fn talker(&self, number: u64) -> Talker {
        Talker::new(self.talk, self.seed ^ ((number + 1) << 20))
    }
}

impl Run {
    fn next_due(&self) -> Option<Instant> {
        let (place, _) = self.schedule.peek().filter(|_| !self.stopped)?;
        Some(self.start + place)
    }

    /// The frame whose time has come.
    fn due(&self) -> Option<(Instant, usize)> {
        let (place, speaker) = self.schedule.peek().filter(|_| !self.stopped)?;
        let due = self.start + place;
        (due <= Instant::now() && place < self.plan.warm_up + self.plan.measured).then_some((due, speaker))
    }
}

impl SwarmClient {
    fn works(&self) -> bool {
        self.socket.is_none() || self.wire.works()
    }

    /// The mean over those they hear.
    fn jitter_us(&self) -> f64 {
        let (sum, count) =
            self.seen.iter().filter_map(Seen::jitter_us).fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Sends a datagram to the node; false when an impaired way loses it. What the kernel does not take is missed, and
    /// so counted, at the listeners.
    fn transmit(&mut self, now: Micros, datagram: &[u8]) -> bool {
        let Some(Socket { socket, way, .. }) = &mut self.socket else { return false };
        let Some(way) = way else {
            drop(socket.send(datagram));
            return true;
        };
        let leaves = way.leave(now, datagram);
        self.depart(now);
        leaves
    }

    /// Lets go what has passed the way by then.
    fn depart(&mut self, now: Micros) {
        let Some(Socket { socket, way: Some(way), departs_at, .. }) = &mut self.socket else { return };
        *departs_at = departs_at.filter(|at| *at > now);
        while let Some(datagram) = way.at_node(now) {
            drop(socket.send(&datagram));
        }
    }

    /// When something will have passed the way, unless that is known already.
    fn next_departure(&mut self, slot: usize) -> Option<Reverse<(Micros, usize)>> {
        let Socket { way, departs_at, .. } = self.socket.as_mut()?;
        let next = way.as_ref()?.next_at_node()?;
        departs_at.is_none_or(|known| next < known).then(|| {
            *departs_at = Some(next);
            Reverse((next, slot))
        })
    }

    fn next_arrival(&mut self, now: Micros) -> Option<(Micros, Vec<u8>)> {
        self.socket.as_mut()?.way.as_mut()?.at_client(now)
    }

    fn output(&mut self, now: Micros, output: VoiceOutput) {
        match output {
            // A lost control datagram is repeated by the session.
            VoiceOutput::Datagram(datagram) => {
                self.transmit(now, &datagram);
            }
            VoiceOutput::Tunnel(audio) => {
                if let Some(gateway) = &self.gateway {
                    gateway.send_audio(audio);
                }
            }
            VoiceOutput::UdpWorks(_) => {}
        }
    }
}

/// Every listener and speaker of the same channel, of those who stay.
fn pairs<'a>(
    speakers: &'a [Speaker],
    clients: &'a mut [Option<SwarmClient>],
) -> impl Iterator<Item = Ends<'a>> + use<'a> {
    let stays = clients.iter_mut().enumerate().filter_map(|(slot, client)| Some((slot, client.as_mut()?)));
    let stays = stays.filter(|(_, client)| client.role == Role::Stays);
    stays.flat_map(move |(listener, client)| {
        let channel = client.channel;
        // A channel's speakers stand in the order of their numbers there.
        let of_channel = speakers.iter().filter(move |speaker| speaker.channel == channel);
        let others = of_channel.zip(&mut client.pairs).filter(move |(speaker, _)| speaker.slot != listener);
        others.map(move |(speaker, pair)| Ends { listener, speaker: speaker.slot, sent: speaker.counted, pair })
    })
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
