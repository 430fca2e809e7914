//! Mixes in virtual time, with a codec that loses nothing.

use std::f64::consts::TAU;

use super::*;
use crate::netsim::{Network, NetworkConfig};

/// A packet that says 20 ms (CELT, fullband), and then the number of the tone and of the frame: its samples follow from them.
const TOC: u8 = 31 << 3;

/// A tone's frequency by its number.
fn frequency_hz(tone: u8) -> f64 {
    f64::from(tone) * 150.0
}

fn tone(tone: u8, frame: u32, amplitude: f64) -> [i16; FRAME_SAMPLES] {
    std::array::from_fn(|n| {
        let t = (f64::from(frame) * FRAME_SAMPLES as f64 + n as f64) / 48_000.0;
        ((t * frequency_hz(tone) * TAU).sin() * amplitude) as i16
    })
}

fn packet(tone: u8, frame: u32, amplitude: u16) -> Vec<u8> {
    let mut packet = vec![TOC, tone];
    packet.extend(frame.to_be_bytes());
    packet.extend(amplitude.to_be_bytes());
    packet
}

/// Decodes what [`packet`] says, and keeps what it is given to encode.
#[derive(Default)]
struct Exact {
    decoders: usize,
    encoders: usize,
    kept: usize,
    encoders_max: Option<usize>,
}

struct ExactDecoder {
    concealed: bool,
}

/// Packets are numbers of blocks that were encoded.
struct ExactEncoder {
    id: u8,
    complexity: u8,
}

std::thread_local! {
    static ENCODED: std::cell::RefCell<Vec<[i16; FRAME_SAMPLES]>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Decoder for ExactDecoder {
    fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize> {
        let [_, number, f0, f1, f2, f3, a0, a1] = *packet else { return None };
        let (frame, amplitude) = (u32::from_be_bytes([f0, f1, f2, f3]), u16::from_be_bytes([a0, a1]));
        out[..FRAME_SAMPLES].copy_from_slice(&tone(number, frame, amplitude.into()));
        self.concealed = false;
        Some(FRAME_SAMPLES)
    }

    fn conceal(&mut self, out: &mut [i16]) {
        self.concealed = true;
        out.fill(50);
    }

    fn recover(&mut self, next: &[u8], out: &mut [i16]) {
        assert_eq!(next[0], TOC);
        out.fill(60);
    }
}

impl Encoder for ExactEncoder {
    fn encode(&mut self, samples: &[i16; FRAME_SAMPLES], out: &mut [u8; MIX_BYTES_MAX]) -> Option<usize> {
        ENCODED.with_borrow_mut(|encoded| {
            encoded.push(*samples);
            out[..4].copy_from_slice(&(encoded.len() as u32 - 1).to_be_bytes());
        });
        out[4..6].copy_from_slice(&[self.id, self.complexity]);
        Some(6)
    }

    fn set_complexity(&mut self, complexity: u8) {
        self.complexity = complexity;
    }
}

impl Codec for Exact {
    type Decoder = ExactDecoder;
    type Encoder = ExactEncoder;

    fn decoder(&mut self) -> Option<ExactDecoder> {
        self.decoders += 1;
        Some(ExactDecoder { concealed: false })
    }

    fn encoder(&mut self) -> Option<ExactEncoder> {
        if self.encoders_max.is_some_and(|most| self.encoders - self.kept >= most) {
            return None;
        }
        self.encoders += 1;
        Some(ExactEncoder { id: self.encoders as u8, complexity: 0 })
    }

    fn keep_decoder(&mut self, _: ExactDecoder) {
        self.decoders -= 1;
    }

    fn keep_encoder(&mut self, _: ExactEncoder) {
        self.kept += 1;
    }
}

/// A frame of a mix as a listener gets it.
struct Heard {
    to: MixTo,
    timestamp: u32,
    samples: Option<[i16; FRAME_SAMPLES]>,
    encoder: u8,
    complexity: u8,
}

#[derive(Default)]
struct Ears(Vec<Heard>);

impl MixOutput for Ears {
    fn mixed(&mut self, to: &[MixTo], timestamp: u32, _: u8, bytes: &[u8]) {
        assert!(to.len() <= TOGETHER_MAX && !to.is_empty());
        for to in to {
            let block = bytes.first_chunk::<4>().map(|index| u32::from_be_bytes(*index) as usize);
            let samples = block.map(|index| ENCODED.with_borrow(|encoded| encoded[index]));
            let (encoder, complexity) = bytes.get(4..6).map_or((0, 0), |rest| (rest[0], rest[1]));
            self.0.push(Heard { to: *to, timestamp, samples, encoder, complexity });
        }
    }
}

impl Ears {
    /// What one listener heard, in order.
    fn of(&self, member: u32) -> Vec<&Heard> {
        self.0.iter().filter(|heard| heard.to.member == StreamId(member)).collect()
    }
}

/// A channel and its codec.
struct Scene {
    mix: ChannelMix<Exact>,
    codec: Exact,
    stats: MixStats,
    ears: Ears,
    tick: u64,
}

impl Scene {
    fn new(listeners: &[u32]) -> Self {
        Self::with(listeners, MixConfig::default())
    }

    fn with(listeners: &[u32], config: MixConfig) -> Self {
        let (mut mix, mut codec) = (ChannelMix::new(config), Exact::default());
        for listener in listeners {
            mix.add_listener(StreamId(*listener), StreamId(1_000 + listener), &mut codec);
        }
        Self { mix, codec, stats: MixStats::default(), ears: Ears::default(), tick: 0 }
    }

    fn now(&self) -> Micros {
        Micros(1_000_000 + self.tick * TICK.0)
    }

    /// A frame of a speaker, whose tone has their number.
    fn say(&mut self, stream: u32, frame: u32, amplitude: u16) {
        let header = header(stream, frame);
        let bytes = packet(stream as u8, frame, amplitude);
        self.push(header, &bytes);
    }

    fn push(&mut self, header: FrameHeader, bytes: &[u8]) {
        let now = self.now();
        self.mix.push(now, header, bytes, &mut self.codec, &mut self.stats);
    }

    fn tick(&mut self) {
        self.tick += 1;
        let now = self.now();
        self.mix.tick(now, 5, &mut self.codec, &mut self.ears, &mut self.stats);
    }

    /// So many ticks in which these speak, each 20 ms a frame.
    fn speak(&mut self, speakers: &[u32], frames: std::ops::Range<u32>, amplitude: u16) {
        for frame in frames {
            speakers.iter().for_each(|speaker| self.say(*speaker, frame, amplitude));
            self.tick();
        }
    }
}

fn header(stream: u32, frame: u32) -> FrameHeader {
    FrameHeader {
        stream: StreamId(stream),
        sequence: frame as u16,
        timestamp: frame * FRAME_SAMPLES as u32,
        kind_flags: u8::from(frame == 0),
        level: 20,
    }
}

/// The power of one frequency in samples (Goertzel), as an amplitude.
fn amplitude_of(samples: &[i16], hz: f64) -> f64 {
    let coefficient = 2.0 * (TAU * hz / 48_000.0).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for sample in samples {
        (s1, s2) = (f64::from(*sample) + coefficient * s1 - s2, s1);
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    2.0 * power.max(0.0).sqrt() / samples.len() as f64
}

/// What a listener heard after the beginning, in one piece.
fn samples_of(ears: &Ears, member: u32) -> Vec<i16> {
    ears.of(member).iter().skip(20).filter_map(|heard| heard.samples).flatten().collect()
}

#[test]
fn everybody_hears_exactly_the_others() {
    let mut scene = Scene::new(&[1, 2, 9]);
    scene.speak(&[1, 2, 3], 0..100, 5_000);
    // The buffers began at one time, so all are at the same frame: the sums are known to the sample.
    let expected = |speakers: &[u8], frame: u32| -> [i16; FRAME_SAMPLES] {
        let tones: Vec<_> = speakers.iter().map(|speaker| tone(*speaker, frame, 5_000.0)).collect();
        std::array::from_fn(|n| tones.iter().map(|tone| tone[n]).sum())
    };
    for (listener, others) in [(1, &[2, 3][..]), (2, &[1, 3]), (9, &[1, 2, 3])] {
        let heard: Vec<_> = scene.ears.of(listener).into_iter().filter_map(|heard| heard.samples).collect();
        assert!(heard.len() > 90);
        for (frame, samples) in heard.iter().enumerate() {
            assert_eq!(*samples, expected(others, frame as u32), "listener {listener}, frame {frame}");
        }
    }
}

#[test]
fn ones_own_tone_is_absent_and_the_others_are_at_level() {
    let mut scene = Scene::new(&[1, 2, 9]);
    scene.speak(&[1, 2, 3], 0..200, 8_000);
    for listener in [1, 2, 9] {
        let samples = samples_of(&scene.ears, listener);
        for speaker in [1, 2, 3] {
            let amplitude = amplitude_of(&samples, frequency_hz(speaker as u8));
            if speaker == listener {
                assert!(amplitude < 8_000.0 / 1_000.0, "{listener} hears themselves: {amplitude}");
            } else {
                assert!((7_500.0..8_500.0).contains(&amplitude), "{listener} hears {speaker} at {amplitude}");
            }
        }
    }
}

#[test]
fn all_who_are_silent_share_one_encode() {
    let listeners: Vec<u32> = (100..200).collect();
    let mut scene = Scene::new(&listeners);
    scene.speak(&[1, 2], 0..50, 5_000);
    let encodes = scene.stats[MixCounter::EncodedShared];
    assert!((45..=50).contains(&encodes), "{encodes}");
    assert_eq!(scene.stats[MixCounter::EncodedOwn], 0);
    assert_eq!(scene.stats[MixCounter::FramesMixed], encodes * 100);
    assert_eq!(scene.codec.encoders, 1);
    for listener in listeners {
        let heard = scene.ears.of(listener);
        let sequences: Vec<u16> = heard.iter().map(|heard| heard.to.sequence).collect();
        assert_eq!(sequences, (0..encodes as u16).collect::<Vec<_>>());
        assert!(heard.iter().all(|heard| heard.to.mix == StreamId(1_000 + listener)));
        assert!(heard.windows(2).all(|pair| pair[1].timestamp - pair[0].timestamp == FRAME_SAMPLES as u32));
    }
}

#[test]
fn who_speaks_has_an_encoder_until_a_second_after() {
    let mut scene = Scene::new(&[1, 9]);
    scene.speak(&[1, 2], 0..50, 5_000);
    assert_eq!(scene.codec.encoders, 2, "one shared, one of their own");
    let own = scene.ears.of(1).last().expect("heard").encoder;
    scene.speak(&[2], 50..120, 5_000);
    assert_eq!(scene.ears.of(1).last().expect("heard").encoder, own, "not at once");
    scene.speak(&[2], 120..170, 5_000);
    let shared = scene.ears.of(9).last().expect("heard").encoder;
    assert_eq!(scene.ears.of(1).last().expect("heard").encoder, shared);
    assert_eq!(scene.codec.kept, 1, "given back");
    let sequences: Vec<u16> = scene.ears.of(1).iter().map(|heard| heard.to.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "one stream all the time: {sequences:?}");
}

#[test]
fn while_nobody_else_is_heard_nothing_is_sent() {
    let mut scene = Scene::new(&[1, 9]);
    scene.speak(&[1], 0..50, 5_000);
    assert!(scene.ears.of(1).is_empty(), "they alone speak");
    assert!(scene.ears.of(9).len() > 40);
    scene.speak(&[], 0..100, 0);
    let (count, last, stopped_at) = {
        let heard = scene.ears.of(9);
        let last = heard.last().expect("heard");
        assert_eq!((last.to.kind, last.samples.is_none()), (FrameKind::AudioStop, true));
        (heard.len(), last.to.sequence, last.timestamp)
    };
    scene.speak(&[], 0..100, 0);
    assert_eq!(scene.ears.of(9).len(), count);
    assert_eq!(scene.codec.encoders, scene.codec.kept, "no encoder is held for silence");
    scene.speak(&[2], 0..20, 5_000);
    let heard = scene.ears.of(9);
    assert_eq!(heard[count].to.kind, FrameKind::AudioStart);
    assert_eq!(heard[count].to.sequence, last.wrapping_add(1));
    assert!(heard[count].timestamp - stopped_at > 100 * FRAME_SAMPLES as u32, "the clock runs on");
}

#[test]
fn comfort_noise_alone_is_not_encoded() {
    let mut scene = Scene::new(&[9]);
    scene.speak(&[1], 0..100, 20);
    assert_eq!(scene.stats[MixCounter::EncodedShared], 0);
    assert!(scene.stats[MixCounter::Decoded] > 90);
}

#[test]
fn many_at_full_level_are_limited_and_not_clipped() {
    let mut scene = Scene::new(&[99]);
    let speakers: Vec<u32> = (1..=12).collect();
    scene.speak(&speakers, 0..100, 30_000);
    let samples = samples_of(&scene.ears, 99);
    let highest = samples.iter().map(|sample| i32::from(*sample).abs()).max().expect("samples");
    assert!((20_000..=LIMIT).contains(&highest), "{highest}");
    for speaker in speakers {
        assert!(amplitude_of(&samples, frequency_hz(speaker as u8)) > 1_000.0, "{speaker} is still heard");
    }
}

#[test]
fn levels_are_ones_own() {
    let mut scene = Scene::new(&[8, 9]);
    let half = Gain::from_percent(50).expect("a gain");
    assert!(scene.mix.set_level(StreamId(9), StreamId(1), half));
    assert!(scene.mix.set_level(StreamId(9), StreamId(2), Gain::from_percent(0).expect("a gain")));
    assert!(!scene.mix.set_level(StreamId(77), StreamId(1), half), "nobody");
    scene.speak(&[1, 2, 3], 0..150, 6_000);
    let levels = |listener| {
        let samples = samples_of(&scene.ears, listener);
        [1, 2, 3].map(|speaker| (amplitude_of(&samples, frequency_hz(speaker)) / 600.0).round() as u32)
    };
    assert_eq!((levels(8), levels(9)), ([10, 10, 10], [5, 0, 10]));
}

#[test]
fn the_loudest_are_mixed_where_there_are_too_many() {
    let mut scene = Scene::with(&[99], MixConfig { speakers_max: 2, ..MixConfig::default() });
    scene.speak(&[1, 2, 3], 0..100, 5_000);
    let samples = samples_of(&scene.ears, 99);
    let heard = [1, 2, 3].map(|speaker| amplitude_of(&samples, frequency_hz(speaker)) > 1_000.0);
    assert_eq!(heard, [true, true, false]);
    assert_eq!(scene.stats[MixCounter::NotSelected], 100);
    assert!(scene.mix.speakers() <= 4);
}

#[test]
fn what_was_lost_is_made_up() {
    let mut scene = Scene::new(&[9]);
    for frame in 0..200 {
        if frame % 10 != 5 {
            scene.say(1, frame, 5_000);
        }
        scene.tick();
    }
    let heard = scene.ears.of(9);
    let filled_with = |value: i16| {
        heard.iter().filter(|heard| heard.samples.is_some_and(|samples| samples == [value; FRAME_SAMPLES])).count()
    };
    let (made_up, recovered) = (filled_with(50), filled_with(60));
    assert!((18..=20).contains(&(made_up + recovered)) && recovered >= 15, "{made_up} and {recovered} of twenty");
    assert_eq!(scene.stats[MixCounter::Concealed], made_up as u64);
    assert_eq!(scene.stats[MixCounter::Recovered], recovered as u64);
    let sequences: Vec<u16> = heard.iter().map(|heard| heard.to.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "the mix has no gap");
}

#[test]
fn redundant_frames_are_taken_apart_and_fill_gaps() {
    let mut scene = Scene::new(&[9]);
    for frame in 0..100_u32 {
        if frame % 4 != 3 {
            let (newest, before) = (packet(1, frame, 5_000), packet(1, frame.saturating_sub(1), 5_000));
            let word = (960_u32 << 10) | before.len() as u32;
            let mut bytes = vec![0x80 | 111];
            bytes.extend(&word.to_be_bytes()[1..]);
            bytes.push(111);
            bytes.extend(before.iter().chain(&newest));
            let plain = header(1, frame);
            scene.push(plain.with_flag(FrameHeader::FLAG_REDUNDANT, true), &bytes);
        }
        scene.tick();
    }
    assert_eq!(scene.stats[MixCounter::Concealed], 0, "each lost frame came again");
    assert_eq!(scene.stats[MixCounter::Undecodable], 0);
    assert!(scene.stats[MixCounter::Decoded] > 90);
}

#[test]
fn what_cannot_be_decoded_is_counted_and_heard_as_silence() {
    let mut scene = Scene::new(&[9]);
    for frame in 0..20 {
        scene.push(header(1, frame), &[TOC, 1, 2]);
        scene.push(header(3, frame), &[0xff, 0xff]);
        scene.tick();
    }
    assert!(scene.stats[MixCounter::Undecodable] > 30, "{:?}", scene.stats);
    assert!(scene.ears.0.is_empty());
}

#[test]
fn without_a_codec_it_says_so() {
    let mut scene = Scene::new(&[1, 9]);
    scene.codec.encoders_max = Some(1);
    scene.speak(&[1, 2], 0..50, 5_000);
    assert!(scene.stats[MixCounter::CodecFailed] > 40);
    let heard = [1, 9].map(|listener| scene.ears.of(listener).len());
    assert!(heard.contains(&0) && heard.iter().any(|count| *count > 40), "{heard:?}");
}

#[test]
fn the_deafened_are_not_mixed_for() {
    let mut scene = Scene::new(&[9]);
    scene.mix.set_deafened(StreamId(9), true);
    scene.speak(&[1], 0..50, 5_000);
    assert!(scene.ears.0.is_empty());
    assert_eq!(scene.stats[MixCounter::EncodedShared], 0);
    scene.mix.set_deafened(StreamId(9), false);
    scene.speak(&[1], 50..60, 5_000);
    assert_eq!(scene.ears.of(9)[0].to.kind, FrameKind::AudioStart);
}

#[test]
fn effort_is_what_the_caller_says_and_everything_is_given_back() {
    let mut scene = Scene::new(&[1, 2, 9]);
    scene.speak(&[1, 2], 0..30, 5_000);
    assert!(scene.ears.0.iter().all(|heard| heard.complexity == 5));
    let Scene { mix, mut codec, .. } = scene;
    mix.close(&mut codec);
    assert_eq!((codec.decoders, codec.encoders), (0, codec.kept));
}

#[test]
fn who_is_gone_for_long_is_forgotten() {
    let mut scene = Scene::new(&[9]);
    scene.speak(&[1, 2], 0..20, 5_000);
    assert_eq!(scene.mix.speakers(), 2);
    scene.speak(&[2], 20..1_600, 5_000);
    assert_eq!((scene.mix.speakers(), scene.codec.decoders), (1, 1));
}

/// A speaker of 20 ms frames, all of which are held up for a second at one time.
fn stalled(scene: &mut Scene, seconds: u32, stall_at: u32) -> Vec<(u32, usize)> {
    let stall = stall_at * 50..(stall_at + 1) * 50;
    let mut depths = Vec::new();
    for tick in 0..seconds * 50 {
        if tick == stall.end {
            for frame in stall.clone() {
                scene.say(1, frame, 5_000);
            }
        }
        if !stall.contains(&tick) {
            scene.say(1, tick, 5_000);
        }
        scene.tick();
        depths.push((tick, scene.mix.depths().max().unwrap_or(0)));
    }
    depths
}

#[test]
fn the_buffer_is_back_at_its_target_within_two_seconds_of_a_burst() {
    let mut scene = Scene::new(&[9]);
    let depths = stalled(&mut scene, 20, 10);
    let before = depths[400..500].iter().map(|(_, depth)| *depth).max().expect("ticks");
    let highest = depths[550..].iter().map(|(_, depth)| *depth).max().expect("ticks");
    assert!(highest >= 45, "a second came at once: {highest}");
    // Two seconds after the burst came, and from then on.
    let after = depths[650..].iter().map(|(_, depth)| *depth).max().expect("ticks");
    assert!(after <= before + 1, "{after} frames, {before} before");
    let stats = scene.mix.jitter(StreamId(1)).expect("known");
    assert!(stats.skipped >= 40 && stats.overflowed == 0, "{stats:?}");
    assert_eq!(scene.stats[MixCounter::Skipped], stats.skipped);
}

#[test]
fn a_bad_network_is_waited_for_and_heard_without_gaps() {
    let mut network = Network::new(
        NetworkConfig { delay: Micros::from_millis(50), jitter: Micros::from_millis(30), ..NetworkConfig::default() },
        7,
    );
    let mut scene = Scene::new(&[9]);
    for tick in 0..3_000_u32 {
        let now = scene.now();
        network.send(now, tick);
        scene.tick();
        let until = scene.now();
        while let Some(at) = network.poll_timeout().filter(|at| *at <= until) {
            let frame = network.receive(at).expect("it arrived");
            let (header, bytes) = (header(1, frame), packet(1, frame, 5_000));
            scene.mix.push(at, header, &bytes, &mut scene.codec, &mut scene.stats);
        }
    }
    let concealed = scene.stats[MixCounter::Concealed];
    assert!(concealed < 100, "{concealed} of 3000 made up");
    assert!(scene.ears.of(9).len() > 2_900);
}
