//! Administrators who watch who listens: they are told of what begins and ends here and at other nodes, and of how many
//! listen everywhere. At most 200 events a second go to each; how many more there were is said.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::{ErrorCode, ListeningStats, Role, ServerMessage},
    ids::{NodeNumber, SessionId, UserId},
};
use parking_lot::Mutex;

use super::{Gateway, outbox::Outbox};
use crate::{
    cluster::ListeningNews,
    error::AppError,
    rooms::{Outlet as _, Presence, Shared},
};

/// Connections of one node that watch.
const WATCHERS_MAX: usize = 100;

/// How often it is looked at whether they are administrators still.
const LOOKED_AT: Duration = Duration::from_secs(10);

/// The connections of this node that watch.
#[derive(Debug)]
pub(super) struct Watchers {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watchers: HashMap<SessionId, Watcher>,
    /// What other nodes told since it was last passed on.
    heard: ListeningNews,
    looked_at: Instant,
}

#[derive(Debug)]
struct Watcher {
    user: UserId,
    outbox: Weak<Outbox>,
    /// What they were told last, so that it is told when it changes.
    told: Option<ListeningStats>,
    missed: u64,
}

impl Watchers {
    pub(super) fn new() -> Self {
        let state = State { watchers: HashMap::new(), heard: ListeningNews::default(), looked_at: Instant::now() };
        Self { state: Mutex::new(state) }
    }

    /// A session's connection watches from now on.
    fn add(&self, session: SessionId, user: UserId, outbox: &Arc<Outbox>) -> Result<(), AppError> {
        let watchers = &mut self.state.lock().watchers;
        if watchers.len() >= WATCHERS_MAX && !watchers.contains_key(&session) {
            let message = format!("{WATCHERS_MAX} connections of this node watch already");
            return Err(AppError::new(ErrorCode::LimitReached, message));
        }
        watchers.insert(session, Watcher { user, outbox: Arc::downgrade(outbox), told: None, missed: 0 });
        Ok(())
    }

    fn remove(&self, session: SessionId) {
        self.state.lock().watchers.remove(&session);
    }

    /// What another node told.
    pub(super) fn hear(&self, news: ListeningNews) {
        let state = &mut *self.state.lock();
        if !state.watchers.is_empty() {
            state.heard.append(news);
        }
    }

    /// Whether anybody watches whose connection has not ended.
    fn is_any(&self) -> bool {
        let watchers = &mut self.state.lock().watchers;
        watchers.retain(|_, watcher| watcher.outbox.upgrade().is_some_and(|outbox| outbox.end_in_sight().is_none()));
        !watchers.is_empty()
    }

    /// Tells each of what happened, here and at other nodes, then of how many listen where that has changed.
    fn tell(&self, mut news: ListeningNews, stats: ListeningStats) {
        let state = &mut *self.state.lock();
        news.append(std::mem::take(&mut state.heard));
        let events: Vec<Shared> =
            news.events.into_iter().map(|event| Shared::new(ServerMessage::from(event))).collect();
        for watcher in state.watchers.values_mut() {
            let Some(outbox) = watcher.outbox.upgrade() else { continue };
            events.iter().for_each(|event| outbox.send(event));
            watcher.missed += news.missed;
            let stats = ListeningStats { missed: watcher.missed, ..stats };
            if watcher.told.replace(stats) != Some(stats) {
                outbox.send(&Shared::new(stats));
            }
        }
    }

    /// Whose rights are to be looked at now; nobody's where that was done a moment ago.
    fn due(&self, now: Instant) -> HashSet<UserId> {
        let state = &mut *self.state.lock();
        if now.saturating_duration_since(state.looked_at) < LOOKED_AT {
            return HashSet::new();
        }
        state.looked_at = now;
        state.watchers.values().map(|watcher| watcher.user).collect()
    }

    fn remove_all_of(&self, user: UserId) {
        self.state.lock().watchers.retain(|_, watcher| watcher.user != user);
    }
}

impl Gateway {
    /// Whether anybody here watches who listens.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.inner.watchers.is_any()
    }

    /// Tells those who watch here, and the nodes at which others do, what happened at this one; and those here how many
    /// listen everywhere. To be called every second or so.
    pub async fn tell_of_listening(&self, news: ListeningNews, stats: ListeningStats, watching: &[NodeNumber]) {
        if !news.is_empty() {
            for node in watching {
                self.inner.records.tell_of_listening(*node, &news).await;
            }
        }
        for user in self.inner.watchers.due(Instant::now()) {
            // One whose rights cannot be looked at now keeps them until they can.
            if self.auth().is_admin(user).await.is_ok_and(|is_admin| !is_admin) {
                self.inner.watchers.remove_all_of(user);
            }
        }
        self.inner.watchers.tell(news, stats);
    }

    /// What another node told this one's watchers.
    pub(super) fn hear_of_listening(&self, news: ListeningNews) {
        self.inner.watchers.hear(news);
    }

    /// Begins, or ends, to tell a session's connection who listens.
    pub(super) async fn watch(&self, presence: &Presence, outbox: &Arc<Outbox>, watch: bool) -> Result<(), AppError> {
        if !watch {
            self.inner.watchers.remove(presence.id);
            return Ok(());
        }
        // The token may be older than the role: what the database says holds.
        if presence.user.role == Role::Admin && self.auth().is_admin(presence.user.id).await? {
            return self.inner.watchers.add(presence.id, presence.user.id, outbox);
        }
        Err(AppError::new(ErrorCode::PermissionDenied, "only administrators of the server may watch who listens"))
    }
}
