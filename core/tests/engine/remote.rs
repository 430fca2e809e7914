//! Members on other nodes: what the relay brings, and what it is given.

use antiphon_core::{
    engine::{Counter, Engine, EngineConfig, Event},
    gateway::Cipher,
    ids::{StreamId, WorkerIndex},
    wire::{
        datagram::DATAGRAM_BYTES_MAX,
        frame::{FrameHeader, FrameKind, LEVEL_SILENCE},
    },
};

use crate::world::{Client, LEVEL, World, channel_id, ms, voice_bytes};

/// A stream of another node.
const REMOTE: StreamId = StreamId(7_777);

fn frame(sequence: u16) -> FrameHeader {
    let timestamp = u32::from(sequence) * 960;
    FrameHeader { stream: REMOTE, sequence, timestamp, kind_flags: FrameKind::Audio as u8, level: LEVEL }
}

fn bring(world: &mut World, header: &FrameHeader) {
    let bytes = voice_bytes(header);
    world.engines[0].remote_frame(world.now, channel_id(1), header, &bytes, &mut world.out[0]);
}

/// A node of one worker with a relay, and so many people in a channel.
fn room(clients: u32) -> (World, Vec<Client>) {
    let mut world = World::new(1, ms(2));
    let config =
        EngineConfig { worker: WorkerIndex(0), hold: ms(2), datagram_bytes_max: DATAGRAM_BYTES_MAX, relayed: true };
    world.engines[0] = Engine::new(config);
    let clients = world.room(0, channel_id(1), clients, Cipher::Aes128Gcm);
    (world, clients)
}

#[test]
fn everyone_here_hears_a_remote_frame_once() {
    let (mut world, clients) = room(3);
    for sequence in [5, 6, 5, 7, 6] {
        bring(&mut world, &frame(sequence));
    }
    world.batch_end();
    let heard = world.heard();
    for client in &clients {
        let sequences: Vec<_> = heard[&client.address].iter().map(|heard| heard.header.sequence).collect();
        assert_eq!(sequences, [5, 6, 7]);
        assert!(heard[&client.address].iter().all(|heard| heard.bytes == voice_bytes(&heard.header)));
        assert_eq!(heard[&client.address][0].bundled, 3, "they share a datagram");
    }
    assert_eq!((world.count(Counter::FramesRemote), world.count(Counter::FrameDuplicate)), (3, 2));
    assert_eq!(world.count(Counter::FramesAccepted), 0, "they were accepted elsewhere");
}

#[test]
fn remote_frames_share_a_datagram_with_those_from_here() {
    let (mut world, mut clients) = room(3);
    bring(&mut world, &frame(0));
    let voice = clients[0].voice();
    world.send(&clients[0], voice);
    world.advance(ms(3));
    let heard = world.heard();
    assert_eq!(heard[&clients[0].address].len(), 1, "without their own");
    assert_eq!(heard[&clients[1].address][0].bundled, 2);
}

#[test]
fn a_remote_talk_spurt_is_told_and_the_stream_then_forgotten() {
    let (mut world, _clients) = room(1);
    let told = |world: &mut World| -> Vec<bool> {
        let events = world.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::Speaking { stream, speaking, .. } => {
                    assert_eq!(stream, REMOTE);
                    Some(speaking)
                }
                _ => None,
            })
            .collect()
    };
    for sequence in 0..20 {
        bring(&mut world, &frame(sequence));
        world.advance(ms(20));
    }
    assert_eq!(told(&mut world), [true]);
    world.advance(ms(299));
    assert_eq!(told(&mut world), [false]);
    let again = FrameHeader { level: LEVEL_SILENCE, ..frame(19) };
    bring(&mut world, &again);
    assert_eq!(world.count(Counter::FrameDuplicate), 1);
    world.advance(ms(20_000));
    assert_eq!(world.poll_timeout(), None, "nothing is left of it");
    bring(&mut world, &again);
    assert_eq!(world.count(Counter::FrameDuplicate), 1, "forgotten");
}

#[test]
fn an_end_that_cannot_be_told_is_told_later() {
    let (mut world, _clients) = room(1);
    bring(&mut world, &frame(0));
    world.events();
    world.out[0].refuse_events = true;
    world.advance(ms(15_000));
    world.out[0].refuse_events = false;
    world.advance(ms(2_000));
    let ended = |event: &Event| matches!(event, Event::Speaking { stream: REMOTE, speaking: false, .. });
    assert_eq!(world.events().iter().filter(|event| ended(event)).count(), 1);
    world.advance(ms(12_000));
    assert_eq!(world.poll_timeout(), None);
}

#[test]
fn members_without_udp_hear_remote_frames_through_the_gateway() {
    let (mut world, _clients) = room(1);
    world.add_member(0, channel_id(1), StreamId(50), None);
    bring(&mut world, &frame(3));
    let tunnelled: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Tunnel { header, bytes, .. } => Some((header, bytes.as_slice().to_vec())),
            _ => None,
        })
        .collect();
    assert_eq!(tunnelled, [(frame(3), voice_bytes(&frame(3)).to_vec())]);
}

#[test]
fn the_streams_of_other_nodes_are_bounded() {
    let (mut world, _clients) = room(1);
    for stream in 0..3_000 {
        bring(&mut world, &FrameHeader { stream: StreamId(10_000 + stream), ..frame(0) });
    }
    assert_eq!((world.count(Counter::FramesRemote), world.count(Counter::FrameRemoteStreams)), (1_024, 1_976));
    world.advance(ms(11_000));
    bring(&mut world, &frame(0));
    assert_eq!(world.count(Counter::FramesRemote), 1_025);
}

/// Somebody moves here from another node, which still forwards what they said there.
#[test]
fn a_member_who_came_from_another_node_does_not_hear_what_they_said_there() {
    let (mut world, mut clients) = room(2);
    let stream = clients[0].stream;
    for sequence in 0..3 {
        bring(&mut world, &FrameHeader { stream, ..frame(sequence) });
    }
    clients[0].sequence = 3;
    let voice = clients[0].voice();
    world.send(&clients[0], voice);
    bring(&mut world, &FrameHeader { stream, ..frame(3) });
    world.advance(ms(3));
    let heard = world.heard();
    assert!(!heard.contains_key(&clients[0].address));
    let sequences: Vec<_> = heard[&clients[1].address].iter().map(|heard| heard.header.sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3]);
}

#[test]
fn the_relay_is_given_what_passes_and_decides_who_is_heard() {
    let (mut world, mut clients) = room(3);
    world.out[0].silenced = vec![clients[1].stream];
    for client in &mut clients[..2] {
        let voice = client.voice();
        let again = voice.clone();
        world.send(client, voice);
        world.send(client, again);
    }
    world.advance(ms(3));
    let relayed: Vec<_> = world.out[0].relayed.iter().map(|(header, _)| header.stream).collect();
    assert_eq!(relayed, [clients[0].stream, clients[1].stream], "each once");
    let heard = world.heard();
    let streams: Vec<_> = heard[&clients[2].address].iter().map(|heard| heard.header.stream).collect();
    assert_eq!(streams, [clients[0].stream]);
    assert_eq!(world.count(Counter::FrameNotSelected), 1);
}

#[test]
fn a_remote_frame_for_a_channel_that_is_not_here_is_counted() {
    let mut world = World::new(1, ms(2));
    bring(&mut world, &frame(0));
    assert_eq!(world.count(Counter::FrameUnknownMember), 1);
}
