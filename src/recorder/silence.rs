//! Silence as Opus packets, to fill holes: players go by what packets last, and few of them follow a jump of the granule
//! position. Each is one or several CELT frames that say "silence" and nothing else, two bytes each, so that an hour takes
//! half a megabyte and decodes to zeros, whatever was said before.

/// One silent frame: what follows the table of contents.
const FRAME: [u8; 2] = [0xff, 0xfe];

/// Packets from the longest to the shortest: samples at 48 kHz, and the packet without the stereo bit.
const PACKETS: [(u32, &[u8]); 5] = [
    // Six frames of 20 ms of equal length.
    (5_760, &[0xfb, 6, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe, 0xff, 0xfe]),
    (960, &[0xf8, FRAME[0], FRAME[1]]),
    (480, &[0xf0, FRAME[0], FRAME[1]]),
    (240, &[0xe8, FRAME[0], FRAME[1]]),
    (SAMPLES_MIN, &[0xe0, FRAME[0], FRAME[1]]),
];

/// The shortest silence there is, in samples.
pub(super) const SAMPLES_MIN: u32 = 120;

/// The longest packet of silence that is no longer than `samples`, and how long it is; `None` where even the shortest is.
pub(super) fn packet(samples: i64) -> Option<(u32, &'static [u8])> {
    PACKETS.into_iter().find(|(lasts, _)| i64::from(*lasts) <= samples)
}

#[cfg(test)]
mod tests {
    use antiphon_core::opus_packet::{duration_samples, validate};

    use super::*;

    #[test]
    fn silence_lasts_as_long_as_it_says_and_decodes_to_nothing() {
        for (samples, packet) in PACKETS {
            assert_eq!((validate(packet), duration_samples(packet)), (Ok(()), Ok(samples)));
            let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).expect("a decoder");
            let mut heard = vec![1.0; 5_760 * 2];
            // Whatever is left of before has gone by the second.
            for _ in 0..2 {
                let count = decoder.decode_float(packet, &mut heard, false).expect("decodes");
                assert_eq!(count, samples as usize);
            }
            assert!(heard[..samples as usize * 2].iter().all(|sample| sample.abs() < 1e-6));
        }
        assert_eq!(packet(6_000).map(|(samples, _)| samples), Some(5_760));
        assert_eq!((packet(959).map(|(samples, _)| samples), packet(119)), (Some(480), None));
    }
}
