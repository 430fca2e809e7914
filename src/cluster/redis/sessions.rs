//! Records of gateway sessions, so that a session can be taken up again through any node.

use std::time::Duration;

use antiphon_core::ids::{NodeNumber, SessionId, UserId};
use fred::{
    interfaces::{HashesInterface, KeysInterface},
    types::Value,
};

use super::{
    Handle,
    codec::{NumbersRecord, Said, SessionBody, Unreadable, decode, encode},
    connection::Connection,
    keys::{self, Topic},
    script::{self, Answer},
    shared::{Shared, bytes, ms, number, text, unreadable},
};
use crate::{
    cluster::{
        entry::Unavailable,
        listening::ListeningNews,
        sessions::{ClaimRefused, Moves, SessionNotice, SessionRecord, TokenHashes, Whereabouts},
    },
    telemetry::metrics::RedisOperation,
};

/// Records kept alive in one request.
const AT_ONCE: usize = 500;

/// The records of all sessions, in Redis.
///
/// A record is its node's until another claims it, and is kept alive until it is released or claimed. A node that dies
/// leaves it for [`super::RedisConfig::session_ttl`].
#[derive(Clone, Debug)]
pub struct RedisRecords {
    handle: Handle,
}

impl RedisRecords {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Writes how a session is now, as long as it is this node's, or nobody's because its record was lost. False when
    /// it has moved on.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn refresh(&self, session: SessionId, record: SessionRecord) -> Result<bool, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let SessionRecord { user, tokens, places, texts, entries, moves } = record;
        let body = SessionBody { user, places: places.into_iter().map(Into::into).collect(), texts, entries };
        let arguments = vec![
            number(permit.number.0.into()),
            bytes(encode(&NumbersRecord { numbers: permit.former.clone() })),
            text(hexes(&tokens)),
            bytes(encode(&body)),
            number(ms(shared.config.session_ttl)),
            number(moves.0),
        ];
        let keys = vec![keys::session(session)];
        // Before it is written, so that a release meanwhile takes it out again.
        shared.sessions.insert(session);
        let writing = shared.run(RedisOperation::SessionPut, &permit, &script::SESSION_PUT, keys, arguments);
        let kind = writing.await?.0;
        // What is stale this node has anew, and keeps.
        if kind == "claimed" {
            shared.sessions.remove(&session);
        }
        Ok(kind == "ok")
    }

    /// Moves a session to this node, if the hash `offered` is that of one of its tokens. From then on `tokens` hold, and
    /// the node that had it is told. Of nodes that claim with one token, one succeeds, unless it is among `tokens`; then
    /// the last one has the session.
    ///
    /// # Errors
    /// When the session is over, the token is not its, or Redis cannot be asked.
    pub async fn claim(
        &self,
        session: SessionId,
        offered: [u8; 32],
        tokens: TokenHashes,
    ) -> Result<SessionRecord, ClaimRefused> {
        let shared = self.shared();
        let permit = shared.permitted().map_err(|Unavailable| ClaimRefused::Unavailable)?;
        let arguments = vec![
            number(permit.number.0.into()),
            text(hex(&offered)),
            text(hexes(&tokens)),
            number(ms(shared.config.session_ttl)),
        ];
        let keys = vec![keys::session(session)];
        let claiming = shared.run(RedisOperation::SessionClaim, &permit, &script::SESSION_CLAIM, keys, arguments);
        let (kind, answer) = claiming.await.map_err(|_| ClaimRefused::Unavailable)?;
        match kind.as_str() {
            "gone" => return Err(ClaimRefused::Unknown),
            "wrong" => return Err(ClaimRefused::WrongToken),
            _ => {}
        }
        let (from, moves, SessionBody { user, places, texts, entries }) = read_claimed(answer).map_err(|error| {
            unreadable(&error);
            ClaimRefused::Unavailable
        })?;
        shared.sessions.insert(session);
        if from != permit.number {
            // If it gets lost, the other node learns of it when it next writes the session.
            let _ = shared.say(&Topic::Node(from), Said::SessionClaimed { session }).await;
        }
        let places = places.into_iter().map(Into::into).collect();
        Ok(SessionRecord { user, tokens, places, texts, entries, moves })
    }

    /// Forgets a session that is over, if it is this node's. A record that cannot be forgotten now ends by itself.
    pub async fn release(&self, session: SessionId) {
        let shared = self.shared();
        shared.sessions.remove(&session);
        let Ok(permit) = shared.permitted() else { return };
        let former = encode(&NumbersRecord { numbers: permit.former.clone() });
        let arguments = vec![number(permit.number.0.into()), bytes(former)];
        let keys = vec![keys::session(session)];
        let _ = shared.run(RedisOperation::SessionRelease, &permit, &script::SESSION_RELEASE, keys, arguments).await;
    }

    /// Tells all other nodes that an account was switched off.
    pub async fn account_disabled(&self, user: UserId) {
        let _ = self.shared().say(&Topic::AllNodes, Said::AccountDisabled { user }).await;
    }

    /// Tells the watching sessions of another node who listens here.
    pub async fn tell_of_listening(&self, node: NodeNumber, news: &ListeningNews) {
        let _ = self.shared().say(&Topic::Node(node), Said::Listening { news: news.clone() }).await;
    }

    /// Says where somebody is through this node; `None`: nowhere.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn set_whereabouts(&self, user: UserId, whereabouts: Option<Whereabouts>) -> Result<(), Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let (key, ttl) = (keys::people_of(permit.number), whole_ms(shared.config.session_ttl));
        let writing = async {
            let pipeline = permit.connection.client().pipeline();
            match whereabouts {
                Some(whereabouts) => {
                    let () = pipeline.hset(key.as_str(), (user.to_string(), bytes(encode(&whereabouts)))).await?;
                }
                None => {
                    let () = pipeline.hdel(key.as_str(), user.to_string()).await?;
                }
            }
            let () = pipeline.pexpire(key.as_str(), ttl, None).await?;
            pipeline.all::<Vec<Value>>().await
        };
        shared.single(RedisOperation::Whereabouts, writing).await.map(|_| ())
    }

    /// Where each of `users` is through the other live nodes.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn whereabouts(&self, users: &[UserId]) -> Result<Vec<Vec<Whereabouts>>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let others: Vec<NodeNumber> = {
            let view = shared.view.borrow();
            view.nodes.iter().map(|node| node.number).filter(|number| *number != permit.number).collect()
        };
        let mut found = vec![Vec::new(); users.len()];
        if users.is_empty() || others.is_empty() {
            return Ok(found);
        }
        let fields: Vec<String> = users.iter().map(ToString::to_string).collect();
        let reading = async {
            let pipeline = permit.connection.client().pipeline();
            for node in &others {
                let () = pipeline.hmget(keys::people_of(*node), fields.clone()).await?;
            }
            pipeline.all::<Vec<Vec<Option<bytes::Bytes>>>>().await
        };
        for records in shared.single(RedisOperation::Whereabouts, reading).await? {
            for (of_user, record) in found.iter_mut().zip(records) {
                of_user.extend(record.and_then(|record| decode::<Whereabouts>(&record).ok()));
            }
        }
        Ok(found)
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }
}

/// Keeps the records of this node's sessions alive, for ever.
pub(super) async fn keep_alive(shared: &Shared, connection: &Connection) {
    let mut ticks = tokio::time::interval(shared.config.session_ttl / 4);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let people = keys::people_of(shared.lease.lock().number);
        let keeping = connection.client().pexpire::<bool, _>(people, whole_ms(shared.config.session_ttl), None);
        let _ = shared.single(RedisOperation::Whereabouts, keeping).await;
        let sessions: Vec<SessionId> = shared.sessions.iter().map(|session| *session).collect();
        for sessions in sessions.chunks(AT_ONCE) {
            let keeping = keep(connection, sessions, shared.config.session_ttl);
            let Ok(kept) = shared.single(RedisOperation::SessionKeep, keeping).await else { break };
            let is_lost = |(session, kept): (&SessionId, &bool)| !kept && shared.sessions.contains(session);
            if sessions.iter().zip(&kept).any(is_lost) {
                shared.notify_of_session(SessionNotice::Reconnected);
            }
        }
    }
}

/// Which of them there are still.
async fn keep(connection: &Connection, sessions: &[SessionId], ttl: Duration) -> Result<Vec<bool>, fred::error::Error> {
    let pipeline = connection.client().pipeline();
    let ttl = whole_ms(ttl);
    for session in sessions {
        let () = pipeline.pexpire(keys::session(*session), ttl, None).await?;
    }
    pipeline.all().await
}

fn read_claimed(mut answer: Answer) -> Result<(NodeNumber, Moves, SessionBody), Unreadable> {
    let from = NodeNumber(u32::try_from(answer.number()?).unwrap_or_default());
    let moves = Moves(answer.number()?);
    Ok((from, moves, decode(&answer.bytes()?)?))
}

/// Each followed by a space, so that none can be found across two.
fn hexes(tokens: &TokenHashes) -> String {
    [Some(&tokens.current), tokens.before.as_ref()].into_iter().flatten().map(|token| hex(token) + " ").collect()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
