//! Records of gateway sessions, so that a session can be taken up again through any node.

use std::time::Duration;

use antiphon_core::{
    gateway::{Cipher, MediaTransport, UserView},
    ids::{ChannelId, NodeNumber, SessionId, StreamId},
};

use super::{
    Handle,
    codec::{NodeMessage, NumbersRecord, SessionBody, SessionChannelRecord, decode, encode},
    keys::{self, Topic},
    script::{self, Answer},
    shared::{Failed, Permit, bytes, number, text, unreadable},
};
use crate::{
    cluster::entry::Unavailable,
    telemetry::metrics::RedisOperation,
};

/// The hash of a resume token.
pub type TokenHash = [u8; 32];

/// What a session needs to go on through another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Whose it is.
    pub user: UserView,
    /// The channels that it is in.
    pub channels: Vec<SessionChannel>,
}

/// A channel that a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionChannel {
    /// Which channel.
    pub channel: ChannelId,
    /// The stream there.
    pub stream: StreamId,
    /// How voice travels.
    pub media: MediaTransport,
    /// Sealed with what, if over UDP.
    pub cipher: Option<Cipher>,
}

/// Why a session is not this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// There is none: it is over, or never was.
    #[error("there is no such session")]
    Gone,
    /// Another node has taken it up.
    #[error("another node has the session")]
    Claimed,
    /// The token is not its.
    #[error("the token is not the session's")]
    WrongToken,
    /// The token was used before, and another one holds since.
    #[error("the token was used before")]
    UsedToken,
    /// Redis cannot be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<Failed> for SessionRefused {
    fn from(failed: Failed) -> Self {
        Self::Unavailable(failed.into())
    }
}

/// A session taken up from another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedSession {
    /// The node that had it.
    pub from: NodeNumber,
    /// What it needs to go on.
    pub record: SessionRecord,
}

/// The records of all sessions.
#[derive(Clone, Debug)]
pub struct RedisSessions {
    handle: Handle,
}

impl RedisSessions {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Makes a session's record, or writes it again where it was lost. `tokens` are the hashes of those that hold.
    ///
    /// # Errors
    /// When another node has the session, or Redis cannot be asked.
    pub async fn create(
        &self,
        session: SessionId,
        tokens: &[TokenHash],
        record: &SessionRecord,
        ttl: Duration,
    ) -> Result<(), SessionRefused> {
        self.put(session, tokens, record, ttl, true).await
    }

    /// Keeps a session's record for another `ttl`, as it is now.
    ///
    /// # Errors
    /// When the session is gone or another node has it, or Redis cannot be asked.
    pub async fn refresh(
        &self,
        session: SessionId,
        tokens: &[TokenHash],
        record: &SessionRecord,
        ttl: Duration,
    ) -> Result<(), SessionRefused> {
        self.put(session, tokens, record, ttl, false).await
    }

    async fn put(
        &self,
        session: SessionId,
        tokens: &[TokenHash],
        record: &SessionRecord,
        ttl: Duration,
        is_new: bool,
    ) -> Result<(), SessionRefused> {
        let shared = self.handle.shared();
        let permit = shared.permit()?;
        let tokens: String = tokens.iter().map(|token| hex(token) + " ").collect();
        let arguments = vec![
            number(permit.number.0.into()),
            bytes(encode(&NumbersRecord { numbers: permit.former.clone() })),
            text(tokens),
            bytes(encode(&body(record))),
            number(ms(ttl)),
            text(if is_new { "1" } else { "0" }),
        ];
        let keys = vec![keys::session(session)];
        let operation = if is_new { RedisOperation::SessionCreate } else { RedisOperation::SessionRefresh };
        let (kind, _) = shared.run(operation, &permit, &script::SESSION_PUT, keys, arguments).await?;
        refused(&kind).map_or(Ok(()), Err)
    }

    /// Takes a session up through this node: from now on `next` is its only token. Of any number of nodes that try with
    /// one token, one succeeds. The node that had the session is told.
    ///
    /// # Errors
    /// When the session is gone, the token is none of its, or Redis cannot be asked.
    pub async fn claim(
        &self,
        session: SessionId,
        offered: &TokenHash,
        next: &TokenHash,
        ttl: Duration,
    ) -> Result<ClaimedSession, SessionRefused> {
        let shared = self.handle.shared();
        let permit = shared.permit()?;
        let arguments = vec![number(permit.number.0.into()), text(hex(offered)), text(hex(next)), number(ms(ttl))];
        let keys = vec![keys::session(session)];
        let claiming = shared.run(RedisOperation::SessionClaim, &permit, &script::SESSION_CLAIM, keys, arguments);
        let (kind, answer) = claiming.await?;
        if let Some(refused) = refused(&kind) {
            return Err(refused);
        }
        let claimed = read_claimed(answer).map_err(|error| unreadable(&error))?;
        if claimed.from != permit.number {
            self.tell(&permit, claimed.from, session).await;
        }
        Ok(claimed)
    }

    /// The other node learns of it when it next refreshes the session at the latest.
    async fn tell(&self, permit: &Permit, node: NodeNumber, session: SessionId) {
        let message = encode(&NodeMessage::SessionClaimed { session });
        let topic = Topic::Node(node);
        let telling = permit.connection.publish(&topic, message);
        let _ = self.handle.shared().single(RedisOperation::Tell, telling).await;
    }

    /// Ends a session's record. False when it is not this node's.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn release(&self, session: SessionId) -> Result<bool, Unavailable> {
        let shared = self.handle.shared();
        let permit = shared.permit()?;
        let arguments = vec![number(permit.number.0.into())];
        let keys = vec![keys::session(session)];
        let releasing = shared.run(RedisOperation::SessionRelease, &permit, &script::SESSION_RELEASE, keys, arguments);
        Ok(releasing.await?.0 == "ok")
    }
}

fn refused(kind: &str) -> Option<SessionRefused> {
    match kind {
        "ok" => None,
        "gone" => Some(SessionRefused::Gone),
        "claimed" => Some(SessionRefused::Claimed),
        "used" => Some(SessionRefused::UsedToken),
        _ => Some(SessionRefused::WrongToken),
    }
}

fn read_claimed(mut answer: Answer) -> Result<ClaimedSession, super::codec::Unreadable> {
    let from = NodeNumber(u32::try_from(answer.number()?).unwrap_or_default());
    let SessionBody { user, channels } = decode(&answer.bytes()?)?;
    let channels = channels
        .into_iter()
        .map(|SessionChannelRecord { channel, stream, media, cipher }| SessionChannel { channel, stream, media, cipher })
        .collect();
    Ok(ClaimedSession { from, record: SessionRecord { user, channels } })
}

fn body(record: &SessionRecord) -> SessionBody {
    let channels = record
        .channels
        .iter()
        .map(|&SessionChannel { channel, stream, media, cipher }| SessionChannelRecord { channel, stream, media, cipher })
        .collect();
    SessionBody { user: record.user.clone(), channels }
}

fn hex(hash: &TokenHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
