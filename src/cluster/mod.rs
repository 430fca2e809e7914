//! What all nodes must agree on: who is in which channel, the journal of what happened there, and which node has a
//! session.
//!
//! Each change is one atomic step that either happens whole or not at all and yields its journal entry. What callers may
//! rely on is written at [`Membership`] and [`SessionRecords`]; `entry` has the values that pass between them and the
//! callers, `channel` one channel's steps on plain data, `mailbox` the queue by which a node hears of the others, `memory` the
//! form in memory.

mod channel;
mod entry;
mod listening;
mod mailbox;
mod membership;
mod memory;
mod placement;
mod redis;
mod registry;
mod sessions;
mod statistics;

pub use channel::ChannelState;
pub use entry::{
    About, AboutChat, AboutMember, Appended, Changed, Direct, Entry, JoinRefused, Joined, Leave, Member, NewMember,
    News, Notice, Publishing, Snapshot, Unavailable, VoiceChange, Written,
};
pub use listening::{ListeningEvent, ListeningNews};
pub use membership::Membership;
pub use memory::{MembershipConfig, MemoryCluster, MemoryMembership, MemoryNode, MemoryRecords};
pub use placement::Placement;
pub use redis::{RedisCluster, RedisConfig, RedisError, RedisFacts, RedisMembership, RedisRecords, RedisRegistry};
pub use registry::{ClusterView, Load, MemoryRegistry, NodeRecord, NodeState, Registry, SharedState};
pub use sessions::{
    ClaimRefused, Moves, Place, SessionNotice, SessionRecord, SessionRecords, TokenHashes, Whereabouts,
};
pub use statistics::{ALERTS_SHARED_MAX, NodeStatistics, SharedAlert, VoiceSums};
