//! Checks of a way that stands.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_library_hears_of_some_checks_and_all_are_answered() {
    let mut world = World::connected(&[ANNA]);
    let key = world.key();
    let mut heard_of = BTreeSet::new();
    (0..10 * 50).for_each(|_| world.pass(STEP));
    let before = world.peers.stats[PeerCounter::Taken];
    for _ in 0..120 * 50 {
        world.pass(STEP);
        heard_of.extend(world.peers.peer_by_key(key).expect("there").checked.as_ref().map(|check| check.at));
    }
    // A client whose checks are not answered finds another way, or none.
    assert!(world.listener.rtc.is_connected());
    assert_eq!(world.peers.stats[PeerCounter::Lost], 0);
    let taken = world.peers.stats[PeerCounter::Taken] - before;
    let gaps = heard_of.iter().zip(heard_of.iter().skip(1)).map(|(one, next)| *next - *one);
    assert!(gaps.max().is_some_and(|gap| gap < Duration::from_secs(10)), "as often as it needs");
    assert!((heard_of.len() as u64) < taken, "{} of {taken}", heard_of.len());
}

#[test]
fn nothing_is_answered_under_credentials_that_held_before() {
    let mut world = World::connected(&[ANNA]);
    let key = world.key();
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.peers.peer_by_key(key).expect("there").checked.is_some());
    world.subscribe(&[ANNA], true);
    assert!(world.peers.peer_by_key(key).expect("there").checked.is_none());
    (0..10 * 50).for_each(|_| world.pass(STEP));
    assert!(world.peers.peer_by_key(key).expect("there").checked.is_some(), "those that hold now");
    assert!(world.listener.rtc.is_connected());
}
