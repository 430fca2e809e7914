//! The nodes of the cluster: which there are, where a new client had best go, and how one is taken out of service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{gateway::ErrorCode, ids::NodeId};
use axum::{
    extract::State,
    http::{HeaderMap, Method, header},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    advanced::audit,
    answer::Answer,
    drain::{DrainMode, DrainProgress},
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Admin, Caller, MaybeBody, PathOf},
    peers::FORWARDED,
};
use crate::{
    cluster::{ClusterView, NodeRecord, SharedState},
    error::AppError,
};

/// The longest time that a drain may wait for its clients.
const DEADLINE_S_MAX: u32 = 86_400;
/// How soon a client that finds no node may ask again.
const RETRY_AFTER_S: u64 = 1;

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(assign)).routes(routes!(drain, cancel))
}

/// A node.
#[derive(Serialize, ToSchema)]
struct NodeView {
    /// Its name.
    node_id: NodeId,
    /// Where its HTTP and gateway are.
    http_url: String,
    /// `serving` or `draining`.
    #[schema(example = "serving")]
    state: &'static str,
    /// The release that it runs.
    release: String,
    /// Its share of the work in relation to other nodes'.
    capacity: u32,
    /// Gateway sessions, as last reported.
    sessions: u32,
    /// Members of channels through it, as last reported.
    members: u32,
    /// How much of their time its media workers are busy, 0 to 1, as last reported.
    busy: f32,
    /// Whether it is the node that answers.
    me: bool,
}

impl NodeView {
    fn of(node: &NodeRecord, view: &ClusterView) -> Self {
        Self {
            node_id: node.node_id.clone(),
            http_url: node.http_url.clone(),
            state: node.state.as_str(),
            release: node.release.clone(),
            capacity: node.capacity,
            sessions: node.load.sessions,
            members: node.load.members,
            busy: node.load.busy,
            me: node.number == view.me,
        }
    }
}

/// The cluster as this node sees it.
#[derive(Serialize, ToSchema)]
struct NodesView {
    /// Grows with every change of the set of nodes or of their states.
    epoch: u64,
    /// `alone` for a node on its own, `up`, or `away` while what the nodes share cannot be reached: then this is how
    /// things were.
    #[schema(example = "up")]
    shared: &'static str,
    /// Every live node.
    nodes: Vec<NodeView>,
    /// How far this node's own drain is.
    drain: DrainProgress,
}

/// The nodes.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes",
    responses((status = OK, description = "The nodes", body = Answer<NodesView>)))]
async fn list(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> Answer<NodesView> {
    let view = api.registry.view().borrow().clone();
    Answer::of(NodesView {
        epoch: view.epoch,
        shared: match view.shared {
            SharedState::Alone => "alone",
            SharedState::Up => "up",
            SharedState::Away { .. } => "away",
        },
        nodes: view.nodes.iter().map(|node| NodeView::of(node, &view)).collect(),
        drain: api.drain.progress(),
    })
}

/// The node that a client had best connect to: the one with the least to do for its capacity, by what the nodes report and
/// by what was assigned since.
#[utoipa::path(get, path = "/api/v1/nodes/assign", tag = "nodes",
    responses((status = OK, description = "The node", body = Answer<NodeView>),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: all nodes drain", body = ErrorBody)))]
async fn assign(State(api): State<Arc<Api>>, Caller(_caller): Caller) -> ApiResult<Answer<NodeView>> {
    let view = api.registry.view().borrow().clone();
    let node = api.placement.assign(&view, Instant::now()).ok_or_else(|| {
        AppError::retry(ErrorCode::TemporarilyUnavailable, "no node takes on new clients", RETRY_AFTER_S)
    })?;
    Ok(Answer::of(NodeView::of(node, &view)))
}

/// How to drain.
#[derive(Default, Serialize, Deserialize, ToSchema)]
struct DrainBody {
    /// How long the clients have, in seconds; the setting `server.drain_deadline_s` when absent.
    #[schema(example = 30, maximum = 86_400)]
    deadline_s: Option<u32>,
    /// How they are got rid of; `handover` when absent.
    mode: Option<DrainMode>,
}

/// Takes a node out of service: it leaves the ring, takes no new clients, and its clients go elsewhere. It goes on running.
/// Answers how far the drain is; ask again, or look at `GET /api/v1/nodes` of that node. Any node takes it for any other.
#[utoipa::path(post, path = "/api/v1/admin/nodes/{id}/drain", tag = "nodes",
    params(("id" = String, Path, description = "The node's name")), request_body = Option<DrainBody>,
    responses((status = OK, description = "How far it is", body = Answer<DrainProgress>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: no such node", body = ErrorBody)))]
async fn drain(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
    MaybeBody(body): MaybeBody<DrainBody>,
) -> ApiResult<Answer<serde_json::Value>> {
    let deadline_s = body.deadline_s.unwrap_or(api.settings.server.drain_deadline_s);
    if deadline_s > DEADLINE_S_MAX {
        let message = format!("deadline_s is {deadline_s}: at most {DEADLINE_S_MAX} would do");
        return Err(ApiError::new(ErrorCode::InvalidInput, message));
    }
    if let Some(other) = other_node(&api, &id)? {
        return forward(&api, &other, Method::POST, &headers, Some(&body)).await;
    }
    // Written down by the node that does it, whichever was asked: so it is there once, and passing it on hides nothing.
    let mode = body.mode.unwrap_or_default();
    audit(&api, &caller, "node.drain", Some(id), json!({ "deadline_s": deadline_s, "mode": mode })).await?;
    let deadline = Duration::from_secs(deadline_s.into());
    api.drain.begin(mode, deadline, "the node is taken out of service");
    Ok(Answer::of(value(&api)))
}

/// Puts a node back into service. Clients that have gone stay where they are.
#[utoipa::path(delete, path = "/api/v1/admin/nodes/{id}/drain", tag = "nodes",
    params(("id" = String, Path, description = "The node's name")),
    responses((status = OK, description = "How things are", body = Answer<DrainProgress>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: not an administrator", body = ErrorBody),
        (status = NOT_FOUND, description = "`NOT_FOUND`: no such node", body = ErrorBody)))]
async fn cancel(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
) -> ApiResult<Answer<serde_json::Value>> {
    if let Some(other) = other_node(&api, &id)? {
        return forward(&api, &other, Method::DELETE, &headers, None).await;
    }
    audit(&api, &caller, "node.undrain", Some(id), json!({})).await?;
    api.drain.cancel();
    Ok(Answer::of(value(&api)))
}

fn value(api: &Api) -> serde_json::Value {
    serde_json::to_value(api.drain.progress()).unwrap_or_default()
}

/// The node of that name, unless it is this one.
fn other_node(api: &Api, id: &str) -> ApiResult<Option<NodeRecord>> {
    let view = api.registry.view().borrow().clone();
    let node = view.nodes.iter().find(|node| node.node_id.0.as_str() == id);
    let node = node.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no node {id:?}")))?;
    Ok((node.number != view.me).then(|| node.clone()))
}

/// What another node answered.
#[derive(Deserialize)]
struct Forwarded {
    data: Option<serde_json::Value>,
    error_code: Option<ErrorCode>,
    error: Option<String>,
}

/// Passes a request on to the node that it is about, in the caller's name.
async fn forward(
    api: &Api,
    node: &NodeRecord,
    method: Method,
    headers: &HeaderMap,
    body: Option<&DrainBody>,
) -> ApiResult<Answer<serde_json::Value>> {
    let unreachable = || {
        let message = format!("the node {} cannot be reached", node.node_id);
        AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_AFTER_S)
    };
    if headers.contains_key(FORWARDED) {
        return Err(unreachable().into());
    }
    let url = format!("{}/api/v1/admin/nodes/{}/drain", node.http_url.trim_end_matches('/'), node.node_id);
    let mut request = api.http.request(method, url).header(FORWARDED, "1");
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answered = request.send().await.map_err(|_| unreachable())?;
    let answer: Forwarded = answered.json().await.map_err(|_| unreachable())?;
    match answer {
        Forwarded { data: Some(data), .. } => Ok(Answer::of(data)),
        // What the other node has against it is what the caller must know.
        Forwarded { error_code: Some(code), error: Some(message), .. } => Err(ApiError::new(code, message)),
        Forwarded { .. } => Err(unreachable().into()),
    }
}
