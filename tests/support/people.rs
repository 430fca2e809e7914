//! People in channels: the native client, and frames that are easy to check.

use std::time::Duration;

use antiphon_core::{
    gateway::{ChannelJoined, Cipher, Encoding, JoinChannel, MediaMode, MediaTransport, ServerMessage},
    ids::ChannelId,
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent, HeardFrame, VoiceFrame},
    gateway::{GatewayConfig, Identity},
    rest::{NewChannel, Rest},
};
use tokio::{sync::mpsc, time::timeout};

use super::process::Process;

/// Far above what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody in a channel.
pub struct Person {
    pub client: Client,
    pub events: mpsc::Receiver<ClientEvent>,
    pub joined: ChannelJoined,
}

/// Makes an account that may create channels, and a channel.
pub async fn make_channel(server: &Process, name: &str, max_users: u32) -> ChannelId {
    let rest = Rest::new(server.url()).expect("a client");
    let owner = rest.register(&format!("owner-of-{name}"), "a long enough password").await.expect("registered");
    let channel = NewChannel { name: name.to_owned(), max_users: Some(max_users), max_speakers: None };
    rest.create_channel(&owner.access_token, &channel).await.expect("created").id
}

impl Person {
    /// A guest who joins.
    pub async fn join(server: &Process, name: &str, channel: ChannelId) -> Self {
        Self::join_with(server, Vec::new(), name, channel).await
    }

    /// A guest who joins and knows other nodes to resume at.
    pub async fn join_with(server: &Process, others: Vec<ServerUrl>, name: &str, channel: ChannelId) -> Self {
        Self::join_at(server.url(), others, name, channel).await
    }

    /// Likewise by the URL of a node, or of what leads to one.
    pub async fn join_at(server: ServerUrl, others: Vec<ServerUrl>, name: &str, channel: ChannelId) -> Self {
        Self::join_as(server, others, Identity::Guest(name.to_owned()), channel).await
    }

    /// Somebody who may be known already.
    pub async fn join_as(server: ServerUrl, others: Vec<ServerUrl>, identity: Identity, channel: ChannelId) -> Self {
        let config = GatewayConfig { server, others, encoding: Encoding::Json, identity };
        let (client, events) = Client::connect(config).await.expect("connected");
        let joined = client.join(how_to_join(channel)).await.expect("joined");
        Self { client, events, joined }
    }

    pub fn channel(&self) -> ChannelId {
        self.joined.channel_id
    }

    /// Waits until frames go by UDP, or no longer do.
    pub async fn udp_becomes(&mut self, works: bool) {
        let wait = async {
            while self.client.stats().await.expect("alive").udp_works != works {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("UDP works: never {works}"));
    }

    /// Says one frame whose bytes tell its number.
    pub async fn say(&self, number: u32) {
        self.client.send(self.channel(), voice_frame(number)).await.expect("sent");
    }

    /// The next frame heard.
    pub async fn hear(&mut self) -> HeardFrame {
        let wait = async {
            loop {
                match self.events.recv().await.expect("the session lives") {
                    ClientEvent::Frame(frame) => return frame,
                    ClientEvent::Closed(closed) => panic!("closed: {closed:?}"),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("a frame is heard")
    }
}

pub fn how_to_join(channel: ChannelId) -> JoinChannel {
    JoinChannel {
        channel_id: channel,
        media: MediaTransport::Udp,
        mode: MediaMode::Forward,
        cipher: Some(Cipher::Aes128Gcm),
        sample_rate: None,
        channels: None,
        invite: None,
    }
}

/// A frame whose bytes tell its number.
pub fn voice_frame(number: u32) -> VoiceFrame {
    VoiceFrame {
        kind: if number == 0 { FrameKind::AudioStart } else { FrameKind::Audio },
        flags: 0,
        level: 30,
        timestamp: number * 960,
        bytes: payload(number),
    }
}

/// Bytes of an Opus packet (CELT, 20 ms, mono) that tell their number.
pub fn payload(number: u32) -> Vec<u8> {
    let mut bytes = vec![0xf8];
    bytes.extend(number.to_be_bytes());
    bytes
}

/// The number in a frame's bytes.
pub fn number_of(frame: &HeardFrame) -> u32 {
    let digits = frame.bytes.get(1..5).expect("one of our payloads");
    u32::from_be_bytes(digits.try_into().expect("four bytes"))
}

/// A gateway session without any voice of its own: it joins and never binds.
pub struct RawGateway {
    gateway: antiphon_loadtest::gateway::Gateway,
    events: mpsc::Receiver<antiphon_loadtest::gateway::GatewayEvent>,
}

/// Connects a guest.
pub async fn raw_gateway(server: &Process, name: &str) -> RawGateway {
    let config = GatewayConfig {
        server: server.url(),
        others: Vec::new(),
        encoding: Encoding::Json,
        identity: Identity::Guest(name.to_owned()),
    };
    let (gateway, events) = antiphon_loadtest::gateway::Gateway::connect(config).await.expect("connected");
    RawGateway { gateway, events }
}

impl RawGateway {
    /// Joins; what the server says of it.
    pub async fn join(&mut self, join: JoinChannel) -> ChannelJoined {
        self.gateway.send(join).await.expect("sent");
        let wait = async {
            loop {
                if let Some(antiphon_loadtest::gateway::GatewayEvent::Message(message, _)) = self.events.recv().await
                    && let ServerMessage::ChannelJoined(joined) = *message
                {
                    return joined;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("joined")
    }
}
