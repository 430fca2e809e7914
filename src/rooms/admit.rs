//! Whether somebody may enter a channel as they ask to: what needs no place yet.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use antiphon_core::{
    gateway::{ErrorCode, JoinChannel, LeaveReason, MediaTransport, Role, UserView},
    ids::{ChannelId, UserId},
    permission::{Action, ChannelRole, Decision, Standing, decide},
};
use time::OffsetDateTime;

use super::{Rooms, moderation::deleted, player::player_of, presence::Presence};
use crate::{
    cluster::Leave,
    error::AppError,
    mixer::MixSeat,
    store::{Channel, Store, StoreError},
};

/// Opus's sample rates (RFC 6716, 2.1.1).
const SAMPLE_RATES_HZ: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// A channel that somebody may enter.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) channel: Channel,
    pub(super) priority: bool,
    /// Who muted them here for everyone, if somebody did.
    pub(super) muted_by: Option<UserId>,
    /// Their seat with the mixer where they ask for a mix.
    pub(super) seat: Option<MixSeat>,
    /// The count of changes when this was decided; with another count it must be decided anew.
    pub(super) decided_at: u64,
}

impl Rooms {
    /// Decides whether whoever's session it is may enter, redeeming the invite where one is needed.
    pub(super) async fn admit(&self, presence: &Presence, request: &JoinChannel) -> Result<Admission, AppError> {
        let user = &presence.user;
        let decided_at = self.inner.changes.load(Ordering::Acquire);
        let id = request.channel_id;
        let Some(channel) = self.inner.store.channel(id).await? else { return Err(not_found()) };
        if !self.has_account(user, id).await? {
            return Err(AppError::new(ErrorCode::PermissionDenied, "this account is switched off, or is no more"));
        }
        let (standing, priority) = self.standing(id, user).await?;
        let muted_by = self.inner.store.server_muted_by(id, user.id).await?;
        let seat = match decide(&standing, channel.is_private, Action::Join) {
            Decision::Allowed => self.seat_for(presence, request)?,
            Decision::Denied(reason) => return Err(AppError::new(ErrorCode::PermissionDenied, reason)),
            Decision::Hidden => self.redeem(&standing, &channel, (presence, request)).await?,
        };
        Ok(Admission { channel, priority, muted_by, seat, decided_at })
    }

    /// As what `user` would be removed from a channel that they are in; `None` where they may be there.
    pub(super) async fn why_unwelcome(
        &self,
        user: &UserView,
        channel: ChannelId,
    ) -> Result<Option<LeaveReason>, AppError> {
        let Some(found) = self.inner.store.channel(channel).await? else { return Ok(Some(LeaveReason::Kicked)) };
        if !self.has_account(user, channel).await? {
            return Ok(Some(LeaveReason::Banned));
        }
        let (standing, _) = self.standing(channel, user).await?;
        Ok(match decide(&standing, found.is_private, Action::Join) {
            Decision::Allowed => None,
            Decision::Hidden | Decision::Denied(_) if standing.banned => Some(LeaveReason::Banned),
            Decision::Hidden | Decision::Denied(_) => Some(LeaveReason::Kicked),
        })
    }

    /// Whether somebody's account may be used. What plays files in a channel has none, and needs none.
    pub(super) async fn has_account(&self, user: &UserView, channel: ChannelId) -> Result<bool, StoreError> {
        let is_player = user.id == player_of(channel);
        Ok(is_player || self.inner.store.user(user.id).await?.is_some_and(|account| account.is_active))
    }

    /// Those of `users` who are to be removed from a channel that they are in. A look at all of them comes first: most are as
    /// welcome as before.
    pub(super) async fn unwelcome(
        &self,
        channel: ChannelId,
        users: Vec<UserView>,
    ) -> Result<BTreeMap<UserId, Leave>, AppError> {
        let store = &self.inner.store;
        let Some(found) = store.channel(channel).await? else {
            return Ok(users.into_iter().map(|user| (user.id, deleted(user.id))).collect());
        };
        let banned = store.banned(channel, OffsetDateTime::now_utc()).await?;
        let belong = if found.is_private { Some(store.member_ids(channel).await?) } else { None };
        let mut unwelcome = BTreeMap::new();
        for user in users {
            let is_suspect =
                banned.contains(&user.id) || belong.as_ref().is_some_and(|belong| !belong.contains(&user.id));
            if is_suspect && let Some(reason) = self.why_unwelcome(&user, channel).await? {
                unwelcome.insert(user.id, Leave::forced(user.id, reason, None, None));
            }
        }
        Ok(unwelcome)
    }

    pub(super) async fn standing(&self, channel: ChannelId, user: &UserView) -> Result<(Standing, bool), AppError> {
        let store = &self.inner.store;
        // The session remembers the role that it began with: one taken away meanwhile counts at once.
        let role = match user.role {
            Role::Admin => store.user(user.id).await?.map_or(Role::User, |user| user.role),
            Role::User => Role::User,
        };
        Ok(standing(store, &UserView { role, ..user.clone() }, channel).await?)
    }

    /// Makes a stranger a member of a private channel by an invite, and takes their seat with the mixer. A full channel or
    /// mixer leaves the invite as it is.
    async fn redeem(
        &self,
        standing: &Standing,
        channel: &Channel,
        (presence, request): (&Presence, &JoinChannel),
    ) -> Result<Option<MixSeat>, AppError> {
        let (store, now) = (&self.inner.store, OffsetDateTime::now_utc());
        let Some(code) = request.invite.as_deref().filter(|_| !standing.banned) else { return Err(not_found()) };
        if store.invite(code, now).await?.is_none_or(|invite| invite.channel != channel.id) {
            return Err(not_found());
        }
        if self.occupancy(channel.id).await >= channel.max_users {
            return Err(channel_full(channel.max_users));
        }
        let seat = self.seat_for(presence, request)?;
        match store.redeem_invite(code, standing.user, now).await? {
            Some(_) => Ok(seat),
            None => Err(not_found()),
        }
    }

    /// Whether this release can do what is asked for.
    pub(super) fn check_request(&self, request: &JoinChannel) -> Result<(), AppError> {
        let invalid = |message: String| Err(AppError::new(ErrorCode::InvalidInput, message));
        if request.media == MediaTransport::Webrtc && !self.inner.config.webrtc {
            return invalid("media `webrtc` is not offered by this server: use `udp` or `websocket`".to_owned());
        }
        if let Some(rate) = request.sample_rate.filter(|rate| !SAMPLE_RATES_HZ.contains(rate)) {
            return invalid(format!("sample_rate {rate} is none of Opus's: 8000, 12000, 16000, 24000 or 48000"));
        }
        if let Some(channels) = request.channels.filter(|channels| !(1..=2).contains(channels)) {
            return invalid(format!("channels {channels} is neither 1 (mono) nor 2 (stereo)"));
        }
        self.check_mode(request)
    }
}

/// How `user` stands to a channel, and whether they have the right to be heard first there.
pub(super) async fn standing(
    store: &Store,
    user: &UserView,
    channel: ChannelId,
) -> Result<(Standing, bool), StoreError> {
    if user.id == player_of(channel) {
        // Nobody's account: whoever began it was asked, and it ranks below everybody who keeps order.
        let channel = Some(ChannelRole::Member);
        let standing = Standing { user: user.id, server: Role::User, channel, guest: true, banned: false };
        return Ok((standing, false));
    }
    let membership = store.membership(channel, user.id).await?;
    let banned = store.active_ban(channel, user.id, OffsetDateTime::now_utc()).await?.is_some();
    let standing = Standing {
        user: user.id,
        server: user.role,
        channel: membership.as_ref().map(|membership| membership.role),
        guest: user.is_guest,
        banned,
    };
    Ok((standing, membership.is_some_and(|membership| membership.priority)))
}

/// The answer for a channel that does not exist, or must not seem to.
pub(super) fn not_found() -> AppError {
    AppError::new(ErrorCode::ChannelNotFound, "there is no channel with this id")
}

/// The answer when no place is left.
pub(super) fn channel_full(max_users: u32) -> AppError {
    AppError::new(ErrorCode::ChannelFull, format!("all {max_users} places of this channel are taken"))
}

/// The answer to whoever is not in the channel they speak of.
pub(super) fn not_joined() -> AppError {
    AppError::new(ErrorCode::PermissionDenied, "this session is not in that channel: send JoinChannel first")
}
