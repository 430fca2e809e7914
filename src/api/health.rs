//! Whether the server works: for load balancers, orchestrators and people.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    engine::{Counter, EngineStats, Family},
    gateway::ErrorCode,
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiResult, ErrorBody},
};
use crate::{
    cluster::{ClusterView, NodeState, SharedState},
    error::AppError,
    media::Media,
    store::Store,
    streaming::Streams,
    telemetry::{metrics::metrics, process::ProcessReading},
};

/// Where the server is in its life, and how its database is.
#[derive(Debug)]
pub struct Health {
    started_at: Instant,
    started: AtomicBool,
    draining: AtomicBool,
    last_check: tokio::sync::Mutex<Option<StoreCheck>>,
}

/// How long the database may take to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A check's result is good for this long, so that asking often costs the database nothing.
const CHECK_TTL: Duration = Duration::from_secs(1);

/// Where the figures are.
pub(super) const DETAILED_PATH: &str = "/health/detailed";

/// A load balancer that is turned away may ask again soon.
const RETRY_AFTER_S: u64 = 1;

#[derive(Clone, Copy, Debug)]
struct StoreCheck {
    at: Instant,
    /// How long the answer took; `None` when there was none.
    took: Option<Duration>,
}

impl Health {
    /// Of a server that starts now.
    #[must_use]
    pub fn starting() -> Self {
        Self {
            started_at: Instant::now(),
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            last_check: tokio::sync::Mutex::new(None),
        }
    }

    /// Everything runs.
    pub fn set_started(&self) {
        self.started.store(true, Relaxed);
        metrics().process.ready.set(f64::from(u8::from(self.is_ready())));
    }

    /// The server wants no new sessions from now on, or wants them again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Relaxed);
        metrics().process.draining.set(f64::from(u8::from(draining)));
        metrics().process.ready.set(f64::from(u8::from(self.is_ready())));
    }

    /// Whether new sessions are welcome. A database that is away does not change that: voice goes on without it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.started.load(Relaxed) && !self.draining.load(Relaxed)
    }

    /// Whether the server is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// How long the server has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// How long the database takes to answer; `None` when it does not.
    pub async fn check_store(&self, store: &Store) -> Option<Duration> {
        let mut last = self.last_check.lock().await;
        if let Some(check) = *last
            && check.at.elapsed() < CHECK_TTL
        {
            return check.took;
        }
        let begun = Instant::now();
        let answered = matches!(tokio::time::timeout(CHECK_TIMEOUT, store.ping()).await, Ok(Ok(())));
        let took = answered.then(|| begun.elapsed());
        let was_away = last.is_some_and(|check| check.took.is_none());
        match (answered, was_away) {
            (false, false) => tracing::warn!("the database does not answer"),
            (true, true) => tracing::info!("the database answers again"),
            (true, false) | (false, true) => {}
        }
        *last = Some(StoreCheck { at: Instant::now(), took });
        let store = &metrics().store;
        store.up.set(f64::from(u8::from(answered)));
        if let Some(took) = took {
            store.ping_duration.record(took.as_secs_f64());
        }
        took
    }
}

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready)).routes(routes!(detailed))
}

/// Answers `OK`.
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = OK, description = "`OK`", body = String, content_type = "text/plain")))]
async fn health() -> &'static str {
    "OK"
}

/// A state in a word.
#[derive(Serialize, ToSchema)]
struct HealthState {
    /// The word.
    #[schema(example = "live")]
    status: &'static str,
}

/// Whether the process works: every media worker runs. Depends on nothing outside it.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()),
    responses((status = OK, description = "It does", body = Answer<HealthState>),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: it must be started anew", body = ErrorBody)))]
async fn live(State(api): State<Arc<Api>>) -> ApiResult<Answer<HealthState>> {
    if MediaHealth::of(&api.media).status == OK {
        return Ok(Answer::of(HealthState { status: "live" }));
    }
    let why = "a media worker has ended: the server must be started anew";
    Err(AppError::retry(ErrorCode::TemporarilyUnavailable, why, RETRY_AFTER_S).into())
}

/// Whether new sessions are welcome: not before everything has started, and not while the server drains.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses((status = OK, description = "They are", body = Answer<HealthState>),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: they are not", body = ErrorBody)))]
async fn ready(State(api): State<Arc<Api>>) -> ApiResult<Answer<HealthState>> {
    if api.health.is_ready() {
        return Ok(Answer::of(HealthState { status: "ready" }));
    }
    let why = if api.health.is_draining() { "the server is draining" } else { "the server is starting" };
    Err(AppError::retry(ErrorCode::TemporarilyUnavailable, why, RETRY_AFTER_S).into())
}

/// The server in figures.
#[derive(Serialize, ToSchema)]
struct Detailed {
    /// `ok`; `degraded` when a check fails; `starting`; `draining`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The release.
    version: &'static str,
    /// Since the start.
    uptime_s: u64,
    /// Each part that can fail by itself.
    checks: Checks,
    /// What goes on now.
    activity: Activity,
    /// The process; null where the system does not tell.
    process: Option<ProcessReading>,
}

/// Parts that can fail by themselves.
#[derive(Serialize, ToSchema)]
struct Checks {
    /// The database.
    store: StoreHealth,
    /// The media workers.
    media: MediaHealth,
    /// What the nodes of the cluster share.
    cluster: ClusterHealth,
    /// The store of audio files; null where they are in a folder.
    bucket: Option<BucketHealth>,
}

/// The store of audio files. While it is away only what was played lately plays, and nothing can be uploaded.
#[derive(Serialize, ToSchema)]
struct BucketHealth {
    /// `ok`; `unavailable` while it is not reached, or refuses.
    status: &'static str,
    /// For how long; null while it is reached.
    away_ms: Option<u64>,
}

/// What the nodes of the cluster share.
#[derive(Serialize, ToSchema)]
struct ClusterHealth {
    /// `ok`; `unavailable` while what they share is not reached; `incompatible` when no voice passes between this node and
    /// another, since their releases are too far apart.
    status: &'static str,
    /// Live nodes, this one included.
    nodes: usize,
    /// Those of them that take on work.
    nodes_serving: usize,
    /// Those of them whose release is too far from this one's.
    nodes_incompatible: usize,
    /// For how long what they share has not been reached; null while it is.
    away_ms: Option<u64>,
}

/// The database.
#[derive(Serialize, ToSchema)]
struct StoreHealth {
    /// `ok`, or `unavailable`.
    status: &'static str,
    /// How long it took to answer; null when it did not.
    latency_ms: Option<f64>,
}

/// The media workers.
#[derive(Serialize, ToSchema)]
struct MediaHealth {
    /// `ok`, or `failed` when a worker has ended.
    status: &'static str,
    /// How many there should be.
    workers: u16,
    /// How many run.
    workers_running: u16,
}

/// What goes on now, and what went on since the start.
#[derive(Serialize, ToSchema)]
struct Activity {
    /// Channels with somebody in voice.
    channels: u64,
    /// Members of those channels.
    members: u64,
    /// UDP sessions.
    udp_sessions: u64,
    /// Of those, how many get their audio by UDP; the others get it over the gateway.
    udp_sessions_proven: u64,
    /// Frames taken from speakers.
    frames_received: u64,
    /// Frames delivered to listeners over UDP.
    frames_delivered: u64,
    /// Frames lost on the way to the node.
    frames_lost: u64,
    /// Datagrams dropped on arrival, such as forged or replayed ones.
    datagrams_dropped: u64,
}

/// Each part that can fail by itself, what goes on, and what it costs.
#[utoipa::path(get, path = "/health/detailed", tag = "health", security(()),
    responses((status = OK, description = "The figures", body = Answer<Detailed>)))]
async fn detailed(State(api): State<Arc<Api>>) -> Answer<Detailed> {
    let bucket = BucketHealth::of(&api.streams).await;
    let checks = Checks {
        store: StoreHealth::of(api.health.check_store(&api.store).await),
        media: MediaHealth::of(&api.media),
        cluster: ClusterHealth::of(&api.registry.view().borrow()),
        bucket,
    };
    let bucket = checks.bucket.as_ref().map_or(OK, |bucket| bucket.status);
    let parts = [checks.store.status, checks.media.status, checks.cluster.status, bucket];
    let all_well = parts.iter().all(|status| *status == OK);
    let status = match (api.health.is_draining(), api.health.is_ready()) {
        (true, _) => "draining",
        (false, false) => "starting",
        (false, true) if all_well => OK,
        (false, true) => "degraded",
    };
    Answer::of(Detailed {
        status,
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: api.health.uptime().as_secs(),
        checks,
        activity: Activity::of(&api.media.counters().engine),
        process: ProcessReading::take(),
    })
}

/// The word for what works.
const OK: &str = "ok";

impl StoreHealth {
    fn of(took: Option<Duration>) -> Self {
        Self {
            status: if took.is_some() { OK } else { "unavailable" },
            latency_ms: took.map(|took| took.as_secs_f64() * 1_000.0),
        }
    }
}

impl BucketHealth {
    async fn of(streams: &Streams) -> Option<Self> {
        let answers = streams.bucket_answers().await?;
        let away = (!answers).then(|| streams.bucket_away_for().unwrap_or_default());
        Some(Self {
            status: if away.is_some() { "unavailable" } else { OK },
            away_ms: away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

impl ClusterHealth {
    fn of(view: &ClusterView) -> Self {
        let away = match view.shared {
            SharedState::Away { since } => Some(since.elapsed()),
            SharedState::Alone | SharedState::Up => None,
        };
        let nodes_incompatible = view.incompatible().count();
        let status = match (away, nodes_incompatible) {
            (Some(_), _) => "unavailable",
            (None, 0) => OK,
            (None, _) => "incompatible",
        };
        Self {
            status,
            nodes: view.nodes.len(),
            nodes_incompatible,
            nodes_serving: view.nodes.iter().filter(|node| node.state == NodeState::Serving).count(),
            away_ms: away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl MediaHealth {
    fn of(media: &Media) -> Self {
        let (workers, workers_running) = (media.workers(), media.workers_running());
        Self { status: if workers == workers_running { OK } else { "failed" }, workers, workers_running }
    }
}

impl Activity {
    fn of(stats: &EngineStats) -> Self {
        Self {
            channels: stats[Counter::ChannelsOpen],
            members: stats[Counter::MembersPresent],
            udp_sessions: stats[Counter::SessionsOpen],
            udp_sessions_proven: stats[Counter::SessionsProven],
            frames_received: stats[Counter::FramesAccepted],
            frames_delivered: stats[Counter::FramesSent],
            frames_lost: stats[Counter::FramesLost],
            datagrams_dropped: stats.total(Family::DatagramsDropped),
        }
    }
}
