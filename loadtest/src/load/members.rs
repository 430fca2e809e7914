//! The gateway side of many clients: connect, join, and pass on to the swarm what concerns voice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antiphon_core::{
    gateway::{
        ChannelJoined, Cipher, Encoding, ErrorCode, JoinChannel, LeaveChannel, MediaMode, MediaTransport, ServerMessage,
    },
    ids::ChannelId,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    LoadError,
    account::TokenPair,
    swarm::{NewClient, Role, SwarmClock, ToSwarm},
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
const CONNECTING_MAX: usize = 64;

/// How long a join may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a connection is tried again when the server says that it is too busy.
const ATTEMPTS_MAX: u32 = 20;

/// What all clients share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) server: ServerUrl,
    pub(super) rest: Rest,
    /// Names the run, so that its guests and channels have names of their own.
    pub(super) run: String,
    pub(super) people: People,
    pub(super) encoding: Encoding,
    pub(super) cipher: Option<Cipher>,
    pub(super) clock: SwarmClock,
    pub(super) swarm: mpsc::Sender<ToSwarm>,
    /// Where in the 20 ms grid the server would have each channel's speakers.
    pub(super) phases_us: Arc<Mutex<HashMap<ChannelId, u32>>>,
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
}

impl Connected {
    /// A new guest, or one of the accounts, and the tokens that they have; `label` tells them from all others.
    pub(super) async fn connect_new(shared: &Shared, label: &str) -> Result<(Self, TokenPair), LoadError> {
        let People::Accounts { prefix, password } = &shared.people else {
            let guest = Self::connect(shared, Identity::Guest(format!("{}-{label}", shared.run))).await?;
            let tokens = guest.gateway.guest_tokens().ok_or(LoadError::Protocol("gave a guest no tokens"))?;
            let tokens = TokenPair::new(tokens.0.to_owned(), tokens.1.to_owned());
            return Ok((guest, tokens));
        };
        let name = format!("{prefix}-{label}");
        let account = match shared.rest.register(&name, password).await {
            Err(error) if error.code() == Some(ErrorCode::Conflict) => shared.rest.login(&name, password).await,
            registered => registered,
        }?;
        let connected = Self::connect(shared, Identity::Token(account.access_token.clone())).await?;
        Ok((connected, TokenPair::new(account.access_token, account.refresh_token)))
    }

    /// Connects, patiently where the server asks for it.
    pub(super) async fn connect(shared: &Shared, identity: Identity) -> Result<Self, LoadError> {
        let config =
            GatewayConfig { server: shared.server.clone(), others: Vec::new(), encoding: shared.encoding, identity };
        let mut attempt = 0;
        loop {
            match Gateway::connect(config.clone()).await {
                Ok((gateway, events)) => return Ok(Self { gateway, events }),
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
        let joined = tokio::time::timeout(JOIN_TIMEOUT, self.ask_to_join(shared, place.channel_id))
            .await
            .map_err(|_| LoadError::Protocol("did not answer a join within 30 s"))??;
        let took = begun.elapsed();
        let setup = joined.voice.udp.as_ref().ok_or(LoadError::Protocol("offers no UDP"))?;
        let peer = node_address(&shared.server, setup).await?;
        let mut voice = VoiceSession::new();
        voice.join(shared.clock.now(), place.channel_id, &joined.voice)?;
        let gateway = Arc::new(self.gateway);
        let client = NewClient {
            slot: place.slot,
            role: place.role,
            channel: place.channel,
            channel_id: place.channel_id,
            peer,
            wire: Wire::Node(Box::new(voice)),
            gateway: Some(Arc::clone(&gateway)),
        };
        shared.send(ToSwarm::Add(Box::new(client))).await?;
        let pump = tokio::spawn(pump(self.events, shared.clone(), place.slot)).abort_handle();
        Ok(InChannel { gateway, pump, slot: place.slot, channel_id: place.channel_id, took })
    }

    async fn ask_to_join(&mut self, shared: &Shared, channel_id: ChannelId) -> Result<ChannelJoined, LoadError> {
        let join = JoinChannel {
            channel_id,
            media: MediaTransport::Udp,
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

/// Where a client goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: usize,
    pub(super) channel: usize,
    pub(super) channel_id: ChannelId,
    pub(super) role: Role,
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
    pub(super) async fn send(&self, message: ToSwarm) -> Result<(), LoadError> {
        self.swarm.send(message).await.map_err(|_| LoadError::SwarmEnded)
    }
}

/// Passes on what concerns voice, until the session is over.
async fn pump(mut events: mpsc::Receiver<GatewayEvent>, shared: Shared, slot: usize) {
    while let Some(event) = events.recv().await {
        let message = match event {
            GatewayEvent::Message(message, _) => match *message {
                ServerMessage::QualityHint(hint) => {
                    let mut phases_us = shared.phases_us.lock().unwrap_or_else(PoisonError::into_inner);
                    phases_us.insert(hint.channel_id, hint.phase_us);
                    continue;
                }
                ServerMessage::KeyRotated(_)
                | ServerMessage::AudioStarted(_)
                | ServerMessage::UserJoined(_)
                | ServerMessage::UserLeft(_)
                | ServerMessage::AudioFrame(_) => ToSwarm::Message(slot, message),
                _ => continue,
            },
            GatewayEvent::Resumed(channels) => ToSwarm::Resumed(slot, channels),
            GatewayEvent::Closed(closed) => {
                tracing::warn!(slot, %closed, "a client's session ended");
                break;
            }
            GatewayEvent::Disconnected => continue,
        };
        if shared.swarm.send(message).await.is_err() {
            break;
        }
    }
}

/// Connects `count` clients.
pub(super) async fn connect_all(
    shared: &Shared,
    count: usize,
    progress: impl Fn(usize),
) -> Result<Vec<(Connected, TokenPair)>, LoadError> {
    let limit = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let (shared, limit) = (shared.clone(), Arc::clone(&limit));
        tasks.spawn(async move {
            let _permit = limit.acquire().await.map_err(|_| LoadError::SwarmEnded)?;
            Connected::connect_new(&shared, &index.to_string()).await
        });
    }
    let mut connected = Vec::with_capacity(count);
    while let Some(result) = tasks.join_next().await {
        connected.push(result.map_err(|_| LoadError::SwarmEnded)??);
        progress(connected.len());
    }
    Ok(connected)
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
