//! Two clients' voice sessions and a node between them, in virtual time over emulated networks.

mod support;

use antiphon_core::{clock::Micros, netsim::NetworkConfig, wire::frame::FrameKind};
use support::{Simulation, ms};

const SPEAKER: usize = 0;
const LISTENER: usize = 1;

fn quiet_network() -> NetworkConfig {
    NetworkConfig { delay: ms(15), ..NetworkConfig::default() }
}

/// The longest time between two frames that the listener heard while speech went on, in ms.
fn longest_pause_ms(simulation: &Simulation, from: Micros, to: Micros) -> u64 {
    let mut last = from;
    let mut longest = 0;
    for heard in simulation.heard(LISTENER).iter().filter(|heard| heard.at >= from && heard.at <= to) {
        longest = longest.max((heard.at - last).0 / 1_000);
        last = heard.at;
    }
    longest.max((to - last).0 / 1_000)
}

#[test]
fn a_spurt_arrives_whole_and_in_order_by_udp() {
    let mut simulation = Simulation::new(&quiet_network(), 1);
    simulation.run_until(ms(500));
    simulation.speak(SPEAKER, ms(2_000));
    simulation.run_until(ms(4_000));
    let heard = simulation.heard(LISTENER);
    let sequences: Vec<u16> = heard.iter().map(|heard| heard.sequence).collect();
    assert_eq!(sequences, (0..101).collect::<Vec<_>>());
    assert_eq!(heard.first().map(|heard| heard.kind), Some(Some(FrameKind::AudioStart)));
    assert_eq!(heard.last().map(|heard| heard.kind), Some(Some(FrameKind::AudioStop)));
    assert_eq!(simulation.tunnelled_to(LISTENER), 0);
    assert!(simulation.heard(SPEAKER).is_empty(), "nobody hears themselves");
}

#[test]
fn loss_reorder_and_duplicates_are_dealt_with() {
    let network = NetworkConfig {
        delay: ms(20),
        jitter: ms(8),
        loss: 0.05,
        reorder: 0.1,
        reorder_delay: ms(30),
        duplicate: 0.1,
        ..NetworkConfig::default()
    };
    let mut simulation = Simulation::new(&network, 7);
    simulation.run_until(ms(2_000));
    simulation.speak(SPEAKER, ms(20_000));
    simulation.run_until(ms(24_000));
    let mut sequences: Vec<u16> = simulation.heard(LISTENER).iter().map(|heard| heard.sequence).collect();
    let heard = sequences.len();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), heard, "no frame twice");
    // Both ways lose 5 %: about 90 % arrive.
    assert!((850..=960).contains(&heard), "{heard} of 1,001 frames");
    let reports = simulation.reports();
    let worst = reports.iter().map(|block| block.lost_fraction).max().expect("reports");
    assert!(worst > 2_000, "{worst} of 65,536 at worst");
    assert!(reports.iter().all(|block| block.round_trip_ms >= 40), "20 ms each way");
    assert!(reports.iter().any(|block| block.jitter_us > 500), "8 ms of jitter is noticed");
}

#[test]
fn with_udp_blocked_from_the_start_all_goes_over_the_gateway() {
    let mut simulation = Simulation::new(&quiet_network(), 2);
    for client in [SPEAKER, LISTENER] {
        simulation.block_up(client, true);
        simulation.block_down(client, true);
    }
    simulation.run_until(ms(100));
    simulation.speak(SPEAKER, ms(2_000));
    simulation.run_until(ms(4_000));
    assert_eq!(simulation.heard(LISTENER).len(), 101);
    assert_eq!(simulation.tunnelled_to(LISTENER), 101);
}

/// Speaks for 30 s, blocks from 5 s to 15 s, and expects sound again within 3 s, and UDP again after.
fn survives(block: impl Fn(&mut Simulation, bool)) {
    let mut simulation = Simulation::new(&quiet_network(), 3);
    simulation.run_until(ms(500));
    simulation.speak(SPEAKER, ms(30_000));
    simulation.run_until(ms(5_000));
    assert_eq!(longest_pause_ms(&simulation, ms(1_000), ms(5_000)), 20);
    block(&mut simulation, true);
    simulation.run_until(ms(15_000));
    let pause = longest_pause_ms(&simulation, ms(4_900), ms(14_900));
    assert!(pause <= 3_000, "{pause} ms of silence after the block");
    block(&mut simulation, false);
    simulation.run_until(ms(20_000));
    assert!(longest_pause_ms(&simulation, ms(10_000), ms(19_900)) <= 60, "the return costs nothing");
    assert!(simulation.udp_works(SPEAKER) && simulation.udp_works(LISTENER));
    let before = simulation.tunnelled_to(LISTENER);
    simulation.run_until(ms(32_000));
    assert_eq!(simulation.tunnelled_to(LISTENER), before, "back on UDP for good");
    assert_eq!(simulation.heard(LISTENER).last().map(|heard| heard.kind), Some(Some(FrameKind::AudioStop)));
}

#[test]
fn the_speakers_way_to_the_node_blocked() {
    survives(|simulation, blocked| simulation.block_up(SPEAKER, blocked));
}

#[test]
fn the_nodes_way_to_the_speaker_blocked() {
    survives(|simulation, blocked| simulation.block_down(SPEAKER, blocked));
}

#[test]
fn the_listeners_way_to_the_node_blocked() {
    survives(|simulation, blocked| simulation.block_up(LISTENER, blocked));
}

#[test]
fn the_nodes_way_to_the_listener_blocked() {
    survives(|simulation, blocked| simulation.block_down(LISTENER, blocked));
}

#[test]
fn all_ways_blocked() {
    survives(|simulation, blocked| {
        for client in [SPEAKER, LISTENER] {
            simulation.block_up(client, blocked);
            simulation.block_down(client, blocked);
        }
    });
}

#[test]
fn a_way_lost_while_quiet_is_noticed_when_speech_is_announced() {
    let mut simulation = Simulation::new(&quiet_network(), 4);
    simulation.run_until(ms(10_500));
    simulation.block_down(LISTENER, true);
    simulation.speak(SPEAKER, ms(8_000));
    simulation.run_until(ms(18_000));
    let first = simulation.heard(LISTENER).first().expect("heard").at;
    assert!((first - ms(10_500)) <= ms(3_000), "first heard at {first:?}");
}

#[test]
fn a_key_rotation_loses_nothing_and_the_old_key_lives_ten_seconds() {
    let mut simulation = Simulation::new(&quiet_network(), 5);
    simulation.run_until(ms(500));
    simulation.speak(SPEAKER, ms(20_000));
    simulation.run_until(ms(2_000));
    simulation.rotate();
    simulation.run_until(ms(22_000));
    assert_eq!(simulation.heard(LISTENER).len(), 1_001);
    // The first rotation is 20 s ago: what was sealed with the key before it no longer opens.
    let stale = simulation.stale_media();
    assert!(!simulation.opens(LISTENER, stale));
}

#[test]
fn a_session_given_out_again_goes_on_counting() {
    let mut simulation = Simulation::new(&quiet_network(), 8);
    simulation.run_until(ms(500));
    simulation.speak(SPEAKER, ms(1_000));
    simulation.run_until(ms(2_000));
    simulation.rejoin(SPEAKER);
    simulation.run_until(ms(2_500));
    simulation.speak(SPEAKER, ms(1_000));
    simulation.run_until(ms(4_500));
    // The node drops every counter that it has seen.
    assert_eq!(simulation.heard(LISTENER).len(), 51 + 51);
    assert_eq!(simulation.tunnelled_to(LISTENER), 0);
}

#[test]
fn replayed_and_foreign_datagrams_are_dropped() {
    let mut simulation = Simulation::new(&quiet_network(), 6);
    simulation.run_until(ms(500));
    let media = simulation.sealed_media();
    assert!(simulation.opens(LISTENER, media.clone()));
    assert!(!simulation.opens(LISTENER, media.clone()), "replayed");
    let mut altered = simulation.sealed_media();
    altered[20] ^= 1;
    assert!(!simulation.opens(LISTENER, altered));
    assert!(!simulation.opens(LISTENER, vec![0; 40]));
    let counters = simulation.udp_counters(LISTENER);
    assert_eq!((counters.replayed, counters.unauthentic, counters.malformed), (1, 1, 1));
}
