//! A subscriber whose way becomes narrow and wide again, in virtual time: its voices go on, and its pictures follow the way.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::{PublishKind, VideoQuality},
    prng::Prng,
    video::{LAYERS_MAX, Numbers, VideoCodec},
};

use super::{
    super::{PeerCounter, Side, Video, Wish, subscribing::PicturePacket, video::Origin},
    ANNA, Listener, World,
};

const TURN: Micros = Micros::from_millis(5);
/// What a page's encoder makes of 720 lines in three layers, and how many pictures of it in a second.
const LAYERS_BPS: [usize; LAYERS_MAX] = [150_000, 500_000, 1_500_000];
const PICTURES_EVERY: Micros = Micros(33_333);
/// A whole picture takes so many times what others take.
const WHOLE: usize = 4;
const PACKET_BYTES: usize = 1_100;
const VOICE_EVERY: Micros = Micros::from_millis(20);
const LIMIT_BPS: u64 = 300_000;
/// The lowest layer by its place, and the best.
const LOW: usize = 0;
const HIGH: usize = LAYERS_MAX - 1;

/// What lies between the node and a listener, one way and the other.
pub(super) struct Between {
    prng: Prng,
    /// None for as much as comes.
    limit_bps: Option<u64>,
    queue: Duration,
    delay: Duration,
    free_at: Instant,
    pub(super) there: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    pub(super) back: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl Between {
    /// A datagram for the listener begins its way, or is lost because too much waits.
    pub(super) fn forth(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let begins = self.free_at.max(now);
        if let Some(limit_bps) = self.limit_bps {
            if begins - now > self.queue {
                return;
            }
            self.free_at = begins + Duration::from_micros(datagram.len() as u64 * 8_000_000 / limit_bps);
        }
        let leaves = self.free_at.max(now);
        let arrives = leaves + self.takes();
        let last = self.there.back().map_or(arrives, |(last, ..)| *last);
        self.there.push_back((arrives.max(last), from, datagram.to_vec()));
    }

    /// One for the node.
    pub(super) fn back(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        let arrives = now + self.takes();
        let last = self.back.back().map_or(arrives, |(last, ..)| *last);
        self.back.push_back((arrives.max(last), to, datagram.to_vec()));
    }

    fn takes(&mut self) -> Duration {
        self.delay + Duration::from_micros(self.prng.below(8_000))
    }
}

/// When what happened, since the way became narrow.
#[derive(Debug, Default)]
struct Seen {
    /// Pictures stopped because of how packets crossed, if they did.
    stopped: Option<Micros>,
    low: Option<Micros>,
    /// Since the way is wide again.
    high: Option<Micros>,
    /// The numbers of voice that were lost at first and came when they were sent again, and of voice that never came.
    repaired: Vec<u32>,
    lost: Vec<u32>,
    /// How many were sent again.
    repeated: u64,
}

impl Seen {
    /// Of the voices that were `said` those were heard under these numbers, in this order. RTP numbers its first packet 1.
    fn voices(&mut self, numbers: &[u64], said: std::ops::Range<u32>) {
        let heard: Vec<u32> =
            numbers.iter().map(|number| *number as u32 - 1).filter(|number| said.contains(number)).collect();
        // The way keeps their order: what came behind a newer one was sent again.
        let mut newest = 0;
        for number in &heard {
            if *number < newest {
                self.repaired.push(number - said.start);
            }
            newest = newest.max(*number);
        }
        self.lost = said.clone().filter(|number| !heard.contains(number)).map(|number| number - said.start).collect();
    }
}

/// What encoders make of a layer that has just begun, beside what they are to in the long run, in percent: one may take its time to
/// come down after a whole picture.
const TOO_MUCH_PERCENT: usize = 250;
const TOO_MUCH_FOR: Micros = Micros::from_millis(700);

struct Meeting {
    world: World,
    /// Until when the lowest layer takes more than it should, where it does.
    exceeds: Option<Micros>,
    ssrc: u32,
    sequence: [u64; LAYERS_MAX],
    pictures: usize,
    spoken: u32,
    picture_at: Micros,
    voice_at: Micros,
}

impl Meeting {
    /// One who hears and sees another by a way of its own, as `seed` draws it, with a queue of at least so long.
    fn begin(seed: u64, queue_ms: u64) -> Self {
        let mut prng = Prng::new(seed);
        let (queue_ms, delay_ms) = (queue_ms + prng.below(71), 5 + prng.below(36));
        let mut world = World::new();
        let at = world.at();
        let mut listener = Listener::new(at, true);
        listener.between = Some(Between {
            prng,
            limit_bps: None,
            queue: Duration::from_millis(queue_ms),
            delay: Duration::from_millis(delay_ms),
            free_at: at,
            there: VecDeque::new(),
            back: VecDeque::new(),
        });
        world.listener = listener;
        let wish = |kind| Wish { stream: ANNA, kind, quality: VideoQuality::High };
        world.wish(vec![wish(PublishKind::Audio), wish(PublishKind::Video)], false);
        let now = world.now;
        let mut meeting = Self {
            world,
            exceeds: None,
            ssrc: 0,
            sequence: [0; LAYERS_MAX],
            pictures: 0,
            spoken: 0,
            picture_at: now,
            voice_at: now,
        };
        meeting.until_connected();
        meeting
    }

    fn until_connected(&mut self) {
        for _ in 0..1_000 {
            self.turn();
            let World { listener, peers, .. } = &self.world;
            if listener.connected && peers.stats[PeerCounter::Connected] == 1 {
                self.ssrc = self.world.ssrc_of(ANNA);
                let (now, channel) = (self.world.now, self.world.channel);
                let room = self.world.peers.rooms.get_mut(&channel).expect("there");
                let source = (ANNA, PublishKind::Video);
                room.videos.insert(source, Video::new(Origin::Here(u32::MAX)));
                self.world.peers.pictures_changed(now, channel);
                return;
            }
        }
        panic!("never connected")
    }

    /// Five milliseconds pass, each side being looked after whenever it wants to be.
    fn turn(&mut self) {
        let end = self.world.now + TURN;
        while self.world.now < end {
            let World { now, peers, listener, clock, .. } = &mut self.world;
            let at = clock.instant(*now);
            let in_us = |due: Instant| u64::try_from(due.saturating_duration_since(at).as_micros()).unwrap_or(u64::MAX);
            let wait = listener.due().map_or(u64::MAX, in_us).clamp(1, TURN.0);
            let next = peers.poll_timeout(*now).map_or(end, |due| due.max(*now + Micros(1)));
            self.world.now = next.min(*now + Micros(wait)).min(end);
            while self.world.turn() | self.world.listener.turn(self.world.at()) {}
        }
        if self.ssrc != 0 {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let now = self.world.now;
        while self.voice_at <= now {
            self.voice_at = self.voice_at + VOICE_EVERY;
            self.world.speaks_unheard(ANNA, self.spoken);
            self.spoken += 1;
        }
        while self.picture_at <= now {
            self.picture_at = self.picture_at + PICTURES_EVERY;
            (0..LAYERS_MAX).for_each(|layer| self.picture(layer));
            self.pictures += 1;
        }
    }

    /// A picture of a layer; a whole one where one is asked for.
    fn picture(&mut self, layer: usize) {
        let (now, channel) = (self.world.now, self.world.channel);
        let source = (ANNA, PublishKind::Video);
        let video = self.world.peers.rooms.get_mut(&channel).and_then(|room| room.videos.get_mut(&source));
        let is_whole = video.expect("published").layers[layer].requests.poll(now);
        if is_whole && layer == LOW && self.exceeds.is_some() {
            self.exceeds = Some(now + TOO_MUCH_FOR);
        }
        let exceeds = layer == LOW && self.exceeds.is_some_and(|until| now < until);
        let share = if is_whole { WHOLE } else { 1 };
        let bytes =
            LAYERS_BPS[layer] / 8 / 30 * share * if exceeds && !is_whole { TOO_MUCH_PERCENT } else { 100 } / 100;
        let packets = bytes.div_ceil(PACKET_BYTES);
        for place in 0..packets {
            let mut payload = vec![0; (bytes / packets).max(8)];
            // VP8's descriptor: a picture begins; and the coded picture, which says that it needs none before it.
            payload[0] = if place == 0 { 0x10 } else { 0 };
            payload[1] = u8::from(!is_whole);
            let payload: Arc<[u8]> = payload.into();
            let packet = PicturePacket {
                codec: VideoCodec::Vp8,
                layer,
                is_keyframe: place == 0 && is_whole,
                numbers: Numbers { sequence: self.sequence[layer], timestamp: self.pictures as u32 * 3_000 },
                marker: place + 1 == packets,
                payload: &payload,
            };
            self.world.peers.forward_picture(now, channel, source, &packet);
            self.sequence[layer] += 1;
        }
    }

    /// The layer that is sent, by its place in the order.
    fn layer(&mut self) -> Option<usize> {
        let key = self.world.key();
        let peer = self.world.peers.peer_by_key(key).expect("there");
        let Side::Subscribing(side) = &mut peer.side else { panic!("it subscribes") };
        side.track_of((ANNA, PublishKind::Video)).expect("wished for").picture.current
    }

    fn run(&mut self, time: Micros, mut each: impl FnMut(&mut Self) -> bool) {
        let end = self.world.now + time;
        while self.world.now < end && !each(self) {
            self.turn();
        }
    }

    fn limit(&mut self, limit_bps: Option<u64>) {
        self.world.listener.between.as_mut().expect("set").limit_bps = limit_bps;
    }

    /// Narrow for six seconds, and then wide.
    fn narrows(&mut self) -> Seen {
        let mut seen = Seen::default();
        self.run(Micros::from_secs(15), |meeting| meeting.layer() == Some(HIGH));
        self.run(Micros::from_secs(3), |_| false);
        assert_eq!(self.layer(), Some(HIGH));
        assert_eq!(self.world.peers.stats[PeerCounter::WaysShrank], 0, "it carries all of it");
        let (begun, first) = (self.world.now, self.spoken);
        self.limit(Some(LIMIT_BPS));
        self.run(Micros::from_secs(6), |meeting| {
            let since = meeting.world.now.since(begun);
            if meeting.world.peers.stats[PeerCounter::WaysShrank] > 0 {
                seen.stopped.get_or_insert(since);
            }
            if meeting.layer() == Some(LOW) {
                seen.low.get_or_insert(since);
            }
            false
        });
        let ended = self.world.now;
        self.limit(None);
        self.run(Micros::from_secs(12), |meeting| meeting.layer() == Some(HIGH));
        seen.high = (self.layer() == Some(HIGH)).then(|| self.world.now.since(ended));
        // What is under way arrives.
        let last = self.spoken;
        self.run(Micros::from_secs(1), |_| false);
        seen.voices(&self.world.listener.numbers(self.ssrc), first..last);
        seen.repeated = self.world.peers.stats[PeerCounter::AudioRepeated];
        seen
    }
}

/// What a first report of packets on a way of at most 40 ms, with a queue of at most 120 ms, may take: the packets that show it are
/// sent, wait and cross; the receiver tells ten times a second; that crosses. And one more of them, where the first has too few.
const SHOWN_WITHIN: Micros = Micros::from_millis(450);
/// What waited when pictures stopped leaves room for a voice by then: one packet of a picture takes 30 ms.
const ROOM_AFTER: Micros = Micros::from_millis(60);

/// Queues of 50 to 120 ms. In shorter ones than these two packets of a picture in a row leave no room for a voice.
const SHORT_MS: u64 = 50;
/// And of 150 to 220 ms.
const LONGER_MS: u64 = 150;

/// What is sent again in one narrowing at most: what was lost until a report showed it, and whatever was sent beside that.
const REPEATED_MAX: u64 = 36;

/// Stops in one narrowing at most, where the low layer fills the way again.
const STOPS_MAX: u64 = 4;

fn follow(seeds: std::ops::Range<u64>) {
    let (mut repaired, mut most_repaired, mut repeated, mut slowest) = (0, 0, 0, Seen::default());
    for seed in seeds {
        let seen = Meeting::begin(seed, SHORT_MS).narrows();
        let stopped = seen.stopped.unwrap_or_else(|| panic!("seed {seed}: never stopped, {seen:?}"));
        assert!(stopped <= SHOWN_WITHIN, "seed {seed}: {seen:?}");
        assert!(seen.low.is_some_and(|low| low <= Micros::from_secs(3)), "seed {seed}: {seen:?}");
        assert!(seen.high.is_some_and(|high| high < Micros::from_secs(10)), "seed {seed}: {seen:?}");
        let after = (stopped + ROOM_AFTER).0 / VOICE_EVERY.0;
        let late: Vec<_> = seen.repaired.iter().filter(|number| u64::from(**number) > after).collect();
        assert!(late.is_empty(), "seed {seed}: {late:?} lost at first after pictures had stopped, {seen:?}");
        assert!(seen.lost.is_empty(), "seed {seed}: voices never came, {seen:?}");
        assert!(seen.repeated <= REPEATED_MAX, "seed {seed}: {seen:?}");
        repaired += seen.repaired.len();
        most_repaired = most_repaired.max(seen.repaired.len());
        repeated += seen.repeated;
        slowest.stopped = slowest.stopped.max(seen.stopped);
        slowest.low = slowest.low.max(seen.low);
        slowest.high = slowest.high.max(seen.high);
    }
    println!(
        "{repaired} voices lost at first, {most_repaired} at most at a time, {repeated} sent again; slowest: {slowest:?}"
    );
    assert!(repaired > 0, "no way was narrow enough to lose any");
}

#[test]
fn voices_go_on_and_pictures_follow_on_ways_of_the_first_half_of_seeds() {
    follow(0..50);
}

#[test]
fn voices_go_on_and_pictures_follow_on_ways_of_the_second_half_of_seeds() {
    follow(50..100);
}

#[test]
fn a_low_layer_that_takes_too_much_at_first_costs_no_voices_either() {
    let (mut filled, mut left_over, mut most) = (0, 0, 0);
    for seed in 0..50 {
        let mut meeting = Meeting::begin(seed, LONGER_MS);
        meeting.exceeds = Some(Micros::ZERO);
        let seen = meeting.narrows();
        assert!(seen.low.is_some_and(|low| low <= Micros::from_secs(3)), "seed {seed}: {seen:?}");
        assert!(seen.high.is_some_and(|high| high < Micros::from_secs(10)), "seed {seed}: {seen:?}");
        assert!(seen.lost.is_empty(), "seed {seed}: voices never came, {seen:?}");
        let stats = &meeting.world.peers.stats;
        filled += u64::from(stats[PeerCounter::WaysShrank] > 1);
        most = most.max(stats[PeerCounter::WaysShrank]);
        left_over += stats[PeerCounter::VideoLeftOver];
    }
    println!("{filled} of 50 were filled once more, {most} times at most; {left_over} packets were left over");
    assert!(most <= STOPS_MAX, "pictures stopped {most} times");
    assert!(left_over > 0, "congestion control held nothing back");
    assert!(filled > 0, "none was too narrow for the low layer");
}
