//! A gateway session as the rooms know it: whose it is, where its messages go, which channels it is in and through
//! which UDP session.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use antiphon_core::{
    gateway::{Position, UserView},
    ids::{ChannelId, SessionId, StreamId, UserId},
};
use parking_lot::{Mutex, MutexGuard};

use super::{outlet::Outlet, replay::Entries, room::Room, udp::UdpSession};

/// The way to a session's client as of now: its connection and how it came here.
#[derive(Clone, Debug)]
pub struct Link {
    /// Where messages go.
    pub outlet: Arc<dyn Outlet>,
    /// The host name or address by which the client says it reached this node, without a port; an IPv6 address in brackets.
    pub reached_host: Arc<str>,
    /// The address of this machine that its connection reached; `None` where that is not known.
    pub reached_address: Option<IpAddr>,
    /// The client's address, as limits count it; `None` where nobody is connected.
    pub address: Option<IpAddr>,
}

/// A session's presence in rooms. It outlives the session's connections.
#[derive(Debug)]
pub struct Presence {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserView,
    /// Its client has no connection to the gateway: it is over when its WebRTC connection is.
    pub(super) is_standalone: bool,
    /// Makes joining, leaving, resuming and ending of one session happen one after the other. Held across awaits, and
    /// always taken before a room's turn, never while one is held.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<PresenceState>,
}

#[derive(Debug)]
pub(super) struct PresenceState {
    pub(super) link: Link,
    /// Where it is, at most one place in each channel.
    pub(super) places: HashMap<ChannelId, Place>,
    /// Where it reads and writes without voice.
    pub(super) texts: HashMap<ChannelId, Arc<Room>>,
    /// Since when it is where it is.
    pub(super) entries: Entries,
    /// The UDP session of all its channels with `media: udp`; `None` while there are none.
    pub(super) udp: Option<Arc<UdpSession>>,
    /// It is over: nothing can be joined any more.
    pub(super) ended: bool,
}

/// A session's place in one channel.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) room: Arc<Room>,
    pub(super) stream: StreamId,
    pub(super) uses_udp: bool,
    /// By WebRTC.
    pub(super) is_meeting: bool,
    /// The stream of the mix that it hears there.
    pub(super) mix: Option<StreamId>,
}

impl Place {
    /// Whether a stream is its own there, to send or to hear.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.stream == stream || self.mix == Some(stream)
    }
}

impl Presence {
    /// A session that is nowhere yet.
    #[must_use]
    pub fn new(id: SessionId, user: UserView, link: Link) -> Self {
        let state = PresenceState {
            link,
            places: HashMap::new(),
            texts: HashMap::new(),
            entries: HashMap::new(),
            udp: None,
            ended: false,
        };
        Self { id, user, is_standalone: false, turn: tokio::sync::Mutex::new(()), state: Mutex::new(state) }
    }

    /// One whose client has no connection to the gateway: it is over when its WebRTC connection is.
    #[must_use]
    pub fn standalone(id: SessionId, user: UserView, link: Link) -> Self {
        Self { is_standalone: true, ..Self::new(id, user, link) }
    }

    /// Whose it is.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.user.id
    }

    /// Whether the session is in a channel.
    #[must_use]
    pub fn is_in(&self, channel: ChannelId) -> bool {
        self.state().places.contains_key(&channel)
    }

    /// Gives an answer or an event to its client of now.
    pub fn send(&self, message: &super::Shared) {
        let outlet = Arc::clone(&self.state().link.outlet);
        outlet.send(message);
    }

    /// The channels that it reads and writes in without voice, and those whose voice it is in.
    #[must_use]
    pub fn channels(&self) -> (Vec<ChannelId>, Vec<ChannelId>) {
        let state = self.state();
        (state.texts.keys().copied().collect(), state.places.keys().copied().collect())
    }

    /// From which place on it gets what happens in each channel, for the node that may go on with it.
    #[must_use]
    pub fn entries(&self) -> Vec<(ChannelId, Position)> {
        self.state().entries.iter().map(|(channel, position)| (*channel, position.clone())).collect()
    }

    /// Notes that of a session that was another node's.
    pub fn set_entries(&self, entries: Vec<(ChannelId, Position)>) {
        self.state().entries.extend(entries);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PresenceState> {
        self.state.lock()
    }

    /// It no longer reads and writes in a channel.
    pub(super) fn forget_text(&self, channel: ChannelId) {
        let mut state = self.state();
        state.texts.remove(&channel);
        state.forget_entry(channel);
    }

    pub(super) fn place(&self, channel: ChannelId) -> Option<Place> {
        self.state().places.get(&channel).cloned()
    }

    /// Gives up the place in `channel` if it is `stream`'s, and yields the UDP session when no place needs it any more.
    pub(super) fn give_up(&self, channel: ChannelId, stream: StreamId) -> Option<Arc<UdpSession>> {
        let mut state = self.state();
        if state.places.get(&channel).is_none_or(|place| place.stream != stream) {
            return None;
        }
        state.places.remove(&channel);
        state.forget_entry(channel);
        if state.places.values().any(|place| place.uses_udp) { None } else { state.udp.take() }
    }
}
