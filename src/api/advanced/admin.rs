//! What administrators do: look at every part, clean up, begin anew, and read who did what.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::{sync::Arc, time::Instant};

use antiphon_core::{
    gateway::ErrorCode,
    ids::{NodeId, UserId},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        Api,
        answer::Answer,
        error::{ApiError, ApiResult, ErrorBody},
        extract::{Admin, QueryOf},
        paging::{PageQuery, Paged},
        peers::{ask_all, other_nodes},
    },
    audit,
    probes::{self, Probe, Verdict},
};
use crate::{
    cluster::SharedState,
    store::{Audit, Store, Swept, rfc3339},
};

/// Batches that one cleaning deletes at most; the rest goes with the next, or by itself.
const BATCHES_MAX: u32 = 200;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(health_check))
        .routes(routes!(cleanup))
        .routes(routes!(reset))
        .routes(routes!(reset_node))
        .routes(routes!(log))
}

/// Every part of a node, as it was found just now.
#[derive(Serialize, ToSchema)]
struct HealthCheck {
    /// The worst of the parts.
    status: Verdict,
    /// The node that looked.
    node: NodeId,
    /// Its release.
    version: &'static str,
    /// How long it runs.
    uptime_seconds: u64,
    /// When it looked, Unix seconds.
    timestamp: i64,
    /// How long that took.
    took_ms: f64,
    /// The parts.
    checks: Vec<Probe>,
}

/// Tries every part that the node needs, now: the database, Redis, media workers, the relay, other nodes, the disk of the
/// data folder, the clock.
#[utoipa::path(get, path = "/api/advanced/admin/health-check", operation_id = "admin_health_check", tag = "admin",
    responses((status = OK, description = "What was found", body = Answer<HealthCheck>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody)))]
async fn health_check(State(api): State<Arc<Api>>, Admin(_caller): Admin) -> Answer<HealthCheck> {
    let begun = Instant::now();
    let checks = probes::all(&api).await;
    Answer::of(HealthCheck {
        status: checks.iter().map(|probe| probe.status).max().unwrap_or(Verdict::Ok),
        node: api.node_id(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: api.health.uptime().as_secs(),
        timestamp: OffsetDateTime::now_utc().unix_timestamp(),
        took_ms: begun.elapsed().as_secs_f64() * 1e3,
        checks,
    })
}

/// How much was deleted that had had its time.
#[derive(Serialize, ToSchema)]
struct Cleaned {
    /// Refresh tokens and logins that have run out.
    refresh_tokens: u64,
    /// Failures to log in that are forgiven, and places unused for long.
    login_records: u64,
    /// Invites that are used up or out of date.
    invites: u64,
    /// Bans that are over.
    bans: u64,
    /// Guests whose logins have all ended and who own no channel.
    guests: u64,
    /// Entries of the audit log that were kept for long enough.
    audit_entries: u64,
    /// Whether there is more, which goes by itself within minutes.
    more: bool,
}

/// Deletes what has had its time. It goes by itself every minute, too.
#[utoipa::path(post, path = "/api/advanced/admin/cleanup", operation_id = "admin_cleanup", tag = "admin",
    responses((status = OK, description = "How much was deleted", body = Answer<Cleaned>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody)))]
async fn cleanup(State(api): State<Arc<Api>>, Admin(caller): Admin) -> ApiResult<Answer<Cleaned>> {
    audit(&api, &caller, "server.cleanup", None, json!({})).await?;
    api.limits.sweep();
    api.auth.sweep();
    api.gateway.sweep();
    let swept = sweep(&api.store).await?;
    Ok(Answer::of(Cleaned {
        refresh_tokens: swept.refresh,
        login_records: swept.logins,
        invites: swept.invites,
        bans: swept.bans,
        guests: swept.guests,
        audit_entries: swept.audit,
        more: swept.more,
    }))
}

async fn sweep(store: &Store) -> ApiResult<Swept> {
    let mut all = Swept::default();
    for _ in 0..BATCHES_MAX {
        let swept = store.sweep(OffsetDateTime::now_utc()).await?;
        all.refresh += swept.refresh;
        all.logins += swept.logins;
        all.invites += swept.invites;
        all.bans += swept.bans;
        all.guests += swept.guests;
        all.audit += swept.audit;
        all.more = swept.more;
        if !swept.more {
            break;
        }
    }
    Ok(all)
}

/// What a reset did.
#[derive(Serialize, ToSchema)]
struct ResetDone {
    /// Gateway sessions that were ended, on all nodes that answered.
    sessions_ended: u64,
    /// Nodes that did so.
    nodes: u64,
    /// Nodes that did not answer, whose sessions go on.
    nodes_failed: u64,
    /// Rows of totals that were deleted.
    statistics_deleted: u64,
}

/// What a reset did on one node.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
struct NodeReset {
    /// Gateway sessions that were ended.
    sessions_ended: u64,
}

/// Begins anew: ends every gateway session, so that nobody is in voice any more (their clients are told 4009 and connect
/// anew), and deletes the totals of channels, people and the server. Accounts, channels, members, bans, logins, the audio
/// configuration and the audit log stay. In a cluster only where `cluster.allow_reset` is set.
#[utoipa::path(post, path = "/api/advanced/admin/reset", operation_id = "admin_reset", tag = "admin",
    responses((status = OK, description = "What was done", body = Answer<ResetDone>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator, or a cluster that does not allow it", body = ErrorBody)))]
async fn reset(State(api): State<Arc<Api>>, Admin(caller): Admin, headers: HeaderMap) -> ApiResult<Answer<ResetDone>> {
    require_reset_allowed(&api)?;
    audit(&api, &caller, "server.reset", None, json!({})).await?;
    let others = other_nodes(&api);
    let path = "/api/advanced/admin/reset/node";
    let (answers, own) =
        tokio::join!(ask_all::<NodeReset>(&api, &others, Method::POST, path, &headers), api.gateway.end_all_sessions());
    let done: Vec<NodeReset> = answers.into_iter().flatten().collect();
    // What was counted before, here and elsewhere, must not come back.
    api.directory.forget_statistics();
    let statistics_deleted = api.store.reset_statistics().await?;
    Ok(Answer::of(ResetDone {
        sessions_ended: own + done.iter().map(|node| node.sessions_ended).sum::<u64>(),
        nodes: 1 + done.len() as u64,
        nodes_failed: (others.len() - done.len()) as u64,
        statistics_deleted,
    }))
}

/// One node's part of a reset, which another node asks for.
#[utoipa::path(post, path = "/api/advanced/admin/reset/node", operation_id = "admin_reset_node", tag = "admin",
    responses((status = OK, description = "What was done", body = Answer<NodeReset>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator, or a cluster that does not allow it", body = ErrorBody)))]
async fn reset_node(State(api): State<Arc<Api>>, Admin(caller): Admin) -> ApiResult<Answer<NodeReset>> {
    require_reset_allowed(&api)?;
    // Also where another node asks: that it does is only a header, which an administrator can send, too.
    audit(&api, &caller, "node.reset", Some(api.node_id().0), json!({})).await?;
    let sessions_ended = api.gateway.end_all_sessions().await;
    api.directory.forget_statistics();
    Ok(Answer::of(NodeReset { sessions_ended }))
}

fn require_reset_allowed(api: &Api) -> ApiResult<()> {
    let is_alone = api.registry.view().borrow().shared == SharedState::Alone;
    if is_alone || api.settings.cluster.allow_reset {
        return Ok(());
    }
    let message = "a cluster is reset only where its setting cluster.allow_reset is true";
    Err(ApiError::new(ErrorCode::PermissionDenied, message))
}

/// Of what kind the entries are.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only this action, such as `user.update`.
    #[param(example = "user.update")]
    action: Option<String>,
}

/// Something that was done.
#[derive(Serialize, ToSchema)]
struct AuditEntry {
    /// Its id; later ones are greater.
    id: String,
    /// When, RFC 3339 UTC.
    at: String,
    /// Who did it.
    actor_id: UserId,
    /// Their username then.
    actor_name: String,
    /// What: an area and an act, such as `user.update`, `user.delete`, `audio_config.update`, `server.cleanup`,
    /// `server.reset`, `node.reset`, `node.drain`, `node.undrain`, `notification.retry` or `recording.delete`.
    #[schema(example = "user.update")]
    action: String,
    /// To whom or what; null for the server.
    target: Option<String>,
    /// How, and with what.
    detail: Value,
}

impl From<Audit> for AuditEntry {
    fn from(entry: Audit) -> Self {
        let Audit { id, at, actor, actor_name, action, target, detail } = entry;
        Self { id: id.to_string(), at: rfc3339(at), actor_id: actor, actor_name, action, target, detail }
    }
}

/// What administrators did, newest first. Entries are kept for 400 days.
#[utoipa::path(get, path = "/api/advanced/admin/audit", operation_id = "admin_audit", tag = "admin",
    params(PageQuery, AuditQuery),
    responses((status = OK, description = "A page of the log", body = Paged<AuditEntry>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody)))]
async fn log(
    State(api): State<Arc<Api>>,
    Admin(_caller): Admin,
    QueryOf(page): QueryOf<PageQuery>,
    QueryOf(query): QueryOf<AuditQuery>,
) -> ApiResult<Json<Paged<AuditEntry>>> {
    let page = page.checked()?;
    let (entries, total) = api.store.audit(query.action.as_deref(), page.limit, page.offset()).await?;
    Ok(Json(page.of(entries.into_iter().map(AuditEntry::from).collect(), total)))
}
