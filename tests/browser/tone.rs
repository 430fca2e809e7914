//! A native client that says a tone, and hears which one is said.

use std::{f32::consts::TAU, time::Duration};

use antiphon_core::{ids::StreamId, wire::frame::FrameKind};
use antiphon_loadtest::{
    audio::{EncoderHint, FrameEncoder},
    client::{ClientEvent, VoiceFrame},
};

use crate::{chromium::PATIENCE, support::people::Person};

const RATE_HZ: f32 = 48_000.0;
const FRAME: usize = 960;

/// Frames of a tone, 20 ms each.
pub(crate) fn tone(hz: f32, frames: usize) -> Vec<Vec<u8>> {
    let mut encoder = FrameEncoder::new(1, EncoderHint::speech(1)).expect("an encoder");
    let sample = |n: usize| 0.4 * (TAU * hz * n as f32 / RATE_HZ).sin();
    let frame = |index: usize| (0..FRAME).map(|n| sample(index * FRAME + n)).collect::<Vec<f32>>();
    let mut encode = |index| encoder.encode(&frame(index)).expect("encodes").map(<[u8]>::to_vec);
    (0..frames).filter_map(&mut encode).collect()
}

/// Says frames in real time.
pub(crate) async fn say(person: &Person, frames: &[Vec<u8>]) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for (number, bytes) in frames.iter().enumerate() {
        ticks.tick().await;
        let kind = if number == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
        let timestamp = u32::try_from(number * FRAME).expect("short");
        let frame = VoiceFrame { kind, flags: 0, level: 20, timestamp, bytes: bytes.clone() };
        person.client.send(person.channel(), frame).await.expect("sent");
    }
}

/// Hears so many frames of somebody; the frequency that carries most of their energy.
pub(crate) async fn hear(person: &mut Person, stream: StreamId, frames: usize) -> f32 {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).expect("a decoder");
    let (mut samples, mut pcm, mut count) = (Vec::new(), vec![0_f32; 5_760], 0);
    let listening = async {
        while count < frames {
            let ClientEvent::Frame(frame) = person.events.recv().await.expect("goes on") else { continue };
            if frame.header.stream != stream || frame.bytes.is_empty() {
                continue;
            }
            count += 1;
            let decoded = decoder.decode_float(&frame.bytes, &mut pcm, false).expect("Opus");
            samples.extend_from_slice(&pcm[..decoded]);
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("frames are heard");
    loudest_hz(&samples[samples.len() / 2..])
}

/// The frequency, from 100 to 4,000 Hz in steps of 10, with the most energy (Goertzel).
fn loudest_hz(samples: &[f32]) -> f32 {
    let power = |hz: f32| {
        let coefficient = 2.0 * (TAU * hz / RATE_HZ).cos();
        let (one, two) =
            samples.iter().fold((0.0_f32, 0.0_f32), |(one, two), sample| (sample + coefficient * one - two, one));
        one * one + two * two - coefficient * one * two
    };
    let candidates = (10..400).map(|step| step as f32 * 10.0);
    candidates.max_by(|one, other| power(*one).total_cmp(&power(*other))).expect("some")
}

#[test]
fn a_tone_is_found_by_its_frequency() {
    let samples: Vec<f32> = (0..9_600).map(|n| (TAU * 880.0 * n as f32 / RATE_HZ).sin()).collect();
    assert_eq!(loudest_hz(&samples), 880.0);
}
