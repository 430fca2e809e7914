//! The whole server: start, wait, drain, stop, in order.

mod cluster;
mod config;
mod listeners;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use antiphon_core::{engine::Event, gateway::ListeningStats, ids::NodeId};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

pub(crate) use self::config::bucket;
pub use self::listeners::Refused;
use self::{
    cluster::Place,
    listeners::{Listeners, Protocol, refused_udp},
};
use crate::{
    alerts::{Alerts, RulesError},
    api::{
        Addresses, Api, audio_of_settings,
        drain::{Drain, DrainMode},
        health::Health,
        limits::Limits,
        whip::Standalone,
    },
    auth::{Auth, AuthConfig},
    chat::Chat,
    cluster::{Placement, RedisError, Registry},
    gateway::Gateway,
    http_client::{ClientError, http_client, node_client},
    media::{Media, MixInlets, RecordInlet, webrtc::IceTcp},
    mixer::Mixer,
    notify::{Notify, Outbox, OutboxError},
    playback::Playbacks,
    recorder::Recorder,
    recordings::Recordings,
    rooms::{Rooms, directory::Directory},
    settings::{DataDirLock, LocalState, LocalStateError, Settings},
    store::{Store, StoreError},
    streaming::{BucketOpenError, Catalogue, Streams},
    telemetry::{
        logs::{self, LogFilterError},
        metrics::metrics,
        sampler::{Sampler, try_timers},
    },
    ticks::ticks,
    tls::{self, Tls, TlsError},
    vitals::{Gatherer, HISTORY_EVERY, Vitals},
};

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log's filter is none.
    #[error(transparent)]
    Log(#[from] LogFilterError),
    /// The data dir cannot be used.
    #[error(transparent)]
    LocalState(#[from] LocalStateError),
    /// The folder of audio files cannot be used, or the settings of their bucket.
    #[error(transparent)]
    Files(#[from] BucketOpenError),
    /// The database cannot be opened.
    #[error("cannot open the database {url}: {error}")]
    Store {
        /// Where it is, without a password.
        url: String,
        /// Why.
        error: StoreError,
    },
    /// There is no place among the other nodes.
    #[error("cannot join the cluster (redis.url): {0}")]
    Cluster(#[from] RedisError),
    /// No HTTPS client for an external issuer's keys.
    #[error("cannot make an HTTPS client: {0}")]
    Issuer(#[from] reqwest::Error),
    /// No HTTPS client for other nodes.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The certificate cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Notifications cannot be sent as it is set.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Addresses cannot be listened on: all that are set so.
    #[error(
        "cannot listen on {}; end what listens there, or set other addresses",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", nor on ")
    )]
    Listen(Vec<Refused>),
    /// The media workers do not start.
    #[error("cannot start the media workers (audio.udp_port, media.workers): {0}")]
    Media(io::Error),
    /// The mixing threads do not start.
    #[error("cannot start the mixing threads (mixer.threads): {0}")]
    Mixer(io::Error),
    /// The recorder does not start.
    #[error("cannot start the recorder (recording.enabled): {0}")]
    Recorder(io::Error),
    /// The system does not say where a port is.
    #[error("cannot tell which port was taken: {0}")]
    LocalAddress(io::Error),
    /// The alert rules that are part of this program cannot be used, which only a fault of ours brings about.
    #[error(transparent)]
    Alerts(#[from] RulesError),
    /// Nobody serves a port any more.
    #[error("a port is no longer served; the log says why")]
    ListenerEnded,
    /// The signals that stop the server cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// How long between two attempts to open a database that is not there yet, as when both start together.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long a node that stops tries to put away what was recorded last.
const PUT_AWAY_PATIENCE: Duration = Duration::from_secs(10);

/// How often counters are read, a point of history kept, limits swept and the database checked.
const UPKEEP: Duration = HISTORY_EVERY;

/// How often totals are brought up to what was counted: how old they may be.
const STATISTICS: Duration = Duration::from_secs(5);

/// How often administrators who watch are told who listens.
const TELL_OF_LISTENING: Duration = Duration::from_secs(1);

/// How often audio files are closed that nobody reads.
const FILES_LOOKED_AT: Duration = Duration::from_secs(30);

/// How often the database is swept of what has run out, and rooms of what nobody needs.
const SWEEP: Duration = Duration::from_secs(60);

/// Reads the files of certificates that the settings name, as a start does, and takes nothing into use.
///
/// # Errors
///
/// What a start would say: a file that cannot be read or holds something else, or a key of another certificate.
pub fn check_files(settings: &Settings) -> Result<(), StartError> {
    Tls::of(settings)?;
    node_client(settings.cluster.ca_file.as_deref())?;
    Ok(())
}

/// Starts a server, says how to reach it, and runs it until SIGTERM or SIGINT; then drains and stops it. A second signal
/// ends it at once.
///
/// # Errors
///
/// When it cannot start, or cannot go on.
pub async fn run(settings: Settings) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(StartError::Signals)?;
    logs::init(settings.log.format, &settings.log.level)?;
    let mut running = Server::start(settings).await?;
    running.announce().await;
    // Where there is nothing to be read again, SIGHUP ends the process, as it does when its terminal goes.
    let _hangups = running.tls.clone().map(reload_on_hangup).transpose().map_err(StartError::Signals)?;
    let outcome = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, deadline_s = running.settings.server.drain_deadline_s, "draining");
            Ok(())
        }
        () = running.listener_ended() => Err(StartError::ListenerEnded),
    };
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        name = signals.next() => tracing::warn!(signal = name, "stopping at once"),
    }
    outcome
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Has the certificate read again at each SIGHUP, until what this yields is dropped.
fn reload_on_hangup(tls: Tls) -> io::Result<JoinSet<()>> {
    let mut hangups = signal(SignalKind::hangup())?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        while hangups.recv().await.is_some() {
            tls.reload_soon();
        }
    });
    Ok(task)
}

/// Starts servers.
pub struct Server;

/// A server that runs until [`Running::stop`].
pub struct Running {
    settings: Arc<Settings>,
    addresses: Addresses,
    drain: Arc<Drain>,
    registry: Registry,
    rooms: Rooms,
    streams: Streams,
    media: Media,
    mixer: Option<Mixer>,
    recorder: Option<Recorder>,
    recordings: Recordings,
    store: Store,
    tls: Option<Tls>,
    _data_dir: Option<DataDirLock>,
    /// Turns true when listeners are to stop.
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    /// Ended when this is dropped.
    background: JoinSet<()>,
}

impl Server {
    /// Starts everything, bottom up. Ports of 0 take free ones; [`Running::addresses`] says which.
    ///
    /// # Errors
    ///
    /// What cannot be opened or listened on. What was started before is stopped again.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        let settings = Arc::new(settings);
        let health = Arc::new(Health::starting());
        let local = settings.local_state()?;
        let data_dir = settings.lock_data_dir()?;
        let streams = Streams::open(config::streams(&settings, &local))?;
        let tls = Tls::of(&settings)?;
        let store = open_store(&settings).await?;
        let auth = Auth::new(store.clone(), AuthConfig::new(&settings, &local))?;
        let listeners = bind(&settings, tls.clone()).await?;
        let (Voices { media, mixer, recorder }, events) = start_media(&settings, &local)?;
        let addresses = listeners.addresses(media.local_addr())?;
        let ice_tcp = bind_ice_tcp(&settings, media.local_addr()).await?;
        let tcp_port = ice_tcp.as_ref().and_then(|tcp| tcp.port().ok());
        let place = Place::take(&settings, &local, addresses, &media).await?;
        let rooms = Rooms::start(
            store.clone(),
            media.clone(),
            events,
            (place.membership, place.notices),
            config::rooms(&settings, tcp_port, mixer.clone(), recorder.clone()),
        );
        let chat = Chat::start(store.clone(), rooms.clone(), place.records.clone(), config::chat(&settings));
        let outbox = Outbox::start(store.clone(), chat.clone(), http_client()?, config::outbox(&settings)).await?;
        let records = (place.records.clone(), place.session_notices);
        let gateway =
            Gateway::new(auth.clone(), rooms.clone(), chat.clone(), records, config::gateway(&settings, &local));
        let recordings = Recordings::new(
            store.clone(),
            rooms.clone(),
            streams.clone(),
            recorder.clone(),
            config::recordings(&settings),
        );
        let playbacks = Playbacks::new(rooms.clone(), config::playback(&settings));
        let leaving = (rooms.clone(), playbacks.clone());
        let drain = Arc::new(Drain::new(gateway.clone(), leaving, place.registry.clone(), Arc::clone(&health)));
        let alerts = Arc::new(Alerts::new(NodeId(local.node_id.clone()))?);
        let vitals = Arc::new(Vitals::new(place.registry.clone(), alerts));
        let api = Arc::new(Api {
            store: store.clone(),
            auth,
            chat,
            notify: Notify::new(store.clone(), rooms.clone(), http_client()?),
            outbox,
            directory: Directory::new(store.clone(), rooms.clone(), place.records, config::directory(&settings)),
            gateway: gateway.clone(),
            catalogue: Catalogue::new(store.clone(), streams.clone(), config::upload_quotas(&settings)),
            streams: streams.clone(),
            playbacks,
            recordings: recordings.clone(),
            media: media.clone(),
            registry: place.registry.clone(),
            placement: Placement::default(),
            drain: Arc::clone(&drain),
            http: node_client(settings.cluster.ca_file.as_deref())?,
            health: Arc::clone(&health),
            limits: Limits::new(config::http_limits(&settings)),
            sampler: Sampler::new(media.clone()),
            vitals,
            audio: Mutex::new(audio_of_settings(&settings)),
            standalone: Standalone::default(),
            settings: Arc::clone(&settings),
            addresses,
        });
        let (stop, stopped) = watch::channel(false);
        let listeners = listeners.serve(&api, &gateway, &stopped);
        let mut background = in_background(&api, &rooms, tls.clone());
        if let Some(tcp) = ice_tcp {
            let limits = &settings.limits;
            let (most, per_address) = (limits.webrtc_tcp_connections, limits.webrtc_tcp_connections_per_address);
            background.spawn(tcp.serve(media.clone(), most, per_address));
        }
        api.health.check_store(&store).await;
        health.set_started();
        let registry = place.registry;
        Ok(Running {
            settings,
            addresses,
            drain,
            registry,
            rooms,
            streams,
            media,
            mixer,
            recorder,
            recordings,
            store,
            tls,
            _data_dir: data_dir,
            stop,
            listeners,
            background,
        })
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Returns when a port is no longer served, which only a fault of ours brings about.
    async fn listener_ended(&mut self) {
        if let Some(Err(error)) = self.listeners.join_next().await {
            tracing::error!(%error, "a listener ended");
        }
    }

    /// Begins to drain: the node leaves the ring, takes no new sessions, and asks its clients to go elsewhere until the
    /// deadline.
    pub fn begin_drain(&self) {
        let deadline = Duration::from_secs(self.settings.server.drain_deadline_s.into());
        self.drain.begin(DrainMode::Handover, deadline, "the server is stopping");
    }

    /// Drains: tells clients to go and waits until they have, or until the deadline. Then stops everything, top down.
    pub async fn stop(mut self) {
        self.begin_drain();
        self.drain.ended().await;
        // Nobody may be left to hear it.
        let _ = self.stop.send(true);
        while self.listeners.join_next().await.is_some() {}
        self.streams.stop_making();
        store_listens(&self.store, &self.streams, self.settings.streaming.listens_kept_days, true).await;
        self.registry.unregister().await;
        self.background.shutdown().await;
        if let Some(mixer) = &self.mixer {
            mixer.stop().await;
        }
        self.media.stop().await;
        if let Some(recorder) = &self.recorder {
            recorder.stop().await;
            // What a bucket that is away does not take now is sent by the next process.
            let _ = tokio::time::timeout(PUT_AWAY_PATIENCE, self.recordings.put_away()).await;
        }
        // What was counted last is on its way from the media workers.
        self.rooms.until_told().await;
        self.rooms.store_statistics().await;
        self.store.close().await;
    }

    /// Tells people how to reach it.
    async fn announce(&self) {
        let Addresses { http, websocket, udp, metrics, .. } = self.addresses;
        let (http_scheme, ws) = (self.addresses.http_scheme(), self.addresses.websocket_scheme());
        let (http, websocket) = (Addresses::from_here(http), Addresses::from_here(websocket));
        let mut lines = vec![
            format!("Antiphon {} is running.", env!("CARGO_PKG_VERSION")),
            format!("  page and API   {http_scheme}://{http}/  (described at {http_scheme}://{http}/docs/)"),
            format!("  gateway        {ws}://{http}/ws and {ws}://{websocket}/"),
            format!("  voice          UDP {udp}"),
            format!("  data           {} ({})", self.settings.data_dir.display(), self.settings.shown_database_url()),
        ];
        let folder = self.settings.audio_dir();
        lines.push(match bucket(&self.settings) {
            Some(bucket) => format!("  audio files    bucket {} at {}", bucket.name, bucket.endpoint),
            None => format!("  audio files    {}", folder.display()),
        });
        if let Some(relay) = self.media.relay_addr() {
            lines.push(format!("  relay          UDP {relay}, for the other nodes"));
        }
        if let Some(metrics) = metrics {
            lines.push(format!("  metrics        http://{metrics}/metrics"));
        }
        if self.store.users_count().await.is_ok_and(|count| count == 0) {
            lines.push("The first account that registers will be its administrator.".to_owned());
        }
        let drain_s = self.settings.server.drain_deadline_s;
        lines.push(format!("Ctrl-C stops it once people have left, {drain_s} s at most; a second one at once."));
        say(&lines.join("\n"));
    }
}

/// Standard output is for people; the log goes to standard error. Nobody may be reading it, which is no reason to stop.
fn say(text: &str) {
    let _ = io::stdout().write_all(format!("{text}\n").as_bytes());
}

/// Opens the database; one that cannot be reached is waited for a while.
async fn open_store(settings: &Settings) -> Result<Store, StartError> {
    let url = settings.database_url();
    let patience = Duration::from_secs(settings.database.wait_at_start_s.into());
    let deadline = Instant::now() + patience;
    loop {
        match Store::open_with(&url, settings.database.max_connections).await {
            Ok(store) => return Ok(store),
            Err(StoreError::Unavailable(why)) if Instant::now() + STORE_RETRY < deadline => {
                tracing::warn!(
                    database = settings.shown_database_url(),
                    why,
                    "the database is not there yet; trying again"
                );
                tokio::time::sleep(STORE_RETRY).await;
            }
            Err(error) => return Err(StartError::Store { url: settings.shown_database_url(), error }),
        }
    }
}

/// The media workers, and what takes frames from them beside forwarding.
struct Voices {
    media: Media,
    mixer: Option<Mixer>,
    recorder: Option<Recorder>,
}

/// Takes the TCP ports. Where one is taken, all that are, also of UDP, are told at once, so that nobody mends one a start.
async fn bind(settings: &Settings, tls: Option<Tls>) -> Result<Listeners, StartError> {
    Listeners::bind(settings, tls).await.map_err(|mut refused| {
        refused.extend(refused_udp(&config::udp_addresses(settings)));
        StartError::Listen(refused)
    })
}

/// Why the media workers do not start: the ports that are taken, or where none is, whatever befell their sockets.
fn no_media(settings: &Settings, error: io::Error) -> StartError {
    let refused = refused_udp(&config::udp_addresses(settings));
    if refused.is_empty() { StartError::Media(error) } else { StartError::Listen(refused) }
}

/// The media workers, and beside them the mixing threads and the recorder where there are to be any.
fn start_media(settings: &Settings, local: &LocalState) -> Result<(Voices, mpsc::Receiver<Event>), StartError> {
    let inlets = (settings.mixer.threads > 0).then(|| MixInlets::new(settings.mixer.threads));
    let inlet = settings.recording.enabled.then(RecordInlet::new);
    let config = config::media(settings, inlets.clone(), inlet.clone());
    let (media, events) = Media::start(config).map_err(|error| no_media(settings, error))?;
    let start = |inlets| Mixer::start(config::mixer(settings), inlets, &media);
    let mixer = inlets.map(start).transpose().map_err(StartError::Mixer)?;
    let start = |inlet| Recorder::start(config::recorder(settings, local), inlet, &media);
    let recorder = inlet.map(start).transpose().map_err(StartError::Recorder)?;
    Ok((Voices { media, mixer, recorder }, events))
}

/// What goes on beside requests, until this is dropped.
fn in_background(api: &Arc<Api>, rooms: &Rooms, tls: Option<Tls>) -> JoinSet<()> {
    let (registry, media, gateway) = (&api.registry, &api.media, &api.gateway);
    let gatherer = Gatherer::new(media.clone(), gateway.clone(), rooms.clone(), Arc::clone(api.streams.listening()));
    let mut background = JoinSet::new();
    background.spawn(try_timers());
    background.spawn(upkeep(Arc::clone(api)));
    background.spawn(cluster::follow(registry.clone(), media.clone()));
    background.spawn(cluster::watch_relays(registry.clone(), media.clone()));
    background.spawn(cluster::report(Arc::clone(&api.vitals), gatherer));
    background.spawn(store_statistics(rooms.clone()));
    background.spawn(keep_guests(api.auth.clone(), gateway.clone()));
    background.spawn(sweep(api.store.clone(), rooms.clone(), api.chat.clone(), gateway.clone()));
    background.spawn(keep_rooms(rooms.clone(), api.settings.rooms.ttl_s));
    background.spawn(api.notify.clone().deliver());
    background.spawn(api.recordings.clone().keep());
    background.spawn(api.recordings.clone().put_away_ended());
    background.spawn(api.recordings.clone().make_mixes());
    background.spawn(keep_files(api.streams.clone()));
    background.spawn(watch_bucket(api.streams.clone()));
    background.spawn(share_made(api.streams.clone()));
    background.spawn(keep_listens(api.store.clone(), api.streams.clone(), api.settings.streaming.listens_kept_days));
    background.spawn(tell_of_listening(Arc::clone(api)));
    background.spawn(api.outbox.clone().route());
    background.spawn(api.outbox.clone().deliver());
    if let Some(tls) = tls {
        background.spawn(tls::keep_current(tls));
    }
    background
}

/// Takes the TCP port for browsers whose UDP is blocked. Unless one is set, a number that is taken is done without.
async fn bind_ice_tcp(settings: &Settings, udp: SocketAddr) -> Result<Option<IceTcp>, StartError> {
    if settings.limits.webrtc_peers == 0 || settings.rooms.tcp_port == Some(0) {
        return Ok(None);
    }
    let address = SocketAddr::new(udp.ip(), settings.rooms.tcp_port.unwrap_or(udp.port()));
    match IceTcp::bind(address) {
        Ok(tcp) => Ok(Some(tcp)),
        Err(error) if settings.rooms.tcp_port.is_none() => {
            tracing::warn!(%address, %error, "browsers whose UDP is blocked cannot come: set rooms.tcp_port to a free port");
            Ok(None)
        }
        Err(error) => Err(StartError::Listen(vec![Refused {
            protocol: Protocol::Tcp,
            address,
            settings: "rooms.tcp_port",
            error,
        }])),
    }
}

/// Goes on with what was being made of audio files when the last process ended; then closes those that nobody reads, for ever.
async fn keep_files(streams: Streams) {
    streams.resume().await;
    let mut ticks = ticks(FILES_LOOKED_AT);
    loop {
        ticks.tick().await;
        streams.close_unused().await;
    }
}

/// Sees whether the bucket of audio files answers, whether anybody needs it or not, for ever; at once where there is none.
async fn watch_bucket(streams: Streams) {
    let mut ticks = ticks(UPKEEP);
    while streams.bucket_answers().await.is_some() {
        let streaming = &metrics().streaming;
        streaming.bucket_copied_bytes.set(streams.copied_bytes() as f64);
        streaming.bucket_away.set(streams.bucket_away_for().unwrap_or_default().as_secs_f64());
        ticks.tick().await;
    }
}

/// Sends what is made of the files to the bucket, for ever; at once where there is none.
async fn share_made(streams: Streams) {
    streams.share_made().await;
}

/// Stores listening sessions that are over, and forgets those that were kept for long enough, for ever.
async fn keep_listens(store: Store, streams: Streams, kept_days: u32) {
    let mut swept = None::<Instant>;
    let mut ticks = ticks(UPKEEP);
    loop {
        ticks.tick().await;
        metrics().streaming.listeners.set(streams.listening().live() as f64);
        store_listens(&store, &streams, kept_days, false).await;
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            let before = OffsetDateTime::now_utc() - time::Duration::days(kept_days.into());
            match store.sweep_listens(before).await {
                Ok(more) => swept = (!more).then(Instant::now),
                Err(error) => tracing::warn!(%error, "old listening sessions were not forgotten"),
            }
        }
    }
}

/// Tells administrators who watch, here and at other nodes, who begins and ends to listen, for ever.
async fn tell_of_listening(api: Arc<Api>) {
    let mut ticks = ticks(TELL_OF_LISTENING);
    loop {
        ticks.tick().await;
        let (nodes, me) = (api.vitals.nodes(), api.registry.number());
        let elsewhere = nodes.iter().filter(|node| node.number != me && node.statistics.watches_listening);
        let watching: Vec<_> = elsewhere.map(|node| node.number).collect();
        let is_watched = !watching.is_empty() || api.gateway.is_watched();
        let news = api.streams.listening().news(std::time::Instant::now(), is_watched);
        if !is_watched {
            continue;
        }
        let figures = api.vitals.figures();
        let stats = ListeningStats {
            listeners: figures.listeners,
            channel_listeners: figures.channel_listeners,
            nodes: figures.nodes,
            missed: 0,
        };
        api.gateway.tell_of_listening(news, stats, &watching).await;
    }
}

async fn store_listens(store: &Store, streams: &Streams, kept_days: u32, all: bool) {
    let ended = streams.listening().take_ended(std::time::Instant::now(), all);
    if ended.is_empty() || kept_days == 0 {
        return;
    }
    match store.keep_listens(&ended).await {
        Ok(()) => metrics().streaming.listens.increment(ended.len() as u64),
        Err(error) => {
            tracing::warn!(%error, "listening sessions are not stored yet");
            streams.listening().give_back(ended);
        }
    }
}

/// Keeps rooms that somebody here is in from ending, for ever.
async fn keep_rooms(rooms: Rooms, ttl_s: u32) {
    let often = Duration::from_secs((ttl_s / 4).clamp(1, 60).into());
    let mut ticks = ticks(often);
    loop {
        ticks.tick().await;
        rooms.keep().await;
    }
}

/// Reads counters, sweeps limits, checks the database and evaluates the alerts, for ever.
async fn upkeep(api: Arc<Api>) {
    let mut ticks = ticks(UPKEEP);
    loop {
        ticks.tick().await;
        api.sampler.sample();
        metrics().streaming.cache_bytes.set(api.streams.cached_bytes() as f64);
        metrics().streaming.made_bytes.set(api.streams.made_bytes() as f64);
        api.gateway.show_unread();
        api.limits.sweep();
        api.directory.sweep();
        api.standalone.sweep();
        api.auth.sweep();
        api.health.check_store(&api.store).await;
        api.refresh_audio().await;
        api.vitals.observe(SystemTime::now());
    }
}

/// Adds what was counted here to the database's totals, for ever.
async fn store_statistics(rooms: Rooms) {
    let mut ticks = ticks(STATISTICS);
    loop {
        ticks.tick().await;
        rooms.store_statistics().await;
    }
}

/// Keeps guests who are here from being forgotten, for ever.
async fn keep_guests(auth: Auth, gateway: Gateway) {
    let mut ticks = ticks(auth.guests_kept_for().unsigned_abs() / 4);
    loop {
        ticks.tick().await;
        if let Err(error) = auth.keep_guests(&gateway.guests()).await {
            tracing::warn!(%error, "guests who are here were not kept");
        }
    }
}

/// Forgets what has run out, for ever.
async fn sweep(store: Store, rooms: Rooms, chat: Chat, gateway: Gateway) {
    let mut ticks = ticks(SWEEP);
    loop {
        ticks.tick().await;
        rooms.sweep().await;
        gateway.sweep();
        gateway.end_unusable_soon();
        chat.sweep().await;
        sweep_store(&store).await;
    }
}

/// Until nothing is left to be deleted; each step is bounded, and requests get their turn in between.
async fn sweep_store(store: &Store) {
    loop {
        match store.sweep(OffsetDateTime::now_utc()).await {
            Ok(swept) if swept.more => tokio::task::yield_now().await,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "the database was not swept");
                return;
            }
        }
    }
}
