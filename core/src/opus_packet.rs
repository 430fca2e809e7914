//! What can be told of an Opus packet without decoding it (RFC 6716, section 3).
//!
//! ```text
//!  0                   1
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | config  |s| c |v|p|     M     |   the second byte only with c = 3
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! `config` says mode, bandwidth and duration of each frame, `s` mono or stereo, `c` how many frames there are.

/// Samples of all durations here are of the 48 kHz clock, whatever the audio's own rate.
pub const SAMPLE_RATE_HZ: u32 = 48_000;
/// The usual packet: 20 ms.
pub const USUAL_SAMPLES: u32 = 960;
/// RFC 6716, requirement R5: at most 120 ms.
pub const SAMPLES_MAX: u32 = 5_760;
/// RFC 6716, requirement R2: the longest frame inside a packet.
const INNER_FRAME_BYTES_MAX: usize = 1_275;

/// Why bytes are no Opus packet: the requirements of RFC 6716, section 3.4, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// R1: a packet has at least one byte.
    #[error("an Opus packet has at least one byte")]
    Empty,
    /// R2: a frame has at most 1,275 bytes.
    #[error("an Opus frame has at most 1275 bytes")]
    FrameTooLong,
    /// R3, R6: frames of equal length do not share the bytes evenly.
    #[error("the bytes cannot be shared evenly by the packet's frames")]
    Uneven,
    /// R4, R6, R7: the packet ends before what it announces.
    #[error("the packet ends before what it announces")]
    Truncated,
    /// R5: a packet has at least one frame and lasts at most 120 ms.
    #[error("an Opus packet lasts at most 120 ms and at least one frame")]
    Duration,
}

/// How long a packet lasts, in 48 kHz samples, from its first one or two bytes.
///
/// # Errors
/// When the packet is empty or announces no duration, or one over 120 ms. The rest is not looked at: see [`validate`].
pub fn duration_samples(packet: &[u8]) -> Result<u32, OpusError> {
    let &toc = packet.first().ok_or(OpusError::Empty)?;
    let frames = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).ok_or(OpusError::Truncated)? & 0x3f),
    };
    let samples = frames * frame_samples(toc);
    if samples == 0 || samples > SAMPLES_MAX { Err(OpusError::Duration) } else { Ok(samples) }
}

/// Appends a packet to `out` with padding behind it, so that it has `length` bytes (RFC 6716, section 3.2.5): a
/// decoder makes the same of it. One that is as long, or that does not consist of one frame alone, is appended as it is.
pub fn pad_to(packet: &[u8], length: usize, out: &mut Vec<u8>) {
    let (toc, missing) = match packet.first() {
        Some(toc) if toc & 0b11 == 0 => (*toc, length.saturating_sub(packet.len())),
        _ => return out.extend_from_slice(packet),
    };
    if missing == 0 {
        return out.extend_from_slice(packet);
    }
    // The second byte, with the count of frames, is one of those that are added.
    let padding = missing - 1;
    out.extend([toc | 0b11, if padding > 0 { 0x41 } else { 0x01 }]);
    let mut zeros = 0;
    if padding > 0 {
        let full = (padding - 1) / 255;
        out.extend(std::iter::repeat_n(255, full));
        out.push((padding - 255 * full - 1) as u8);
        zeros = padding - full - 1;
    }
    out.extend_from_slice(&packet[1..]);
    out.extend(std::iter::repeat_n(0, zeros));
}

/// Whether a packet is stereo; an empty one is not.
#[must_use]
pub fn is_stereo(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc & 0b100 != 0)
}

/// Checks everything that can be checked without decoding.
///
/// # Errors
/// The first requirement of RFC 6716, section 3.4, that is not met.
pub fn validate(packet: &[u8]) -> Result<(), OpusError> {
    duration_samples(packet)?;
    let (&toc, rest) = packet.split_first().ok_or(OpusError::Empty)?;
    match toc & 0b11 {
        0 => frame_fits(rest.len()),
        1 if !rest.len().is_multiple_of(2) => Err(OpusError::Uneven),
        1 => frame_fits(rest.len() / 2),
        2 => {
            let (first, rest) = frame_length(rest)?;
            let second = rest.len().checked_sub(first).ok_or(OpusError::Truncated)?;
            frame_fits(second)
        }
        _ => validate_many(rest),
    }
}

/// A packet of code 3: any number of frames, perhaps padded.
fn validate_many(rest: &[u8]) -> Result<(), OpusError> {
    let (&count_byte, mut rest) = rest.split_first().ok_or(OpusError::Truncated)?;
    let count = usize::from(count_byte & 0x3f);
    if count_byte & 0x40 != 0 {
        rest = without_padding(rest)?;
    }
    if count_byte & 0x80 == 0 {
        return if rest.len().is_multiple_of(count) { frame_fits(rest.len() / count) } else { Err(OpusError::Uneven) };
    }
    let mut announced = 0;
    for _ in 1..count {
        let (length, after) = frame_length(rest)?;
        announced += length;
        rest = after;
    }
    frame_fits(rest.len().checked_sub(announced).ok_or(OpusError::Truncated)?)
}

/// Strips the padding: its length in bytes of 255 (254 each, and one more follows) and a last one of less.
fn without_padding(mut rest: &[u8]) -> Result<&[u8], OpusError> {
    let mut padding = 0;
    loop {
        let (&byte, after) = rest.split_first().ok_or(OpusError::Truncated)?;
        rest = after;
        if byte < 255 {
            padding += usize::from(byte);
            break;
        }
        padding += 254;
    }
    let kept = rest.len().checked_sub(padding).ok_or(OpusError::Truncated)?;
    Ok(&rest[..kept])
}

/// Reads a frame's length of one or two bytes (RFC 6716, section 3.2.1).
fn frame_length(rest: &[u8]) -> Result<(usize, &[u8]), OpusError> {
    let (&first, rest) = rest.split_first().ok_or(OpusError::Truncated)?;
    if first < 252 {
        return Ok((usize::from(first), rest));
    }
    let (&second, rest) = rest.split_first().ok_or(OpusError::Truncated)?;
    Ok((usize::from(second) * 4 + usize::from(first), rest))
}

const fn frame_fits(length: usize) -> Result<(), OpusError> {
    if length > INNER_FRAME_BYTES_MAX { Err(OpusError::FrameTooLong) } else { Ok(()) }
}

/// The duration of each frame inside a packet (RFC 6716, table 2).
const fn frame_samples(toc: u8) -> u32 {
    const SILK: [u32; 4] = [480, 960, 1_920, 2_880];
    const CELT: [u32; 4] = [120, 240, 480, 960];
    match toc >> 3 {
        config @ 0..=11 => SILK[(config & 0b11) as usize],
        config @ 12..=15 => SILK[(config & 0b1) as usize],
        config => CELT[(config & 0b11) as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet's first byte.
    const fn toc(config: u8, code: u8) -> u8 {
        config << 3 | code
    }

    #[test]
    fn durations_of_every_configuration() {
        let silk = [480, 960, 1_920, 2_880];
        let celt = [120, 240, 480, 960];
        for config in 0..32_u8 {
            let expected = match config {
                0..=11 => silk[usize::from(config % 4)],
                12..=15 => silk[usize::from(config % 2)],
                _ => celt[usize::from(config % 4)],
            };
            assert_eq!(duration_samples(&[toc(config, 0), 1]), Ok(expected), "config {config}");
            assert_eq!(duration_samples(&[toc(config, 1), 1, 1]), Ok(2 * expected), "config {config}, two frames");
        }
    }

    #[test]
    fn many_frames_last_at_most_120_ms() {
        for (config, count, expected) in [
            (1, 6, Ok(5_760)),
            (1, 7, Err(OpusError::Duration)),
            (16, 48, Ok(5_760)),
            (16, 0, Err(OpusError::Duration)),
        ] {
            assert_eq!(duration_samples(&[toc(config, 3), count]), expected, "{count} of config {config}");
        }
        assert_eq!(duration_samples(&[toc(1, 3)]), Err(OpusError::Truncated));
        assert_eq!(duration_samples(&[]), Err(OpusError::Empty));
    }

    #[test]
    fn stereo_is_told_by_one_bit() {
        assert!(is_stereo(&[0xfc]));
        assert!(!is_stereo(&[0xf8]) && !is_stereo(&[]));
    }

    #[test]
    fn requirements_of_one_and_two_frames() {
        assert_eq!(validate(&[toc(1, 0)]), Ok(()));
        assert_eq!(validate(&[0; 1_276]), Ok(()));
        assert_eq!(validate(&[0; 1_277]), Err(OpusError::FrameTooLong));
        assert_eq!(validate(&[toc(1, 1), 1, 1]), Ok(()));
        assert_eq!(validate(&[toc(1, 1), 1]), Err(OpusError::Uneven));
        assert_eq!(validate(&[toc(1, 2), 1, 7, 7, 7]), Ok(()));
        assert_eq!(validate(&[toc(1, 2), 4, 7, 7, 7]), Err(OpusError::Truncated));
        assert_eq!(validate(&[toc(1, 2)]), Err(OpusError::Truncated));
        // 252 + 4 * 1 = 256 bytes in the first frame, none in the second.
        let mut long = vec![toc(1, 2), 252, 1];
        long.resize(3 + 256, 7);
        assert_eq!(validate(&long), Ok(()));
        assert_eq!(validate(&long[..258]), Err(OpusError::Truncated));
    }

    #[test]
    fn a_padded_packet_is_as_long_as_wanted_and_the_same_otherwise() {
        let packet = [toc(31, 0), 7, 8, 9];
        for length in (0..1_200).chain([5_000]) {
            let mut padded = vec![0xaa];
            pad_to(&packet, length, &mut padded);
            let padded = &padded[1..];
            assert_eq!(padded.len(), length.max(4), "{length}");
            assert_eq!(validate(padded), Ok(()), "{length}");
            assert_eq!(duration_samples(padded), Ok(960));
            assert!(padded.windows(3).any(|window| window == [7, 8, 9]), "{length}");
        }
        let (two, mut same) = ([toc(31, 1), 7, 8], Vec::new());
        pad_to(&two, 100, &mut same);
        pad_to(&[], 100, &mut same);
        assert_eq!(same, two, "what cannot be padded is left as it is");
    }

    #[test]
    fn requirements_of_many_frames() {
        let (cbr, vbr, padded) = (3, 0x83, 0x43);
        assert_eq!(validate(&[toc(1, 3), cbr, 1, 1, 1]), Ok(()));
        assert_eq!(validate(&[toc(1, 3), cbr, 1, 1]), Err(OpusError::Uneven));
        assert_eq!(validate(&[toc(1, 3), vbr, 1, 2, 9, 9, 9, 9]), Ok(()));
        assert_eq!(validate(&[toc(1, 3), vbr, 1, 2, 9, 9]), Err(OpusError::Truncated));
        assert_eq!(validate(&[toc(1, 3), vbr, 1]), Err(OpusError::Truncated));
        assert_eq!(validate(&[toc(1, 3), padded, 2, 1, 1, 1, 0, 0]), Ok(()));
        assert_eq!(validate(&[toc(1, 3), padded, 9, 1, 1, 1]), Err(OpusError::Truncated));
        // 254 bytes of padding and one more length byte.
        let mut long = vec![toc(1, 3), padded, 255, 1, 5, 5, 5];
        long.resize(long.len() + 255, 0);
        assert_eq!(validate(&long), Ok(()));
    }
}
