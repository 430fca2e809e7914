//! Checks of a way that stands.

use std::collections::BTreeSet;

use str0m::{
    crypto::from_feature_flags,
    ice::{StunMessage, TransId},
};

use super::{
    super::{PeerDatagram, peer::Peer, recent::NEW_MAX},
    *,
};

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
        self.check_comes_from(self.listener.address(), (username, password), true);
    }

    fn check_comes_from(&mut self, from: SocketAddr, (username, password): (&str, &str), nominates: bool) {
        let hmac = |key: &[u8], parts: &[&[u8]]| from_feature_flags().sha1_hmac_provider.sha1_hmac(key, parts);
        let check = StunMessage::binding_request(username, TransId::new(), true, 5, 6, nominates);
        let mut bytes = [0; 200];
        let length = check.to_bytes(Some(password.as_bytes()), &mut bytes, hmac).expect("there is room");
        self.peers.datagram(self.now, from, &bytes[..length], (&self.engine, &mut self.outbox));
    }

    /// What the listener's checks name, and are sealed with.
    fn credentials(&mut self) -> (String, String) {
        let checked = self.peer().checked.as_ref().expect("there");
        (checked.username.clone(), checked.password.clone())
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
    let (username, _) = world.credentials();
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
    let (username, password) = world.credentials();
    world.subscribe(&[ANNA], true);
    assert!(world.peer().checked.is_none());
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.peer().checked.as_ref().is_some_and(|check| check.username != username), "those that hold now");
    let sent = world.peers.stats[PeerCounter::Sent];
    world.check_comes(&username, &password);
    assert_eq!(world.peers.stats[PeerCounter::Sent], sent);
    assert!(world.stands());
}

/// The library would keep and sort a pair for each, and the node all of their addresses.
#[test]
fn a_client_is_heard_at_so_many_addresses_and_no_more() {
    let mut world = World::settled();
    let (username, password) = world.credentials();
    // All that it came by may be as long ago as none.
    (0..60 * 50).for_each(|_| world.pass(STEP));
    for port in 1..=1_000 {
        world.check_comes_from(([192, 0, 2, 1], port).into(), (&username, &password), false);
    }
    assert_eq!(world.peers.stats[PeerCounter::TooManyAddresses] as usize, 1_000 - NEW_MAX);
    assert_eq!(world.peers.by_address.len(), 1 + NEW_MAX);
    let ssrc = world.ssrc_of(ANNA);
    (0..10 * 50).for_each(|number| world.speaks(ANNA, number));
    assert_eq!(world.listener.numbers(ssrc).len(), 10 * 50);
    assert!(world.stands());
}

#[test]
fn where_two_were_heard_the_next_check_says_who_is_there() {
    let mut world = World::settled();
    let (username, password) = world.credentials();
    let from = (Protocol::Udp, world.listener.address());
    let key = world.key();
    let number = world.peers.by_key[&key];
    world.check_comes(&username, &password);
    world.peers.by_address.insert(from, number + 1);
    world.check_comes(&username, &password);
    assert_eq!(world.peers.by_address.get(&from), Some(&number));
    world.peers.by_address.insert(from, number + 1);
    world.peers.forget_address(number, from);
    assert_eq!(world.peers.by_address.get(&from), Some(&(number + 1)), "it is another's");
}

#[test]
fn who_was_heard_last_has_an_address_be_it_in_another_worker() {
    let mut world = World::settled();
    let (username, password) = world.credentials();
    let from = (Protocol::Udp, world.listener.address());
    let told = PeerDatagram::IsAt { address: from, worker: WorkerIndex(1) };
    world.peers.handed_over(world.now, &told, (&world.engine, &mut world.outbox));
    let unknown = world.peers.stats[PeerCounter::Unknown];
    world.peers.datagram(world.now, from.1, &[22; 40], (&world.engine, &mut world.outbox));
    assert_eq!(world.peers.stats[PeerCounter::Unknown], unknown + 1, "there is no such worker in this world");
    world.check_comes(&username, &password);
    assert!(world.peers.by_address.contains_key(&from));
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.stands());
}

#[test]
fn of_new_ways_that_nobody_answers_the_last_is_known() {
    let mut world = World::settled();
    let (former, wishes) = (world.fragment(), world.wishes(&[ANNA]));
    for _ in 0..5 {
        world.offered(wishes.clone(), true);
        assert_eq!((world.peers.by_fragment.len(), world.peer().fragments.len()), (2, 2));
        assert!(world.peers.by_fragment.contains_key(&former), "it holds until one is answered");
    }
    world.subscribe(&[ANNA], true);
    assert_eq!((world.peers.by_fragment.len(), world.peer().fragments.len()), (1, 1));
    assert_ne!(world.fragment(), former);
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.stands());
}

/// Its client has not seen the offer of a new way yet: it goes on by the one that it has, under the name that it has.
#[test]
fn an_answer_to_the_offer_before_begins_no_new_way() {
    let mut world = World::settled();
    let former = world.fragment();
    let (first, _) = world.offered(Vec::new(), false);
    world.offered(Vec::new(), true);
    assert_eq!(world.peers.by_fragment.len(), 2);
    world.answers(&first);
    assert_eq!((world.fragment(), world.peers.by_fragment.len(), world.peer().fragments.len()), (former, 1, 1));
    let before = world.at();
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.stands() && world.peer().checked.as_ref().is_some_and(|check| check.at > before));
}
