//! Files of sound in every format that a server streams, made and looked at by ffmpeg.

use std::{path::Path, process::Command};

/// Each ending, and what of ffmpeg writes it.
pub const FORMATS: [(&str, &str); 10] = [
    ("mp3", "libmp3lame"),
    ("ogg", "libvorbis"),
    ("oga", "flac"),
    ("opus", "libopus"),
    ("flac", "flac"),
    ("wav", "pcm_s16le"),
    ("m4a", "aac"),
    ("mp4", "aac"),
    ("aac", "aac"),
    ("webm", "libopus"),
];

/// As the file is, and what is made of it.
pub const QUALITIES: [&str; 4] = ["original", "low", "medium", "high"];

/// The length of each file in seconds: the lowest quality has some blocks of 32 KiB then, as Chromium reads them.
pub const SECONDS: f64 = 16.0;

/// What a program that must succeed writes to its standard output.
pub fn output(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Makes a file of all formats' sound: a tone that rises, so that places differ. It has [`pitch_at`] its places.
pub fn write_sound(path: &Path, codec: &str) {
    let source = format!("aevalsrc=0.3*sin(2*PI*(200*t+20*t*t)):d={SECONDS}:s=48000");
    let path = path.to_str().expect("text");
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", &source, "-c:a", codec, "-y", path]);
}

/// The tone's frequency at a place.
pub fn pitch_at(seconds: f64) -> f64 {
    40.0f64.mul_add(seconds, 200.0)
}

/// What ffprobe says of a file.
pub fn probe(source: &str, entries: &str) -> String {
    let arguments = ["-v", "error", "-show_entries", entries, "-of", "csv=p=0", source];
    String::from_utf8_lossy(&output("ffprobe", &arguments)).trim().to_owned()
}

/// How often a second of sound crosses zero from a place on: twice its mean frequency.
pub fn crossings(source: &str, seek_s: &str) -> usize {
    let arguments =
        ["-v", "error", "-ss", seek_s, "-i", source, "-t", "1", "-f", "s16le", "-ac", "1", "-ar", "48000", "-"];
    let samples = output("ffmpeg", &arguments);
    let samples: Vec<i16> = samples.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    assert!(samples.len() >= 47_000, "{} samples", samples.len());
    samples.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count()
}
