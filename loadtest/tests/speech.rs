//! A spoken file through bad networks: with what clients and nodes do about loss it sounds better than without, in each of them.

#![allow(clippy::print_stdout, reason = "the figures are for those who read the test's output")]

use std::process::Command;

use antiphon_loadtest::speech::{Comparison, compare_adaptation, read_speech, usual_networks};

/// As docs/performance.md has it.
const SENTENCES: &str = "The quick brown fox jumps over the lazy dog. She sells sea shells by the sea shore.";

/// How long it is spoken. Hints come every two seconds; most of it is spoken with them.
const SECONDS: u32 = 30;

#[test]
fn a_voice_sounds_better_with_adaptation_in_every_bad_network() {
    let folder = std::env::temp_dir().join(format!("antiphon-speech-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("can be made");
    let wav = folder.join("spoken.wav");
    let spoken = Command::new("espeak-ng").arg("-w").arg(&wav).arg(SENTENCES).output();
    let spoken = spoken.expect("espeak-ng is installed: scripts/setup test");
    assert!(spoken.status.success(), "{}", String::from_utf8_lossy(&spoken.stderr));
    let speech = read_speech(&wav).expect("a WAV file");
    let _ = std::fs::remove_dir_all(&folder);

    let compared = compare_adaptation(&speech, SECONDS, &usual_networks(), 1).expect("libopus");
    for Comparison { network, fixed, adapted } in &compared {
        let (percent, burst) = (network.loss * 100.0, network.burst_mean);
        let [before, after] = [fixed, adapted].map(|run| run.similarity);
        println!("{percent} % lost, {burst} in a row: {before:.3} as it begins, {after:.3} with the hints");
    }
    for Comparison { network, fixed, adapted } in &compared {
        assert!(adapted.similarity > fixed.similarity, "{network:?}: {adapted:?}, {fixed:?}");
        assert!(adapted.hints > 0 && adapted.repaired > 0 && fixed.hints == 0, "{network:?}: {adapted:?}, {fixed:?}");
    }
}
