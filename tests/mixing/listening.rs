//! Channels as ordinary players hear them: by a signed link, without being in them.

use std::{process::Command, time::Duration};

use antiphon_core::{
    gateway::{MediaMode, MediaTransport},
    ids::ChannelId,
};
use antiphon_loadtest::{
    ServerUrl,
    rest::{Account, NewChannel, Rest},
};
use reqwest::{Response, StatusCode, Url, header};
use serde_json::{Value, json};

use crate::{
    support::{
        network::BreakingWay,
        nodes::{Nodes, http},
        people::PATIENCE,
        process::{Process, Scratch},
    },
    voices::{AMPLITUDE, Voice, amplitude_of, decibels, how},
};

const TONE_HZ: f64 = 710.0;
const OTHER_HZ: f64 = 1_130.0;

/// A channel, its owner, and a server to listen at.
struct Radio {
    url: ServerUrl,
    owner: Account,
    channel: ChannelId,
}

impl Radio {
    async fn on(url: ServerUrl, max_users: u32) -> Self {
        let rest = Rest::new(url.clone()).expect("a client");
        let owner = rest.register("owner", "a long enough password").await.expect("registered");
        let new = NewChannel { name: "Großer Saal".to_owned(), max_users: Some(max_users), max_speakers: None };
        let channel = rest.create_channel(&owner.access_token, &new).await.expect("created").id;
        Self { url, owner, channel }
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Response {
        let url = self.url.http(&format!("/api/channels/{}{path}", self.channel));
        http().post(url).bearer_auth(token).json(&body).send().await.expect("answered")
    }

    async fn guest(&self, name: &str) -> Account {
        Rest::new(self.url.clone()).expect("a client").guest(name).await.expect("a guest")
    }

    /// Somebody's link, relative to a server.
    async fn link_of(&self, account: &Account) -> String {
        let answer = self.post(&account.access_token, "/listen", json!({ "ttl_s": 600 })).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json::<Value>().await.expect("JSON")["data"]["url"].as_str().expect("a link").to_owned()
    }

    async fn link(&self) -> String {
        self.link_of(&self.owner).await
    }

    async fn get(&self, link: &str) -> Response {
        http().get(at(&self.url, link)).send().await.expect("answered")
    }

    async fn stats(&self) -> Value {
        let url = self.url.http(&format!("/api/channels/{}/audio/stats", self.channel));
        let answer = http().get(url).bearer_auth(&self.owner.access_token).send().await.expect("answered");
        answer.json::<Value>().await.expect("JSON")["data"].clone()
    }

    /// Waits until so many listen.
    async fn until_listeners(&self, count: u64) {
        let wait = async {
            while self.stats().await["listeners"] != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("they are counted");
    }
}

/// Where a link leads at a server.
fn at(server: &ServerUrl, link: &str) -> Url {
    server.http("/").join(link).expect("a link")
}

/// What a program writes, run beside the test.
async fn output(program: &'static str, arguments: Vec<String>) -> Vec<u8> {
    let run = move || {
        let output =
            Command::new(program).args(&arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && errors.is_empty(), "{program} {arguments:?}: {errors}");
        output.stdout
    };
    tokio::task::spawn_blocking(run).await.expect("it ends")
}

/// Some seconds as ffmpeg hears them, after as many that may be before what is expected.
async fn heard_by_ffmpeg(url: &str, skip_s: u32, seconds: u32) -> Vec<i16> {
    let arguments = format!("-v error -i {url} -t {} -f s16le -ac 1 -ar 48000 -", skip_s + seconds);
    let bytes = output("ffmpeg", arguments.split(' ').map(str::to_owned).collect()).await;
    let samples = samples_of(&bytes);
    assert!(samples.len() >= ((skip_s + seconds) * 48_000) as usize, "{} samples", samples.len());
    samples[(skip_s * 48_000) as usize..].to_vec()
}

/// Some seconds as ffmpeg hears them that asks again where a connection breaks, which it would say.
async fn heard_again_by_ffmpeg(url: &str, seconds: u32) -> Vec<i16> {
    let again = "-reconnect 1 -reconnect_streamed 1 -reconnect_delay_max 1";
    let arguments = format!("-v fatal {again} -i {url} -t {seconds} -f s16le -ac 1 -ar 48000 -");
    samples_of(&output("ffmpeg", arguments.split(' ').map(str::to_owned).collect()).await)
}

/// The first seconds as mpv plays them.
async fn played_by_mpv(url: &str, seconds: u32) -> Vec<i16> {
    let folder = Scratch::new();
    let file = folder.path().join("played");
    let sound = "--ao=pcm --ao-pcm-waveheader=no --audio-format=s16 --audio-channels=mono --audio-samplerate=48000";
    let again = "--stream-lavf-o=reconnect_streamed=1,reconnect_delay_max=1";
    let what = format!(
        "--no-config --no-terminal --no-video {again} --length={seconds} --ao-pcm-file={} {url}",
        file.display()
    );
    output("mpv", format!("{sound} {what}").split(' ').map(str::to_owned).collect()).await;
    samples_of(&std::fs::read(&file).expect("mpv's"))
}

fn samples_of(bytes: &[u8]) -> Vec<i16> {
    bytes.as_chunks::<2>().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect()
}

fn is_tone(samples: &[i16], present_hz: f64, absent_hz: f64) {
    let (present, absent) = (amplitude_of(samples, present_hz), amplitude_of(samples, absent_hz));
    println!("{present_hz} Hz at {:.1} dB, {absent_hz} Hz at {:.1} dB", decibels(present), decibels(absent));
    assert!((AMPLITUDE * 0.7..AMPLITUDE * 1.4).contains(&present), "{present}");
    assert!(decibels(absent) < -30.0, "{absent}");
}

/// Reads an answer to its end: its last page says that it is one.
async fn ends_cleanly(mut response: Response) {
    let reading = async {
        let mut file = Vec::new();
        while let Some(bytes) = response.chunk().await.expect("no broken answer") {
            file.extend_from_slice(&bytes);
        }
        file
    };
    let file = tokio::time::timeout(PATIENCE, reading).await.expect("it ends");
    let last = file.windows(4).rposition(|window| window == b"OggS").expect("pages");
    assert_eq!(file[last + 5], 4, "the last page ends the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_players_hear_the_channel_and_its_silence() {
    let server = Process::start(&[]).await;
    // The only place is the speaker's: a listener takes none.
    let radio = Radio::on(server.url(), 1).await;
    let url = at(&server.url(), &radio.link().await).to_string();
    // Nobody is there: silence, in real time.
    let samples = heard_by_ffmpeg(&url, 0, 2).await;
    assert!(samples.iter().all(|sample| sample.unsigned_abs() < 10), "silence");
    let probe = "-v error -show_entries stream=codec_name,sample_rate,channels:stream_tags=title -of json";
    let mut arguments: Vec<String> = probe.split(' ').map(str::to_owned).collect();
    arguments.push(url.clone());
    let probed: Value = serde_json::from_slice(&output("ffprobe", arguments).await).expect("JSON");
    let stream = &probed["streams"][0];
    assert_eq!((&stream["codec_name"], &stream["channels"]), (&json!("opus"), &json!(1)), "{probed}");
    assert!(probed.to_string().contains("Großer Saal"), "{probed}");
    let how_to_speak = how(radio.channel, MediaMode::Forward, MediaTransport::Udp);
    let speaker = Voice::join(server.url(), "speaker", Some(TONE_HZ), how_to_speak).await;
    speaker.until_udp_works().await;
    is_tone(&heard_by_ffmpeg(&url, 1, 2).await, TONE_HZ, OTHER_HZ);
    let played = played_by_mpv(&url, 3).await;
    is_tone(&played[48_000..], TONE_HZ, OTHER_HZ);
    let stats = radio.stats().await;
    assert_eq!((&stats["current_users"], &stats["mixed_users"]), (&json!(1), &json!(0)), "no member: {stats}");
    // Who stops is followed by silence in the same file.
    let listening = tokio::spawn(async move { heard_by_ffmpeg(&url, 0, 5).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    speaker.speaks(false);
    let samples = listening.await.expect("heard");
    let (first, last) = (&samples[24_000..48_000], &samples[samples.len() - 24_000..]);
    assert!(decibels(amplitude_of(first, TONE_HZ)) > -3.0 && decibels(amplitude_of(last, TONE_HZ)) < -60.0);
    radio.until_listeners(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn players_go_on_hearing_the_channel_where_their_connection_breaks() {
    /// Some three seconds of the file.
    const BREAKS_AFTER_BYTES: u64 = 26_000;
    const SECONDS: u32 = 8;
    let server = Process::start(&[]).await;
    let radio = Radio::on(server.url(), 10).await;
    let link = radio.link().await;
    let how_to_speak = how(radio.channel, MediaMode::Forward, MediaTransport::Udp);
    let speaker = Voice::join(server.url(), "speaker", Some(TONE_HZ), how_to_speak).await;
    speaker.until_udp_works().await;
    let port = server.url().http("/").port().expect("its own");
    let ways = [BreakingWay::open(port, BREAKS_AFTER_BYTES).await, BreakingWay::open(port, BREAKS_AFTER_BYTES).await];
    let [first, second] = ways.map(|way| way.expect("a port"));
    let by_way = |way: &BreakingWay| format!("http://{}{link}", way.address());
    let (by_ffmpeg, by_mpv) = (by_way(&first), by_way(&second));
    let (of_ffmpeg, of_mpv) = tokio::join!(heard_again_by_ffmpeg(&by_ffmpeg, SECONDS), played_by_mpv(&by_mpv, SECONDS));
    for (player, samples, way) in [("ffmpeg", of_ffmpeg, first), ("mpv", of_mpv, second)] {
        println!("{player} heard {:.2} s", samples.len() as f64 / 48_000.0);
        assert!(way.has_broken(), "{player} heard all of it by one connection");
        // A second before the break, and the last two, which are behind it.
        is_tone(&samples[48_000..96_000], TONE_HZ, OTHER_HZ);
        is_tone(&samples[samples.len() - 96_000..], TONE_HZ, OTHER_HZ);
        let missing_s = f64::from(SECONDS) - samples.len() as f64 / 48_000.0;
        assert!(missing_s < 1.0, "{player} ended {missing_s} s early");
    }
    // Each asked twice, and no place is left to a connection that broke.
    radio.until_listeners(0).await;
    let figures = Rest::new(server.url()).expect("a client").metrics().await.expect("figures");
    assert!(figures.contains("antiphon_streaming_live_listens_total 4"), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_who_speaks_on_another_node() {
    let cluster = Nodes::start(2).await;
    let radio = Radio::on(cluster.nodes[0].url(), 10).await;
    let how_to_speak = how(radio.channel, MediaMode::Forward, MediaTransport::Udp);
    let speaker = Voice::join(cluster.nodes[1].url(), "speaker", Some(TONE_HZ), how_to_speak).await;
    speaker.until_udp_works().await;
    let link = radio.link().await;
    // A link is good at every node, and nobody is in the channel on the first.
    is_tone(&heard_by_ffmpeg(at(&cluster.nodes[0].url(), &link).as_str(), 1, 2).await, TONE_HZ, OTHER_HZ);
    is_tone(&heard_by_ffmpeg(at(&cluster.nodes[1].url(), &link).as_str(), 1, 2).await, TONE_HZ, OTHER_HZ);
    assert_eq!(radio.stats().await["current_users"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_a_file_that_goes_on_and_players_of_internet_radio_are_told_its_name() {
    let server = Process::start(&[("ANTIPHON_STREAMING__LIVE_BITRATE_MIN", "96000")]).await;
    let radio = Radio::on(server.url(), 10).await;
    let link = radio.link().await;
    let head = http()
        .head(at(&server.url(), &link))
        .header(header::ORIGIN, "http://localhost:1")
        .send()
        .await
        .expect("answered");
    assert_eq!(head.status(), StatusCode::OK);
    let told = |name: &str| String::from_utf8_lossy(head.headers()[name].as_bytes()).into_owned();
    assert_eq!(told("content-type"), "audio/ogg");
    assert!(!head.headers().contains_key("content-length"), "it has no end: {:?}", head.headers());
    assert_eq!(
        (told("cache-control"), told("icy-name"), told("icy-br")),
        ("no-store".into(), "Großer Saal".into(), "96".into())
    );
    assert_eq!(told("access-control-allow-origin"), "http://localhost:1", "this machine's pages may");
    assert_eq!(radio.stats().await["listeners"], 0, "who asks for the head does not listen");
    let mut response = radio.get(&link).await;
    assert_eq!(response.status(), StatusCode::OK);
    radio.until_listeners(1).await;
    let (mut bytes, mut first) = (0, Vec::new());
    while bytes < 96_000 / 8 * 2 {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("goes on").expect("whole");
        let chunk = chunk.expect("it has no end");
        bytes += chunk.len();
        first.extend_from_slice(&chunk);
    }
    assert!(first.starts_with(b"OggS"));
    drop(response);
    radio.until_listeners(0).await;
    let metrics = Rest::new(server.url()).expect("a client").metrics().await.expect("figures");
    let ends = r#"antiphon_streaming_live_ends_total{reason="left"} 1"#;
    assert!(metrics.contains(ends), "{ends} in {metrics}");
    let stopped = output(
        "curl",
        vec![
            "-sSf".into(),
            "--max-filesize".into(),
            "1000000".into(),
            "-o".into(),
            "/dev/null".into(),
            "-w".into(),
            "%{content_type}".into(),
            "-I".into(),
            at(&server.url(), &link).to_string(),
        ],
    )
    .await;
    assert_eq!(String::from_utf8_lossy(&stopped), "audio/ogg");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_for_who_may_hear_the_channel_and_hold_as_long_as_that() {
    let server = Process::start(&[]).await;
    let radio = Radio::on(server.url(), 10).await;
    let guest = radio.guest("guest").await;
    let (link, own) = (radio.link_of(&guest).await, radio.link().await);
    for (what, status) in [
        (link.replace("expires=", "expires=1"), StatusCode::FORBIDDEN),
        (link.replace("sig=", "sig=x"), StatusCode::FORBIDDEN),
        (link.replace("&sig=", "&nothing="), StatusCode::FORBIDDEN),
        (link.replace(&guest.user.id.to_string(), &radio.owner.user.id.to_string()), StatusCode::FORBIDDEN),
        (link.replace(".ogg", ".mp3"), StatusCode::NOT_FOUND),
        (format!("{link}&kbps=9000"), StatusCode::BAD_REQUEST),
    ] {
        let refused = radio.get(&what).await;
        assert_eq!(refused.status(), status, "{what}");
    }
    // The guest is banned: what they began ends, and they begin nothing more.
    let (banned, other) = (radio.get(&link).await, radio.get(&own).await);
    radio.until_listeners(2).await;
    let ban = json!({ "user_id": guest.user.id });
    assert!(radio.post(&radio.owner.access_token, "/ban", ban).await.status().is_success());
    ends_cleanly(banned).await;
    assert_eq!(radio.get(&link).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        radio.post(&guest.access_token, "/listen", json!({ "ttl_s": 60 })).await.status(),
        StatusCode::FORBIDDEN
    );
    // Others may no longer know of the channel once it is private, and it ends for all when it is gone.
    let stranger = radio.guest("stranger").await;
    let link = radio.link_of(&stranger).await;
    let listening = radio.get(&link).await;
    radio.until_listeners(2).await;
    let url = server.url().http(&format!("/api/channels/{}", radio.channel));
    let private = http().put(url.clone()).bearer_auth(&radio.owner.access_token).json(&json!({ "is_private": true }));
    assert!(private.send().await.expect("answered").status().is_success());
    ends_cleanly(listening).await;
    assert_eq!(radio.get(&link).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        radio.post(&stranger.access_token, "/listen", json!({ "ttl_s": 60 })).await.status(),
        StatusCode::NOT_FOUND
    );
    let deleted = http().delete(url).bearer_auth(&radio.owner.access_token).send().await.expect("answered");
    assert!(deleted.status().is_success());
    ends_cleanly(other).await;
    assert_eq!(radio.get(&own).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_switched_off_hears_nothing_more_on_any_node() {
    let cluster = Nodes::start(2).await;
    let radio = Radio::on(cluster.nodes[0].url(), 10).await;
    let guest = radio.guest("guest").await;
    let link = radio.link_of(&guest).await;
    let listen = async |node: usize| {
        let url = at(&cluster.nodes[node].url(), &link);
        http().get(url).send().await.expect("answered")
    };
    let (here, there) = (listen(0).await, listen(1).await);
    assert_eq!((here.status(), there.status()), (StatusCode::OK, StatusCode::OK));
    let url = radio.url.http(&format!("/api/users/{}", guest.user.id));
    let off = http().put(url).bearer_auth(&radio.owner.access_token).json(&json!({ "is_active": false }));
    assert!(off.send().await.expect("answered").status().is_success());
    ends_cleanly(here).await;
    ends_cleanly(there).await;
    for node in 0..2 {
        assert_eq!(listen(node).await.status(), StatusCode::FORBIDDEN, "by the link they still have");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_on_another_node_ends_it_too() {
    let cluster = Nodes::start(2).await;
    let radio = Radio::on(cluster.nodes[0].url(), 10).await;
    let guest = radio.guest("guest").await;
    let link = radio.link_of(&guest).await;
    let listening = http().get(at(&cluster.nodes[1].url(), &link)).send().await.expect("answered");
    assert_eq!(listening.status(), StatusCode::OK);
    let ban = json!({ "user_id": guest.user.id });
    assert!(radio.post(&radio.owner.access_token, "/ban", ban).await.status().is_success());
    ends_cleanly(listening).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_bounded_and_the_refusal_says_by_what() {
    let settings =
        [("ANTIPHON_LIMITS__LIVE_LISTENERS_PER_ADDRESS", "3"), ("ANTIPHON_LIMITS__LIVE_LISTENERS_PER_CHANNEL", "2")];
    let server = Process::start(&settings).await;
    let radio = Radio::on(server.url(), 10).await;
    let link = radio.link().await;
    let (_one, two) = (radio.get(&link).await, radio.get(&link).await);
    let full = radio.get(&link).await;
    assert_eq!(full.status(), StatusCode::CONFLICT);
    assert_eq!(full.json::<Value>().await.expect("JSON")["error_code"], "LIMIT_REACHED");
    let new = NewChannel { name: "other".to_owned(), max_users: None, max_speakers: None };
    let rest = Rest::new(server.url()).expect("a client");
    let other = rest.create_channel(&radio.owner.access_token, &new).await.expect("created").id;
    let other = Radio { url: server.url(), owner: radio.owner.clone(), channel: other };
    let link_there = other.link().await;
    let _three = other.get(&link_there).await;
    let busy = other.get(&link_there).await;
    assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(busy.headers().contains_key(header::RETRY_AFTER));
    drop(two);
    radio.until_listeners(1).await;
    assert_eq!(other.get(&link_there).await.status(), StatusCode::OK, "free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_the_file_in_good_order() {
    let mut server = Process::start(&[]).await;
    let radio = Radio::on(server.url(), 10).await;
    let listening = radio.get(&radio.link().await).await;
    radio.until_listeners(1).await;
    server.signal("TERM");
    ends_cleanly(listening).await;
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mixer_nobody_can_listen() {
    let server = Process::start(&[("ANTIPHON_MIXER__THREADS", "0")]).await;
    let radio = Radio::on(server.url(), 10).await;
    let refused = radio.get(&radio.link().await).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(refused.text().await.expect("text").contains("mixer.threads"));
}
