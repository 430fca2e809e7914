//! Audio files in a page's `<audio>`: every format in every quality plays, seeks, and goes on where its connection broke.

use antiphon_loadtest::rest::Rest;
use serde_json::{Value, json};

use crate::{
    chromium::Chromium,
    support::{
        network::BreakingWay,
        nodes::http,
        process::{Process, Scratch},
        sounds::{FORMATS, QUALITIES, SECONDS, pitch_at, write_sound},
    },
};

/// Plays a file a little, then from its eighth second to its end; what was heard there, and how it ended.
const PLAY: &str = "async (url) => {
    const audio = new Audio();
    audio.crossOrigin = 'anonymous';
    audio.preload = 'auto';
    audio.src = url;
    const failed = new Promise((_, reject) => {
        audio.onerror = () => reject(new Error(`${url}: ${audio.error.code} ${audio.error.message}`));
    });
    const comes = (event) => Promise.race([failed, new Promise((resolve) => audio.addEventListener(event, resolve, { once: true }))]);
    const passes = async (place) => { while (audio.currentTime < place) await comes('timeupdate'); };
    window.context ||= new AudioContext();
    const meter = context.createAnalyser();
    meter.fftSize = 8192;
    context.createMediaElementSource(audio).connect(meter).connect(context.destination);
    await Promise.race([failed, audio.play()]);
    await passes(0.2);
    audio.pause();
    const sought = comes('seeked');
    audio.currentTime = 8;
    await sought;
    const from = audio.currentTime;
    await audio.play();
    await passes(8.4);
    const bins = new Float32Array(meter.frequencyBinCount);
    meter.getFloatFrequencyData(bins);
    const place = audio.currentTime;
    let best = 0;
    bins.forEach((level, bin) => { if (level > bins[best]) best = bin; });
    audio.playbackRate = 4;
    await comes('ended');
    return { from, place, hz: best * context.sampleRate / meter.fftSize, seconds: audio.currentTime };
}";

/// A link to a file in a quality, relative to the server.
async fn link(server: &Process, token: &str, path: &str, quality: &str) -> String {
    let body = json!({ "path": path, "ttl_s": 600, "quality": quality });
    let sign = http().post(server.url().http("/api/streams/sign")).bearer_auth(token).json(&body);
    let answer: Value = sign.send().await.expect("answered").json().await.expect("JSON");
    answer["data"]["url"].as_str().unwrap_or_else(|| panic!("{path}: {answer}")).to_owned()
}

/// A block as Chromium reads it, with an answer's head before it: it goes on where a connection broke once it has one.
const BLOCK_BYTES: u64 = 32 * 1_024 + 2_000;

/// The way to a link on which a connection breaks after a third of the file.
async fn way_to(server: &Process, link: &str) -> BreakingWay {
    let url = server.url().http("/").join(link).expect("a link");
    let head = http().head(url).send().await.expect("answered").error_for_status().expect("it is there");
    let length: u64 = head.headers()["content-length"].to_str().expect("text").parse().expect("a number");
    let port = server.url().http("/").port().expect("one of its own");
    BreakingWay::open(port, BLOCK_BYTES.max(length / 3)).await.expect("a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_plays_seeks_and_resumes_every_format_in_every_quality() {
    let folder = Scratch::new();
    for (ending, codec) in FORMATS {
        write_sound(&folder.path().join(format!("tone.{ending}")), codec);
    }
    let server = Process::start(&[
        ("AUDIO_DIR", folder.path().to_str().expect("text")),
        ("ANTIPHON_STREAMING__FFMPEG", "ffmpeg"),
        ("ANTIPHON_STREAMING__TRANSCODE_WAIT_S", "25"),
        ("ANTIPHON_LIMITS__STREAM_REQUESTS_PER_MINUTE_PER_ADDRESS", "100000"),
        ("ANTIPHON_LIMITS__STREAMS_PER_ADDRESS", "1000"),
    ])
    .await;
    let listener = Rest::new(server.url()).expect("a client").guest("listener").await.expect("a guest");
    let browser = Chromium::start().await;
    let page = browser.page().await;
    for quality in QUALITIES {
        let (mut ways, mut urls) = (Vec::new(), Vec::new());
        for (ending, _) in FORMATS {
            let link = link(&server, &listener.access_token, &format!("tone.{ending}"), quality).await;
            let way = way_to(&server, &link).await;
            urls.push(format!("http://{}{link}", way.address()));
            ways.push(way);
        }
        let played =
            page.evaluate(&format!("Promise.all({}.map((url) => ({PLAY})(url).catch(String)))", json!(urls))).await;
        let played = played.as_array().expect("one each").iter();
        for (((ending, _), way), played) in FORMATS.into_iter().zip(&ways).zip(played) {
            let what = format!("{ending} {quality}: {played}");
            let number = |name: &str| played[name].as_f64().expect("a number");
            assert!(played.is_object(), "{what}");
            assert!(way.has_broken(), "{what}: nothing broke");
            assert!((number("from") - 8.0).abs() < 0.1, "{what}: it plays from elsewhere");
            assert!((number("hz") - pitch_at(number("place"))).abs() < 30.0, "{what}: another sound after seeking");
            assert!((number("seconds") - SECONDS).abs() < 0.3, "{what}: it ends elsewhere");
        }
    }
}
