//! How long a file is by its header, as ffmpeg says before it decodes.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::OnceLock,
};

/// So much of what it says is looked through; what it says of a file stands at the begin.
const BYTES_MAX: u64 = 64 * 1_024;

/// Reads all that ffmpeg says, and tells how many seconds it was promised as soon as it has said so; `None` where the header does not say, where ffmpeg only
/// guesses, and where there is more than sound, which may be longer than the sound. Blocks until there is no more.
pub(super) fn read(mut said: impl Read, promised: &OnceLock<Option<f64>>) {
    let _ = promised.set(find(BufReader::new((&mut said).take(BYTES_MAX))));
    // Whoever writes into a pipe that nobody reads is stopped by it.
    let _ = io::copy(&mut said, &mut io::sink());
}

fn find(mut said: impl BufRead) -> Option<f64> {
    let (mut promised, mut streams, mut is_guess, mut line) = (None, 0, false, Vec::new());
    while said.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line);
        // What tags say is further in, and looks like neither.
        if let Some(rest) = text.strip_prefix("  Duration: ") {
            promised = rest.split_once(',').and_then(|(time, _)| seconds(time));
        }
        // Two spaces before it, and four before ffmpeg 5.0.
        streams += usize::from(text.trim_start().starts_with("Stream #"));
        is_guess |= text.contains("Estimating duration");
        if text.starts_with("Stream mapping:") {
            break;
        }
        line.clear();
    }
    promised.filter(|_| streams == 1 && !is_guess)
}

/// Of `HH:MM:SS.cc`.
fn seconds(time: &str) -> Option<f64> {
    time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Input #0, matroska,webm, from 'file:/dev/stdin':\n  Metadata:\n    title           :   Duration: 99:00:00.00,\n";
    const SOUND: &str = "  Stream #0:0: Audio: opus, 48000 Hz, mono, fltp\n";
    const REST: &str =
        "Stream mapping:\n  Stream #0:0 -> #0:0 (opus (native) -> pcm_f32le (native))\n  Duration: 00:00:01.00,\n";

    fn of(middle: &str) -> Option<f64> {
        let promised = OnceLock::new();
        read(format!("{HEAD}{middle}{REST}").as_bytes(), &promised);
        promised.into_inner().flatten()
    }

    #[test]
    fn only_what_the_header_says_of_sound_alone_is_a_promise() {
        let duration = "  Duration: 01:02:03.50, start: -0.007000, bitrate: 80 kb/s\n";
        assert_eq!(of(&format!("{duration}{SOUND}")), Some(3_723.5));
        assert_eq!(of(&format!("  Duration: N/A, start: 0.000000\n{SOUND}")), None);
        assert_eq!(of(&format!("{duration}{SOUND}  Stream #0:1: Video: vp8\n")), None);
        let guess = "[aac @ 0x1] Estimating duration from bitrate, this may be inaccurate\n";
        assert_eq!(of(&format!("{guess}{duration}{SOUND}")), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn all_is_read_and_little_kept() {
        let (mut said, promised) = (io::repeat(b'x').take(10 * BYTES_MAX), OnceLock::new());
        read(&mut said, &promised);
        assert_eq!((said.limit(), promised.into_inner()), (0, Some(None)));
    }
}
