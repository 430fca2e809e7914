//! Sockets that several clients share: those in channels where nobody talks, to whom nothing comes but answers to their
//! pings. So thousands of them fit the files that a process may have open.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc};

use crate::load::system::StampedSocket;

/// Clients on one socket.
const CLIENTS_MAX: usize = 16;

/// All of them.
#[derive(Default)]
pub(super) struct SharedSockets {
    sockets: Vec<Shared>,
}

struct Shared {
    socket: Arc<StampedSocket>,
    peer: SocketAddr,
    /// Whose each session is.
    slots: HashMap<u32, usize>,
}

impl SharedSockets {
    /// A socket to `peer` for the session of whoever has that slot.
    pub(super) fn take(
        &mut self,
        peer: SocketAddr,
        session: u32,
        slot: usize,
        receive_buffer_bytes: usize,
    ) -> io::Result<Arc<StampedSocket>> {
        let fits = |shared: &&mut Shared| {
            shared.peer == peer && shared.slots.len() < CLIENTS_MAX && !shared.slots.contains_key(&session)
        };
        if let Some(shared) = self.sockets.iter_mut().rev().find(fits) {
            shared.slots.insert(session, slot);
            return Ok(Arc::clone(&shared.socket));
        }
        let socket = Arc::new(StampedSocket::connect(peer, receive_buffer_bytes)?);
        let slots = HashMap::from([(session, slot)]);
        self.sockets.push(Shared { socket: Arc::clone(&socket), peer, slots });
        Ok(socket)
    }

    /// Whoever has that slot has gone, or is elsewhere.
    pub(super) fn leave(&mut self, slot: usize) {
        for shared in &mut self.sockets {
            shared.slots.retain(|_, known| *known != slot);
        }
        self.sockets.retain(|shared| !shared.slots.is_empty());
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// A socket, and whose each session on it is.
    pub(super) fn get(&self, index: usize) -> Option<(&StampedSocket, &HashMap<u32, usize>)> {
        self.sockets.get(index).map(|shared| (&*shared.socket, &shared.slots))
    }

    /// Datagrams that found no room in them.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        self.sockets.iter().try_fold(0, |sum, shared| Ok(sum + u64::from(shared.socket.dropped()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sixteen_share_one_and_an_empty_one_is_closed() {
        let peer = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("bound");
        let mut shared = SharedSockets::default();
        for slot in 0..40 {
            shared.take(peer, 1_000 + slot as u32, slot, 1 << 16).expect("a socket");
        }
        assert_eq!((shared.len(), shared.dropped().expect("counts")), (3, 0));
        let (_, slots) = shared.get(0).expect("the first");
        assert_eq!((slots.len(), slots[&1_003]), (16, 3));
        (0..16).for_each(|slot| shared.leave(slot));
        assert_eq!(shared.len(), 2);
    }
}
