//! What people play with: curl, ffprobe, ffmpeg and mpv read, seek and resume every format.

use std::{fs, path::Path, process::Command};

use crate::Streaming;

/// Endings, and what of ffmpeg writes them.
pub(crate) const FORMATS: [(&str, &str); 6] = [
    ("mp3", "libmp3lame"),
    ("ogg", "libvorbis"),
    ("opus", "libopus"),
    ("flac", "flac"),
    ("wav", "pcm_s16le"),
    ("m4a", "aac"),
];

/// The length of each file in seconds.
pub(crate) const SECONDS: f64 = 12.0;

pub(crate) fn output(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Makes a file of all formats' sound: a tone that rises, so that places differ.
pub(crate) fn write_sound(path: &Path, codec: &str) {
    let source = format!("aevalsrc=0.3*sin(2*PI*(200*t+20*t*t)):d={SECONDS}:s=48000");
    let path = path.to_str().expect("text");
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", &source, "-c:a", codec, "-y", path]);
}

/// A second from 8 s on, as mpv plays it: 16-bit samples, as many a second as the file has.
fn played_by_mpv(source: &str, into: &Path) -> Vec<u8> {
    let file = format!("--ao-pcm-file={}", into.to_str().expect("text"));
    let sound = ["--ao=pcm", "--ao-pcm-waveheader=no", "--audio-format=s16", "--audio-channels=mono", &file];
    let what = ["--no-config", "--no-terminal", "--no-video", "--start=8", "--length=1", source];
    output("mpv", &[&sound[..], &what[..]].concat());
    fs::read(into).expect("mpv's")
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_players_read_seek_and_resume_every_format() {
    let streaming = Streaming::start(|settings| settings.streaming.max_range_size_bytes = 10_000).await;
    for (ending, codec) in FORMATS {
        let name = format!("tone.{ending}");
        let path = streaming.audio_dir().join(&name);
        write_sound(&path, codec);
        let url = streaming.url(&name).await;
        let probe = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", &url];
        let duration: f64 = String::from_utf8_lossy(&output("ffprobe", &probe)).trim().parse().expect("seconds");
        assert!((duration - SECONDS).abs() < 0.1, "{ending}: {duration} s");
        // From the link and from the disk, at 8 s: the same samples.
        let seek = |source: &str| {
            output("ffmpeg", &["-v", "error", "-ss", "8", "-i", source, "-t", "1", "-f", "s16le", "-ac", "1", "-"])
        };
        let (streamed, read) = (seek(&url), seek(path.to_str().expect("text")));
        assert!(!streamed.is_empty() && streamed == read, "{ending}: another sound after seeking");
        let pcm = streaming.audio_dir().with_file_name(format!("{ending}.pcm"));
        let (streamed, read) = (played_by_mpv(&url, &pcm), played_by_mpv(path.to_str().expect("text"), &pcm));
        assert!(streamed.len() > 48_000 && streamed == read, "{ending}: mpv plays another sound after seeking");
        // curl, broken off in the middle and resumed.
        let content = fs::read(&path).expect("ours");
        let partial = streaming.audio_dir().with_file_name(format!("{ending}.part"));
        fs::write(&partial, &content[..content.len() / 3]).expect("writes");
        output("curl", &["-sSf", "-C", "-", "-o", partial.to_str().expect("text"), &url]);
        assert!(fs::read(&partial).expect("ours") == content, "{ending}: resumed to something else");
    }
    streaming.stop().await;
}
