//! Publishers who begin anew, here and on other nodes: whoever sees them goes on to, and no node says of another's publisher that they
//! have gone.

use std::sync::Arc;

use antiphon_core::{
    clock::Micros,
    engine::{Command, Hears, MemberFlags},
    gateway::{PeerRole, PublishKind, VideoQuality},
    video::{Meeting, PictureHead, VideoCodec},
};
use str0m::{
    change::SdpAnswer,
    format::Codec,
    media::{Direction, MediaKind, Mid},
    rtp::RtpWrite,
};
use tokio::sync::oneshot;

use super::{
    super::{PeerCommand, PeerCounter, PeerEvent, PeerKey, ToRelay, Ways, Wish},
    ANNA, Listener, STEP, World, described,
};

const PICTURE: Micros = Micros::from_millis(33);
/// Pictures of each publisher: longer than publishers are asked for a whole one at most.
const PICTURES: u32 = 20;
/// VP8's descriptor: a picture begins.
const BEGINS: u8 = 0x10;

/// One packet that is a picture.
fn picture(is_whole: bool) -> Arc<[u8]> {
    [BEGINS, u8::from(!is_whole), 0, 0, 0, 0, 0, 0].into()
}

/// A node of several, on which somebody sees Anna, wherever she publishes.
pub(super) fn seeing() -> World {
    let mut world = World::new();
    world.peers.setup.is_relayed = true;
    world.listener = Listener::new(world.at(), true);
    world.wish(vec![Wish { stream: ANNA, kind: PublishKind::Video, quality: VideoQuality::High }], false);
    for _ in 0..1_000 {
        world.pass(STEP);
        if world.listener.connected && world.peers.stats[PeerCounter::Connected] == 1 {
            return world;
        }
    }
    panic!("never connected")
}

/// The numbers of what was seen.
pub(super) fn seen(world: &World) -> Vec<u64> {
    let heard = world.listener.heard.iter().filter(|packet| packet.payload.first() == Some(&BEGINS));
    heard.map(|packet| *packet.seq_no).collect()
}

/// The relay brings a picture of Anna's.
fn brought(world: &mut World, sequence: u32, is_whole: bool) {
    let head = PictureHead {
        stream: ANNA,
        is_screen: false,
        codec: VideoCodec::Vp8,
        layer: 0,
        marker: true,
        is_keyframe: is_whole,
        sequence,
        timestamp: sequence.wrapping_mul(3_000),
    };
    let mut body = head.write().to_vec();
    body.extend(&picture(is_whole)[..]);
    world.peers.remote_record(world.now, world.channel, true, &body);
    world.pass(PICTURE);
}

/// The relay brings word of what Anna publishes.
fn word(world: &mut World, kinds: Vec<PublishKind>) {
    let (bytes, length) = Meeting::Publishes { stream: ANNA, kinds }.write();
    world.peers.remote_record(world.now, world.channel, false, &bytes[..length]);
}

/// What the other nodes are told.
fn told(world: &mut World) -> (Vec<PictureHead>, Vec<Meeting>) {
    let (mut given, mut pictures, mut words) = (Vec::new(), Vec::new(), Vec::new());
    world.peers.take_for_relay(&mut given);
    for given in given {
        match given {
            ToRelay::Picture { head, .. } => pictures.extend(PictureHead::read(&head).map(|(head, _)| head)),
            ToRelay::Meeting { bytes, length, .. } => words.extend(Meeting::read(&bytes[..length])),
            ToRelay::Command(_) => {}
        }
    }
    (pictures, words)
}

fn asks(word: &Meeting) -> bool {
    matches!(word, Meeting::WantsKeyframe { stream: ANNA, is_screen: false, layer: 0 })
}

/// Anna is in the channel here, and publishes what these sections say.
pub(super) fn publishes(world: &mut World, anna: &mut Listener, change: impl FnOnce(&mut str0m::change::SdpApi<'_>)) {
    let mut changes = anna.rtc.sdp_api();
    change(&mut changes);
    let (offer, pending) = changes.apply().expect("something is offered");
    let key = PeerKey { channel: world.channel, stream: ANNA, role: PeerRole::Publisher };
    let ways = Ways { udp: vec![world.node.local_addr().expect("bound")], tcp: Vec::new() };
    let (reply, mut replied) = oneshot::channel();
    let publish = PeerCommand::Publish { key, ways, offer: described(offer), kind: PublishKind::Video, reply };
    world.peers.command(world.now, publish);
    let answer = replied.try_recv().expect("at once").expect("taken");
    let answer = SdpAnswer::from_sdp_string(&answer).expect("an answer");
    anna.rtc.sdp_api().accept_answer(pending, answer).expect("acceptable");
}

pub(super) fn comes(world: &mut World) {
    let flags = MemberFlags::default();
    world.peers.follow(&Command::AddMember {
        channel: world.channel,
        stream: ANNA,
        udp: None,
        hears: Hears::Peer,
        flags,
        last_sequence: None,
    });
}

fn goes(world: &mut World) {
    world.peers.follow(&Command::RemoveMember { channel: world.channel, stream: ANNA });
}

/// Whether the control plane was told that Anna publishes nothing any more.
fn has_ended(world: &mut World) -> bool {
    world.turn();
    std::iter::from_fn(|| world.events.try_recv().ok())
        .any(|event| matches!(event, PeerEvent::Publishes { stream: ANNA, kinds, .. } if kinds.is_empty()))
}

pub(super) fn pass_with(world: &mut World, anna: &mut Listener, time: Micros) {
    world.now = world.now + time;
    while world.turn() | world.listener.turn(world.at()) | anna.turn(world.at()) {}
}

pub(super) fn shows(world: &mut World, (anna, mid): (&mut Listener, Mid), sequence: u32, is_whole: bool) {
    let coded = anna.rtc.codec_config().params().iter().find(|params| params.spec().codec == Codec::Vp8);
    let (pt, at) = (coded.expect("VP8").pt(), world.at());
    let mut direct = anna.rtc.direct_api();
    let stream = direct.stream_tx_by_mid(mid, None).expect("agreed upon");
    stream.write_rtp(RtpWrite::new(
        pt,
        u64::from(sequence).into(),
        sequence.wrapping_mul(3_000),
        at,
        picture(is_whole),
    ));
    pass_with(world, anna, PICTURE);
}

#[test]
fn a_picture_goes_on_when_its_publisher_does_elsewhere_under_lower_numbers() {
    // The second time a word comes in between that they publish nothing, while what is wished for stays: an offer is unanswered.
    for is_told in [false, true] {
        let mut world = seeing();
        word(&mut world, vec![PublishKind::Video]);
        (0..PICTURES).for_each(|picture| brought(&mut world, 30_000 + picture, picture == 0));
        let sent = u64::from(PICTURES);
        assert_eq!(seen(&world), (1..=sent).collect::<Vec<_>>());
        if is_told {
            word(&mut world, Vec::new());
            word(&mut world, vec![PublishKind::Video]);
        }
        told(&mut world);
        brought(&mut world, 5_000, false);
        assert_eq!(seen(&world).len() as u64, sent, "a change to a picture that was never whole shows nothing");
        assert!(told(&mut world).1.iter().any(asks), "a whole one is asked for at once");
        (1..=PICTURES).for_each(|picture| brought(&mut world, 5_000 + picture, picture == 1));
        assert_eq!(seen(&world), (1..=2 * sent).collect::<Vec<_>>(), "without a gap");
    }
}

#[test]
fn a_picture_goes_on_where_its_numbers_for_other_nodes_wrap_around() {
    let mut world = seeing();
    word(&mut world, vec![PublishKind::Video]);
    let mut next = 0_u32.wrapping_sub(PICTURES);
    let mut bring = |world: &mut World, is_whole| {
        brought(world, next, is_whole);
        next = next.wrapping_add(1);
    };
    (0..PICTURES).for_each(|picture| bring(&mut world, picture == 0));
    told(&mut world);
    (0..PICTURES).for_each(|_| bring(&mut world, false));
    assert_eq!(seen(&world), (1..=2 * u64::from(PICTURES)).collect::<Vec<_>>(), "without a gap");
    assert!(!told(&mut world).1.iter().any(asks), "and without another whole one");
}

#[test]
fn a_picture_goes_on_in_another_section_here_and_other_nodes_can_tell_the_two_apart() {
    let mut world = seeing();
    comes(&mut world);
    let mut anna = Listener::new(world.at(), true);
    let (mut first, mut second) = (None, None);
    let add = |changes: &mut str0m::change::SdpApi<'_>| {
        Some(changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None))
    };
    publishes(&mut world, &mut anna, |changes| first = add(changes));
    for _ in 0..1_000 {
        pass_with(&mut world, &mut anna, STEP);
        if anna.connected && world.peers.stats[PeerCounter::Connected] == 2 {
            break;
        }
    }
    let first = first.expect("added");
    (0..PICTURES).for_each(|picture| shows(&mut world, (&mut anna, first), 30_000 + picture, picture == 0));
    let sent = u64::from(PICTURES);
    assert_eq!(seen(&world), (1..=sent).collect::<Vec<_>>());
    let last = *told(&mut world).0.last().expect("for the other nodes, too");
    publishes(&mut world, &mut anna, |changes| {
        changes.set_direction(first, Direction::Inactive);
        second = add(changes);
    });
    let second = second.expect("added");
    // Numbers are drawn by lot: these are within those that came.
    (0..PICTURES).for_each(|picture| shows(&mut world, (&mut anna, second), 30_010 + picture, picture == 0));
    assert_eq!(seen(&world), (1..=2 * sent).collect::<Vec<_>>(), "without a gap");
    let next = *told(&mut world).0.first().expect("likewise");
    assert!(next.sequence.abs_diff(last.sequence) > 1 << 15, "{last:?} {next:?}");
}

#[test]
fn who_has_moved_is_the_other_nodes_to_tell_of_and_to_show() {
    let mut world = seeing();
    comes(&mut world);
    let mut anna = Listener::new(world.at(), true);
    publishes(&mut world, &mut anna, |changes| {
        changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    });
    word(&mut world, vec![PublishKind::Audio]);
    brought(&mut world, 1, true);
    assert!(seen(&world).is_empty(), "what still comes from where she was before is not shown");
    let (channel, stream) = (world.channel, ANNA);
    world.peers.command(world.now, PeerCommand::Depart { channel, stream });
    world.pass(Micros::from_millis(600));
    let here = Meeting::Publishes { stream, kinds: vec![PublishKind::Video] };
    assert!(told(&mut world).1.contains(&here), "told until the other node does");
    word(&mut world, Vec::new());
    word(&mut world, vec![PublishKind::Video]);
    (0..PICTURES).for_each(|picture| brought(&mut world, 700 + picture, picture == 0));
    assert_eq!(seen(&world).len() as u32, PICTURES);
    goes(&mut world);
    assert!(!has_ended(&mut world), "she publishes elsewhere");
    assert!(!told(&mut world).1.iter().any(|word| matches!(word, Meeting::Publishes { .. })));
    brought(&mut world, 700 + PICTURES, false);
    assert_eq!(seen(&world).len() as u32, PICTURES + 1);
}

#[test]
fn who_goes_without_having_moved_publishes_nothing_any_more() {
    for departs in [false, true] {
        let mut world = seeing();
        comes(&mut world);
        let mut anna = Listener::new(world.at(), true);
        publishes(&mut world, &mut anna, |changes| {
            changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        });
        told(&mut world);
        if departs {
            // And no other node says anything of her.
            world.peers.command(world.now, PeerCommand::Depart { channel: world.channel, stream: ANNA });
        }
        goes(&mut world);
        assert!(has_ended(&mut world));
        assert_eq!(told(&mut world).1, [Meeting::Publishes { stream: ANNA, kinds: Vec::new() }]);
    }
}
