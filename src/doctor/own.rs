//! The node that may already run here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

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
        Ok(answer) => Some(format!("{url} answers {}", answer.status())),
        Err(error) if error.is_timeout() => Some(format!("{url} does not answer within {} s", PATIENCE.as_secs())),
        Err(_) => Some(format!("nobody answers at {url}")),
    })
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
