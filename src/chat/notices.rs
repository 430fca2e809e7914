//! Who is told of something besides those who read where it was written, and telling them here: whom a message names, whom it
//! answers, whom it is to. Ways outside are the work of `notify`, which is above this.

use antiphon_core::{
    gateway::{
        ErrorCode, NotificationData, NotificationKind, NotificationsRead, NotificationsReadData, Notified, UserView,
    },
    ids::{ChannelId, MessageId, NotificationId, UserId},
    permission::{Action, Decision, decide},
};

use super::Chat;
use crate::{
    cluster::Direct,
    error::AppError,
    rooms::Shared,
    store::{Channel, Notification, Scope, User, rfc3339},
};

/// Characters of a message that a notification shows.
const SHOWN_CHARS: usize = 200;

/// A notification as its user sees it.
#[must_use]
pub fn notification_data(notification: &Notification) -> NotificationData {
    NotificationData {
        id: notification.id,
        kind: notification.kind,
        from_user: notification.from,
        username: notification.from_name.clone(),
        timestamp: rfc3339(notification.created_at),
        content: shortened(&notification.content),
        room: notification.channel_name.clone(),
        channel_id: notification.channel,
        message_id: notification.message,
    }
}

/// The beginning of a text.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Chat {
    /// Whom a message in a channel is told to, and why: those it names and whom it answers, as far as they may read it.
    pub(super) async fn to_notify(
        &self,
        channel: &Channel,
        from: UserId,
        named: &[User],
        reply_to: Option<MessageId>,
    ) -> Result<Vec<(UserId, NotificationKind)>, AppError> {
        let mut notify = Vec::new();
        for user in named {
            if self.may_be_told(user, from, channel).await? {
                notify.push((user.id, NotificationKind::Mention));
            }
        }
        if let Some(author) = self.author_of(channel.id, reply_to).await?
            && !notify.iter().any(|(user, _)| *user == author.id)
            && self.may_be_told(&author, from, channel).await?
        {
            notify.push((author.id, NotificationKind::Reply));
        }
        Ok(notify)
    }

    /// Who wrote a channel's message, if the account is there.
    async fn author_of(&self, channel: ChannelId, id: Option<MessageId>) -> Result<Option<User>, AppError> {
        let Some(id) = id else { return Ok(None) };
        let message = self.store().message(id).await?.filter(|message| message.scope == Scope::Room(channel));
        match message {
            Some(message) => Ok(self.store().user(message.from).await?),
            None => Ok(None),
        }
    }

    async fn may_be_told(&self, user: &User, from: UserId, channel: &Channel) -> Result<bool, AppError> {
        Ok(user.id != from
            && user.is_active
            && !self.store().has_blocked(user.id, from).await?
            && self.reads(&user.view(), channel).await?)
    }

    /// Whether somebody may read what was written in a channel.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn may_read(&self, user: &UserView, channel: ChannelId) -> Result<bool, AppError> {
        match self.store().channel(channel).await? {
            Some(channel) => self.reads(user, &channel).await,
            None => Ok(false),
        }
    }

    async fn reads(&self, user: &UserView, channel: &Channel) -> Result<bool, AppError> {
        let standing = self.rooms().standing_of(user, channel.id).await?;
        let history = self.store().chat_terms(channel.id).await?.history;
        Ok(decide(&standing, channel.is_private, Action::ReadHistory(history)) == Decision::Allowed)
    }

    /// Whether somebody has a session, on any node. While the others cannot be asked, those here are known.
    pub async fn is_connected(&self, user: UserId) -> bool {
        self.inner.people.is_here(user)
            || self
                .inner
                .records
                .whereabouts(&[user])
                .await
                .is_ok_and(|nodes| nodes.iter().any(|node| !node.is_empty()))
    }

    /// Tells somebody's sessions, on all nodes, of something. They can ask for it, should this be lost.
    pub async fn tell_notification(&self, notification: &Notification) {
        let (user, id) = (notification.user, notification.id);
        self.inner.people.send(user, &Shared::new(Notified::from(notification_data(notification))));
        self.rooms().announce_direct(Direct::Notified { user, id }).await;
    }

    pub(super) async fn show_notification(&self, user: UserId, id: NotificationId) {
        if !self.inner.people.is_here(user) {
            return;
        }
        if let Ok(Some(notification)) = self.store().notification(id).await
            && notification.user == user
            && !notification.is_deleted
            && self.still_sees(&notification).await
        {
            self.inner.people.send(user, &Shared::new(Notified::from(notification_data(&notification))));
        }
    }

    /// Whether somebody who is here may see what they are told of, now that they are.
    async fn still_sees(&self, notification: &Notification) -> bool {
        let Some(channel) = notification.channel else { return true };
        let Some(presence) = self.inner.people.sessions(notification.user).into_iter().next() else { return false };
        self.sees(&presence.user, channel, notification.kind).await.unwrap_or(false)
    }

    /// Tells somebody's sessions, on all nodes, that they have read some of what they were told of.
    pub async fn tell_notifications_read(&self, user: UserId) {
        self.show_notifications_read(user).await;
        self.rooms().announce_direct(Direct::NotificationsRead { user }).await;
    }

    pub(super) async fn show_notifications_read(&self, user: UserId) {
        if !self.inner.people.is_here(user) {
            return;
        }
        if let Ok(unread) = self.store().unread_notifications(user).await {
            let data = NotificationsReadData { unread };
            self.inner.people.send(user, &Shared::new(NotificationsRead::from(data)));
        }
    }

    /// Somebody's notifications, the newest first, as far as they may still see what those are about.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a page of no size or too large a one; when the database fails.
    pub async fn notifications(
        &self,
        user: UserId,
        before: Option<NotificationId>,
        only_unread: bool,
        limit: u32,
    ) -> Result<Vec<Notification>, AppError> {
        if !(1..=PAGE_MAX).contains(&limit) {
            let message = format!("limit must be from 1 to {PAGE_MAX}, not {limit}");
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        Ok(self.store().notifications(user, before, only_unread, limit).await?)
    }

    /// Whether somebody may be told of something in a channel now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sees(&self, user: &UserView, channel: ChannelId, kind: NotificationKind) -> Result<bool, AppError> {
        if kind != NotificationKind::Invitation {
            return self.may_read(user, channel).await;
        }
        let Some(found) = self.store().channel(channel).await? else { return Ok(false) };
        let standing = self.rooms().standing_of(user, channel).await?;
        Ok(decide(&standing, found.is_private, Action::Join) == Decision::Allowed)
    }
}

/// The most notifications of one answer.
const PAGE_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let exactly = "é".repeat(SHOWN_CHARS);
        assert_eq!(shortened(&exactly), exactly);
        assert_eq!(shortened(&format!("{exactly}!")), format!("{exactly}…"));
    }
}
