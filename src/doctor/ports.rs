//! The ports: free, or taken by the node itself.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use super::{
    own::{Probe, ask_own},
    report::{Group, Report},
};
use crate::settings::Settings;

pub(super) async fn examine(settings: &Settings, report: &mut Report) {
    let server = &settings.server;
    let websocket_host = server.websocket_host.unwrap_or(server.host);
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let udp = |address: SocketAddr| UdpSocket::bind(address).map(drop);
    let mut ports: Vec<(&str, &str, SocketAddr, io::Result<()>)> = Vec::new();
    let mut look = |kind, setting, address: SocketAddr| {
        let free = if kind == "TCP" { tcp(address) } else { udp(address) };
        ports.push((kind, setting, address, free));
    };
    look("TCP", "server.port", SocketAddr::new(server.host, server.port));
    look("TCP", "server.websocket_port", SocketAddr::new(websocket_host, server.websocket_port));
    look("UDP", "audio.udp_port", SocketAddr::new(server.host, settings.audio.udp_port));
    if settings.redis.url.is_some() {
        look("UDP", "cluster.relay_port", SocketAddr::new(server.host, settings.cluster.relay_port));
    }
    if let Some(address) = settings.metrics.listen {
        look("TCP", "metrics.listen", address);
    }
    let some_taken = ports.iter().any(|(.., free)| free.is_err());
    let runs = some_taken && matches!(ask_own(settings, Probe::Live).await, Ok(None));
    let mut group = report.group("ports");
    for (kind, setting, address, free) in ports {
        tell(&mut group, &format!("{kind} {address} ({setting})"), free, runs);
    }
}

fn tell(group: &mut Group<'_>, port: &str, free: io::Result<()>, runs: bool) {
    let Err(error) = free else { return group.ok(format!("{port} is free")) };
    match error.kind() {
        io::ErrorKind::AddrInUse if runs => group.ok(format!("{port} is taken, and a node answers here")),
        io::ErrorKind::AddrInUse => {
            group.fail(
                format!("{port} is taken by something else"),
                "`ss -lntup` says by what; stop it, or set another port",
            );
        }
        io::ErrorKind::PermissionDenied => group.fail(
            format!("{port} may not be used by this user"),
            "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or take a higher one",
        ),
        io::ErrorKind::AddrNotAvailable => {
            group.fail(
                format!("{port} is at an address that this machine does not have"),
                "`ip address` lists those it has",
            );
        }
        _ => group.fail(format!("{port} cannot be used: {error}"), "set another address or port"),
    }
}
