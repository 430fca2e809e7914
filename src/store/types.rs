//! What the store keeps, as the rest of the server sees it.

use antiphon_core::{
    gateway::{ChannelView, Role, UserView},
    ids::{ChannelId, UserId},
    permission::ChannelRole,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// An account, or a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Unique, without regard to case.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// What it may do on the server as a whole.
    pub role: Role,
    /// False once it was switched off.
    pub is_active: bool,
    /// Came in with a name only.
    pub is_guest: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl User {
    /// As others see it.
    #[must_use]
    pub fn view(&self) -> UserView {
        UserView {
            id: self.id,
            username: self.username.clone(),
            display_name: self.display_name.clone(),
            role: self.role,
            is_active: self.is_active,
            is_guest: self.is_guest,
            created_at: rfc3339(self.created_at),
        }
    }
}

/// An account to be made. Its names are checked already.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Its id, when another system knows it under one already.
    pub id: Option<UserId>,
    /// Unique, without regard to case.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it becomes an administrator when it is the first account of the database.
    pub first_is_admin: bool,
    /// Whether it is a guest.
    pub is_guest: bool,
    /// The PHC string of its password's hash, if it has one.
    pub password_hash: Option<String>,
}

impl NewUser {
    /// An ordinary account without a password.
    pub fn named(username: impl Into<String>) -> Self {
        let username = username.into();
        Self {
            id: None,
            display_name: username.clone(),
            username,
            role: Role::User,
            first_is_admin: false,
            is_guest: false,
            password_hash: None,
        }
    }
}

/// A place where people talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Unique, without regard to case.
    pub name: String,
    /// Free text, possibly empty.
    pub description: String,
    /// The account that answers for it; always a member with the role of owner.
    pub owner: UserId,
    /// How many may be in voice at once.
    pub max_users: u32,
    /// 0: everyone is forwarded; else the loudest so many.
    pub max_speakers: u32,
    /// Hidden from all but members and those invited.
    pub is_private: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl Channel {
    /// As listings show it, with `current_users` in voice now.
    #[must_use]
    pub fn view(&self, current_users: u32) -> ChannelView {
        ChannelView {
            id: self.id,
            name: self.name.clone(),
            description: self.description.clone(),
            owner_id: self.owner,
            max_users: self.max_users,
            max_speakers: self.max_speakers,
            is_private: self.is_private,
            current_users,
            created_at: rfc3339(self.created_at),
        }
    }
}

/// A channel to be made. Its name is checked already.
#[derive(Clone, Debug)]
pub struct NewChannel {
    /// Unique, without regard to case.
    pub name: String,
    /// Free text, possibly empty.
    pub description: String,
    /// Whose it will be.
    pub owner: UserId,
    /// At least 1.
    pub max_users: u32,
    /// 0: everyone is forwarded.
    pub max_speakers: u32,
    /// Hidden from all but members and those invited.
    pub is_private: bool,
}

/// What to change of a channel; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct ChannelChange {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// At least 1.
    pub max_users: Option<u32>,
    /// 0: everyone is forwarded.
    pub max_speakers: Option<u32>,
    /// Hidden from all but members and those invited.
    pub is_private: Option<bool>,
}

/// That someone belongs to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// What they may do.
    pub role: ChannelRole,
    /// Whether they are forwarded before others when speakers are limited.
    pub priority: bool,
}

/// That someone is kept out of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Where.
    pub channel: ChannelId,
    /// Who.
    pub user: UserId,
    /// By whom.
    pub by: UserId,
    /// Why, if it was said.
    pub reason: Option<String>,
    /// Until when; `None`: for good.
    pub until: Option<OffsetDateTime>,
}

/// An invite to be made.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// Where to.
    pub channel: ChannelId,
    /// By whom.
    pub by: UserId,
    /// How many it lets in, at least 1; `None`: any number.
    pub max_uses: Option<u32>,
    /// Until when; `None`: for good.
    pub expires_at: Option<OffsetDateTime>,
}

/// A code that makes its user a member.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The code: who has it may come in.
    pub code: String,
    /// Where to.
    pub channel: ChannelId,
    /// By whom.
    pub by: UserId,
    /// How many it lets in; `None`: any number.
    pub max_uses: Option<u32>,
    /// How many it has let in.
    pub uses: u32,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Until when; `None`: for good.
    pub expires_at: Option<OffsetDateTime>,
}

impl std::fmt::Debug for Invite {
    /// Without the code, which lets in whoever reads it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite").field("channel", &self.channel).field("uses", &self.uses).finish_non_exhaustive()
    }
}

/// A moment as RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(moment: OffsetDateTime) -> String {
    let whole = moment.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(moment);
    whole.format(&Rfc3339).unwrap_or_default()
}
