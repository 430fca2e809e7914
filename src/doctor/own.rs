//! The node that may already run here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::Response;
use serde_json::Value;

use crate::{
    http_client::{ClientError, own_client},
    settings::Settings,
    tls::Files,
};

/// What to ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it works.
    Live,
    /// Whether it takes new sessions.
    Ready,
}

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much of an answer is looked at: whatever else listens there may send no end of it.
const REASON_BYTES_MAX: usize = 1_024;

/// Asks the node that these settings are of, on this machine. Nothing where it answers as it should, else what is wrong.
///
/// # Errors
/// When there is no client for HTTPS.
pub async fn ask_own(settings: &Settings, probe: Probe) -> Result<Option<String>, ClientError> {
    let path = match probe {
        Probe::Live => "/health/live",
        Probe::Ready => "/health/ready",
    };
    let scheme = if Files::of(settings).is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", reached(settings.server.host, settings.server.port));
    let answer = own_client()?.get(&url).timeout(PATIENCE).send().await;
    Ok(match answer {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => Some(refusal(&url, answer).await),
        Err(error) if error.is_timeout() => Some(format!("{url} does not answer within {} s", PATIENCE.as_secs())),
        Err(_) => Some(format!("nobody answers at {url}")),
    })
}

/// The status that was answered, with the node's own words where they are of a node.
async fn refusal(url: &str, mut answer: Response) -> String {
    let status = answer.status();
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > REASON_BYTES_MAX {
            break;
        }
    }
    let body: Option<Value> = serde_json::from_slice(&body).ok();
    match body.as_ref().and_then(|body| body["error"].as_str()) {
        Some(reason) => format!("{url} answers {status}: {reason}"),
        None => format!("{url} answers {status}"),
    }
}

/// An address that one listens on, as this machine reaches it.
pub(super) fn reached(host: IpAddr, port: u16) -> SocketAddr {
    let host = match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, port)
}
