//! What all nodes must agree on: who is in which channel, and the journal of what happened there.
//!
//! Each change is one atomic step that either happens whole or not at all and yields its journal entry. This is the
//! form for a single node, in memory; what callers may rely on is written at [`Membership`].

mod channel;
pub mod entry;
mod membership;
pub mod redis;
pub mod registry;
pub mod sessions;

pub use membership::{
    JoinRefused, Joined, Left, Member, Membership, MembershipConfig, NewMember, Snapshot, VoiceChange,
};
