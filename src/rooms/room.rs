//! A channel as it is on this node: everyone in it, its members here and their groups.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use antiphon_core::{
    engine::MemberFlags,
    gateway::{Cipher, LeaveReason, MediaMode, MediaTransport, Position, PublishKind, RecordingNow, ServerMessage},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, StreamId, UserId, WorkerIndex},
    quality::QualityAdvisor,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::AbortHandle;

use super::{
    keys::Group,
    mixing::MixPlace,
    notices::Inbox,
    outlet::{Outlet, Shared},
    overheard::Overheard,
    presence::Presence,
    roster::Roster,
    stats::Totals,
    text::TextMember,
    udp::UdpSession,
    webrtc::Subscription,
};
use crate::{
    cluster::{ChannelState, Entry, Member},
    store::Channel,
};

/// A channel with members on this node.
pub(super) struct Room {
    pub(super) id: ChannelId,
    /// The media worker that the channel lives in.
    pub(super) home: WorkerIndex,
    /// Makes changes of the channel happen one after the other, each with its commands to the media workers and its
    /// messages to the members, so that all see them in the journal's order. Held across awaits.
    pub(super) turn: Arc<tokio::sync::Mutex<Turn>>,
    /// What the turn's holder changes and everybody reads. Never held across awaits.
    live: RwLock<Live>,
    /// What was heard from other nodes and not taken in yet.
    pub(super) inbox: Mutex<Inbox>,
    /// A task is about to read everything anew.
    pub(super) waits_to_reconcile: AtomicBool,
    /// What is stored of the channel could not be read when it was due.
    pub(super) is_behind: AtomicBool,
    pub(super) totals: Arc<Totals>,
}

/// Where a room is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Made for a join that has not happened yet; the media worker does not know the channel.
    New,
    /// It has, or had, members, and the media worker knows it.
    Open,
    /// It has, or had, people who read and write only; the media worker does not know it.
    Text,
    /// The last member has left: whoever still waits for this room must look for another.
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    /// The channel's settings as last heard; `None` before the first join.
    pub(super) channel: Option<Channel>,
    /// Everyone, on whatever node.
    pub(super) roster: Roster,
    /// Those whose session is on this node.
    pub(super) members: HashMap<StreamId, LocalMember>,
    /// Those who read and write without voice, and those who would go on to when they leave it.
    pub(super) texts: HashMap<SessionId, TextMember>,
    /// The newest number of what was written that those here were told, or that was there before them.
    pub(super) told: Option<MessageId>,
    /// The channel as it goes on here while what all nodes share cannot be reached.
    pub(super) alone: Option<Alone>,
    /// What members publish by WebRTC, on whatever node; those who publish nothing are not there.
    pub(super) publishes: HashMap<StreamId, Vec<PublishKind>>,
    /// How many may publish at once, as the room's maker wished, when somebody last wanted to; `None` for as many as want.
    pub(super) publishers_max: Option<u32>,
    /// The recording of the channel that goes on.
    pub(super) recording: Option<RecordingNow>,
    /// Those who hear the mix without being in the channel.
    pub(super) overheard: Option<Overheard>,
    /// By cipher.
    pub(super) groups: [Option<Group>; Cipher::ALL.len()],
}

/// A channel that goes on here by itself.
#[derive(Debug)]
pub(super) struct Alone {
    pub(super) state: ChannelState,
    /// The newest place in the journal of all nodes that was taken in before.
    pub(super) since: Position,
}

/// A member whose session is on this node.
#[derive(Debug)]
pub(super) struct LocalMember {
    pub(super) presence: Arc<Presence>,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) media: MediaTransport,
    pub(super) udp: Option<Arc<UdpSession>>,
    pub(super) switches: Switches,
    /// Audio channels of their stream.
    pub(super) channels: u8,
    /// Their session has moved to another node; what is left here ends soon.
    pub(super) departing: bool,
    /// In a talk spurt, as the media worker hears it.
    pub(super) sounding: bool,
    /// Ends an announced spurt that stays without sound.
    pub(super) announced: Option<AbortHandle>,
    pub(super) advisor: QualityAdvisor,
    /// What they want to hear and see by WebRTC, once they have asked.
    pub(super) subscription: Option<Subscription>,
    /// An offer of that was sent to them, and no answer that could be read came yet.
    pub(super) is_offered: bool,
    /// The mix that they hear instead of streams.
    pub(super) mix: Option<MixPlace>,
}

/// Everything that decides what a member may send and gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Switches {
    pub(super) muted: bool,
    pub(super) deafened: bool,
    pub(super) server_muted: bool,
    pub(super) priority: bool,
}

impl Switches {
    /// As the media workers know them.
    pub(super) fn flags(self) -> MemberFlags {
        MemberFlags { muted: self.muted || self.server_muted, deafened: self.deafened, priority: self.priority }
    }
}

impl LocalMember {
    /// What they hear.
    pub(super) fn mode(&self) -> MediaMode {
        if self.mix.is_some() { MediaMode::Mixed } else { MediaMode::Forward }
    }

    /// Whether their audio goes over the gateway.
    pub(super) fn is_tunnelled(&self) -> bool {
        match &self.udp {
            Some(udp) => !udp.is_proven(),
            None => self.media == MediaTransport::Websocket,
        }
    }
}

impl Live {
    /// Whether nobody is here whom the channel's events, or its mix, are for.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.texts.is_empty() && self.overheard.is_none()
    }

    /// Whether a user is in the channel through this node.
    pub(super) fn has_here(&self, user: UserId) -> bool {
        let local = self.roster.stream_of(user).and_then(|stream| self.members.get(&stream));
        local.is_some_and(|member| !member.departing)
    }

    /// Whether anyone is known here, through another node, who is not among `members`.
    pub(super) fn misses_any(&self, members: &[Member]) -> bool {
        let there: HashSet<UserId> = members.iter().map(|member| member.user.id).collect();
        let mut elsewhere = self.roster.members().filter(|member| !self.members.contains_key(&member.stream));
        elsewhere.any(|member| !there.contains(&member.user.id))
    }

    /// Whether entries say of members who are here that their grace has run out: their node was taken for dead.
    pub(super) fn took_for_dead(&self, entries: &[Entry]) -> bool {
        let is_ours = |stream| self.members.get(stream).is_some_and(|member| !member.departing);
        entries.iter().any(|entry| match &*entry.event {
            ServerMessage::UserLeft(left) => left.reason == LeaveReason::Timeout && is_ours(&left.stream_id),
            _ => false,
        })
    }

    /// Whether a state is of a journal that began anew and knows nothing of people who are here: nobody removed them, what
    /// all nodes share has lost them.
    pub(super) fn is_forgotten_by(&self, members: &[Member], position: &Position) -> bool {
        let begins_anew = self.roster.applied().is_some_and(|applied| applied.epoch != position.epoch);
        let there: HashSet<UserId> = members.iter().map(|member| member.user.id).collect();
        begins_anew && self.alone.is_none() && self.ours().iter().any(|member| !there.contains(&member.user.id))
    }

    /// Members through `node`, which is this one, who are not here.
    pub(super) fn ghosts(&self, node: NodeNumber) -> Vec<Member> {
        let through = self.roster.members().filter(|member| member.node == node);
        through.filter(|member| !self.members.contains_key(&member.stream)).cloned().collect()
    }

    /// Members here are this node's, under the number that it has now.
    pub(super) fn set_node(&mut self, node: NodeNumber) {
        for (stream, _) in self.members.iter().filter(|(_, member)| !member.departing) {
            let Some(listed) = self.roster.get_mut(*stream) else { continue };
            listed.member.node = node;
            if let Some(alone) = &mut self.alone {
                alone.state.set_node(listed.member.user.id, node);
            }
        }
    }

    /// Members that this node answers for.
    pub(super) fn ours(&self) -> Vec<Member> {
        let ours = self.members.iter().filter(|(_, member)| !member.departing);
        ours.filter_map(|(stream, _)| Some(self.roster.get(*stream)?.member.clone())).collect()
    }
}

impl Room {
    pub(super) fn new(id: ChannelId, home: WorkerIndex, totals: Arc<Totals>) -> Self {
        let turn = Arc::new(tokio::sync::Mutex::new(Turn::New));
        Self {
            id,
            home,
            turn,
            live: RwLock::default(),
            inbox: Mutex::default(),
            waits_to_reconcile: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
            totals,
        }
    }

    /// The newest place taken in.
    pub(super) fn applied(&self) -> Option<Position> {
        self.live().roster.applied().cloned()
    }

    /// The newest place in the journal of all nodes that was taken in.
    pub(super) fn shared_place(&self) -> Option<Position> {
        let live = self.live();
        live.alone.as_ref().map(|alone| &alone.since).or(live.roster.applied()).cloned()
    }

    /// Whether the room goes on by itself.
    pub(super) fn is_alone(&self) -> bool {
        self.live().alone.is_some()
    }

    pub(super) fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read()
    }

    pub(super) fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write()
    }

    /// Sends to all members here but `except`.
    pub(super) fn broadcast(&self, message: &Shared, except: Option<StreamId>) {
        let live = self.live();
        for (stream, member) in &live.members {
            if Some(*stream) != except {
                member.outlet.send(message);
            }
        }
        for text in live.texts.values().filter(|text| !text.is_in_voice) {
            text.outlet.send(message);
        }
    }
}

impl fmt::Debug for Room {
    /// Without its members, who hold it in turn.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({})", self.id)
    }
}
