//! Who hears whose frames, in which datagrams.

use std::collections::HashMap;

use antiphon_core::{
    clock::Micros,
    engine::{Command, Counter, Event, FRAME_BYTES_MAX, GatewayFrame, Hears, KeyBytes, MemberFlags},
    gateway::Cipher,
    ids::{GroupId, KeyId, MediaSessionId, StreamId, WorkerIndex},
    wire::frame::{FrameHeader, FrameKind},
};

use crate::world::{Client, LEVEL, World, channel_id, gateway_voice, ms, streams, voice_bytes};

const HOLD_MS: u64 = 2;

fn world() -> World {
    World::new(1, ms(HOLD_MS))
}

fn frame_of(client: &mut Client) -> (FrameHeader, Vec<u8>) {
    let header = client.header(FrameKind::Audio as u8, LEVEL);
    (header, voice_bytes(&header).to_vec())
}

#[test]
fn a_frame_reaches_everyone_else_unchanged_and_at_once() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 4, Cipher::Aes128Gcm);
    let (header, bytes) = frame_of(&mut clients[0]);
    let datagram = clients[0].media(&[(header, &bytes)]);
    world.send(&clients[0], datagram);
    let heard = world.heard();
    assert_eq!(heard.len(), 3);
    for listener in &clients[1..] {
        let [heard] = &heard[&listener.address][..] else { panic!("one frame") };
        assert_eq!((heard.header, &heard.bytes), (header, &bytes));
    }
    assert_eq!(world.count(Counter::FramesSent), 3);
    assert_eq!(world.count(Counter::DatagramsOfOne), 3);
}

#[test]
fn all_listeners_of_a_cipher_get_the_same_bytes() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 5, Cipher::Aes128Gcm);
    let sealed_before = world.count(Counter::Sealed);
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    let sent = world.take_sent();
    assert_eq!(sent.len(), 4);
    assert!(sent.windows(2).all(|pair| pair[0].1 == pair[1].1));
    assert_eq!(world.count(Counter::Sealed) - sealed_before, 1);
}

#[test]
fn each_cipher_has_a_group_sealed_once() {
    let mut world = world();
    let channel = channel_id(1);
    world.open_channel(0, channel, 0);
    let mut clients: Vec<_> = (1..=6).map(|id| Client::new(id, Cipher::ALL[id as usize % 2])).collect();
    for client in &mut clients {
        world.join(0, channel, client);
        world.connect(client);
    }
    world.clear();
    let sealed_before = world.count(Counter::Sealed);
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    assert_eq!(world.count(Counter::Sealed) - sealed_before, 2);
    let heard = world.heard();
    for listener in &clients[1..] {
        assert_eq!(streams(&heard, listener), [clients[0].stream.0]);
    }
    assert_eq!(heard.get(&clients[0].address), None);
}

#[test]
fn frames_of_one_batch_share_datagrams_and_speakers_get_the_others_frames() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 10, Cipher::Aes128Gcm);
    let batch: Vec<_> = clients[..4].iter_mut().map(|client| (client.address, client.voice())).collect();
    world.send_all(batch);
    assert!(world.take_sent().is_empty(), "several speak: frames wait for others");
    world.advance(ms(HOLD_MS));
    let heard = world.heard();
    let all: Vec<_> = clients[..4].iter().map(|client| client.stream.0).collect();
    for (index, client) in clients.iter().enumerate() {
        let expected: Vec<_> = all.iter().copied().filter(|stream| *stream != client.stream.0).collect();
        assert_eq!(streams(&heard, client), expected, "client {index}");
        assert!(heard[&client.address].iter().all(|heard| heard.bundled == expected.len()));
    }
    assert_eq!(world.count(Counter::DatagramsOfFour), 10, "six of four frames, four of three");
}

#[test]
fn a_lone_speaker_is_not_held() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 10, Cipher::Aes128Gcm);
    for _ in 0..50 {
        let datagram = clients[0].voice();
        world.send(&clients[0], datagram);
        assert_eq!(world.take_sent().len(), 9);
        world.advance(ms(20));
    }
}

#[test]
fn two_people_who_talk_to_each_other_are_not_held() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    for round in 0..50 {
        let datagram = clients[round % 2].voice();
        world.send(&clients[round % 2], datagram);
        assert_eq!(world.take_sent().len(), 1);
        world.advance(ms(10));
    }
}

#[test]
fn held_frames_leave_on_time_and_when_the_datagram_is_full() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 30, Cipher::Aes128Gcm);
    let datagrams: Vec<_> = clients.iter_mut().map(|client| (client.address, client.voice())).collect();
    let start = world.now;
    for datagram in datagrams {
        world.send_all([datagram]);
        world.advance(Micros(50));
    }
    world.advance_to(start + ms(20));
    let sent = world.take_sent();
    assert!(sent.iter().all(|(_, datagram)| datagram.len() <= 1_200));
    assert!(sent.iter().any(|(_, datagram)| datagram.len() > 1_100), "full ones");
    let mut counts = HashMap::new();
    for (to, datagram) in &sent {
        *counts.entry(*to).or_insert(0) += world.open(datagram).len();
    }
    assert!(clients.iter().all(|client| counts[&client.address] == 29), "{counts:?}");
}

#[test]
fn no_frame_waits_longer_than_the_hold() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 8, Cipher::Aes128Gcm);
    let mut sent_at = HashMap::new();
    let mut waits = Vec::new();
    for step in 0..400_u64 {
        let client = &mut clients[(step * 7 % 5) as usize];
        sent_at.insert((client.stream, client.sequence), world.now);
        let datagram = client.voice();
        world.send_all([(client.address, datagram)]);
        for _ in 0..7 {
            let heard: Vec<_> = world.heard().into_values().flatten().collect();
            let came = heard.iter().map(|heard| sent_at[&(heard.header.stream, heard.header.sequence)]);
            assert_eq!(world.engines[0].take_oldest_sent(), came.clone().min(), "the first that left");
            waits.extend(heard.iter().zip(came).map(|(heard, came)| heard.at - came));
            world.advance(Micros(100 + step * 13 % 90));
        }
    }
    assert!(waits.len() > 2_000);
    assert!(waits.iter().all(|wait| *wait <= ms(HOLD_MS) + Micros(200)), "{:?}", waits.iter().max());
}

#[test]
fn only_the_sessions_own_streams_are_accepted() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 3, Cipher::Aes128Gcm);
    let stolen = clients[1].header(FrameKind::Audio as u8, LEVEL);
    let (own, bytes) = frame_of(&mut clients[0]);
    let datagram = clients[0].media(&[(stolen, &[1, 2, 3]), (own, &bytes)]);
    world.send(&clients[0], datagram);
    assert_eq!(streams(&world.heard(), &clients[2]), [clients[0].stream.0]);
    assert_eq!(world.count(Counter::FrameForeignStream), 1);
}

#[test]
fn level_and_priority_are_the_servers_to_say() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    let kind = FrameKind::Audio as u8 | FrameHeader::FLAG_PRIORITY | FrameHeader::FLAG_STEREO;
    let mut flags = Vec::new();
    for priority in [false, true] {
        world.set_flags(0, channel_id(1), &clients[0], MemberFlags { priority, ..Default::default() });
        let header = clients[0].header(kind, 200);
        let mut datagram = clients[0].media(&[(header, &[1])]);
        world.send_all([(clients[0].address, std::mem::take(&mut datagram))]);
        let heard = world.heard();
        let heard = heard[&clients[1].address][0].header;
        flags.push((heard.level, heard.flags()));
    }
    assert_eq!(flags, [(127, FrameHeader::FLAG_STEREO), (127, FrameHeader::FLAG_STEREO | FrameHeader::FLAG_PRIORITY)]);
}

#[test]
fn the_muted_are_not_heard_and_the_deafened_do_not_hear() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 3, Cipher::Aes128Gcm);
    world.set_flags(0, channel, &clients[0], MemberFlags { muted: true, ..Default::default() });
    world.set_flags(0, channel, &clients[1], MemberFlags { deafened: true, ..Default::default() });
    let muted = clients[0].voice();
    world.send(&clients[0], muted);
    assert!(world.take_sent().is_empty());
    let datagram = clients[2].voice();
    world.send(&clients[2], datagram);
    let heard = world.heard();
    assert_eq!((streams(&heard, &clients[0]), streams(&heard, &clients[1])), (vec![clients[2].stream.0], vec![]));
    world.set_flags(0, channel, &clients[0], MemberFlags::default());
    world.set_flags(0, channel, &clients[1], MemberFlags::default());
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    world.advance(ms(HOLD_MS));
    assert_eq!(world.heard().len(), 2);
    assert_eq!(world.count(Counter::FrameMuted), 1);
    assert_eq!(world.count(Counter::FramesLost), 0);
}

#[test]
fn a_limited_channel_forwards_the_loudest() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 5, Cipher::Aes128Gcm);
    world.command(0, Command::SetMaxSpeakers { channel, max_speakers: 1 });
    let mut heard = Vec::new();
    for _ in 0..100 {
        for (client, level) in clients[..3].iter_mut().zip([60, 20, 50]) {
            let header = client.header(FrameKind::Audio as u8, level);
            let datagram = client.media(&[(header, &[1])]);
            world.send_all([(client.address, datagram)]);
        }
        world.advance(ms(20));
        heard = streams(&world.heard(), &clients[4]);
    }
    assert_eq!(heard, [clients[1].stream.0]);
    assert!(world.count(Counter::FrameNotSelected) > 150);
}

#[test]
fn a_speaker_who_is_selected_again_begins_a_spurt() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 3, Cipher::Aes128Gcm);
    world.command(0, Command::SetMaxSpeakers { channel, max_speakers: 1 });
    let (quiet, loud) = (clients[0].stream, clients[1].stream);
    let mut heard = Vec::new();
    for round in 0..150_u32 {
        // The loud one speaks in the middle third.
        let speakers = if (50..100).contains(&round) { 2 } else { 1 };
        for (client, level) in clients[..speakers].iter_mut().zip([50, 20]) {
            let header = client.header(0, level);
            let datagram = client.media(&[(header, &voice_bytes(&header))]);
            let client_address = client.address;
            world.send_all([(client_address, datagram)]);
        }
        world.advance(ms(20));
        for frames in world.heard().remove(&clients[2].address).into_iter() {
            heard.extend(frames.into_iter().map(|frame| frame.header));
        }
    }
    let of_quiet: Vec<_> = heard.iter().filter(|header| header.stream == quiet).collect();
    assert!(heard.iter().any(|header| header.stream == loud), "it took the only place");
    let gaps: Vec<_> = of_quiet.windows(2).filter(|pair| pair[1].sequence != pair[0].sequence + 1).collect();
    assert!(!gaps.is_empty(), "some of the quiet one's frames were kept back");
    for header in &of_quiet {
        let after_gap = gaps.iter().any(|pair| pair[1].sequence == header.sequence);
        assert_eq!(header.kind() == Some(FrameKind::AudioStart), after_gap, "{header:?}");
    }
}

#[test]
fn leaving_members_hear_nothing_more_and_the_others_everything() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 6, Cipher::Aes128Gcm);
    for gone in [3, 1, 3] {
        let client = clients.remove(gone);
        world.command(0, Command::RemoveMember { channel, stream: client.stream });
        let datagram = clients[0].voice();
        world.send(&clients[0], datagram);
        let heard = world.heard();
        assert_eq!(heard.len(), clients.len() - 1);
        assert!(clients[1..].iter().all(|client| streams(&heard, client) == [clients[0].stream.0]));
    }
}

#[test]
fn a_key_is_used_from_its_time_on() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 2, Cipher::Aes128Gcm);
    let activate_at = world.now + ms(200);
    world.set_group_key(0, channel, Cipher::Aes128Gcm, KeyId(2), activate_at);
    let mut keys = Vec::new();
    for _ in 0..20 {
        let datagram = clients[0].voice();
        world.send(&clients[0], datagram);
        keys.extend(world.heard()[&clients[1].address].iter().map(|heard| heard.key_id.0));
        world.advance(ms(20));
    }
    assert_eq!(keys, [[1; 10], [2; 10]].concat());
}

#[test]
fn a_session_in_a_channel_of_another_worker_is_heard_and_hears() {
    let mut world = World::new(2, ms(HOLD_MS));
    let (here, there) = (channel_id(1), channel_id(2));
    let mut local = world.room(1, there, 2, Cipher::Aes128Gcm);
    world.open_channel(0, here, 0);
    let mut guest = Client::new(200, Cipher::Aes128Gcm);
    world.join(0, here, &guest);
    world.connect(&mut guest);
    // The same session joins the other worker's channel with a stream of its own.
    let mut second = Client::new(200, Cipher::Aes128Gcm);
    second.stream = StreamId(77);
    world.add_member(1, there, second.stream, Some(world.member_udp(&second)));
    world.attach(1, there, &second);
    world.clear();

    let header = FrameHeader { stream: second.stream, ..guest.header(0, LEVEL) };
    let datagram = guest.media(&[(header, &[1])]);
    world.send(&guest, datagram);
    let heard = world.heard();
    assert!(local.iter().all(|client| streams(&heard, client) == [77]));
    let datagram = local[0].voice();
    world.send(&local[0], datagram);
    world.advance(ms(HOLD_MS));
    assert_eq!(streams(&world.heard(), &guest), [local[0].stream.0]);
    assert_eq!(world.count(Counter::FramesHandedOver), 1);
    assert_eq!(world.member_udp(&guest).worker, WorkerIndex(0));
}

#[test]
fn frames_without_udp_reach_udp_members_numbered() {
    let mut world = world();
    let channel = channel_id(1);
    let clients = world.room(0, channel, 2, Cipher::Aes128Gcm);
    let web = StreamId(99);
    world.add_member(0, channel, web, None);
    for _ in 0..3 {
        let frame = GatewayFrame { sequence: None, timestamp: None, ..gateway_voice(0) };
        world.gateway_frame(0, channel, web, frame);
        world.advance(ms(20));
    }
    let heard = world.heard();
    let frames: Vec<_> = heard[&clients[0].address].iter().map(|heard| heard.header).collect();
    assert!(
        frames
            .windows(2)
            .all(|pair| { pair[1].sequence == pair[0].sequence + 1 && pair[1].timestamp == pair[0].timestamp + 960 })
    );
    assert_eq!(frames.len(), 3);
}

#[test]
fn members_without_udp_hear_through_the_gateway() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 2, Cipher::Aes128Gcm);
    let web = StreamId(99);
    world.add_member(0, channel, web, None);
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    let tunnelled =
        |world: &mut World| world.events().into_iter().filter(|event| matches!(event, Event::Tunnel { .. })).count();
    assert_eq!(tunnelled(&mut world), 1);
    world.gateway_frame(0, channel, web, gateway_voice(0));
    assert_eq!(tunnelled(&mut world), 0, "nobody but the speaker needs it");
    world.command(0, Command::RemoveMember { channel, stream: web });
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    assert_eq!(tunnelled(&mut world), 0);
}

#[test]
fn a_long_frame_travels_alone() {
    let mut world = world();
    let mut clients = world.room(0, channel_id(1), 4, Cipher::Aes128Gcm);
    let long = vec![5; FRAME_BYTES_MAX];
    let header = clients[0].header(0, LEVEL);
    let long = clients[0].media(&[(header, &long)]);
    let short = clients[1].voice();
    world.send_all([(clients[0].address, long), (clients[1].address, short)]);
    world.advance(ms(HOLD_MS));
    let heard = world.heard();
    let lengths: Vec<_> =
        heard[&clients[3].address].iter().map(|heard| (heard.bundled, heard.datagram_bytes)).collect();
    assert_eq!(lengths, [(1, 1_500), (1, 126)]);
}

#[test]
fn closing_a_channel_ends_it() {
    let mut world = world();
    let channel = channel_id(1);
    let mut clients = world.room(0, channel, 3, Cipher::Aes128Gcm);
    world.command(0, Command::CloseChannel { channel });
    let datagram = clients[0].voice();
    world.send(&clients[0], datagram);
    assert!(world.take_sent().is_empty());
    assert_eq!(world.count(Counter::FrameUnknownMember), 1);
    assert_eq!((world.count(Counter::ChannelsOpen), world.count(Counter::MembersPresent)), (0, 0));
}

#[test]
fn frames_for_a_worker_that_cannot_keep_up_are_counted() {
    let mut world = World::new(2, ms(HOLD_MS));
    let mut local = world.room(1, channel_id(1), 2, Cipher::Aes128Gcm);
    let mut guest = Client::new(200, Cipher::Aes128Gcm);
    world.join(1, channel_id(1), &guest);
    world.connect(&mut guest);
    world.out[0].refuse_handovers = true;
    let voice = guest.voice();
    world.send(&guest, voice);
    assert_eq!((world.count(Counter::FrameWorkerBusy), world.count(Counter::FramesHandedOver)), (1, 0));
    let voice = local[0].voice();
    world.send(&local[0], voice);
    assert_eq!(world.count(Counter::FramesAccepted), 1);
}

#[test]
fn a_group_without_a_key_sends_nothing() {
    let mut world = world();
    world.command(0, Command::OpenChannel { channel: channel_id(1), max_speakers: 0 });
    let mut clients = [1, 2].map(|id| Client::new(id, Cipher::Aes128Gcm));
    for client in &mut clients {
        world.join(0, channel_id(1), client);
        world.connect(client);
    }
    let voice = clients[0].voice();
    world.send(&clients[0], voice);
    assert!(world.take_sent().is_empty());
    assert_eq!(world.count(Counter::FrameNoGroupKey), 1);
}

#[test]
fn commands_about_what_does_not_exist_do_nothing_and_are_counted() {
    let mut world = world();
    let (channel, stream, session) = (channel_id(1), StreamId(1), MediaSessionId(1));
    let flags = MemberFlags::default();
    let (cipher, key) = (Cipher::Aes128Gcm, KeyBytes(vec![0; 15]));
    let (group, key_id, activate_at) = (GroupId(1), KeyId::FIRST, world.now);
    let refused = [
        Command::AddSession { session, cipher, key: key.clone() },
        Command::AttachStream { session, stream, channel, home: WorkerIndex(0) },
        Command::SetMaxSpeakers { channel, max_speakers: 1 },
        Command::SetGroupKey { channel, group, cipher, key_id, key, activate_at },
        Command::AddMember { channel, stream, udp: None, hears: Hears::Streams, flags, last_sequence: None },
        Command::SetMemberFlags { channel, stream, flags },
        Command::SetMemberUdp { channel, stream, udp: None },
    ];
    for (count, command) in (1..).zip(refused) {
        world.command(0, command);
        assert_eq!(world.count(Counter::CommandsRefused), count);
    }
    for gone in [
        Command::RemoveSession { session },
        Command::DetachStream { session, stream },
        Command::RemoveMember { channel, stream },
        Command::CloseChannel { channel },
    ] {
        world.command(0, gone);
    }
    assert_eq!(world.count(Counter::CommandsRefused), 7, "to remove what is gone is no error");
    world.gateway_frame(0, channel, stream, gateway_voice(0));
    assert_eq!(world.count(Counter::FrameUnknownMember), 1);
}
