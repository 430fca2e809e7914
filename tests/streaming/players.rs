//! What people play with: curl, ffmpeg and mpv play, seek and resume every format in every quality.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tokio::task::JoinSet;

use crate::{
    Streaming,
    support::{
        network::BreakingWay,
        process::Scratch,
        sounds::{FORMATS, QUALITIES, SECONDS, crossings, output, probe, write_sound},
    },
};

/// Where players seek to, and for how many seconds they play from there.
const SEEK: (&str, &str) = ("8", "1");

/// What is heard of a file, all of it or a second of it: 16-bit samples of one channel.
type Heard = fn(source: &str, seek: Option<(&str, &str)>, folder: &Path) -> Vec<u8>;

const PLAYERS: [(&str, Heard); 2] = [("ffmpeg", heard_by_ffmpeg), ("mpv", played_by_mpv)];

fn heard_by_ffmpeg(source: &str, seek: Option<(&str, &str)>, _: &Path) -> Vec<u8> {
    let mut arguments = vec!["-v", "fatal"];
    if source.starts_with("http") {
        arguments.extend(["-reconnect", "1", "-reconnect_delay_max", "1"]);
    }
    if let Some((from, length)) = seek {
        arguments.extend(["-ss", from, "-t", length]);
    }
    arguments.extend(["-i", source, "-f", "s16le", "-ac", "1", "-"]);
    output("ffmpeg", &arguments)
}

fn played_by_mpv(source: &str, seek: Option<(&str, &str)>, folder: &Path) -> Vec<u8> {
    let file = folder.join("mpv.pcm");
    let into = format!("--ao-pcm-file={}", file.to_str().expect("text"));
    let sound = ["--ao=pcm", "--ao-pcm-waveheader=no", "--audio-format=s16", "--audio-channels=mono", &into];
    let seek = seek.map(|(from, length)| [format!("--start={from}"), format!("--length={length}")]);
    let mut arguments = ["--no-config", "--no-terminal", "--no-video"].to_vec();
    arguments.extend(sound);
    arguments.extend(seek.iter().flatten().map(String::as_str));
    arguments.push(source);
    output("mpv", &arguments);
    fs::read(file).expect("mpv's")
}

/// A file in one of its qualities, whole and by links.
struct Case {
    ending: &'static str,
    quality: &'static str,
    /// What the server sends, by itself.
    file: PathBuf,
    url: String,
    /// One for each player and one for curl: a connection breaks on it after a third of the file.
    ways: Vec<BreakingWay>,
    path: String,
    folder: Scratch,
}

impl Case {
    async fn of(streaming: &Streaming, ending: &'static str, quality: &'static str) -> Self {
        let name = format!("tone.{ending}");
        let path = streaming.quality_link(&name, quality).await;
        let request = streaming.nobody.request(reqwest::Method::GET, &path);
        let answer = request.send().await.expect("answered").error_for_status().expect("the file");
        let content_type = answer.headers()["content-type"].to_str().expect("text").to_owned();
        let content = answer.bytes().await.expect("all of it");
        let folder = Scratch::new();
        let file = folder.path().join(&name);
        if quality == "original" {
            assert!(fs::read(streaming.audio_dir().join(&name)).expect("ours") == content, "{name}: another file");
        } else {
            assert_eq!(content_type, "audio/ogg", "{name} {quality}");
        }
        fs::write(&file, &content).expect("writes");
        let port = streaming.server.running.addresses().http.port();
        let mut ways = Vec::new();
        for _ in 0..=PLAYERS.len() {
            ways.push(BreakingWay::open(port, content.len() as u64 / 3).await.expect("a port"));
        }
        let url = format!("{}{path}", streaming.server.url());
        Self { ending, quality, file, url, ways, path, folder }
    }

    fn file(&self) -> &str {
        self.file.to_str().expect("text")
    }

    /// The length of the file that is sent, in bytes.
    fn length(&self) -> u64 {
        fs::metadata(&self.file).expect("ours").len()
    }

    /// The link, by the way of a player.
    fn broken_url(&self, player: usize) -> String {
        format!("http://{}{}", self.ways[player].address(), self.path)
    }

    fn is_what_it_says(&self) {
        let what = format!("{} {}", self.ending, self.quality);
        let seconds: f64 = probe(&self.url, "format=duration").parse().expect("seconds");
        let is_original = self.quality == "original";
        // AAC on its own has no length: it is estimated. What encoders put before and behind the sound is in others.
        let tolerance = match (self.ending, is_original) {
            ("aac", true) => 0.5,
            (_, true) | ("m4a" | "mp4" | "aac" | "webm", false) => 0.1,
            _ => 0.03,
        };
        assert!((seconds - SECONDS).abs() < tolerance, "{what}: {seconds} s");
        if is_original {
            return;
        }
        assert_eq!(probe(&self.url, "stream=codec_name"), "opus", "{what}");
        // The tone has 540 Hz on average in the ninth second.
        let found = crossings(&self.url, SEEK.0);
        assert!((1_060..=1_100).contains(&found), "{what}: {found} crossings");
    }

    fn is_played(&self) {
        for (number, (player, hear)) in PLAYERS.into_iter().enumerate() {
            let what = format!("{player}, {} {}", self.ending, self.quality);
            let heard = |source: &str, seek| hear(source, seek, self.folder.path());
            let (streamed, read) = (heard(&self.url, Some(SEEK)), heard(self.file(), Some(SEEK)));
            assert!(streamed.len() > 47_000 && streamed == read, "{what}: another sound after seeking");
            let (streamed, read) = (heard(&self.broken_url(number), None), heard(self.file(), None));
            assert!(self.ways[number].has_broken(), "{what}: nothing broke");
            assert!(read.len() > 15 * 48_000 && streamed == read, "{what}: another sound over a break");
        }
    }

    /// A part, and all of it over a connection that breaks: curl goes on where it was.
    fn is_fetched(&self) {
        let what = format!("curl, {} {}", self.ending, self.quality);
        let content = fs::read(&self.file).expect("ours");
        let part = output("curl", &["-sSf", "-r", "1000-20999", &self.url]);
        assert!(part == content[1_000..21_000], "{what}: another part");
        let into = self.folder.path().join("fetched");
        let fetch = || {
            let url = self.broken_url(PLAYERS.len());
            let curl =
                Command::new("curl").args(["-sSf", "-C", "-", &url, "-o"]).arg(&into).output().expect("curl runs");
            curl.status.code()
        };
        // 18: what came was not all.
        assert_eq!([fetch(), fetch()], [Some(18), Some(0)], "{what}");
        assert!(fs::read(&into).expect("curl's") == content, "{what}: resumed to something else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_players_play_seek_and_resume_every_format_in_every_quality() {
    let streaming = Streaming::start(|settings| {
        settings.streaming.transcode_wait_s = 25;
        // Nothing else decodes WebM.
        settings.streaming.ffmpeg = Some("ffmpeg".into());
        settings.limits.stream_requests_per_minute_per_address = 100_000;
        settings.limits.streams_per_address = 1_000;
    })
    .await;
    let mut checks = JoinSet::new();
    for (ending, codec) in FORMATS {
        let name = format!("tone.{ending}");
        write_sound(&streaming.audio_dir().join(&name), codec);
        let mut lengths = Vec::new();
        for quality in QUALITIES {
            let case = Case::of(&streaming, ending, quality).await;
            lengths.push(case.length());
            checks.spawn_blocking(move || {
                case.is_what_it_says();
                case.is_played();
                case.is_fetched();
            });
            // As many programs at once as are of use.
            while checks.len() >= 4 {
                checks.join_next().await.expect("there are some").expect("it holds");
            }
        }
        let [_, low, medium, high] = lengths[..] else { panic!("four qualities") };
        assert!(low < medium && medium < high, "{name}: {lengths:?}");
        let view = streaming.quality(&name, "low").await;
        assert_eq!((view["state"].as_str(), view["size_bytes"].as_u64()), (Some("ready"), Some(low)));
    }
    while let Some(checked) = checks.join_next().await {
        checked.expect("it holds");
    }
    streaming.stop().await;
}
