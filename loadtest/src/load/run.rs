//! One run from connecting to the outcome, against nodes or against the relay.

use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use antiphon_core::{
    gateway::{Cipher, Encoding},
    ids::ChannelId,
    prng::Prng,
    seal::Key,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    LoadError,
    account::TokenPair,
    churn::{Churn, ChurnOutcome, churn},
    faults::{self, FaultsOutcome, Injected},
    members::{InChannel, People, Place, Seat, Shared, connect_all, join_all},
    outcome::{Joins, NodeOutcome, Outcome, Resident},
    process::{CpuSample, CpuUsed, command_of, resident_bytes},
    schedule::{Phases, places},
    script::Fault,
    spread,
    swarm::{Measured, NewClient, Plan, Progress, Role, Swarm, SwarmClock, SwarmConfig, ToSwarm},
    system::{lower_priority, pin, raise_open_files},
    traffic::{self, BetweenNodes},
    wire::{RelayWire, Wire},
};
use crate::{
    ServerUrl,
    rest::{NewChannel, Rest},
};

/// Messages on their way to the swarm; more make the gateway tasks wait.
const MESSAGES_MAX: usize = 65_536;

/// How long the clients may take to bind.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// After the last client was bound: until the node, too, knows that its datagrams arrive.
const SETTLE: Duration = Duration::from_millis(500);

/// How far the threads of the gateway sessions stand back when they share a CPU with the swarm: a tenth of its share.
const GATEWAY_NICENESS: i32 = 10;

/// Files besides one WebSocket and one UDP socket for each client.
const OPEN_FILES_EXTRA: u64 = 128;

/// Who speaks where, for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// How many channels.
    pub channels: usize,
    /// Clients in each.
    pub clients: usize,
    /// Of those, how many speak.
    pub speakers: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long is spoken before.
    pub warm_up: Duration,
    /// Bytes of each frame.
    pub frame_bytes: usize,
    /// Where in the 20 ms grid each speaks.
    pub phases: Phases,
    /// Chooses the places.
    pub seed: u64,
    /// Between two sweeps over the sockets; `None` is a few ms, more for very many clients.
    pub sweep_interval: Option<Duration>,
}

/// A run against a node, or against several of a cluster.
#[derive(Clone, Debug)]
pub struct NodesConfig {
    /// The nodes; each channel's clients are spread over them.
    pub servers: Vec<ServerUrl>,
    /// Who the clients are.
    pub people: People,
    /// How gateway messages are encoded.
    pub encoding: Encoding,
    /// What seals; `None` is the server's choice.
    pub cipher: Option<Cipher>,
    /// The nodes' processes in the same order, to read their CPU times and memory; or none.
    pub pids: Vec<u32>,
    /// Joins a second; `None` is all at once.
    pub ramp_per_second: Option<f64>,
    /// Who comes and goes meanwhile.
    pub churn: Option<Churn>,
    /// What is done to nodes meanwhile.
    pub faults: Vec<Fault>,
}

/// How a relay is started: this program, told to be one.
#[derive(Clone, Debug)]
pub struct RelayProcess {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; to these are added `--clients` and `--per-channel`.
    pub arguments: Vec<String>,
    /// What the outcome calls it.
    pub name: String,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// Connected so many of so many.
    Connecting(usize, usize),
    /// Joined so many of so many.
    Joining(usize, usize),
    /// Bound so many of so many.
    Binding(usize, usize),
    /// Speaking for so long of so long; so many frames have been delivered.
    Speaking(Duration, Duration, u64),
}

/// Lets the calling thread stand back behind those that measure; for the threads of the runtime that holds the gateway
/// sessions.
pub fn yield_to_swarm() {
    if let Err(error) = lower_priority(GATEWAY_NICENESS) {
        tracing::debug!(%error, "the gateway's threads keep their priority");
    }
}

/// Binds the process to these CPUs; to be called before it starts threads.
///
/// # Errors
/// When the system has no such CPU.
pub fn pin_process(cpus: &[usize]) -> Result<(), LoadError> {
    Ok(pin(cpus)?)
}

impl Shape {
    fn total(&self) -> usize {
        self.channels * self.clients
    }

    /// Which node each client connects to.
    fn seats(&self, nodes: usize) -> Vec<Seat> {
        let seat = |slot: usize| {
            let (channel, client) = (slot / self.clients, slot % self.clients);
            Seat { node: spread::node_of(channel, client, nodes), client }
        };
        (0..self.total()).map(seat).collect()
    }

    fn check(&self) -> Result<(), LoadError> {
        let wrong = |text: String| Err(LoadError::Arguments(text));
        if self.channels == 0 || self.clients < 2 || self.speakers == 0 {
            return wrong("there must be a channel, two clients in it, and a speaker".to_owned());
        }
        if self.speakers > self.clients {
            return wrong(format!("{} speakers cannot be among {} clients", self.speakers, self.clients));
        }
        if !(super::FRAME_BYTES_MIN..=super::FRAME_BYTES_MAX).contains(&self.frame_bytes) {
            let (min, max) = (super::FRAME_BYTES_MIN, super::FRAME_BYTES_MAX);
            return wrong(format!("frames of {} bytes; {min} to {max} would do", self.frame_bytes));
        }
        if self.duration < Duration::from_millis(100) {
            return wrong("less than 100 ms cannot be measured".to_owned());
        }
        Ok(())
    }

    /// A few milliseconds; for very many sockets as long as emptying them takes several times over.
    fn sweep_interval(&self) -> Duration {
        let by_sockets = Duration::from_micros(self.total() as u64 * 5 / 2);
        self.sweep_interval.unwrap_or_else(|| by_sockets.clamp(Duration::from_millis(3), Duration::from_millis(40)))
    }

    /// Room for what arrives between two sweeps, several times over: the kernel counts some 800 bytes for a datagram
    /// this short, and more for longer ones.
    fn receive_buffer_bytes(&self) -> usize {
        const DATAGRAM_BYTES_IN_KERNEL: usize = 2_304;
        let frames_per_s = self.speakers * 50;
        let between_sweeps = (frames_per_s as f64 * self.sweep_interval().as_secs_f64()).ceil() as usize;
        ((between_sweeps + 64) * 8 * DATAGRAM_BYTES_IN_KERNEL).clamp(1 << 18, 1 << 22)
    }

    fn swarm_config(&self, clock: SwarmClock) -> SwarmConfig {
        SwarmConfig {
            clock,
            frame_bytes: self.frame_bytes,
            sweep_interval: self.sweep_interval(),
            receive_buffer_bytes: self.receive_buffer_bytes(),
        }
    }

    /// The slot and channel of each speaker.
    fn speakers(&self) -> Vec<(usize, usize)> {
        let of_channel = |channel| (0..self.speakers).map(move |index| (channel * self.clients + index, channel));
        (0..self.channels).flat_map(of_channel).collect()
    }

    fn plan(&self, pids: Vec<u32>, has_faults: bool, hint: impl Fn(usize) -> Option<u32>) -> Plan {
        let speakers = self.speakers();
        let channels: Vec<usize> = speakers.iter().map(|(_, channel)| *channel).collect();
        let places = places(self.phases, &channels, hint, &mut Prng::new(self.seed));
        Plan { warm_up: self.warm_up, measured: self.duration, places, speakers, pids, has_faults }
    }
}

/// Ends the thread with the sockets when a run comes to nothing; one that has ended by itself hears it no more.
struct StopOnDrop(mpsc::Sender<ToSwarm>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ended = self.0.try_send(ToSwarm::Stop);
    }
}

/// The thread with the sockets.
struct SwarmThread {
    messages: mpsc::Sender<ToSwarm>,
    _stop: StopOnDrop,
    progress: Arc<Progress>,
    clock: SwarmClock,
    thread: JoinHandle<()>,
}

impl SwarmThread {
    fn start(shape: &Shape) -> Result<Self, LoadError> {
        let needed = 2 * shape.total() as u64 + OPEN_FILES_EXTRA;
        let allowed = raise_open_files()?;
        if allowed < needed {
            let text = format!("{} clients need {needed} open files, the system allows {allowed}", shape.total());
            return Err(LoadError::Arguments(text));
        }
        let clock = SwarmClock::start();
        let (messages, messages_rx) = mpsc::channel(MESSAGES_MAX);
        let progress = Arc::new(Progress::default());
        let (config, seen) = (shape.swarm_config(clock), Arc::clone(&progress));
        let thread = std::thread::Builder::new().name("swarm".to_owned()).spawn(move || {
            if let Err(error) = Swarm::new(config, messages_rx, seen).run() {
                tracing::error!(%error, "the load client's sockets failed");
            }
        })?;
        let stop = StopOnDrop(messages.clone());
        Ok(Self { messages, _stop: stop, progress, clock, thread })
    }

    /// Waits until everyone's way works.
    async fn bound(&self, total: usize, stage: &(dyn Fn(Stage) + Sync)) -> Result<(), LoadError> {
        let give_up_at = Instant::now() + BIND_TIMEOUT;
        loop {
            let working = self.progress.working.load(Ordering::Relaxed);
            stage(Stage::Binding(working, total));
            if working >= total {
                return Ok(());
            }
            if Instant::now() > give_up_at || self.thread.is_finished() {
                return Err(LoadError::NotBound { working, total, seconds: BIND_TIMEOUT.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Carries out the plan; meanwhile notes the memory of its processes, as long as all of them live.
    async fn run(&self, plan: Plan, stage: &(dyn Fn(Stage) + Sync)) -> Result<(Measured, Vec<Resident>), LoadError> {
        let (pids, warm_up, measured) = (plan.pids.clone(), plan.warm_up, plan.measured);
        let memory =
            || pids.iter().copied().map(resident_bytes).sum::<io::Result<u64>>().ok().filter(|_| !pids.is_empty());
        let (done, mut outcome) = oneshot::channel();
        self.messages.send(ToSwarm::Run(Box::new(plan), done)).await.map_err(|_| LoadError::SwarmEnded)?;
        let begun = Instant::now() + warm_up;
        let mut resident = Vec::new();
        let mut next_sample = begun;
        let measured_frames = loop {
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(100), &mut outcome).await {
                break done.map_err(|_| LoadError::SwarmEnded)?;
            }
            let now = Instant::now();
            if now >= next_sample && now < begun + measured {
                resident.extend(memory().map(|bytes| Resident { at_s: (now - begun).as_secs_f64(), bytes }));
                next_sample += Duration::from_secs(60);
            }
            let spoken = now.saturating_duration_since(begun).min(measured);
            stage(Stage::Speaking(spoken, measured, self.progress.delivered.load(Ordering::Relaxed)));
        };
        resident.extend(memory().map(|bytes| Resident { at_s: measured.as_secs_f64(), bytes }));
        Ok((measured_frames, resident))
    }
}

/// Runs the scenario against nodes.
///
/// # Errors
/// When anything fails before there is an outcome. Loss is no error: it is in the outcome.
pub async fn measure_nodes(
    shape: &Shape,
    config: &NodesConfig,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<Outcome, LoadError> {
    shape.check()?;
    let script = config.check(shape)?;
    let swarm = SwarmThread::start(shape)?;
    let shared = shared(config, &swarm)?;
    let total = shape.total();

    let seats = shape.seats(config.servers.len());
    let connected = connect_all(&shared, seats, |count| stage(Stage::Connecting(count, total))).await?;
    let (clients, mut tokens): (Vec<_>, Vec<_>) = connected.into_iter().unzip();
    let mut owner = tokens.pop().ok_or(LoadError::SwarmEnded)?;
    let channels = make_channels(&shared, &mut owner, shape, config.churn).await?;
    let places = (0..total).map(|slot| {
        let channel = slot / shape.clients;
        Place { slot, channel, channel_id: channels[channel], role: Role::Stays }
    });

    let subject = config.subject()?;
    let cpu_before = config.cpu()?;
    let begun = Instant::now();
    let clients = clients.into_iter().zip(places).collect();
    let members =
        join_all(&shared, clients, config.ramp_per_second, |count| stage(Stage::Joining(count, total))).await?;
    let took = begun.elapsed();
    let cpu: Vec<_> = config.cpu()?.iter().zip(&cpu_before).map(|(after, before)| Some(after.since(before))).collect();
    let joins = Joins::new(members.iter().map(|member| member.took), took, CpuUsed::sum(&cpu));

    swarm.bound(total, stage).await?;
    tokio::time::sleep(SETTLE).await;
    let hints = shared.phases_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let plan = shape.plan(config.pids.clone(), !script.is_empty(), |channel| hints.get(&channels[channel]).copied());
    let begun = Instant::now() + shape.warm_up;
    let faults = faults::Stage { shared: &shared, pids: &config.pids, channels: &channels };
    let ((measured, resident), visits, traffic, injected) = tokio::try_join!(
        swarm.run(plan, stage),
        visits(shape, config, &shared, &channels),
        async { Ok(traffic(&shared, begun, shape.duration).await) },
        faults.carry_out(&script, &mut owner, begun, begun + shape.duration),
    )?;

    let mut outcome = Outcome::new(&subject, &measured);
    (outcome.joins, outcome.churn, outcome.resident) = (Some(joins), visits, resident);
    outcome.between_nodes =
        traffic.map(|difference| BetweenNodes::new(difference, measured.sent as f64 / shape.duration.as_secs_f64()));
    outcome.nodes = config.nodes(shape, &measured);
    clean_up(&shared, owner, members, &channels, &injected).await;
    let from_ns = measured.tally.window_ns.start;
    outcome.faults = measured.watched.map(|watched| FaultsOutcome::new(injected, watched, from_ns));
    Ok(outcome)
}

fn shared(config: &NodesConfig, swarm: &SwarmThread) -> Result<Shared, LoadError> {
    Ok(Shared {
        servers: config.servers.clone().into(),
        rests: config.servers.iter().cloned().map(Rest::new).collect::<Result<_, _>>()?,
        run: format!("lt{:06x}", uuid::Uuid::new_v4().as_u128() & 0xff_ffff),
        people: config.people.clone(),
        encoding: config.encoding,
        cipher: config.cipher,
        clock: swarm.clock,
        swarm: swarm.messages.clone(),
        phases_us: Arc::default(),
    })
}

impl NodesConfig {
    /// The script in order, when all can be carried out.
    fn check(&self, shape: &Shape) -> Result<Vec<Fault>, LoadError> {
        let (servers, pids) = (self.servers.len(), self.pids.len());
        if servers == 0 || (pids > 0 && pids != servers) {
            let text = format!("{servers} servers and {pids} processes; there must be one for each, or no process");
            return Err(LoadError::Arguments(text));
        }
        let script = faults::in_order(&self.faults);
        faults::check(&script, shape, self)?;
        Ok(script)
    }

    fn cpu(&self) -> io::Result<Vec<CpuSample>> {
        self.pids.iter().copied().map(CpuSample::take).collect()
    }

    /// What the outcome calls the nodes.
    fn subject(&self) -> io::Result<String> {
        let name = self.pids.first().copied().map(command_of).transpose()?.unwrap_or_else(|| "node".to_owned());
        Ok(if self.servers.len() > 1 { format!("{name} on {} nodes", self.servers.len()) } else { name })
    }

    fn nodes(&self, shape: &Shape, measured: &Measured) -> Vec<NodeOutcome> {
        if self.servers.len() < 2 {
            return Vec::new();
        }
        let seats = shape.seats(self.servers.len());
        let node = |(place, server): (usize, &ServerUrl)| {
            let cpu = measured.cpu.get(place).copied().flatten();
            NodeOutcome {
                server: server.to_string(),
                clients: seats.iter().filter(|seat| seat.node == place).count(),
                cpu,
                cpu_cores: cpu.map(|cpu| cpu.seconds / shape.duration.as_secs_f64()),
            }
        };
        self.servers.iter().enumerate().map(node).collect()
    }
}

/// What went between the nodes, where there are several.
async fn traffic(shared: &Shared, begun: Instant, measured: Duration) -> Option<Result<traffic::Difference, String>> {
    if shared.rests.len() < 2 {
        return None;
    }
    Some(traffic::watch(&shared.rests, begun, measured).await)
}

async fn visits(
    shape: &Shape,
    config: &NodesConfig,
    shared: &Shared,
    channels: &[ChannelId],
) -> Result<Option<ChurnOutcome>, LoadError> {
    let Some(rate) = config.churn else { return Ok(None) };
    let until = Instant::now() + shape.warm_up + shape.duration;
    churn(shared.clone(), rate, channels.to_vec(), shape.total(), until).await.map(Some)
}

async fn make_channels(
    shared: &Shared,
    owner: &mut TokenPair,
    shape: &Shape,
    churn: Option<Churn>,
) -> Result<Vec<ChannelId>, LoadError> {
    let visitors = churn.map_or(0, |churn| churn.at_once_max());
    let max_users =
        u32::try_from(shape.clients + visitors).map_err(|_| LoadError::Arguments("too many clients".to_owned()))?;
    let mut channels = Vec::with_capacity(shape.channels);
    for number in 0..shape.channels {
        let channel =
            NewChannel { name: format!("{}-{number}", shared.run), max_users: Some(max_users), max_speakers: Some(0) };
        let rest = shared.rest();
        channels.push(rest.create_channel(&owner.access(rest).await?, &channel).await?.id);
    }
    Ok(channels)
}

/// Leaves nothing behind but the guests' names. Failures change no figure.
async fn clean_up(
    shared: &Shared,
    mut owner: TokenPair,
    members: Vec<InChannel>,
    channels: &[ChannelId],
    faults: &[Injected],
) {
    // A node to which something was done may not answer any more.
    let whole = (0..shared.rests.len()).find(|node| faults.iter().all(|fault| fault.node != *node));
    let rest = &shared.rests[whole.unwrap_or(0)];
    for channel in channels {
        let deleted = match owner.access(rest).await {
            Ok(access) => rest.delete_channel(&access, *channel).await.map_err(LoadError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(%error, %channel, "a channel stays behind");
        }
    }
    let mut leaving = tokio::task::JoinSet::new();
    for member in members {
        leaving.spawn(async move { member.end().await });
    }
    while leaving.join_next().await.is_some() {}
}

/// Runs the same scenario against a relay, in a process of its own.
///
/// # Errors
/// When anything fails before there is an outcome.
pub async fn measure_relay(
    shape: &Shape,
    relay: &RelayProcess,
    sealed: bool,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<Outcome, LoadError> {
    shape.check()?;
    let total = shape.total();
    let process = RunningRelay::start(relay, total, shape.clients)?;
    let swarm = SwarmThread::start(shape)?;
    let keys = sealed.then(|| session_keys(total)).transpose()?.map(Arc::new);
    for slot in 0..total {
        let id = u32::try_from(slot).map_err(|_| LoadError::Arguments("too many clients".to_owned()))?;
        let client = NewClient {
            slot,
            role: Role::Stays,
            channel: slot / shape.clients,
            channel_id: ChannelId(uuid::Uuid::nil()),
            node: 0,
            peer: process.address,
            wire: Wire::Relay(RelayWire::new(id, keys.clone())),
            gateway: None,
        };
        swarm.messages.send(ToSwarm::Add(Box::new(client))).await.map_err(|_| LoadError::SwarmEnded)?;
    }
    swarm.bound(total, stage).await?;
    let plan = shape.plan(vec![process.child.id()], false, |_| None);
    let (measured, resident) = swarm.run(plan, stage).await?;
    let mut outcome = Outcome::new(&relay.name, &measured);
    outcome.resident = resident;
    Ok(outcome)
}

/// A key for each client, as a node would give them.
fn session_keys(count: usize) -> Result<Vec<Key>, LoadError> {
    let cipher = Cipher::Aes128Gcm;
    let key = |_| Key::new(cipher, uuid::Uuid::new_v4().as_bytes());
    (0..count).map(key).collect::<Result<_, _>>().map_err(|error| LoadError::Arguments(error.to_string()))
}

struct RunningRelay {
    child: Child,
    address: SocketAddr,
}

impl RunningRelay {
    fn start(relay: &RelayProcess, clients: usize, per_channel: usize) -> Result<Self, LoadError> {
        let mut child = Command::new(&relay.program)
            .args(&relay.arguments)
            .args(["--clients", &clients.to_string(), "--per-channel", &per_channel.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => {
                child.kill()?;
                child.wait()?;
                Err(LoadError::Arguments(format!("{} is no relay", relay.program.display())))
            }
        }
    }
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
