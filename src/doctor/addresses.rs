//! The addresses that others are told: whether they lead anywhere.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::net::{UdpSocket, lookup_host};

use super::report::{Group, Report};
use crate::{random, settings::Settings};

/// How long a datagram to oneself may take.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) async fn examine(settings: &Settings, report: &mut Report) {
    let mut group = report.group("addresses");
    let host = settings.server.host;
    for told in &settings.audio.advertise {
        let at = SocketAddr::new(host, settings.audio.udp_port);
        address("audio.advertise", told, Some(at), host, &mut group).await;
    }
    let in_cluster = settings.redis.url.is_some();
    if settings.audio.advertise.is_empty() {
        let found = "clients send voice to the name by which they reached the gateway, browsers to its address (audio.advertise is not set)";
        if in_cluster {
            group.warn(found, "behind a balancer that is the balancer: set audio.advertise to this node's own address");
        } else {
            group.ok(found);
        }
    }
    if !in_cluster {
        return;
    }
    if let Some(told) = settings.cluster.advertise {
        let at = SocketAddr::new(host, settings.cluster.relay_port);
        address("cluster.advertise", &told.to_string(), Some(at), host, &mut group).await;
    }
    if let Some(url) = &settings.cluster.http_url {
        match reqwest::Url::parse(url)
            .ok()
            .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)))
        {
            Some(told) => address("cluster.http_url", &told, None, host, &mut group).await,
            None => group.fail(format!("cluster.http_url names no host: {url}"), "such as https://voice-1.example.org"),
        }
    }
}

/// What becomes of `host:port`; `at` is where datagrams to it are to arrive, where it is of UDP.
async fn address(setting: &str, told: &str, at: Option<SocketAddr>, host: IpAddr, group: &mut Group<'_>) {
    let resolved: Vec<SocketAddr> = match lookup_host(told).await {
        Ok(resolved) => resolved.collect(),
        Err(error) => {
            let fix = "correct the name, or the resolver (/etc/resolv.conf)";
            return group.fail(format!("{setting} {told} leads nowhere: {error}"), fix);
        }
    };
    let Some(first) = resolved.first() else {
        return group.fail(format!("{setting} {told} leads nowhere"), "the name has no address");
    };
    if resolved.iter().any(|address| address.ip().is_unspecified()) {
        let fix = "name the address by which others reach this node";
        return group.fail(format!("{setting} {told} is no address to send to"), fix);
    }
    if resolved.iter().all(|address| address.ip().is_loopback()) && !host.is_loopback() {
        let fix = "name the address by which others reach this node";
        return group.fail(format!("{setting} {told} leads others to their own machine"), fix);
    }
    let shown = format!("{setting} {told} is {first}");
    match at {
        None => group.ok(shown),
        Some(at) => probe(at, *first, shown, group).await,
    }
}

/// Sends a datagram to the address, which is to come back where the node listens.
async fn probe(at: SocketAddr, to: SocketAddr, shown: String, group: &mut Group<'_>) {
    let Ok(inbox) = UdpSocket::bind(at).await else {
        // Taken, as by the node itself: what comes there is its own.
        return group.ok(format!("{shown}; not tried, since the port is in use"));
    };
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let word = random::text::<16>();
    let arrived = async {
        UdpSocket::bind(any).await?.send_to(word.as_bytes(), to).await?;
        let mut buffer = [0; 64];
        loop {
            let (length, _) = inbox.recv_from(&mut buffer).await?;
            if &buffer[..length] == word.as_bytes() {
                return std::io::Result::Ok(());
            }
        }
    };
    match tokio::time::timeout(PATIENCE, arrived).await {
        Ok(Ok(())) => group.ok(format!("{shown}, and a datagram to it arrives here")),
        _ => group.warn(
            format!("{shown}, and a datagram to it from here does not arrive"),
            "check port forwarding and firewalls, from outside: some routers do not lead back to where a datagram came from",
        ),
    }
}
