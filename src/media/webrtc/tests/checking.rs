//! Checks of a way that stands.

use std::collections::BTreeSet;

use str0m::{
    crypto::from_feature_flags,
    ice::{StunMessage, TransId},
};

use super::{super::peer::Peer, *};

fn minutes(minutes: u32) -> impl Iterator<Item = u32> {
    0..minutes * 60 * 50
}

impl World {
    /// In which nobody speaks, and the listener has settled.
    fn settled() -> Self {
        let mut world = Self::connected(&[ANNA]);
        (0..10 * 50).for_each(|_| world.pass(STEP));
        assert!(world.peer().checked.is_some());
        world
    }

    fn peer(&mut self) -> &mut Peer {
        let key = self.key();
        self.peers.peer_by_key(key).expect("there")
    }

    /// A check comes from where the listener is, sealed with a password.
    fn check_comes(&mut self, username: &str, password: &str) {
        let hmac = |key: &[u8], parts: &[&[u8]]| from_feature_flags().sha1_hmac_provider.sha1_hmac(key, parts);
        let check = StunMessage::binding_request(username, TransId::new(), true, 5, 6, true);
        let mut bytes = [0; 200];
        let length = check.to_bytes(Some(password.as_bytes()), &mut bytes, hmac).expect("there is room");
        let from = self.listener.address();
        self.peers.datagram(self.now, from, &bytes[..length], (&self.engine, &mut self.outbox));
    }

    fn stands(&mut self) -> bool {
        self.listener.rtc.is_connected() && self.peer().rtc.is_connected()
    }
}

#[test]
fn the_library_hears_of_some_checks_and_others_are_answered_as_well() {
    let mut world = World::settled();
    let before = world.peers.stats[PeerCounter::Sent];
    let mut heard_of = BTreeSet::new();
    for _ in minutes(2) {
        world.pass(STEP);
        heard_of.extend(world.peer().checked.as_ref().map(|check| check.at));
    }
    assert!(world.stands());
    let gaps = heard_of.iter().zip(heard_of.iter().skip(1)).map(|(one, next)| *next - *one);
    assert!(gaps.max().is_some_and(|gap| gap < Duration::from_secs(8)), "as often as it needs");
    // Nothing but answers is sent.
    let answered = world.peers.stats[PeerCounter::Sent] - before;
    assert!((heard_of.len() as u64) < answered, "{} of {answered}", heard_of.len());
}

#[test]
fn checks_that_are_not_authentic_count_for_nothing() {
    let mut world = World::settled();
    let username = world.peer().checked.as_ref().expect("there").username.clone();
    let noted = |world: &mut World| world.peer().checked.as_ref().map(|check| check.at);
    for _ in 0..20 {
        // By now the library hears of the next check, whatever it is like.
        world.now = world.now + Micros::from_secs(5);
        let (before, sent) = (noted(&mut world), world.peers.stats[PeerCounter::Sent]);
        world.check_comes(&username, "not the password of anybody");
        assert_eq!((noted(&mut world), world.peers.stats[PeerCounter::Sent]), (before, sent));
        (0..50).for_each(|_| world.pass(STEP));
    }
    assert!(world.stands());
}

#[test]
fn nothing_is_answered_under_credentials_that_held_before() {
    let mut world = World::settled();
    let before = world.peer().checked.as_ref().map(|check| (check.username.clone(), check.password.clone()));
    let (username, password) = before.expect("there");
    world.subscribe(&[ANNA], true);
    assert!(world.peer().checked.is_none());
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.peer().checked.as_ref().is_some_and(|check| check.username != username), "those that hold now");
    let sent = world.peers.stats[PeerCounter::Sent];
    world.check_comes(&username, &password);
    assert_eq!(world.peers.stats[PeerCounter::Sent], sent);
    assert!(world.stands());
}
