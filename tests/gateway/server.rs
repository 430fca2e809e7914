//! A server for one test.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use antiphon::{
    auth::{Auth, AuthConfig, Tokens},
    chat::{Chat, ChatConfig},
    client_address::ClientAddress,
    cluster::{MemoryCluster, MemoryNode},
    gateway::{Gateway, GatewayConfig, any_path_router, router},
    media::{Media, MediaConfig, MixInlets, RelayConfig},
    mixer::{Mixer, MixerConfig},
    rooms::{Rooms, RoomsConfig},
    settings::Settings,
    store::{Channel, ChannelLimits, NewChannel, Store},
};
use antiphon_core::{
    engine::Event,
    ids::{ChannelId, NodeId, NodeNumber, UserId},
    relay::{NodeInfo, Versions},
};
use axum::Extension;
use tokio::{net::TcpListener, sync::mpsc};

use crate::client::Client;

/// The longest that anything awaited may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Media workers of each server.
const WORKERS: u16 = 2;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The gateway at any path.
    pub(crate) any_path: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) rooms: Rooms,
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    pub(crate) media: Media,
    /// What the media workers tell, to say more in their name.
    pub(crate) events: mpsc::Sender<Event>,
    base: Base,
}

/// What the nodes of one test have in common.
#[derive(Clone)]
struct Base {
    store: Store,
    auth: Auth,
    _dir: Arc<Dir>,
}

/// A folder that is gone when dropped.
struct Dir(PathBuf);

impl Base {
    async fn new() -> Self {
        let dir = Dir(std::env::temp_dir().join(format!("antiphon-gateway-{}", uuid::Uuid::now_v7())));
        let settings = Settings { data_dir: dir.0.clone(), ..Settings::default() };
        let local = settings.local_state().expect("a data dir");
        let store = Store::open(&settings.database_url()).await.expect("a database");
        let auth = Auth::new(store.clone(), AuthConfig::new(&settings, &local)).expect("auth");
        Self { store, auth, _dir: Arc::new(dir) }
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut GatewayConfig, &mut RoomsConfig)) -> Self {
        let (mut config, mut rooms) = configs();
        set(&mut config, &mut rooms);
        let node = MemoryCluster::single(rooms.membership.clone());
        Self::on(Base::new().await, node, config, rooms, MediaConfig::default()).await
    }

    /// One that takes so many WebRTC connections.
    pub(crate) async fn with_webrtc_peers(webrtc_peers: usize) -> Self {
        let (config, rooms) = configs();
        let node = MemoryCluster::single(rooms.membership.clone());
        let media = MediaConfig { webrtc_peers, ..MediaConfig::default() };
        Self::on(Base::new().await, node, config, rooms, media).await
    }

    /// One whose channels can be listened to from outside.
    pub(crate) async fn with_mixer() -> Self {
        let (config, rooms) = configs();
        let node = MemoryCluster::single(rooms.membership.clone());
        let media = MediaConfig { mix: Some(MixInlets::new(1)), ..MediaConfig::default() };
        Self::on(Base::new().await, node, config, rooms, media).await
    }

    /// Two nodes, numbered 1 and 2, with what they share.
    pub(crate) async fn two(set: impl FnOnce(&mut GatewayConfig, &mut RoomsConfig)) -> (Self, Self, MemoryCluster) {
        let (mut config, mut rooms) = configs();
        set(&mut config, &mut rooms);
        let cluster = MemoryCluster::new(rooms.membership.clone());
        let first = cluster.join_as(NodeNumber(1));
        let relay = Some(RelayConfig { bind: ([127, 0, 0, 1], 0).into(), secret: Arc::from(&b"of the cluster"[..]) });
        let media = || MediaConfig { relay: relay.clone(), ..MediaConfig::default() };
        let first = Self::on(Base::new().await, first, config.clone(), rooms.clone(), media()).await;
        let second = Self::on(first.base.clone(), cluster.join_as(NodeNumber(2)), config, rooms, media()).await;
        let infos = [(1, &first), (2, &second)].map(|(number, server)| server.info(NodeNumber(number)));
        first.media.set_peers(1, &infos[0], Arc::new([infos[1].clone()])).await;
        second.media.set_peers(1, &infos[1], Arc::new([infos[0].clone()])).await;
        (first, second, cluster)
    }

    /// What the other node's relay knows of this one.
    fn info(&self, number: NodeNumber) -> NodeInfo {
        NodeInfo {
            id: NodeId(format!("node-{}", number.0)),
            number,
            started_at_us: u64::from(number.0),
            address: self.media.relay_addr().expect("a relay"),
            workers: WORKERS,
            versions: Versions::SPOKEN,
            capacity: 100,
            serving: true,
        }
    }

    async fn on(base: Base, node: MemoryNode, config: GatewayConfig, rooms: RoomsConfig, media: MediaConfig) -> Self {
        let (store, auth) = (base.store.clone(), base.auth.clone());
        let inlets = media.mix.clone();
        let (media, told) = Media::start(MediaConfig { workers: WORKERS, ..media }).expect("media workers");
        let mixer = inlets.map(|inlets| Mixer::start(MixerConfig::default(), inlets, &media).expect("threads"));
        let rooms = RoomsConfig { mixer, ..rooms };
        let (events, received) = pass_on(told);
        let membership = (node.membership, node.notices);
        let rooms = Rooms::start(store.clone(), media.clone(), received, membership, rooms);
        let chat = Chat::start(store.clone(), rooms.clone(), node.records.clone(), ChatConfig::default());
        let records = (node.records, node.session_notices);
        let gateway = Gateway::new(auth.clone(), rooms.clone(), chat, records, config);
        let address = serve(router(gateway.clone())).await;
        let any_path = serve(any_path_router(gateway.clone())).await;
        Self { address, any_path, gateway, rooms, store, auth, media, events, base }
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
        self.store.create_channel(new, ChannelLimits::total(1_000)).await.expect("a channel")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn configs() -> (GatewayConfig, RoomsConfig) {
    let config = GatewayConfig { node: "test-node".to_owned(), ..GatewayConfig::default() };
    // Nodes in one process need little time to hear of each other.
    (config, RoomsConfig { settle: Duration::from_millis(200), ..RoomsConfig::default() })
}

/// A queue that tests can put something into, too.
fn pass_on(mut told: mpsc::Receiver<Event>) -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    let (events, received) = mpsc::channel(1_024);
    let (all, ours) = (events.downgrade(), events);
    tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            let Some(all) = all.upgrade() else { return };
            if all.send(event).await.is_err() {
                return;
            }
        }
    });
    (ours, received)
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let router = router.layer(Extension(ClientAddress(address.ip())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
