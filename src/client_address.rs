//! Whose request it is: the peer's address, or what a trusted proxy says it is.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::settings::Network;

/// The address that a request's limits and lock-outs count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// The address of this machine that a request's connection reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedAddress(pub IpAddr);

impl ClientAddress {
    /// The peer's own address, unless the peer is a trusted proxy: then the last address of `X-Forwarded-For` that is
    /// none. What stands before that one, the client may have written itself.
    #[must_use]
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let mut client = peer.to_canonical();
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        if !is_trusted(client) {
            return Self(client);
        }
        // A line that is no text names no address: what stands before it is nobody's word.
        let lines = headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("?"));
        for hop in lines.rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address.to_canonical();
            if !is_trusted(client) {
                break;
            }
        }
        Self(client)
    }

    /// What a limit counts together: an IPv4 address, or an IPv6 /64, of which one machine has all addresses.
    #[must_use]
    pub fn limit_key(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        }
    }
}

/// An address, or one with a port as some proxies write it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().expect("a header"));
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        ClientAddress::of(peer.parse().expect("an address"), &headers, &trusted).0.to_string()
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        assert_eq!(seen("203.0.113.9", &["1.2.3.4"], &[]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["1.2.3.4"], &["10.0.0.0/8"]), "203.0.113.9");
        // Through a proxy: only what the proxy itself wrote counts.
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, 203.0.113.9"], &["10.0.0.0/8"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4", "203.0.113.9, 10.9.9.9"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        assert_eq!(seen("::ffff:10.0.0.1", &["203.0.113.9"], &["10.0.0.0/8"]), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["2001:db8::7"], &["127.0.0.1"]), "2001:db8::7");
        assert_eq!(seen("127.0.0.1", &["203.0.113.9:4711"], &["127.0.0.1"]), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &[], &["127.0.0.1"]), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &["nonsense"], &["127.0.0.1"]), "127.0.0.1");
    }

    #[test]
    fn limits_count_an_ipv6_network_once() {
        let key = |address: &str| ClientAddress(address.parse().expect("an address")).limit_key();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::9"));
        assert_ne!(key("2001:db8:1:2::9"), key("2001:db8:1:3::9"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
