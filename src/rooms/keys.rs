//! The keys of a room's groups: made here, given to the members by the gateway and to the media worker, and changed
//! after somebody left (docs/protocol.md, 2.2).
//!
//! ```text
//!  leave ──► new key to the members and the worker ──200 ms──► the worker seals with it ──► next change 5 s later at
//!            (KeyRotated)                                                                  the earliest
//! ```

use std::{fmt, sync::Arc, time::Duration};

use antiphon_core::{
    clock::Micros,
    engine::Command,
    gateway::{Cipher, GroupKeySetup, KeyRotated},
    ids::{ChannelId, GroupId, KeyId},
    rotation::GroupRotation,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Rooms,
    outlet::Shared,
    room::{Room, Turn},
};
use crate::{random, telemetry::metrics::metrics};

/// The members of a room with one cipher, who share keys.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    cipher: Cipher,
    /// What the worker seals with, until `next` is in force.
    current: GroupKey,
    next: Option<(GroupKey, Micros)>,
    rotation: GroupRotation,
    members: usize,
    /// A task waits to change the key once that is allowed again.
    timer_runs: bool,
}

struct GroupKey {
    id: KeyId,
    bytes: Vec<u8>,
}

impl GroupKey {
    fn new(id: KeyId, cipher: Cipher) -> Self {
        Self { id, bytes: random_key(cipher) }
    }

    fn setup(&self) -> GroupKeySetup {
        GroupKeySetup { key_id: self.id, key: STANDARD.encode(&self.bytes) }
    }
}

impl fmt::Debug for GroupKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupKey({})", self.id)
    }
}

/// A key of the cipher's length.
pub(super) fn random_key(cipher: Cipher) -> Vec<u8> {
    let bytes: [u8; 32] = random::bytes();
    bytes[..cipher.key_bytes()].to_vec()
}

impl Group {
    fn new(id: GroupId, cipher: Cipher) -> Self {
        let rotation = GroupRotation::new();
        Self {
            id,
            cipher,
            current: GroupKey::new(rotation.key_id(), cipher),
            next: None,
            rotation,
            members: 0,
            timer_runs: false,
        }
    }

    /// The key in force, and the one that follows within 200 ms if there is one.
    pub(super) fn keys(&mut self, channel: ChannelId, now: Micros) -> (GroupKeySetup, Option<KeyRotated>) {
        self.settle(now);
        let next = self.next.as_ref().map(|(key, _)| self.announcement(channel, key));
        (self.current.setup(), next)
    }

    fn announcement(&self, channel: ChannelId, key: &GroupKey) -> KeyRotated {
        let GroupKeySetup { key_id, key } = key.setup();
        KeyRotated { channel_id: channel, group_id: self.id, key_id, key }
    }

    fn settle(&mut self, now: Micros) {
        if let Some((key, _)) = self.next.take_if(|(_, activate_at)| *activate_at <= now) {
            self.current = key;
        }
    }

    fn command(&self, channel: ChannelId, key: &GroupKey, activate_at: Micros) -> Command {
        Command::SetGroupKey {
            channel,
            group: self.id,
            cipher: self.cipher,
            key_id: key.id,
            key: key.bytes.clone().into(),
            activate_at,
        }
    }

    /// A new key, if one is due: the announcement for the members and the command for the worker.
    fn change(&mut self, channel: ChannelId, now: Micros) -> Option<(KeyRotated, Command)> {
        self.settle(now);
        let rotate = self.rotation.poll(now)?;
        let key = GroupKey::new(rotate.key_id, self.cipher);
        let change = (self.announcement(channel, &key), self.command(channel, &key, rotate.activate_at));
        self.next = Some((key, rotate.activate_at));
        Some(change)
    }
}

impl Rooms {
    /// Counts a new member of the group with `cipher`, which is made with its first.
    pub(super) async fn enter_group(&self, room: &Room, cipher: Cipher) {
        let now = self.inner.media.now();
        let first_key = {
            let group = &mut room.live_mut().groups[cipher as usize];
            match group {
                Some(group) => {
                    group.members += 1;
                    None
                }
                None => {
                    let new = Group::new(self.new_group_id(), cipher);
                    let command = new.command(room.id, &new.current, now);
                    *group = Some(Group { members: 1, ..new });
                    Some(command)
                }
            }
        };
        if let Some(command) = first_key {
            self.inner.media.send(room.home, command).await;
        }
    }

    /// Counts a member of the group less, and changes its key as soon as that is allowed.
    pub(super) async fn leave_group(&self, room: &Arc<Room>, cipher: Cipher) {
        if self.shrink_group(room, cipher) {
            self.renew_key(room, cipher).await;
        }
    }

    /// Counts a member of the group less. False when it was the last one.
    pub(super) fn shrink_group(&self, room: &Room, cipher: Cipher) -> bool {
        let slot = &mut room.live_mut().groups[cipher as usize];
        let Some(group) = slot else { return false };
        group.members = group.members.saturating_sub(1);
        if group.members == 0 {
            // Nobody is left to hear it: whoever comes next gets a new group with a new key.
            *slot = None;
        }
        slot.is_some()
    }

    /// Changes a group's key as soon as that is allowed.
    pub(super) async fn renew_key(&self, room: &Arc<Room>, cipher: Cipher) {
        let now = self.inner.media.now();
        if let Some(group) = &mut room.live_mut().groups[cipher as usize] {
            group.rotation.member_left(now);
        }
        if let Some((group, wait)) = self.change_key(room, cipher).await {
            self.start_timer(room, cipher, group, wait);
        }
    }

    /// Changes a group's key if that is due. The room's turn must be held. Says how long to wait for the next change
    /// where one is wanted and nobody waits for it yet.
    async fn change_key(&self, room: &Room, cipher: Cipher) -> Option<(GroupId, Duration)> {
        let now = self.inner.media.now();
        let (change, wait) = {
            let live = &mut *room.live_mut();
            let group = live.groups[cipher as usize].as_mut()?;
            let change = group.change(room.id, now);
            let wait = group.rotation.poll_timeout().filter(|_| !group.timer_runs);
            group.timer_runs |= wait.is_some();
            (change, wait.map(|at| (group.id, Duration::from_micros(at.since(now).0))))
        };
        if let Some((announcement, command)) = change {
            metrics().rooms.key_changes.increment(1);
            self.tell_group(room, cipher, &Shared::new(announcement));
            self.inner.media.send(room.home, command).await;
        }
        wait
    }

    fn tell_group(&self, room: &Room, cipher: Cipher, message: &Shared) {
        for member in room.live().members.values() {
            if member.udp.as_ref().is_some_and(|udp| udp.cipher == cipher) {
                member.outlet.send(message);
            }
        }
    }

    fn start_timer(&self, room: &Arc<Room>, cipher: Cipher, group: GroupId, wait: Duration) {
        let (rooms, room) = (self.clone(), Arc::clone(room));
        tokio::spawn(async move {
            let mut wait = Some((group, wait));
            while let Some((_, duration)) = wait {
                tokio::time::sleep(duration).await;
                let turn = room.turn.lock().await;
                if *turn == Turn::Closed {
                    return;
                }
                match &mut room.live_mut().groups[cipher as usize] {
                    Some(same) if same.id == group => same.timer_runs = false,
                    _ => return,
                }
                wait = rooms.change_key(&room, cipher).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(1));

    #[test]
    fn keys_have_their_ciphers_length_and_are_not_shown() {
        for cipher in Cipher::ALL {
            let group = Group::new(GroupId(1), cipher);
            let key = &group.current.bytes;
            assert_eq!(key.len(), cipher.key_bytes());
            assert!(!format!("{group:?}").contains(&STANDARD.encode(key)));
            assert!(!format!("{group:?}").contains(&format!("{key:?}")));
        }
    }

    #[test]
    fn whoever_comes_between_notice_and_change_gets_both_keys() {
        let mut group = Group::new(GroupId(1), Cipher::Aes128Gcm);
        let (first, next) = group.keys(CHANNEL, Micros::ZERO);
        assert!(next.is_none());
        let now = Micros::from_secs(60);
        group.rotation.member_left(now);
        let (announced, command) = group.change(CHANNEL, now).expect("due");
        let Command::SetGroupKey { activate_at, key, key_id, .. } = command else { panic!("{command:?}") };
        assert_eq!((STANDARD.encode(&key.0), key_id), (announced.key.clone(), announced.key_id));

        let (current, next) = group.keys(CHANNEL, now);
        assert_eq!(current, first, "still in force");
        assert_eq!(next, Some(announced.clone()));
        let (current, next) = group.keys(CHANNEL, activate_at);
        assert_eq!((current.key_id, current.key), (announced.key_id, announced.key));
        assert!(next.is_none());
    }
}
