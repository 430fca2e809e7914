//! Members by WebRTC: what the engine takes from them, and what it gives them.

use antiphon_core::{
    engine::{Command, Counter, Event, Hears, MemberFlags},
    gateway::Cipher,
    ids::StreamId,
    wire::frame::{FrameHeader, FrameKind},
};

use crate::world::{LEVEL, World, channel_id, ms, streams, voice_bytes};

fn add(world: &mut World, stream: u32) {
    let (channel, flags) = (channel_id(1), MemberFlags::default());
    world.command(
        0,
        Command::AddMember {
            channel,
            stream: StreamId(stream),
            udp: None,
            hears: Hears::Peer,
            flags,
            last_sequence: Some(41),
        },
    );
}

fn set(world: &mut World, stream: u32, flags: MemberFlags) {
    world.command(0, Command::SetMemberFlags { channel: channel_id(1), stream: StreamId(stream), flags });
}

/// They say a frame, numbered as the engine says.
fn say(world: &mut World, stream: u32) {
    let (now, channel) = (world.now, channel_id(1));
    let sequence = world.engines[0].next_sequence(channel, StreamId(stream)).expect("a member");
    let header = FrameHeader { stream: StreamId(stream), sequence, timestamp: 0, kind_flags: 0, level: LEVEL };
    world.engines[0].peer_frame(now, channel, header, &voice_bytes(&header), &mut world.out[0]);
    world.batch_end();
}

#[test]
fn native_members_and_those_by_webrtc_hear_each_other_and_nobody_themselves() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    add(&mut world, 900);
    add(&mut world, 901);
    world.clear();
    say(&mut world, 900);
    let given: Vec<_> =
        world.out[0].given_to_peers.drain(..).map(|(header, _)| (header.stream.0, header.sequence)).collect();
    assert_eq!(given, [(900, 42)], "for the other one, going on from what was known");
    let heard = world.heard();
    assert!(clients.iter().all(|client| streams(&heard, client) == [900]), "{heard:?}");

    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    world.batch_end();
    let given: Vec<_> = world.out[0].given_to_peers.drain(..).map(|(header, _)| header.stream).collect();
    assert_eq!(given, [clients[0].stream]);
    assert_eq!(world.count(Counter::FramesToPeers), 1 + 2, "each listener of each frame");
    assert_eq!(world.count(Counter::FramesTunnelled), 0);
    assert!(!world.events().iter().any(|event| matches!(event, Event::Tunnel { .. })), "no way over the gateway");
}

#[test]
fn a_muted_one_is_not_heard_and_a_deafened_one_hears_nothing() {
    let mut world = World::new(1, ms(0));
    world.open_channel(0, channel_id(1), 0);
    add(&mut world, 900);
    add(&mut world, 901);
    set(&mut world, 900, MemberFlags { muted: true, ..MemberFlags::default() });
    say(&mut world, 900);
    assert!(world.out[0].given_to_peers.is_empty());
    set(&mut world, 900, MemberFlags { deafened: true, ..MemberFlags::default() });
    say(&mut world, 901);
    assert!(world.out[0].given_to_peers.is_empty(), "the only other one hears nothing");
    say(&mut world, 900);
    assert_eq!(world.out[0].given_to_peers.len(), 1);
    world.command(0, Command::RemoveMember { channel: channel_id(1), stream: StreamId(901) });
    say(&mut world, 900);
    assert_eq!(world.out[0].given_to_peers.len(), 1, "nobody is left to hear it");
}

#[test]
fn browsers_get_what_they_can_play_and_the_others_get_all() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    add(&mut world, 900);
    world.clear();
    // RFC 2198: a frame of 960 samples before, of two bytes, and the newest.
    let redundant = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3, 4, 5];
    let (secret, both) = (FrameHeader::FLAG_ENCRYPTED, FrameHeader::FLAG_REDUNDANT);
    let nothing = [].as_slice();
    let said = [
        (0, [9; 8].as_slice(), [9; 8].as_slice()),
        (secret, &[7; 8], nothing),
        (secret | both, &redundant, nothing),
        (both, &redundant, &[3, 4, 5]),
        (both, &redundant[..4], nothing),
    ];
    for (flags, bytes, expected) in said {
        let header = clients[0].header(FrameKind::Audio as u8 | flags, LEVEL);
        let datagram = clients[0].media(&[(header, bytes)]);
        world.send(&clients[0], datagram);
        world.batch_end();
        let given: Vec<_> =
            world.out[0].given_to_peers.drain(..).map(|(header, given)| (header.kind_flags, given)).collect();
        let expected = (!expected.is_empty()).then(|| (FrameKind::Audio as u8, expected.to_vec()));
        assert_eq!(given, expected.into_iter().collect::<Vec<_>>());
        let heard = world.heard();
        assert_eq!(streams(&heard, &clients[1]), [clients[0].stream.0], "native members share the key");
    }
    assert_eq!(world.count(Counter::FramePeersEncrypted), 2);
    assert_eq!(world.count(Counter::FramePeersMalformed), 1);
    assert_eq!(world.count(Counter::FramesToPeers), 2);
    // The end of a spurt has no bytes, whatever its flags say.
    let header = clients[0].header(FrameKind::AudioStop as u8 | both, LEVEL);
    let datagram = clients[0].media(&[(header, &[])]);
    world.send(&clients[0], datagram);
    assert_eq!(world.out[0].given_to_peers.len(), 1);
}
