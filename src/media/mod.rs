//! The media workers: sockets in, engines, sockets out.
//!
//! ```text
//!                     ┌ worker 0: socket ─ engine ─┐
//!  UDP port ─ kernel ─┤    │ hand-over │ commands  ├─ UDP port     events ──► control plane
//!   (id % workers)    └ worker 1: socket ─ engine ─┘
//!                          │           │
//!                     relay: socket    └── frames ── relay ─ relay port, other nodes     (in a cluster)
//! ```
//!
//! Each worker is an operating system thread with a socket of its own on the common port. The kernel steers a datagram by
//! the session id in it, so a session always meets the same engine; nothing is locked. The rest of the program reaches a
//! worker by bounded queues only: commands wait for room, audio is dropped and counted.

mod counters;
mod forwarding;
mod inbox;
mod mixing;
mod outbox;
mod recording;
mod relayed;
mod sender;
mod socket;
mod spread;
mod sys;
mod trains;
pub mod webrtc;
mod worker;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Counter, Event},
    ids::{ChannelId, StreamId, WorkerIndex},
    relay::{self, NodeInfo, RelayCommand, RelayEvent, WORKERS_MAX},
    wire::datagram::DATAGRAM_BYTES_MAX,
};
use tokio::sync::mpsc;

use inbox::Inbox;
use outbox::SideOutlets;
use relayed::RelaySetup;
use socket::Steering;
use webrtc::{PeerCommand, PeerEvent, PeerPlaces, PeersSetup};
use worker::{Order, Setup, Shared, Worker};

pub use counters::{MediaCounters, SocketCounter, SocketStats};
pub use forwarding::{FORWARDING_BUCKETS, FORWARDING_US, ForwardingTimes};
pub use mixing::{FrameForMix, MixInlets, MixedPacket};
pub use recording::{FrameToRecord, RecordInlet};

/// How long a probe waits before it looks again.
const PROBE_PAUSE: Duration = Duration::from_millis(1);

/// How the media workers are set up.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// The UDP address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// How many workers, at least one; usually one for each core.
    pub workers: u16,
    /// How long a frame may wait for others when several people speak in its channel, in microseconds.
    pub hold_us: u32,
    /// From which share of its time on, in percent, a worker lets others send over parts of its long lists of listeners;
    /// 0 always, above 100 never.
    pub spread_from_percent: u16,
    /// The longest datagram that is taken, at most 1,500 bytes; longer ones are dropped and counted.
    pub datagram_bytes_max: usize,
    /// The size of each worker's receive buffer in the kernel, which may grant less.
    pub receive_buffer_bytes: usize,
    /// The size of each worker's send buffer in the kernel, which may grant less.
    pub send_buffer_bytes: usize,
    /// How many commands may wait for each worker; more wait with their senders.
    pub command_queue: usize,
    /// How many frames from the gateway, and how many hand-overs, may wait for each worker; more are dropped.
    pub frame_queue: usize,
    /// How many events may wait for the control plane. Audio is dropped when seven eighths are taken.
    pub event_queue: usize,
    /// In a cluster, the way to the other nodes.
    pub relay: Option<RelayConfig>,
    /// WebRTC connections that the node takes at once; 0 for none.
    pub webrtc_peers: usize,
    /// Where frames for mixes go, if anywhere.
    pub mix: Option<MixInlets>,
    /// Where frames of channels that are recorded go, if anywhere.
    pub record: Option<RecordInlet>,
}

/// How the relay to the other nodes is set up. Keys are derived from what [`Media::set_peers`] says of this node: give it
/// another start time whenever media workers are started.
#[derive(Clone)]
pub struct RelayConfig {
    /// The UDP address; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What all nodes of the cluster know, and nobody else.
    pub secret: Arc<[u8]>,
}

impl std::fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayConfig").field("bind", &self.bind).finish_non_exhaustive()
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: std::thread::available_parallelism()
                .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX)),
            hold_us: 2_000,
            spread_from_percent: 60,
            datagram_bytes_max: DATAGRAM_BYTES_MAX,
            // A second of 20,000 datagrams of 200 bytes, as the kernel accounts for them.
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            command_queue: 256,
            frame_queue: 1_024,
            event_queue: 8_192,
            relay: None,
            webrtc_peers: 2_000,
            mix: None,
            record: None,
        }
    }
}

/// The node's monotonic clock: microseconds since the media workers started, and one, so that no time is zero.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    /// The same moment since 1970.
    started_unix_us: u64,
}

impl Clock {
    fn start() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX) }
    }

    /// A time since 1970, however the system's clock was set since the workers started.
    fn unix_us(self, now: Micros) -> u64 {
        self.started_unix_us.saturating_add(now.0.saturating_sub(1))
    }

    /// The moment that a time stands for.
    fn instant(self, now: Micros) -> Instant {
        self.started + Duration::from_micros(now.0.saturating_sub(1))
    }

    fn now(self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1))
    }
}

/// A handle to the media workers. They stop when the last one is gone, or by [`Media::stop`].
#[derive(Clone)]
pub struct Media {
    inner: Arc<Inner>,
}

struct Inner {
    local_addr: SocketAddr,
    relay_addr: Option<SocketAddr>,
    relay_events: Mutex<Option<mpsc::Receiver<RelayEvent>>>,
    peer_events: Mutex<Option<mpsc::Receiver<PeerEvent>>>,
    clock: Clock,
    handles: Vec<Handle>,
    inboxes: Arc<[Inbox]>,
    /// Where placing begins to look: ties go round.
    next_placement: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One worker as the rest of the program sees it.
struct Handle {
    commands: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    /// Channels placed in it and not closed yet.
    channels: AtomicU64,
    gateway_frames_dropped: AtomicU64,
}

impl Media {
    /// Binds the workers' sockets and starts their threads. Events come out of the receiver.
    ///
    /// # Errors
    /// When the address is in use or the system refuses sockets or threads.
    pub fn start(config: MediaConfig) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        if config.workers == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there must be at least one media worker"));
        }
        let sockets = socket::bind(&config, config.bind, Steering::Client)?;
        let local_addr = sockets[0].local_addr()?;
        let (relays, relay_addr, relay_events) = bind_relays(&config)?;
        let clock = Clock::start();
        let (events, received) = mpsc::channel(config.event_queue);
        let (peer_setup, peer_events) = set_up_peers(&config, clock, local_addr)?;
        let inboxes = sockets.iter().map(|_| Inbox::new(config.frame_queue)).collect::<io::Result<Arc<[_]>>>()?;
        let mut handles = Vec::with_capacity(sockets.len());
        let mut threads = Vec::with_capacity(sockets.len());
        for (index, (socket, relay)) in sockets.into_iter().zip(relays).enumerate() {
            let (commands, taken) = mpsc::channel(config.command_queue);
            let shared = Arc::new(Shared::default());
            let setup = Setup {
                index,
                clock,
                socket,
                hold: Micros(config.hold_us.into()),
                spread_from_percent: config.spread_from_percent,
                datagram_bytes_max: config.datagram_bytes_max,
                commands: taken,
                relay,
                side: SideOutlets { mix: config.mix.clone(), record: config.record.clone() },
                peers: peer_setup.clone().map(|setup| PeersSetup { worker: WorkerIndex(index as u16), ..setup }),
                events: events.clone(),
                inboxes: Arc::clone(&inboxes),
                shared: Arc::clone(&shared),
            };
            let thread = std::thread::Builder::new().name(format!("media-{index}"));
            threads.push(thread.spawn(|| Worker::new(setup).run())?);
            handles.push(Handle {
                commands,
                shared,
                channels: AtomicU64::new(0),
                gateway_frames_dropped: AtomicU64::new(0),
            });
        }
        let inner = Inner {
            local_addr,
            relay_addr,
            relay_events: Mutex::new(relay_events),
            peer_events: Mutex::new(peer_events),
            clock,
            handles,
            inboxes,
            next_placement: AtomicUsize::new(0),
            threads: Mutex::new(threads),
        };
        Ok((Self { inner: Arc::new(inner) }, received))
    }

    /// The address that clients send to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// The address that other nodes send to, in a cluster.
    #[must_use]
    pub fn relay_addr(&self) -> Option<SocketAddr> {
        self.inner.relay_addr
    }

    /// What the relays tell of the other nodes, in a cluster; `None` but for the first call. Whoever takes it must read
    /// it: what there is no room for is dropped and counted.
    #[must_use]
    pub fn take_relay_events(&self) -> Option<mpsc::Receiver<RelayEvent>> {
        self.inner.relay_events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the WebRTC peers tell, where there are any; `None` but for the first call. Whoever takes it must read it.
    #[must_use]
    pub fn take_peer_events(&self) -> Option<mpsc::Receiver<PeerEvent>> {
        self.inner.peer_events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the WebRTC peers of a worker a command; waits while its queue is full.
    pub async fn send_to_peers(&self, worker: WorkerIndex, command: PeerCommand) {
        self.order(worker, Order::Peers(command)).await;
    }

    /// Leaves a datagram that came by TCP for the peers of a worker; false when there is no room.
    fn leave_for_peers(&self, worker: WorkerIndex, came: webrtc::PeerDatagram) -> bool {
        self.inner.inboxes.get(usize::from(worker.0)).is_some_and(|inbox| inbox.leave_for_peers(came))
    }

    async fn order(&self, worker: WorkerIndex, order: Order) {
        let Some(handle) = self.inner.handles.get(usize::from(worker.0)) else { return };
        if handle.commands.send(order).await.is_ok() {
            self.inner.inboxes[usize::from(worker.0)].waker().wake();
        }
    }

    /// The cluster as the registry sees it now: this node and all others that live.
    pub async fn set_peers(&self, epoch: u64, me: &NodeInfo, peers: Arc<[NodeInfo]>) {
        for (handle, inbox) in self.inner.handles.iter().zip(self.inner.inboxes.iter()) {
            let command = RelayCommand::SetPeers { epoch, me: me.clone(), peers: Arc::clone(&peers) };
            if handle.commands.send(Order::Relay(command)).await.is_ok() {
                inbox.waker().wake();
            }
        }
    }

    /// How many workers there are. A session lives in worker `id % workers`.
    #[must_use]
    pub fn workers(&self) -> u16 {
        u16::try_from(self.inner.handles.len()).unwrap_or(u16::MAX)
    }

    /// How many workers run: fewer than [`Self::workers`] once one has ended by a panic or all were stopped.
    #[must_use]
    pub fn workers_running(&self) -> u16 {
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        u16::try_from(threads.iter().filter(|thread| !thread.is_finished()).count()).unwrap_or(u16::MAX)
    }

    /// The node's clock, as it is on the wire.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.inner.clock.now()
    }

    /// The worker for a new channel: in a cluster the one that it has on every node, else the one with the fewest members
    /// and channels. It counts as taken until [`Command::CloseChannel`] is sent there, or [`Self::give_back`] says that
    /// the channel was not opened.
    #[must_use]
    pub fn place_channel(&self, channel: ChannelId) -> WorkerIndex {
        let handles = &self.inner.handles;
        let index = if self.inner.relay_addr.is_some() {
            usize::from(relay::channel_worker(channel, self.workers()).0)
        } else {
            let first = self.inner.next_placement.fetch_add(1, Ordering::Relaxed);
            let round = (0..handles.len()).map(|step| (first + step) % handles.len());
            round.min_by_key(|index| handles[*index].load()).unwrap_or(0)
        };
        handles[index].channels.fetch_add(1, Ordering::Relaxed);
        WorkerIndex(u16::try_from(index).unwrap_or(0))
    }

    /// A channel that was placed in this worker is not going to be opened.
    pub fn give_back(&self, worker: WorkerIndex) {
        if let Some(handle) = self.inner.handles.get(usize::from(worker.0)) {
            handle.channel_gone();
        }
    }

    /// Gives a worker a command; waits while its queue is full. After [`Self::stop`] commands go nowhere.
    pub async fn send(&self, worker: WorkerIndex, command: Command) {
        let Some(handle) = self.inner.handles.get(usize::from(worker.0)) else { return };
        if matches!(command, Command::CloseChannel { .. }) {
            handle.channel_gone();
        }
        self.order(worker, Order::Engine(command)).await;
    }

    /// Gives a worker a [`Command::Frame`]; false when its queue is full: the frame is dropped and counted.
    #[must_use]
    pub fn try_frame(&self, worker: WorkerIndex, command: Command) -> bool {
        let index = usize::from(worker.0);
        let left = self.inner.inboxes.get(index).is_some_and(|inbox| inbox.leave_frame(command));
        if let (false, Some(handle)) = (left, self.inner.handles.get(index)) {
            handle.gateway_frames_dropped.fetch_add(1, Ordering::Relaxed);
        }
        left
    }

    /// What all workers have counted, as of their last turns.
    #[must_use]
    pub fn counters(&self) -> MediaCounters {
        let mut sum = MediaCounters::default();
        for handle in &self.inner.handles {
            sum += handle.shared.published.load();
            let dropped = handle.gateway_frames_dropped.load(Ordering::Relaxed);
            sum.socket.add(SocketCounter::GatewayFramesDropped, dropped);
        }
        sum
    }

    /// Has every worker take a command that changes nothing, and waits until all have; how long that took.
    pub async fn probe(&self) -> Duration {
        let begun = Instant::now();
        let taken = |handle: &Handle| handle.shared.published.load().socket[SocketCounter::Commands];
        let before: Vec<u64> = self.inner.handles.iter().map(taken).collect();
        for worker in 0..self.workers() {
            // Of a channel and a member that cannot be.
            let nobody = Command::RemoveMember { channel: ChannelId(uuid::Uuid::nil()), stream: StreamId(0) };
            self.send(WorkerIndex(worker), nobody).await;
        }
        while self.inner.handles.iter().zip(&before).any(|(handle, before)| taken(handle) <= *before) {
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        begun.elapsed()
    }

    /// Other nodes that the relay talks to, in a cluster.
    #[must_use]
    pub fn relay_peers(&self) -> u64 {
        // Each worker counts them.
        self.counters().relay[relay::Counter::PeersKnown] / u64::from(self.workers().max(1))
    }

    /// Stops the workers: each finishes its turn and sends what it has gathered. Returns when they have ended.
    pub async fn stop(&self) {
        self.inner.ask_to_stop();
        let threads = match self.inner.threads.lock() {
            Ok(mut threads) => std::mem::take(&mut *threads),
            Err(_) => return,
        };
        let joined =
            tokio::task::spawn_blocking(|| threads.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a media worker ended by a panic");
        }
    }
}

/// How many events of the relays may wait: they are few, and only tell of changes.
const RELAY_EVENTS: usize = 1_024;

/// How many events of WebRTC peers may wait; what finds no room is told later.
const PEER_EVENTS: usize = 4_096;

/// What all workers' peers have in common, where there is WebRTC.
fn set_up_peers(
    config: &MediaConfig,
    clock: Clock,
    local_addr: SocketAddr,
) -> io::Result<(Option<PeersSetup>, Option<mpsc::Receiver<PeerEvent>>)> {
    if config.webrtc_peers == 0 {
        return Ok((None, None));
    }
    let certificate = webrtc::certificate().ok_or_else(|| io::Error::other("no certificate for DTLS can be made"))?;
    let (events, told) = mpsc::channel(PEER_EVENTS);
    let places = Arc::new(PeerPlaces::new(config.webrtc_peers));
    let worker = WorkerIndex(0);
    let setup = PeersSetup {
        worker,
        clock,
        certificate,
        events,
        places,
        is_relayed: config.relay.is_some(),
        is_ipv6: local_addr.is_ipv6(),
    };
    Ok((Some(setup), Some(told)))
}

type Relays = (Vec<Option<RelaySetup>>, Option<SocketAddr>, Option<mpsc::Receiver<RelayEvent>>);

/// Each worker's relay, where there are any, their address and what they tell.
fn bind_relays(config: &MediaConfig) -> io::Result<Relays> {
    let Some(relay) = &config.relay else { return Ok(((0..config.workers).map(|_| None).collect(), None, None)) };
    if config.workers > WORKERS_MAX {
        let error = format!("a node of a cluster can have at most {WORKERS_MAX} media workers");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let sockets = socket::bind(config, relay.bind, Steering::Node)?;
    let address = sockets[0].local_addr()?;
    let (events, told) = mpsc::channel(RELAY_EVENTS);
    let workers = (0..config.workers).map(WorkerIndex);
    let setup = |(worker, socket)| {
        Some(RelaySetup { worker, secret: Arc::clone(&relay.secret), socket, events: events.clone() })
    };
    Ok((workers.zip(sockets).map(setup).collect(), Some(address), Some(told)))
}

impl Handle {
    /// Never below none, whatever is closed that was not placed.
    fn channel_gone(&self) {
        let less = |channels: u64| Some(channels.saturating_sub(1));
        _ = self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// How much is on a worker: its members as of its last turn and its channels as of now.
    fn load(&self) -> u64 {
        let members = self.shared.published.load().engine[Counter::MembersPresent];
        members + self.channels.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn ask_to_stop(&self) {
        for (handle, inbox) in self.handles.iter().zip(self.inboxes.iter()) {
            handle.shared.stop.store(true, Ordering::Relaxed);
            inbox.waker().wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}
