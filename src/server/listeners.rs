//! The TCP ports: bound before anything is served, so that a taken one is known at once.

use std::{net::SocketAddr, sync::Arc};

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
    pub(super) async fn bind(settings: &Settings, tls: Option<Tls>) -> Result<Self, StartError> {
        let server = &settings.server;
        let http = listen(SocketAddr::new(server.host, server.port), "server.host and server.port").await?;
        let websocket_host = server.websocket_host.unwrap_or(server.host);
        let websocket = listen(
            SocketAddr::new(websocket_host, server.websocket_port),
            "server.websocket_host and server.websocket_port",
        );
        let websocket = websocket.await?;
        let metrics = match settings.metrics.listen {
            Some(address) => Some(listen(address, "metrics.listen").await?),
            None => None,
        };
        Ok(Self { http, websocket, metrics, tls })
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

async fn listen(address: SocketAddr, settings: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, settings, error })
}
