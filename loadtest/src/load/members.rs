//! The gateway side of many clients: connect, join, and pass on to the swarm what concerns voice.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    gateway::{
        ChannelJoined, Cipher, Encoding, JoinChannel, LeaveChannel, MediaMode, MediaTransport, ServerMessage,
        Subscribe, SubscribeAnswer, SubscribeAnswerPayload, SubscribePayload,
    },
    ids::ChannelId,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    LoadError,
    account::{TokenPair, sign_in},
    peer::{self, PeerWire},
    spread,
    swarm::{NewClient, Progress, Role, SwarmClock, ToSwarm},
    system::realtime_ns,
    wire::Wire,
};
use crate::{
    ServerUrl,
    client::node_address,
    gateway::{Gateway, GatewayConfig, GatewayEvent, Identity},
    rest::Rest,
    voice::VoiceSession,
};

/// Connections being made at once.
pub(super) const CONNECTING_MAX: usize = 64;

/// How long a join may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a connection is tried again when the server says that it is too busy.
pub(super) const ATTEMPTS_MAX: u32 = 20;

/// What all clients share.
#[derive(Clone)]
pub(super) struct Shared {
    /// The nodes under test, and their APIs in the same order.
    pub(super) servers: Arc<[ServerUrl]>,
    pub(super) rests: Arc<[Rest]>,
    /// Names the run, so that its guests and channels have names of their own.
    pub(super) run: String,
    pub(super) people: People,
    pub(super) encoding: Encoding,
    pub(super) cipher: Option<Cipher>,
    /// Between two sweeps over sockets; `None` is a few ms, more for very many.
    pub(super) sweep_interval: Option<Duration>,
    pub(super) clock: SwarmClock,
    pub(super) swarm: mpsc::Sender<ToSwarm>,
    pub(super) progress: Arc<Progress>,
    /// Where in the 20 ms grid the server would have each channel's speakers.
    pub(super) phases_us: Arc<Mutex<HashMap<ChannelId, u32>>>,
    /// Sessions that ended though nobody wanted it.
    pub(super) sessions_ended: Arc<AtomicU64>,
}

/// Who the clients are.
#[derive(Clone, PartialEq, Eq)]
pub enum People {
    /// Guests, made for the run.
    Guests,
    /// Accounts `PREFIX-0`, `PREFIX-1` and so on, with one password; those that do not exist are registered.
    Accounts {
        /// What their names begin with.
        prefix: String,
        /// Everyone's.
        password: String,
    },
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Guests => f.write_str("Guests"),
            Self::Accounts { prefix, .. } => write!(f, "Accounts({prefix}-0, ..)"),
        }
    }
}

/// A client that is connected and in no channel yet.
pub(super) struct Connected {
    gateway: Gateway,
    events: mpsc::Receiver<GatewayEvent>,
    /// The node that the session is at.
    node: usize,
}

impl Connected {
    /// A new guest, or one of the accounts, and the tokens that they have; `label` tells them from all others.
    pub(super) async fn connect_new(shared: &Shared, seat: Seat, label: &str) -> Result<(Self, TokenPair), LoadError> {
        if shared.people == People::Guests {
            let guest = Self::connect(shared, seat, Identity::Guest(format!("{}-{label}", shared.run))).await?;
            let tokens = guest.gateway.guest_tokens().ok_or(LoadError::Protocol("gave a guest no tokens"))?;
            let tokens = TokenPair::new(tokens.0.to_owned(), tokens.1.to_owned());
            return Ok((guest, tokens));
        }
        let account = sign_in(shared, 0, label).await?;
        let connected = Self::connect(shared, seat, Identity::Token(account.access_token.clone())).await?;
        Ok((connected, TokenPair::of(account)))
    }

    /// Connects, patiently where the server asks for it.
    pub(super) async fn connect(shared: &Shared, seat: Seat, identity: Identity) -> Result<Self, LoadError> {
        let Seat { node, client } = seat;
        let others = spread::others(node, client, shared.servers.len());
        let config = GatewayConfig {
            server: shared.servers[node].clone(),
            others: others.into_iter().map(|other| shared.servers[other].clone()).collect(),
            encoding: shared.encoding,
            identity,
        };
        let mut attempt = 0;
        loop {
            match Gateway::connect(config.clone()).await {
                Ok((gateway, events)) => return Ok(Self { gateway, events, node }),
                Err(error) if attempt < ATTEMPTS_MAX && error.is_passing() => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Joins a channel; the swarm then has the client's voice, and a task of its own passes on what concerns it.
    pub(super) async fn join(mut self, shared: &Shared, place: Place) -> Result<InChannel, LoadError> {
        let begun = Instant::now();
        let joined = tokio::time::timeout(JOIN_TIMEOUT, self.ask_to_join(shared, place))
            .await
            .map_err(|_| LoadError::Protocol("did not answer a join within 30 s"))??;
        let took = begun.elapsed();
        shared.progress.joins.fetch_add(1, Ordering::Relaxed);
        let (peer, wire, offer) = self.wire(shared, place, &joined).await?;
        let gateway = Arc::new(self.gateway);
        let client = NewClient {
            slot: place.slot,
            role: place.role,
            channel: place.channel,
            channel_id: place.channel_id,
            node: self.node,
            peer,
            quiet: place.quiet,
            wire,
            gateway: Some(Arc::clone(&gateway)),
        };
        shared.send(ToSwarm::Add(Box::new(client))).await?;
        if let Some(sdp) = offer {
            answer(shared, &gateway, place.slot, sdp).await?;
        }
        // Offers are answered through the gateway, whose last handle ends the session.
        let answers = Arc::downgrade(&gateway);
        let pump = tokio::spawn(pump(self.events, answers, shared.clone(), place.slot)).abort_handle();
        Ok(InChannel { gateway, pump, slot: place.slot, channel_id: place.channel_id, took })
    }

    /// The client's way: where it leads, what travels there, and what a node offers for it that is to be answered.
    async fn wire(
        &mut self,
        shared: &Shared,
        place: Place,
        joined: &ChannelJoined,
    ) -> Result<(Option<SocketAddr>, Wire, Option<String>), LoadError> {
        if place.media == MediaTransport::Webrtc {
            let offer = tokio::time::timeout(JOIN_TIMEOUT, self.ask_for_offer())
                .await
                .map_err(|_| LoadError::Protocol("offered nothing to hear by WebRTC within 30 s"))??;
            let peer = peer::candidate(&offer).ok_or(LoadError::Protocol("offers no way to it by WebRTC"))?;
            return Ok((Some(peer), Wire::Peer(Box::new(PeerWire::new(shared.clock))), Some(offer)));
        }
        let peer = match joined.voice.udp.as_ref() {
            Some(setup) => Some(node_address(&shared.servers[self.node], setup).await?),
            None if place.media == MediaTransport::Websocket => None,
            None => return Err(LoadError::Protocol("offers no UDP")),
        };
        let mut voice = VoiceSession::new();
        voice.join(shared.clock.now(), place.channel_id, &joined.voice)?;
        Ok((peer, Wire::Node(Box::new(voice)), None))
    }

    /// Asks to hear everyone; the offer that comes.
    async fn ask_for_offer(&mut self) -> Result<String, LoadError> {
        self.gateway.send(Subscribe { payload: SubscribePayload::default() }).await?;
        while let Some(event) = self.events.recv().await {
            match event {
                GatewayEvent::Message(message, _) => match *message {
                    ServerMessage::SubscribeOffer(offer) => return Ok(offer.payload.sdp),
                    ServerMessage::Error(error) => return Err(LoadError::Refused(error)),
                    _ => {}
                },
                GatewayEvent::Closed(closed) => return Err(LoadError::Closed(closed)),
                _ => {}
            }
        }
        Err(LoadError::Protocol("ended the session before it offered anything"))
    }

    async fn ask_to_join(&mut self, shared: &Shared, place: Place) -> Result<ChannelJoined, LoadError> {
        let join = JoinChannel {
            channel_id: place.channel_id,
            media: place.media,
            mode: MediaMode::Forward,
            cipher: shared.cipher,
            sample_rate: None,
            channels: None,
            invite: None,
        };
        let request = self.gateway.send(join).await?;
        while let Some(event) = self.events.recv().await {
            match event {
                GatewayEvent::Message(message, answers) if answers == Some(request) => match *message {
                    ServerMessage::ChannelJoined(joined) => return Ok(joined),
                    ServerMessage::Error(error) => return Err(LoadError::Refused(error)),
                    _ => return Err(LoadError::Protocol("answered a join with something else")),
                },
                GatewayEvent::Closed(closed) => return Err(LoadError::Closed(closed)),
                _ => {}
            }
        }
        Err(LoadError::Protocol("ended the session during a join"))
    }
}

/// Which node a client connects to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Its place in the list of servers.
    pub(super) node: usize,
    /// The client's number; neighbours go elsewhere when their node is lost.
    pub(super) client: usize,
}

/// Where a client goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: usize,
    pub(super) channel: usize,
    pub(super) channel_id: ChannelId,
    pub(super) role: Role,
    /// How voice travels.
    pub(super) media: MediaTransport,
    /// Whether nobody talks there, now or later.
    pub(super) quiet: bool,
}

/// A client in a channel.
pub(super) struct InChannel {
    gateway: Arc<Gateway>,
    pump: AbortHandle,
    slot: usize,
    channel_id: ChannelId,
    /// How long joining took.
    pub(super) took: Duration,
}

impl InChannel {
    /// Leaves the channel and the server.
    pub(super) async fn leave(self, shared: &Shared) -> Result<(), LoadError> {
        self.gateway.send(LeaveChannel { channel_id: self.channel_id }).await?;
        shared.send(ToSwarm::Remove(self.slot)).await?;
        self.end().await;
        Ok(())
    }

    /// Ends the session.
    pub(super) async fn end(self) {
        self.pump.abort();
        self.gateway.close().await;
    }
}

impl Shared {
    /// The first node's API.
    pub(super) fn rest(&self) -> &Rest {
        &self.rests[0]
    }

    pub(super) async fn send(&self, message: ToSwarm) -> Result<(), LoadError> {
        self.swarm.send(message).await.map_err(|_| LoadError::SwarmEnded)
    }
}

/// Has the swarm answer an offer.
async fn answer(shared: &Shared, gateway: &Gateway, slot: usize, sdp: String) -> Result<(), LoadError> {
    let (answer, answered) = oneshot::channel();
    shared.send(ToSwarm::Offer { slot, sdp, answer }).await?;
    let sdp = answered.await.map_err(|_| LoadError::Protocol("offers what WebRTC here does not understand"))?;
    gateway.send(SubscribeAnswer { payload: SubscribeAnswerPayload { sdp } }).await?;
    Ok(())
}

/// Passes on what concerns voice, until the session is over.
async fn pump(mut events: mpsc::Receiver<GatewayEvent>, gateway: Weak<Gateway>, shared: Shared, slot: usize) {
    while let Some(event) = events.recv().await {
        let at_ns = realtime_ns();
        let message = match event {
            GatewayEvent::Message(message, _) => match *message {
                ServerMessage::QualityHint(hint) => {
                    let mut phases_us = shared.phases_us.lock().unwrap_or_else(PoisonError::into_inner);
                    phases_us.insert(hint.channel_id, hint.phase_us);
                    continue;
                }
                ServerMessage::SubscribeOffer(offer) => {
                    let Some(gateway) = gateway.upgrade() else { break };
                    if let Err(error) = answer(&shared, &gateway, slot, offer.payload.sdp).await {
                        tracing::warn!(slot, %error, "an offer is not answered");
                    }
                    continue;
                }
                ServerMessage::KeyRotated(_)
                | ServerMessage::AudioStarted(_)
                | ServerMessage::UserJoined(_)
                | ServerMessage::UserLeft(_)
                | ServerMessage::AudioFrame(_) => ToSwarm::Message(slot, message, at_ns),
                _ => continue,
            },
            GatewayEvent::Resumed { server, channels } => {
                ToSwarm::Resumed(slot, peer_after(&server, &channels).await, channels)
            }
            GatewayEvent::Closed(closed) => {
                // The first says why; thousands would say no more.
                if shared.sessions_ended.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(slot, %closed, "a client's session ended");
                }
                break;
            }
            GatewayEvent::Disconnected => continue,
        };
        if shared.swarm.send(message).await.is_err() {
            break;
        }
    }
}

/// Where the voice of a session goes that goes on at that server.
async fn peer_after(server: &ServerUrl, channels: &[ChannelJoined]) -> Option<SocketAddr> {
    let setup = channels.iter().find_map(|joined| joined.voice.udp.as_ref())?;
    let peer = node_address(server, setup).await;
    peer.inspect_err(|error| tracing::warn!(%error, "UDP is not used after the resume")).ok()
}

/// Connects a client for each seat; they come back in that order.
pub(super) async fn connect_all(
    shared: &Shared,
    seats: Vec<Seat>,
    progress: impl Fn(usize),
) -> Result<Vec<(Connected, TokenPair)>, LoadError> {
    let limit = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for (index, seat) in seats.into_iter().enumerate() {
        let (shared, limit) = (shared.clone(), Arc::clone(&limit));
        tasks.spawn(async move {
            let _permit = limit.acquire().await.map_err(|_| LoadError::SwarmEnded)?;
            Ok::<_, LoadError>((index, Connected::connect_new(&shared, seat, &index.to_string()).await?))
        });
    }
    let mut connected = BTreeMap::new();
    while let Some(result) = tasks.join_next().await {
        connected.extend([result.map_err(|_| LoadError::SwarmEnded)??]);
        progress(connected.len());
    }
    Ok(connected.into_values().collect())
}

/// Lets everyone join, at most `per_second` where that is given, else all at once.
pub(super) async fn join_all(
    shared: &Shared,
    clients: Vec<(Connected, Place)>,
    per_second: Option<f64>,
    progress: impl Fn(usize),
) -> Result<Vec<InChannel>, LoadError> {
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    let count = clients.len();
    for (index, (client, place)) in clients.into_iter().enumerate() {
        if let Some(rate) = per_second {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(index as f64 / rate)).await;
        }
        let shared = shared.clone();
        tasks.spawn(async move { client.join(&shared, place).await });
    }
    let mut joined = Vec::with_capacity(count);
    while let Some(result) = tasks.join_next().await {
        joined.push(result.map_err(|_| LoadError::SwarmEnded)??);
        progress(joined.len());
    }
    Ok(joined)
}
