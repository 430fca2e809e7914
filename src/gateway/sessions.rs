//! The sessions of this node: each outlives its connection by the resume grace.

use std::sync::Arc;

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, SessionId, UserId},
};
use dashmap::DashMap;
use parking_lot::Mutex;

use super::{
    limits::{Allowance, Rates},
    outbox::Outbox,
    token::{TokenHash, new_token},
};
use crate::{
    cluster::{ClaimRefused, Moves, Place, TokenHashes},
    rooms::Presence,
    telemetry::metrics::metrics,
};

/// Somebody's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) presence: Arc<Presence>,
    /// What the account may send, over all its sessions.
    pub(super) allowance: Arc<Mutex<Allowance>>,
    state: Mutex<State>,
}

struct State {
    token: TokenHash,
    /// The token before: it still holds until the client shows that it has the new one, for the answer may have been lost
    /// with its connection, which may seem to live.
    token_before: Option<TokenHash>,
    /// The connection of now; `None` while there is none.
    outbox: Option<Arc<Outbox>>,
    /// The places in its record: those that another node knows of.
    recorded: Vec<Place>,
    /// It has moved here, and the rooms do not have all of it yet: where it reads and writes without voice.
    arriving: Option<Vec<ChannelId>>,
    moves: Moves,
    /// Counts connections, so that what is left of an older one changes nothing.
    connection: u64,
    ended: bool,
}

impl State {
    fn new(token: TokenHash, outbox: Arc<Outbox>) -> Self {
        Self {
            token,
            token_before: None,
            outbox: Some(outbox),
            recorded: Vec::new(),
            arriving: None,
            moves: Moves::default(),
            connection: 0,
            ended: false,
        }
    }
}

impl std::fmt::Debug for State {
    /// Without the tokens' hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection {}", self.connection)
    }
}

/// A connection's hold on its session.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    pub(super) session: Arc<Session>,
    connection: u64,
}

/// A session taken up again.
#[derive(Debug)]
pub(super) struct Resumption {
    pub(super) attachment: Attachment,
    /// The new token.
    pub(super) token: String,
    /// The connection that had the session until now.
    pub(super) older: Option<Arc<Outbox>>,
}

/// Why a session is not taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResumeRefused {
    /// It is over, or never was.
    Unknown,
    /// The token is not its.
    WrongToken,
    /// Which node has it cannot be said now.
    Unavailable,
}

impl From<ClaimRefused> for ResumeRefused {
    fn from(refused: ClaimRefused) -> Self {
        match refused {
            ClaimRefused::Unknown => Self::Unknown,
            ClaimRefused::WrongToken => Self::WrongToken,
            ClaimRefused::Unavailable => Self::Unavailable,
        }
    }
}

/// A session that has just moved here.
pub(super) struct Moved {
    /// The new token's hash.
    pub(super) current: TokenHash,
    /// That of the token that it was claimed with.
    pub(super) offered: TokenHash,
    pub(super) moves: Moves,
    /// Where it is, as its record says.
    pub(super) places: Vec<Place>,
    /// Where it reads and writes without voice, likewise.
    pub(super) texts: Vec<ChannelId>,
}

/// All sessions of this node.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: DashMap<SessionId, Arc<Session>>,
    accounts: DashMap<UserId, Account>,
    rates: Rates,
    most_per_account: usize,
}

/// What the sessions of one account share.
#[derive(Debug)]
struct Account {
    allowance: Arc<Mutex<Allowance>>,
    sessions: Vec<SessionId>,
}

impl Sessions {
    pub(super) fn new(rates: Rates, most_per_account: usize) -> Self {
        Self { sessions: DashMap::new(), accounts: DashMap::new(), rates, most_per_account }
    }

    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Guests who have one, each as often as they have one.
    pub(super) fn guests(&self) -> Vec<UserId> {
        let users = self.sessions.iter().map(|session| (session.presence.user.id, session.presence.user.is_guest));
        users.filter(|(_, is_guest)| *is_guest).map(|(id, _)| id).collect()
    }

    /// Makes a session with its first connection. `None` when the account has as many as it may have.
    pub(super) fn open(
        &self,
        presence: Arc<Presence>,
        token: &str,
        outbox: Arc<Outbox>,
        now: Micros,
    ) -> Option<Attachment> {
        let allowance = self.count_in(&presence, self.most_per_account, now)?;
        Some(self.insert(presence, allowance, State::new(TokenHash::of(token), outbox)))
    }

    /// Takes over a session that was another node's, however many its account has here.
    pub(super) fn adopt(
        &self,
        presence: Arc<Presence>,
        moved: Moved,
        outbox: Arc<Outbox>,
        now: Micros,
    ) -> Option<Attachment> {
        let allowance = self.count_in(&presence, usize::MAX, now)?;
        let Moved { current, offered, moves, places, texts } = moved;
        let state = State { moves, recorded: places, arriving: Some(texts), ..State::new(current, outbox) };
        Some(self.insert(presence, allowance, State { token_before: Some(offered), ..state }))
    }

    /// Counts a session as its account's; `None` when that has `most` already.
    fn count_in(&self, presence: &Presence, most: usize, now: Micros) -> Option<Arc<Mutex<Allowance>>> {
        let mut account = self.accounts.entry(presence.user.id).or_insert_with(|| Account {
            allowance: Arc::new(Mutex::new(Allowance::new(self.rates, now))),
            sessions: Vec::new(),
        });
        if account.sessions.len() >= most {
            return None;
        }
        account.sessions.push(presence.id);
        Some(Arc::clone(&account.allowance))
    }

    fn insert(&self, presence: Arc<Presence>, allowance: Arc<Mutex<Allowance>>, state: State) -> Attachment {
        let session = Arc::new(Session { presence, allowance, state: Mutex::new(state) });
        self.sessions.insert(session.presence.id, Arc::clone(&session));
        metrics().gateway.sessions.increment(1.0);
        Attachment { session, connection: 0 }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(&id).map(|session| Arc::clone(&session))
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.iter().map(|session| Arc::clone(&session)).collect()
    }

    /// Turns a session to another connection.
    pub(super) fn resume(&self, id: SessionId, token: &str, outbox: Arc<Outbox>) -> Result<Resumption, ResumeRefused> {
        let session = self.sessions.get(&id).map(|session| Arc::clone(&session)).ok_or(ResumeRefused::Unknown)?;
        let offered = TokenHash::of(token);
        let mut state = session.state.lock();
        if state.ended {
            return Err(ResumeRefused::Unknown);
        }
        let is_before = state.token_before.is_some_and(|before| before.matches(&offered));
        if !state.token.matches(&offered) && !is_before {
            return Err(ResumeRefused::WrongToken);
        }
        let token = new_token();
        state.token_before = Some(offered);
        state.token = TokenHash::of(&token);
        state.connection += 1;
        let older = state.outbox.replace(outbox);
        let connection = state.connection;
        drop(state);
        Ok(Resumption { attachment: Attachment { session, connection }, token, older })
    }

    /// Ends a session for good, unless another connection has it by now. False when it was not for this one to end.
    pub(super) fn end(&self, attachment: &Attachment) -> bool {
        let ended = attachment.with_current(|state| {
            state.ended = true;
            state.outbox = None;
        });
        if ended.is_some() {
            self.forget(&attachment.session);
        }
        ended.is_some()
    }

    /// Ends a session that has had no connection since `attachment` was lost. False when it was taken up again.
    pub(super) fn expire(&self, attachment: &Attachment) -> bool {
        let is_lost = attachment.with_current(|state| {
            state.ended = state.outbox.is_none();
            state.ended
        });
        if is_lost == Some(true) {
            self.forget(&attachment.session);
        }
        is_lost == Some(true)
    }

    /// Ends all sessions of an account, whatever their connections, which are yielded.
    pub(super) fn end_all_of(&self, user: UserId) -> Vec<(Arc<Session>, Option<Arc<Outbox>>)> {
        let ids = self.accounts.get(&user).map_or(Vec::new(), |account| account.sessions.clone());
        let sessions: Vec<_> =
            ids.iter().filter_map(|id| self.sessions.get(id).map(|session| Arc::clone(&session))).collect();
        let end = |session: Arc<Session>| {
            let outbox = self.take(&session);
            (session, outbox)
        };
        sessions.into_iter().map(end).collect()
    }

    /// Ends a session here, whatever its connection, which is yielded.
    pub(super) fn take(&self, session: &Session) -> Option<Arc<Outbox>> {
        let outbox = {
            let mut state = session.state.lock();
            state.ended = true;
            state.connection += 1;
            state.outbox.take()
        };
        self.forget(session);
        outbox
    }

    fn forget(&self, session: &Session) {
        let presence = &session.presence;
        // A session may have gone to another node and come back: that one stays.
        let is_same = |_: &SessionId, known: &Arc<Session>| std::ptr::eq(Arc::as_ptr(known), session);
        if self.sessions.remove_if(&presence.id, is_same).is_none() {
            return;
        }
        metrics().gateway.sessions.decrement(1.0);
        // What the account has used up stays known, or reconnecting would give it back.
        if let Some(mut account) = self.accounts.get_mut(&presence.user.id) {
            account.sessions.retain(|id| *id != presence.id);
        }
    }

    /// Forgets accounts without sessions once all of their allowance has come back.
    pub(super) fn sweep(&self, now: Micros) {
        self.accounts.retain(|_, account| !account.sessions.is_empty() || !account.allowance.lock().is_whole(now));
    }
}

impl Session {
    /// The tokens that open it, for its record. The one before counts until the newest is known to have arrived, should
    /// this node die meanwhile.
    pub(super) fn tokens(&self) -> TokenHashes {
        let state = self.state.lock();
        TokenHashes { current: state.token.bytes(), before: state.token_before.map(TokenHash::bytes) }
    }

    /// Notes which places are in its record now.
    pub(super) fn set_recorded(&self, places: Vec<Place>) {
        self.state.lock().recorded = places;
    }

    /// How often it had moved when it came here.
    pub(super) fn moves(&self) -> Moves {
        self.state.lock().moves
    }

    /// Where it is by its record, as long as the rooms do not have all of it.
    pub(super) fn arriving(&self) -> Option<Vec<Place>> {
        let state = self.state.lock();
        state.arriving.as_ref().map(|_| state.recorded.clone())
    }

    /// Likewise of where it reads and writes without voice.
    pub(super) fn arriving_texts(&self) -> Option<Vec<ChannelId>> {
        self.state.lock().arriving.clone()
    }

    /// The rooms have all of it.
    pub(super) fn arrived(&self) {
        self.state.lock().arriving = None;
    }

    /// The places that were in its record when that was written last.
    pub(super) fn recorded(&self) -> Vec<Place> {
        self.state.lock().recorded.clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().ended
    }
}

impl Attachment {
    /// Notes that the connection is gone. False when that is known, or another has the session by now.
    pub(super) fn lose(&self) -> bool {
        self.with_current(|state| state.outbox.take().is_some()) == Some(true)
    }

    /// Notes that the client has read the newest token. True when that was not known.
    pub(super) fn token_arrived(&self) -> bool {
        self.with_current(|state| state.token_before.take().is_some()) == Some(true)
    }

    fn with_current<T>(&self, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.session.state.lock();
        (state.connection == self.connection && !state.ended).then(|| change(&mut state))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::gateway::{Encoding, Role, UserView};
    use uuid::Uuid;

    use super::*;
    use crate::{
        gateway::{limits::Verdict, outbox::OutboxLimits},
        rooms::Link,
    };

    fn sessions() -> Sessions {
        Sessions::new(Rates::default(), 2)
    }

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(Encoding::Json, OutboxLimits::default(), Arc::default(), Arc::default()))
    }

    fn presence(id: u128) -> Arc<Presence> {
        let user = UserView {
            id: UserId(Uuid::from_u128(1)),
            username: "anna".to_owned(),
            display_name: "Anna".to_owned(),
            role: Role::User,
            is_active: true,
            is_guest: false,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let link = Link { outlet: outbox(), reached_host: "localhost".into(), reached_address: None, address: None };
        Arc::new(Presence::new(SessionId(Uuid::from_u128(id)), user, link))
    }

    fn open(sessions: &Sessions, id: u128, token: &str) -> Option<Attachment> {
        sessions.open(presence(id), token, outbox(), Micros::ZERO)
    }

    #[test]
    fn only_the_token_opens_and_each_resume_changes_it() {
        let sessions = sessions();
        let first = open(&sessions, 1, "first").expect("opens");
        let id = first.session.presence.id;
        let refused = |id, token| sessions.resume(id, token, outbox()).map(|_| ()).expect_err("refused");
        assert_eq!(refused(id, "other"), ResumeRefused::WrongToken);
        assert_eq!(refused(SessionId(Uuid::from_u128(9)), "first"), ResumeRefused::Unknown);

        let second = sessions.resume(id, "first", outbox()).expect("resumes");
        assert!(second.older.is_some());
        assert!(!first.lose() && !sessions.end(&first), "the older connection has no say any more");
        second.attachment.token_arrived();
        assert_eq!(refused(id, "first"), ResumeRefused::WrongToken);
        sessions.resume(id, &second.token, outbox()).expect("resumes with the new token");
    }

    #[test]
    fn a_token_holds_until_the_next_has_arrived() {
        let sessions = sessions();
        let id = open(&sessions, 1, "first").expect("opens").session.presence.id;
        let lost = sessions.resume(id, "first", outbox()).expect("resumes");
        let again =
            sessions.resume(id, "first", outbox()).expect("the answer was lost, though its connection seems to live");
        assert!(again.attachment.lose());
        let again = sessions.resume(id, "first", outbox()).expect("the answer was lost with the connection");
        assert!(sessions.resume(id, &lost.token, outbox()).is_err(), "nobody ever had that one");
        again.attachment.token_arrived();
        assert!(again.attachment.lose());
        assert!(sessions.resume(id, "first", outbox()).is_err());
    }

    #[test]
    fn a_lost_session_expires_unless_it_was_resumed() {
        let sessions = sessions();
        let attachment = open(&sessions, 1, "token").expect("opens");
        assert!(!sessions.expire(&attachment), "it has a connection");
        assert!(attachment.lose() && !attachment.lose(), "once");
        let resumed = sessions.resume(attachment.session.presence.id, "token", outbox()).expect("resumes");
        assert!(!sessions.expire(&attachment), "it was resumed");
        assert!(resumed.attachment.lose() && sessions.expire(&resumed.attachment));
        assert_eq!(sessions.count(), 0);
        let late = sessions.resume(attachment.session.presence.id, &resumed.token, outbox()).map(|_| ());
        assert_eq!(late, Err(ResumeRefused::Unknown));
    }

    #[test]
    fn an_account_has_so_many_sessions_and_they_share_an_allowance() {
        let sessions = sessions();
        let (one, two) = (open(&sessions, 1, "a").expect("opens"), open(&sessions, 2, "b").expect("opens"));
        assert!(Arc::ptr_eq(&one.session.allowance, &two.session.allowance));
        assert!(open(&sessions, 3, "c").is_none());
        assert!(sessions.end(&one));
        assert!(open(&sessions, 4, "d").is_some());
        assert_eq!(sessions.end_all_of(one.session.presence.user.id).len(), 2);
        sessions.sweep(Micros::ZERO);
        assert_eq!((sessions.count(), sessions.accounts.len()), (0, 0));
        assert!(!two.lose(), "it is over");
    }

    #[test]
    fn connecting_anew_gives_no_new_allowance() {
        let sessions = sessions();
        let first = open(&sessions, 1, "a").expect("opens");
        while first.session.allowance.lock().take(false, Micros::ZERO) == Verdict::Granted {}
        assert!(sessions.end(&first));
        sessions.sweep(Micros::ZERO);
        let second = open(&sessions, 2, "b").expect("opens");
        assert_ne!(second.session.allowance.lock().take(false, Micros::ZERO), Verdict::Granted);
        assert!(sessions.end(&second));
        sessions.sweep(Micros::from_secs(60));
        assert_eq!(sessions.accounts.len(), 0, "it has come back");
    }
}
