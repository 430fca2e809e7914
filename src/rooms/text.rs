//! Being in a channel to read and write there, without voice. It takes no place, and no other node knows of it; what
//! happens in the channel comes all the same.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use antiphon_core::{
    gateway::{ErrorCode, Position, Removed, ResumedText, UserView},
    ids::{ChannelId, MessageId, SessionId, UserId},
    permission::{Action, Decision, decide},
};

use super::{
    Rooms,
    admit::not_found,
    chat::not_attending,
    outlet::{Outlet, Shared},
    presence::{Link, Presence},
    resume::{Missed, event_values},
    room::{Room, Turn},
};
use crate::{
    cluster::{About, Leave, Notice, Unavailable},
    error::AppError,
    store::{Channel, Scope},
};

/// Somebody who reads and writes here.
#[derive(Debug)]
pub(super) struct TextMember {
    pub(super) presence: Arc<Presence>,
    pub(super) outlet: Arc<dyn Outlet>,
    /// The session is also a member, and gets what happens as such.
    pub(super) is_in_voice: bool,
}

impl Rooms {
    /// Lets a session read and write in a channel, and yields the place from which on it gets everything. One that does so
    /// already gets the place of now.
    ///
    /// # Errors
    /// When the channel does not exist for them or bans them, the session is in too many, or what all nodes share cannot be
    /// reached and nobody here is in the channel.
    pub async fn attend(&self, presence: &Arc<Presence>, channel: ChannelId) -> Result<Position, AppError> {
        let _turn = presence.turn.lock().await;
        self.check_attending(presence, channel)?;
        Ok(self.attend_within(presence, channel, None).await?.position)
    }

    fn check_attending(&self, presence: &Presence, channel: ChannelId) -> Result<(), AppError> {
        let state = presence.state();
        if state.ended {
            return Err(AppError::new(ErrorCode::Unauthenticated, "this session is over: connect anew"));
        }
        let most = self.inner.config.texts_per_session;
        if state.texts.len() >= most && !state.texts.contains_key(&channel) {
            let message = format!("this session is in {most} rooms, the most allowed: leave one first");
            return Err(AppError::new(ErrorCode::LimitReached, message));
        }
        Ok(())
    }

    /// With the `position` that a session knows which comes from another node, it gets what it missed.
    async fn attend_within(
        &self,
        presence: &Arc<Presence>,
        channel: ChannelId,
        known: Option<&Position>,
    ) -> Result<ResumedText, AppError> {
        loop {
            let decided_at = self.inner.changes.load(Ordering::Acquire);
            let settings = self.readable(&presence.user, channel).await?;
            let (room, mut turn) = self.turn_of_new(channel).await;
            // A ban or a role may have changed while it was looked up.
            let attended = match decided_at == self.inner.changes.load(Ordering::Acquire) {
                true => Some(self.enter_text(presence, &room, &mut turn, (settings, known)).await),
                false => None,
            };
            self.close_if_empty(&room, &mut turn).await;
            drop(turn);
            let Some(attended) = attended else { continue };
            let attended = attended?;
            self.confirm_text(presence, channel).await;
            return Ok(attended);
        }
    }

    /// Looks once more where another node may have banned the user between the look and the entry.
    async fn confirm_text(&self, presence: &Arc<Presence>, channel: ChannelId) {
        if self.inner.membership.is_shared() && matches!(self.why_unwelcome(&presence.user, channel).await, Ok(Some(_)))
        {
            self.review_texts(channel).await;
        }
    }

    /// The channel, if `user` may read and write in it.
    pub(super) async fn readable(&self, user: &UserView, channel: ChannelId) -> Result<Channel, AppError> {
        let Some(found) = self.inner.store.channel(channel).await? else { return Err(not_found()) };
        let (standing, _) = self.standing(channel, user).await?;
        match decide(&standing, found.is_private, Action::Join) {
            Decision::Allowed => Ok(found),
            Decision::Denied(reason) => Err(AppError::new(ErrorCode::PermissionDenied, reason)),
            Decision::Hidden => Err(not_found()),
        }
    }

    async fn enter_text(
        &self,
        presence: &Arc<Presence>,
        room: &Arc<Room>,
        turn: &mut Turn,
        (settings, known): (Channel, Option<&Position>),
    ) -> Result<ResumedText, AppError> {
        if *turn == Turn::New {
            // Before the place is read, so that nothing after it goes unheard.
            self.inner.membership.watch(room.id).await?;
            *turn = Turn::Text;
        }
        if room.applied().is_none() {
            self.begin_text(room).await?;
            self.look_at_recording(room).await;
        }
        // Before the session is told anything here: what the room reads meanwhile is among what was missed.
        let missed = self.missed_by(presence, room, known).await;
        let position = room.applied().ok_or(Unavailable)?;
        let link = presence.state().link.clone();
        let live = &mut *room.live_mut();
        live.channel = Some(settings);
        let is_in_voice = live.members.values().any(|member| member.presence.id == presence.id);
        let text = TextMember { presence: Arc::clone(presence), outlet: Arc::clone(&link.outlet), is_in_voice };
        live.texts.insert(presence.id, text);
        let mut state = presence.state();
        state.texts.insert(room.id, Arc::clone(room));
        state.note_entry(room.id, position.clone());
        drop(state);
        Ok(resumed_text(room.id, position, (known, missed), &link))
    }

    /// Begins a room without members here: with the state of all nodes, and what was told by then.
    pub(super) async fn begin_text(&self, room: &Arc<Room>) -> Result<(), AppError> {
        let newest = self.inner.store.newest(Scope::Room(room.id)).await?;
        let appended = self.inner.membership.append(room.id, newest, &[], None).await?;
        let snapshot = self.inner.membership.snapshot(room.id, Some(&appended.position)).await?.ok_or(Unavailable)?;
        // What was told between the two is before the state's place.
        let between = snapshot.missed.unwrap_or_default();
        let told = between.iter().rev().find_map(|entry| match &entry.about {
            About::Chat(about) => Some(about.number),
            About::Member(_) | About::Channel => None,
        });
        let live = &mut *room.live_mut();
        live.roster.begin(snapshot.members, snapshot.position);
        live.told = Some(told.unwrap_or(appended.newest).max(MessageId(0)));
        if appended.newest < newest {
            // Another node has not finished.
            self.finish_chat_soon(room.id);
        }
        Ok(())
    }

    /// Ends that.
    ///
    /// # Errors
    /// When the session is not there by [`Rooms::attend`].
    pub async fn unattend(&self, presence: &Presence, channel: ChannelId) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        let room = presence.state().texts.get(&channel).cloned().ok_or_else(not_attending)?;
        presence.forget_text(channel);
        self.take_out_text(&room, presence.id).await;
        Ok(())
    }

    /// Ends it everywhere, for a session that is over or moves.
    pub(super) async fn unattend_all(&self, presence: &Presence) {
        let rooms: Vec<Arc<Room>> = presence.state().texts.values().cloned().collect();
        for room in rooms {
            presence.forget_text(room.id);
            self.take_out_text(&room, presence.id).await;
        }
    }

    async fn take_out_text(&self, room: &Arc<Room>, session: SessionId) {
        let mut turn = room.turn.lock().await;
        room.live_mut().texts.remove(&session);
        self.close_if_empty(room, &mut turn).await;
    }

    /// Whether a session gets what is written in a channel, with voice or without.
    #[must_use]
    pub fn is_attending(&self, presence: &Presence, channel: ChannelId) -> bool {
        let state = presence.state();
        state.texts.contains_key(&channel) || state.places.contains_key(&channel)
    }

    /// Puts somebody out of a channel where they read and write without voice, here and, as far as those can be told, on the
    /// other nodes. False when no session of theirs here did.
    pub(super) async fn remove_texts(&self, channel: ChannelId, leave: &Leave) -> bool {
        let was_here = self.remove_texts_here(channel, leave).await;
        self.inner.membership.announce(Notice::Removed { channel, leave: leave.clone() }).await;
        was_here
    }

    /// Likewise on this node alone.
    pub(super) async fn remove_texts_here(&self, channel: ChannelId, leave: &Leave) -> bool {
        let Some((room, mut turn)) = self.turn_of(channel).await else { return false };
        let Leave { user, reason, by, message, .. } = leave;
        let farewell = Removed { channel_id: channel, reason: *reason, by: *by, message: message.clone() };
        let was_here = room.remove_texts_of(*user, &Shared::new(farewell));
        self.close_if_empty(&room, &mut turn).await;
        was_here
    }

    /// Removes those here who may not be in a channel any more, after something changed that decides it.
    pub(super) async fn review_texts(&self, channel: ChannelId) {
        let reviewed = self.review_present(channel).await;
        self.or_fall_behind(channel, reviewed);
    }

    /// Likewise, or why it cannot be said who may be there.
    pub(super) async fn review_present(&self, channel: ChannelId) -> Result<(), AppError> {
        self.review_outsiders(channel).await;
        let Some(room) = self.room(channel) else { return Ok(()) };
        let present: Vec<UserView> = room.live().texts.values().map(|text| text.presence.user.clone()).collect();
        for leave in self.unwelcome(channel, present).await?.values() {
            self.remove_texts_here(channel, leave).await;
        }
        Ok(())
    }

    pub(super) fn review_texts_soon(&self, channel: ChannelId) {
        let has_any = |room: Arc<Room>| {
            let live = room.live();
            !live.texts.is_empty() || live.overheard.is_some()
        };
        if self.room(channel).is_some_and(has_any) {
            let rooms = self.clone();
            tokio::spawn(async move { rooms.review_texts(channel).await });
        }
    }

    /// Turns the rooms of a session to another connection.
    pub(super) async fn resume_texts(
        &self,
        presence: &Presence,
        link: &Link,
        positions: &HashMap<ChannelId, Position>,
    ) -> Vec<ResumedText> {
        let mut rooms: Vec<Arc<Room>> = presence.state().texts.values().cloned().collect();
        rooms.sort_unstable_by_key(|room| room.id);
        let mut resumed = Vec::with_capacity(rooms.len());
        for room in rooms {
            let mut turn = room.turn.lock().await;
            let known = positions.get(&room.id);
            // Before the session is told anything by its new connection, as when it comes from another node.
            let missed = self.missed_by(presence, &room, known).await;
            let text = room.live_mut().texts.get_mut(&presence.id).map(|text| text.outlet = Arc::clone(&link.outlet));
            // Without one it was removed meanwhile.
            if let (Some(()), Some(position)) = (text, room.applied()) {
                resumed.push(resumed_text(room.id, position, (known, missed), link));
            }
            self.close_if_empty(&room, &mut turn).await;
        }
        resumed
    }

    /// Takes a session that was another node's into its rooms here. One that it may not be in any more is left out.
    pub(super) async fn adopt_texts(
        &self,
        presence: &Arc<Presence>,
        texts: &[ChannelId],
        positions: &HashMap<ChannelId, Position>,
    ) -> Result<Vec<ResumedText>, Unavailable> {
        let mut resumed = Vec::with_capacity(texts.len());
        for channel in texts {
            let known = positions.get(channel);
            if let Some(known) = known {
                // A node of the release before does not say since when it is there; its client does.
                presence.state().note_entry(*channel, known.clone());
            }
            match self.attend_within(presence, *channel, known).await {
                Ok(text) => resumed.push(text),
                Err(error) if error.code == ErrorCode::TemporarilyUnavailable => return Err(Unavailable),
                Err(_) => presence.state().forget_entry(*channel),
            }
        }
        Ok(resumed)
    }
}

impl Room {
    /// Ends reading and writing here for a user, and their listening from outside. Each of their sessions hears `farewell`, but
    /// one that is in voice: it hears when it leaves that. False when none of them was here for that alone.
    pub(super) fn remove_texts_of(&self, user: UserId, farewell: &Shared) -> bool {
        let live = &mut *self.live_mut();
        live.send_outsiders_away(user);
        let mut was_here = false;
        for (_, text) in live.texts.extract_if(|_, text| text.presence.user.id == user) {
            text.presence.forget_text(self.id);
            if !text.is_in_voice {
                was_here = true;
                text.outlet.send(farewell);
            }
        }
        was_here
    }
}

/// What a session is told of a room on resuming, given the place that it knew and what happened since.
fn resumed_text(
    channel_id: ChannelId,
    position: Position,
    (known, missed): (Option<&Position>, Missed),
    link: &Link,
) -> ResumedText {
    let recovered = known.map(|_| missed.is_some());
    let events = missed.map(|missed| event_values(&missed, link));
    ResumedText { channel_id, position, recovered, events }
}
