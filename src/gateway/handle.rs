//! What a client's messages do.

use std::sync::Arc;

use antiphon_core::gateway::{
    Ack, AudioData, Authenticate, Authenticated, ClientMessage, ErrorCode, Hello, JoinChannel, JoinRoomPayload,
    MediaMode, MediaTransport, RequestId, Resume, Resumed, ResumedChannel, ResumedText, SubscribePayload, UserView,
};
use tokio::sync::mpsc;

use super::{
    close::{CloseCause, after_failed_authentication},
    connection::{Connection, Request},
    records::Claimed,
    sessions::{Attachment, ResumeRefused},
};
use crate::{
    chat::is_chat,
    cluster::Unavailable,
    error::AppError,
    rooms::{Presence, Shared},
    telemetry::metrics::metrics,
};

impl Connection {
    /// Greets the client, then carries out its messages one after the other.
    pub(super) async fn process(&self, user: Option<UserView>, mut waiting: mpsc::Receiver<Box<Request>>) {
        let config = self.gateway.config();
        let hello = Hello {
            session_id: self.session_id,
            resume_token: self.resume_token.clone(),
            heartbeat_ms: u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            node: config.node.clone(),
            server_time_us: self.now().0,
        };
        self.send(hello, None);
        if let Some(user) = user {
            self.open(Authenticated { user, access_token: None, refresh_token: None }, None).await;
        }
        while let Some(request) = waiting.recv().await {
            if self.outbox.end_in_sight().is_some() {
                continue;
            }
            let Request { message, request_id } = *request;
            // On the heap and for as long as it takes: the largest of these would be part of every idle connection.
            let name = message.name();
            if let Err(error) = Box::pin(self.handle(message, request_id.clone())).await {
                self.fail_in_family(name, error, request_id);
            }
        }
    }

    async fn handle(&self, message: ClientMessage, request_id: Option<RequestId>) -> Result<(), AppError> {
        match message {
            ClientMessage::Authenticate(request) => return self.authenticate(request, request_id).await,
            ClientMessage::Resume(request) => return self.resume(request, request_id).await,
            _ => {}
        }
        let Some(attachment) = self.attachment.get() else {
            let message = "nobody is authenticated on this connection: send Authenticate or Resume first";
            return Err(AppError::new(ErrorCode::Unauthenticated, message));
        };
        let (rooms, presence) = (self.gateway.rooms(), &attachment.session.presence);
        if is_chat(&message) {
            return self.chat(attachment, message, request_id).await;
        }
        match message {
            ClientMessage::JoinChannel(request) => {
                // Who is told that they are in a channel stays in it, wherever they resume a moment later.
                self.outbox.hold_messages();
                let joined = rooms.join(presence, &request, request_id).await;
                self.gateway.refresh_record(&attachment.session).await;
                self.outbox.release(None);
                self.gateway.chat().moved(presence.user.id);
                return joined;
            }
            ClientMessage::LeaveChannel(request) => {
                let left = rooms.leave(presence, request.channel_id, request_id).await;
                self.gateway.refresh_record(&attachment.session).await;
                self.gateway.chat().moved(presence.user.id);
                return left;
            }
            ClientMessage::Recover(request) => {
                return rooms.recover(presence, request.channel_id, &request.position, request_id).await;
            }
            ClientMessage::JoinRoom(request) => {
                self.outbox.hold_messages();
                let joined = self.join_room(attachment, request.payload, request_id).await;
                self.gateway.refresh_record(&attachment.session).await;
                self.outbox.release(None);
                self.gateway.chat().moved(presence.user.id);
                return joined;
            }
            ClientMessage::Leave(_) => {
                let left = rooms.leave_room(presence, request_id).await;
                self.gateway.refresh_record(&attachment.session).await;
                self.gateway.chat().moved(presence.user.id);
                return left;
            }
            ClientMessage::PublishOffer(request) => return rooms.publish(presence, request.payload, request_id).await,
            ClientMessage::TrickleIce(request) => rooms.trickle(presence, request.payload).await?,
            ClientMessage::Subscribe(request) => return self.subscribe(presence, request.payload, request_id).await,
            ClientMessage::SubscribeAnswer(request) => rooms.subscribe_answer(presence, request.payload).await?,
            ClientMessage::StartAudio(request) => rooms.announce(presence, request.channel_id, true)?,
            ClientMessage::StopAudio(request) => rooms.announce(presence, request.channel_id, false)?,
            ClientMessage::SetVoiceState(request) => rooms.set_voice_state(presence, &request).await?,
            ClientMessage::SetMixGain(request) => rooms.set_mix_gain(presence, &request).await?,
            ClientMessage::AudioData(audio) => rooms.frame(presence, audio)?,
            ClientMessage::WatchListening(request) => self.gateway.watch(presence, &self.outbox, request.watch).await?,
            _ => {}
        }
        self.acknowledge(request_id);
        Ok(())
    }

    /// Acknowledged as soon as there is a connection to hear by, and before the first offer.
    async fn subscribe(
        &self,
        presence: &Presence,
        request: SubscribePayload,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        self.outbox.hold_messages();
        let subscribed = self.gateway.rooms().subscribe(presence, request).await;
        let ack = request_id.filter(|_| subscribed.is_ok()).map(|id| Shared::answer(Ack {}, Some(id)));
        self.outbox.release(ack.as_ref());
        subscribed
    }

    /// Enters the room that is named, or else that of the connection.
    async fn join_room(
        &self,
        attachment: &Attachment,
        request: JoinRoomPayload,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let channel_id = match (request.room_id, self.room) {
            (Some(named), Some(room)) if named != room => {
                let message = "this connection was made for another room: connect with that room's room_id";
                return Err(AppError::new(ErrorCode::PermissionDenied, message));
            }
            (named, room) => named.or(room).ok_or_else(|| {
                AppError::new(ErrorCode::InvalidInput, "join_room needs a `room_id`, here or on connecting")
            })?,
        };
        let join = JoinChannel {
            channel_id,
            media: MediaTransport::Webrtc,
            mode: MediaMode::Forward,
            cipher: None,
            sample_rate: None,
            channels: None,
            invite: request.invite,
        };
        self.gateway.rooms().join_room(&attachment.session.presence, &join, request.display, request_id).await
    }

    async fn chat(
        &self,
        attachment: &Attachment,
        message: ClientMessage,
        request_id: Option<RequestId>,
    ) -> Result<(), AppError> {
        let moves = matches!(message, ClientMessage::JoinText(_) | ClientMessage::LeaveText(_));
        if moves {
            // As with a channel's voice: who is told that they are in stays in, wherever they resume.
            self.outbox.hold_messages();
        }
        let done = self.gateway.chat().handle(&attachment.session.presence, message, request_id).await;
        if moves {
            self.gateway.refresh_record(&attachment.session).await;
            self.outbox.release(None);
            self.gateway.chat().moved(attachment.session.presence.user.id);
        }
        done
    }

    /// A frame of a channel that the session is in.
    pub(super) fn frame(&self, audio: AudioData, request_id: Option<RequestId>) {
        let Some(attachment) = self.attachment.get() else { return };
        match self.gateway.rooms().frame(&attachment.session.presence, audio) {
            Ok(()) => self.acknowledge(request_id),
            Err(error) => self.fail(error, request_id),
        }
    }

    fn acknowledge(&self, request_id: Option<RequestId>) {
        if request_id.is_some() {
            self.send(Ack {}, request_id);
        }
    }

    fn expect_nobody(&self) -> Result<(), AppError> {
        if self.attachment.get().is_none() {
            return Ok(());
        }
        let message = "this connection has a session already: connect anew for another";
        Err(AppError::new(ErrorCode::InvalidInput, message))
    }

    async fn authenticate(&self, request: Authenticate, request_id: Option<RequestId>) -> Result<(), AppError> {
        self.expect_nobody()?;
        match self.identify(request).await {
            Ok(authenticated) => {
                self.open(authenticated, request_id).await;
                Ok(())
            }
            Err(error) => {
                let cause = after_failed_authentication(error.code);
                self.fail(error, request_id);
                if let Some(cause) = cause {
                    self.close(cause);
                }
                Ok(())
            }
        }
    }

    async fn identify(&self, request: Authenticate) -> Result<Authenticated, AppError> {
        let auth = self.gateway.auth();
        match request {
            Authenticate { token: Some(token), .. } => {
                let user = auth.authenticate(&token).await?.user;
                Ok(Authenticated { user, access_token: None, refresh_token: None })
            }
            Authenticate { username: Some(username), .. } => {
                let tokens = auth.guest(self.address, &username, None).await?;
                Ok(Authenticated {
                    user: tokens.user,
                    access_token: Some(tokens.access_token),
                    refresh_token: Some(tokens.refresh_token),
                })
            }
            Authenticate { token: None, username: None } => {
                let message = "Authenticate needs a `token`, or a `username` to come in as a guest";
                Err(AppError::new(ErrorCode::InvalidInput, message))
            }
        }
    }

    /// Makes the session of whoever has been authenticated.
    async fn open(&self, authenticated: Authenticated, request_id: Option<RequestId>) {
        let presence = Presence::new(self.session_id, authenticated.user.clone(), self.link.clone());
        let opened =
            self.gateway.sessions().open(presence.into(), &self.resume_token, Arc::clone(&self.outbox), self.now());
        match opened {
            Some(attachment) => {
                self.attach(attachment.clone());
                self.gateway.chat().arrived(&attachment.session.presence);
                // Whoever is told of their session can resume it at any node.
                self.gateway.open_record(&attachment.session).await;
                // It may have been switched off since its token was looked at, before there was a session to be ended.
                if self.gateway.auth().is_switched_off(authenticated.user.id).await {
                    return self.gateway.end_sessions_of(authenticated.user.id).await;
                }
                self.send(authenticated, request_id);
                self.outbox.begin_session();
            }
            None => {
                let message = "this account has as many sessions as it may have: end one first";
                self.fail(AppError::new(ErrorCode::LimitReached, message), request_id);
                self.close(CloseCause::RateLimited);
            }
        }
    }

    fn attach(&self, attachment: Attachment) {
        let session = &attachment.session.presence;
        tracing::Span::current().record("session_id", tracing::field::display(session.id));
        tracing::Span::current().record("user_id", tracing::field::display(session.user.id));
        tracing::debug!("session begun or resumed");
        // One processor sets it, and only where it was not set.
        let _ = self.attachment.set(attachment);
    }

    async fn resume(&self, request: Resume, request_id: Option<RequestId>) -> Result<(), AppError> {
        self.expect_nobody()?;
        self.outbox.hold();
        let resumed = self.take_up(&request, request_id.clone()).await;
        self.outbox.release(resumed.as_ref().ok());
        if resumed.is_ok() {
            self.outbox.begin_session();
        }
        metrics().gateway.resumes.of(resumed.is_ok().into()).increment(1);
        let Err(refused) = resumed else { return Ok(()) };
        let (message, cause) = match refused {
            // It may be taken up here a little later.
            ResumeRefused::Unavailable => return Err(Unavailable.into()),
            ResumeRefused::Unknown => ("this session is over: connect anew and authenticate", CloseCause::SessionOver),
            ResumeRefused::WrongToken => {
                ("the resume_token is not this session's latest", CloseCause::AuthenticationFailed)
            }
        };
        self.fail(AppError::new(ErrorCode::Unauthenticated, message), request_id);
        self.close(cause);
        Ok(())
    }

    async fn take_up(&self, request: &Resume, request_id: Option<RequestId>) -> Result<Shared, ResumeRefused> {
        let sessions = self.gateway.sessions();
        let resumption = sessions.resume(request.session_id, &request.resume_token, Arc::clone(&self.outbox));
        let resumption = match resumption {
            Ok(resumption) => resumption,
            // Another node may have it, or have had it since.
            Err(refused) => return self.take_over(request, request_id, refused).await,
        };
        if let Some(older) = resumption.older {
            older.end(super::outbox::End::Close(CloseCause::Replaced));
        }
        let presence = Arc::clone(&resumption.attachment.session.presence);
        self.attach(resumption.attachment);
        let channels = self.gateway.rooms().resume(&presence, &self.link, &request.positions).await;
        let (channels, rooms) = channels.ok_or(ResumeRefused::Unknown)?;
        if let Some(attachment) = self.attachment.get() {
            self.gateway.refresh_record(&attachment.session).await;
        }
        Ok(resumed(&presence, resumption.token, (channels, rooms), request_id))
    }

    /// Goes on here with a session of another node. Where none has it, the answer is `refused`.
    async fn take_over(
        &self,
        request: &Resume,
        request_id: Option<RequestId>,
        refused: ResumeRefused,
    ) -> Result<Shared, ResumeRefused> {
        let claimed = self.gateway.claim(request.session_id, &request.resume_token, &self.link, &self.outbox).await;
        let Claimed { attachment, token, places, texts } = match claimed {
            Ok(claimed) => claimed,
            Err(ResumeRefused::Unknown) => return Err(refused),
            Err(refused) => return Err(refused),
        };
        let session = Arc::clone(&attachment.session);
        let (presence, rooms) = (&session.presence, self.gateway.rooms());
        let adopted = rooms.adopt(presence, (&places, &texts), session.moves(), &request.positions).await;
        let Ok(channels) = adopted else {
            self.gateway.give_back(&session).await;
            return Err(ResumeRefused::Unavailable);
        };
        self.attach(attachment);
        session.arrived();
        self.gateway.refresh_record(&session).await;
        if self.gateway.auth().is_switched_off(session.presence.user.id).await {
            // The node that had it may not have lived to hear of that.
            self.gateway.end_sessions_of(session.presence.user.id).await;
            return Err(ResumeRefused::Unknown);
        }
        Ok(resumed(&session.presence, token, channels, request_id))
    }
}

fn resumed(
    presence: &Presence,
    resume_token: String,
    (channels, rooms): (Vec<ResumedChannel>, Vec<ResumedText>),
    request_id: Option<RequestId>,
) -> Shared {
    let (session_id, user) = (presence.id, presence.user.clone());
    Shared::answer(Resumed { session_id, resume_token, user, channels, rooms }, request_id)
}
