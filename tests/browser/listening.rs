//! A channel in a page's `<audio>`, by a signed link.

use antiphon_loadtest::rest::Rest;
use serde_json::json;

use crate::{
    chromium::Chromium,
    support::{
        nodes::http,
        people::{Person, make_channel},
        process::Process,
    },
    tone::{say, tone},
};

const TONE_HZ: f32 = 880.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_plays_a_channel_like_any_sound() {
    let server = Process::start(&[]).await;
    let channel = make_channel(&server, "radio", 10).await;
    let mut speaker = Person::join(&server, "speaker", channel).await;
    speaker.udp_becomes(true).await;
    let speaking = tokio::spawn(async move { say(&speaker, &tone(TONE_HZ, 50 * 60)).await });
    let listener = Rest::new(server.url()).expect("a client").guest("listener").await.expect("a guest");
    let sign = http().post(server.url().http(&format!("/api/channels/{channel}/listen")));
    let link = sign.bearer_auth(&listener.access_token).json(&json!({ "ttl_s": 60 })).send().await.expect("answered");
    let link: serde_json::Value = link.json().await.expect("JSON");
    let link = link["data"]["url"].as_str().expect("a link");
    let url = format!("{}{link}&kbps=128", server.url().http("/").as_str().trim_end_matches('/'));
    let browser = Chromium::start().await;
    let page = browser.page().await;
    page.evaluate(&format!(
        "(() => {{
            const audio = window.radio = new Audio();
            audio.crossOrigin = 'anonymous';
            audio.src = {url:?};
            const context = new AudioContext();
            const meter = window.meter = context.createAnalyser();
            meter.fftSize = 8192;
            context.createMediaElementSource(audio).connect(meter);
            meter.connect(context.destination);
            audio.play();
        }})()"
    ))
    .await;
    page.until("radio.currentTime", |time| time.as_f64() > Some(2.0)).await;
    let loudest = "(() => {
        const bins = new Float32Array(meter.frequencyBinCount);
        meter.getFloatFrequencyData(bins);
        let best = 0;
        bins.forEach((level, bin) => { if (level > bins[best]) best = bin; });
        return bins[best] > -50 ? best * meter.context.sampleRate / meter.fftSize : 0;
    })()";
    let near = |hz: &serde_json::Value| hz.as_f64().is_some_and(|hz| (hz - f64::from(TONE_HZ)).abs() < 15.0);
    page.until(loudest, near).await;
    // It has no end, and goes on in silence.
    speaking.abort();
    let now = page.evaluate("radio.currentTime").await.as_f64().expect("a number");
    page.until("radio.currentTime", |time| time.as_f64() > Some(now + 4.0)).await;
    assert_eq!(page.evaluate("[radio.error, radio.ended]").await, json!([null, false]));
}
