//! How clients find the node, and the servers that help them past what is in between.

use std::{net::SocketAddr, sync::atomic::Ordering};

use antiphon_core::{gateway::IceServer, ids::UserId};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use time::OffsetDateTime;

use super::super::{Rooms, presence::Link};
use crate::{media::webrtc::Ways, settings::Secret, telemetry::metrics::metrics};

/// Addresses of one kind that clients are told at most.
const ADDRESSES_MAX: usize = 4;

/// What helps clients to find a way.
#[derive(Clone, Debug, Default)]
pub struct IceConfig {
    /// STUN URLs.
    pub stun: Vec<String>,
    /// TURN URLs.
    pub turn: Vec<String>,
    /// What the TURN server knows, too.
    pub turn_secret: Option<Secret>,
    /// How long a client may begin to use it, in seconds.
    pub turn_ttl_s: u32,
    /// The TCP port for those whose UDP is blocked, if there is one.
    pub tcp_port: Option<u16>,
}

impl Rooms {
    /// The servers that a user's connections may use.
    #[must_use]
    pub fn ice_servers(&self, user: UserId) -> Vec<IceServer> {
        self.inner.config.ice.servers(user, OffsetDateTime::now_utc().unix_timestamp())
    }

    /// Where a client reaches this node: the addresses that are set, else the one by which it came.
    pub(super) async fn ways(&self, link: &Link) -> Ways {
        let takes_ipv6 = self.udp_address().is_ipv6();
        let mut ways = Ways::default();
        let found =
            if self.inner.config.advertise.is_empty() { self.came_by(link).await } else { self.advertised().await };
        for address in found.into_iter().filter(|found| (takes_ipv6 || found.is_ipv4()) && !found.ip().is_unspecified())
        {
            if ways.udp.len() < ADDRESSES_MAX && !ways.udp.contains(&address) {
                ways.udp.push(address);
            }
            let tcp = self.inner.config.ice.tcp_port.map(|port| SocketAddr::new(address.ip(), port));
            if let Some(tcp) = tcp.filter(|tcp| ways.tcp.len() < ADDRESSES_MAX && !ways.tcp.contains(tcp)) {
                ways.tcp.push(tcp);
            }
        }
        ways
    }

    /// The addresses that are set. A name that has none now is no way now.
    async fn advertised(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for told in &self.inner.config.advertise {
            let Some((host, port)) = told.rsplit_once(':') else { continue };
            let (Ok(port), Some(found)) = (port.parse(), self.inner.host_names.find(host).await) else { continue };
            all.extend(found.into_iter().map(|address| SocketAddr::new(address, port)));
        }
        all
    }

    /// The host that a client says it came by, where that is an address or one that the settings name; else the address
    /// of this machine that its connection reached.
    async fn came_by(&self, link: &Link) -> Vec<SocketAddr> {
        let own = self.udp_address();
        let found = match self.inner.host_names.find(&link.reached_host).await {
            Some(found) => found,
            None => {
                let reached = link.reached_address.unwrap_or(own.ip());
                metrics().webrtc.unnamed_hosts.increment(1);
                if !self.inner.warned_of_name.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        address = %reached,
                        "a browser came by a name that no setting names, and is told this address: where others cannot reach \
                         it, set audio.advertise (this is said once)"
                    );
                }
                vec![reached]
            }
        };
        found.into_iter().map(|address| SocketAddr::new(address, own.port())).collect()
    }
}

impl IceConfig {
    fn servers(&self, user: UserId, now_s: i64) -> Vec<IceServer> {
        let mut servers = Vec::new();
        if !self.stun.is_empty() {
            servers.push(IceServer { urls: self.stun.clone(), username: None, credential: None });
        }
        if !self.turn.is_empty() {
            let (username, credential) = self
                .turn_secret
                .as_ref()
                .map(|secret| {
                    let username = format!("{}:{user}", now_s + i64::from(self.turn_ttl_s));
                    let credential = turn_credential(secret.expose().as_bytes(), &username);
                    (username, credential)
                })
                .unzip();
            servers.push(IceServer { urls: self.turn.clone(), username, credential });
        }
        servers
    }
}

/// The password that goes with a time-limited user name (draft-uberti-behave-turn-rest-00, 2.2, as coturn takes it).
fn turn_credential(secret: &[u8], username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn turn_servers_come_with_what_they_take_for_a_while() {
        let config = IceConfig {
            stun: vec!["stun:stun.example.org".to_owned()],
            turn: vec!["turn:turn.example.org?transport=tcp".to_owned()],
            turn_secret: Some(Secret::new("north")),
            turn_ttl_s: 600,
            tcp_port: None,
        };
        let user = UserId(Uuid::from_u128(7));
        let servers = config.servers(user, 1_000);
        assert_eq!((servers[0].urls.len(), servers[0].username.as_deref()), (1, None));
        assert_eq!(servers[1].username, Some(format!("1600:{user}")));
        // RFC 2202's second case.
        assert_eq!(turn_credential(b"Jefe", "what do ya want for nothing?"), "7/zfauXrL6LSdBbV8YTfnCWafHk=");
        assert!(IceConfig::default().servers(user, 0).is_empty());
    }
}
