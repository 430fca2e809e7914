//! Properties of the jitter buffer and of the network emulator that is used to test it.

use antiphon_core::{
    clock::Micros,
    ids::StreamId,
    jitter::{Arrival, JitterBuffer, JitterConfig, Playout},
    netsim::{Network, NetworkConfig},
    wire::frame::FrameHeader,
};
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Operation {
    Push { sequence: u16, timestamp: u32, kind_flags: u8, level: u8, length: usize },
    Pop,
    Wait(u64),
}

/// Anything a hostile member could make a node forward, at any time.
fn hostile() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (any::<(u16, u32, u8, u8)>(), 0..40_usize).prop_map(|((sequence, timestamp, kind_flags, level), length)| {
            Operation::Push { sequence, timestamp, kind_flags, level, length }
        }),
        4 => (0..300_u16, 0..5_u8, 0..40_usize).prop_map(|(sequence, kind_flags, length)| {
            Operation::Push { sequence, timestamp: u32::from(sequence) * 960, kind_flags, level: 70, length }
        }),
        4 => Just(Operation::Pop),
        2 => (0..200_000_u64).prop_map(Operation::Wait),
    ]
}

fn header(sequence: u16, timestamp: u32, kind_flags: u8, level: u8) -> FrameHeader {
    FrameHeader { stream: StreamId(1), sequence, timestamp, kind_flags, level }
}

proptest! {
    #[test]
    fn whatever_comes_is_borne_and_bounded(operations in vec(hostile(), 0..400), frames_max in 1..50_usize) {
        let mut buffer = JitterBuffer::new(JitterConfig { frames_max, ..Default::default() });
        let mut now = Micros::from_secs(1);
        let (mut pushes, mut played, mut empty) = (0, 0, 0);
        for operation in operations {
            match operation {
                Operation::Push { sequence, timestamp, kind_flags, level, length } => {
                    pushes += 1;
                    let arrival = buffer.push(now, header(sequence, timestamp, kind_flags, level), &vec![8; length]);
                    empty += u64::from(length == 0 && arrival == Arrival::Queued);
                }
                Operation::Pop => {
                    if let Playout::Play(frame) = buffer.pop(now) {
                        prop_assert!(!frame.bytes.is_empty());
                        played += 1;
                    }
                }
                Operation::Wait(us) => now = now + Micros(us),
            }
            prop_assert!(buffer.depth() <= frames_max);
        }
        let stats = buffer.stats();
        prop_assert_eq!(stats.played, played);
        prop_assert_eq!(stats.received + stats.duplicates + stats.refused, pushes);
        // Every frame is somewhere: out, waiting, or counted as dropped; empty marks go without a count.
        let accounted = stats.played + stats.late + stats.overflowed + stats.skipped + buffer.depth() as u64;
        prop_assert!(accounted <= stats.received && stats.received <= accounted + empty, "{stats:?}");
    }

    /// Frames of one sender over a bad network: played at most once, in order, and each is played or counted.
    #[test]
    fn frames_come_out_once_and_in_order(
        seed in any::<u64>(),
        (loss, reorder, duplicate) in (0.0..0.3, 0.0..0.3, 0.0..0.3),
        jitter_ms in 0..200_u64,
        first in any::<(u16, u32)>(),
    ) {
        let config = NetworkConfig {
            loss,
            reorder,
            duplicate,
            jitter: Micros::from_millis(jitter_ms),
            reorder_delay: Micros::from_millis(60),
            ..Default::default()
        };
        let mut network = Network::new(config, seed);
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        let mut last = None;
        let mut now = Micros::ZERO;
        for number in 0..600_u16 {
            if number < 500 {
                let sequence = first.0.wrapping_add(number);
                network.send(now, header(sequence, first.1.wrapping_add(u32::from(number) * 960), 0, 30));
            }
            while let Some(header) = network.receive(now) {
                buffer.push(now, header, &[8, 1]);
            }
            if let Playout::Play(frame) = buffer.pop(now) {
                let place = frame.header.sequence.wrapping_sub(first.0);
                prop_assert!(last < Some(place), "{place} after {last:?}");
                last = Some(place);
            }
            now = now + Micros::from_millis(20);
        }
        let (stats, sent) = (buffer.stats(), network.stats());
        prop_assert_eq!(stats.received, sent.sent - sent.lost);
        prop_assert_eq!(stats.duplicates, sent.delivered - stats.received);
        prop_assert_eq!(stats.played + stats.late + stats.skipped, stats.received, "{:?}", stats);
    }

    #[test]
    fn the_network_accounts_for_every_datagram(
        seed in any::<u64>(),
        (loss, reorder, duplicate) in (0.0..=1.0, 0.0..=1.0, 0.0..=1.0),
        (burst, in_flight_max) in (0.0..20.0, 0..50_usize),
        sends in vec(0..3_000_u64, 0..500),
    ) {
        let config = NetworkConfig {
            loss,
            loss_burst_mean: burst,
            delay: Micros::from_millis(5),
            jitter: Micros::from_millis(5),
            reorder,
            duplicate,
            in_flight_max,
            ..Default::default()
        };
        let mut network = Network::new(config, seed);
        let mut now = Micros::ZERO;
        let mut delivered = 0;
        for (number, wait) in sends.iter().enumerate() {
            now = now + Micros(*wait);
            network.send(now, number);
            delivered += std::iter::from_fn(|| network.receive(now)).count() as u64;
        }
        delivered += std::iter::from_fn(|| network.receive(Micros::from_secs(60))).count() as u64;
        let stats = network.stats();
        prop_assert_eq!(stats.delivered, delivered);
        prop_assert_eq!(stats.sent + stats.duplicated, stats.delivered + stats.lost + stats.overflowed);
        prop_assert_eq!(network.poll_timeout(), None);
    }
}
