//! What a client's messages of the chat family do.

use std::sync::Arc;

use antiphon_core::{
    gateway::{Ack, DmPosted, ServerMessage},
    gateway::{
        Block, ClientMessage, DeleteMessage, EditMessage, ErrorCode, JoinAck, JoinAckData, JoinText, LeaveText,
        MessagePosted, NotificationKind, PostMessage, React, ReportMessage, RequestId, SendDm, Typing, is_of_chat,
    },
    ids::{ChannelId, MessageId, UserId},
    permission::{Action, ChannelRole},
};

use super::{Chat, check, require, writer::Job};
use crate::{
    cluster::Direct,
    error::AppError,
    rooms::{Presence, Shared, dm_data, message_data},
    store::{Change, Channel, Message, NewAudit, NewMessage, Outcome, Refusal, Scope, User},
    telemetry::metrics::{ChatRequest, metrics},
};

/// Whether a client's message is for [`Chat::handle`].
#[must_use]
pub fn is_chat(message: &ClientMessage) -> bool {
    is_of_chat(message.name())
}

/// Who asks, and what the answer is to carry.
struct Asker<'a> {
    presence: &'a Arc<Presence>,
    request_id: Option<RequestId>,
}

impl Chat {
    /// Carries a message of the chat family out and answers it, unless it fails.
    ///
    /// # Errors
    /// What the client is to be told instead.
    pub async fn handle(
        &self,
        presence: &Arc<Presence>,
        message: ClientMessage,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let kind = kind(&message);
        let outcome = self.carry_out(Asker { presence, request_id }, message).await;
        if let Some(kind) = kind {
            metrics().chat.requests.of((kind, outcome.is_ok().into())).increment(1);
        }
        outcome
    }

    async fn carry_out(&self, asker: Asker<'_>, message: ClientMessage) -> Result<(), AppError> {
        let Asker { presence, request_id } = &asker;
        match message {
            ClientMessage::JoinText(request) => return self.join(&asker, request).await,
            ClientMessage::PostMessage(request) => return self.post(&asker, request).await,
            ClientMessage::SendDm(request) => return self.send_dm(&asker, request).await,
            ClientMessage::EditMessage(request) => return self.edit(&asker, request).await,
            ClientMessage::DeleteMessage(request) => return self.delete(&asker, request).await,
            ClientMessage::React(request) => return self.react(&asker, request).await,
            ClientMessage::RoomHistory(request) => {
                return self.room_history(presence, request, request_id.clone()).await;
            }
            ClientMessage::DmHistory(request) => return self.dm_history(presence, request, request_id.clone()).await,
            ClientMessage::MarkRead(request) => return self.mark_read(presence, request, request_id.clone()).await,
            ClientMessage::AskUnread(_) => return self.unread(presence, request_id.clone()).await,
            ClientMessage::Search(request) => return self.search(presence, request, request_id.clone()).await,
            ClientMessage::AskPresence(request) => {
                return self.ask_presence(presence, request, request_id.clone()).await;
            }
            ClientMessage::LeaveText(request) => self.leave(presence, &request).await?,
            ClientMessage::Typing(request) => self.typing(presence, &request).await?,
            ClientMessage::Block(request) => self.block(presence, &request).await?,
            ClientMessage::ReportMessage(request) => self.report(presence, request).await?,
            _ => return Err(AppError::new(ErrorCode::UnknownMessage, "this is no message of the chat family")),
        }
        if request_id.is_some() {
            presence.send(&Shared::answer(Ack {}, request_id.clone()));
        }
        Ok(())
    }

    async fn join(&self, asker: &Asker<'_>, JoinText { room }: JoinText) -> Result<(), AppError> {
        let (channel, standing) = self.channel(&asker.presence.user, &room).await?;
        require(&standing, channel.is_private, Action::Join)?;
        let position = self.rooms().attend(asker.presence, channel.id).await?;
        let data = JoinAckData { room, channel_id: channel.id, status: "ok".to_owned(), position };
        asker.presence.send(&Shared::answer(JoinAck::from(data), asker.request_id.clone()));
        Ok(())
    }

    async fn leave(&self, presence: &Presence, LeaveText { room }: &LeaveText) -> Result<(), AppError> {
        let channel = self.attended(presence, room).await?;
        self.rooms().unattend(presence, channel.id).await
    }

    /// The room of that name, if the session is in it.
    async fn attended(&self, presence: &Presence, room: &str) -> Result<Channel, AppError> {
        if let Some(channel) = self.rooms().attended(presence, room) {
            return Ok(channel);
        }
        // Told apart from one that does not exist, as far as they may know of it.
        self.channel(&presence.user, room).await?;
        Err(AppError::new(ErrorCode::PermissionDenied, "this session is not in that room: send join first"))
    }

    async fn post(&self, asker: &Asker<'_>, request: PostMessage) -> Result<(), AppError> {
        let PostMessage { room, content, nonce, reply_to } = request;
        check::content(&content, self.inner.config.message_chars)?;
        check::nonce(nonce.as_deref())?;
        let (presence, channel) = (asker.presence, self.attended(asker.presence, &room).await?);
        if self.store().server_muted_by(channel.id, presence.user.id).await?.is_some() {
            return Err(AppError::new(ErrorCode::PermissionDenied, "a moderator has muted you in this channel"));
        }
        // Word of a ban may not have come here yet.
        let standing = self.rooms().standing_of(&presence.user, channel.id).await?;
        require(&standing, channel.is_private, Action::Join)?;
        let named = self.mentions(&content).await?;
        let new = NewMessage {
            from: presence.user.id,
            username: presence.user.username.clone(),
            notify: self.to_notify(&channel, presence.user.id, &named, reply_to).await?,
            mentions: named.iter().map(|user| user.id).collect(),
            content,
            nonce,
            reply_to,
            is_slowed: standing.channel.is_none_or(|role| role < ChannelRole::Moderator),
        };
        let outcome = self.change(asker, Scope::Room(channel.id), &channel.name, Change::Post(new)).await?;
        if let Some(message) = outcome
            && let Some(data) = message_data(&message, &channel.name, &[])
        {
            // The same message sent again.
            asker.presence.send(&Shared::answer(MessagePosted::from(data), asker.request_id.clone()));
        }
        Ok(())
    }

    /// The accounts that a text names.
    async fn mentions(&self, content: &str) -> Result<Vec<User>, AppError> {
        let mut mentions: Vec<User> = Vec::new();
        for name in check::mentioned(content) {
            let user = self.store().user_by_name(name).await?;
            mentions.extend(user.filter(|user| mentions.iter().all(|known| known.id != user.id)));
        }
        Ok(mentions)
    }

    async fn send_dm(&self, asker: &Asker<'_>, request: SendDm) -> Result<(), AppError> {
        let SendDm { to, content, nonce, reply_to } = request;
        check::content(&content, self.inner.config.message_chars)?;
        check::nonce(nonce.as_deref())?;
        let (from, to) = (&asker.presence.user, self.user(&to).await?);
        self.require_open(from.id, to.id).await?;
        let new = NewMessage {
            from: from.id,
            username: from.username.clone(),
            content,
            mentions: Vec::new(),
            nonce,
            reply_to,
            is_slowed: false,
            notify: if to.id == from.id { Vec::new() } else { vec![(to.id, NotificationKind::DirectMessage)] },
        };
        let outcome = self.change(asker, Scope::pair(from.id, to.id), "", Change::Post(new)).await?;
        if let Some(message) = outcome {
            let again = DmPosted::from(dm_data(&message, &[]));
            asker.presence.send(&Shared::answer(again, asker.request_id.clone()));
        }
        Ok(())
    }

    /// Whether one may write to another.
    async fn require_open(&self, from: UserId, to: UserId) -> Result<(), AppError> {
        if self.store().has_blocked(to, from).await? {
            return Err(AppError::new(ErrorCode::PermissionDenied, "this person takes no messages from you"));
        }
        Ok(())
    }

    /// Does a change. The message, where it was so before and nobody was told.
    async fn change(
        &self,
        asker: &Asker<'_>,
        scope: Scope,
        name: &str,
        change: Change,
    ) -> Result<Option<Message>, AppError> {
        let from = Some((Arc::clone(asker.presence), asker.request_id.clone()));
        match self.write(scope, Job { change, name: name.to_owned(), from }).await? {
            Outcome::Done(_) => Ok(None),
            Outcome::Before(message) => Ok(Some(message)),
            Outcome::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// The same where an answer of its own is only due to who changed something.
    async fn change_or_acknowledge(
        &self,
        asker: &Asker<'_>,
        scope: Scope,
        name: &str,
        change: Change,
    ) -> Result<(), AppError> {
        let before = self.change(asker, scope, name, change).await?;
        if before.is_some() && asker.request_id.is_some() {
            asker.presence.send(&Shared::answer(Ack {}, asker.request_id.clone()));
        }
        Ok(())
    }

    async fn edit(&self, asker: &Asker<'_>, EditMessage { id, content }: EditMessage) -> Result<(), AppError> {
        check::content(&content, self.inner.config.message_chars)?;
        let (message, name) = self.message_seen(asker.presence, id).await?;
        if let Scope::Pair(low, high) = message.scope {
            let other = if low == asker.presence.user.id { high } else { low };
            self.require_open(asker.presence.user.id, other).await?;
        }
        let mentions = self.mentions(&content).await?.iter().map(|user| user.id).collect();
        let by = asker.presence.user.id;
        let change = Change::Edit { id, by, content, mentions };
        self.change_or_acknowledge(asker, message.scope, &name, change).await
    }

    async fn delete(&self, asker: &Asker<'_>, DeleteMessage { id }: DeleteMessage) -> Result<(), AppError> {
        let presence = asker.presence;
        let (message, name) = self.message_seen(presence, id).await?;
        match message.scope {
            Scope::Pair(..) if message.from != presence.user.id => return Err(refused(Refusal::NotYours)),
            Scope::Room(channel) => self.require_removal(presence, channel, &message).await?,
            Scope::Pair(..) => {}
        }
        if message.from != presence.user.id {
            self.record_removal(presence, &message).await?;
        }
        let change = Change::Delete { id, by: presence.user.id };
        self.change_or_acknowledge(asker, message.scope, &name, change).await
    }

    /// Writes down that somebody takes another's message away, before it is done.
    async fn record_removal(&self, presence: &Presence, message: &Message) -> Result<(), AppError> {
        let channel = match message.scope {
            Scope::Room(channel) => Some(channel.to_string()),
            Scope::Pair(..) => None,
        };
        let done = NewAudit {
            actor: presence.user.id,
            actor_name: presence.user.username.clone(),
            action: "message.remove",
            target: Some(message.id.to_string()),
            detail: serde_json::json!({"channel_id": channel, "author": message.from.to_string()}),
        };
        Ok(self.store().record_audit(done).await?)
    }

    async fn require_removal(
        &self,
        presence: &Presence,
        channel: ChannelId,
        message: &Message,
    ) -> Result<(), AppError> {
        if message.from == presence.user.id {
            return Ok(());
        }
        let actor = self.rooms().standing_of(&presence.user, channel).await?;
        let author = match self.store().user(message.from).await? {
            Some(author) => self.rooms().standing_of(&author.view(), channel).await?,
            // Whose account is gone ranks lowest.
            None => antiphon_core::permission::Standing {
                user: message.from,
                server: antiphon_core::gateway::Role::User,
                channel: None,
                guest: true,
                banned: false,
            },
        };
        require(&actor, false, Action::RemoveMessage(&author))
    }

    async fn react(&self, asker: &Asker<'_>, React { id, emoji, remove }: React) -> Result<(), AppError> {
        check::emoji(&emoji)?;
        let (message, name) = self.message_seen(asker.presence, id).await?;
        let change = Change::React { id, by: asker.presence.user.id, emoji, remove };
        self.change_or_acknowledge(asker, message.scope, &name, change).await
    }

    /// A message and its channel's name, if the session is where it is. To others it does not exist.
    async fn message_seen(&self, presence: &Presence, id: MessageId) -> Result<(Message, String), AppError> {
        let message = self.store().message(id).await?.filter(|message| message.deleted_by.is_none());
        let message = message.ok_or_else(|| refused(Refusal::NoSuchMessage))?;
        match message.scope {
            Scope::Pair(..) if message.scope.is_of(presence.user.id) => Ok((message, String::new())),
            Scope::Pair(..) => Err(refused(Refusal::NoSuchMessage)),
            Scope::Room(channel) => {
                let (channel, standing) = match self.channel(&presence.user, &channel.to_string()).await {
                    Err(error) if error.code == ErrorCode::ChannelNotFound => {
                        return Err(refused(Refusal::NoSuchMessage));
                    }
                    found => found?,
                };
                require(&standing, channel.is_private, Action::Join)?;
                if !self.rooms().is_attending(presence, channel.id) {
                    let message = "this session is not in that message's room: send join first";
                    return Err(AppError::new(ErrorCode::PermissionDenied, message));
                }
                Ok((message, channel.name))
            }
        }
    }

    async fn typing(&self, presence: &Presence, request: &Typing) -> Result<(), AppError> {
        match (&request.room, &request.to) {
            (Some(room), None) => {
                let channel = self.attended(presence, room).await?;
                self.count_typing(presence, Scope::Room(channel.id))?;
                self.typing_in(presence, &channel).await;
                Ok(())
            }
            (None, Some(to)) => {
                let to = self.user(to).await?.id;
                self.count_typing(presence, Scope::pair(presence.user.id, to))?;
                self.typing_to(presence, to).await
            }
            _ => Err(AppError::new(ErrorCode::InvalidInput, "typing needs either `room` or `to`")),
        }
    }

    fn count_typing(&self, presence: &Presence, scope: Scope) -> Result<(), AppError> {
        self.inner.typing.as_ref().map_or(Ok(()), |rates| rates.check(&(presence.user.id, scope), "signs of typing"))
    }

    async fn typing_in(&self, presence: &Presence, channel: &Channel) {
        let (from, username) = (presence.user.id, presence.user.username.clone());
        let data = antiphon_core::gateway::TypingData {
            from_user: from,
            username: username.clone(),
            room: Some(channel.name.clone()),
            channel_id: Some(channel.id),
        };
        let message = ServerMessage::from(antiphon_core::gateway::TypingSeen::from(data));
        self.rooms().tell_of_typing(channel.id, message, Some(presence));
        self.rooms().announce_direct(Direct::TypingIn { from, username, channel: channel.id }).await;
    }

    async fn block(&self, presence: &Presence, Block { user, remove }: &Block) -> Result<(), AppError> {
        let blocked = self.user(user).await?.id;
        if blocked == presence.user.id {
            return Err(AppError::new(ErrorCode::InvalidInput, "nobody can block themselves"));
        }
        self.store().set_blocked(presence.user.id, blocked, !remove).await?;
        Ok(())
    }

    async fn report(&self, presence: &Presence, ReportMessage { id, reason }: ReportMessage) -> Result<(), AppError> {
        check::remark("reason", &reason)?;
        let (message, _) = self.message_seen(presence, id).await?;
        if let Scope::Pair(..) = message.scope {
            let wrong = "there are no moderators between two people: block them, or tell an administrator";
            return Err(AppError::new(ErrorCode::InvalidInput, wrong));
        }
        self.store().report_message(id, presence.user.id, &reason).await?;
        Ok(())
    }
}

fn refused(refusal: Refusal) -> AppError {
    match refusal {
        Refusal::NoSuchMessage => AppError::new(ErrorCode::NotFound, "there is no such message (any more)"),
        Refusal::NoSuchReply => {
            AppError::new(ErrorCode::InvalidInput, "reply_to names no message that is here (any more)")
        }
        Refusal::NotYours => AppError::new(ErrorCode::PermissionDenied, "this message is somebody else's"),
        Refusal::TooSoon { seconds } => {
            let message = format!("this channel is in slow mode: write again in {seconds} s");
            AppError::retry(ErrorCode::RateLimited, message, seconds)
        }
        Refusal::TooManyReactions => {
            AppError::new(ErrorCode::LimitReached, "this message has as many different signs as it may have")
        }
    }
}

fn kind(message: &ClientMessage) -> Option<ChatRequest> {
    Some(match message {
        ClientMessage::JoinText(_) => ChatRequest::Join,
        ClientMessage::LeaveText(_) => ChatRequest::Leave,
        ClientMessage::PostMessage(_) => ChatRequest::Message,
        ClientMessage::SendDm(_) => ChatRequest::Dm,
        ClientMessage::RoomHistory(_) => ChatRequest::RoomHistory,
        ClientMessage::DmHistory(_) => ChatRequest::DmHistory,
        ClientMessage::Typing(_) => ChatRequest::Typing,
        ClientMessage::EditMessage(_) => ChatRequest::Edit,
        ClientMessage::DeleteMessage(_) => ChatRequest::Delete,
        ClientMessage::React(_) => ChatRequest::React,
        ClientMessage::MarkRead(_) => ChatRequest::MarkRead,
        ClientMessage::AskUnread(_) => ChatRequest::Unread,
        ClientMessage::Search(_) => ChatRequest::Search,
        ClientMessage::AskPresence(_) => ChatRequest::Presence,
        ClientMessage::Block(_) => ChatRequest::Block,
        ClientMessage::ReportMessage(_) => ChatRequest::Report,
        _ => return None,
    })
}
