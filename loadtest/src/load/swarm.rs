//! All clients' sockets in one thread, which nothing wakes: it sleeps until a frame is due or until it is time to sweep
//! the sockets for what has arrived. So the server's sends wake nobody, and the kernel's stamps still tell to the
//! microsecond when each datagram came.

use std::{
    collections::HashMap,
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
    payload::Payload,
    process::{CpuSample, CpuUsed},
    schedule::{FRAME, Schedule},
    silence::{Ends, Hit, Pair, Watch, Watched},
    system::{Batch, StampedSocket, realtime_ns},
    tally::{Listener, Seen, Speaker, Tally, Times},
    wire::{Ready, Wire},
};
use crate::{
    gateway::Gateway,
    voice::{OutgoingFrame, VoiceOutput},
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
    pub(super) peer: SocketAddr,
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
    /// Whose CPU time to read.
    pub(super) pids: Vec<u32>,
    /// Whether there will be faults, and silences to watch for.
    pub(super) has_faults: bool,
}

/// Told to the thread.
pub(super) enum ToSwarm {
    Add(Box<NewClient>),
    Remove(usize),
    Message(usize, Box<ServerMessage>),
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
    pub(super) tally: Tally,
    /// Duplicates that the clients themselves dropped.
    pub(super) dropped_as_duplicate: u64,
    /// Datagrams that opened with no key.
    pub(super) unopened: u64,
    pub(super) lateness: Times,
    pub(super) sweep_gap: Times,
    /// Datagrams that found no room in our own sockets.
    pub(super) receive_drops: u64,
    /// Of each process; `None` of one that has ended.
    pub(super) cpu: Vec<Option<CpuUsed>>,
    pub(super) measured: Duration,
    /// What was heard of faults, where there were to be any.
    pub(super) watched: Option<Watched>,
}

struct SwarmClient {
    socket: StampedSocket,
    node: usize,
    peer: SocketAddr,
    wire: Wire,
    role: Role,
    channel: usize,
    channel_id: ChannelId,
    gateway: Option<Arc<Gateway>>,
    /// Of each speaker of the channel.
    seen: Vec<Seen>,
    pairs: Vec<Pair>,
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
    speakers: Vec<Speaker>,
    speakers_of_channel: Vec<usize>,
    run: Option<Run>,
    watch: Option<Watch>,
    tally: Tally,
    lateness: Times,
    sweep_gap: Times,
    next_sweep: Instant,
    last_sweep: Option<Instant>,
    cursor: usize,
    gone_drops: u64,
    gone_duplicates: u64,
    unopened: u64,
    datagram: Box<[u8; DATAGRAM_BYTES_MAX]>,
    frame: Vec<u8>,
}

/// A run under way.
struct Run {
    start: Instant,
    plan: Plan,
    done: oneshot::Sender<Measured>,
    schedule: Schedule,
    /// The processes' CPU times when the measured time began, and what they used until its end.
    cpu_before: Vec<CpuSample>,
    cpu: Vec<Option<CpuUsed>>,
    began: bool,
    stopped: bool,
}

impl Swarm {
    pub(super) fn new(config: SwarmConfig, commands: mpsc::Receiver<ToSwarm>, progress: Arc<Progress>) -> Self {
        Self {
            config,
            commands,
            progress,
            clients: Vec::new(),
            nodes: HashMap::new(),
            batch: Batch::new(),
            speakers: Vec::new(),
            speakers_of_channel: Vec::new(),
            run: None,
            watch: None,
            tally: Tally::new(),
            lateness: Times::new(),
            sweep_gap: Times::new(),
            next_sweep: Instant::now(),
            last_sweep: None,
            cursor: 0,
            gone_drops: 0,
            gone_duplicates: 0,
            unopened: 0,
            datagram: Box::new([0; DATAGRAM_BYTES_MAX]),
            frame: vec![0; config.frame_bytes],
        }
    }

    /// Runs until it is told to stop. What a plan came to goes to whoever gave it; the clients stay and are swept, so
    /// that those on their way out can leave in good order.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            self.send_due();
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
        due.map_or(self.next_sweep, |due| due.min(self.next_sweep))
    }

    /// False when the thread is to end.
    fn take_messages(&mut self) -> io::Result<bool> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.commands.try_recv() {
                Ok(ToSwarm::Add(client)) => self.add(*client)?,
                Ok(ToSwarm::Remove(slot)) => self.remove(slot)?,
                Ok(ToSwarm::Message(slot, message)) => self.message(slot, &message),
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
        let socket = StampedSocket::connect(new.peer, self.config.receive_buffer_bytes)?;
        let NewClient { slot, role, channel, channel_id, node, peer, wire, gateway } = new;
        self.nodes.insert(peer, node);
        if self.clients.len() <= slot {
            self.clients.resize_with(slot + 1, || None);
        }
        self.remove(slot)?;
        let seen = vec![Seen::default(); self.speakers_of_channel.get(channel).copied().unwrap_or(0)];
        let pairs = Vec::new();
        let client = SwarmClient { socket, node, peer, wire, role, channel, channel_id, gateway, seen, pairs };
        self.clients[slot] = Some(client);
        Ok(())
    }

    fn remove(&mut self, slot: usize) -> io::Result<()> {
        if let Some(client) = self.clients.get_mut(slot).and_then(Option::take) {
            self.gone_duplicates += client.wire.duplicates();
            self.gone_drops += u64::from(client.socket.dropped()?);
        }
        Ok(())
    }

    fn message(&mut self, slot: usize, message: &ServerMessage) {
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
                let SwarmClient { role, channel, seen, pairs, .. } = client;
                let mut listener = Listener { role: *role, channel: *channel, seen, pairs };
                self.tally.heard(
                    &mut listener,
                    &self.speakers,
                    heard.bytes,
                    self.config.frame_bytes,
                    realtime_ns(),
                    heard.route,
                );
            }
            _ => {}
        }
    }

    fn resumed(&mut self, slot: usize, peer: Option<SocketAddr>, channels: &[ChannelJoined]) -> io::Result<()> {
        // What has arrived can only be opened with the keys of before.
        self.sweep(slot)?;
        let now = self.config.clock.now();
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        if let Some(peer) = peer.filter(|peer| *peer != client.peer) {
            self.gone_drops += u64::from(client.socket.dropped()?);
            client.socket = StampedSocket::connect(peer, self.config.receive_buffer_bytes)?;
            (client.peer, client.node) = (peer, self.nodes.get(&peer).copied().unwrap_or(ELSEWHERE));
        }
        if let Wire::Node(voice) = &mut client.wire {
            self.gone_duplicates += voice.udp_counters().replayed;
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
            watch.fault(at_ns, hit, pairs(&self.speakers, &mut self.clients));
            self.tally.silences_from_ns = watch.since_ns();
        }
    }

    fn begin(&mut self, plan: Plan, done: oneshot::Sender<Measured>) {
        let mut counts: Vec<usize> = Vec::new();
        for &(slot, channel) in &plan.speakers {
            counts.resize(counts.len().max(channel + 1), 0);
            self.speakers.push(Speaker { slot, channel, local: counts[channel], frames: 0, counted: 0 });
            counts[channel] += 1;
        }
        for client in self.clients.iter_mut().flatten() {
            let speakers = counts.get(client.channel).copied().unwrap_or(0);
            client.seen = vec![Seen::default(); speakers];
            client.pairs = vec![Pair::default(); if plan.has_faults { speakers } else { 0 }];
        }
        self.speakers_of_channel = counts;
        let start = Instant::now() + FRAME;
        let measured_from = realtime_ns() + ns(FRAME + plan.warm_up);
        self.tally.window_ns = measured_from..measured_from + ns(plan.measured);
        self.tally.silences_from_ns = measured_from;
        self.watch = plan.has_faults.then(|| Watch::new(measured_from, self.clients.len()));
        let schedule = Schedule::new(plan.places.clone());
        let (cpu_before, cpu) = (Vec::new(), Vec::new());
        let run = Run { start, plan, done, schedule, cpu_before, cpu, began: false, stopped: false };
        self.run = Some(run);
        self.lateness = Times::new();
        self.sweep_gap = Times::new();
    }

    /// Reads the CPU clock at both ends of the measured time; true when all is over.
    fn advance_run(&mut self) -> io::Result<bool> {
        let Some(run) = &mut self.run else { return Ok(false) };
        let now = Instant::now();
        let measured_from = run.start + run.plan.warm_up;
        let measured_to = measured_from + run.plan.measured;
        if !run.began && now >= measured_from {
            run.began = true;
            run.cpu_before = run.plan.pids.iter().copied().map(CpuSample::take).collect::<io::Result<_>>()?;
        }
        if run.cpu.is_empty() && now >= measured_to + CPU_DELAY {
            // One that was killed meanwhile has none any more.
            let used = |(pid, before): (&u32, &CpuSample)| CpuSample::take(*pid).ok().map(|after| after.since(before));
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
            self.lateness.record_us(Instant::now().saturating_duration_since(due).as_micros() as u64);
            let kind = if self.speakers[speaker].frames == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
            let sent_ns = realtime_ns();
            let Speaker { frames, counted, .. } = &mut self.speakers[speaker];
            Payload { speaker: speaker as u32, sequence: *frames, sent_ns }.write(&mut self.frame);
            *frames += 1;
            *counted += u64::from(self.tally.window_ns.contains(&sent_ns));
            self.send(speaker, kind, true);
            if let Some(run) = &mut self.run {
                run.schedule.advance();
            }
        }
    }

    fn stop_speaking(&mut self) {
        for speaker in 0..self.speakers.len() {
            self.send(speaker, FrameKind::AudioStop, false);
        }
    }

    /// Sends the frame that was written, or an empty one.
    fn send(&mut self, speaker: usize, kind: FrameKind, with_bytes: bool) {
        let Speaker { slot, frames, .. } = self.speakers[speaker];
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let bytes: &[u8] = if with_bytes { &self.frame } else { &[] };
        let outgoing = OutgoingFrame { kind, flags: 0, level: LEVEL, timestamp: frames.wrapping_mul(960), bytes };
        let now = self.config.clock.now();
        match client.wire.send(now, client.channel_id, &outgoing, &mut self.datagram) {
            // What the kernel does not take is missed, and so counted, at the listeners.
            Some(Ready::Datagram(length)) => drop(client.socket.send(&self.datagram[..length])),
            Some(Ready::Output(output)) => client.output(output),
            None => {}
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
            self.sweep(slot)?;
        }
        self.cursor = end;
        if end == self.clients.len() {
            self.cursor = 0;
            let stays = |client: &&SwarmClient| client.role == Role::Stays && client.wire.works();
            self.progress.working.store(self.clients.iter().flatten().filter(stays).count(), Ordering::Relaxed);
            self.progress.delivered.store(self.tally.delivered, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sweep(&mut self, slot: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        loop {
            let count = client.socket.receive(&mut self.batch)?;
            for index in 0..count {
                let (datagram, stamp_ns) = self.batch.datagram(index);
                let stamp_ns = stamp_ns.unwrap_or_else(realtime_ns);
                let SwarmClient { wire, role, channel, seen, pairs, .. } = client;
                let (tally, speakers, frame_bytes) = (&mut self.tally, &self.speakers, self.config.frame_bytes);
                let mut counted = false;
                let mut listener = Listener { role: *role, channel: *channel, seen, pairs };
                let opened = wire.open(self.config.clock.of_stamp(stamp_ns), datagram, |bytes, route| {
                    counted |= tally.heard(&mut listener, speakers, bytes, frame_bytes, stamp_ns, route);
                });
                self.unopened += u64::from(!opened);
                tally.datagrams += u64::from(counted);
            }
            if count < Batch::DATAGRAMS {
                break;
            }
        }
        let now = self.config.clock.now();
        while let Some(output) = client.wire.poll(now) {
            client.output(output);
        }
        Ok(())
    }

    fn measured(&mut self, run: &Run) -> io::Result<Measured> {
        let end_ns = self.tally.window_ns.end;
        let watched = self.watch.take().map(|watch| watch.end(end_ns, pairs(&self.speakers, &mut self.clients)));
        let mut stayers_of_channel: Vec<u64> = vec![0; self.speakers_of_channel.len()];
        let (mut receive_drops, mut dropped_as_duplicate) = (self.gone_drops, self.gone_duplicates);
        for client in self.clients.iter().flatten() {
            receive_drops += u64::from(client.socket.dropped()?);
            dropped_as_duplicate += client.wire.duplicates();
            if let Some(count) = stayers_of_channel.get_mut(client.channel).filter(|_| client.role == Role::Stays) {
                *count += 1;
            }
        }
        let listeners = |speaker: &Speaker| stayers_of_channel[speaker.channel].saturating_sub(1);
        Ok(Measured {
            sent: self.speakers.iter().map(|speaker| speaker.counted).sum(),
            expected: self.speakers.iter().map(|speaker| speaker.counted * listeners(speaker)).sum(),
            tally: self.tally.clone(),
            dropped_as_duplicate,
            unopened: self.unopened,
            lateness: self.lateness.clone(),
            sweep_gap: self.sweep_gap.clone(),
            receive_drops,
            cpu: run.cpu.clone(),
            measured: run.plan.measured,
            watched,
        })
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
    fn output(&self, output: VoiceOutput) {
        match output {
            // A lost control datagram is repeated by the session.
            VoiceOutput::Datagram(datagram) => drop(self.socket.send(&datagram)),
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
