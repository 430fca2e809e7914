//! The TCP ports: bound before anything is served, so that a taken one is known at once.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use axum::Router;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::StartError;
use crate::{
    api::{
        self, Addresses, Api,
        serve::{Serving, serve},
    },
    gateway::{self, Gateway},
    settings::Settings,
    tcp,
    tls::Tls,
};

/// The bound sockets.
pub(super) struct Listeners {
    http: TcpListener,
    websocket: TcpListener,
    metrics: Option<TcpListener>,
    /// What HTTP and the gateway speak.
    tls: Option<Tls>,
}

impl Listeners {
    /// Takes all of them, or says which cannot be taken.
    pub(super) async fn bind(settings: &Settings, tls: Option<Tls>) -> Result<Self, Vec<Refused>> {
        let server = &settings.server;
        let http = listen(SocketAddr::new(server.host, server.port), "server.host and server.port").await;
        let websocket_host = server.websocket_host.unwrap_or(server.host);
        let websocket = listen(
            SocketAddr::new(websocket_host, server.websocket_port),
            "server.websocket_host and server.websocket_port",
        );
        let websocket = websocket.await;
        let metrics = match settings.metrics.listen {
            Some(address) => listen(address, "metrics.listen").await.map(Some),
            None => Ok(None),
        };
        match (http, websocket, metrics) {
            (Ok(http), Ok(websocket), Ok(metrics)) => Ok(Self { http, websocket, metrics, tls }),
            (http, websocket, metrics) => {
                Err([http.err(), websocket.err(), metrics.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Where they are, with the UDP port at `udp`.
    pub(super) fn addresses(&self, udp: SocketAddr) -> Result<Addresses, StartError> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(StartError::LocalAddress);
        Ok(Addresses {
            http: address(&self.http)?,
            websocket: address(&self.websocket)?,
            udp,
            metrics: self.metrics.as_ref().map(address).transpose()?,
            is_tls: self.tls.is_some(),
        })
    }

    /// Serves each until `stopped` turns true.
    pub(super) fn serve(self, api: &Arc<Api>, gateway: &Gateway, stopped: &watch::Receiver<bool>) -> JoinSet<()> {
        let connections_max = usize::try_from(api.settings.http.connections_max).unwrap_or(usize::MAX);
        let quarter = (api.settings.http.connections_max / 4).max(1);
        let per_address = api.settings.http.connections_per_address.unwrap_or(quarter);
        let trusted_proxies = &api.settings.server.trusted_proxies;
        let mut tasks = JoinSet::new();
        let mut spawn = |listener: TcpListener, router: Router, tls: Option<Tls>| {
            let trusted_proxies = trusted_proxies.clone();
            let serving = Serving { router, tls, connections_max, per_address, trusted_proxies };
            tasks.spawn(serve(listener, serving, stopped.clone()));
        };
        spawn(self.http, api::router(api, gateway::router(gateway.clone())), self.tls.clone());
        spawn(self.websocket, api::gateway_router(api, gateway::any_path_router(gateway.clone())), self.tls);
        if let Some(metrics) = self.metrics {
            spawn(metrics, api::metrics_router(api), None);
        }
        tasks
    }
}

async fn listen(address: SocketAddr, settings: &'static str) -> Result<TcpListener, Refused> {
    let refused = |error| Refused { protocol: Protocol::Tcp, address, settings, error };
    tcp::listen(address).map_err(refused)
}

/// Those of these UDP addresses, each with its settings, that cannot be taken now. They are left again at once.
pub(super) fn refused_udp(addresses: &[(SocketAddr, &'static str)]) -> Vec<Refused> {
    let refused = |&(address, settings)| {
        let error = UdpSocket::bind(address).err()?;
        Some(Refused { protocol: Protocol::Udp, address, settings, error })
    };
    addresses.iter().filter_map(refused).collect()
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct Refused {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
    /// The settings that say so.
    pub(super) settings: &'static str,
    pub(super) error: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, settings, error } = self;
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        write!(f, "{protocol} {address} ({settings}: {error})")
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}
