//! Publishers and subscribers who send, or say that they will, what the library would keep for as long as they last.

use str0m::{
    media::{Direction, MediaKind, Mid},
    rtp::Extension,
};

use super::{
    super::{PeerError, SOURCES_MAX},
    moving::{self, publishes},
    *,
};

/// RTP of nobody's source, which names a layer by the extension `id`.
fn of_layer(id: u8, name: u8) -> Vec<u8> {
    let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0xbe, 0xde, 0, 1];
    packet.extend([id << 4, name, 0, 0]);
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

    fn undescribed(&mut self, from: SocketAddr, datagram: &[u8]) -> u64 {
        let before = self.peers.stats[PeerCounter::Undescribed];
        self.peers.datagram(self.now, from, datagram, (&self.engine, &mut self.outbox));
        self.peers.stats[PeerCounter::Undescribed] - before
    }
}

#[test]
fn a_publisher_sends_nothing_that_was_not_agreed_upon() {
    let (mut world, anna, mid) = World::published();
    let key = PeerKey { channel: world.channel, stream: ANNA, role: PeerRole::Publisher };
    let peer = world.peers.peer_by_key(key).expect("there");
    let id = |extension| peer.rtc.media(mid).and_then(|media| media.remote_extmap().id_of(extension));
    let naming = [Extension::RtpStreamId, Extension::RepairedRtpStreamId, Extension::TransportSequenceNumber].map(id);
    let [layer, repaired, other] = naming.map(|id| id.expect("whoever shows something offers it"));
    let foreign = 14;
    for (id, dropped) in [(layer, 1), (repaired, 1), (other, 0), (foreign, 1)] {
        assert_eq!(world.undescribed(anna.address(), &of_layer(id, b'x')), dropped, "{id}");
    }
}

#[test]
fn who_only_receives_sends_no_rtp() {
    let mut world = World::connected(&[ANNA]);
    let from = world.listener.address();
    assert_eq!(world.undescribed(from, &of_layer(1, b'x')), 1);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    assert_eq!(world.undescribed(from, &report), 0);
}

#[test]
fn a_connection_has_so_many_sources_and_no_more() {
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
    let most = u32::try_from(SOURCES_MAX).expect("few");
    assert_eq!(offers(0..most / 2), Ok(()));
    assert_eq!(offers(0..most), Ok(()), "half of them are known");
    assert_eq!(offers(most..most + 1), Err(PeerError::SOURCES));
}
