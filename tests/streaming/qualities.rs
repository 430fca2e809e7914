//! Qualities: made once, exact in length, seekable, bounded against files that mean no good, and begun again after a crash.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Streaming,
    client::Client,
    support::{
        process::{Process, Scratch},
        sounds::{SECONDS, crossings, output, probe, write_sound},
    },
};

impl Streaming {
    /// A link to a quality of a file, relative to the server.
    pub(crate) async fn quality_link(&self, path: &str, quality: &str) -> String {
        let body = json!({"path": path, "ttl_s": 600, "quality": quality});
        let answer = self.anna.post("/api/streams/sign", body).await;
        answer.expect(200)["data"]["url"].as_str().expect("a link").to_owned()
    }

    /// How a quality is, as the API tells.
    pub(crate) async fn quality(&self, path: &str, quality: &str) -> Value {
        let body = self.anna.get(&format!("/api/streams/{path}/qualities")).await.expect(200);
        let views = body["data"].as_array().expect("qualities");
        views.iter().find(|view| view["quality"] == quality).expect("this one").clone()
    }
}

/// Asks again until `ready` says so of what the server answers.
async fn until<T>(mut ask: impl AsyncFnMut() -> T, ready: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let answer = ask().await;
        if ready(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "it does not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_its_quality_are_told_apart_in_memory() {
    let streaming = Streaming::start(|settings| settings.streaming.transcode_wait_s = 25).await;
    write_sound(&streaming.audio_dir().join("tone.flac"), "flac");
    let file = fs::read(streaming.audio_dir().join("tone.flac")).expect("ours");
    // Each is the first of its folder that is opened, and both are in memory afterwards.
    for _ in 0..2 {
        for (quality, begins) in [("original", b"fLaC"), ("low", b"OggS")] {
            let link = streaming.quality_link("tone.flac", quality).await;
            let sent = streaming.nobody.request(reqwest::Method::GET, &link).send().await.expect("answered");
            let sent = sent.bytes().await.expect("all of it");
            assert_eq!(&sent[..4], begins, "{quality}");
            assert_eq!(sent == file, quality == "original");
        }
    }
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loudness_and_length_are_what_ffmpeg_measures() {
    let streaming = Streaming::start(|_| {}).await;
    let path = streaming.audio_dir().join("pink.wav");
    let source = "anoisesrc=color=pink:duration=20:seed=7:amplitude=0.4:sample_rate=44100";
    let name = path.to_str().expect("text");
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", source, "-ac", "2", "-y", name]);
    let measured = std::process::Command::new("ffmpeg")
        .args(["-hide_banner", "-nostats", "-i", name, "-af", "ebur128=peak=true", "-f", "null", "-"])
        .output()
        .expect("ffmpeg runs");
    let said = String::from_utf8_lossy(&measured.stderr).into_owned();
    let summary = &said[said.rfind("Summary:").expect("a summary")..];
    let value = |label: &str| -> f64 {
        let rest = summary.split(label).nth(1).expect(label).trim_start();
        rest.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    let (integrated, range, peak) = (value("I:"), value("LRA:"), value("Peak:"));
    // A request may not wait for so long as it takes on a busy machine.
    streaming.nobody.get(&streaming.quality_link("pink.wav", "low").await).await;
    until(async || streaming.quality("pink.wav", "low").await, |view| view["state"] == "ready").await;
    let body = streaming.anna.get("/api/streams/pink.wav").await.expect(200);
    let facts = &body["data"]["facts"];
    let near = |name: &str, wanted: f64, tolerance: f64| {
        let found = facts["loudness"][name].as_f64().expect("a number");
        assert!((found - wanted).abs() <= tolerance, "{name}: {found}, and ffmpeg says {wanted}");
    };
    near("integrated_lufs", integrated, 0.2);
    near("range_lu", range, 0.5);
    near("true_peak_dbtp", peak, 0.4);
    assert_eq!((facts["sample_rate_hz"].as_u64(), facts["channels"].as_u64()), (Some(44_100), Some(2)));
    assert!((facts["duration_s"].as_f64().expect("seconds") - 20.0).abs() < 0.001, "{facts}");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_wait_is_told_when_to_come_back() {
    let streaming = Streaming::start(|settings| settings.streaming.transcode_wait_s = 0).await;
    write_sound(&streaming.audio_dir().join("tone.flac"), "flac");
    assert_eq!(streaming.quality("tone.flac", "medium").await["state"], "absent");
    let link = streaming.quality_link("tone.flac", "medium").await;
    let first = streaming.nobody.get(&link).await;
    if first.status != 200 {
        let why = first.expect_error(503, "TEMPORARILY_UNAVAILABLE");
        assert!(why.contains("medium"), "{why}");
        assert!(!first.header("retry-after").is_empty());
    }
    let view = until(
        async || streaming.quality("tone.flac", "medium").await,
        |view| !["queued", "running"].contains(&view["state"].as_str().expect("a state")),
    )
    .await;
    assert_eq!(view["state"], "ready", "{view}");
    assert_eq!(streaming.nobody.get(&link).await.status.as_u16(), 200);
    // And ordered ahead, without a listener.
    let order = |quality: &str| json!({"quality": quality});
    let ordered = streaming.anna.post("/api/streams/tone.flac/qualities", order("high")).await;
    assert!([200, 202].contains(&ordered.status.as_u16()), "{}", ordered.text);
    until(async || streaming.quality("tone.flac", "high").await, |view| view["state"] == "ready").await;
    streaming.anna.post("/api/streams/tone.flac/qualities", order("high")).await.expect(200);
    for wrong in ["original", "best", ""] {
        let refused = streaming.anna.post("/api/streams/tone.flac/qualities", order(wrong)).await;
        refused.expect_error(400, "INVALID_INPUT");
    }
    streaming.nobody.post("/api/streams/tone.flac/qualities", order("low")).await.expect_error(401, "UNAUTHENTICATED");
    streaming.anna.get("/api/streams/none.flac/qualities").await.expect_error(404, "NOT_FOUND");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_made_again_and_a_queue_ends() {
    let streaming = Streaming::start(|settings| {
        settings.limits.transcodes_queued = 1;
        settings.streaming.transcode_wait_s = 25;
    })
    .await;
    write_sound(&streaming.audio_dir().join("tone.wav"), "pcm_s16le");
    let link = streaming.quality_link("tone.wav", "low").await;
    let before = streaming.nobody.get(&link).await;
    let other = streaming.audio_dir().with_file_name("other.wav");
    let name = other.to_str().expect("text");
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", "sine=d=3", "-y", name]);
    fs::rename(&other, streaming.audio_dir().join("tone.wav")).expect("renames");
    let after =
        until(async || streaming.nobody.get(&link).await, |answer| answer.header("etag") != before.header("etag"))
            .await;
    assert!(after.text.len() < before.text.len() / 2, "the new one is shorter");
    // More than one thread and a queue of one can take: somebody is turned away, and told when to come back.
    for index in 0..6 {
        fs::copy(streaming.audio_dir().join("tone.wav"), streaming.audio_dir().join(format!("{index}.wav")))
            .expect("copies");
    }
    let mut turned_away = 0;
    for index in 0..6 {
        let path = format!("/api/streams/{index}.wav/qualities");
        let answer = streaming.anna.post(&path, json!({"quality": "high"})).await;
        if answer.status.as_u16() == 503 {
            assert!(answer.expect_error(503, "TEMPORARILY_UNAVAILABLE").contains("transcodes_queued"));
            assert_eq!(answer.header("retry-after"), "60");
            turned_away += 1;
        }
    }
    assert!(turned_away > 0, "six orders at once fit into a queue of one");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_orders_much_keeps_nobody_waiting() {
    const SHARE: usize = 20;
    let streaming = Streaming::start(|settings| settings.limits.transcodes_queued_per_account = SHARE as u32).await;
    write_sound(&streaming.audio_dir().join("0.wav"), "pcm_s16le");
    for index in 1..=SHARE + 15 {
        let path = streaming.audio_dir().join(format!("{index}.wav"));
        fs::copy(streaming.audio_dir().join("0.wav"), path).expect("copies");
    }
    let ben = streaming.nobody.register("ben").await;
    let order = async |who: &Client, index: usize| {
        who.post(&format!("/api/streams/{index}.wav/qualities"), json!({"quality": "high"})).await
    };
    let mut accepted = Vec::new();
    for index in 1..=SHARE + 15 {
        let answer = order(&streaming.anna, index).await;
        if answer.status.as_u16() == 429 {
            assert!(answer.expect_error(429, "RATE_LIMITED").contains("transcodes_queued_per_account"));
            assert_eq!(answer.header("retry-after"), "60");
        } else {
            assert_eq!(answer.status.as_u16(), 202, "{}", answer.text);
            accepted.push(index);
        }
    }
    assert!(accepted.len() < SHARE + 15, "her share is at an end before her files are");
    let last = accepted.last().expect("some");
    assert_eq!(order(&ben, 0).await.status.as_u16(), 202, "his is whole");
    // What another wants, too, comes in his turn.
    assert_eq!(order(&ben, *last).await.status.as_u16(), 202);
    for (his, hers) in [(0, accepted[SHARE - 2]), (*last, accepted[SHARE - 2])] {
        let ready = async || streaming.quality(&format!("{his}.wav"), "high").await["state"] == "ready";
        until(ready, |ready| *ready).await;
        assert_eq!(streaming.quality(&format!("{hers}.wav"), "high").await["state"], "queued", "{his} before {hers}");
    }
    streaming.stop().await;
}

/// A WAV file's head that says what is not so.
fn wav(channels: u16, rate: u32, data_bytes: u32) -> Vec<u8> {
    let block = channels.wrapping_mul(2);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((data_bytes.saturating_add(36)).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend(rate.wrapping_mul(block.into()).to_le_bytes());
    bytes.extend(block.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(data_bytes.to_le_bytes());
    bytes
}

/// Files that cannot be decoded, and what is said of each.
fn write_hostile(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("writes");
    write_sound(&folder.join("whole.flac"), "flac");
    let whole = fs::read(folder.join("whole.flac")).expect("ours");
    put("truncated.flac", &whole[..whole.len() / 3]);
    put("empty.mp3", b"");
    let noise: Vec<u8> = (0_u32..200_000).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    put("noise.mp3", &noise);
    put("noise.ogg", &noise);
    put("text.m4a", b"not a sound in it".repeat(1_000).as_slice());
    put("channels.wav", &[wav(10_000, 48_000, 40_000_000), vec![1; 100_000]].concat());
    put("rate.wav", &[wav(2, 4_000_000_000, 100_000), vec![1; 100_000]].concat());
    put("lying.wav", &[wav(2, 48_000, 100_000_000), vec![1; 100_000]].concat());
    // A box that says that it is four gigabytes long, and one within itself.
    let mut boxes = b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0".to_vec();
    boxes.extend(b"\xff\xff\xff\xffmoov\xff\xff\xff\xf0trak\xff\xff\xff\xe0mdia");
    put("boxes.m4a", &[boxes, vec![0xff; 50_000]].concat());
    // A tag of 256 MiB, of which there is nothing, and one whose picture is all that there is.
    put("tag.mp3", &[b"ID3\x04\0\0\x7f\x7f\x7f\x7f".as_slice(), &[0; 50_000]].concat());
    put("picture.mp3", &[b"ID3\x03\0\0\0\x0f\x7f\x7fAPIC\xff\xff\xff\xff\0\0".as_slice(), &[1; 250_000]].concat());
    // 255 channels in Opus, as its head may say, and nothing behind.
    let mut packets = ogg::PacketWriter::new(Vec::new());
    let head = [b"OpusHead\x01\xff\0\0\x80\xbb\0\0\0\0\xff\xff\0".as_slice(), &[0; 255]].concat();
    packets.write_packet(head, 1, ogg::PacketWriteEndInfo::EndPage, 0).expect("memory");
    packets
        .write_packet(b"OpusTags\xff\xff\xff\xff".to_vec(), 1, ogg::PacketWriteEndInfo::EndStream, 0)
        .expect("memory");
    put("channels.opus", packets.inner());
    // An hour of silence in next to no bytes.
    let silence = folder.join("hour.flac");
    let source = "anullsrc=r=48000:cl=stereo:d=3600";
    output(
        "ffmpeg",
        &["-v", "error", "-f", "lavfi", "-i", source, "-c:a", "flac", "-y", silence.to_str().expect("text")],
    );
    assert!(fs::metadata(&silence).expect("there").len() < 2_000_000);
    vec![
        ("truncated.flac", "cut short"),
        ("empty.mp3", ""),
        ("noise.mp3", ""),
        ("noise.ogg", ""),
        ("text.m4a", ""),
        ("channels.wav", "invalid channel count"),
        ("rate.wav", "4000000000 Hz"),
        ("lying.wav", "cut short"),
        ("boxes.m4a", ""),
        ("tag.mp3", ""),
        ("picture.mp3", ""),
        ("channels.opus", ""),
        ("hour.flac", "more than 600 s"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_mean_no_good_get_a_clear_error_and_cost_little() {
    let folder = Scratch::new();
    let audio = folder.path().join("audio");
    fs::create_dir_all(&audio).expect("can be made");
    let hostile = write_hostile(&audio);
    let server = Process::start(&[
        ("AUDIO_DIR", audio.to_str().expect("text")),
        ("ANTIPHON_STREAMING__TRANSCODE_SOUND_MAX_S", "600"),
        ("ANTIPHON_STREAMING__TRANSCODE_WAIT_S", "25"),
        ("ANTIPHON_LOG__LEVEL", "error"),
    ])
    .await;
    let nobody = Client::new(server.url().http("").as_str().trim_end_matches('/').to_owned());
    let anna = nobody.guest("anna").await;
    let before = server.resident_bytes();
    for (name, reason) in hostile {
        for attempt in ["first", "again"] {
            // What is known to be refused is refused when the link is asked for.
            let body = json!({"path": name, "ttl_s": 600, "quality": "low"});
            let signed = anna.post("/api/streams/sign", body).await;
            let answer = match signed.status.as_u16() {
                200 => nobody.get(signed.json()["data"]["url"].as_str().expect("a link")).await,
                _ => signed,
            };
            // Later than `transcode_wait_s` it would be 503.
            let why = answer.expect_error(422, "INVALID_INPUT");
            assert!(why.contains(reason), "{name}, {attempt}: {why}");
        }
        let view = anna.get(&format!("/api/streams/{name}/qualities")).await.expect(200);
        assert_eq!(view["data"][1]["state"], "refused", "{name}: {view}");
    }
    // The most that it ever was, not what is left.
    let grown = server.resident_bytes_max().saturating_sub(before);
    assert!(grown < 64 * 1_024 * 1_024, "memory grew by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_is_silence_and_counted() {
    let streaming = Streaming::start(|settings| settings.streaming.transcode_wait_s = 25).await;
    write_sound(&streaming.audio_dir().join("tone.mp3"), "libmp3lame");
    let mut bytes = fs::read(streaming.audio_dir().join("tone.mp3")).expect("ours");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2_000].fill(0xa5);
    streaming.put("hurt.mp3", &bytes);
    let link = streaming.quality_link("hurt.mp3", "low").await;
    assert_eq!(streaming.nobody.get(&link).await.status.as_u16(), 200);
    let url = format!("{}{link}", streaming.server.url());
    let seconds: f64 = probe(&url, "format=duration").parse().expect("seconds");
    assert!((seconds - SECONDS).abs() < 0.5, "{seconds} s");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_decodes_what_is_not_known_where_it_is_set() {
    for (ffmpeg, status) in [(None, 422), (Some("ffmpeg".into()), 200)] {
        let streaming = Streaming::start(|settings| {
            settings.streaming.ffmpeg = ffmpeg;
            settings.streaming.transcode_wait_s = 25;
        })
        .await;
        write_sound(&streaming.audio_dir().join("tone.webm"), "libopus");
        let link = streaming.quality_link("tone.webm", "medium").await;
        let answer = streaming.nobody.get(&link).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        if status == 200 {
            let url = format!("{}{link}", streaming.server.url());
            let seconds: f64 = probe(&url, "format=duration").parse().expect("seconds");
            assert!((seconds - SECONDS).abs() < 0.05, "{seconds} s");
            let found = crossings(&url, "8");
            assert!((1_060..=1_100).contains(&found), "{found} crossings");
            // A playlist that is called a sound does not make it read another file.
            let secret = streaming.audio_dir().join("tone.webm");
            let list = format!("ffconcat version 1.0\nfile '{}'\n", secret.display());
            streaming.put("list.webm", list.as_bytes());
            let link = streaming.quality_link("list.webm", "medium").await;
            assert_eq!(streaming.nobody.get(&link).await.status.as_u16(), 422);
        }
        streaming.stop().await;
    }
}

/// Files that only ffmpeg may know, of which none can be decoded, and what is said of each.
fn write_hostile_to_ffmpeg(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("writes");
    write_sound(&folder.join("whole.webm"), "libopus");
    let whole = fs::read(folder.join("whole.webm")).expect("ours");
    put("truncated.webm", &whole[..whole.len() / 3]);
    put("head.webm", &whole[..200]);
    // The head says 12 s, and what follows is noise.
    let noise = (0..whole.len()).map(|at| ((at as u32).wrapping_mul(2_654_435_761) >> 13) as u8);
    let mut lying: Vec<u8> = noise.collect();
    lying[..1_000].copy_from_slice(&whole[..1_000]);
    put("lying.webm", &lying);
    put("text.webm", &[&whole[..4], b"no sound in it".repeat(1_000).as_slice()].concat());
    let silence = folder.join("hour.webm");
    let source = "anullsrc=r=48000:cl=mono:d=3600";
    let silent = ["-c:a", "libopus", "-b:a", "6k", "-frame_duration", "60", "-y", silence.to_str().expect("text")];
    output("ffmpeg", &[&["-v", "error", "-f", "lavfi", "-i", source][..], &silent].concat());
    vec![
        ("truncated.webm", "cut short"),
        ("head.webm", "cannot be decoded"),
        ("lying.webm", "cannot be decoded"),
        ("text.webm", "cannot be decoded"),
        ("hour.webm", "more than 600 s"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_mean_no_good_get_the_same_clear_error_of_ffmpeg() {
    let folder = Scratch::new();
    let (audio, made) = (folder.path().join("audio"), folder.path().join("made"));
    fs::create_dir_all(&audio).expect("can be made");
    let hostile = write_hostile_to_ffmpeg(&audio);
    let server = Process::start(&[
        ("AUDIO_DIR", audio.to_str().expect("text")),
        ("ANTIPHON_STREAMING__MADE_DIR", made.to_str().expect("text")),
        ("ANTIPHON_STREAMING__FFMPEG", "ffmpeg"),
        ("ANTIPHON_STREAMING__TRANSCODE_SOUND_MAX_S", "600"),
        ("ANTIPHON_STREAMING__TRANSCODE_WAIT_S", "25"),
    ])
    .await;
    let nobody = Client::new(server.url().http("").as_str().trim_end_matches('/').to_owned());
    let anna = nobody.guest("anna").await;
    let before = server.resident_bytes();
    for (name, reason) in hostile {
        let body = json!({"path": name, "ttl_s": 600, "quality": "low"});
        let signed = anna.post("/api/streams/sign", body).await.expect(200);
        let begun = Instant::now();
        let answer = nobody.get(signed["data"]["url"].as_str().expect("a link")).await;
        let why = answer.expect_error(422, "INVALID_INPUT");
        println!("{name}: {why}, after {:?}", begun.elapsed());
        assert!(why.contains(reason), "{name}: {why}");
        let view = anna.get(&format!("/api/streams/{name}/qualities")).await.expect(200);
        assert_eq!(view["data"][1]["state"], "refused", "{name}: {view}");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * 1_024 * 1_024, "memory grew by {grown} bytes");
    let left = files_below(&made).into_iter().filter(|path| path.file_name().is_none_or(|name| name != "refused"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new(), "nothing half made is left");
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_leaves_nothing_half_made_and_goes_on() {
    let folder = Scratch::new();
    let (audio, made) = (folder.path().join("audio"), folder.path().join("made"));
    fs::create_dir_all(&audio).expect("can be made");
    let long = audio.join("long.wav");
    let source = "anoisesrc=color=pink:duration=1200:seed=1:sample_rate=22050";
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", source, "-y", long.to_str().expect("text")]);
    let settings = [
        ("AUDIO_DIR", audio.to_str().expect("text")),
        ("ANTIPHON_STREAMING__MADE_DIR", made.to_str().expect("text")),
        ("ANTIPHON_AUTH__JWT_SECRET", "the same for both, so that links and accounts last"),
    ];
    let mut first = Process::start(&settings).await;
    let anna = Client::new(first.url().http("").as_str().trim_end_matches('/').to_owned()).guest("anna").await;
    anna.post("/api/streams/long.wav/qualities", json!({"quality": "low"})).await.expect(202);
    // Well begun: some of it is on the disk.
    let parts = || files_below(&made.join(".parts"));
    until(async || parts(), |parts| parts.iter().any(|part| fs::metadata(part).is_ok_and(|part| part.len() > 100_000)))
        .await;
    first.kill();
    assert!(!files_below(&made).iter().any(|path| path.extension().is_some_and(|end| end == "opus")), "none is whole");
    assert!(!parts().is_empty(), "a half is left");

    let second = Process::start(&settings).await;
    let bela = Client::new(second.url().http("").as_str().trim_end_matches('/').to_owned()).guest("bela").await;
    // Nobody asks for it again.
    let low = async || bela.get("/api/streams/long.wav/qualities").await.expect(200)["data"][1].clone();
    let running = low().await;
    assert!(["queued", "running", "ready"].contains(&running["state"].as_str().expect("a state")), "{running}");
    until(low, |view| view["state"] == "ready").await;
    // The half of the first is gone, and so is the mark that said what is wanted, as soon as all is written.
    let left = async || [parts(), files_below(&made.join(".marks"))].concat();
    until(left, Vec::is_empty).await;
    let whole = files_below(&made).into_iter().find(|path| path.extension().is_some_and(|end| end == "opus"));
    let seconds: f64 = probe(whole.expect("made").to_str().expect("text"), "format=duration").parse().expect("seconds");
    assert!((seconds - 1_200.0).abs() < 0.05, "{seconds} s");
}
