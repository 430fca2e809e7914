//! The thread with the sockets, as the others see it: started, given plans, watched.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    LoadError, crowd,
    outcome::Resident,
    process::{CpuSample, resident_bytes},
    series::step_ns,
    shape::Shape,
    swarm::{Measured, Plan, Progress, Swarm, SwarmClock, SwarmConfig, ToSwarm},
    system::raise_open_files,
};

/// Messages on their way to the swarm; more make the gateway tasks wait.
const MESSAGES_MAX: usize = 65_536;

/// How long the clients may take to bind.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// Files besides the clients'.
const OPEN_FILES_EXTRA: u64 = 128;

/// How often it is looked how far a run is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Between the samples of memory by which its growth is told.
const RESIDENT_INTERVAL: Duration = Duration::from_secs(60);

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// Connected so many of so many.
    Connecting(usize, usize),
    /// Joined so many of so many.
    Joining(usize, usize),
    /// Bound so many of so many.
    Binding(usize, usize),
    /// Speaking for so long of so long.
    Speaking(Duration, Duration, Live),
}

/// What is known while it is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Live {
    /// Frames delivered.
    pub delivered: u64,
    /// Deliveries that should have been, those under way included.
    pub expected: u64,
    /// The 99th percentile of the last second or so.
    pub p99_ms: f64,
    /// Joins answered since the run began.
    pub joins: u64,
    /// The nodes' CPU time by time in the last second or so, where it is known.
    pub cpu_cores: Option<f64>,
}

/// What was sampled beside: once in each step of the series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) joins: u64,
    pub(super) cpu_cores: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
}

/// What a plan came to.
pub(super) struct Carried {
    pub(super) measured: Measured,
    pub(super) resident: Vec<Resident>,
    pub(super) samples: Vec<Sample>,
    /// What this process itself used: cores, and memory at the end.
    pub(super) own_cpu_cores: Option<f64>,
    pub(super) own_memory: Option<u64>,
}

/// What the thread must be able to hold.
pub(super) struct Needs {
    sweep_interval: Duration,
    receive_buffer_bytes: usize,
    open_files: u64,
    frame_bytes: usize,
}

impl Needs {
    /// For all of these, one after the other, with `more` clients who come and go.
    pub(super) fn of(shapes: &[Shape], more: usize, sweep_interval: Option<Duration>) -> Self {
        let most = |count: fn(&Shape) -> usize| shapes.iter().map(count).max().unwrap_or(0);
        let talkers = |shape: &Shape| shape.groups.iter().map(|group| group.talkers).max().unwrap_or(0);
        // A few milliseconds; for very many sockets as long as emptying them takes several times over.
        let hearing = most(|shape| crowd::hearing(&shape.groups)) + most(Shape::total) / 8;
        let by_sockets = Duration::from_micros(hearing as u64 * 5 / 2);
        let usual = by_sockets.clamp(Duration::from_millis(3), Duration::from_millis(40));
        let sweep_interval = sweep_interval.unwrap_or(usual);
        Self {
            sweep_interval,
            receive_buffer_bytes: receive_buffer_bytes(most(talkers), sweep_interval),
            open_files: (most(open_files) + 2 * more) as u64,
            frame_bytes: shapes.first().map_or(0, |shape| shape.frame_bytes),
        }
    }
}

/// A WebSocket each, and a UDP socket for each who hears or for a few of those who do not.
fn open_files(shape: &Shape) -> usize {
    let (total, hearing) = (shape.total(), crowd::hearing(&shape.groups));
    total + hearing + (total - hearing).div_ceil(8)
}

/// Room for what arrives between two sweeps, several times over: the kernel counts some 800 bytes for a datagram
/// this short, and more for longer ones.
fn receive_buffer_bytes(talkers: usize, sweep_interval: Duration) -> usize {
    const DATAGRAM_BYTES_IN_KERNEL: usize = 2_304;
    let between_sweeps = ((talkers * 50) as f64 * sweep_interval.as_secs_f64()).ceil() as usize;
    ((between_sweeps + 64) * 8 * DATAGRAM_BYTES_IN_KERNEL).clamp(1 << 18, 1 << 22)
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
    pub(super) progress: Arc<Progress>,
    pub(super) clock: SwarmClock,
    thread: JoinHandle<()>,
}

impl SwarmThread {
    pub(super) fn start(needs: &Needs) -> Result<Self, LoadError> {
        let files = needs.open_files + OPEN_FILES_EXTRA;
        let allowed = raise_open_files()?;
        if allowed < files {
            let text = format!("so many clients need {files} open files, the system allows {allowed} (ulimit -Hn)");
            return Err(LoadError::Arguments(text));
        }
        let clock = SwarmClock::start();
        let (messages, messages_rx) = mpsc::channel(MESSAGES_MAX);
        let progress = Arc::new(Progress::default());
        let Needs { sweep_interval, receive_buffer_bytes, frame_bytes, .. } = *needs;
        let config = SwarmConfig { clock, frame_bytes, sweep_interval, receive_buffer_bytes };
        let seen = Arc::clone(&progress);
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

    /// Carries out the plan; meanwhile takes samples of its processes.
    pub(super) async fn run(&self, plan: Plan, stage: &(dyn Fn(Stage) + Sync)) -> Result<Carried, LoadError> {
        let (warm_up, measured) = (plan.warm_up, plan.measured);
        let mut sampler = Sampler::new(plan.pids.clone(), Instant::now() + warm_up, measured);
        let (done, mut outcome) = oneshot::channel();
        self.messages.send(ToSwarm::Run(Box::new(plan), done)).await.map_err(|_| LoadError::SwarmEnded)?;
        let measured_frames = loop {
            if let Ok(done) = tokio::time::timeout(LOOK_INTERVAL, &mut outcome).await {
                break done.map_err(|_| LoadError::SwarmEnded)?;
            }
            let joins = self.progress.joins.load(Ordering::Relaxed);
            sampler.look(Instant::now(), joins);
            let spoken = sampler.spoken(Instant::now());
            stage(Stage::Speaking(spoken, measured, self.live(joins, &sampler)));
        };
        sampler.end();
        let (own_cpu_cores, own_memory) = (sampler.own_cpu_cores(), resident_bytes(std::process::id()).ok());
        let (measured, Sampler { resident, samples, .. }) = (measured_frames, sampler);
        Ok(Carried { measured, resident, samples, own_cpu_cores, own_memory })
    }

    fn live(&self, joins: u64, sampler: &Sampler) -> Live {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Live {
            delivered: load(&self.progress.delivered),
            expected: load(&self.progress.expected),
            p99_ms: load(&self.progress.p99_us) as f64 / 1_000.0,
            joins,
            cpu_cores: sampler.samples.last().and_then(|sample| sample.cpu_cores),
        }
    }
}

/// Samples the processes: once in each step for the series, each minute for the growth of memory.
struct Sampler {
    pids: Vec<u32>,
    begun: Instant,
    measured: Duration,
    step: Duration,
    samples: Vec<Sample>,
    resident: Vec<Resident>,
    /// The processes' CPU time when the step began, and the joins.
    before: Option<(Instant, Vec<Option<CpuSample>>, u64)>,
    /// This process' own CPU time when the measured time began, and when it was last looked at.
    own: Option<((Instant, CpuSample), (Instant, CpuSample))>,
}

impl Sampler {
    fn new(pids: Vec<u32>, begun: Instant, measured: Duration) -> Self {
        let step = Duration::from_nanos(step_ns(u64::try_from(measured.as_nanos()).unwrap_or(u64::MAX)));
        Self { pids, begun, measured, step, samples: Vec::new(), resident: Vec::new(), before: None, own: None }
    }

    fn spoken(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun).min(self.measured)
    }

    /// Does what is due.
    fn look(&mut self, now: Instant, joins: u64) {
        if now < self.begun || now >= self.begun + self.measured {
            return;
        }
        let minutes = u32::try_from(self.resident.len()).unwrap_or(u32::MAX);
        if now >= self.begun + RESIDENT_INTERVAL * minutes {
            self.note_resident((now - self.begun).as_secs_f64());
        }
        let next_step = self.step * u32::try_from(self.samples.len() + 1).unwrap_or(u32::MAX);
        match &self.before {
            None => self.before = Some((now, self.cpu(), joins)),
            Some(_) if now >= self.begun + next_step => self.sample(now, joins),
            Some(_) => {}
        }
        if let Ok(own) = CpuSample::take(std::process::id()) {
            let first = self.own.take().map_or_else(|| (now, own), |(first, _)| first);
            self.own = Some((first, (now, own)));
        }
    }

    fn own_cpu_cores(&self) -> Option<f64> {
        let ((from, before), (to, after)) = self.own.as_ref()?;
        let elapsed_s = (*to - *from).as_secs_f64();
        (elapsed_s > 0.0).then(|| after.since(before).seconds / elapsed_s)
    }

    fn sample(&mut self, now: Instant, joins: u64) {
        let cpu = self.cpu();
        let Some((since, cpu_before, joins_before)) = self.before.replace((now, cpu.clone(), joins)) else { return };
        let used = |(after, before): (&Option<CpuSample>, &Option<CpuSample>)| {
            Some(after.as_ref()?.since(before.as_ref()?).seconds)
        };
        let seconds: Vec<f64> = cpu.iter().zip(&cpu_before).filter_map(used).collect();
        let elapsed_s = (now - since).as_secs_f64();
        self.samples.push(Sample {
            joins: joins - joins_before,
            cpu_cores: (!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / elapsed_s),
            memory_bytes: self.memory(),
        });
    }

    fn end(&mut self) {
        self.note_resident(self.measured.as_secs_f64());
    }

    fn note_resident(&mut self, at_s: f64) {
        self.resident.extend(self.memory().map(|bytes| Resident { at_s, bytes }));
    }

    fn cpu(&self) -> Vec<Option<CpuSample>> {
        self.pids.iter().map(|pid| CpuSample::take(*pid).ok()).collect()
    }

    /// The memory of all, as long as all of them live.
    fn memory(&self) -> Option<u64> {
        let sum = self.pids.iter().copied().map(resident_bytes).sum::<io::Result<u64>>();
        sum.ok().filter(|_| !self.pids.is_empty())
    }
}
