//! What is spoken where, the thread that does it, and a run of it against the relay; against nodes it is in
//! [`super::nodes`].

use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use antiphon_core::{gateway::Cipher, ids::ChannelId, prng::Prng, seal::Key};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    LoadError,
    members::Seat,
    outcome::{Outcome, Resident},
    process::resident_bytes,
    schedule::{Phases, places},
    spread,
    swarm::{Measured, NewClient, Plan, Progress, Role, Swarm, SwarmClock, SwarmConfig, ToSwarm},
    system::{lower_priority, pin, raise_open_files},
    wire::{RelayWire, Wire},
};
/// Messages on their way to the swarm; more make the gateway tasks wait.
const MESSAGES_MAX: usize = 65_536;

/// How long the clients may take to bind.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

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
    pub(super) fn total(&self) -> usize {
        self.channels * self.clients
    }

    /// Which node each client connects to.
    pub(super) fn seats(&self, nodes: usize) -> Vec<Seat> {
        let seat = |slot: usize| {
            let (channel, client) = (slot / self.clients, slot % self.clients);
            Seat { node: spread::node_of(channel, client, nodes), client }
        };
        (0..self.total()).map(seat).collect()
    }

    pub(super) fn check(&self) -> Result<(), LoadError> {
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

    pub(super) fn plan(&self, pids: Vec<u32>, has_faults: bool, hint: impl Fn(usize) -> Option<u32>) -> Plan {
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
pub(super) struct SwarmThread {
    pub(super) messages: mpsc::Sender<ToSwarm>,
    _stop: StopOnDrop,
    progress: Arc<Progress>,
    pub(super) clock: SwarmClock,
    thread: JoinHandle<()>,
}

impl SwarmThread {
    pub(super) fn start(shape: &Shape) -> Result<Self, LoadError> {
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
    pub(super) async fn bound(&self, total: usize, stage: &(dyn Fn(Stage) + Sync)) -> Result<(), LoadError> {
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
    pub(super) async fn run(
        &self,
        plan: Plan,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<(Measured, Vec<Resident>), LoadError> {
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
