//! The sessions that people have on this node.

use std::sync::Arc;

use antiphon_core::ids::UserId;
use dashmap::DashMap;

use super::Chat;
use crate::rooms::{Presence, Shared};

/// Everyone with a session here.
#[derive(Debug, Default)]
pub(super) struct People(DashMap<UserId, Vec<Arc<Presence>>>);

impl People {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_here(&self, user: UserId) -> bool {
        self.0.contains_key(&user)
    }

    /// Does `act` for everyone.
    pub(super) fn each(&self, act: impl Fn(UserId)) {
        // Copied first: what is done may look here.
        let everyone: Vec<UserId> = self.0.iter().map(|entry| *entry.key()).collect();
        everyone.into_iter().for_each(act);
    }

    /// Somebody's sessions.
    pub(super) fn sessions(&self, user: UserId) -> Vec<Arc<Presence>> {
        self.0.get(&user).map_or_else(Vec::new, |sessions| sessions.clone())
    }

    /// Gives all sessions of somebody a message.
    pub(super) fn send(&self, user: UserId, message: &Shared) {
        for presence in self.sessions(user) {
            presence.send(message);
        }
    }
}

impl Chat {
    /// A session has begun here, or moved here.
    pub fn arrived(&self, presence: &Arc<Presence>) {
        let mut sessions = self.inner.people.0.entry(presence.user.id).or_default();
        sessions.retain(|known| known.id != presence.id);
        sessions.push(Arc::clone(presence));
        drop(sessions);
        self.moved(presence.user.id);
    }

    /// It is over, or has moved away.
    pub fn departed(&self, presence: &Arc<Presence>) {
        if let Some(mut sessions) = self.inner.people.0.get_mut(&presence.user.id) {
            sessions.retain(|known| !Arc::ptr_eq(known, presence));
        }
        self.inner.people.0.remove_if(&presence.user.id, |_, sessions| sessions.is_empty());
        self.forget_follower(presence.id);
        self.moved(presence.user.id);
    }
}
