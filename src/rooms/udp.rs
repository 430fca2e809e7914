//! The UDP sessions of this node's gateway sessions: one for all channels of a session that has any with `media: udp`.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use antiphon_core::{
    engine::{Command, MemberUdp},
    gateway::Cipher,
    ids::{MediaSessionId, StreamId, WorkerIndex},
};
use dashmap::Entry;
use tokio::sync::Notify;

use super::{
    Rooms,
    keys::random_key,
    presence::{Place, Presence},
    room::Room,
};
use crate::random;

/// One client's UDP session with this node.
pub(super) struct UdpSession {
    pub(super) id: MediaSessionId,
    /// The worker it lives in.
    pub(super) worker: WorkerIndex,
    pub(super) cipher: Cipher,
    pub(super) key: Vec<u8>,
    /// Whose it is.
    pub(super) owner: Weak<Presence>,
    /// UDP to the client works, so its audio need not go over the gateway.
    proven: AtomicBool,
    /// Wakes whoever waits for the first Bind.
    bound: Notify,
}

impl UdpSession {
    /// The session as a channel's worker knows it.
    pub(super) fn as_member(&self) -> MemberUdp {
        MemberUdp { session: self.id, worker: self.worker, cipher: self.cipher }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    pub(super) fn set_proven(&self, proven: bool) {
        self.proven.store(proven, Relaxed);
    }

    pub(super) fn set_bound(&self) {
        self.bound.notify_one();
    }
}

impl fmt::Debug for UdpSession {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpSession({}, {:?})", self.id, self.cipher)
    }
}

impl Rooms {
    /// Notes a session's place and, where it uses UDP, yields the session's UDP session, made when it has none.
    pub(super) async fn take_up_place(
        &self,
        presence: &Arc<Presence>,
        place: Place,
        cipher: Option<Cipher>,
    ) -> Option<Arc<UdpSession>> {
        let (udp, is_new) = {
            let mut state = presence.state();
            let (uses_udp, home) = (place.uses_udp, place.room.home);
            state.places.insert(place.room.id, place);
            match &state.udp {
                _ if !uses_udp => return None,
                Some(udp) => (Arc::clone(udp), false),
                None => {
                    let udp = self.new_udp_session(presence, home, cipher.unwrap_or_default());
                    state.udp = Some(Arc::clone(&udp));
                    (udp, true)
                }
            }
        };
        if is_new {
            self.add_udp_session(&udp).await;
        }
        Some(udp)
    }

    /// A UDP session with an id that names its worker, known to this node but not yet to the worker.
    pub(super) fn new_udp_session(
        &self,
        presence: &Arc<Presence>,
        worker: WorkerIndex,
        cipher: Cipher,
    ) -> Arc<UdpSession> {
        let workers = u32::from(self.inner.media.workers());
        loop {
            let Some(id) = session_id(random::number(), worker, workers) else { continue };
            let Entry::Vacant(free) = self.inner.udp_sessions.entry(id) else { continue };
            let udp = Arc::new(UdpSession {
                id,
                worker,
                cipher,
                key: random_key(cipher),
                owner: Arc::downgrade(presence),
                proven: AtomicBool::new(false),
                bound: Notify::new(),
            });
            free.insert(Arc::clone(&udp));
            return udp;
        }
    }

    /// Makes the UDP session known to its worker.
    pub(super) async fn add_udp_session(&self, udp: &UdpSession) {
        let add = Command::AddSession { session: udp.id, cipher: udp.cipher, key: udp.key.clone().into() };
        self.inner.media.send(udp.worker, add).await;
    }

    /// Ends a UDP session.
    pub(super) async fn remove_udp_session(&self, udp: &UdpSession) {
        self.inner.udp_sessions.remove(&udp.id);
        self.inner.media.send(udp.worker, Command::RemoveSession { session: udp.id }).await;
    }

    /// Lets a UDP session carry a stream's frames to `room`.
    pub(super) async fn attach_stream(&self, udp: &UdpSession, room: &Room, stream: StreamId) {
        let attach = Command::AttachStream { session: udp.id, stream, channel: room.id, home: room.home };
        self.inner.media.send(udp.worker, attach).await;
    }

    /// Ends a UDP session that another has taken the place of, once that one is bound, at the latest after the time
    /// that docs/protocol.md, 3.2, gives.
    pub(super) fn retire_udp_session(&self, old: Arc<UdpSession>, new: Arc<UdpSession>) {
        let rooms = self.clone();
        tokio::spawn(async move {
            let grace = rooms.inner.config.old_udp_grace;
            // Bound or not, the old one's time is up.
            let _ = tokio::time::timeout(grace, new.bound.notified()).await;
            rooms.remove_udp_session(&old).await;
        });
    }
}

/// The id nearest below `random` that names `worker`; `None` where there is none, and for zero, which stands for none.
fn session_id(random: u32, worker: WorkerIndex, workers: u32) -> Option<MediaSessionId> {
    let id = (random - random % workers).checked_add(u32::from(worker.0))?;
    (id != 0).then_some(MediaSessionId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_worker() {
        for workers in [1, 2, 3, 7, 256] {
            for worker in [0, workers - 1] {
                for random in [0, 1, 5, 1_000_003, u32::MAX - 1, u32::MAX] {
                    let worker = WorkerIndex(u16::try_from(worker).expect("small"));
                    if let Some(MediaSessionId(id)) = session_id(random, worker, workers) {
                        assert_ne!(id, 0);
                        assert_eq!(id % workers, u32::from(worker.0), "{random} of {workers}");
                    }
                }
            }
        }
        assert_eq!(session_id(0, WorkerIndex(0), 2), None);
        assert_eq!(session_id(u32::MAX, WorkerIndex(2), 4), Some(MediaSessionId(u32::MAX - 1)));
    }
}
