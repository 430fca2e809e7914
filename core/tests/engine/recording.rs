//! Channels that are recorded: what the engine gives the recorder.

use antiphon_core::{
    engine::{Command, Counter, MemberFlags},
    gateway::Cipher,
    ids::ChannelId,
    wire::frame::{FrameHeader, FrameKind},
};

use crate::world::{Client, World, channel_id, ms, streams};

fn channel() -> ChannelId {
    channel_id(1)
}

fn set_recorded(world: &mut World, recorded: bool) {
    world.command(0, Command::SetRecorded { channel: channel(), recorded });
}

fn speak(world: &mut World, client: &mut Client) {
    let datagram = client.voice();
    world.send(client, datagram);
}

#[test]
fn the_recorder_gets_what_members_here_say_while_it_is_wanted_also_when_nobody_listens() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 1, Cipher::Aes128Gcm);
    speak(&mut world, &mut clients[0]);
    assert!(world.out[0].recorded.is_empty());
    set_recorded(&mut world, true);
    speak(&mut world, &mut clients[0]);
    assert_eq!(world.out[0].recorded[0].0.stream, clients[0].stream);
    world.set_flags(0, channel(), &clients[0], MemberFlags { muted: true, ..MemberFlags::default() });
    speak(&mut world, &mut clients[0]);
    assert_eq!(world.out[0].recorded.len(), 1, "nobody hears them");
    world.set_flags(0, channel(), &clients[0], MemberFlags::default());
    set_recorded(&mut world, false);
    speak(&mut world, &mut clients[0]);
    assert_eq!((world.out[0].recorded.len(), world.count(Counter::FramesToRecorder)), (1, 1));
    // The channel may have closed meanwhile, which is no fault.
    world.command(0, Command::SetRecorded { channel: channel_id(9), recorded: true });
    assert_eq!(world.count(Counter::CommandsRefused), 0);
}

#[test]
fn what_is_encrypted_to_the_end_or_finds_no_room_is_forwarded_all_the_same() {
    let mut world = World::new(1, ms(0));
    let mut clients = world.room(0, channel(), 2, Cipher::Aes128Gcm);
    set_recorded(&mut world, true);
    let header = clients[0].header(FrameKind::Audio as u8 | FrameHeader::FLAG_ENCRYPTED, 20);
    let secret = clients[0].media(&[(header, &[7; 80])]);
    world.send(&clients[0], secret);
    world.out[0].refuse_record = true;
    speak(&mut world, &mut clients[0]);
    assert!(world.out[0].recorded.is_empty());
    let counted = [Counter::FrameRecorderEncrypted, Counter::FrameRecorderBusy, Counter::FramesToRecorder];
    assert_eq!(counted.map(|counter| world.count(counter)), [1, 1, 0]);
    let heard = world.heard();
    assert_eq!(streams(&heard, &clients[1]), [clients[0].stream.0; 2]);
}
