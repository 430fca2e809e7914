//! The native client against a whole server: it keeps its session over lost connections.

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use antiphon_core::{
    gateway::{ChannelJoined, Encoding, JoinChannel, MediaMode, MediaTransport, ServerMessage},
    ids::{ChannelId, UserId},
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent, VoiceFrame},
    gateway::{GatewayConfig, Identity},
    rest::{NewChannel, Rest},
};
use support::server::TestServer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

/// Generous: only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to a server that can be cut.
struct TcpProxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    _accepting: JoinSet<()>,
}

impl TcpProxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&connections);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let relaying = tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        // Either end may go at any time.
                        let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                seen.lock().expect("no holder panics").push(relaying.abort_handle());
            }
        });
        Self { address, connections, _accepting: accepting }
    }

    /// Breaks every connection; new ones are let through.
    fn cut(&self) {
        self.connections.lock().expect("no holder panics").drain(..).for_each(|connection| connection.abort());
    }
}

struct Person {
    client: Client,
    events: mpsc::Receiver<ClientEvent>,
    joined: ChannelJoined,
}

impl Person {
    async fn join(server: &str, name: &str, encoding: Encoding, channel: ChannelId) -> Self {
        let server: ServerUrl = server.parse().expect("a URL");
        let config = GatewayConfig { server, others: Vec::new(), encoding, identity: Identity::Guest(name.to_owned()) };
        let (client, events) = Client::connect(config).await.expect("connects");
        let join = JoinChannel {
            channel_id: channel,
            media: MediaTransport::Udp,
            mode: MediaMode::Forward,
            cipher: None,
            sample_rate: None,
            channels: None,
            invite: None,
        };
        let joined = client.join(join).await.expect("joins");
        Self { client, events, joined }
    }

    fn id(&self) -> UserId {
        self.client.user().id
    }

    /// The first event that `wanted` makes something of.
    async fn wait_for<T>(&mut self, mut wanted: impl FnMut(ClientEvent) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the session goes on");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the event comes")
    }

    async fn wait_for_udp(&mut self) {
        self.wait_for(|event| matches!(event, ClientEvent::UdpWorks(true)).then_some(())).await;
    }

    /// Sends `count` frames; the first bytes say which.
    async fn speak(&self, count: u8) {
        for number in 0..count {
            let kind = if number == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
            let bytes = vec![31 << 3, number, 1, 2, 3];
            let frame = VoiceFrame { kind, flags: 0, level: 20, timestamp: u32::from(number) * 960, bytes };
            self.client.send(self.joined.channel_id, frame).await.expect("sends");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Hears `count` frames and returns their numbers.
    async fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        self.wait_for(|event| {
            if let ClientEvent::Frame(frame) = event
                && !frame.bytes.is_empty()
            {
                heard.push(frame.bytes[1]);
            }
            (heard.len() == count).then_some(())
        })
        .await;
        heard
    }
}

async fn make_channel(server: &TestServer) -> ChannelId {
    let rest = Rest::new(server.url().parse().expect("a URL")).expect("a client");
    let owner = rest.guest("owner").await.expect("a guest");
    let channel = NewChannel { name: "lobby".to_owned(), max_users: Some(10), max_speakers: None };
    rest.find_or_create_channel(&owner.access_token, &channel).await.expect("a channel").id
}

async fn a_lost_connection_is_made_good(encoding: Encoding) {
    let server = TestServer::start(|_| {}).await;
    let channel = make_channel(&server).await;
    let proxy = TcpProxy::start(server.running.addresses().http).await;
    let mut anna = Person::join(&server.url(), "anna", encoding, channel).await;
    let mut berta = Person::join(&format!("http://{}", proxy.address), "berta", encoding, channel).await;
    anna.wait_for_udp().await;
    berta.wait_for_udp().await;

    proxy.cut();
    let carla = Person::join(&server.url(), "carla", encoding, channel).await;
    berta.wait_for(|event| matches!(event, ClientEvent::Disconnected).then_some(())).await;
    let resumed = berta
        .wait_for(|event| match event {
            ClientEvent::Resumed(channels) => Some(channels),
            _ => None,
        })
        .await;
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].voice.stream_id, berta.joined.voice.stream_id, "the same stream");
    // Whether carla came before or after the resume: berta learns of it once.
    let carla_id = carla.id();
    berta
        .wait_for(|event| match event {
            ClientEvent::Message(message) => match *message {
                ServerMessage::UserJoined(joined) if joined.user_id == carla_id => Some(()),
                _ => None,
            },
            _ => None,
        })
        .await;

    berta.wait_for_udp().await;
    let (_, heard) = tokio::join!(anna.speak(25), berta.hear(25));
    assert_eq!(heard, (0..25).collect::<Vec<_>>());
    let (_, heard) = tokio::join!(berta.speak(25), anna.hear(25));
    assert_eq!(heard, (0..25).collect::<Vec<_>>());
    let stats = berta.client.stats().await.expect("goes on");
    assert!(stats.udp_works && stats.reception.lost == 0, "{stats:?}");

    let berta_id = berta.id();
    berta.client.close().await;
    // anna saw berta leave now, and not before.
    let leaves = anna
        .wait_for(|event| match event {
            ClientEvent::Message(message) => match *message {
                ServerMessage::UserLeft(left) => Some(left.user_id),
                _ => None,
            },
            _ => None,
        })
        .await;
    assert_eq!(leaves, berta_id);
    server.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_good_in_json() {
    a_lost_connection_is_made_good(Encoding::Json).await;
}

#[tokio::test]
async fn a_lost_connection_is_made_good_in_messagepack() {
    a_lost_connection_is_made_good(Encoding::MessagePack).await;
}

#[tokio::test]
async fn a_refused_join_says_why() {
    let server = TestServer::start(|_| {}).await;
    let channel = make_channel(&server).await;
    let anna = Person::join(&server.url(), "anna", Encoding::Json, channel).await;
    let join = JoinChannel {
        channel_id: ChannelId(uuid::Uuid::from_u128(77)),
        media: MediaTransport::Udp,
        mode: MediaMode::Forward,
        cipher: None,
        sample_rate: None,
        channels: None,
        invite: None,
    };
    let refused = anna.client.join(join).await.expect_err("no such channel");
    assert!(refused.to_string().contains("CHANNEL_NOT_FOUND"), "{refused}");
    let frame = VoiceFrame { kind: FrameKind::Audio, flags: 0, level: 0, timestamp: 0, bytes: vec![0xf8, 1] };
    assert!(anna.client.send(ChannelId(uuid::Uuid::from_u128(77)), frame).await.is_err());
    anna.client.close().await;
    server.stop().await;
}
