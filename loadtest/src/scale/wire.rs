//! What frames and what keeps a cluster together take on the wire between two workers, by the sizes of the real format.

use antiphon_core::{
    clock::Micros,
    relay::{
        HEARTBEAT, HEARTBEAT_AT_LEAST, REFRESH,
        wire::{
            AUDIO_HEADER_BYTES, BUNDLE_BYTES_MAX, CLAIM_BYTES, HEARTBEAT_BYTES, INTEREST_BYTES, RECORD_HEADER_BYTES,
            SET_MAX,
        },
    },
    wire::datagram::DATAGRAM_BYTES_MIN,
};

/// Header and tag of a datagram.
pub(super) const SEALING_BYTES: f64 = DATAGRAM_BYTES_MIN as f64;
/// What Ethernet (14, and 4 of check sum), IPv4 (20) and UDP (8) add to a datagram.
pub(super) const LINK_BYTES: f64 = 46.0;
/// Frames a second of somebody who speaks.
pub(super) const FRAMES_PER_S: f64 = 50.0;
/// Above so many records in a turn all datagrams but the last are full.
const MANY: f64 = 200.0;

/// One record of a frame.
pub(super) const fn audio_record_bytes(frame_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + AUDIO_HEADER_BYTES + frame_bytes
}

/// What an edge tells an owner of one channel.
pub(super) const INTEREST_RECORD_BYTES: usize = RECORD_HEADER_BYTES + INTEREST_BYTES;

/// What an owner answers.
pub(super) fn node_set_record_bytes(nodes: usize) -> usize {
    RECORD_HEADER_BYTES + CLAIM_BYTES + 4 * nodes.min(SET_MAX)
}

/// A datagram with nothing but a sign of life, without its sealing.
pub(super) const HEARTBEAT_RECORD_BYTES: usize = RECORD_HEADER_BYTES + HEARTBEAT_BYTES;

/// How often an edge tells an owner of a channel, and is answered.
pub(super) fn refreshes_per_s() -> f64 {
    1.0 / seconds(REFRESH)
}

/// Datagrams a second for records that come independently of each other, where those of one turn share datagrams;
/// without a turn each record has its own.
pub(super) fn datagrams_per_s(records_per_s: f64, record_bytes: f64, turn: Micros) -> f64 {
    if turn == Micros::ZERO || records_per_s <= 0.0 {
        return records_per_s;
    }
    let room = (BUNDLE_BYTES_MAX as f64 / record_bytes).floor().max(1.0);
    let turn_s = seconds(turn);
    datagrams_per_turn(records_per_s * turn_s, room) / turn_s
}

/// The mean of ⌈N / room⌉ for N records distributed by Poisson.
fn datagrams_per_turn(mean: f64, room: f64) -> f64 {
    if mean > MANY {
        return mean / room + 0.5;
    }
    // The sum over j of the probability that more than j × room records came.
    let mut more = -(-mean).exp_m1();
    let (mut exactly, mut count, mut expected) = ((-mean).exp(), 0.0, more);
    while more > 1e-12 && count < 10.0 * MANY {
        count += 1.0;
        exactly *= mean / count;
        more -= exactly;
        if count % room == 0.0 {
            expected += more.max(0.0);
        }
    }
    expected
}

/// Heartbeats a second to a worker that is sent so many datagrams a second: one for each 50 ms of silence, where the
/// datagrams come independently of each other; and at least one a second. Where somebody speaks there is no such
/// silence.
pub(super) fn heartbeats_per_s(datagrams_per_s: f64, speech: bool) -> f64 {
    let at_least = 1.0 / seconds(HEARTBEAT_AT_LEAST);
    if speech {
        return at_least;
    }
    let expected = datagrams_per_s * seconds(HEARTBEAT);
    let silences = if expected < 1e-9 { 1.0 } else { expected / expected.exp_m1() };
    (silences / seconds(HEARTBEAT)).max(at_least)
}

fn seconds(time: Micros) -> f64 {
    time.0 as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand from docs/protocol.md, 7.
    #[test]
    fn sizes_are_those_of_the_protocol() {
        assert_eq!(audio_record_bytes(80), 16 + 1 + 2 + 4 + 2 + 4 + 1 + 1 + 80);
        assert_eq!(INTEREST_RECORD_BYTES, 19 + 8 + 4 + 4 + 1);
        assert_eq!(node_set_record_bytes(3), 19 + 8 + 4 + 3 * 4);
        assert_eq!(node_set_record_bytes(1_000), 19 + 12 + 284 * 4);
        assert_eq!(HEARTBEAT_RECORD_BYTES, 19 + 1 + 1 + 8);
    }

    #[test]
    fn records_share_datagrams_as_turns_and_room_allow() {
        let turn = Micros::from_millis(1);
        assert_eq!(datagrams_per_s(500.0, 111.0, Micros::ZERO), 500.0);
        // Half a record in a turn: one datagram whenever there is any, 1 - e^-0.5.
        assert!((datagrams_per_s(500.0, 111.0, turn) - 393.469).abs() < 0.001);
        // Two in a turn and room for one: as many datagrams as records.
        assert!((datagrams_per_s(2_000.0, 1_000.0, turn) - 2_000.0).abs() < 1e-6);
        // Ten fit: three hundred in a turn are thirty full ones and, half the time, one that is not.
        assert!((datagrams_per_s(300_000.0, 111.0, turn) - 30_500.0).abs() < 1e-6);
        let (below, above) = (datagrams_per_turn(MANY - 0.01, 10.0), datagrams_per_turn(MANY + 0.01, 10.0));
        assert!((below - above).abs() < 0.1, "{below} {above}");
    }

    #[test]
    fn a_silent_way_has_a_heartbeat_every_50_ms_and_a_busy_one_every_second() {
        assert!((heartbeats_per_s(0.0, false) - 20.0).abs() < 1e-6);
        // 20 a second at random: one gap in e is longer than 50 ms.
        assert!((heartbeats_per_s(20.0, false) - 20.0 / (std::f64::consts::E - 1.0)).abs() < 1e-9);
        assert_eq!(heartbeats_per_s(1_000.0, false), 1.0);
        assert_eq!(heartbeats_per_s(50.0, true), 1.0);
    }
}
