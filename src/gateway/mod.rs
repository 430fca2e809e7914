//! The gateway: WebSocket connections, the sessions that outlive them, and the messages of clients.
//!
//! `socket` makes a WebSocket of an HTTP request, `connection` runs it, `outbox` is what waits to be written, `budget` bounds that for all together, `company`
//! lets that wait for a moment, `handle` carries out what a client asks for, `sessions` keeps who is who over reconnects, `records` lets a session move between
//! nodes, `watching` tells administrators who listens, `limits` and `close` say how much is too much and how a connection ends.

mod budget;
mod close;
mod company;
mod connection;
mod handle;
mod limits;
mod metered;
mod outbox;
mod records;
mod sessions;
mod socket;
mod token;
mod upgrade;
mod watching;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    gateway::{Encoding, LeaveReason, Reconnect},
    ids::UserId,
};
use dashmap::DashMap;
use tokio::sync::{Notify, mpsc};

pub use close::CloseCause;
pub use limits::{Rate, Rates};
pub use outbox::OutboxLimits;
pub use upgrade::{any_path_router, router};

use self::{
    budget::Budget,
    company::Company,
    outbox::{End, Outbox},
    sessions::{Attachment, Sessions},
    watching::Watchers,
};
use crate::{
    auth::Auth,
    chat::Chat,
    cluster::{SessionNotice, SessionRecords},
    origins::Origins,
    places::Places,
    rooms::{RESUME_GRACE, Rooms, Shared},
    telemetry::metrics::metrics,
};

/// What can be set of the gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// This node's name, for `Hello`.
    pub node: String,
    /// How often clients are to send a heartbeat; three silent ones end the connection.
    pub heartbeat: Duration,
    /// How long a client may take to authenticate.
    pub authentication: Duration,
    /// How long a session without a connection, and its places in channels, are kept.
    pub resume_grace: Duration,
    /// How long a client may take to read our Close and to close in turn.
    pub close_linger: Duration,
    /// So many malformed or unknown messages a minute end the connection.
    pub malformed_per_minute: u32,
    /// What one account may send.
    pub rates: Rates,
    /// Whose pages may connect from a browser, beside this server's own.
    pub allowed_origins: Origins,
    /// Connections at once, authenticated or not.
    pub connections: usize,
    /// Of those, from one address.
    pub connections_per_address: u32,
    /// Sessions that one account may have at once.
    pub sessions_per_account: usize,
    /// What may wait for one connection.
    pub outbox: OutboxLimits,
    /// Bytes of encoded messages that may wait for all connections together.
    pub unread_bytes: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            node: "antiphon".to_owned(),
            heartbeat: Duration::from_secs(10),
            authentication: Duration::from_secs(10),
            resume_grace: RESUME_GRACE,
            close_linger: Duration::from_secs(10),
            malformed_per_minute: 10,
            rates: Rates::default(),
            allowed_origins: Origins::default(),
            connections: 100_000,
            connections_per_address: 25_000,
            sessions_per_account: 64,
            outbox: OutboxLimits::default(),
            unread_bytes: 256 << 20,
        }
    }
}

/// How long a node that stops waits for its clients to read the Close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The gateway of this node. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    config: GatewayConfig,
    auth: Auth,
    rooms: Rooms,
    chat: Chat,
    sessions: Sessions,
    watchers: Watchers,
    records: SessionRecords,
    connections: DashMap<u64, Arc<Outbox>>,
    /// Those that each address has.
    places: Arc<Places<IpAddr>>,
    /// Those of them that have just written.
    company: Arc<Company>,
    budget: Arc<Budget>,
    next_connection: AtomicU64,
    /// Wakes whoever waits for the last connection to end.
    connection_ended: Notify,
    draining: AtomicBool,
    /// It is about to be looked whose account was switched off.
    awaits_unusable: AtomicBool,
}

impl Gateway {
    /// A gateway to `rooms` and `chat` for whom `auth` knows, of a node among those that share `records`; its notices are followed
    /// in a task of their own.
    #[must_use]
    pub fn new(
        auth: Auth,
        rooms: Rooms,
        chat: Chat,
        (records, notices): (SessionRecords, mpsc::Receiver<SessionNotice>),
        config: GatewayConfig,
    ) -> Self {
        let sessions = Sessions::new(config.rates, config.sessions_per_account);
        let budget = Arc::new(Budget::new(config.unread_bytes));
        let places = Arc::new(Places::unseen(u32::MAX, config.connections_per_address));
        let gateway = Self {
            inner: Arc::new(Inner {
                config,
                auth,
                rooms,
                chat,
                sessions,
                watchers: Watchers::new(),
                records,
                connections: DashMap::new(),
                places,
                company: Arc::default(),
                budget,
                next_connection: AtomicU64::new(0),
                connection_ended: Notify::new(),
                draining: AtomicBool::new(false),
                awaits_unusable: AtomicBool::new(false),
            }),
        };
        tokio::spawn(gateway.clone().hear(notices));
        tokio::spawn(gateway.clone().keep_within_budget());
        gateway
    }

    /// Open connections, authenticated or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.len()
    }

    /// Sessions, connected or waiting to be resumed.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.inner.sessions.count()
    }

    /// Guests who are here: with a session, or heard or listening in a channel without one. Nobody twice.
    #[must_use]
    pub fn guests(&self) -> Vec<UserId> {
        let mut guests = self.rooms().guests();
        guests.extend(self.sessions().guests());
        guests.into_iter().collect()
    }

    /// Forgets what accounts without sessions have used up and got back. To be called every minute or so.
    pub fn sweep(&self) {
        self.inner.sessions.sweep(self.inner.rooms.now());
    }

    /// Ends all sessions of an account that was switched off, on all nodes: their connections close with 4014.
    pub async fn disconnect_user(&self, user: UserId) {
        self.end_sessions_of(user).await;
        self.inner.records.account_disabled(user).await;
    }

    /// Takes no new connections until [`Self::cancel_drain`].
    pub fn begin_drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Takes connections again. Who has gone stays away.
    pub fn cancel_drain(&self) {
        self.inner.draining.store(false, Ordering::Release);
    }

    /// Asks every client to resume at one of `nodes` (HTTP URLs of others) within `grace`.
    pub fn ask_to_go(&self, reason: &str, grace: Duration, nodes: Vec<String>) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let message = Shared::new(Reconnect { reason: reason.to_owned(), grace_ms, nodes });
        self.each_connection(|outbox| outbox.send_to_session(&message));
    }

    /// Closes every connection with 4012 and waits a moment for the clients to read that.
    pub async fn close_all(&self) {
        let cause = self.parting();
        self.each_connection(|outbox| outbox.end(End::Close(cause)));
        // Who reads the Close answers it at once, and the others are not waited for.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, self.until_empty()).await;
    }

    fn each_connection(&self, act: impl Fn(&Outbox)) {
        // Copied first: an end may want to remove its own entry.
        self.outboxes().iter().for_each(|outbox| act(outbox));
    }

    /// Waits until no connection is left.
    pub async fn until_empty(&self) {
        loop {
            let ended = self.inner.connection_ended.notified();
            if self.inner.connections.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.inner.connections.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// The queues of a new connection.
    fn outbox(&self, encoding: Encoding) -> Arc<Outbox> {
        let Inner { config, company, budget, .. } = &*self.inner;
        Arc::new(Outbox::new(encoding, config.outbox, Arc::clone(company), Arc::clone(budget)))
    }

    /// The rooms of this node.
    #[must_use]
    pub fn rooms(&self) -> &Rooms {
        &self.inner.rooms
    }

    fn chat(&self) -> &Chat {
        &self.inner.chat
    }

    fn auth(&self) -> &Auth {
        &self.inner.auth
    }

    fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Counts a connection for as long as what this yields lives. One that comes when a drain has begun, or when there are
    /// as many as there may be, is closed and told to go elsewhere.
    fn register(&self, outbox: &Arc<Outbox>) -> Registered {
        let id = self.inner.next_connection.fetch_add(1, Ordering::Relaxed);
        self.inner.connections.insert(id, Arc::clone(outbox));
        metrics().gateway.connections.increment(1.0);
        let registered = Registered { gateway: self.clone(), id };
        // Looked at after the insertion, so that a drain either sees the connection or is seen by it, and so that many
        // at once are counted, too.
        if self.is_draining() || self.connections() > self.config().connections {
            outbox.end(End::Close(self.parting()));
        }
        registered
    }

    /// Why connections are closed when the node drains.
    fn parting(&self) -> CloseCause {
        if self.inner.records.is_shared() { CloseCause::Draining } else { CloseCause::Stopping }
    }

    /// Ends a session whose client said goodbye.
    async fn end_session(&self, attachment: &Attachment) {
        if self.inner.sessions.end(attachment) {
            self.inner.chat.departed(&attachment.session.presence);
            self.inner.rooms.end(&attachment.session.presence, LeaveReason::Left).await;
            self.release_record(&attachment.session).await;
        }
    }

    /// Keeps a session whose connection was lost for the resume grace, then ends it.
    fn lose_session(&self, attachment: &Attachment) {
        if !attachment.lose() {
            return;
        }
        let (gateway, attachment) = (self.clone(), attachment.clone());
        tokio::spawn(async move {
            tokio::time::sleep(gateway.config().resume_grace).await;
            if gateway.inner.sessions.expire(&attachment) {
                gateway.inner.chat.departed(&attachment.session.presence);
                gateway.inner.rooms.end(&attachment.session.presence, LeaveReason::Timeout).await;
                gateway.release_record(&attachment.session).await;
            }
        });
    }
}

/// An open connection as the gateway counts it.
struct Registered {
    gateway: Gateway,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.gateway.inner.connections.remove(&self.id);
        metrics().gateway.connections.decrement(1.0);
        self.gateway.inner.connection_ended.notify_waiters();
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gateway({} connections, {} sessions)", self.connections(), self.sessions_count())
    }
}
