//! What happens in channels: who joins, speaks, is muted or removed, and who hears of it.
//!
//! [`Rooms`] is the control side of voice. It keeps no audio: frames go from media worker to media worker's sockets, and
//! only those for members without UDP pass through here. Each channel with members on this node is a room; changes of
//! one room happen one after the other, each with its journal entry ([`crate::cluster`]), its commands to the media
//! workers and its messages to the members. What other nodes do comes the same way (`news`). So everybody sees
//! everything in the journal's order.
//!
//! Locks, always taken in this order: a session's turn, a room's turn (both held across awaits), then without awaits a
//! room's members, a session's state.

pub mod directory;
pub mod player;

mod accounts;
mod admit;
mod adopt;
mod alone;
mod awaited;
mod behind;
mod chat;
mod events;
mod join;
mod journal;
mod keys;
mod leave;
mod ledger;
mod measure;
mod meetings;
mod mixing;
mod moderation;
mod news;
mod notices;
mod outlet;
mod overheard;
mod presence;
mod quality;
mod recording;
mod replay;
mod reports;
mod resume;
mod room;
mod roster;
mod setup;
mod speaking;
mod stats;
mod text;
mod tunnel;
mod udp;
mod voice_state;
mod webrtc;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    clock::Micros,
    engine::Event,
    ids::{ChannelId, GroupId, MediaSessionId, UserId},
};
use dashmap::{DashMap, DashSet};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc, watch};

pub use awaited::{Awaited, Sent};
pub use chat::{Stored, dm_data, event_of, message_data};
pub use journal::{EventsSince, event_json};
pub use measure::{ChannelFigures, RoomsFigures};
pub use meetings::RoomRequest;
pub use outlet::{Form, Outlet, Shared, Unheard, encoded_bytes};
pub use overheard::{Interruption, Overhearing, Parting};
pub use presence::{Link, Presence};
pub use recording::recording_now;
pub use stats::ChannelStats;
pub use webrtc::IceConfig;

use self::{
    ledger::Ledger,
    room::{Room, Turn},
    stats::Totals,
    udp::UdpSession,
    webrtc::HostNames,
};
use crate::{
    cluster::{Direct, Membership, MembershipConfig, Notice},
    media::Media,
    mixer::Mixer,
    rates::Rates,
    recorder::Recorder,
    store::Store,
};

/// What can be set of rooms.
#[derive(Clone, Debug)]
pub struct RoomsConfig {
    /// The UDP addresses that clients are told, `host:port`; empty: the address by which each came.
    pub advertise: Vec<String>,
    /// Hosts that the settings name, whose addresses browsers are told that come by them.
    pub named_hosts: Vec<String>,
    /// How often clients are told to ping, in milliseconds.
    pub ping_ms: u64,
    /// The most channels a session may be in.
    pub channels_per_session: usize,
    /// The most rooms a session may read and write in without voice.
    pub texts_per_session: usize,
    /// Audio channels of a stream whose speaker names no count, 1 or 2.
    pub channels: u8,
    /// How long an announced talk spurt lasts when no sound follows.
    pub announced_for: Duration,
    /// How long a resumed session's old UDP session works when the new one is not bound.
    pub old_udp_grace: Duration,
    /// How long a lost session waits for its client.
    pub resume_grace: Duration,
    /// How long the other nodes get to write their members into what all share after it began anew.
    pub settle: Duration,
    /// What is kept of each channel.
    pub membership: MembershipConfig,
    /// Whether people may meet by WebRTC here.
    pub webrtc: bool,
    /// Offers of WebRTC that one account makes a minute; 0 for any number.
    pub offers_per_minute: u32,
    /// What helps them to find a way.
    pub ice: IceConfig,
    /// How long a room is kept after the last person left.
    pub room_ttl: Duration,
    /// What mixes for members with `mode: mixed`; `None` where there are none.
    pub mixer: Option<Mixer>,
    /// What records members here; `None` where nothing is recorded.
    pub recorder: Option<Recorder>,
}

/// How long a stopping node waits for what its media workers tell: they have ended by then.
const TOLD_PATIENCE: Duration = Duration::from_secs(2);

/// Rooms that write their members back at once after what all nodes share was away.
const RECONCILING_MAX: usize = 32;

/// How long a lost session waits for its client, unless set otherwise.
pub const RESUME_GRACE: Duration = Duration::from_secs(30);

/// Long enough for a device that is slow to open, short enough that nobody seems to speak who went away.
const ANNOUNCED_FOR: Duration = Duration::from_secs(5);

impl Default for RoomsConfig {
    fn default() -> Self {
        Self {
            advertise: Vec::new(),
            named_hosts: Vec::new(),
            ping_ms: 5_000,
            channels_per_session: 16,
            texts_per_session: 100,
            channels: 2,
            announced_for: ANNOUNCED_FOR,
            old_udp_grace: Duration::from_secs(5),
            resume_grace: RESUME_GRACE,
            // Every node tries for what all share several times a second while it is away.
            settle: Duration::from_secs(1),
            membership: MembershipConfig::default(),
            webrtc: true,
            offers_per_minute: 0,
            ice: IceConfig::default(),
            room_ttl: Duration::from_secs(7_200),
            mixer: None,
            recorder: None,
        }
    }
}

/// The channels as they live on this node. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    media: Media,
    membership: Membership,
    config: RoomsConfig,
    /// Channels with members here.
    rooms: DashMap<ChannelId, Arc<Room>>,
    udp_sessions: DashMap<MediaSessionId, Arc<UdpSession>>,
    /// Of each channel that was joined since this node started.
    totals: DashMap<ChannelId, Arc<Totals>>,
    /// What is to be added to the database's totals.
    ledger: Ledger,
    /// Where the hosts are that the settings name.
    host_names: HostNames,
    /// Offers of WebRTC that accounts make; `None` for any number.
    offers: Option<Rates<UserId>>,
    /// Answers to offers, line by line.
    answered_lines: Option<Rates<UserId>>,
    /// It was said that a browser came by a name that no setting names.
    warned_of_name: AtomicBool,
    /// Audio channels of a stream whose speaker names no count, 1 or 2.
    channels: AtomicU8,
    next_group: AtomicU32,
    /// How often something changed that decides about joins, but not through one.
    changes: AtomicU64,
    /// Channels whose rooms closed here while they were alone, so that they may still have members of this node.
    left_alone: DashSet<ChannelId>,
    reconciling: Semaphore,
    /// A task brings rooms up to what is stored that are behind.
    catches_up: AtomicBool,
    /// Nobody who is not in a channel may begin to listen.
    closed_to_outsiders: AtomicBool,
    /// Who waits to hear of what they wrote.
    awaited: Awaited,
    /// Who takes what is for single people.
    direct: OnceLock<mpsc::Sender<Direct>>,
    /// Turns true when the media workers have told all that they will.
    told: watch::Sender<bool>,
}

impl Rooms {
    /// Rooms of a node among those that share `membership`, over the media workers that `events` comes from. Both
    /// the events and the notices are followed in tasks of their own.
    #[must_use]
    pub fn start(
        store: Store,
        media: Media,
        events: mpsc::Receiver<Event>,
        (membership, notices): (Membership, mpsc::Receiver<Notice>),
        config: RoomsConfig,
    ) -> Self {
        let advertised = config.advertise.iter().filter_map(|told| Some(told.rsplit_once(':')?.0.to_owned()));
        let host_names = HostNames::follow(advertised.chain(config.named_hosts.iter().cloned()));
        let rooms = Self {
            inner: Arc::new(Inner {
                host_names,
                offers: Rates::new(config.offers_per_minute),
                answered_lines: Rates::new(config.offers_per_minute.saturating_mul(webrtc::OFFER_LINES_MAX)),
                warned_of_name: AtomicBool::new(false),
                store,
                media,
                membership,
                channels: AtomicU8::new(config.channels),
                config,
                ledger: Ledger::default(),
                rooms: DashMap::new(),
                udp_sessions: DashMap::new(),
                totals: DashMap::new(),
                next_group: AtomicU32::new(1),
                changes: AtomicU64::new(0),
                left_alone: DashSet::new(),
                reconciling: Semaphore::new(RECONCILING_MAX),
                catches_up: AtomicBool::new(false),
                closed_to_outsiders: AtomicBool::new(false),
                awaited: Awaited::default(),
                direct: OnceLock::new(),
                told: watch::Sender::new(false),
            }),
        };
        tokio::spawn(rooms.clone().follow(events));
        tokio::spawn(rooms.clone().hear(notices));
        if let Some(told) = rooms.inner.media.take_peer_events() {
            tokio::spawn(rooms.clone().follow_peers(told));
        }
        rooms
    }

    /// Gives what other nodes have for single people to `taker`, from now on. What it has no room for is lost.
    pub fn give_direct_to(&self, taker: mpsc::Sender<Direct>) {
        // The first one has it.
        let _ = self.inner.direct.set(taker);
    }

    /// Tells all other nodes something for single people. It may get lost.
    pub async fn announce_direct(&self, direct: Direct) {
        self.inner.membership.announce(Notice::Direct(direct)).await;
    }

    /// The node's clock, the same as on UDP.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.inner.media.now()
    }

    /// Where this node takes datagrams.
    #[must_use]
    pub fn udp_address(&self) -> SocketAddr {
        self.inner.media.local_addr()
    }

    /// Waits, not for long, until what the media workers told before they stopped is taken in.
    pub async fn until_told(&self) {
        let mut told = self.inner.told.subscribe();
        let all = told.wait_for(|told| *told);
        if tokio::time::timeout(TOLD_PATIENCE, all).await.is_err() {
            tracing::warn!("the media workers are not done telling: some of what was carried last is not counted");
        }
    }

    /// Streams whose speakers name no count of channels have so many from now on, 1 or 2.
    pub fn set_default_channels(&self, channels: u8) {
        self.inner.channels.store(channels, Ordering::Relaxed);
    }

    /// Forgets what nobody has needed for a while. To be called every minute or so.
    pub async fn sweep(&self) {
        for rates in [&self.inner.offers, &self.inner.answered_lines].into_iter().flatten() {
            rates.sweep();
        }
        self.inner.membership.sweep().await;
        self.reconcile_degraded();
    }

    /// Notes that something changed that decides about joins: those decided before are decided anew.
    fn note_change(&self) {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// All that there are now: nothing that takes long is done while the map is held.
    fn all_rooms(&self) -> Vec<Arc<Room>> {
        self.inner.rooms.iter().map(|room| Arc::clone(&room)).collect()
    }

    fn room(&self, channel: ChannelId) -> Option<Arc<Room>> {
        self.inner.rooms.get(&channel).map(|room| Arc::clone(&room))
    }

    /// A channel's room within its turn; `None` while it has no members here.
    async fn turn_of(&self, channel: ChannelId) -> Option<(Arc<Room>, OwnedMutexGuard<Turn>)> {
        loop {
            let room = self.room(channel)?;
            let turn = Arc::clone(&room.turn).lock_owned().await;
            // A room that closed while we waited has left the map; the next may be there.
            if *turn != Turn::Closed {
                return Some((room, turn));
            }
        }
    }

    /// Likewise, made when there is none. Whoever has it must close it if it is still empty in the end.
    async fn turn_of_new(&self, channel: ChannelId) -> (Arc<Room>, OwnedMutexGuard<Turn>) {
        loop {
            let room = self.room_or_new(channel);
            let turn = Arc::clone(&room.turn).lock_owned().await;
            if *turn != Turn::Closed {
                return (room, turn);
            }
        }
    }

    fn room_or_new(&self, channel: ChannelId) -> Arc<Room> {
        let new = || {
            let totals = self.inner.totals.entry(channel).or_default();
            Arc::new(Room::new(channel, self.inner.media.place_channel(channel), Arc::clone(&totals)))
        };
        Arc::clone(&self.inner.rooms.entry(channel).or_insert_with(new))
    }

    fn new_group_id(&self) -> GroupId {
        GroupId(self.inner.next_group.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rooms({} open)", self.inner.rooms.len())
    }
}
