//! What mixing costs: processor time of one participant for one second, decoding and encoding included, in channels of
//! several sizes of which some or all speak. `cargo bench -p antiphon --bench mixing`.
//!
//! Sealing and sending, some 0.2 ms a second for each, are the media workers' and not in it.

#![allow(clippy::print_stdout, reason = "a bench shows its figures")]

use antiphon::mixer::OpusCodec;
use antiphon_core::{
    clock::Micros,
    ids::StreamId,
    mix::{ChannelMix, MixConfig, MixCounter, MixOutput, MixStats, MixTo, TICK},
    wire::frame::FrameHeader,
};
use rustix::time::{ClockId, clock_gettime};

/// Virtual seconds of each case.
const SECONDS: u32 = 20;
/// As the settings have it.
const BITRATE: u32 = 40_000;

/// Everybody hears a mix.
struct Case {
    participants: u32,
    speaking: u32,
    complexity: u8,
}

#[derive(Default)]
struct Sink {
    frames: u64,
    bytes: u64,
}

impl MixOutput for Sink {
    fn mixed(&mut self, to: &[MixTo], _: u32, _: u8, bytes: &[u8]) {
        self.frames += to.len() as u64;
        self.bytes += bytes.len() as u64;
    }
}

/// Processor time of this thread.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}

/// A minute of somebody's packets: syllables of a voice-like buzz, each speaker at another pitch.
fn speech(speaker: u32) -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("an encoder");
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).expect("a bitrate");
    let pitch_hz = 90.0 + 17.0 * speaker as f32;
    let frame = |number: u32| -> Vec<i16> {
        let sample = |n: u32| {
            let t = (number * 960 + n) as f32 / 48_000.0;
            let pulse = (t * pitch_hz).fract() * 2.0 - 1.0;
            let syllable = (t * 3.0 * std::f32::consts::TAU).sin().max(0.05);
            ((pulse * 0.5 + (t * pitch_hz * 7.3 * std::f32::consts::TAU).sin() * 0.3) * syllable * 9_000.0) as i16
        };
        (0..960).map(sample).collect()
    };
    (0..50 * SECONDS).map(|number| encoder.encode_vec(&frame(number), 400).expect("encodes")).collect()
}

/// Milliseconds of processor time for each participant and second.
fn run(case: &Case, voices: &[Vec<Vec<u8>>]) -> (f64, MixStats) {
    let mut codec = OpusCodec::new(BITRATE);
    let config = MixConfig { speakers_max: case.speaking.max(1), ..MixConfig::default() };
    let (mut mix, mut stats, mut sink) = (ChannelMix::new(config), MixStats::default(), Sink::default());
    for participant in 1..=case.participants {
        mix.add_listener(StreamId(participant), StreamId(10_000 + participant), &mut codec);
    }
    let begun = cpu_us();
    for frame in 0..50 * SECONDS {
        let now = Micros(1_000_000 + u64::from(frame) * TICK.0);
        for speaker in 1..=case.speaking {
            let header = FrameHeader {
                stream: StreamId(speaker),
                sequence: frame as u16,
                timestamp: frame * 960,
                kind_flags: u8::from(frame == 0),
                level: 25,
            };
            mix.push(now, header, &voices[speaker as usize - 1][frame as usize], &mut codec, &mut stats);
        }
        mix.tick(now + TICK, case.complexity, &mut codec, &mut sink, &mut stats);
    }
    let used_ms = (cpu_us() - begun) as f64 / 1_000.0;
    assert!(sink.frames > u64::from(case.participants - case.speaking.min(1)) * 45 * u64::from(SECONDS));
    (used_ms / f64::from(case.participants) / f64::from(SECONDS), stats)
}

fn main() {
    let voices: Vec<_> = (1..=10).map(speech).collect();
    println!("participants  speaking  complexity  ms CPU/participant/s  participants/core  decoded/s  encoded/s");
    for (participants, speaking) in [(10, 1), (10, 3), (10, 10), (50, 3), (200, 3), (200, 10)] {
        for complexity in [5, 2, 0] {
            let case = Case { participants, speaking, complexity };
            let (cost, stats) = run(&case, &voices);
            let per_s = |count: u64| count / u64::from(SECONDS);
            let encoded = stats[MixCounter::EncodedShared] + stats[MixCounter::EncodedOwn];
            println!(
                "{participants:>12}  {speaking:>8}  {complexity:>10}  {cost:>20.3}  {:>17.0}  {:>9}  {:>9}",
                1_000.0 / cost,
                per_s(stats[MixCounter::Decoded]),
                per_s(encoded),
            );
        }
    }
    println!("target 2.3 ms; Janus 1.1.2 AudioBridge, 48 kHz, measured on such a machine: 7 ms");
}
