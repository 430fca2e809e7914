//! Sessions as the other nodes may see them: each has a record, by which one of them can go on with it.
//!
//! A node on its own keeps no records, and everything here does nothing.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{
    gateway::LeaveReason,
    ids::{ChannelId, SessionId, UserId},
};
use tokio::sync::mpsc;

use super::{
    Gateway,
    close::CloseCause,
    outbox::{End, Outbox},
    sessions::{Attachment, Moved, ResumeRefused, Session},
    token::{TokenHash, new_token},
};
use crate::{
    cluster::{Place, SessionNotice, SessionRecord, TokenHashes, Unavailable},
    rooms::{Link, Presence},
    telemetry::metrics::metrics,
};

/// When it is looked again whose account was switched off, where that could not be seen or not be done.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A session that was another node's until now.
pub(super) struct Claimed {
    pub(super) attachment: Attachment,
    /// The new token.
    pub(super) token: String,
    pub(super) places: Vec<Place>,
    /// Where it reads and writes without voice.
    pub(super) texts: Vec<ChannelId>,
}

impl Gateway {
    fn record_of(&self, session: &Session) -> SessionRecord {
        SessionRecord {
            user: session.presence.user.clone(),
            tokens: session.tokens(),
            // Until the rooms have all of a session that moved here, the record says it.
            places: session.arriving().unwrap_or_else(|| self.rooms().places(&session.presence)),
            texts: session.arriving_texts().unwrap_or_else(|| session.presence.channels().0),
            entries: session.presence.entries(),
            moves: session.moves(),
        }
    }

    /// Writes a new session's record. Where that fails it is written when the other nodes can be reached again.
    pub(super) async fn open_record(&self, session: &Session) {
        if self.inner.records.is_shared() {
            // It is nowhere yet, so there are no places to remember.
            let _ = self.inner.records.refresh(session.presence.id, self.record_of(session)).await;
        }
    }

    /// Writes how a session is now. One that another node has by now is let go of.
    pub(super) async fn refresh_record(&self, session: &Arc<Session>) {
        if self.inner.records.is_shared() && !session.is_over() && !self.is_ours(session).await {
            self.let_go(session).await;
        }
    }

    /// Likewise, without waiting for it.
    pub(super) fn refresh_record_soon(&self, session: &Arc<Session>) {
        if self.inner.records.is_shared() {
            let (gateway, session) = (self.clone(), Arc::clone(session));
            tokio::spawn(async move { gateway.refresh_record(&session).await });
        }
    }

    async fn is_ours(&self, session: &Session) -> bool {
        let record = self.record_of(session);
        let places = record.places.clone();
        match self.inner.records.refresh(session.presence.id, record).await {
            // It may have ended while it was written, and its record been forgotten before that.
            Ok(true) if session.is_over() => self.release_record(session).await,
            Ok(true) => session.set_recorded(places),
            Ok(false) => return false,
            Err(Unavailable) => {}
        }
        true
    }

    /// Forgets a session that is over.
    pub(super) async fn release_record(&self, session: &Session) {
        self.inner.records.release(session.presence.id).await;
    }

    /// Moves a session from another node to this one and to the connection of `outbox`.
    pub(super) async fn claim(
        &self,
        id: SessionId,
        offered: &str,
        link: &Link,
        outbox: &Arc<Outbox>,
    ) -> Result<Claimed, ResumeRefused> {
        let token = new_token();
        let (current, offered) = (TokenHash::of(&token), TokenHash::of(offered));
        // The one before holds until the client shows that it has the new one, should this node die meanwhile.
        let tokens = TokenHashes { current: current.bytes(), before: Some(offered.bytes()) };
        let record = self.inner.records.claim(id, offered.bytes(), tokens).await?;
        if let Some(stale) = self.sessions().get(id) {
            // It left this node a moment ago, and word of that has not come yet.
            self.let_go(&stale).await;
        }
        let presence = Arc::new(Presence::new(id, record.user.clone(), link.clone()));
        presence.set_entries(record.entries);
        let (places, texts) = (record.places.clone(), record.texts.clone());
        let moved = Moved { current, offered, moves: record.moves, places, texts };
        let attachment = self.sessions().adopt(presence, moved, Arc::clone(outbox), self.rooms().now());
        self.chat().arrived(&attachment.session.presence);
        Ok(Claimed { attachment, token, places: record.places, texts: record.texts })
    }

    /// Gives a claimed session up that could not be taken up whole: its record stays as it was, for another try.
    pub(super) async fn give_back(&self, session: &Session) {
        self.sessions().take(session);
        self.chat().departed(&session.presence);
        self.rooms().disown(&session.presence, &session.recorded()).await;
    }

    /// Lets go of a session that another node has: its connection closes with 4015.
    async fn let_go(&self, session: &Session) {
        if let Some(outbox) = self.sessions().take(session) {
            outbox.end(End::Close(CloseCause::Replaced));
        }
        self.chat().departed(&session.presence);
        self.rooms().disown(&session.presence, &session.recorded()).await;
    }

    /// Acts on what is heard of sessions, in order, until there is no more.
    pub(super) async fn hear(self, mut notices: mpsc::Receiver<SessionNotice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                // Asked again, as it may have come back since.
                SessionNotice::Claimed(id) => {
                    if let Some(session) = self.sessions().get(id) {
                        self.refresh_record(&session).await;
                    }
                }
                SessionNotice::Listening(news) => self.hear_of_listening(news),
                SessionNotice::AccountDisabled(user) => self.end_sessions_of(user).await,
                SessionNotice::Reconnected => {
                    self.chat().say_all_anew();
                    for session in self.sessions().all() {
                        self.refresh_record(&session).await;
                    }
                    self.end_unusable_soon();
                }
            }
        }
    }

    /// Ends the sessions of accounts that were switched off or deleted without this node's hearing of it, and puts out whoever could
    /// not be put out then. False where not all of that could be done.
    pub async fn end_unusable(&self) -> bool {
        let mut users = self.rooms().people();
        users.extend(self.sessions().all().iter().map(|session| session.presence.user.id));
        let unusable = match self.auth().unusable(&users).await {
            Ok(unusable) => unusable,
            Err(error) => {
                tracing::warn!(%error, "it is not known which accounts were switched off meanwhile: it is asked again");
                return false;
            }
        };
        let mut is_done = true;
        for user in unusable {
            is_done &= self.end_here(user).await;
        }
        is_done
    }

    /// Likewise in a task of its own, and again every few seconds until all of it could be done. To be called every minute or so, and
    /// when something may have gone unheard.
    pub fn end_unusable_soon(&self) {
        if self.inner.awaits_unusable.swap(true, Ordering::AcqRel) {
            return;
        }
        let gateway = self.clone();
        tokio::spawn(async move {
            loop {
                // Whatever happens from now on needs another look.
                gateway.inner.awaits_unusable.store(false, Ordering::Release);
                if gateway.end_unusable().await {
                    return;
                }
                metrics().gateway.account_looks_failed.increment(1);
                if gateway.inner.awaits_unusable.swap(true, Ordering::AcqRel) {
                    // Somebody else's task does it.
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }

    /// Ends every session of this node: their connections close with 4009, to connect anew. How many there were.
    pub async fn end_all_sessions(&self) -> u64 {
        let sessions = self.sessions().all();
        for session in &sessions {
            if let Some(outbox) = self.sessions().take(session) {
                outbox.end(End::Close(CloseCause::SessionOver));
            }
            self.chat().departed(&session.presence);
            self.rooms().end(&session.presence, LeaveReason::Kicked).await;
            self.release_record(session).await;
        }
        sessions.len() as u64
    }

    /// Ends the sessions that an account has on this node, whose connections close with 4014, and puts out whoever of theirs is here
    /// without one; soon again where that fails.
    pub(super) async fn end_sessions_of(&self, user: UserId) {
        if !self.end_here(user).await {
            self.end_unusable_soon();
        }
    }

    /// False where somebody could not be put out.
    async fn end_here(&self, user: UserId) -> bool {
        for (session, outbox) in self.sessions().end_all_of(user) {
            if let Some(outbox) = outbox {
                outbox.end(End::Close(CloseCause::Banned));
            }
            self.chat().departed(&session.presence);
            self.rooms().end(&session.presence, LeaveReason::Banned).await;
            self.release_record(&session).await;
        }
        self.rooms().put_out(user).await
    }
}
