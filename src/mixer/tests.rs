//! The mixer with media workers of its own.

use antiphon_core::{
    engine::{Command as EngineCommand, Event, GatewayFrame, Hears, MemberFlags},
    gateway::ErrorCode,
    ids::UserId,
    wire::frame::FrameKind,
};
use uuid::Uuid;

use super::*;
use crate::media::MediaConfig;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn channel() -> ChannelId {
    ChannelId(Uuid::from_u128(5))
}

fn start(config: MixerConfig) -> (Media, Mixer, mpsc::Receiver<Event>) {
    let inlets = MixInlets::new(2);
    let (media, events) =
        Media::start(MediaConfig { workers: 1, mix: Some(inlets.clone()), ..MediaConfig::default() }).expect("starts");
    let mixer = Mixer::start(config, inlets, &media).expect("starts");
    (media, mixer, events)
}

/// A packet of 20 ms with a tone.
fn packet(encoder: &mut opus::Encoder, frame: usize) -> Vec<u8> {
    let samples: Vec<i16> = (0..960)
        .map(|n| (((frame * 960 + n) as f32 / 48_000.0 * 500.0 * std::f32::consts::TAU).sin() * 8_000.0) as i16)
        .collect();
    encoder.encode_vec(&samples, 400).expect("encodes")
}

#[tokio::test]
async fn what_one_says_comes_to_a_listener_as_their_mix() {
    let (media, mixer, mut events) = start(MixerConfig::default());
    let (home, speaker, listener, mix) = (WorkerIndex(0), StreamId(1), StreamId(2), StreamId(77));
    let (channel, flags) = (channel(), MemberFlags::default());
    media.send(home, EngineCommand::OpenChannel { channel, max_speakers: 0 }).await;
    for command in [
        EngineCommand::AddMember {
            channel,
            stream: speaker,
            udp: None,
            hears: Hears::Streams,
            flags,
            last_sequence: None,
        },
        EngineCommand::AddMember {
            channel,
            stream: listener,
            udp: None,
            hears: Hears::Mix,
            flags,
            last_sequence: None,
        },
    ] {
        media.send(home, command).await;
    }
    mixer.add(channel, home, listener, mix).await;
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("an encoder");
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).expect("a decoder");
    let (mut heard, mut loudest, mut ticks) = (Vec::new(), 0, tokio::time::interval(Duration::from_millis(20)));
    let mut frame = 0_usize;
    let listening = async {
        while heard.len() < 25 {
            tokio::select! {
                _ = ticks.tick() => {
                    let bytes = packet(&mut encoder, frame);
                    let frame_said = GatewayFrame {
                        sequence: Some(frame as u16), timestamp: Some(frame as u32 * 960), kind: 0, level: 20, bytes,
                    };
                    assert!(media.try_frame(home, EngineCommand::Frame { channel, stream: speaker, frame: frame_said }));
                    frame += 1;
                }
                event = events.recv() => if let Some(Event::TunnelMix { member, header, bytes, .. }) = event {
                    assert_eq!((member, header.stream), (listener, mix));
                    let mut samples = [0_i16; 5_760];
                    let length = decoder.decode(bytes.as_slice(), &mut samples, false).expect("Opus");
                    loudest = samples[..length].iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0).max(loudest);
                    heard.push(header);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("it is heard");
    assert_eq!(heard[0].kind(), Some(FrameKind::AudioStart));
    assert!(heard.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
    assert!((5_000..12_000).contains(&loudest), "{loudest}");
    mixer.remove(channel, listener).await;
    mixer.stop().await;
    media.stop().await;
}

#[tokio::test]
async fn seats_are_limited_and_given_back() {
    let (media, mixer, _events) = start(MixerConfig { listeners_max: 2, ..MixerConfig::default() });
    let seats = [mixer.take_seat(channel(), None).expect("a seat"), mixer.take_seat(channel(), None).expect("a seat")];
    let refused = mixer.take_seat(channel(), None).expect_err("full");
    assert_eq!(refused.code, ErrorCode::LimitReached);
    assert!(refused.message.contains("mixer.listeners_max") && refused.message.contains("forward"), "{refused}");
    let sitter = Sitter { user: UserId(Uuid::from_u128(1)), address: None };
    let moved = mixer.take_over_seat(sitter).expect("twice as many");
    assert_eq!(mixer.listeners(), 3, "who had one elsewhere has one here");
    drop((seats, moved));
    assert_eq!(mixer.listeners(), 0);
    mixer.take_seat(channel(), None).expect("a seat");
    media.stop().await;
}

#[tokio::test]
async fn a_thread_that_cannot_keep_up_takes_nobody() {
    let (media, mixer, _events) = start(MixerConfig::default());
    let thread = mixer.inner.inlets.thread_of(channel());
    mixer.inner.shown[thread].set(Shed::Refusing);
    let refused = mixer.take_seat(channel(), None).expect_err("busy");
    assert_eq!(refused.code, ErrorCode::TemporarilyUnavailable);
    let other = (0..)
        .map(|n| ChannelId(Uuid::from_u128(n << 64 | n)))
        .find(|other| mixer.inner.inlets.thread_of(*other) != thread);
    mixer.take_seat(other.expect("one of the other thread"), None).expect("the other thread has time");
    mixer.inner.shown[thread].set(Shed::Least);
    mixer.take_seat(channel(), None).expect("it encodes with less effort, and goes on");
    media.stop().await;
}

#[tokio::test]
async fn threads_end_with_their_last_handle() {
    let (media, mixer, _events) = start(MixerConfig::default());
    mixer.add(channel(), WorkerIndex(0), StreamId(1), StreamId(2)).await;
    let threads = std::mem::take(&mut *mixer.inner.threads.lock().expect("whole"));
    drop(mixer);
    let ended = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
    assert!(tokio::time::timeout(PATIENCE, ended).await.expect("they end").expect("joined"));
    media.stop().await;
}
