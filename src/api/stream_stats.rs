//! `GET /admin/stats`: who listens to what, for administrators.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::sync::Arc;

use antiphon_core::ids::ChannelId;
use axum::{
    extract::{FromRequestParts, Query, State},
    http::request::Parts,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Admin, QueryOf},
};
use crate::store::{Listen, ListenTotals, rfc3339};

/// Days of which figures are told where none are named, and at most.
const DAYS: u32 = 30;
const DAYS_MAX: u32 = 400;

/// Files, live files and single sessions of one answer.
const ENTRIES_MAX: u32 = 50;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(stream_stats))
}

/// Which figures.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatsQuery {
    /// An administrator's access token, instead of the header.
    token: Option<String>,
    /// So many days back; 30 when absent.
    #[param(example = 30, minimum = 1, maximum = 400)]
    days: Option<u32>,
    /// A file whose last sessions are wanted, too.
    #[param(example = "subfolder/track3.mp3")]
    path: Option<String>,
}

/// An administrator by the token in the query, or in the header.
struct AdminByQuery;

impl FromRequestParts<Arc<Api>> for AdminByQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let QueryOf(StatsQuery { token, .. }) = QueryOf::from_request_parts(parts, api).await?;
        let Some(token) = token else {
            Admin::from_request_parts(parts, api).await?;
            return Ok(Self);
        };
        let identity = api.auth.authenticate(&token).await?;
        api.limits.check_account(identity.user.id)?;
        api.require_admin(&identity.user).await?;
        Ok(Self)
    }
}

/// What sessions come to.
#[derive(Serialize, ToSchema)]
struct TotalsView {
    /// Listening sessions: one listener's requests for one file, until `streaming.listen_idle_s` pass without any.
    #[schema(example = 120)]
    sessions: u64,
    /// Of these, in which at least nine tenths of the file were sent.
    #[schema(example = 80)]
    completed: u64,
    /// The same as a part of all, from 0 to 1.
    #[schema(example = 0.667)]
    completion_rate: f64,
    /// Networks that they came from, on each day anew: listeners, roughly.
    #[schema(example = 40)]
    networks: u64,
    /// Bytes sent.
    #[schema(example = 524_288_000)]
    sent_bytes: u64,
    /// From first requests to the ends of last answers, in seconds. Players fetch ahead: people listen for longer.
    #[schema(example = 18_000)]
    listened_s: u64,
}

impl From<ListenTotals> for TotalsView {
    fn from(totals: ListenTotals) -> Self {
        let rate = if totals.listens == 0 { 0.0 } else { totals.complete as f64 / totals.listens as f64 };
        Self {
            sessions: totals.listens.unsigned_abs(),
            completed: totals.complete.unsigned_abs(),
            completion_rate: (rate * 1_000.0).round() / 1_000.0,
            networks: totals.origins.unsigned_abs(),
            sent_bytes: totals.sent_bytes.unsigned_abs(),
            listened_s: totals.listened_us.unsigned_abs() / 1_000_000,
        }
    }
}

/// A file's sessions.
#[derive(Serialize, ToSchema)]
struct FileTotalsView {
    /// Its path.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// What they come to.
    #[serde(flatten)]
    totals: TotalsView,
}

/// A day's sessions.
#[derive(Serialize, ToSchema)]
struct DayTotalsView {
    /// When it began, RFC 3339 UTC.
    day: String,
    /// What they come to.
    #[serde(flatten)]
    totals: TotalsView,
}

/// Listeners now.
#[derive(Serialize, ToSchema)]
struct LiveView {
    /// Which file.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// How many listen to it on this node.
    #[schema(example = 3)]
    listeners: u64,
}

/// Listeners of a channel now.
#[derive(Serialize, ToSchema)]
struct LiveChannelView {
    /// Which channel.
    channel_id: ChannelId,
    /// How many listen to it through this node, by links.
    #[schema(example = 3)]
    listeners: u64,
}

/// One session.
#[derive(Serialize, ToSchema)]
struct SessionView {
    /// `original`, `low`, `medium` or `high`.
    #[schema(example = "medium")]
    quality: String,
    /// Its first request, RFC 3339 UTC.
    began_at: String,
    /// The end of its last answer.
    ended_at: String,
    /// Bytes sent, some of them perhaps again.
    #[schema(example = 5_242_880)]
    sent_bytes: u64,
    /// How much of the file was sent, from 0 to 1.
    #[schema(example = 0.93)]
    heard: f64,
    /// Which bytes of it: `FROM-UNTIL`, with commas between.
    #[schema(example = "0-131072,5000000-5242880")]
    ranges: String,
    /// A number that tells networks apart on one day, and is nobody's address.
    #[schema(example = "9f86d081884c7d65")]
    network: String,
}

impl From<Listen> for SessionView {
    fn from(listen: Listen) -> Self {
        Self {
            quality: listen.quality,
            began_at: rfc3339(listen.began),
            ended_at: rfc3339(listen.ended),
            sent_bytes: listen.bytes,
            heard: f64::from(listen.heard_permille) / 1_000.0,
            ranges: listen.ranges,
            network: listen.origin,
        }
    }
}

/// Listeners now, through all nodes.
#[derive(Serialize, ToSchema)]
struct EverywhereView {
    /// The nodes.
    #[schema(example = 3)]
    nodes: u32,
    /// Listeners of files; who listens through two nodes counts twice.
    #[schema(example = 19)]
    listeners: u64,
    /// Listeners of channels, by links.
    #[schema(example = 30)]
    channel_listeners: u64,
}

/// Figures of listeners.
#[derive(Serialize, ToSchema)]
struct StatsView {
    /// Listeners on this node now: who is being sent something, or was within `streaming.listen_idle_s`.
    #[schema(example = 7)]
    live_listeners: u64,
    /// What they listen to, the most first; at most 50.
    live: Vec<LiveView>,
    /// Listeners of channels through this node now.
    #[schema(example = 12)]
    live_channel_listeners: u64,
    /// The channels that they listen to, the most first; at most 50.
    live_channels: Vec<LiveChannelView>,
    /// Of all nodes, as of the last second or two.
    everywhere: EverywhereView,
    /// So many days back the rest goes.
    #[schema(example = 30)]
    days: u32,
    /// Of all nodes, sessions that are over.
    totals: TotalsView,
    /// The files listened to most; at most 50.
    files: Vec<FileTotalsView>,
    /// Each day that had any, the last first.
    by_day: Vec<DayTotalsView>,
    /// The last sessions of the file that was asked for; at most 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Vec<SessionView>>,
}

/// Who listens to what: now, and over some days.
#[utoipa::path(get, path = "/admin/stats", tag = "streams", params(StatsQuery),
    responses((status = OK, description = "The figures", body = Answer<StatsView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: for administrators only", body = ErrorBody)))]
async fn stream_stats(
    State(api): State<Arc<Api>>,
    _admin: AdminByQuery,
    Query(query): Query<StatsQuery>,
) -> ApiResult<Answer<StatsView>> {
    let days = query.days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(ApiError::invalid(format!("days must be from 1 to {DAYS_MAX}, not {days}")));
    }
    let since = OffsetDateTime::now_utc() - Duration::days(days.into());
    let live = api.streams.listening().live_by_path().into_iter().take(50);
    let channels = api.directory.overheard();
    let everywhere = api.vitals.figures();
    let files = api.store.listens_by_path(since, ENTRIES_MAX).await?.into_iter();
    let by_day = api.store.listens_by_day(since, DAYS_MAX + 1).await?.into_iter();
    let sessions = match &query.path {
        None => None,
        Some(path) => Some(api.store.listens_of(path, ENTRIES_MAX).await?.into_iter().map(SessionView::from).collect()),
    };
    Ok(Answer::of(StatsView {
        live_listeners: api.streams.listening().live() as u64,
        live: live.map(|(path, count)| LiveView { path, listeners: count as u64 }).collect(),
        live_channel_listeners: channels.iter().map(|(_, count)| *count as u64).sum(),
        live_channels: channels
            .iter()
            .take(50)
            .map(|(channel, count)| LiveChannelView { channel_id: *channel, listeners: *count as u64 })
            .collect(),
        everywhere: EverywhereView {
            nodes: everywhere.nodes,
            listeners: everywhere.listeners,
            channel_listeners: everywhere.channel_listeners,
        },
        days,
        totals: api.store.listen_totals(since).await?.into(),
        files: files.map(|(path, totals)| FileTotalsView { path, totals: totals.into() }).collect(),
        by_day: by_day.map(|(day, totals)| DayTotalsView { day: rfc3339(day), totals: totals.into() }).collect(),
        sessions,
    }))
}
