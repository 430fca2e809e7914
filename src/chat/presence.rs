//! Who is there, and in which channels, on whatever node.
//!
//! Each node keeps what its own people do where all nodes can read it, under its own name: what a node said that has died is
//! read by nobody, so nobody seems to be there who is not. A change is announced, and whoever follows somebody looks; all are
//! looked at now and then, should a word have been lost or a node have died. Until when somebody was there the database knows
//! who comes and goes, and that this process lives, should it end without a word.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use antiphon_core::{
    gateway::{AskPresence, ChannelPresence, ErrorCode, PresenceData, PresenceSeen, RequestId, UserView},
    ids::{ChannelId, SessionId, UserId},
    permission::Action,
};
use dashmap::DashMap;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::{Chat, require};
use crate::{
    cluster::{Direct, Unavailable, Whereabouts},
    error::AppError,
    rooms::{Presence, Shared},
    store::{PresenceRun, StoreError, rfc3339},
    ticks::ticks,
};

/// People that one session can follow.
const FOLLOWED_MAX: usize = 200;

/// What is known of who is there.
pub(super) struct Whereabout {
    /// This process, as the database knows it.
    run: PresenceRun,
    /// What all nodes were told of people here; those they could not be told of are missing.
    said: DashMap<UserId, Whereabouts>,
    /// Whom the database knows to be here; since when they are not, where it does not know that yet.
    noted: DashMap<UserId, Option<OffsetDateTime>>,
    /// Of whom something may have changed.
    dirty: DashMap<UserId, ()>,
    /// Of whom another node said that something has changed, and who follow them were not told.
    heard_of: DashMap<UserId, ()>,
    /// Wakes whoever tells of them.
    changed: Notify,
    followers: DashMap<SessionId, Follower>,
    /// Everything said may be gone.
    is_lost: AtomicBool,
}

impl Default for Whereabout {
    fn default() -> Self {
        Self {
            run: PresenceRun::begin(),
            said: DashMap::new(),
            noted: DashMap::new(),
            dirty: DashMap::new(),
            heard_of: DashMap::new(),
            changed: Notify::new(),
            followers: DashMap::new(),
            is_lost: AtomicBool::new(false),
        }
    }
}

/// A session that wants to know who is there.
struct Follower {
    presence: Arc<Presence>,
    /// As it was last told.
    seen: HashMap<UserId, PresenceData>,
}

impl Chat {
    /// Something may have changed in where a session is, or whether it is there.
    pub fn moved(&self, user: UserId) {
        self.inner.whereabout.dirty.insert(user, ());
        self.inner.whereabout.changed.notify_one();
    }

    /// Another node says that something has changed of somebody. Those who follow them are told by a task of their own: with many,
    /// that takes its time.
    pub(super) fn moved_elsewhere(&self, user: UserId) {
        self.inner.whereabout.heard_of.insert(user, ());
        self.inner.whereabout.changed.notify_one();
    }

    /// What all nodes share may have been lost: everything is said anew.
    pub fn say_all_anew(&self) {
        self.inner.whereabout.is_lost.store(true, Ordering::Relaxed);
        self.inner.whereabout.changed.notify_one();
    }

    /// Tells all nodes of what has changed here, for ever.
    pub(super) async fn tell_whereabouts(self) {
        let mut looks = ticks(self.inner.config.look_every);
        loop {
            tokio::select! {
                () = self.inner.whereabout.changed.notified() => {}
                _ = looks.tick() => self.review().await,
            }
            if self.inner.whereabout.is_lost.swap(false, Ordering::Relaxed) {
                self.inner.whereabout.said.clear();
                self.inner.people.each(|user| {
                    self.inner.whereabout.dirty.insert(user, ());
                });
            }
            let dirty: Vec<UserId> = self.inner.whereabout.dirty.iter().map(|entry| *entry.key()).collect();
            for user in dirty {
                self.inner.whereabout.dirty.remove(&user);
                self.tell_of(user).await;
            }
            let heard_of: Vec<UserId> = self.inner.whereabout.heard_of.iter().map(|entry| *entry.key()).collect();
            for user in heard_of {
                self.inner.whereabout.heard_of.remove(&user);
                self.look_for_followers(Some(user)).await;
            }
        }
    }

    /// Looks at everyone here, in case something changed that nobody said, and at everyone followed.
    async fn review(&self) {
        self.note_alive().await;
        let Whereabout { said, noted, dirty, .. } = &self.inner.whereabout;
        self.inner.people.each(|user| {
            let is_as_said = said.get(&user).is_some_and(|said| *said == self.whereabouts_here(user));
            if !is_as_said || !noted.contains_key(&user) {
                dirty.insert(user, ());
            }
        });
        let known: Vec<UserId> =
            said.iter().map(|entry| *entry.key()).chain(noted.iter().map(|entry| *entry.key())).collect();
        for user in known.into_iter().filter(|user| !self.inner.people.is_here(*user)) {
            dirty.insert(user, ());
        }
        self.look_for_followers(None).await;
    }

    /// Says in the database that this process lives, so that whoever is here was seen until now, should it die.
    async fn note_alive(&self) {
        let Whereabout { run, noted, .. } = &self.inner.whereabout;
        if noted.is_empty() {
            return;
        }
        // It was suspended for so long that it was taken for dead: everyone comes anew.
        if matches!(self.store().note_alive(*run, OffsetDateTime::now_utc()).await, Ok(false)) {
            noted.clear();
        }
    }

    /// Says in the database that somebody has come here, or gone, unless it knows. What it cannot be told now it is at the next
    /// look, as of now.
    async fn note_presence(&self, user: UserId, is_here: bool) {
        let Whereabout { run, noted, .. } = &self.inner.whereabout;
        let now = OffsetDateTime::now_utc();
        let known = noted.get_mut(&user).map(|mut gone_at| {
            *gone_at = if is_here { None } else { gone_at.or(Some(now)) };
            *gone_at
        });
        // An account that is gone was seen by nobody.
        match known {
            None if is_here => {
                if let Ok(()) | Err(StoreError::Missing) = self.store().note_came(user, *run, now).await {
                    noted.insert(user, None);
                }
            }
            Some(Some(gone_at)) => {
                if let Ok(()) | Err(StoreError::Missing) = self.store().note_went(user, *run, gone_at).await {
                    noted.remove(&user);
                }
            }
            None | Some(None) => {}
        }
    }

    async fn tell_of(&self, user: UserId) {
        let (said, records) = (&self.inner.whereabout.said, &self.inner.records);
        let here = self.inner.people.is_here(user).then(|| self.whereabouts_here(user));
        self.note_presence(user, here.is_some()).await;
        if said.get(&user).as_deref() == here.as_ref() {
            return;
        }
        match (records.set_whereabouts(user, here.clone()).await, here) {
            (Ok(()), Some(here)) => drop(said.insert(user, here)),
            (Ok(()), None) => drop(said.remove(&user)),
            // The next look finds it.
            (Err(Unavailable), _) => {}
        }
        self.look_for_followers(Some(user)).await;
        self.rooms().announce_direct(Direct::Presence { user }).await;
    }

    fn whereabouts_here(&self, user: UserId) -> Whereabouts {
        let mut here = Whereabouts::default();
        for presence in self.inner.people.sessions(user) {
            let (texts, voices) = presence.channels();
            here.texts.extend(texts);
            here.voices.extend(voices);
        }
        for channels in [&mut here.texts, &mut here.voices] {
            channels.sort_unstable();
            channels.dedup();
        }
        here
    }

    /// Tells those who follow `user`, or anybody, what has changed for them.
    pub(super) async fn look_for_followers(&self, user: Option<UserId>) {
        let followers: Vec<(SessionId, Arc<Presence>, Vec<UserId>)> = self
            .inner
            .whereabout
            .followers
            .iter()
            .filter(|follower| user.is_none_or(|user| follower.seen.contains_key(&user)))
            .map(|follower| {
                let users = user.map_or_else(|| follower.seen.keys().copied().collect(), |user| vec![user]);
                (*follower.key(), Arc::clone(&follower.presence), users)
            })
            .collect();
        for (session, presence, users) in followers {
            let Ok(now) = self.presence_of(&presence.user, &users).await else { continue };
            let Some(mut follower) = self.inner.whereabout.followers.get_mut(&session) else { continue };
            let is_new = |data: &PresenceData| follower.seen.get(&data.user_id).is_some_and(|seen| seen != data);
            let changed: Vec<PresenceData> = now.into_iter().filter(is_new).collect();
            if changed.is_empty() {
                continue;
            }
            follower.seen.extend(changed.iter().map(|data| (data.user_id, data.clone())));
            presence.send(&Shared::new(PresenceSeen::from(changed)));
        }
    }

    /// Answers who of some people is there, and follows them.
    pub(super) async fn ask_presence(
        &self,
        presence: &Arc<Presence>,
        request: AskPresence,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let users: HashSet<UserId> = request.users.into_iter().collect();
        if users.len() > FOLLOWED_MAX {
            let message = format!("users must be at most {FOLLOWED_MAX}, not {}", users.len());
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        let users: Vec<UserId> = users.into_iter().collect();
        let now = self.presence_of(&presence.user, &users).await?;
        let seen = now.iter().map(|data| (data.user_id, data.clone())).collect();
        let follower = Follower { presence: Arc::clone(presence), seen };
        match users.is_empty() {
            true => drop(self.inner.whereabout.followers.remove(&presence.id)),
            false => drop(self.inner.whereabout.followers.insert(presence.id, follower)),
        }
        presence.send(&Shared::answer(PresenceSeen::from(now), request_id));
        Ok(())
    }

    /// A session that is over follows nobody.
    pub(super) fn forget_follower(&self, session: SessionId) {
        self.inner.whereabout.followers.remove(&session);
    }

    /// Who of `users` is there, as far as `asker` may know of where.
    async fn presence_of(&self, asker: &UserView, users: &[UserId]) -> Result<Vec<PresenceData>, AppError> {
        let there = self.whereabouts_of(users).await;
        let away: Vec<UserId> = there.iter().filter(|(_, nodes)| nodes.is_empty()).map(|(user, _)| *user).collect();
        let mut last_seen = self.store().last_seen_of(&away).await?;
        let mut visible: HashMap<ChannelId, bool> = HashMap::new();
        let mut found = Vec::with_capacity(users.len());
        for (user, nodes) in there {
            let online = !nodes.is_empty();
            let mut channels: HashMap<ChannelId, bool> = HashMap::new();
            for node in nodes {
                for id in node.texts {
                    channels.entry(id).or_default();
                }
                channels.extend(node.voices.into_iter().map(|id| (id, true)));
            }
            let mut shown = Vec::new();
            for (id, voice) in channels {
                if self.is_visible(asker, id, &mut visible).await {
                    let speaking = voice && self.rooms().is_speaking(id, user);
                    shown.push(ChannelPresence { channel_id: id, voice, speaking });
                }
            }
            shown.sort_unstable_by_key(|channel| channel.channel_id);
            let last_seen = last_seen.remove(&user).map(rfc3339);
            found.push(PresenceData { user_id: user, online, channels: shown, last_seen });
        }
        Ok(found)
    }

    /// What each node says of each of `users`; nothing of those who are nowhere. While the others cannot be asked, those here are
    /// known.
    async fn whereabouts_of(&self, users: &[UserId]) -> Vec<(UserId, Vec<Whereabouts>)> {
        let elsewhere = self.inner.records.whereabouts(users).await.unwrap_or_else(|_| vec![Vec::new(); users.len()]);
        let mut there: Vec<(UserId, Vec<Whereabouts>)> = users.iter().copied().zip(elsewhere).collect();
        for (user, nodes) in &mut there {
            if self.inner.people.is_here(*user) {
                nodes.push(self.whereabouts_here(*user));
            }
        }
        there
    }

    async fn is_visible(&self, asker: &UserView, channel: ChannelId, known: &mut HashMap<ChannelId, bool>) -> bool {
        if let Some(known) = known.get(&channel) {
            return *known;
        }
        let looked = async {
            let found = self.store().channel(channel).await?.ok_or(StoreError::Missing)?;
            let standing = self.rooms().standing_of(asker, channel).await?;
            require(&standing, found.is_private, Action::See)
        };
        let is_visible = looked.await.is_ok();
        known.insert(channel, is_visible);
        is_visible
    }
}
