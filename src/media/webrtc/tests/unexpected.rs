//! Publishers and subscribers who send, or say that they will, more sources than the library should keep.

use str0m::media::{Direction, MediaKind, Mid};

use super::{
    super::{PeerError, recent::NEW_MAX},
    moving::{self, publishes},
    *,
};

/// RTP of a source, sealed by nobody.
fn of_source(source: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0];
    packet.extend(source.to_be_bytes());
    packet.extend([0; 40]);
    packet
}

impl World {
    /// In which Anna publishes a picture by a connection that stands.
    fn published() -> (Self, Listener, Mid) {
        let mut world = moving::seeing();
        moving::comes(&mut world);
        let mut anna = Listener::new(world.at(), true);
        let mut mid = None;
        publishes(&mut world, &mut anna, |changes| {
            mid = Some(changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None));
        });
        for _ in 0..1_000 {
            moving::pass_with(&mut world, &mut anna, STEP);
            if anna.connected && world.peers.stats[PeerCounter::Connected] == 2 {
                return (world, anna, mid.expect("added"));
            }
        }
        panic!("never connected")
    }

    /// Whether a datagram is dropped as none that was to be expected.
    fn drops(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let before = self.peers.stats[PeerCounter::Unexpected];
        self.peers.datagram(self.now, from, datagram, (&self.engine, &mut self.outbox));
        self.peers.stats[PeerCounter::Unexpected] > before
    }
}

#[test]
fn a_publisher_begins_so_many_sources_and_no_more_and_shows_what_it_did() {
    let (mut world, mut anna, mid) = World::published();
    let from = anna.address();
    (1..=5).for_each(|picture| moving::shows(&mut world, (&mut anna, mid), picture, picture == 1));
    assert_eq!(moving::seen(&world).len(), 5);
    let dropped = (0..1_000).filter(|source| world.drops(from, &of_source(*source))).count();
    assert_eq!(dropped, 1_000 - NEW_MAX + 1, "the picture is one of them");
    moving::shows(&mut world, (&mut anna, mid), 6, false);
    assert_eq!(moving::seen(&world).len(), 6);
    assert!(world.drops(from, &of_source(5_000)));
    world.now = world.now + Micros::from_secs(2);
    assert!(!world.drops(from, &of_source(5_000)));
}

#[test]
fn who_only_receives_sends_no_rtp() {
    let mut world = World::connected(&[ANNA]);
    let from = world.listener.address();
    assert!(world.drops(from, &of_source(1)));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    assert!(!world.drops(from, &report));
}

#[test]
fn an_offer_with_too_many_new_sources_is_refused_and_the_connection_goes_on() {
    let (mut world, mut anna, mid) = World::published();
    let key = PeerKey { channel: world.channel, stream: ANNA, role: PeerRole::Publisher };
    let mut direction = Direction::SendOnly;
    let mut offers = |sources: std::ops::Range<u32>| {
        direction = if direction == Direction::SendOnly { Direction::Inactive } else { Direction::SendOnly };
        let mut changes = anna.rtc.sdp_api();
        changes.set_direction(mid, direction);
        let (sdp, pending) = changes.apply().expect("something is offered");
        let offer = Described { sdp, candidates: Vec::new(), sources: sources.collect() };
        let (reply, mut replied) = oneshot::channel();
        let (ways, kind) = (Ways::default(), PublishKind::Video);
        world.peers.command(world.now, PeerCommand::Publish { key, ways, offer, kind, reply });
        let answer = replied.try_recv().expect("at once")?;
        let answer = SdpAnswer::from_sdp_string(&answer).expect("an answer");
        anna.rtc.sdp_api().accept_answer(pending, answer).expect("acceptable");
        Ok(())
    };
    let most = u32::try_from(NEW_MAX).expect("few");
    assert_eq!(offers(0..most / 2), Ok(()));
    assert_eq!(offers(0..2 * most), Err(PeerError::SOURCES));
    assert_eq!(offers(0..most), Ok(()), "half of them are known");
}
