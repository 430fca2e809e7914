//! Simulcast: a subscriber gets the layer that its way carries, and its voice beside it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ALONE,
    chromium::{Chromium, Page},
    gate::Gate,
    rooms::{enter, hears, id_of, metric},
    support::{people::make_channel, process::Process},
};

const ANY_PORT: std::ops::RangeInclusive<u16> = 0..=u16::MAX;

/// Waits until a picture of so many lines or more, or fewer, comes and goes on coming; how long that took.
async fn height_becomes(page: &Page<'_>, whom: &str, wanted: impl Fn(u64) -> bool) -> Duration {
    let begun = Instant::now();
    let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
    page.until(&seen, |seen| seen["frameHeight"].as_u64().is_some_and(&wanted)).await;
    begun.elapsed()
}

async fn voice(page: &Page<'_>, whom: &str) -> Value {
    page.evaluate(&format!("watched().then((found) => found['{whom} audio'])")).await
}

#[tokio::test]
async fn a_narrow_way_gets_the_low_layer_and_loses_no_voice() {
    // What waits is full within 50 ms, and voices are lost until the first report that shows it; those are sent again.
    voice_goes_on_when_a_way_is_narrow(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_narrow_way_in_which_much_waits_loses_no_voice() {
    voice_goes_on_when_a_way_is_narrow(Duration::from_secs(2)).await;
}

async fn voice_goes_on_when_a_way_is_narrow(queue: Duration) {
    let _alone = ALONE.lock().await;
    let (gate, leads_to) = Gate::open(ANY_PORT).await;
    let advertise = gate.address.to_string();
    let server = Process::start(&[("ANTIPHON_AUDIO__ADVERTISE", &advertise)]).await;
    gate.queue_ms.store(u64::try_from(queue.as_millis()).expect("milliseconds"), Ordering::Relaxed);
    leads_to.send(server.udp_address()).await.expect("waits");
    let browser = Chromium::start().await;
    let room = make_channel(&server, "lobby", 10).await;
    let (publisher, subscriber) = (browser.page().await, browser.page().await);
    let whom = id_of(&enter(&publisher, &server, room, "Publisher").await);
    publisher.call("speak", json!(440)).await;
    publisher.call("show", json!({ "simulcast": true, "width": 1280, "height": 720 })).await;
    enter(&subscriber, &server, room, "Subscriber").await;
    hears(&subscriber, &whom, 440.0).await;
    height_becomes(&subscriber, &whom, |height| height >= 700).await;

    // Four seconds of voice: the way has been measured by then.
    let heard = format!("watched().then((found) => found['{whom} audio'].packetsReceived)");
    subscriber.until(&heard, |count| count.as_u64() >= Some(200)).await;
    let before = voice(&subscriber, &whom).await;
    gate.limit_bps.store(300_000, Ordering::Relaxed);
    let down = height_becomes(&subscriber, &whom, |height| height < 300).await;
    let changed = voice(&subscriber, &whom).await;
    // On the low layer for a while: the voice goes on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    gate.limit_bps.store(0, Ordering::Relaxed);
    let up = height_becomes(&subscriber, &whom, |height| height >= 700).await;
    let after = voice(&subscriber, &whom).await;
    let count = |voice: &Value, what: &str| voice[what].as_f64().expect("a number");
    let gained = |what: &str| count(&after, what) - count(&before, what);
    let (lost, concealed_ms) = (gained("packetsLost"), gained("concealedSamples") / 48.0);
    let repeated = metric(&server, "antiphon_webrtc_audio_repeated_total").await;
    println!(
        "low after {down:?}, high again after {up:?}; {repeated} packets of voice sent again, {lost} lost, {concealed_ms} ms concealed"
    );
    println!("voice: {before} then {changed} then {after}");
    // Fewer than none where one came so late that it was counted as lost before.
    assert!(lost <= 0.0, "{lost} lost, {concealed_ms} ms concealed");
}
