//! Subscribers of voice against another implementation of WebRTC: what is sealed here comes out of its SRTP. Time is not the
//! clock's; datagrams are the kernel's.

mod checking;
mod memory;
mod moving;
mod narrow;
mod unexpected;

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Engine, EngineConfig, Hears, MemberFlags},
    gateway::{FRAME_BYTES_MAX, PeerRole, PublishKind, VideoQuality},
    ids::{ChannelId, StreamId, WorkerIndex},
    prng::Prng,
    wire::{
        datagram::DATAGRAM_BYTES_MAX,
        frame::{FrameHeader, FrameKind},
    },
};
use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig,
    change::{SdpAnswer, SdpOffer},
    net::{Protocol, Receive},
    rtp::RtpPacket,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    super::{
        Clock,
        inbox::Inbox,
        outbox::{Outbox, SideOutlets},
    },
    Described, OfferedTrack, PeerCommand, PeerCounter, PeerEvent, PeerKey, PeerPlaces, Peers, PeersSetup, SECTIONS_MAX,
    Ways, Wish, certificate,
    subscribing::OFFERS_APART,
};

const STEP: Micros = Micros::from_millis(20);
const LISTENER: StreamId = StreamId(1);
const ANNA: StreamId = StreamId(2);
const BERTA: StreamId = StreamId(3);
const LEVEL: u8 = 30;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// A description that names neither candidates nor sources.
fn described<T>(sdp: T) -> Described<T> {
    Described { sdp, candidates: Vec::new(), sources: BTreeSet::new() }
}

/// A browser as far as hearing goes, and seeing.
struct Listener {
    rtc: Rtc,
    socket: UdpSocket,
    /// What datagrams have to pass; the kernel alone where there is nothing.
    between: Option<narrow::Between>,
    due: Option<Instant>,
    connected: bool,
    heard: Vec<RtpPacket>,
}

impl Listener {
    fn new(now: Instant, sees: bool) -> Self {
        let coded = RtcConfig::new().set_rtp_mode(true).clear_codecs().enable_opus(true, false).enable_vp8(sees);
        let mut rtc = coded.build(now);
        let socket = socket();
        rtc.add_local_candidate(candidate(&socket));
        Self { rtc, socket, between: None, due: None, connected: false, heard: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let receive = Receive::new(Protocol::Udp, from, self.address(), datagram).expect("a datagram of WebRTC");
        self.rtc.handle_input(Input::Receive(now, receive)).expect("in order");
        self.say(now);
    }

    /// Takes what came and says what it has to say; true when anything came.
    fn turn(&mut self, now: Instant) -> bool {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut came = false;
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            came = true;
            match &mut self.between {
                Some(between) => between.forth(now, from, &buffer[..length]),
                None => self.take(now, from, &buffer[..length]),
            }
        }
        came |= self.pass_on(now);
        self.rtc.handle_input(Input::Timeout(now)).expect("in order");
        self.say(now);
        came
    }

    /// What lies between lets through what has crossed it by now; true when anything did.
    fn pass_on(&mut self, now: Instant) -> bool {
        let mut came = false;
        let has_crossed = |(arrives, ..): &mut (Instant, SocketAddr, Vec<u8>)| *arrives <= now;
        while let Some((_, from, datagram)) =
            self.between.as_mut().and_then(|between| between.there.pop_front_if(has_crossed))
        {
            came = true;
            self.take(now, from, &datagram);
        }
        while let Some((_, to, datagram)) =
            self.between.as_mut().and_then(|between| between.back.pop_front_if(has_crossed))
        {
            came = true;
            self.socket.send_to(&datagram, to).expect("sent");
        }
        came
    }

    /// When it wants to be looked after.
    fn due(&self) -> Option<Instant> {
        let crossing = self.between.iter().flat_map(|between| [between.there.front(), between.back.front()]).flatten();
        crossing.map(|(arrives, ..)| *arrives).chain(self.due).min()
    }

    fn say(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output().expect("in order") {
                Output::Transmit(transmit) if transmit.source == self.address() => match &mut self.between {
                    Some(between) => between.back(now, transmit.destination, &transmit.contents),
                    None => _ = self.socket.send_to(&transmit.contents, transmit.destination).expect("sent"),
                },
                Output::Event(Event::RtpPacket(packet)) => self.heard.push(packet),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Timeout(due) => {
                    self.due = Some(due);
                    return;
                }
                Output::Transmit(_) | Output::Event(_) => {}
            }
        }
    }

    /// The numbers of what was heard under a source.
    fn numbers(&self, ssrc: u32) -> Vec<u64> {
        self.heard.iter().filter(|packet| *packet.header.ssrc == ssrc).map(|packet| *packet.seq_no).collect()
    }
}

fn candidate(socket: &UdpSocket) -> Candidate {
    Candidate::host(socket.local_addr().expect("bound"), "udp").expect("a candidate")
}

/// A worker's peers, and one who listens.
struct World {
    clock: Clock,
    now: Micros,
    peers: Peers,
    engine: Engine,
    outbox: Outbox,
    node: Arc<UdpSocket>,
    events: mpsc::Receiver<PeerEvent>,
    channel: ChannelId,
    listener: Listener,
}

impl World {
    /// One in which the listener hears these.
    fn connected(wishes: &[StreamId]) -> Self {
        let mut world = Self::new();
        world.subscribe(wishes, false);
        for _ in 0..1_000 {
            world.pass(STEP);
            if world.listener.connected && world.peers.stats[PeerCounter::Connected] == 1 {
                return world;
            }
        }
        panic!("never connected")
    }

    fn new() -> Self {
        let (clock, node) = (Clock::start(), Arc::new(socket()));
        let (told, events) = mpsc::channel(64);
        let setup = PeersSetup {
            worker: WorkerIndex(0),
            clock,
            certificate: certificate().expect("a certificate"),
            events: told,
            places: Arc::new(PeerPlaces::new(4)),
            is_relayed: false,
            is_ipv6: false,
        };
        let inboxes = Arc::new([Inbox::new(2).expect("an inbox")]);
        let config = EngineConfig {
            worker: WorkerIndex(0),
            hold: Micros::ZERO,
            datagram_bytes_max: DATAGRAM_BYTES_MAX,
            relayed: false,
        };
        let channel = ChannelId(Uuid::from_u128(7));
        let mut peers = Peers::new(setup);
        let flags = MemberFlags::default();
        peers.follow(&Command::AddMember {
            channel,
            stream: LISTENER,
            udp: None,
            hears: Hears::Peer,
            flags,
            last_sequence: None,
        });
        let now = Micros::from_secs(1);
        Self {
            clock,
            now,
            peers,
            engine: Engine::new(config),
            outbox: Outbox::new(Arc::clone(&node), mpsc::channel(8).0, 0, inboxes, SideOutlets::default()),
            node,
            events,
            channel,
            listener: Listener::new(clock.instant(now), false),
        }
    }

    fn key(&self) -> PeerKey {
        PeerKey { channel: self.channel, stream: LISTENER, role: PeerRole::Subscriber }
    }

    /// By which the listener's STUN names its connection.
    fn fragment(&mut self) -> String {
        let key = self.key();
        self.peers.peer_by_key(key).expect("there").fragments[0].clone()
    }

    fn at(&self) -> Instant {
        self.clock.instant(self.now)
    }

    /// Wishes for these voices, and answers what is offered.
    fn subscribe(&mut self, wishes: &[StreamId], restart: bool) -> Vec<OfferedTrack> {
        let wishes = self.wishes(wishes);
        self.wish(wishes, restart)
    }

    fn wishes(&self, of: &[StreamId]) -> Vec<Wish> {
        let wish = |stream: &StreamId| Wish { stream: *stream, kind: PublishKind::Audio, quality: VideoQuality::Off };
        of.iter().map(wish).collect()
    }

    fn wish(&mut self, wishes: Vec<Wish>, restart: bool) -> Vec<OfferedTrack> {
        let (sdp, tracks) = self.offered(wishes, restart);
        self.answers(&sdp);
        tracks
    }

    /// What the listener is offered when it wishes for these.
    fn offered(&mut self, wishes: Vec<Wish>, restart: bool) -> (String, Vec<OfferedTrack>) {
        let ways = Ways { udp: vec![self.node.local_addr().expect("bound")], tcp: Vec::new() };
        let (reply, mut replied) = oneshot::channel();
        self.peers.command(self.now, PeerCommand::Subscribe { key: self.key(), ways, wishes, restart, reply });
        replied.try_recv().expect("at once").expect("taken");
        self.turn();
        let offered_by = self.now + OFFERS_APART;
        loop {
            match self.events.try_recv() {
                Ok(PeerEvent::Offer { sdp, tracks, .. }) => return (sdp, tracks),
                Ok(_) => {}
                Err(_) if self.now < offered_by => self.pass(STEP),
                Err(_) => panic!("no offer"),
            }
        }
    }

    /// The listener takes an offer, and its answer is taken.
    fn answers(&mut self, sdp: &str) {
        let offer = SdpOffer::from_sdp_string(sdp).expect("an offer");
        let answer = self.listener.rtc.sdp_api().accept_offer(offer).expect("acceptable").to_sdp_string();
        let answer = SdpAnswer::from_sdp_string(&answer).expect("an answer");
        let (reply, mut replied) = oneshot::channel();
        self.peers.command(self.now, PeerCommand::Answer { key: self.key(), answer: described(answer), reply });
        replied.try_recv().expect("at once").expect("taken");
    }

    fn turn(&mut self) -> bool {
        let (mut buffer, mut came) = ([0; DATAGRAM_BYTES_MAX], false);
        while let Ok((length, from)) = self.node.recv_from(&mut buffer) {
            came = true;
            self.peers.datagram(self.now, from, &buffer[..length], (&self.engine, &mut self.outbox));
        }
        while self.peers.turn(self.now, &self.engine, &mut self.outbox) {}
        self.outbox.sender.flush();
        came
    }

    /// Time passes, and both sides say all that they have to say.
    fn pass(&mut self, time: Micros) {
        self.now = self.now + time;
        while self.turn() | self.listener.turn(self.at()) {}
    }

    /// Somebody is heard for a frame's time.
    fn speaks(&mut self, stream: StreamId, number: u32) {
        self.speaks_unheard(stream, number);
        self.pass(STEP);
    }

    fn speaks_unheard(&mut self, stream: StreamId, number: u32) {
        let (sequence, timestamp) = (number as u16, number.wrapping_mul(960));
        let header =
            FrameHeader { stream, sequence, timestamp, kind_flags: 0, level: LEVEL }.with_kind(FrameKind::Audio);
        self.peers.voice(self.now, self.channel, (&header, &number.to_be_bytes()), &mut self.outbox);
        self.outbox.sender.flush();
    }

    fn ssrc_of(&mut self, stream: StreamId) -> u32 {
        let key = self.key();
        let peer = self.peers.peer_by_key(key).expect("there");
        let super::Side::Subscribing(side) = &mut peer.side else { panic!("it subscribes") };
        side.track_of((stream, PublishKind::Audio)).and_then(|track| track.voice.ssrc()).expect("negotiated")
    }
}

#[test]
fn what_is_sealed_here_comes_out_of_anothers_srtp() {
    let mut world = World::connected(&[ANNA]);
    let ssrc = world.ssrc_of(ANNA);
    (0..100).for_each(|number| world.speaks(ANNA, number));
    assert_eq!(world.listener.numbers(ssrc), (1..=100).collect::<Vec<_>>());
    for (number, packet) in world.listener.heard.iter().enumerate() {
        assert_eq!(packet.payload[..], (number as u32).to_be_bytes());
        assert_eq!(packet.header.timestamp, number as u32 * 960);
        assert_eq!(packet.header.ext_vals.audio_level, Some(-(LEVEL as i8)));
        assert_eq!(packet.header.ext_vals.transport_cc, None);
    }
    assert_eq!(world.peers.stats[PeerCounter::AudioOut], 100);
    world.speaks(LISTENER, 0);
    assert_eq!(world.listener.heard.len(), 100, "nobody hears themselves");
}

#[test]
fn an_offer_whose_client_never_comes_gives_its_place_back() {
    let mut world = World::new();
    let places = Arc::clone(&world.peers.setup.places);
    let ways = Ways { udp: vec![world.node.local_addr().expect("bound")], tcp: Vec::new() };
    let wishes = vec![Wish { stream: ANNA, kind: PublishKind::Audio, quality: VideoQuality::Off }];
    let reply = oneshot::channel().0;
    world.peers.command(world.now, PeerCommand::Subscribe { key: world.key(), ways, wishes, restart: false, reply });
    let free = || (0..4).map_while(|_| places.take().ok()).collect::<Vec<_>>().len();
    assert_eq!(free(), 3);
    for _ in 0..9 {
        world.pass(Micros::from_secs(1));
    }
    assert_eq!((free(), world.peers.stats[PeerCounter::NeverConnected]), (3, 0));
    world.pass(Micros::from_secs(2));
    assert_eq!((free(), world.peers.stats[PeerCounter::NeverConnected]), (4, 1));
}

#[test]
fn receivers_are_told_by_which_clock_a_voice_runs() {
    let mut world = World::connected(&[ANNA]);
    (0..300).for_each(|number| world.speaks(ANNA, number));
    let told: Vec<_> = world.listener.heard.iter().filter_map(|packet| packet.last_sender_info.as_ref()).collect();
    let (first, last) = (told.first().expect("told"), told.last().expect("told"));
    assert_eq!((first.sender_packet_count, first.sender_octet_count), (1, 4));
    assert_eq!((last.sender_packet_count, last.sender_octet_count), (251, 251 * 4));
    let passed = last.ntp_time.duration_since(first.ntp_time).expect("later");
    assert!(passed.abs_diff(Duration::from_secs(5)) < Duration::from_millis(1), "{passed:?}");
    assert_eq!(last.rtp_time.numer() - first.rtp_time.numer(), 5 * 48_000);
}

#[test]
fn what_receivers_report_lost_is_counted() {
    let mut world = World::connected(&[ANNA]);
    for number in 0..1_000 {
        world.speaks_unheard(ANNA, number);
        if matches!(number, 100 | 200 | 201) {
            while world.listener.socket.recv(&mut [0; DATAGRAM_BYTES_MAX]).is_ok() {}
        }
        world.pass(STEP);
    }
    assert_eq!(world.listener.heard.len(), 997);
    assert_eq!(world.peers.stats[PeerCounter::AudioLost], 3);
    let key = world.key();
    let told = std::iter::from_fn(|| world.events.try_recv().ok());
    let blocks: Vec<_> = told
        .filter_map(|event| match event {
            PeerEvent::Heard { key: listener, block } if listener == key => Some(block),
            _ => None,
        })
        .collect();
    assert!(blocks.iter().all(|block| block.stream == ANNA && block.round_trip_ms <= 20), "{blocks:?}");
    assert!(blocks.iter().any(|block| block.lost_fraction > 0), "{blocks:?}");
    let received: u32 = blocks.iter().map(|block| block.received).sum();
    assert!((500..1_000).contains(&received), "{received} until the last report: {blocks:?}");
    assert_eq!(world.peers.stats[PeerCounter::NotAuthentic], 0);
}

/// A second of frames missing between each two makes 65,536 of them come soon.
#[test]
fn numbers_that_come_round_are_heard_on() {
    let mut world = World::connected(&[ANNA]);
    let ssrc = world.ssrc_of(ANNA);
    let numbers: Vec<u32> = (0..1_400).map(|step| step * 50).collect();
    for number in &numbers {
        world.speaks(ANNA, *number);
    }
    let expected: Vec<u64> = numbers.iter().map(|number| u64::from(*number) + 1).collect();
    assert!(expected.last().is_some_and(|last| *last > 1 << 16));
    assert_eq!(world.listener.numbers(ssrc), expected);
}

#[test]
fn a_voice_goes_on_while_others_come_and_go() {
    let mut world = World::connected(&[ANNA]);
    let anna = world.ssrc_of(ANNA);
    (0..50).for_each(|number| world.speaks(ANNA, number));
    assert_eq!(world.subscribe(&[ANNA, BERTA], false).len(), 2);
    let berta = world.ssrc_of(BERTA);
    for number in 50..100 {
        world.speaks(ANNA, number);
        world.speaks(BERTA, number);
    }
    world.subscribe(&[BERTA], false);
    (100..150).for_each(|number| world.speaks(BERTA, number));
    world.subscribe(&[BERTA, ANNA], false);
    (150..200).for_each(|number| world.speaks(ANNA, number));
    assert_eq!(world.ssrc_of(ANNA), anna, "her section is used again");
    assert_eq!(world.listener.numbers(anna), (1..=150).collect::<Vec<_>>());
    assert_eq!(world.listener.numbers(berta), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_listener_who_moves_hears_on() {
    let mut world = World::connected(&[ANNA]);
    let ssrc = world.ssrc_of(ANNA);
    (0..50).for_each(|number| world.speaks(ANNA, number));
    let former = std::mem::replace(&mut world.listener.socket, socket());
    world.listener.rtc.direct_api().invalidate_candidate(&candidate(&former));
    world.subscribe(&[ANNA], true);
    let new = candidate(&world.listener.socket);
    world.listener.rtc.add_local_candidate(new);
    (50..200).for_each(|number| world.speaks(ANNA, number));
    let heard = world.listener.numbers(ssrc);
    let missing = 200 - heard.len();
    // Until the new way is chosen, and that is seen.
    assert!(heard.last() == Some(&200) && missing < 50, "{missing} missing");
    while former.recv(&mut [0; 8]).is_ok() {}
    world.speaks(ANNA, 200);
    assert!(former.recv(&mut [0; 8]).is_err(), "nothing goes where the listener was");
}

#[test]
fn a_listener_by_tcp_gets_the_same() {
    let mut world = World::connected(&[ANNA]);
    let (way, mut came) = mpsc::channel(2);
    let address = (Protocol::Tcp, SocketAddr::from(([127, 0, 0, 1], 9)));
    for (fragment, is_known) in [(b"AAnobody"[..].into(), false), (world.fragment().into_bytes().into(), true)] {
        let (known, mut told) = oneshot::channel();
        world.peers.command(world.now, PeerCommand::Reach { address, fragment, way: way.clone(), known });
        assert_eq!((told.try_recv(), world.peers.tcp.len()), (Ok(is_known), usize::from(is_known)));
    }
    let key = world.key();
    world.peers.peer_by_key(key).expect("there").nominated = Some(address);
    for number in 0..3 {
        world.speaks_unheard(ANNA, number);
    }
    // A packet and the report that goes with the first; there is no room for more.
    let node = world.node.local_addr().expect("bound");
    for _ in 0..2 {
        let datagram = came.try_recv().expect("left");
        world.listener.take(world.at(), node, &datagram);
    }
    assert_eq!(world.listener.heard.len(), 1);
    assert_eq!(world.peers.stats[PeerCounter::TcpDropped], 2);
}

#[test]
fn garbage_at_the_port_loses_nobody_anything() {
    let mut world = World::connected(&[ANNA]);
    let ssrc = world.ssrc_of(ANNA);
    let mut prng = Prng::new(3);
    let stranger = SocketAddr::from(([127, 0, 0, 1], 9));
    for number in 0..200 {
        for _ in 0..20 {
            let mut garbage = vec![0; 1 + prng.below(200) as usize];
            prng.fill(&mut garbage);
            // STUN, DTLS, RTP and RTCP, from anywhere and as if from the listener.
            garbage[0] = [0, 1, 20, 22, 23, 128, 144, 191][prng.below(8) as usize];
            if prng.chance(0.3) && garbage.len() > 1 {
                garbage[1] = [200, 201, 205, 111][prng.below(4) as usize];
            }
            let from = if prng.chance(0.5) { stranger } else { world.listener.address() };
            world.peers.datagram(world.now, from, &garbage, (&world.engine, &mut world.outbox));
        }
        world.speaks(ANNA, number);
    }
    assert_eq!(world.listener.numbers(ssrc), (1..=200).collect::<Vec<_>>());
    assert_eq!(world.peers.stats[PeerCounter::Connected], 1);
}

/// The library would look after each ten times a second.
#[test]
fn a_connection_of_voices_alone_is_seldom_looked_after() {
    let mut world = World::connected(&[ANNA]);
    for number in 0..1_000 {
        world.speaks(ANNA, number);
    }
    let key = world.key();
    let due = world.peers.peer_by_key(key).expect("there").due;
    assert!(due.saturating_duration_since(world.at()) > Duration::from_secs(1), "{due:?}");
    world.listener.socket = socket();
    for _ in 0..120 * 50 {
        world.pass(STEP);
    }
    assert_eq!(world.peers.stats[PeerCounter::Lost], 1, "who is heard no more is given up all the same");
}

/// A worker sleeps until its peers want a turn, and gives them none while they are idle.
#[test]
fn a_worker_whose_last_peer_has_gone_rests() {
    let mut world = World::connected(&[ANNA]);
    world.speaks(ANNA, 0);
    world.peers.follow(&Command::RemoveMember { channel: world.channel, stream: LISTENER });
    world.peers.follow(&Command::CloseChannel { channel: world.channel });
    for _ in 0..120 {
        if world.peers.is_idle() {
            assert_eq!(world.peers.poll_timeout(world.now), None);
            return;
        }
        world.pass(Micros::from_secs(1));
    }
    panic!("it never rests");
}

/// A browser's answer repeats, for each section, all that it was offered but whose it is, and adds a line on RTCP.
#[test]
fn the_answer_to_all_that_one_may_be_offered_is_within_a_message() {
    let wish = |stream, kind| Wish { stream: StreamId(stream), kind, quality: VideoQuality::High };
    let kinds = [PublishKind::Audio, PublishKind::Video, PublishKind::Screen];
    let wishes = kinds.into_iter().flat_map(|kind| (1_000..1_100).map(move |stream| wish(stream, kind)));
    let (sdp, tracks) = World::new().offered(wishes.collect(), false);
    assert_eq!(tracks.len(), SECTIONS_MAX);
    let whose = ["a=ssrc", "a=msid", "a=candidate"];
    let repeated = sdp.lines().filter(|line| !whose.iter().any(|begin| line.starts_with(begin)));
    let lines = repeated
        .map(|line| format!("{line}\r\n"))
        .chain((0..SECTIONS_MAX).map(|_| "a=rtcp:9 IN IP4 0.0.0.0\r\n".to_owned()));
    let answer = serde_json::to_string(&lines.collect::<String>()).expect("a text");
    let rest_bytes = 4 * 1024;
    assert!(answer.len() + rest_bytes < FRAME_BYTES_MAX, "{} bytes, and the message's own and ways", answer.len());
    for section in sdp.split("m=").skip(1) {
        let has = |part: &str| section.contains(part);
        let is_voice = section.starts_with("audio");
        assert_eq!((has("ssrc-audio-level"), has("transport-wide-cc")), (is_voice, !is_voice), "{section}");
        let formats = section.matches("a=rtpmap:").count();
        assert!(has("sdes:mid") && formats == if is_voice { 1 } else { 8 }, "{section}");
    }
    let pictures = tracks.iter().filter(|track| track.kind == PublishKind::Video).count();
    let screens = tracks.iter().filter(|track| track.kind == PublishKind::Screen).count();
    assert_eq!((pictures, screens), (16, 2), "cameras leave room for screens");
}

#[test]
fn offers_follow_each_other_no_sooner_than_a_client_answers_them_whole() {
    let mut world = World::connected(&[ANNA]);
    world.pass(OFFERS_APART);
    assert_eq!(world.subscribe(&[ANNA, BERTA], false).len(), 2);
    let offered_at = world.now;
    let (sdp, tracks) = world.offered(world.wishes(&[BERTA]), false);
    assert_eq!(tracks.len(), 1);
    let waited = world.now.since(offered_at);
    assert!(waited >= OFFERS_APART && waited < OFFERS_APART + STEP + STEP, "{waited:?}");
    world.answers(&sdp);
    let now = world.now;
    world.subscribe(&[BERTA], true);
    assert_eq!(world.now, now, "a new way is offered at once");
}
