//! A server for one test.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use antiphon::{
    auth::{Auth, AuthConfig, Tokens},
    client_address::ClientAddress,
    gateway::{Gateway, GatewayConfig, any_path_router, router},
    media::{Media, MediaConfig},
    rooms::{Rooms, RoomsConfig},
    settings::Settings,
    store::{Channel, NewChannel, Store},
};
use antiphon_core::ids::{ChannelId, UserId};
use axum::Extension;
use tokio::net::TcpListener;

use crate::client::Client;

/// The longest that anything awaited may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The gateway at any path.
    pub(crate) any_path: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) rooms: Rooms,
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    pub(crate) media: Media,
    dir: PathBuf,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut GatewayConfig, &mut RoomsConfig)) -> Self {
        let dir = std::env::temp_dir().join(format!("antiphon-gateway-{}", uuid::Uuid::now_v7()));
        let settings = Settings { data_dir: dir.clone(), ..Settings::default() };
        let local = settings.local_state().expect("a data dir");
        let store = Store::open(&settings.database_url()).await.expect("a database");
        let auth = Auth::new(store.clone(), AuthConfig::new(&settings, &local)).expect("auth");
        let (media, events) =
            Media::start(MediaConfig { workers: 2, ..MediaConfig::default() }).expect("media workers");

        let mut config = GatewayConfig { node: "test-node".to_owned(), ..GatewayConfig::default() };
        let mut rooms = RoomsConfig::default();
        set(&mut config, &mut rooms);
        let rooms = Rooms::start(store.clone(), media.clone(), events, rooms);
        let gateway = Gateway::new(auth.clone(), rooms.clone(), config);
        let address = serve(router(gateway.clone())).await;
        let any_path = serve(any_path_router(gateway.clone())).await;
        Self { address, any_path, gateway, rooms, store, auth, media, dir }
    }

    /// A new guest.
    pub(crate) async fn guest(&self, name: &str) -> Tokens {
        self.auth.guest(self.address.ip(), name, None).await.expect("a guest")
    }

    /// A new guest, connected and authenticated.
    pub(crate) async fn client(&self, name: &str) -> Client {
        let tokens = self.guest(name).await;
        Client::with_token(self, &tokens.access_token).await
    }

    pub(crate) async fn channel(&self, owner: UserId, max_users: u32) -> ChannelId {
        self.make_channel(owner, max_users, false).await.id
    }

    pub(crate) async fn make_channel(&self, owner: UserId, max_users: u32, is_private: bool) -> Channel {
        let new = NewChannel {
            name: uuid::Uuid::now_v7().simple().to_string(),
            description: String::new(),
            owner,
            max_users,
            max_speakers: 0,
            is_private,
        };
        self.store.create_channel(new, 1_000).await.expect("a channel")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let router = router.layer(Extension(ClientAddress(address.ip())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
