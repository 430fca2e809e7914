//! When a group's key changes: after a member left, at most every 5 s, in use 200 ms after it was given out
//! (docs/protocol.md, 2.2: within 6 s of a leave the departed's key opens nothing new).

use crate::{clock::Micros, ids::KeyId};

/// The least time between two changes.
pub const INTERVAL: Micros = Micros::from_secs(5);
/// From giving the new key to the members until the node seals with it.
pub const NOTICE: Micros = Micros::from_millis(200);

/// What to do now: make a key, give it to the members and to the media worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// The new key's id.
    pub key_id: KeyId,
    /// When the node begins to seal with it.
    pub activate_at: Micros,
}

/// The schedule of one group's keys.
#[derive(Clone, Copy, Debug)]
pub struct GroupRotation {
    key_id: KeyId,
    last_change: Option<Micros>,
    due_at: Option<Micros>,
}

impl Default for GroupRotation {
    fn default() -> Self {
        Self::new()
    }
}

impl GroupRotation {
    /// A new group: its first key is [`KeyId::FIRST`].
    #[must_use]
    pub const fn new() -> Self {
        Self { key_id: KeyId::FIRST, last_change: None, due_at: None }
    }

    /// The id of the newest key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Somebody who has the newest key is no longer a member.
    pub fn member_left(&mut self, now: Micros) {
        let earliest = self.last_change.map_or(now, |last| now.max(last + INTERVAL));
        self.due_at.get_or_insert(earliest);
    }

    /// When to call [`Self::poll`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Micros> {
        self.due_at
    }

    /// The change that is due, if one is.
    pub fn poll(&mut self, now: Micros) -> Option<Rotate> {
        if self.due_at? > now {
            return None;
        }
        self.due_at = None;
        self.last_change = Some(now);
        self.key_id = self.key_id.next();
        Some(Rotate { key_id: self.key_id, activate_at: now + NOTICE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_changes_the_key_at_once_and_a_silent_group_keeps_its() {
        let mut rotation = GroupRotation::new();
        assert_eq!((rotation.key_id(), rotation.poll_timeout()), (KeyId::FIRST, None));
        assert_eq!(rotation.poll(Micros::from_secs(60)), None);
        rotation.member_left(Micros::from_secs(60));
        let rotate = rotation.poll(Micros::from_secs(60)).expect("due");
        assert_eq!(rotate, Rotate { key_id: KeyId(2), activate_at: Micros::from_millis(60_200) });
        assert_eq!(rotation.poll(Micros::from_secs(90)), None);
    }

    #[test]
    fn however_many_leave_the_key_changes_every_five_seconds_and_none_waits_for_six() {
        let mut rotation = GroupRotation::new();
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for now in (0..60_000).step_by(10).map(Micros::from_millis) {
            if now.0.is_multiple_of(130_000) {
                rotation.member_left(now);
                waiting.push(now);
            }
            if let Some(rotate) = rotation.poll(now) {
                for left in waiting.drain(..) {
                    assert!(rotate.activate_at.since(left) < Micros::from_secs(6));
                }
                changes.push(now);
            }
        }
        assert_eq!(changes.len(), 12);
        assert!(changes.windows(2).all(|pair| pair[1].since(pair[0]) >= INTERVAL));
    }

    #[test]
    fn a_leave_after_a_change_asks_for_another() {
        let mut rotation = GroupRotation::new();
        rotation.member_left(Micros::ZERO);
        rotation.poll(Micros::ZERO).expect("due");
        rotation.member_left(Micros::from_millis(1));
        assert_eq!(rotation.poll_timeout(), Some(INTERVAL));
        rotation.member_left(Micros::from_secs(4));
        assert_eq!(rotation.poll_timeout(), Some(INTERVAL));
    }
}
