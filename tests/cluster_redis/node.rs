//! A node, as these tests use it.

use std::{sync::Arc, time::Duration};

use antiphon::cluster::{
    ClusterView, Entry, Joined, Leave, Load, Member, NewMember, NodeRecord, NodeState, NodeStatistics, Notice,
    RedisCluster, RedisConfig, RedisMembership, RedisRecords, Registry, SessionNotice, SharedState,
};
use antiphon_core::{
    gateway::{LeaveReason, MediaTransport, Role, ServerMessage, UserView},
    ids::{ChannelId, NodeId, NodeNumber, SessionId, StreamId, UserId},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use uuid::Uuid;

/// Only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(0xC0));

pub(crate) struct Node {
    pub(crate) registry: Registry,
    pub(crate) membership: RedisMembership,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) records: RedisRecords,
    pub(crate) session_notices: mpsc::Receiver<SessionNotice>,
    pub(crate) view: watch::Receiver<Arc<ClusterView>>,
}

/// Short times, so that tests are.
pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig {
        lease_ttl: Duration::from_millis(1_500),
        renew_every: Duration::from_millis(250),
        probe_every: Duration::from_millis(250),
        sweep_grace: Duration::from_millis(500),
        ..RedisConfig::new(url)
    }
}

pub(crate) fn record(name: &str) -> NodeRecord {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    NodeRecord {
        node_id: NodeId(name.to_owned()),
        number: NodeNumber(0),
        started_at_us: u64::try_from(since.as_micros()).expect("before the year 500000"),
        http_url: format!("http://{name}"),
        relay: ([127, 0, 0, 1], 3003).into(),
        workers: 2,
        relay_versions: (1, 1),
        capacity: 200,
        state: NodeState::Serving,
        load: Load::default(),
        release: "test".to_owned(),
        statistics: NodeStatistics::default(),
    }
}

impl Node {
    pub(crate) async fn start(url: &str, name: &str) -> Self {
        Self::start_with(config(url), name).await
    }

    pub(crate) async fn start_with(config: RedisConfig, name: &str) -> Self {
        let cluster = RedisCluster::start(config, record(name)).await.expect("the node takes its place");
        let registry = Registry::Redis(cluster.registry);
        Self {
            view: registry.view(),
            registry,
            membership: cluster.membership,
            notices: cluster.notices,
            records: cluster.records,
            session_notices: cluster.session_notices,
        }
    }

    /// Waits until the node sees the cluster so.
    pub(crate) async fn sees(&mut self, what: impl Fn(&ClusterView) -> bool) {
        let is_seen = timeout(PATIENCE, self.view.wait_for(|view| what(view))).await.is_ok();
        if !is_seen {
            panic!("the node sees {:?}", self.view.borrow());
        }
    }

    pub(crate) async fn sees_nodes(&mut self, count: usize) {
        self.sees(|view| view.nodes.len() == count).await;
    }

    pub(crate) async fn is_away(&mut self) {
        self.sees(|view| matches!(view.shared, SharedState::Away { .. })).await;
    }

    pub(crate) async fn join(&self, who: u128) -> Joined {
        self.membership.join(CHANNEL, 100, new(who), None).await.expect("joins")
    }

    /// The next notice.
    pub(crate) async fn notice(&mut self) -> Notice {
        timeout(PATIENCE, self.notices.recv()).await.expect("a notice comes").expect("the node lives")
    }

    /// The next entry; other notices are passed over.
    pub(crate) async fn entry(&mut self) -> Entry {
        loop {
            if let Notice::Entry { entry, .. } = self.notice().await {
                return entry;
            }
        }
    }

    /// Waits until it hears that it is connected again.
    pub(crate) async fn reconnected(&mut self) {
        while self.notice().await != Notice::Reconnected {}
    }

    pub(crate) async fn members(&self) -> Vec<Member> {
        let snapshot = self.membership.snapshot(CHANNEL, None).await.expect("available");
        snapshot.map_or(Vec::new(), |snapshot| snapshot.members)
    }
}

pub(crate) fn user(number: u128) -> UserView {
    UserView {
        id: UserId(Uuid::from_u128(number)),
        username: format!("user{number}"),
        display_name: format!("Üser {number}"),
        role: Role::User,
        is_active: true,
        is_guest: false,
        created_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

pub(crate) fn id(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

pub(crate) fn session(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(number))
}

/// A newcomer whose user, session and stream have one number.
pub(crate) fn new(number: u128) -> NewMember {
    let stream = StreamId(u32::MAX - u32::try_from(number).expect("small"));
    NewMember { user: user(number), session: session(number), stream, media: MediaTransport::Udp }
}

pub(crate) fn leave(number: u128) -> Leave {
    Leave::own(id(number), Some(session(number)), LeaveReason::Left)
}

/// What an entry says, in short.
pub(crate) fn said(entry: &Entry) -> (&'static str, u128) {
    match &*entry.event {
        ServerMessage::UserJoined(joined) => ("joined", joined.user_id.0.as_u128()),
        ServerMessage::UserLeft(left) => ("left", left.user_id.0.as_u128()),
        ServerMessage::VoiceStateChanged(changed) => ("voice", changed.user_id.0.as_u128()),
        ServerMessage::RecordingFinished(finished) => ("recording", finished.recording_id.0.as_u128()),
        other => panic!("{other:?} is no entry of a journal"),
    }
}
