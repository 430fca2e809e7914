//! What the nodes of a cluster share, in Redis: the register of nodes, membership with its journals, session records.
//!
//! ```text
//!   rooms, gateway ──▶ RedisRegistry, RedisMembership, RedisSessions     each call: one script, one step
//!                                   │
//!                                 Shared     the connection of now, the lease
//!                                   │
//!   notices ◀── pubsub ◀───────── keeper     connects, registers, listens, renews; begins anew when anything is wrong
//! ```
//!
//! Redis is a private network's server that may die at any time. Whoever asks gets an answer or a refusal within
//! [`RedisConfig::patience`], and what was refused does not happen later ([`shared`]). The media path asks nothing here.

mod codec;
mod connection;
mod facts;
mod keeper;
mod keys;
mod membership;
mod pubsub;
mod registry;
mod script;
mod sessions;
mod shared;
mod sweep;

use std::{path::PathBuf, sync::Arc, time::Duration};

use antiphon_core::ids::NodeId;
use tokio::{sync::mpsc, task::AbortHandle};

use self::{connection::Target, shared::Shared};
pub use self::{facts::RedisFacts, membership::RedisMembership, registry::RedisRegistry, sessions::RedisRecords};
use super::{
    MembershipConfig,
    entry::Notice,
    registry::{NodeRecord, SharedState},
    sessions::SessionNotice,
};

/// Requests to the keeper that may wait.
const REQUESTS: usize = 1_024;

/// Where Redis is, and how long things take.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, each also with `-cluster` or `-sentinel`.
    pub url: String,
    /// A PEM file of the certificates that the server's must be signed by, when not one of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a node that is not heard of is taken for alive.
    pub lease_ttl: Duration,
    /// How often it is heard of.
    pub renew_every: Duration,
    /// How often a node listens for itself; three misses mean that it is deaf.
    pub probe_every: Duration,
    /// How long an operation may take.
    pub patience: Duration,
    /// How long after a node's death its members are removed: as long as their sessions can be taken up elsewhere.
    pub sweep_grace: Duration,
    /// How long a session's record outlives its node; some more than the grace, for records are kept alive now and
    /// then only.
    pub session_ttl: Duration,
    /// How long the first connection is waited for.
    pub start_patience: Duration,
    /// Notices that may wait; when there are more, everything must be read anew.
    pub notices: usize,
    /// What is kept of each channel.
    pub membership: MembershipConfig,
}

impl RedisConfig {
    /// The usual times.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            lease_ttl: Duration::from_secs(5),
            renew_every: Duration::from_secs(1),
            probe_every: Duration::from_millis(500),
            patience: Duration::from_millis(800),
            sweep_grace: Duration::from_secs(30),
            session_ttl: Duration::from_secs(45),
            start_patience: Duration::from_secs(30),
            notices: 16_384,
            membership: MembershipConfig::default(),
        }
    }
}

/// Why a node has no place in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL is none of Redis.
    #[error("the URL is none of Redis: {0}")]
    Url(String),
    /// The file of certificates is of no use.
    #[error("cannot use the certificates in {}: {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Redis cannot be reached, or answered with an error.
    #[error("{0}")]
    Unavailable(String),
    /// A process that started later runs under the same name.
    #[error("another process, started later, runs as the node {0} (cluster.node_id)")]
    NodeIdTaken(NodeId),
    /// The others have given this node up.
    #[error("the others have given this node up")]
    GivenUp,
    /// The node has given its place up.
    #[error("the node has given its place up")]
    Over,
}

impl From<fred::error::Error> for RedisError {
    fn from(error: fred::error::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<codec::Unreadable> for RedisError {
    fn from(error: codec::Unreadable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A node's hold on what all nodes share. It is let go with the last of the parts.
#[derive(Debug)]
pub struct RedisCluster {
    /// The register of nodes.
    pub registry: RedisRegistry,
    /// Who is in which channel.
    pub membership: RedisMembership,
    /// What the node hears of channels.
    pub notices: mpsc::Receiver<Notice>,
    /// Which node has which session.
    pub records: RedisRecords,
    /// What the node hears of sessions.
    pub session_notices: mpsc::Receiver<SessionNotice>,
}

impl RedisCluster {
    /// Connects and registers `node`.
    ///
    /// # Errors
    /// When the settings are wrong, or Redis cannot be reached for as long as that is waited for.
    pub async fn start(config: RedisConfig, node: NodeRecord) -> Result<Self, RedisError> {
        let target = Target::new(&config.url, config.ca_file.as_deref())?;
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (tell, notices) = mpsc::channel(config.notices.max(1));
        let (tell_of_sessions, session_notices) = mpsc::channel(config.notices.max(1));
        let start_patience = config.start_patience;
        let shared = Arc::new(Shared::new(config, node, requests, tell, tell_of_sessions));
        let (problem, mut problems) = tokio::sync::watch::channel(None);
        let keeper = tokio::spawn(keeper::keep(Arc::clone(&shared), target, asked, problem));
        let handle = Handle(Arc::new(Inner { shared, keeper: keeper.abort_handle() }));
        let mut view = handle.shared().view.subscribe();
        let is_up = view.wait_for(|view| view.shared == SharedState::Up);
        if tokio::time::timeout(start_patience, is_up).await.is_err() {
            let why = problems.borrow_and_update().clone();
            return Err(RedisError::Unavailable(why.unwrap_or_else(|| "no answer".to_owned())));
        }
        Ok(Self {
            registry: RedisRegistry::new(handle.clone()),
            membership: RedisMembership::new(handle.clone()),
            notices,
            records: RedisRecords::new(handle),
            session_notices,
        })
    }
}

/// Keeps the keeper going as long as there is one.
#[derive(Clone, Debug)]
struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

impl Handle {
    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
