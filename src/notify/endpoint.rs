//! Addresses that people name and the server calls: only public ones, lest it be used to reach what is behind it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// The longest endpoint in bytes.
const BYTES_MAX: usize = 1_000;

/// Checks an endpoint that somebody names: HTTPS and no private address, unless those are allowed.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check(endpoint: &str, allow_private: bool) -> Result<Url, String> {
    if endpoint.len() > BYTES_MAX {
        return Err(format!("endpoint must have at most {BYTES_MAX} bytes"));
    }
    let url = Url::parse(endpoint).map_err(|_| "endpoint must be a URL".to_owned())?;
    let is_safe = url.scheme() == "https" || allow_private && url.scheme() == "http";
    if !is_safe || !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err("endpoint must be an https URL without a user or password".to_owned());
    }
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if !allow_private && literal.is_some_and(|address| !is_public(address)) {
        return Err("endpoint must not be a private address".to_owned());
    }
    Ok(url)
}

/// Whether an address is one of the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Not one of IANA's special-purpose registry (RFC 6890).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        // Carrier-grade NAT, protocol assignments, 6to4 relays, benchmarks.
        || a == 100 && (64..128).contains(&b)
        || a == 192 && b == 0 && c == 0
        || a == 192 && b == 88 && c == 99
        || a == 198 && (18..20).contains(&b)
        // Multicast, reserved, broadcast.
        || a >= 224;
    !is_special
}

/// Global unicast, and not an IPv4 address in disguise that is not public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let [a, b, c, d, _, _, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    match (a, b) {
        // NAT64 (RFC 6052), 6to4 (RFC 3056).
        (0x64, 0xff9b) => c == 0 && d == 0 && v4(g, h),
        (0x2002, _) => v4(b, c),
        // Teredo and other protocol assignments, documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => false,
        _ => (0x2000..0x4000).contains(&a),
    }
}

/// Looks names up, and knows public addresses only.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// A client for such endpoints: it goes to public addresses only, past proxies, whose look-ups it could not check.
///
/// # Errors
/// When the system's roots of trust cannot be read.
pub(super) fn client(allow_private: bool) -> Result<reqwest::Client, reqwest::Error> {
    let builder = crate::http_client::builder();
    if allow_private { builder.build() } else { builder.no_proxy().dns_resolver(Arc::new(PublicOnly)).build() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        for public in ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for other in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(!is_public(other.parse().expect("an address")), "{other}");
        }
    }

    #[test]
    fn endpoints_are_https_and_not_private() {
        check("https://push.example.org/send/abc?x=1", false).expect("as browsers have them");
        for wrong in [
            "http://push.example.org/",
            "ftp://push.example.org/",
            "push.example.org",
            "https://",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "https://user@push.example.org/",
            "https://0x7f.1/",
            "https://2130706433/",
        ] {
            assert!(check(wrong, false).is_err(), "{wrong}");
        }
        assert!(check(&format!("https://push.example.org/{}", "x".repeat(1_000)), false).is_err());
        check("http://127.0.0.1:8080/", true).expect("allowed by the setting");
        assert!(check("ftp://127.0.0.1/", true).is_err());
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_not_called() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let refused = client(false).expect("a client").get(format!("http://localhost:{port}/")).send().await;
        let error = format!("{:?}", refused.expect_err("refused"));
        assert!(error.contains("no public address"), "{error}");
    }
}
