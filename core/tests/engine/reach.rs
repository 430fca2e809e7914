//! Binding, proof of UDP in each direction, roaming, resuming: who is reached where, and that nobody falls between.

use std::collections::HashSet;

use antiphon_core::{
    clock::Micros,
    engine::{Command, Counter, Event, MemberFlags},
    gateway::Cipher,
    ids::StreamId,
    prng::Prng,
    wire::datagram::PacketType,
};

use crate::world::{Client, World, address, channel_id, gateway_voice, ms, streams};

const CHANNEL: u128 = 1;

/// A speaker who is heard over UDP, and a listener who has joined and done nothing yet.
fn speaker_and_listener() -> (World, Client, Client) {
    let mut world = World::new(1, ms(2));
    let mut speaker = world.room(0, channel_id(CHANNEL), 1, Cipher::Aes128Gcm).remove(0);
    let listener = Client::new(50, Cipher::Aes128Gcm);
    world.join(0, channel_id(CHANNEL), &listener);
    world.clear();
    speaker.sequence = 100;
    (world, speaker, listener)
}

fn speak(world: &mut World, speaker: &mut Client) {
    let datagram = speaker.voice();
    world.send(speaker, datagram);
}

/// How one frame of the speaker's reached the listener: over UDP, through the gateway.
fn ways(world: &mut World, speaker: &mut Client, listener: &Client) -> (usize, usize) {
    world.clear();
    speak(world, speaker);
    world.advance(ms(2));
    let tunnelled = world.events().iter().filter(|event| matches!(event, Event::Tunnel { .. })).count();
    (streams(&world.heard(), listener).len(), tunnelled)
}

fn proven_events(world: &mut World, listener: &Client) -> Vec<bool> {
    let events = world.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Proven { session, proven } if session == listener.session => Some(proven),
            _ => None,
        })
        .collect()
}

#[test]
fn a_bind_is_answered_with_clocks_and_the_address_seen() {
    let mut world = World::new(1, ms(2));
    for (id, from) in [(1, "192.0.2.9:700"), (2, "[2001:db8::9]:700"), (3, "[::ffff:192.0.2.9]:700")] {
        let mut client = Client::new(id, Cipher::ALL[id as usize % 2]);
        client.address = from.parse().expect("an address");
        world.add_session(&client);
        let bind = client.bind(Micros(1_234));
        let asked = bind.len();
        world.send(&client, bind);
        let (_, answer) = world.out[0].sent.front().expect("answered");
        assert!(answer.len() <= 3 * asked);
        let [(packet_type, answer)] = world.take_answers(&mut client)[..] else { panic!("one answer") };
        assert_eq!(
            (packet_type, answer.client_clock, answer.node_clock),
            (PacketType::BindAck, Micros(1_234), world.now)
        );
        assert_eq!((answer.address.ip(), answer.address.port()), (client.address.ip().to_canonical(), 700));
        let bound = Event::Bound { session: client.session, address: answer.address };
        assert_eq!(format!("{:?}", world.events()), format!("{:?}", [bound]));
    }
}

#[test]
fn nothing_is_accepted_before_the_first_bind() {
    let mut world = World::new(1, ms(2));
    world.open_channel(0, channel_id(CHANNEL), 0);
    let mut client = Client::new(1, Cipher::Aes128Gcm);
    world.join(0, channel_id(CHANNEL), &client);
    let (voice, ping) = (client.voice(), client.ping(world.now));
    world.send_all([(client.address, voice), (client.address, ping)]);
    assert!(world.take_sent().is_empty());
    assert_eq!((world.count(Counter::DroppedNotBound), world.count(Counter::FramesAccepted)), (2, 0));
}

#[test]
fn a_member_hears_through_the_gateway_until_a_ping_echoes_the_answers_clock() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1), "joined");
    let bind = listener.bind(world.now);
    world.send(&listener, bind);
    world.take_answers(&mut listener);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1), "bound");
    let ping = listener.ping(world.now);
    world.send(&listener, ping);
    assert_eq!(proven_events(&mut world, &listener), [true]);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0), "proven");
}

#[test]
fn a_ping_that_echoes_what_was_not_sent_proves_nothing() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    let bind = listener.bind(world.now);
    world.send(&listener, bind);
    world.take_answers(&mut listener);
    for wrong in [Micros::ZERO, world.now + Micros(1), world.now - Micros(1)] {
        listener.node_clock = wrong;
        let ping = listener.ping(world.now);
        world.send(&listener, ping);
    }
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
}

#[test]
fn a_proof_lapses_after_fifteen_seconds_and_is_renewed_by_pings() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    world.connect(&mut listener);
    let start = world.now;
    for second in (5..60).step_by(5) {
        world.advance_to(start + Micros::from_secs(second));
        let ping = listener.ping(world.now);
        world.send(&listener, ping);
        world.take_answers(&mut listener);
    }
    assert_eq!(proven_events(&mut world, &listener), [true], "and no other");
    // The last echo was of the answer five seconds before it.
    let lapse = start + Micros::from_secs(55 - 5 + 15);
    world.advance_to(lapse - ms(10));
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0));
    world.advance_to(lapse - Micros(1));
    assert_eq!(proven_events(&mut world, &listener), [] as [bool; 0]);
    world.advance_to(lapse);
    assert_eq!(proven_events(&mut world, &listener), [false]);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
    assert_eq!(world.count(Counter::SessionsProven), 0);
}

#[test]
fn a_new_bind_or_a_frame_over_the_gateway_ends_the_proof_at_once() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    world.connect(&mut listener);
    for over_gateway in [false, true] {
        assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0));
        world.clear();
        let before = listener.node_clock;
        if over_gateway {
            world.gateway_frame(0, channel_id(CHANNEL), listener.stream, gateway_voice(listener.sequence));
            listener.sequence += 1;
        } else {
            let bind = listener.bind(world.now);
            world.send(&listener, bind);
        }
        assert_eq!(proven_events(&mut world, &listener), [false]);
        assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
        let stale = listener.ping(world.now);
        assert_eq!(listener.node_clock, before);
        world.send(&listener, stale);
        assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1), "a clock from before proves nothing");
        world.advance(ms(500));
        let ping = listener.ping(world.now);
        world.send(&listener, ping);
        world.take_answers(&mut listener);
        let fresh = listener.ping(world.now);
        world.send(&listener, fresh);
        world.take_answers(&mut listener);
        assert_eq!(proven_events(&mut world, &listener), [true]);
    }
}

#[test]
fn the_newest_authentic_datagram_moves_a_session_and_nothing_else_does() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    world.connect(&mut listener);
    let (home, away) = (listener.address, address(999));
    let (old, new) = (listener.ping(world.now), listener.ping(world.now));
    let mut forged = new.clone();
    forged[20] ^= 1;
    world.send_all([(away, forged)]);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0));
    world.send_all([(away, new)]);
    listener.address = away;
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0), "moved at once");
    world.send_all([(home, old)]);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0), "an older one moves nothing");
    assert_eq!(proven_events(&mut world, &listener), [] as [bool; 0]);
}

#[test]
fn what_is_heard_while_deafened_is_nothing_either_way() {
    let (mut world, mut speaker, listener) = speaker_and_listener();
    world.set_flags(0, channel_id(CHANNEL), &listener, MemberFlags { deafened: true, ..Default::default() });
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 0));
}

#[test]
fn a_resumed_session_takes_over_and_the_old_one_works_until_then() {
    let (mut world, mut speaker, mut old) = speaker_and_listener();
    world.connect(&mut old);
    let mut new = Client::new(60, Cipher::ChaCha20Poly1305);
    new.stream = old.stream;
    world.add_session(&new);
    let udp = Some(world.member_udp(&new));
    world.command(0, Command::SetMemberUdp { channel: channel_id(CHANNEL), stream: old.stream, udp });
    world.attach(0, channel_id(CHANNEL), &new);
    assert_eq!(ways(&mut world, &mut speaker, &old), (1, 1), "the old one, and the gateway in case it is gone");
    let voice = old.voice();
    world.send(&old, voice);
    world.advance(ms(2));
    assert_eq!(streams(&world.heard(), &speaker), [old.stream.0]);

    let bind = new.bind(world.now);
    world.send(&new, bind);
    world.take_answers(&mut new);
    let late = old.voice();
    world.send(&old, late);
    assert_eq!(world.count(Counter::DroppedUnknownSession), 1, "the old session ended with the bind");
    assert_eq!(ways(&mut world, &mut speaker, &old), (1, 1), "until the new one is proven it is still sent to");
    let ping = new.ping(world.now);
    world.send(&new, ping);
    world.take_answers(&mut new);
    assert_eq!(ways(&mut world, &mut speaker, &new), (1, 0), "in the other cipher's group");
    new.sequence = old.sequence;
    let voice = new.voice();
    world.send(&new, voice);
    world.advance(ms(2));
    let heard = world.heard();
    assert_eq!((streams(&heard, &speaker).len(), streams(&heard, &old).len()), (1, 0));
}

#[test]
fn an_old_session_ends_after_five_seconds_even_when_the_new_one_never_binds() {
    let (mut world, mut speaker, mut old) = speaker_and_listener();
    world.connect(&mut old);
    let new = Client::new(60, Cipher::Aes128Gcm);
    let udp = Some(world.member_udp(&new));
    world.command(0, Command::SetMemberUdp { channel: channel_id(CHANNEL), stream: old.stream, udp });
    world.advance(Micros::from_secs(5) - Micros(1));
    assert_eq!(ways(&mut world, &mut speaker, &old), (1, 1));
    world.advance(ms(1));
    assert_eq!(ways(&mut world, &mut speaker, &old), (0, 1));
    let voice = old.voice();
    world.send(&old, voice);
    assert_eq!(world.count(Counter::DroppedUnknownSession), 1);
}

#[test]
fn a_removed_session_hears_and_says_nothing_more() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    world.connect(&mut listener);
    world.command(0, Command::RemoveSession { session: listener.session });
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
    let voice = listener.voice();
    world.send(&listener, voice);
    assert_eq!(world.count(Counter::DroppedUnknownSession), 1);
    assert_eq!((world.count(Counter::SessionsOpen), world.count(Counter::SessionsProven)), (1, 1));
}

#[test]
fn what_the_control_plane_had_no_room_for_is_told_again() {
    let (mut world, mut speaker, mut listener) = speaker_and_listener();
    world.out[0].refuse_events = true;
    world.connect(&mut listener);
    speak(&mut world, &mut speaker);
    world.advance(ms(250));
    assert!(world.count(Counter::EventsDelayed) > 2);
    world.out[0].refuse_events = false;
    for _ in 0..40 {
        speak(&mut world, &mut speaker);
        world.advance(ms(20));
    }
    let events = world.events();
    assert!(events.iter().any(|event| matches!(event, Event::Proven { proven: true, .. })));
    assert!(events.iter().any(|event| matches!(event, Event::Speaking { speaking: true, .. })));
    world.advance(ms(2_000));
    let traffic: u64 = events
        .into_iter()
        .chain(world.events())
        .filter_map(|event| match event {
            Event::ChannelTraffic { traffic, .. } => Some(traffic.frames_in),
            _ => None,
        })
        .sum();
    assert_eq!(traffic, 41, "nothing is missing from the sum");
}

/// A session of worker 0 in a channel of worker 1.
fn across_workers() -> (World, Client, Client) {
    let mut world = World::new(2, ms(2));
    let speaker = world.room(1, channel_id(CHANNEL), 1, Cipher::Aes128Gcm).remove(0);
    let listener = Client::new(50, Cipher::Aes128Gcm);
    world.join(1, channel_id(CHANNEL), &listener);
    world.clear();
    (world, speaker, listener)
}

#[test]
fn reach_refused_by_another_worker_is_told_again() {
    let (mut world, mut speaker, mut listener) = across_workers();
    world.out[0].refuse_handovers = true;
    world.connect(&mut listener);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
    world.out[0].refuse_handovers = false;
    world.advance(ms(100));
    assert_eq!(ways(&mut world, &mut speaker, &listener), (1, 0));
}

#[test]
fn a_frame_over_the_gateway_ends_the_proof_in_another_worker() {
    let (mut world, mut speaker, mut listener) = across_workers();
    world.connect(&mut listener);
    world.advance(ms(100));
    assert_eq!(proven_events(&mut world, &listener), [true]);
    world.gateway_frame(1, channel_id(CHANNEL), listener.stream, gateway_voice(0));
    assert_eq!(proven_events(&mut world, &listener), [false]);
    assert_eq!(ways(&mut world, &mut speaker, &listener), (0, 1));
}

#[test]
fn an_old_session_of_another_worker_is_dropped_too() {
    let (mut world, _, mut old) = across_workers();
    world.connect(&mut old);
    let mut new = Client::new(61, Cipher::Aes128Gcm);
    new.stream = old.stream;
    world.add_session(&new);
    let udp = Some(world.member_udp(&new));
    world.command(1, Command::SetMemberUdp { channel: channel_id(CHANNEL), stream: old.stream, udp });
    world.attach(1, channel_id(CHANNEL), &new);
    world.connect(&mut new);
    let late = old.voice();
    world.send(&old, late);
    assert_eq!(world.count(Counter::DroppedUnknownSession), 1);
}

/// The control plane as the events tell it: who gets audio over the gateway, and what they got.
#[derive(Default)]
struct Control {
    proven: bool,
    delivered: Vec<(StreamId, u16)>,
}

impl Control {
    fn follow(&mut self, events: Vec<Event>, listener: &Client) {
        for event in events {
            match event {
                Event::Proven { session, proven } if session == listener.session => self.proven = proven,
                Event::Tunnel { header, .. } if !self.proven => {
                    self.delivered.push((header.stream, header.sequence));
                }
                _ => {}
            }
        }
    }
}

/// While a listener loses and regains UDP in every way there is, each frame reaches them by one way or the other, also
/// when frames wait for others and when what workers hand over takes its time.
#[test]
fn nobody_falls_between_the_two_ways() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let home = (seed % 2) as usize;
        let mut world = World::new(2, ms(2));
        let mut speakers = world.room(home, channel_id(CHANNEL), 3, Cipher::Aes128Gcm);
        world.handover_delay = Micros(prng.below(40_000));
        let mut listener = Client::new(50, Cipher::Aes128Gcm);
        world.join(home, channel_id(CHANNEL), &listener);
        world.clear();
        let mut control = Control::default();
        let (mut spoken, mut heard) = (HashSet::new(), Vec::new());
        for _ in 0..600 {
            match prng.below(60) {
                0 => {
                    let bind = listener.bind(world.now);
                    world.send(&listener, bind);
                }
                1..=4 => {
                    let ping = listener.ping(world.now);
                    world.send(&listener, ping);
                }
                5 => {
                    let sequence = listener.sequence;
                    listener.sequence += 1;
                    world.gateway_frame(home, channel_id(CHANNEL), listener.stream, gateway_voice(sequence));
                }
                6 => world.advance(Micros::from_secs(prng.below(12))),
                7 => listener.address = address(1_000 + prng.below(100) as u16),
                _ => {
                    let speaker = &mut speakers[prng.below(3) as usize];
                    spoken.insert((speaker.stream, speaker.sequence));
                    speak(&mut world, speaker);
                }
            }
            world.advance(Micros(prng.below(6_000)));
            control.follow(world.events(), &listener);
            world.take_answers(&mut listener);
            // Wherever the client is now: what the node sent there counts.
            let strangers =
                world.heard().into_iter().filter(|(to, _)| speakers.iter().all(|speaker| speaker.address != *to));
            heard.extend(
                strangers.flat_map(|(_, frames)| frames).map(|frame| (frame.header.stream, frame.header.sequence)),
            );
        }
        world.advance(ms(100));
        control.follow(world.events(), &listener);
        heard.extend(world.heard().into_values().flatten().map(|frame| (frame.header.stream, frame.header.sequence)));
        let reached: HashSet<_> = heard.iter().chain(&control.delivered).collect();
        let lost: Vec<_> = spoken.iter().filter(|frame| !reached.contains(frame)).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} of {} fell between the ways", spoken.len());
    }
}
