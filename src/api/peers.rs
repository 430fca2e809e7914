//! Asking other nodes, in the name of whoever asks this one.

use std::time::Duration;

use antiphon_core::ids::NodeNumber;
use axum::http::{HeaderMap, Method, header};
use futures_util::future::join_all;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::Api;
use crate::cluster::NodeRecord;

/// Marks a request that a node passed on, so that it is not passed on again.
pub(super) const FORWARDED: &str = "x-antiphon-forwarded";

/// How long another node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer in the usual shape.
#[derive(Deserialize)]
struct Answered<T> {
    data: T,
}

/// Every live node but this one.
pub(super) fn other_nodes(api: &Api) -> Vec<NodeRecord> {
    let view = api.registry.view().borrow().clone();
    view.nodes.iter().filter(|node| node.number != view.me).cloned().collect()
}

/// Asks each of `nodes` for `path`, all at once; `None` for those that do not answer in time or not as expected.
pub(super) async fn ask_all<T: DeserializeOwned>(
    api: &Api,
    nodes: &[NodeRecord],
    method: Method,
    path: &str,
    headers: &HeaderMap,
) -> Vec<Option<T>> {
    join_all(nodes.iter().map(|node| ask(api, node, (method.clone(), path, None), headers))).await
}

/// Asks the node of that number for a path with a body, as [`ask_all`] does; `None`, too, where it is gone.
pub(super) async fn ask_one<T: DeserializeOwned>(
    api: &Api,
    number: NodeNumber,
    what: (Method, &str, Option<&Value>),
    headers: &HeaderMap,
) -> Option<T> {
    let node = other_nodes(api).into_iter().find(|node| node.number == number)?;
    ask(api, &node, what, headers).await
}

async fn ask<T: DeserializeOwned>(
    api: &Api,
    node: &NodeRecord,
    (method, path, body): (Method, &str, Option<&Value>),
    headers: &HeaderMap,
) -> Option<T> {
    let url = format!("{}{path}", node.http_url.trim_end_matches('/'));
    let mut request = api.http.request(method, url).header(FORWARDED, "1").timeout(PATIENCE);
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.ok()?.error_for_status().ok()?.json::<Answered<T>>().await.ok();
    if answer.is_none() {
        tracing::debug!(node = %node.node_id, path, "another node did not answer as expected");
    }
    answer.map(|answer| answer.data)
}
