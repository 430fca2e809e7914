//! What the control plane is told: talk spurts, traffic, reports.

use antiphon_core::{
    clock::Micros,
    engine::{ChannelTraffic, Command, Counter, Event, MemberFlags},
    gateway::Cipher,
    ids::StreamId,
    wire::{
        control::{REPORT_BLOCK_BYTES, ReportBlock},
        datagram::PacketType,
        frame::FrameKind,
    },
};

use crate::world::{Client, LEVEL, World, channel_id, ms};

const CHANNEL: u128 = 1;

fn room(clients: u32) -> (World, Vec<Client>) {
    let mut world = World::new(1, ms(2));
    let clients = world.room(0, channel_id(CHANNEL), clients, Cipher::Aes128Gcm);
    (world, clients)
}

fn say(world: &mut World, client: &mut Client, kind: FrameKind, level: u8) {
    let header = client.header(kind as u8, level);
    let datagram = client.media(&[(header, &[8])]);
    world.send(client, datagram);
}

/// When who began and stopped speaking, in milliseconds from `start`.
fn spurts(
    world: &mut World,
    start: Micros,
    until_ms: u64,
    mut each_ms: impl FnMut(&mut World, u64),
) -> Vec<(u64, StreamId, bool)> {
    let mut told = Vec::new();
    for now in 0..until_ms {
        world.advance_to(start + ms(now));
        each_ms(world, now);
        told.extend(world.events().into_iter().filter_map(|event| match event {
            Event::Speaking { channel, stream, speaking } => {
                assert_eq!(channel, channel_id(CHANNEL));
                Some((now, stream, speaking))
            }
            _ => None,
        }));
    }
    told
}

#[test]
fn sound_begins_a_spurt_and_quiet_or_a_stop_ends_it() {
    let (mut world, mut clients) = room(2);
    let [one, two] = &mut clients[..] else { panic!("two clients") };
    let (first, second) = (one.stream, two.stream);
    let start = world.now;
    let told = spurts(&mut world, start, 2_000, |world, now| match now {
        100..=500 if now % 20 == 0 => say(world, one, FrameKind::Audio, LEVEL),
        600 => say(world, two, FrameKind::AudioStart, LEVEL),
        620 => say(world, two, FrameKind::Audio, LEVEL),
        640 => say(world, two, FrameKind::AudioStop, 127),
        1_000..=1_200 if now % 20 == 0 => say(world, one, FrameKind::Audio, 127),
        _ => {}
    });
    assert_eq!(told, [(100, first, true), (600, second, true), (640, second, false), (800, first, false)]);
}

#[test]
fn muting_ends_a_spurt() {
    let (mut world, mut clients) = room(2);
    let one = &mut clients[0];
    let stream = one.stream;
    let start = world.now;
    let told = spurts(&mut world, start, 600, |world, now| {
        if now == 200 {
            world.set_flags(0, channel_id(CHANNEL), one, MemberFlags { muted: true, ..Default::default() });
        }
        if now % 20 == 0 {
            say(world, one, FrameKind::Audio, LEVEL);
        }
    });
    assert_eq!(told, [(0, stream, true), (200, stream, false)]);
}

#[test]
fn late_frames_begin_no_spurt() {
    let (mut world, mut clients) = room(2);
    let one = &mut clients[0];
    let late = one.voice();
    say(&mut world, one, FrameKind::AudioStop, 127);
    world.advance(ms(400));
    world.events();
    world.send(one, late);
    assert!(!world.events().iter().any(|event| matches!(event, Event::Speaking { .. })));
}

#[test]
fn traffic_adds_up_second_by_second() {
    let (mut world, mut clients) = room(5);
    for frame in 0..200 {
        // Every tenth frame of the second speaker is lost on its way; every other comes 4 ms late.
        let datagram = clients[0].voice();
        world.send(&clients[0], datagram);
        let late = if frame % 2 == 0 { 4 } else { 8 };
        world.advance(ms(late));
        let datagram = clients[1].voice();
        if frame % 10 != 5 {
            world.send(&clients[1], datagram);
        }
        world.advance(ms(20 - late));
    }
    world.advance(ms(1_000));
    let told: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ChannelTraffic { channel, traffic } => Some((channel, traffic)),
            _ => None,
        })
        .collect();
    assert!((4..=5).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|(channel, _)| *channel == channel_id(CHANNEL)));
    let sum = |part: fn(&ChannelTraffic) -> u64| told.iter().map(|(_, traffic)| part(traffic)).sum::<u64>();
    assert_eq!((sum(|traffic| traffic.frames_in), sum(|traffic| traffic.frames_lost)), (380, 20));
    assert_eq!(sum(|traffic| traffic.bytes_in), 380 * 80);
    assert_eq!(sum(|traffic| traffic.frames_out), 380 * 4);
    assert_eq!(
        sum(|traffic| traffic.bytes_out),
        world.take_sent().iter().map(|(_, datagram)| datagram.len() as u64).sum::<u64>()
    );
    let jitter_us = told[2].1.jitter_us;
    assert!((1_500..2_500).contains(&jitter_us), "the mean of none and of about 4 ms: {jitter_us}");
    assert_eq!(world.count(Counter::FramesLost), 20);
}

#[test]
fn what_each_member_sent_is_told_and_the_rest_when_they_leave() {
    let (mut world, mut clients) = room(3);
    let sent = |events: Vec<Event>, stream: StreamId| {
        let told = events.into_iter().filter_map(|event| match event {
            Event::MemberTraffic { channel, stream: whose, traffic } if whose == stream => Some((channel, traffic)),
            _ => None,
        });
        told.fold((0, 0), |(frames, bytes), (channel, traffic)| {
            assert_eq!(channel, channel_id(CHANNEL));
            (frames + traffic.frames, bytes + traffic.bytes)
        })
    };
    for _ in 0..60 {
        let datagram = clients[0].voice();
        world.send(&clients[0], datagram);
        world.advance(ms(20));
    }
    world.advance(ms(1_000));
    let events = world.events();
    assert_eq!(sent(events.clone(), clients[0].stream), (60, 60 * 80));
    assert_eq!(sent(events, clients[1].stream), (0, 0), "who is silent is not mentioned");
    let datagram = clients[1].voice();
    world.send(&clients[1], datagram);
    world.command(0, Command::RemoveMember { channel: channel_id(CHANNEL), stream: clients[1].stream });
    assert_eq!(sent(world.events(), clients[1].stream), (1, 80));
}

#[test]
fn a_silent_channel_says_nothing() {
    let (mut world, _) = room(5);
    world.advance(ms(10_000));
    assert!(!world.events().iter().any(|event| matches!(event, Event::ChannelTraffic { .. })));
}

#[test]
fn reports_are_passed_on_block_by_block_and_not_too_often() {
    let (mut world, mut clients) = room(2);
    let block = |stream| ReportBlock {
        stream: StreamId(stream),
        lost_fraction: 655,
        round_trip_ms: 40,
        jitter_us: 1_500,
        received: 99,
    };
    let mut plaintext = [0; 2 * REPORT_BLOCK_BYTES];
    for (stream, chunk) in (1..).zip(plaintext.as_chunks_mut().0) {
        block(stream).write(chunk);
    }
    let client = &mut clients[0];
    let reports = [0; 5].map(|_| (client.address, client.seal(PacketType::Report, &plaintext)));
    world.send_all(reports);
    let told: Vec<_> = world
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Report { session, block } => (session, block),
            other => panic!("{other:?}"),
        })
        .collect();
    let datagram = [(client.session, block(1)), (client.session, block(2))];
    assert_eq!(told, [datagram; 4].concat());
    assert_eq!(world.count(Counter::DroppedReportRate), 1);
}
