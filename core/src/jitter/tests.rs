//! The buffer against a sender and a network in virtual time.

use super::*;
use crate::{
    ids::StreamId,
    netsim::{Network, NetworkConfig},
};

const TICK: Micros = Micros::from_millis(20);
/// One byte of an Opus packet that lasts 20 ms, 10 ms, 60 ms.
const TOC_20: u8 = 1 << 3;
const TOC_10: u8 = 0;
const TOC_60: u8 = 3 << 3;

fn header(kind: FrameKind, sequence: u16, timestamp: u32) -> FrameHeader {
    FrameHeader { stream: StreamId(1), sequence, timestamp, kind_flags: kind as u8, level: 30 }
}

/// A frame as it travels: its header, and when it was made.
type Sent = (FrameHeader, &'static [u8]);

/// What a listener hears, tick by tick.
#[derive(Default)]
struct Heard {
    /// Sequence numbers in the order of playing.
    played: Vec<u16>,
    /// Sum of concealed frames.
    concealed: u64,
    /// From the making of each played frame to its playing.
    delays: Vec<Micros>,
}

impl Heard {
    fn share_played(&self, of: usize) -> f64 {
        self.played.len() as f64 / of as f64
    }
}

/// A talk spurt of `count` frames of 20 ms from `at` on: first frame marked, last one a stop.
fn spurt(at: Micros, count: u16, sequence: u16, timestamp: u32) -> Vec<(Micros, Sent)> {
    (0..count)
        .map(|number| {
            let kind = match number {
                0 => FrameKind::AudioStart,
                number if number == count - 1 => FrameKind::AudioStop,
                _ => FrameKind::Audio,
            };
            let timestamp = timestamp.wrapping_add(u32::from(number) * 960);
            let sent: Sent = (header(kind, sequence.wrapping_add(number), timestamp), &[TOC_20, 1, 2]);
            (at + Micros(u64::from(number) * TICK.0), sent)
        })
        .collect()
}

/// Plays what a network makes of `sent`, asking the buffer every 20 ms, out of step with the sender.
fn listen(buffer: &mut JitterBuffer, network: NetworkConfig, seed: u64, sent: &[(Micros, Sent)]) -> Heard {
    let mut network = Network::new(network, seed);
    let mut heard = Heard::default();
    let end = sent.last().expect("something is sent").0 + Micros::from_secs(2);
    let mut pending = sent.iter().peekable();
    let mut tick = Micros::from_millis(7);
    while tick < end {
        while let Some((at, frame)) = pending.next_if(|(at, _)| *at <= tick) {
            deliver(buffer, &mut network, *at);
            network.send(*at, (*at, *frame));
        }
        deliver(buffer, &mut network, tick);
        match buffer.pop(tick) {
            Playout::Play(frame) => {
                heard.played.push(frame.header.sequence);
                let made = sent.iter().find(|(_, sent)| sent.0.sequence == frame.header.sequence);
                heard.delays.push(tick - made.expect("only what was sent is played").0);
            }
            Playout::Conceal { .. } => heard.concealed += 1,
            Playout::Silence => {}
        }
        tick = tick + TICK;
    }
    heard
}

fn deliver(buffer: &mut JitterBuffer, network: &mut Network<(Micros, Sent)>, until: Micros) {
    while let Some(at) = network.poll_timeout().filter(|at| *at <= until) {
        let (_, (header, bytes)) = network.receive(at).expect("it has arrived");
        buffer.push(at, header, bytes);
    }
}

fn sequences(sent: &[(Micros, Sent)]) -> Vec<u16> {
    sent.iter().map(|(_, (header, _))| header.sequence).collect()
}

#[test]
fn a_perfect_network_plays_everything_with_little_delay() {
    let sent = spurt(Micros::ZERO, 500, 0, 0);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!(heard.played, sequences(&sent));
    assert_eq!(heard.concealed, 0);
    assert!(heard.delays.iter().all(|delay| *delay <= Micros::from_millis(60)), "{:?}", heard.delays.iter().max());
    let stats = buffer.stats();
    assert_eq!((stats.received, stats.played, stats.spurts, stats.expected()), (500, 500, 1, 500));
}

#[test]
fn each_lost_frame_is_concealed_once_and_delays_nothing() {
    let sent = spurt(Micros::ZERO, 1_000, 0, 0);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig { loss: 0.05, ..Default::default() }, 1, &sent);
    let stats = buffer.stats();
    assert_eq!(stats.received + stats.lost, 1_000, "a lost first or last frame would show here");
    assert_eq!((stats.lost, heard.concealed), (stats.concealed, stats.lost));
    assert!(stats.lost > 30);
    assert!(heard.delays.iter().all(|delay| *delay <= Micros::from_millis(60)), "{:?}", heard.delays.iter().max());
}

#[test]
fn reordered_frames_are_put_in_order() {
    let sent = spurt(Micros::ZERO, 2_000, 0, 0);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let network = NetworkConfig { reorder: 0.1, reorder_delay: Micros::from_millis(50), ..Default::default() };
    let heard = listen(&mut buffer, network, 1, &sent);
    assert!(heard.played.windows(2).all(|pair| pair[0] < pair[1]));
    // The first few come too late; by then the stream has waited long enough for the rest.
    assert!(heard.share_played(sent.len()) > 0.99, "{:?}", buffer.stats());
}

#[test]
fn duplicates_are_dropped_and_counted() {
    let sent = spurt(Micros::ZERO, 500, 0, 0);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let network = NetworkConfig { duplicate: 0.3, reorder: 0.3, ..Default::default() };
    let heard = listen(&mut buffer, network, 1, &sent);
    assert!(heard.played.windows(2).all(|pair| pair[0] < pair[1]));
    let stats = buffer.stats();
    assert!(stats.duplicates > 100);
    assert_eq!(stats.received, 500);
}

#[test]
fn the_delay_follows_the_network() {
    let spurts: Vec<_> = (0..20_u16)
        .flat_map(|n| {
            spurt(Micros::from_secs(3) + Micros::from_secs(u64::from(n) * 4), 150, n * 150, u32::from(n) * 192_000)
        })
        .collect();
    let jitter = Micros::from_millis(100);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig { jitter, ..Default::default() }, 1, &spurts);
    assert!(heard.share_played(spurts.len()) > 0.99, "{:?}", buffer.stats());
    assert!((60_000..=120_000).contains(&buffer.target_delay().0), "{:?}", buffer.target_delay());
    // Concealment is for the unusual: less than one frame in fifty once the delay is known.
    assert!(heard.concealed < spurts.len() as u64 / 50, "{} of {}", heard.concealed, spurts.len());
    // When the network calms down, so does the delay.
    let calm = spurt(Micros::from_secs(90), 3_000, 3_000, 5_000_000);
    listen(&mut buffer, NetworkConfig::default(), 1, &calm);
    assert_eq!(buffer.target_delay(), JitterConfig::default().delay_min);
}

#[test]
fn numbers_and_clocks_wrap_around() {
    let sent = spurt(Micros::ZERO, 400, u16::MAX - 150, u32::MAX - 960 * 170);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let network = NetworkConfig { reorder: 0.2, reorder_delay: Micros::from_millis(25), ..Default::default() };
    let heard = listen(&mut buffer, network, 4, &sent);
    let from_start = |sequence: &u16| sequence.wrapping_sub(u16::MAX - 150);
    assert!(heard.played.iter().map(from_start).is_sorted());
    assert!(heard.share_played(sent.len()) > 0.98, "{:?}", buffer.stats());
    assert!(heard.delays.iter().all(|delay| *delay < Micros::from_millis(100)));
}

#[test]
fn a_jump_of_numbers_is_a_new_spurt_and_no_loss() {
    let second = Micros::from_secs(2);
    for (jump, kind) in [(20, FrameKind::AudioStart), (5_000, FrameKind::Audio), (40_000, FrameKind::Audio)] {
        let mut sent = spurt(Micros::ZERO, 50, 0, 0);
        let mut after = spurt(second, 50, 50 + jump, 96_000);
        after[0].1.0.kind_flags = kind as u8;
        sent.append(&mut after);
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
        assert_eq!(heard.played, sequences(&sent));
        assert_eq!((buffer.stats().lost, heard.concealed, buffer.stats().spurts), (0, 0, 2), "{jump} {kind:?}");
    }
}

#[test]
fn a_jump_within_a_spurt_loses_nothing_of_what_waits() {
    let mut sent = spurt(Micros::ZERO, 50, 0, 0);
    sent.pop();
    let mut after = spurt(Micros(49 * TICK.0), 50, 9_000, 777_777);
    after[0].1.0.kind_flags = FrameKind::Audio as u8;
    sent.append(&mut after);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!(heard.played, sequences(&sent));
    assert_eq!(buffer.stats().lost, 0);
}

#[test]
fn a_small_gap_of_numbers_between_spurts_is_loss() {
    let mut sent = spurt(Micros::ZERO, 50, 0, 0);
    let mut after = spurt(Micros::from_secs(2), 50, 53, 96_000);
    after[0].1.0.kind_flags = FrameKind::Audio as u8;
    sent.append(&mut after);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!((buffer.stats().lost, buffer.stats().expected()), (3, 103));
}

#[test]
fn after_a_stop_there_is_silence_and_without_one_a_little_concealment() {
    let mut sent = spurt(Micros::ZERO, 50, 0, 0);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    assert_eq!(listen(&mut buffer, NetworkConfig::default(), 1, &sent).concealed, 0);
    sent.pop();
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!(heard.concealed, u64::from(JitterConfig::default().conceal_run_max));
    assert_eq!(buffer.stats().lost, 0);
}

#[test]
fn empty_marks_play_nothing() {
    let at = |tick: u64| Micros(tick * TICK.0);
    let sent: Vec<(Micros, Sent)> = vec![
        (at(0), (header(FrameKind::AudioStart, 0, 0), &[])),
        (at(0), (header(FrameKind::Audio, 1, 0), &[TOC_20])),
        (at(1), (header(FrameKind::Audio, 2, 960), &[TOC_20])),
        (at(2), (header(FrameKind::AudioStop, 3, 1_920), &[])),
        (at(20), (header(FrameKind::Silence, 4, 19_200), &[])),
        (at(40), (header(FrameKind::Silence, 5, 38_400), &[TOC_20])),
    ];
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!((heard.played, heard.concealed), (vec![1, 2, 5], 0));
    assert_eq!((buffer.stats().lost, buffer.stats().spurts), (0, 1));
}

#[test]
fn surplus_comfort_noise_that_was_left_out_is_no_loss() {
    let mut sent = spurt(Micros::ZERO, 20, 0, 0);
    for number in (31..150).step_by(20) {
        let frame: Sent = (header(FrameKind::Silence, number, u32::from(number) * 960), &[TOC_20]);
        sent.push((Micros(u64::from(number) * TICK.0), frame));
    }
    let mut after = spurt(Micros(150 * TICK.0), 20, 150, 150 * 960);
    after[0].1.0.kind_flags = FrameKind::Audio as u8;
    sent.append(&mut after);
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!((heard.played, heard.concealed), (sequences(&sent), 0));
    assert_eq!((buffer.stats().lost, buffer.stats().spurts), (0, 2));
}

#[test]
fn silence_within_a_stream_is_not_concealed() {
    // Discontinuous transmission: numbers go on, the sample clock leaps.
    let mut sent = spurt(Micros::ZERO, 20, 0, 0);
    sent.pop();
    for (number, tick) in [(19, 21_u64), (20, 22), (21, 40), (22, 41)] {
        let frame: Sent = (header(FrameKind::Audio, number, tick as u32 * 960), &[TOC_20]);
        sent.push((Micros(tick * TICK.0), frame));
    }
    let mut buffer = JitterBuffer::new(JitterConfig { conceal_run_max: 0, ..Default::default() });
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    assert_eq!((heard.played, heard.concealed), (sequences(&sent), 0));
}

#[test]
fn frames_of_other_lengths_fill_ticks() {
    for (toc, samples) in [(TOC_10, 480), (TOC_60, 2_880)] {
        let mut buffer = JitterBuffer::new(JitterConfig::recording());
        for number in 0..12_u16 {
            let at = Micros(u64::from(number) * u64::from(samples) * 125 / 6);
            let frame = header(FrameKind::Audio, number, u32::from(number) * samples);
            assert_eq!(buffer.push(at, frame, &[toc]), Arrival::Queued);
        }
        let (mut now, mut total, mut wanted) = (Micros::from_secs(1), 0, 0);
        while buffer.depth() > 0 {
            wanted += 960;
            while total < wanted {
                match buffer.pop(now) {
                    Playout::Play(frame) => total += frame.samples,
                    Playout::Conceal { samples } => total += samples,
                    Playout::Silence => break,
                }
            }
            now = now + TICK;
        }
        assert_eq!((total, buffer.stats().played, buffer.stats().concealed), (12 * samples, 12, 0));
    }
}

#[test]
fn late_frames_are_dropped_and_counted() {
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let frame = |number: u16| header(FrameKind::Audio, number, u32::from(number) * 960);
    for number in [0, 1, 3, 4, 5] {
        buffer.push(Micros::ZERO, frame(number), &[TOC_20]);
    }
    let mut now = Micros::from_millis(100);
    for expected in [Some(0), Some(1), None, Some(3)] {
        match buffer.pop(now) {
            Playout::Play(played) => assert_eq!(Some(played.header.sequence), expected),
            other => assert_eq!((other, expected), (Playout::Conceal { samples: 960 }, None)),
        }
        now = now + TICK;
    }
    assert_eq!(buffer.push(now, frame(2), &[TOC_20]), Arrival::Late);
    assert_eq!(buffer.push(now, frame(2), &[TOC_20]), Arrival::Duplicate);
    assert_eq!(buffer.push(now, frame(0), &[TOC_20]), Arrival::Duplicate);
    let stats = buffer.stats();
    assert_eq!((stats.late, stats.lost, stats.duplicates, stats.expected()), (1, 1, 2, 6));
}

#[test]
fn the_packet_behind_a_lost_one_is_at_hand() {
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    for number in [0, 1, 3, 4, 7] {
        let bytes = [TOC_20, number as u8];
        buffer.push(Micros::ZERO, header(FrameKind::Audio, number, u32::from(number) * 960), &bytes);
    }
    let mut now = Micros::from_millis(100);
    let mut following = Vec::new();
    for _ in 0..7 {
        if let Playout::Conceal { .. } = buffer.pop(now) {
            following.push(buffer.following().map(|bytes| bytes[1]));
        }
        now = now + TICK;
    }
    // Of two lost in a row only the second one has its successor there.
    assert_eq!(following, [Some(3), None, Some(7)]);
}

#[test]
fn what_is_no_frame_is_refused() {
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let unknown = FrameHeader { kind_flags: 9, ..header(FrameKind::Audio, 0, 0) };
    assert_eq!(buffer.push(Micros::ZERO, unknown, &[1]), Arrival::Refused);
    assert_eq!(buffer.push(Micros::ZERO, header(FrameKind::Audio, 0, 0), &[]), Arrival::Refused);
    assert_eq!(buffer.push(Micros::ZERO, header(FrameKind::Audio, 0, 0), &[0; FRAME_BYTES_MAX + 1]), Arrival::Refused);
    assert_eq!(buffer.push(Micros::ZERO, header(FrameKind::Audio, 0, 0), &[0; FRAME_BYTES_MAX]), Arrival::Queued);
    assert_eq!(buffer.stats().refused, 3);
}

#[test]
fn a_buffer_that_nobody_asks_stays_bounded() {
    let mut buffer = JitterBuffer::new(JitterConfig { frames_max: 10, ..Default::default() });
    for number in 0..1_000_u16 {
        buffer.push(
            Micros(u64::from(number) * TICK.0),
            header(FrameKind::Audio, number, u32::from(number) * 960),
            &[1],
        );
    }
    assert_eq!((buffer.depth(), buffer.stats().overflowed), (10, 990));
    assert!(buffer.spare.len() <= 11);
    let Playout::Play(first) = buffer.pop(Micros::from_secs(60)) else { panic!("the newest ten wait") };
    assert_eq!(first.header.sequence, 990);
    assert_eq!(buffer.stats().lost, 0);
}

#[test]
fn delay_that_a_stall_brought_is_got_rid_of() {
    let mut sent = spurt(Micros::ZERO, 3_000, 0, 0);
    let stall = 200..215;
    // Fifteen frames come at once, 300 ms late, and the player has nothing meanwhile.
    for (at, _) in &mut sent[stall.clone()] {
        *at = Micros(stall.end as u64 * TICK.0);
    }
    for (number, frame) in sent.iter_mut().enumerate() {
        frame.1.0.level = if number % 50 < 5 { 80 } else { 30 };
    }
    let mut buffer = JitterBuffer::new(JitterConfig::default());
    let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
    let stats = buffer.stats();
    assert!(stats.skipped > 0, "{stats:?}");
    assert_eq!(stats.played + stats.skipped, 3_000, "{stats:?}");
    let last = heard.delays[heard.delays.len() - 1];
    assert!(last <= Micros::from_millis(100), "{last:?}");
}

#[test]
fn a_recording_keeps_every_frame_whatever_the_network_does_to_time() {
    let mut sent = spurt(Micros::ZERO, 1_000, 0, 0);
    let stall = 200..260;
    for (at, _) in &mut sent[stall.clone()] {
        *at = Micros(stall.end as u64 * TICK.0);
    }
    let network =
        NetworkConfig { jitter: Micros::from_millis(150), reorder: 0.05, duplicate: 0.05, ..Default::default() };
    let mut buffer = JitterBuffer::new(JitterConfig::recording());
    let heard = listen(&mut buffer, network, 2, &sent);
    assert_eq!(heard.played, sequences(&sent));
    assert_eq!(buffer.stats().skipped, 0);
}

#[test]
fn a_faster_or_slower_clock_of_the_sender_is_followed() {
    for (step_us, most_concealed) in [(19_990, 0), (20_010, 10)] {
        // 500 ppm for 100 s: 50 ms in all.
        let mut sent = spurt(Micros::ZERO, 5_000, 0, 0);
        for (number, (at, frame)) in sent.iter_mut().enumerate() {
            *at = Micros(number as u64 * step_us);
            frame.0.level = if number % 100 < 10 { 90 } else { 30 };
        }
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        let heard = listen(&mut buffer, NetworkConfig::default(), 1, &sent);
        let stats = buffer.stats();
        assert_eq!(stats.played + stats.skipped, 5_000, "{stats:?}");
        assert!(heard.concealed <= most_concealed, "{stats:?}");
        let last = heard.delays[heard.delays.len() - 1];
        assert!(last <= Micros::from_millis(120), "{last:?}");
    }
}
