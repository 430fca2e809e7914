//! What is in a track's file.

use std::{io::Cursor, process::Command};

use antiphon_core::opus_packet::duration_samples;

use crate::support::process::Scratch;

/// A track's packets that were said, each with where it begins, in microseconds of the track.
pub(crate) fn said(file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut reader = ogg::PacketReader::new(Cursor::new(file));
    let (mut at, mut said, mut packets, mut is_ended) = (0_u64, Vec::new(), 0, false);
    while let Some(packet) = reader.read_packet().expect("well formed") {
        packets += 1;
        is_ended = packet.last_in_stream();
        if packets <= 2 {
            continue;
        }
        let samples = u64::from(duration_samples(&packet.data).expect("a packet of Opus"));
        let page_end = packet.last_in_page().then(|| packet.absgp_page());
        // All that is silence says nothing else.
        if !packet.data.ends_with(&[0xff, 0xfe]) {
            said.push((at * 1_000 / 48, packet.data));
        }
        at += samples;
        assert_eq!(page_end.unwrap_or(at), at, "granule positions are the samples so far");
    }
    assert!(is_ended, "its last page says that it is the last");
    said
}

/// The number that a payload of [`crate::support::people::payload`] tells.
pub(crate) fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[1..5].try_into().expect("one of our payloads"))
}

/// How long a player takes a file to be, in seconds.
pub(crate) fn probed_s(file: &[u8]) -> f64 {
    let scratch = Scratch::new();
    let path = scratch.path().join("track.opus");
    std::fs::write(&path, file).expect("writes");
    let output = Command::new("ffprobe")
        .args(["-loglevel", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
        .arg(&path)
        .output()
        .expect("ffprobe runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// What an independent decoder hears, at 48 kHz in one channel.
pub(crate) fn decoded(file: &[u8]) -> Vec<f64> {
    let scratch = Scratch::new();
    let path = scratch.path().join("track.opus");
    std::fs::write(&path, file).expect("writes");
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-i"])
        .arg(&path)
        .args(["-f", "s16le", "-ar", "48000", "-ac", "1", "-"])
        .output()
        .expect("ffmpeg runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let samples = output.stdout.chunks_exact(2);
    samples.map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect()
}

/// How much of a frequency is in some samples at 48 kHz: a sine of that amplitude.
pub(crate) fn amplitude(samples: &[f64], hz: f64) -> f64 {
    let step = std::f64::consts::TAU * hz / 48_000.0;
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        sine += sample * (step * index as f64).sin();
        cosine += sample * (step * index as f64).cos();
    }
    2.0 * sine.hypot(cosine) / samples.len() as f64
}
