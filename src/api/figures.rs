//! The metrics API: the cluster now, its history, its alerts and its health, in JSON.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_core::{gateway::ErrorCode, ids::NodeId};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Caller, PathOf, QueryOf},
};
use crate::{
    alerts::{Component, FiringAlert, Severity},
    store::rfc3339,
    vitals::{ClusterFigures, HISTORY_EVERY, Point, health_score},
};

/// Points of an answer when the request does not say.
const POINTS_DEFAULT: u32 = 100;
/// The most points of an answer.
const POINTS_MAX: u32 = 2_000;
/// How far back the request looks when it does not say, in seconds.
const PERIOD_DEFAULT_S: u32 = 3_600;
/// What is kept, in seconds.
const PERIOD_MAX_S: u32 = 86_400;
/// Alerts of an answer when the request does not say, and at most.
const ALERTS_DEFAULT: u32 = 100;
const ALERTS_MAX: u32 = 1_000;
/// Below this score the cluster is degraded; below the next it is critical.
const SCORE_DEGRADED: f64 = 0.95;
const SCORE_CRITICAL: f64 = 0.75;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(current))
        .routes(routes!(history))
        .routes(routes!(health))
        .routes(routes!(alerts))
        .routes(routes!(summary))
        .routes(routes!(component))
}

/// The cluster at one moment.
#[derive(Serialize, ToSchema)]
struct MetricsView {
    /// When, Unix seconds.
    #[schema(example = 1_234_567_890)]
    timestamp: u64,
    /// Voice.
    audio_metrics: AudioMetrics,
    /// What it costs.
    performance_metrics: PerformanceMetrics,
    /// What comes and goes.
    network_metrics: NetworkMetrics,
    /// Taken together.
    system_health: SystemHealth,
}

/// Voice, over all nodes.
#[derive(Serialize, ToSchema)]
struct AudioMetrics {
    /// Channels with somebody in voice.
    #[schema(example = 3)]
    active_channels: u32,
    /// People in voice; who is so through two nodes counts twice.
    #[schema(example = 15)]
    active_users: u32,
    /// The round trip that listeners report, which is also the network's delay from mouth to ear: the median of each
    /// stream's listeners, the mean over streams. Null before the first report.
    #[schema(example = 45.0)]
    average_latency_ms: Option<f64>,
    /// Frames lost between speakers and listeners; null before the first frame.
    #[schema(example = 0.5)]
    packet_loss_percentage: Option<f64>,
    /// 0 to 1: the E-model's rating (ITU-T G.107) of delay, jitter and loss as a share of the best possible; null until
    /// those are known.
    #[schema(example = 0.95)]
    audio_quality_score: Option<f64>,
}

/// What it costs, over all nodes.
#[derive(Serialize, ToSchema)]
struct PerformanceMetrics {
    /// Share of its processors that a node uses, the mean over nodes.
    #[schema(example = 25.0)]
    cpu_usage_percent: f64,
    /// Resident memory of all nodes, in MiB.
    #[schema(example = 512)]
    memory_usage_mb: u64,
    /// Share of the media workers' time that is used, in percent.
    #[schema(example = 60.0)]
    thread_pool_utilization: f64,
}

/// What comes and goes, over all nodes.
#[derive(Serialize, ToSchema)]
struct NetworkMetrics {
    /// Frames taken from speakers.
    #[schema(example = 1_000)]
    packets_received_per_second: u64,
    /// Frames delivered to listeners over UDP.
    #[schema(example = 950)]
    packets_sent_per_second: u64,
    /// Gateway connections.
    #[schema(example = 15)]
    connection_count: u32,
}

/// All taken together.
#[derive(Serialize, ToSchema)]
struct SystemHealth {
    /// 0 to 1: 1 less 0.25 for each critical alert that fires anywhere, 0.15 for each error, 0.05 for each warning.
    #[schema(example = 0.95)]
    overall_health_score: f64,
    /// How long the node runs that has run longest.
    #[schema(example = 3_600)]
    uptime_seconds: u64,
}

impl MetricsView {
    fn of(at: SystemTime, figures: &ClusterFigures, health_score: f64) -> Self {
        Self {
            timestamp: unix_s(at),
            audio_metrics: AudioMetrics::of(figures),
            performance_metrics: PerformanceMetrics::of(figures),
            network_metrics: NetworkMetrics::of(figures),
            system_health: SystemHealth { overall_health_score: health_score, uptime_seconds: figures.uptime_s },
        }
    }

    fn of_point(point: &Point) -> Self {
        Self::of(point.at, &point.figures, point.health_score)
    }
}

impl AudioMetrics {
    fn of(figures: &ClusterFigures) -> Self {
        Self {
            active_channels: figures.channels,
            active_users: figures.people,
            average_latency_ms: figures.voice.mean_round_trip_ms(),
            packet_loss_percentage: figures.voice.loss().map(|loss| loss * 100.0),
            audio_quality_score: figures.voice.score(),
        }
    }
}

impl PerformanceMetrics {
    fn of(figures: &ClusterFigures) -> Self {
        Self {
            cpu_usage_percent: figures.cpu_percent,
            memory_usage_mb: figures.memory_bytes >> 20,
            thread_pool_utilization: figures.busy_percent,
        }
    }
}

impl NetworkMetrics {
    fn of(figures: &ClusterFigures) -> Self {
        Self {
            packets_received_per_second: figures.packets_in_per_s.round() as u64,
            packets_sent_per_second: figures.packets_out_per_s.round() as u64,
            connection_count: figures.connections,
        }
    }
}

fn unix_s(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The cluster now.
#[utoipa::path(get, path = "/api/metrics/current", operation_id = "current_metrics", tag = "metrics",
    responses((status = OK, description = "The figures", body = Answer<MetricsView>)))]
async fn current(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> Answer<MetricsView> {
    let score = health_score(&api.vitals.alerts());
    Answer::of(MetricsView::of(SystemTime::now(), &api.vitals.figures(), score))
}

/// How far back, and how closely.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Points at most, 1 to 2,000; 100 when absent. Where there are more, so many of them, evenly spread, the newest
    /// always among them: points as they were taken, not means.
    #[param(example = 100, minimum = 1, maximum = 2_000)]
    limit: Option<u32>,
    /// Seconds to look back, 1 to 86,400; 3,600 when absent.
    #[param(example = 3_600, minimum = 1, maximum = 86_400)]
    period: Option<u32>,
}

/// The cluster over time, as the node saw it that answers.
#[derive(Serialize, ToSchema)]
struct HistoryView {
    /// The node.
    node: NodeId,
    /// Since when it keeps points, RFC 3339 UTC: since it started, for 24 hours at most.
    since: String,
    /// How often it takes one.
    #[schema(example = 5)]
    interval_seconds: u64,
    /// Oldest first.
    points: Vec<MetricsView>,
}

/// The cluster over time: a point every five seconds, kept for 24 hours in the memory of the node that answers.
#[utoipa::path(get, path = "/api/metrics/history", operation_id = "metrics_history", tag = "metrics",
    params(HistoryQuery),
    responses((status = OK, description = "The points", body = Answer<HistoryView>)))]
async fn history(
    State(api): State<Arc<Api>>,
    Caller(_caller): Caller,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> ApiResult<Answer<HistoryView>> {
    let limit = in_range("limit", query.limit.unwrap_or(POINTS_DEFAULT), POINTS_MAX)?;
    let period_s = in_range("period", query.period.unwrap_or(PERIOD_DEFAULT_S), PERIOD_MAX_S)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (since, points) = api.vitals.history(SystemTime::now(), period_s.into(), limit);
    Ok(Answer::of(HistoryView {
        node: api.node_id(),
        since: rfc3339(since.into()),
        interval_seconds: HISTORY_EVERY.as_secs(),
        points: points.iter().map(MetricsView::of_point).collect(),
    }))
}

fn in_range(what: &str, value: u32, most: u32) -> ApiResult<u32> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(ApiError::invalid(format!("{what} must be from 1 to {most}, not {value}"))),
    }
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AlertsQuery {
    /// At least so bad: `info`, `warning`, `error` or `critical`.
    #[param(example = "warning")]
    severity: Option<String>,
    /// `audio`, `network`, `performance`, `signalling` or `nodes`.
    #[param(example = "audio")]
    component: Option<String>,
    /// At most so many, 1 to 1,000; 100 when absent.
    #[param(example = 100, minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
}

impl AlertsQuery {
    fn takes(&self) -> ApiResult<impl Fn(&FiringAlert) -> bool + use<>> {
        let least = match &self.severity {
            None => Severity::Info,
            Some(text) => Severity::parse(text)
                .ok_or_else(|| ApiError::invalid("severity must be info, warning, error or critical"))?,
        };
        let component = match &self.component {
            None => None,
            Some(text) => Some(Component::parse(text).ok_or_else(|| {
                ApiError::invalid("component must be audio, network, performance, signalling or nodes")
            })?),
        };
        Ok(move |alert: &FiringAlert| {
            alert.severity >= least && component.is_none_or(|wanted| alert.component == wanted)
        })
    }
}

/// An alert that fires.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct AlertView {
    /// The rule's name, as in `deploy/prometheus/rules`.
    #[schema(example = "AntiphonRedisUnavailable")]
    name: String,
    /// `info`, `warning`, `error` or `critical`.
    #[schema(example = "critical")]
    severity: &'static str,
    /// `audio`, `network`, `performance`, `signalling` or `nodes`.
    #[schema(example = "network")]
    component: &'static str,
    /// The node that it is about; null for one about the cluster.
    node: Option<String>,
    /// In a sentence.
    message: String,
    /// What it means.
    description: String,
    /// What tells it from others of the rule.
    labels: std::collections::BTreeMap<String, String>,
    /// The value of the rule's expression; null where that is no number.
    value: Option<f64>,
    /// Since when its expression holds, RFC 3339 UTC.
    since: String,
    /// The same in Unix seconds.
    timestamp: u64,
    /// Where to read what to do.
    runbook_url: String,
}

impl From<FiringAlert> for AlertView {
    fn from(alert: FiringAlert) -> Self {
        Self {
            name: alert.name,
            severity: alert.severity.as_str(),
            component: alert.component.as_str(),
            node: alert.labels.get("instance").cloned(),
            message: alert.summary,
            description: alert.description,
            labels: alert.labels,
            value: alert.value.is_finite().then_some(alert.value),
            since: rfc3339(alert.since.into()),
            timestamp: unix_s(alert.since),
            runbook_url: alert.runbook_url,
        }
    }
}

/// The alerts that fire, on any node, the most severe first: by the same rules as Prometheus', evaluated by each node over
/// its own metrics every five seconds.
#[utoipa::path(get, path = "/api/metrics/alerts", operation_id = "list_alerts", tag = "metrics", params(AlertsQuery),
    responses((status = OK, description = "The alerts", body = Answer<Vec<AlertView>>)))]
async fn alerts(
    State(api): State<Arc<Api>>,
    Caller(_caller): Caller,
    QueryOf(query): QueryOf<AlertsQuery>,
) -> ApiResult<Answer<Vec<AlertView>>> {
    let limit = in_range("limit", query.limit.unwrap_or(ALERTS_DEFAULT), ALERTS_MAX)?;
    let takes = query.takes()?;
    let wanted = api.vitals.alerts().into_iter().filter(|alert| takes(alert));
    Ok(Answer::of(wanted.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(AlertView::from).collect()))
}

/// How the cluster is, part by part.
#[derive(Serialize, ToSchema)]
struct HealthReport {
    /// `healthy` from a score of 0.95, `degraded` from 0.75, else `critical`; at most `degraded` while what the nodes share
    /// cannot be reached.
    #[schema(example = "healthy")]
    status: &'static str,
    /// 0 to 1, as in `GET /api/metrics/current`.
    overall_health_score: f64,
    /// When, Unix seconds.
    timestamp: u64,
    /// How long the node runs that has run longest.
    uptime_seconds: u64,
    /// The parts, each with its share of the alerts.
    components: Vec<ComponentHealth>,
    /// The live nodes.
    nodes: Vec<NodeHealth>,
}

/// A part of the server.
#[derive(Serialize, ToSchema)]
struct ComponentHealth {
    /// `audio`, `network`, `performance`, `signalling` or `nodes`.
    component: &'static str,
    /// As of the whole, by this part's alerts.
    status: &'static str,
    /// Likewise.
    health_score: f64,
    /// How many alerts fire.
    alerts: usize,
}

/// A node.
#[derive(Serialize, ToSchema)]
struct NodeHealth {
    /// Its name.
    node: NodeId,
    /// `serving` or `draining`.
    state: &'static str,
    /// The release that it runs.
    release: String,
    /// How long it runs.
    uptime_seconds: u64,
    /// Share of its processors that it uses.
    cpu_usage_percent: f64,
    /// Its resident memory in MiB.
    memory_usage_mb: u64,
    /// Share of its media workers' time that is used, in percent.
    thread_pool_utilization: f64,
    /// Its gateway connections.
    connection_count: u32,
    /// People in voice through it.
    active_users: u32,
    /// Its alerts that fire.
    alerts: usize,
}

fn status_of(score: f64) -> &'static str {
    match score {
        score if score >= SCORE_DEGRADED => "healthy",
        score if score >= SCORE_CRITICAL => "degraded",
        _ => "critical",
    }
}

/// How the cluster is, part by part and node by node.
#[utoipa::path(get, path = "/api/metrics/health", operation_id = "metrics_health", tag = "metrics",
    responses((status = OK, description = "The report", body = Answer<HealthReport>)))]
async fn health(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> Answer<HealthReport> {
    let (alerts, nodes) = (api.vitals.alerts(), api.vitals.nodes());
    let score = health_score(&alerts);
    let status = match status_of(score) {
        "healthy" if !api.vitals.is_shared_reachable() => "degraded",
        status => status,
    };
    let of = |component: Component| {
        let its: Vec<FiringAlert> = alerts.iter().filter(|alert| alert.component == component).cloned().collect();
        let health_score = health_score(&its);
        ComponentHealth {
            component: component.as_str(),
            status: status_of(health_score),
            health_score,
            alerts: its.len(),
        }
    };
    let node_view = |node: &crate::cluster::NodeRecord| NodeHealth {
        node: node.node_id.clone(),
        state: node.state.as_str(),
        release: node.release.clone(),
        uptime_seconds: node.statistics.uptime_s,
        cpu_usage_percent: node.statistics.cpu_percent.into(),
        memory_usage_mb: node.statistics.memory_bytes >> 20,
        thread_pool_utilization: f64::from(node.load.busy) * 100.0,
        connection_count: node.statistics.connections,
        active_users: node.statistics.people,
        alerts: alerts.iter().filter(|alert| alert.labels.get("instance") == Some(&node.node_id.0)).count(),
    };
    Answer::of(HealthReport {
        status,
        overall_health_score: score,
        timestamp: unix_s(SystemTime::now()),
        uptime_seconds: ClusterFigures::of(&nodes).uptime_s,
        components: Component::ALL.into_iter().map(of).collect(),
        nodes: nodes.iter().map(node_view).collect(),
    })
}

/// The figures that matter most.
#[derive(Serialize, ToSchema)]
struct Summary {
    /// As in the health report.
    #[schema(example = "healthy")]
    status: &'static str,
    /// As in `GET /api/metrics/current`, like all that follows.
    overall_health_score: f64,
    /// Live nodes.
    nodes: u32,
    /// Channels with somebody in voice.
    active_channels: u32,
    /// People in voice.
    active_users: u32,
    /// Gateway connections.
    connection_count: u32,
    /// 0 to 1; null until it is known.
    audio_quality_score: Option<f64>,
    /// The mean over nodes.
    cpu_usage_percent: f64,
    /// Alerts that fire.
    active_alerts: usize,
    /// Of those, critical ones.
    critical_alerts: usize,
    /// How long the node runs that has run longest.
    uptime_seconds: u64,
}

/// The figures that matter most.
#[utoipa::path(get, path = "/api/metrics/summary", operation_id = "metrics_summary", tag = "metrics",
    responses((status = OK, description = "The figures", body = Answer<Summary>)))]
async fn summary(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> Answer<Summary> {
    let (alerts, figures) = (api.vitals.alerts(), api.vitals.figures());
    let score = health_score(&alerts);
    Answer::of(Summary {
        status: status_of(score),
        overall_health_score: score,
        nodes: figures.nodes,
        active_channels: figures.channels,
        active_users: figures.people,
        connection_count: figures.connections,
        audio_quality_score: figures.voice.score(),
        cpu_usage_percent: figures.cpu_percent,
        active_alerts: alerts.len(),
        critical_alerts: alerts.iter().filter(|alert| alert.severity == Severity::Critical).count(),
        uptime_seconds: figures.uptime_s,
    })
}

/// One part of `GET /api/metrics/current`, with its alerts.
#[derive(Serialize, ToSchema)]
struct ComponentMetrics {
    /// `audio`, `performance` or `network`.
    #[schema(example = "audio")]
    component: &'static str,
    /// When, Unix seconds.
    timestamp: u64,
    /// That part's figures.
    metrics: PartMetrics,
    /// That part's alerts that fire.
    alerts: Vec<AlertView>,
}

/// A part's figures.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum PartMetrics {
    Audio(AudioMetrics),
    Performance(PerformanceMetrics),
    Network(NetworkMetrics),
}

/// One part of the current figures: `audio`, `performance` or `network`.
#[utoipa::path(get, path = "/api/metrics/component/{component}", operation_id = "component_metrics", tag = "metrics",
    params(("component" = String, Path, description = "`audio`, `performance` or `network`")),
    responses((status = OK, description = "The figures", body = Answer<ComponentMetrics>),
        (status = NOT_FOUND, description = "`NOT_FOUND`: no such part", body = ErrorBody)))]
async fn component(
    State(api): State<Arc<Api>>,
    Caller(_caller): Caller,
    PathOf(name): PathOf<String>,
) -> ApiResult<Answer<ComponentMetrics>> {
    let figures = api.vitals.figures();
    let (component, metrics) = match Component::parse(&name) {
        Some(part @ Component::Audio) => (part, PartMetrics::Audio(AudioMetrics::of(&figures))),
        Some(part @ Component::Performance) => (part, PartMetrics::Performance(PerformanceMetrics::of(&figures))),
        Some(part @ Component::Network) => (part, PartMetrics::Network(NetworkMetrics::of(&figures))),
        _ => {
            let message = format!("there is no component {name:?}: audio, performance and network");
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
    };
    let alerts = api.vitals.alerts().into_iter().filter(|alert| alert.component == component);
    Ok(Answer::of(ComponentMetrics {
        component: component.as_str(),
        timestamp: unix_s(SystemTime::now()),
        metrics,
        alerts: alerts.map(AlertView::from).collect(),
    }))
}
