//! The lasting side of channels: making, changing and deleting them, members, invites, bans, with the permission each
//! needs, and what each means for those who are in voice.
//!
//! Every operation takes who asks, asks [`decide`] whether they may, changes the database and then tells [`Rooms`].
//! Should the server die in between, the database is right and nobody is in voice any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_core::{
    gateway::{ChannelView, ErrorCode, MemberView, Role, UserView},
    ids::{ChannelId, NodeNumber, UserId},
    permission::{Action, ChannelRole, Decision, Standing, decide},
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{ChannelFigures, Rooms, admit::standing};
use crate::{
    cluster::SessionRecords,
    error::AppError,
    rates::Rates,
    store::{
        Ban, Channel, ChannelChange, ChannelLimits, Invite, Inviter, Membership, NewAudit, NewChannel, NewInvite,
        Store, StoreError, User, check_name,
    },
};

/// Numbers that channels must keep to.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryConfig {
    /// `max_users` of a channel that names none.
    pub max_users_default: u32,
    /// The most that `max_users` may be.
    pub max_users_ceiling: u32,
    /// Channels on the server.
    pub max_channels: u32,
    /// Of those, the most that one account may own.
    pub channels_per_account: u32,
    /// Invites of one channel that are not used up.
    pub invites_per_channel: u32,
}

/// The longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// The longest reason for removing somebody, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// Bans and invites that end do so within ten years; longer ones can be without an end.
const TTL_MAX: Duration = Duration::days(3_650);

/// A channel that is asked for.
#[derive(Clone, Debug, Default)]
pub struct ChannelRequest {
    /// 1 to 32 printable characters, unique without regard to case.
    pub name: String,
    /// Up to [`DESCRIPTION_CHARS_MAX`] characters.
    pub description: Option<String>,
    /// At least 1; the server's default when `None`.
    pub max_users: Option<u32>,
    /// 0, the default: all are forwarded; else the loudest so many.
    pub max_speakers: Option<u32>,
    /// Whether only members and those invited see it.
    pub is_private: Option<bool>,
}

/// What to change of a member; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberChange {
    /// Their role. Making somebody the owner makes the owner before them a moderator.
    pub role: Option<ChannelRole>,
    /// Whether they are heard before others where speakers are limited.
    pub priority: Option<bool>,
}

/// Somebody who belongs to a channel, is in its voice, or both.
#[derive(Clone, Debug)]
pub struct DirectoryMember {
    /// Who.
    pub user: UserView,
    /// What they are in the channel; `None` for somebody who is only in its voice.
    pub membership: Option<Membership>,
    /// As they are in voice now; `None` when they are not.
    pub voice: Option<MemberView>,
}

/// The most entries of one page, and as many as there are where none are asked for.
pub const PAGE_MAX: u32 = 1_000;

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many entries, 1 to [`PAGE_MAX`].
    pub limit: u32,
    /// After the first so many.
    pub offset: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: PAGE_MAX, offset: 0 }
    }
}

/// Channels, as the API offers them.
#[derive(Clone)]
pub struct Directory {
    store: Store,
    rooms: Rooms,
    /// What nodes know of each other's people.
    records: SessionRecords,
    config: DirectoryConfig,
    /// How fast moderators act: the log of what they do is on the disk for long.
    acts: Option<Arc<Rates<UserId>>>,
}

/// What one account may do to others in a minute, in all of its channels.
const ACTS_PER_MINUTE: u32 = 120;

type Result<T> = std::result::Result<T, AppError>;

impl Directory {
    /// Channels of `store`, whose voice is in `rooms`, of a node among those that share `records`.
    #[must_use]
    pub fn new(store: Store, rooms: Rooms, records: SessionRecords, config: DirectoryConfig) -> Self {
        Self { store, rooms, records, config, acts: Rates::new(ACTS_PER_MINUTE).map(Arc::new) }
    }

    /// Forgets who did nothing lately. To be called every few seconds.
    pub fn sweep(&self) {
        self.acts.iter().for_each(|acts| acts.sweep());
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Public channels, and those private ones that `caller` is a member of; all of them for an administrator.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn channels(&self, caller: Option<&UserView>) -> Result<Vec<ChannelView>> {
        let mut channels = self.store.public_channels().await?;
        if let Some(caller) = caller {
            let further = match caller.role {
                Role::Admin => self.store.private_channels().await?,
                Role::User => self.store.channels_of(caller.id).await?,
            };
            channels.extend(further.into_iter().filter(|channel| channel.is_private));
        }
        let ids: Vec<ChannelId> = channels.iter().map(|channel| channel.id).collect();
        let occupied = self.rooms.occupancies(&ids).await;
        Ok(channels.iter().zip(occupied).map(|(channel, occupied)| channel.view(occupied)).collect())
    }

    /// Makes a channel, which `caller` then owns.
    ///
    /// # Errors
    ///
    /// `INVALID_INPUT`, `CONFLICT` for a taken name, `LIMIT_REACHED` when there are as many channels as there may be,
    /// or `caller` owns as many.
    pub async fn create(&self, caller: &UserView, request: ChannelRequest) -> Result<ChannelView> {
        let new = NewChannel {
            name: checked_name(request.name)?,
            description: checked_text("description", request.description.unwrap_or_default(), DESCRIPTION_CHARS_MAX)?,
            owner: caller.id,
            max_users: self.checked_max_users(request.max_users.unwrap_or(self.config.max_users_default))?,
            max_speakers: self.checked_max_speakers(request.max_speakers.unwrap_or(0))?,
            is_private: request.is_private.unwrap_or(false),
        };
        let channel = self.store.create_channel(new, self.limits_of(caller)).await?;
        Ok(self.view(&channel).await)
    }

    /// How many channels there may be for `caller` to make one more. Guests cost nothing to make, so that they leave half to
    /// accounts; and whoever filled the server must not keep its administrators from mending that.
    fn limits_of(&self, caller: &UserView) -> ChannelLimits {
        let DirectoryConfig { max_channels, channels_per_account, .. } = self.config;
        match caller.role {
            Role::Admin => ChannelLimits::total(u32::MAX),
            Role::User => ChannelLimits {
                total: max_channels,
                of_guests: if caller.is_guest { max_channels / 2 } else { u32::MAX },
                per_owner: channels_per_account,
            },
        }
    }

    /// A channel.
    ///
    /// # Errors
    ///
    /// `CHANNEL_NOT_FOUND`, also for a private one that `caller` does not belong to.
    pub async fn channel(&self, caller: &UserView, id: ChannelId) -> Result<ChannelView> {
        Ok(self.view(&self.enter(caller, id).await?.channel).await)
    }

    /// Changes a channel. Nobody in voice is removed when `max_users` falls below their number; of one that is made
    /// private those are to whom it no longer exists.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`] and [`Directory::create`]; `PERMISSION_DENIED` for all but the owner.
    pub async fn update(&self, caller: &UserView, id: ChannelId, change: ChannelChange) -> Result<ChannelView> {
        self.enter(caller, id).await?.require(Action::Edit)?;
        let change = ChannelChange {
            name: change.name.map(checked_name).transpose()?,
            description: change
                .description
                .map(|text| checked_text("description", text, DESCRIPTION_CHARS_MAX))
                .transpose()?,
            max_users: change.max_users.map(|count| self.checked_max_users(count)).transpose()?,
            max_speakers: change.max_speakers.map(|count| self.checked_max_speakers(count)).transpose()?,
            is_private: change.is_private,
        };
        let change_to_private = change.is_private;
        let changed = self.store.update_channel(id, change).await?.ok_or_else(no_such_channel)?;
        self.rooms.channel_changed(changed.clone()).await;
        // Also when it was private before: whoever made it so may have failed half-way.
        if change_to_private == Some(true) && changed.is_private {
            self.remove_strangers(caller, id).await?;
        }
        Ok(self.view(&changed).await)
    }

    /// Removes from the voice of a private channel whoever could not enter it. A join that was decided while it was
    /// public is decided anew once the rooms know of the change, so that nobody is missed.
    async fn remove_strangers(&self, caller: &UserView, id: ChannelId) -> Result<()> {
        for voice in self.rooms.members(id).await? {
            // Guests whose account is gone are strangers, too.
            let role = self.store.user(voice.user_id).await?.map_or(Role::User, |user| user.role);
            let standing = self.standing(&UserView { role, ..voice.user }, id).await?;
            if decide(&standing, true, Action::Join) != Decision::Allowed {
                let message = Some("the channel is private now, and you are no member of it".to_owned());
                self.rooms.kick(id, voice.user_id, caller.id, message).await?;
            }
        }
        Ok(())
    }

    /// Deletes a channel with all that is in it; those in voice are removed.
    ///
    /// # Errors
    ///
    /// As [`Directory::update`].
    pub async fn delete(&self, caller: &UserView, id: ChannelId) -> Result<()> {
        self.enter(caller, id).await?.require(Action::Delete)?;
        if !self.store.delete_channel(id).await? {
            return Err(no_such_channel());
        }
        self.rooms.channel_deleted(id).await;
        Ok(())
    }

    /// A channel as it is set.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`].
    pub async fn seen(&self, caller: &UserView, id: ChannelId) -> Result<Channel> {
        Ok(self.enter(caller, id).await?.channel)
    }

    /// How many are in a channel's voice now.
    pub async fn occupancy(&self, id: ChannelId) -> u32 {
        self.rooms.occupancy(id).await
    }

    /// A channel's members here, as of now.
    #[must_use]
    pub fn figures_here(&self, id: ChannelId) -> ChannelFigures {
        self.rooms.channel_figures(id)
    }

    /// The nodes through which a channel has members.
    pub async fn nodes_of(&self, id: ChannelId) -> BTreeSet<NodeNumber> {
        self.rooms.nodes_of(id).await
    }

    /// Asks what all nodes share for a sign of life.
    ///
    /// # Errors
    ///
    /// `TEMPORARILY_UNAVAILABLE` when it gives none.
    pub async fn ask_shared(&self) -> Result<()> {
        self.rooms.ask_shared().await
    }

    /// Streams whose speakers name no count of channels have so many from now on, 1 or 2.
    pub fn set_default_channels(&self, channels: u8) {
        self.rooms.set_default_channels(channels);
    }

    /// Gives up what was counted here and is not stored yet.
    pub fn forget_statistics(&self) {
        self.rooms.forget_statistics();
    }

    /// A page of those who belong to the channel, followed by those who are only in its voice.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `INVALID_INPUT` for a page of no size or too large a one.
    pub async fn members(&self, caller: &UserView, id: ChannelId, page: Page) -> Result<Vec<DirectoryMember>> {
        let Page { limit, offset } = page;
        check((1..=PAGE_MAX).contains(&limit), || format!("limit must be from 1 to {PAGE_MAX}, not {limit}"))?;
        self.enter(caller, id).await?;
        // In the order of their ids, which is that of their age.
        let voices = self.rooms.members(id).await?.into_iter().map(|voice| (voice.user_id, voice));
        let mut voices: BTreeMap<UserId, MemberView> = voices.collect();
        let mut members: Vec<DirectoryMember> = Vec::new();
        for (user, membership) in self.store.memberships(id, limit, offset).await? {
            let voice = voices.remove(&user.id);
            members.push(DirectoryMember { user: user.view(), membership: Some(membership), voice });
        }
        let room_left = as_count(limit).saturating_sub(members.len());
        if room_left > 0 && !voices.is_empty() {
            let belong = self.store.member_ids(id).await?;
            let strangers = voices.into_values().filter(|voice| !belong.contains(&voice.user_id));
            let others = strangers.map(|voice| DirectoryMember {
                user: voice.user.clone(),
                membership: None,
                voice: Some(voice),
            });
            members.extend(others.skip(as_count(offset).saturating_sub(belong.len())).take(room_left));
        }
        Ok(members)
    }

    /// Makes somebody a member, or changes what they are.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `USER_NOT_FOUND`; `PERMISSION_DENIED` for all but the owner, and for what would leave
    /// the channel without one.
    pub async fn set_member(
        &self,
        caller: &UserView,
        id: ChannelId,
        user: UserId,
        change: MemberChange,
    ) -> Result<DirectoryMember> {
        let scene = self.enter(caller, id).await?;
        let (target, before) = (self.user(user).await?, self.store.membership(id, user).await?);
        let role = change.role.or(before.map(|membership| membership.role)).unwrap_or(ChannelRole::Member);
        let standing = self.standing(&target.view(), id).await?;
        scene.require(Action::SetRole { target: &standing, role })?;
        let priority = change.priority.unwrap_or(before.is_some_and(|membership| membership.priority));
        self.record(caller, "channel.set_member", (id, user), json!({ "role": role, "priority": priority })).await?;
        let membership = Membership { role, priority };
        let by = Some(Inviter { user: caller.id, username: &caller.username });
        self.store.set_membership_by(id, user, membership, by).await?;
        self.rooms.set_priority(id, user, priority).await;
        if role == ChannelRole::Owner
            && before.is_none_or(|membership| membership.role != ChannelRole::Owner)
            && let Some(channel) = self.store.channel(id).await?
        {
            self.rooms.channel_changed(channel).await;
        }
        let voice = self.rooms.members(id).await?.into_iter().find(|voice| voice.user_id == user);
        Ok(DirectoryMember { user: target.view(), membership: Some(membership), voice })
    }

    /// Ends a membership. Of a private channel the user is also removed from voice, since it no longer exists for them.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `USER_NOT_FOUND` for who is no member and not in its voice against that;
    /// `PERMISSION_DENIED` for others than moderators and oneself, and for the owner.
    pub async fn remove_member(&self, caller: &UserView, id: ChannelId, user: UserId) -> Result<()> {
        let scene = self.enter(caller, id).await?;
        let target = self.target(id, user).await?;
        scene.require(Action::RemoveMember(&target))?;
        if user != caller.id {
            self.record(caller, "channel.remove_member", (id, user), json!({})).await?;
        }
        let was_member = self.store.remove_membership(id, user).await?;
        if was_member {
            self.rooms.set_priority(id, user, false).await;
        }
        // Also of who is no member any more: the same request may have failed here before.
        let may_stay = !scene.channel.is_private || target.server == Role::Admin;
        let was_removed = !may_stay && self.rooms.kick(id, user, caller.id, None).await?;
        match was_member || was_removed {
            true => Ok(()),
            false => Err(AppError::new(ErrorCode::UserNotFound, "this user is no member of the channel")),
        }
    }

    /// Removes somebody from voice and from where they read and write; they may come back.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `USER_NOT_FOUND` for who is in neither; `PERMISSION_DENIED`.
    pub async fn kick(&self, caller: &UserView, id: ChannelId, user: UserId, reason: Option<String>) -> Result<()> {
        let reason = checked_reason(reason)?;
        self.enter(caller, id).await?.require(Action::Kick(&self.target(id, user).await?))?;
        self.record(caller, "channel.kick", (id, user), json!({ "reason": reason })).await?;
        // Asked before they are gone from there.
        let was_elsewhere = self.reads_elsewhere(id, user).await;
        if self.rooms.kick(id, user, caller.id, reason).await? || was_elsewhere {
            return Ok(());
        }
        Err(AppError::new(ErrorCode::UserNotFound, "this user is not in the channel"))
    }

    /// Whether somebody reads and writes in a channel through another node, as far as those can be asked.
    async fn reads_elsewhere(&self, id: ChannelId, user: UserId) -> bool {
        let nodes = self.records.whereabouts(&[user]).await.unwrap_or_default();
        nodes.iter().flatten().any(|node| node.texts.contains(&id))
    }

    /// Removes somebody and keeps them out, for a time or for good. Their membership ends.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `USER_NOT_FOUND`; `PERMISSION_DENIED`.
    pub async fn ban(
        &self,
        caller: &UserView,
        id: ChannelId,
        user: UserId,
        reason: Option<String>,
        duration_s: Option<u64>,
    ) -> Result<Ban> {
        let reason = checked_reason(reason)?;
        let until = ending("duration_s", duration_s)?;
        self.enter(caller, id).await?.require(Action::Ban(&self.target(id, user).await?))?;
        let detail = json!({ "reason": reason, "duration_s": duration_s });
        self.record(caller, "channel.ban", (id, user), detail).await?;
        let ban = Ban { channel: id, user, by: caller.id, reason, until };
        self.store.set_ban(ban.clone()).await?;
        self.rooms.ban(id, user, caller.id, ban.reason.clone()).await?;
        Ok(ban)
    }

    /// Lets somebody in again.
    ///
    /// # Errors
    ///
    /// As [`Directory::ban`]; `NOT_FOUND` for who is not banned.
    pub async fn unban(&self, caller: &UserView, id: ChannelId, user: UserId) -> Result<()> {
        self.enter(caller, id).await?.require(Action::Ban(&self.target(id, user).await?))?;
        self.record(caller, "channel.unban", (id, user), json!({})).await?;
        if self.store.remove_ban(id, user).await? {
            return Ok(());
        }
        Err(AppError::new(ErrorCode::NotFound, "this user is not banned from the channel"))
    }

    /// Mutes or unmutes somebody for everyone, also when they leave and come back, and when the server starts anew.
    ///
    /// # Errors
    ///
    /// As [`Directory::ban`].
    pub async fn mute(&self, caller: &UserView, id: ChannelId, user: UserId, muted: bool) -> Result<()> {
        self.enter(caller, id).await?.require(Action::Mute(&self.target(id, user).await?))?;
        self.record(caller, if muted { "channel.mute" } else { "channel.unmute" }, (id, user), json!({})).await?;
        if muted {
            match self.store.set_server_mute(id, user, caller.id).await {
                // A guest whose account is gone cannot come back: what holds while they are in voice is enough.
                Err(StoreError::Missing) if self.store.channel(id).await?.is_some() => {}
                stored => stored?,
            }
        } else {
            self.store.remove_server_mute(id, user).await?;
        }
        self.rooms.set_server_mute(id, user, muted, caller.id).await?;
        Ok(())
    }

    /// Makes an invite.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `INVALID_INPUT`; `PERMISSION_DENIED`; `LIMIT_REACHED`.
    pub async fn invite(
        &self,
        caller: &UserView,
        id: ChannelId,
        max_uses: Option<u32>,
        ttl_s: Option<u64>,
    ) -> Result<Invite> {
        if max_uses == Some(0) {
            return Err(AppError::new(
                ErrorCode::InvalidInput,
                "max_uses must be at least 1, or absent for any number",
            ));
        }
        let expires_at = ending("ttl_s", ttl_s)?;
        self.enter(caller, id).await?.require(Action::Invite)?;
        let new = NewInvite { channel: id, by: caller.id, max_uses, expires_at };
        Ok(self.store.create_invite(new, self.config.invites_per_channel).await?)
    }

    /// A channel's invites that let someone in, the newest first.
    ///
    /// # Errors
    ///
    /// As [`Directory::channel`]; `PERMISSION_DENIED` for who may make none.
    pub async fn invites(&self, caller: &UserView, id: ChannelId) -> Result<Vec<Invite>> {
        self.enter(caller, id).await?.require(Action::Invite)?;
        Ok(self.store.invites(id, OffsetDateTime::now_utc()).await?)
    }

    /// Takes an invite back. Whoever it let in stays.
    ///
    /// # Errors
    ///
    /// As [`Directory::invites`]; `NOT_FOUND` when the channel has no such invite.
    pub async fn revoke_invite(&self, caller: &UserView, id: ChannelId, code: &str) -> Result<()> {
        self.enter(caller, id).await?.require(Action::Invite)?;
        if self.store.revoke_invite(id, code).await? {
            return Ok(());
        }
        Err(AppError::new(ErrorCode::NotFound, "this channel has no such invite"))
    }

    /// Uses an invite: `caller` is a member then.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` for a code that does not exist, is used up or has expired; `PERMISSION_DENIED` for the banned.
    pub async fn redeem(&self, caller: &UserView, code: &str) -> Result<ChannelView> {
        let gone = || AppError::new(ErrorCode::NotFound, "there is no such invite, or it is used up or has expired");
        let id = self.store.redeem_invite(code, caller.id, OffsetDateTime::now_utc()).await?.ok_or_else(gone)?;
        self.channel(caller, id).await
    }

    /// Counts an act that is written down: of those an account may do only so much.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn count_act(&self, by: &UserView) -> Result<()> {
        self.acts.as_ref().map_or(Ok(()), |acts| acts.check(&by.id, "acts of moderation by this account"))
    }

    /// Writes down what a moderator is about to do to somebody in a channel, of which they may do only so much.
    async fn record(
        &self,
        by: &UserView,
        action: &'static str,
        (channel, user): (ChannelId, UserId),
        mut detail: Value,
    ) -> Result<()> {
        self.count_act(by)?;
        detail["channel_id"] = json!(channel);
        let (actor, actor_name, target) = (by.id, by.username.clone(), Some(user.to_string()));
        Ok(self.store.record_audit(NewAudit { actor, actor_name, action, target, detail }).await?)
    }

    /// The channel, in which `caller` may do something.
    pub(super) async fn may(&self, caller: &UserView, id: ChannelId, action: Action<'_>) -> Result<Channel> {
        let scene = self.enter(caller, id).await?;
        scene.require(action)?;
        Ok(scene.channel)
    }

    /// The channel, and how `caller` stands to it.
    async fn enter(&self, caller: &UserView, id: ChannelId) -> Result<Scene> {
        let channel = self.store.channel(id).await?.ok_or_else(no_such_channel)?;
        let scene = Scene { channel, actor: self.standing(caller, id).await? };
        scene.require(Action::See)?;
        Ok(scene)
    }

    /// How a user stands to a channel, by their id. A guest's account may have been swept away while they are in voice.
    async fn target(&self, id: ChannelId, user: UserId) -> Result<Standing> {
        let view = match self.store.user(user).await? {
            Some(known) => known.view(),
            None => {
                let voices = self.rooms.members(id).await?;
                let voice = voices.into_iter().find(|voice| voice.user_id == user);
                voice.ok_or_else(no_such_user)?.user
            }
        };
        self.standing(&view, id).await
    }

    async fn standing(&self, user: &UserView, id: ChannelId) -> Result<Standing> {
        Ok(standing(&self.store, user, id).await?.0)
    }

    async fn user(&self, id: UserId) -> Result<User> {
        self.store.user(id).await?.ok_or_else(no_such_user)
    }

    async fn view(&self, channel: &Channel) -> ChannelView {
        channel.view(self.rooms.occupancy(channel.id).await)
    }

    fn checked_max_users(&self, count: u32) -> Result<u32> {
        let ceiling = self.config.max_users_ceiling;
        check((1..=ceiling).contains(&count), || format!("max_users must be from 1 to {ceiling}, not {count}"))?;
        Ok(count)
    }

    fn checked_max_speakers(&self, count: u32) -> Result<u32> {
        let ceiling = self.config.max_users_ceiling;
        check(count <= ceiling, || format!("max_speakers must be from 0 (no limit) to {ceiling}, not {count}"))?;
        Ok(count)
    }
}

/// A channel, and somebody who sees it.
struct Scene {
    channel: Channel,
    actor: Standing,
}

impl Scene {
    /// Whether the actor may do `action`.
    fn require(&self, action: Action<'_>) -> Result<()> {
        match decide(&self.actor, self.channel.is_private, action) {
            Decision::Allowed => Ok(()),
            Decision::Hidden => Err(no_such_channel()),
            Decision::Denied(reason) => Err(AppError::new(ErrorCode::PermissionDenied, reason)),
        }
    }
}

fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn no_such_channel() -> AppError {
    AppError::new(
        ErrorCode::ChannelNotFound,
        "there is no channel with this id, or it is private and you are not in it",
    )
}

fn no_such_user() -> AppError {
    AppError::new(ErrorCode::UserNotFound, "there is no user with this id")
}

fn check(is_right: bool, message: impl FnOnce() -> String) -> Result<()> {
    if is_right { Ok(()) } else { Err(AppError::new(ErrorCode::InvalidInput, message())) }
}

fn checked_name(name: String) -> Result<String> {
    check_name("name", &name).map_err(|message| AppError::new(ErrorCode::InvalidInput, message))?;
    Ok(name)
}

/// Free text: any characters but control characters other than line breaks and tabs, and those that turn the direction of
/// what follows (Unicode UAX 9, explicit formatting), by which a text can show as another.
fn checked_text(what: &str, text: String, chars_max: usize) -> Result<String> {
    let count = text.chars().count();
    check(count <= chars_max, || format!("{what} must have at most {chars_max} characters, not {count}"))?;
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_control = |c: char| turns(c) || c.is_control() && !matches!(c, '\n' | '\t');
    check(!text.contains(is_control), || format!("{what} must have no control characters but line breaks and tabs"))?;
    Ok(text)
}

fn checked_reason(reason: Option<String>) -> Result<Option<String>> {
    reason.map(|text| checked_text("reason", text, REASON_CHARS_MAX)).transpose()
}

/// The moment `seconds` from now; `None` is never.
fn ending(what: &str, seconds: Option<u64>) -> Result<Option<OffsetDateTime>> {
    let Some(seconds) = seconds else { return Ok(None) };
    let longest = TTL_MAX.whole_seconds();
    let span = i64::try_from(seconds).ok().filter(|span| (1..=longest).contains(span));
    let message = || format!("{what} must be from 1 to {longest}, or absent for no end");
    let span = span.ok_or_else(|| AppError::new(ErrorCode::InvalidInput, message()))?;
    Ok(Some(OffsetDateTime::now_utc() + Duration::seconds(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_is_short_and_without_control_characters() {
        assert_eq!(checked_text("description", "line\n\tline".into(), 20), Ok("line\n\tline".into()));
        assert!(checked_text("description", "é".repeat(20), 20).is_ok(), "characters count, not bytes");
        for wrong in ["x".repeat(21), "a\u{0}b".into(), "a\u{1b}[31m".into()] {
            let error = checked_text("description", wrong, 20).expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidInput);
            assert!(error.message.starts_with("description must"), "{error}");
        }
    }

    #[test]
    fn endings_lie_ahead_and_not_too_far() {
        assert_eq!(ending("ttl_s", None), Ok(None));
        let in_an_hour = ending("ttl_s", Some(3_600)).expect("an hour").expect("an end");
        assert!(in_an_hour > OffsetDateTime::now_utc() + Duration::minutes(59));
        for wrong in [0, 315_360_001, u64::MAX] {
            assert!(ending("ttl_s", Some(wrong)).is_err(), "{wrong}");
        }
    }
}
