//! Whoever plays a file into a channel: a member of the server's own, one for each channel. Everybody hears and sees them as
//! they do anybody else, on all nodes; who began it is in their name.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, JoinChannel, LeaveReason, MediaMode, MediaTransport, Role, UserView},
    ids::{ChannelId, NodeNumber, SessionId, UserId},
    permission::{Action, Decision, decide},
};
use uuid::Uuid;

use super::{
    Rooms,
    directory::Directory,
    outlet::Unheard,
    presence::{Link, Presence},
};
use crate::{
    cluster::Leave,
    error::AppError,
    store::{Channel, DISPLAY_NAME_CHARS_MAX},
};

/// What an account's name cannot begin with by accident, and people read as sound.
const NOTE: &str = "♪ ";
/// The longest name of a member.
const NAME_CHARS_MAX: usize = 32;

/// The user who plays in a channel. An account has another version of id, so that none can be the same.
#[must_use]
pub fn player_of(channel: ChannelId) -> UserId {
    let salt = *b"antiphon plays..";
    let mut bytes = channel.0.into_bytes();
    bytes.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    UserId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// A session that plays what is called `title` in a channel, which it has not entered yet.
#[must_use]
pub fn player(channel: ChannelId, by: &UserView, title: &str) -> Arc<Presence> {
    let named = |text: &str, most: usize| -> String { NOTE.chars().chain(text.chars()).take(most).collect() };
    let user = UserView {
        id: player_of(channel),
        username: named(&by.username, NAME_CHARS_MAX),
        display_name: named(title, DISPLAY_NAME_CHARS_MAX),
        role: Role::User,
        is_active: true,
        is_guest: true,
        created_at: by.created_at.clone(),
    };
    let link = Link { outlet: Arc::new(Unheard), reached_host: "".into(), reached_address: None, address: None };
    Arc::new(Presence::standalone(SessionId(Uuid::now_v7()), user, link))
}

impl Rooms {
    /// Lets a [`player`] enter its channel. One that plays there already leaves it.
    ///
    /// # Errors
    /// As [`Rooms::join`].
    pub async fn enter_player(&self, player: &Arc<Presence>, channel: ChannelId) -> Result<(), AppError> {
        let join = JoinChannel {
            channel_id: channel,
            media: MediaTransport::Websocket,
            mode: MediaMode::Forward,
            cipher: None,
            sample_rate: None,
            channels: None,
            invite: None,
        };
        self.join(player, &join, None).await
    }

    /// Whether somebody may play into a channel now: with an account that is not switched off, as its owner, a moderator or an
    /// administrator.
    ///
    /// # Errors
    /// The database's.
    pub async fn may_play(&self, user: &UserView, channel: ChannelId) -> Result<bool, AppError> {
        let Some(found) = self.inner.store.channel(channel).await? else { return Ok(false) };
        if !self.has_account(user, channel).await? {
            return Ok(false);
        }
        let (standing, _) = self.standing(channel, user).await?;
        Ok(decide(&standing, found.is_private, Action::Play) == Decision::Allowed)
    }

    /// The node through which a channel's player plays, if one does.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached, and this node has nobody in the channel.
    pub async fn player_at(&self, channel: ChannelId) -> Result<Option<NodeNumber>, AppError> {
        let player = player_of(channel);
        if let Some(room) = self.room(channel) {
            let live = room.live();
            let listed = live.roster.stream_of(player).and_then(|stream| live.roster.get(stream));
            return Ok(listed.map(|listed| listed.member.node));
        }
        let found = self.inner.membership.snapshot(channel, None).await?;
        let members = found.map_or(Vec::new(), |found| found.members);
        Ok(members.into_iter().find(|member| member.user.id == player).map(|member| member.node))
    }

    /// Takes a channel's player out, whichever node it plays through. False when there is none.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn remove_player(&self, channel: ChannelId, by: UserId) -> Result<bool, AppError> {
        self.remove(channel, Leave::forced(player_of(channel), LeaveReason::Kicked, Some(by), None)).await
    }
}

impl Directory {
    /// A channel into which `caller` may play.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, also for a private one that `caller` does not belong to; `PERMISSION_DENIED` for all but its
    /// owner and moderators.
    pub async fn playable(&self, caller: &UserView, id: ChannelId) -> Result<Channel, AppError> {
        self.may(caller, id, Action::Play).await
    }

    /// The node through which something is played into a channel, for somebody who may see it.
    ///
    /// # Errors
    /// As [`Directory::channel`], and [`Rooms::player_at`].
    pub async fn player_at(&self, caller: &UserView, id: ChannelId) -> Result<Option<NodeNumber>, AppError> {
        self.may(caller, id, Action::See).await?;
        self.rooms().player_at(id).await
    }

    /// Ends what is played into a channel.
    ///
    /// # Errors
    /// As [`Directory::playable`]; `NOT_FOUND` when nothing is.
    pub async fn stop_player(&self, caller: &UserView, id: ChannelId) -> Result<(), AppError> {
        self.playable(caller, id).await?;
        match self.rooms().remove_player(id, caller.id).await? {
            true => Ok(()),
            false => Err(nothing_plays()),
        }
    }
}

/// The answer where nothing is played.
#[must_use]
pub fn nothing_plays() -> AppError {
    AppError::new(ErrorCode::NotFound, "nothing is being played into this channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_a_player_of_its_own_that_is_no_account() {
        let (one, other) = (ChannelId(Uuid::now_v7()), ChannelId(Uuid::now_v7()));
        assert_eq!(player_of(one), player_of(one));
        assert_ne!(player_of(one), player_of(other));
        assert_eq!(player_of(one).0.get_version_num(), 8);
    }

    #[test]
    fn a_player_says_what_it_plays_and_who_began_it_within_the_bounds_of_names() {
        let by = UserView {
            id: UserId(Uuid::now_v7()),
            username: "a".repeat(NAME_CHARS_MAX),
            display_name: "Anna".to_owned(),
            role: Role::User,
            is_active: true,
            is_guest: false,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
        };
        let player = player(ChannelId(Uuid::now_v7()), &by, "track3.mp3");
        assert_eq!(player.user.display_name, "♪ track3.mp3");
        assert_eq!(player.user.username.chars().count(), NAME_CHARS_MAX);
        assert!(player.user.username.starts_with("♪ aaa"));
    }
}
