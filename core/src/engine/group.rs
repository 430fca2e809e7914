//! A group: the listeners of one channel with one cipher, and the keys that seal what they hear.

use std::net::SocketAddr;

use crate::slab::SlabKey;
use crate::{
    clock::Micros,
    ids::{GroupId, KeyId},
    seal::{Direction, Key},
    wire::datagram::{Header, PacketType},
};

/// A key and how often it has sealed.
#[derive(Debug)]
pub(super) struct GroupKey {
    id: KeyId,
    key: Key,
    counter: u64,
}

impl GroupKey {
    pub(super) fn new(id: KeyId, key: Key) -> Self {
        Self { id, key, counter: 0 }
    }
}

/// A group's keys: the one in use and the one that follows.
#[derive(Debug)]
pub(super) struct Group {
    id: GroupId,
    current: GroupKey,
    next: Option<(Micros, GroupKey)>,
}

impl Group {
    /// A group's first key is used at once.
    pub(super) fn new(id: GroupId, first: GroupKey) -> Self {
        Self { id, current: first, next: None }
    }

    pub(super) fn id(&self) -> GroupId {
        self.id
    }

    /// A later key is used from `activate_at`. A newer one replaces one that still waits.
    pub(super) fn set_next(&mut self, activate_at: Micros, key: GroupKey) {
        self.next = Some((activate_at, key));
    }

    /// Seals the `plaintext_len` bytes behind the header's place; the length of the datagram.
    pub(super) fn seal(&mut self, now: Micros, datagram: &mut [u8], plaintext_len: usize) -> usize {
        if let Some((_, next)) = self.next.take_if(|(activate_at, _)| *activate_at <= now) {
            self.current = next;
        }
        let current = &mut self.current;
        let header =
            Header { packet_type: PacketType::Media, key_id: current.id, id: self.id.0, counter: current.counter };
        current.counter += 1;
        current.key.seal(Direction::FromNode, &header, datagram, plaintext_len)
    }
}

/// Where a group's datagrams go: a flat list that is sent over in one pass.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    addresses: Vec<SocketAddr>,
    /// Whose address it is, at the same index.
    members: Vec<SlabKey>,
}

impl Listeners {
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Makes room for so many, so that [`Self::push`] does not allocate.
    pub(super) fn reserve(&mut self, members: usize) {
        self.addresses.reserve(members.saturating_sub(self.addresses.len()));
        self.members.reserve(members.saturating_sub(self.members.len()));
    }

    /// Appends a listener; their index.
    pub(super) fn push(&mut self, member: SlabKey, address: SocketAddr) -> usize {
        self.addresses.push(address);
        self.members.push(member);
        self.addresses.len() - 1
    }

    /// The listener at `index` moved.
    pub(super) fn set_address(&mut self, index: usize, address: SocketAddr) {
        self.addresses[index] = address;
    }

    /// Takes a listener out. The last one takes their index: who that is.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<SlabKey> {
        self.addresses.swap_remove(index);
        self.members.swap_remove(index);
        self.members.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Cipher;

    fn key(id: u8) -> GroupKey {
        GroupKey::new(KeyId(id), Key::new(Cipher::Aes128Gcm, &[id; 16]).expect("16 bytes"))
    }

    fn seal(group: &mut Group, now: u64) -> (u8, u64) {
        let mut datagram = [0; 64];
        let length = group.seal(Micros(now), &mut datagram, 10);
        let header = Header::parse(&datagram[..length]).expect("a datagram");
        assert_eq!((header.packet_type, header.id), (PacketType::Media, 9));
        (header.key_id.0, header.counter)
    }

    #[test]
    fn the_next_key_takes_over_when_its_time_comes_and_counts_from_zero() {
        let mut group = Group::new(GroupId(9), key(1));
        assert_eq!(seal(&mut group, 0), (1, 0));
        group.set_next(Micros(200), key(2));
        assert_eq!(seal(&mut group, 199), (1, 1));
        assert_eq!(seal(&mut group, 200), (2, 0));
        assert_eq!(seal(&mut group, 0), (2, 1), "no way back");
    }

    #[test]
    fn removing_moves_the_last_listener() {
        let mut slab = crate::slab::Slab::default();
        let mut listeners = Listeners::default();
        let keys: Vec<_> = (0..3)
            .map(|port| {
                let key = slab.insert(());
                assert_eq!(usize::from(port), listeners.push(key, SocketAddr::from(([127, 0, 0, 1], port))));
                key
            })
            .collect();
        assert_eq!(listeners.swap_remove(0), Some(keys[2]));
        listeners.set_address(0, SocketAddr::from(([127, 0, 0, 1], 7)));
        assert_eq!(listeners.addresses().iter().map(SocketAddr::port).collect::<Vec<_>>(), [7, 1]);
        assert_eq!(listeners.swap_remove(1), None);
        assert_eq!(listeners.len(), 1);
    }
}
