//! Members who hear a mix: what the engine gives the mixer, and what it does with what comes back.

use antiphon_core::{
    engine::{Command, Counter, Event, Hears, MemberFlags, MixedFrame},
    gateway::Cipher,
    ids::{ChannelId, StreamId},
    mix::MixTo,
    wire::frame::{FrameHeader, FrameKind},
};

use crate::world::{Client, World, channel_id, ms, streams};

const MIX: StreamId = StreamId(4_000);

fn channel() -> ChannelId {
    channel_id(1)
}

/// A client who joins worker 0's channel by UDP and hears a mix.
fn join_mixed(world: &mut World, session: u32, is_connected: bool) -> Client {
    let mut client = Client::new(session, Cipher::Aes128Gcm);
    world.add_session(&client);
    let (stream, udp) = (client.stream, Some(world.member_udp(&client)));
    let flags = MemberFlags::default();
    world.command(
        0,
        Command::AddMember { channel: channel(), stream, udp, hears: Hears::Mix, flags, last_sequence: None },
    );
    world.attach(0, channel(), &client);
    if is_connected {
        world.connect(&mut client);
    }
    world.clear();
    client
}

/// The mixer gives worker 0 a packet for some members.
fn mix(world: &mut World, members: &[StreamId], sequence: u16, bytes: &[u8]) {
    let to = |member: &StreamId| MixTo { member: *member, mix: MIX, sequence, kind: FrameKind::Audio };
    let to: Vec<MixTo> = members.iter().map(to).collect();
    let mixed = MixedFrame { channel: channel(), to: &to, timestamp: 960, level: 25, bytes };
    world.engines[0].mixed(world.now, &mixed, &mut world.out[0]);
    world.pass_on();
}

fn speak(world: &mut World, client: &mut Client) {
    let datagram = client.voice();
    world.send(client, datagram);
}

#[test]
fn the_mixer_gets_what_somebody_with_a_mix_is_to_hear_and_nobody_hears_both() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 2, Cipher::Aes128Gcm);
    speak(&mut world, &mut clients[0]);
    assert!(world.out[0].given_to_mixer.is_empty(), "nobody hears a mix");
    let mut mixed = join_mixed(&mut world, 7, true);
    speak(&mut world, &mut clients[0]);
    let heard = world.heard();
    assert_eq!((streams(&heard, &clients[1]), streams(&heard, &mixed)), (vec![clients[0].stream.0], vec![]));
    assert_eq!(
        world.out[0].given_to_mixer.drain(..).map(|header| header.stream).collect::<Vec<_>>(),
        [clients[0].stream]
    );
    // Alone with a mix, they are not in it; the others hear them as ever.
    speak(&mut world, &mut mixed);
    assert!(world.out[0].given_to_mixer.is_empty());
    let heard = world.heard();
    assert!(clients.iter().all(|client| streams(&heard, client) == [mixed.stream.0]));
    let other = join_mixed(&mut world, 8, true);
    speak(&mut world, &mut mixed);
    assert_eq!(world.out[0].given_to_mixer.len(), 1);
    world.set_flags(0, channel(), &other, MemberFlags { deafened: true, ..MemberFlags::default() });
    speak(&mut world, &mut mixed);
    assert_eq!(world.out[0].given_to_mixer.len(), 1, "the other one hears nothing");
    assert_eq!(world.count(Counter::FramesToMixer), 2);
    assert_eq!(world.count(Counter::FramesTunnelled), 0);
}

#[test]
fn somebody_who_is_no_member_hears_the_mix_of_everybody() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 1, Cipher::Aes128Gcm);
    let mut mixed = join_mixed(&mut world, 7, true);
    let present = world.count(Counter::MembersPresent);
    world.command(0, Command::SetOverheard { channel: channel(), overheard: true });
    for (client, given) in [(&mut clients[0], 1), (&mut mixed, 2)] {
        speak(&mut world, client);
        assert_eq!(world.out[0].given_to_mixer.len(), given, "each frame once, also those of who alone hears a mix");
    }
    world.command(0, Command::SetOverheard { channel: channel(), overheard: false });
    speak(&mut world, &mut mixed);
    assert_eq!(world.out[0].given_to_mixer.len(), 2);
    assert_eq!(world.count(Counter::MembersPresent), present, "it makes nobody a member");
}

#[test]
fn a_frame_without_room_is_missing_in_the_mix_alone() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 2, Cipher::Aes128Gcm);
    join_mixed(&mut world, 7, true);
    world.out[0].refuse_mix = true;
    speak(&mut world, &mut clients[0]);
    assert_eq!((world.count(Counter::FrameMixerBusy), world.count(Counter::FramesToMixer)), (1, 0));
    let heard = world.heard();
    assert_eq!(streams(&heard, &clients[1]), [clients[0].stream.0]);
}

#[test]
fn what_the_mixer_cannot_open_it_does_not_get() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 2, Cipher::Aes128Gcm);
    join_mixed(&mut world, 7, true);
    let header = clients[0].header(FrameKind::Audio as u8 | FrameHeader::FLAG_ENCRYPTED, 20);
    let secret = clients[0].media(&[(header, &[7; 80])]);
    world.send(&clients[0], secret);
    assert!(world.out[0].given_to_mixer.is_empty());
    assert_eq!((world.count(Counter::FrameMixerEncrypted), world.count(Counter::FramesToMixer)), (1, 0));
    let heard = world.heard();
    assert_eq!(streams(&heard, &clients[1]), [clients[0].stream.0], "who can open it gets it");
}

#[test]
fn each_gets_their_mix_under_their_own_key_and_no_counter_twice() {
    for workers in [1, 2] {
        let mut world = World::new(workers, ms(0));
        world.open_channel(0, channel(), 0);
        // Of one or two workers: the second one's session lives in the other.
        let mut clients = [join_mixed(&mut world, 10, true), join_mixed(&mut world, 11, true)];
        let mut counters = [Vec::new(), Vec::new()];
        for sequence in 0..3 {
            mix(&mut world, &[clients[0].stream, clients[1].stream], sequence, &[9; 70]);
            let sent = world.take_sent();
            assert_eq!(sent.len(), 2);
            for (client, counters) in clients.iter().zip(&mut counters) {
                let (to, datagram) = sent.iter().find(|(to, _)| *to == client.address).expect("theirs");
                let (counter, frames) = client.open_mix(datagram).expect("under their key");
                let [(header, bytes)] = &frames[..] else { panic!("{to}: {frames:?}") };
                assert_eq!((header.stream, header.sequence, header.level), (MIX, sequence, 25));
                assert_eq!(bytes[..], [9; 70]);
                counters.push(counter);
            }
            assert!(
                clients[0]
                    .open_mix(&sent.iter().find(|(to, _)| *to == clients[1].address).expect("theirs").1)
                    .is_none()
            );
            for client in &mut clients {
                let ping = client.ping(world.now);
                world.send(client, ping);
                assert_eq!(world.take_answers(client).len(), 1);
            }
        }
        for counters in counters {
            assert!(counters.windows(2).all(|pair| pair[1] == pair[0] + 2), "an answer in between: {counters:?}");
        }
        assert_eq!(world.count(Counter::FramesMixed), 6);
        assert_eq!(world.count(Counter::FramesSent), 0);
    }
}

#[test]
fn a_mix_goes_over_the_gateway_where_udp_is_not_proven() {
    let mut world = World::new(1, ms(0));
    world.open_channel(0, channel(), 0);
    let mut client = join_mixed(&mut world, 7, false);
    mix(&mut world, &[client.stream], 0, &[9; 70]);
    let [Event::TunnelMix { member, header, bytes, .. }] = &world.events()[..] else { panic!("one event") };
    assert_eq!((*member, header.stream, bytes.as_slice()), (client.stream, MIX, &[9; 70][..]));
    assert!(world.take_sent().is_empty());
    world.connect(&mut client);
    world.clear();
    mix(&mut world, &[client.stream], 1, &[9; 70]);
    assert!(world.events().is_empty());
    assert_eq!(world.take_sent().len(), 1);
    // By no UDP at all.
    let (stream, flags) = (StreamId(900), MemberFlags::default());
    world.command(
        0,
        Command::AddMember { channel: channel(), stream, udp: None, hears: Hears::Mix, flags, last_sequence: None },
    );
    mix(&mut world, &[stream], 0, &[]);
    assert!(matches!(&world.events()[..], [Event::TunnelMix { bytes, .. }] if bytes.as_slice().is_empty()));
}

#[test]
fn who_left_is_deafened_or_hears_streams_gets_no_mix() {
    let mut world = World::new(1, ms(0));
    let clients = world.room(0, channel(), 1, Cipher::Aes128Gcm);
    let mixed = join_mixed(&mut world, 7, true);
    mix(&mut world, &[clients[0].stream, StreamId(12_345)], 0, &[9]);
    world.set_flags(0, channel(), &mixed, MemberFlags { deafened: true, ..MemberFlags::default() });
    mix(&mut world, &[mixed.stream], 0, &[9]);
    world.command(0, Command::RemoveMember { channel: channel(), stream: mixed.stream });
    mix(&mut world, &[mixed.stream], 0, &[9]);
    world.command(0, Command::CloseChannel { channel: channel() });
    mix(&mut world, &[mixed.stream], 0, &[9]);
    assert!(
        world.take_sent().is_empty() && world.events().iter().all(|event| !matches!(event, Event::TunnelMix { .. }))
    );
    assert_eq!(world.count(Counter::FramesMixed), 0);
}
