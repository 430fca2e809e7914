//! Session records in memory.

use std::sync::{Arc, atomic::Ordering};

use antiphon_core::ids::{NodeNumber, SessionId, UserId};

use super::{
    super::{
        entry::Unavailable,
        listening::ListeningNews,
        sessions::{ClaimRefused, SessionNotice, SessionRecord, TokenHashes, Whereabouts},
    },
    Node, OwnedRecord, Shared,
};

/// Session records in memory, as one node reaches them.
#[derive(Clone, Debug)]
pub struct MemoryRecords {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
}

impl MemoryRecords {
    pub(in crate::cluster) fn set_whereabouts(
        &self,
        user: UserId,
        whereabouts: Option<Whereabouts>,
    ) -> Result<(), Unavailable> {
        self.check()?;
        match whereabouts {
            Some(whereabouts) => self.shared.whereabouts.insert((user, self.node.number), whereabouts),
            None => self.shared.whereabouts.remove(&(user, self.node.number)).map(|(_, before)| before),
        };
        Ok(())
    }

    pub(in crate::cluster) fn whereabouts(&self, users: &[UserId]) -> Result<Vec<Vec<Whereabouts>>, Unavailable> {
        self.check()?;
        let others: Vec<NodeNumber> = {
            let nodes = self.shared.nodes.read();
            nodes.iter().map(|node| node.number).filter(|number| *number != self.node.number).collect()
        };
        let at =
            |user: &UserId, node: &NodeNumber| self.shared.whereabouts.get(&(*user, *node)).map(|found| found.clone());
        Ok(users.iter().map(|user| others.iter().filter_map(|node| at(user, node)).collect()).collect())
    }

    pub(in crate::cluster) fn refresh(&self, session: SessionId, record: SessionRecord) -> Result<bool, Unavailable> {
        self.check()?;
        let node = self.node.number;
        let mut known = match self.shared.sessions.entry(session) {
            dashmap::Entry::Occupied(known) => known,
            dashmap::Entry::Vacant(lost) => {
                lost.insert(OwnedRecord { node, record });
                return Ok(true);
            }
        };
        let is_ours = known.get().node == node && known.get().record.moves <= record.moves;
        if is_ours {
            known.get_mut().record = record;
        }
        Ok(is_ours)
    }

    pub(in crate::cluster) fn claim(
        &self,
        session: SessionId,
        offered: [u8; 32],
        tokens: TokenHashes,
    ) -> Result<SessionRecord, ClaimRefused> {
        self.check().map_err(|Unavailable| ClaimRefused::Unavailable)?;
        let mut owned = self.shared.sessions.get_mut(&session).ok_or(ClaimRefused::Unknown)?;
        if !owned.record.tokens.admit(&offered) {
            return Err(ClaimRefused::WrongToken);
        }
        let before = std::mem::replace(&mut owned.node, self.node.number);
        owned.record.tokens = tokens;
        self.shared.others(self.node.number, |node| {
            if node.number == before {
                node.tell_of_session(SessionNotice::Claimed(session));
            }
        });
        owned.record.moves.0 += 1;
        Ok(owned.record.clone())
    }

    pub(in crate::cluster) fn release(&self, session: SessionId) {
        if self.check().is_ok() {
            self.shared.sessions.remove_if(&session, |_, owned| owned.node == self.node.number);
        }
    }

    pub(in crate::cluster) fn account_disabled(&self, user: UserId) {
        if self.check().is_ok() {
            let tell = |node: &Node| node.tell_of_session(SessionNotice::AccountDisabled(user));
            self.shared.others(self.node.number, tell);
        }
    }

    pub(in crate::cluster) fn tell_of_listening(&self, to: NodeNumber, news: &ListeningNews) {
        if self.check().is_ok() {
            self.shared.others(self.node.number, |node| {
                if node.number == to {
                    node.session_notices.offer(SessionNotice::Listening(news.clone()));
                }
            });
        }
    }

    fn check(&self) -> Result<(), Unavailable> {
        if self.node.reachable.load(Ordering::Acquire) { Ok(()) } else { Err(Unavailable) }
    }
}
