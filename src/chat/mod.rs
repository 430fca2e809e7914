//! Writing: in channels and between two people.
//!
//! `handle` carries out what a client asks for, `check` says what may be written, `writer` stores what waits for one scope
//! in one step, `people` reaches somebody's sessions on this node, `direct` what is for single people, `presence` says who is there, `history` what was
//! written before, `page` how much of it goes in one answer, `terms` what a channel's owner says of it, `reports` what its moderators are told of, `notices` who is told of something besides, `upkeep` what goes on by itself. Telling a channel is [`crate::rooms`]' work.

mod check;
mod direct;
mod handle;
mod history;
mod notices;
mod page;
mod people;
mod presence;
mod reports;
mod terms;
mod upkeep;
mod writer;

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::{ChannelId, UserId},
    permission::{Action, Decision, Standing, decide},
};
use dashmap::DashMap;
use tokio::sync::mpsc;

pub use handle::is_chat;
pub use notices::notification_data;
pub use page::{PAGE_BYTES_MAX, fitting};
pub use terms::SLOW_MODE_MAX_S;

use self::{direct::Pairs, people::People, presence::Whereabout, writer::Writers};
use crate::{
    cluster::SessionRecords,
    error::AppError,
    rates::Rates,
    rooms::Rooms,
    store::{Channel, Scope, Store, User},
};

/// What can be set of chat.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// The longest message, in characters.
    pub message_chars: usize,
    /// How often a minute somebody may say that they write, in one place; 0 for any number.
    pub typing_per_minute: u32,
    /// Changes that may wait for one channel or pair.
    pub waiting: usize,
    /// How often this node looks for what another left unfinished.
    pub look_every: Duration,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self { message_chars: 4_000, typing_per_minute: 60, waiting: 256, look_every: Duration::from_secs(5) }
    }
}

/// What is for single people and waits to be told here.
const DIRECT_MAX: usize = 4_096;

/// Chat on this node. Cheap to clone.
#[derive(Clone)]
pub struct Chat {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rooms: Rooms,
    config: ChatConfig,
    writers: Writers,
    people: People,
    pairs: Pairs,
    typing: Option<Rates<(UserId, Scope)>>,
    /// What nodes know of each other's people.
    records: SessionRecords,
    whereabout: Whereabout,
}

impl Chat {
    /// Chat in `rooms`, kept in `store`, of a node among those that share `records`. What other nodes have for single people is followed in a task of its own, and so is
    /// what they leave unfinished.
    #[must_use]
    pub fn start(store: Store, rooms: Rooms, records: SessionRecords, config: ChatConfig) -> Self {
        let (taker, direct) = mpsc::channel(DIRECT_MAX);
        rooms.give_direct_to(taker);
        let typing = Rates::new(config.typing_per_minute);
        let chat = Self {
            inner: Arc::new(Inner {
                store,
                rooms,
                config,
                writers: Writers::default(),
                people: People::default(),
                pairs: DashMap::new(),
                typing,
                records,
                whereabout: Whereabout::default(),
            }),
        };
        tokio::spawn(chat.clone().hear(direct));
        tokio::spawn(chat.clone().look());
        tokio::spawn(chat.clone().tell_whereabouts());
        chat
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn rooms(&self) -> &Rooms {
        &self.inner.rooms
    }

    /// The channel of that name or id, if it exists for `user`.
    async fn channel(&self, user: &UserView, named: &str) -> Result<(Channel, Standing), AppError> {
        let found = match named.parse::<ChannelId>() {
            Ok(id) => self.store().channel(id).await?,
            Err(_) => self.store().channel_by_name(named).await?,
        };
        let channel = found.ok_or_else(no_such_room)?;
        let standing = self.rooms().standing_of(user, channel.id).await?;
        require(&standing, channel.is_private, Action::See)?;
        Ok((channel, standing))
    }

    /// The account of that id or name.
    async fn user(&self, named: &str) -> Result<User, AppError> {
        let found = match named.parse::<UserId>() {
            Ok(id) => self.store().user(id).await?,
            Err(_) => self.store().user_by_name(named).await?,
        };
        found.ok_or_else(|| AppError::new(ErrorCode::UserNotFound, "there is no user with this id or name"))
    }
}

/// Whether somebody may do something in a channel.
fn require(standing: &Standing, is_private: bool, action: Action<'_>) -> Result<(), AppError> {
    match decide(standing, is_private, action) {
        Decision::Allowed => Ok(()),
        Decision::Hidden => Err(no_such_room()),
        Decision::Denied(reason) => Err(AppError::new(ErrorCode::PermissionDenied, reason)),
    }
}

fn no_such_room() -> AppError {
    AppError::new(ErrorCode::ChannelNotFound, "there is no room with this name or id")
}

impl std::fmt::Debug for Chat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chat({} people here)", self.inner.people.count())
    }
}
