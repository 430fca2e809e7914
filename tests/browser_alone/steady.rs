//! Two people who see and hear each other for a minute, as their browsers count it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    ALONE,
    chromium::{Chromium, Page},
    rooms::{enter, id_of, metric},
    support::{people::make_channel, process::Process},
};

const STEADY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The fake microphone beeps about once a second.
const LOOKS_WITH_A_BEEP: usize = 5;
/// A beep is far louder, and silence far below.
const AUDIBLE: f64 = 0.01;
/// While programs wait for a processor for more than this share of the time, pictures wait for the machine, which encodes and decodes
/// four of them, and not for the node.
const BUSY_PERCENT: f64 = 25.0;

/// What a page has received of somebody.
struct Received {
    voice: Value,
    picture: Value,
}

impl Received {
    async fn of(page: &Page<'_>, whom: &str) -> Self {
        let mut watched = page.evaluate("watched()").await;
        let mut take = |kind: &str| watched[format!("{whom} {kind}")].take();
        Self { voice: take("audio"), picture: take("video") }
    }
}

fn number(report: &Value, what: &str) -> f64 {
    report[what].as_f64().unwrap_or_else(|| panic!("{what} of {report}"))
}

/// How long programs have waited for a processor so far, since the machine started; `None` where the kernel does not say.
fn waited() -> Option<Duration> {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = pressure.lines().next()?.rsplit_once("total=")?.1.parse().ok()?;
    Some(Duration::from_micros(total))
}

/// How often the node has stopped a picture so far, because it took a way to have no room for it.
async fn stops(server: &Process) -> f64 {
    metric(server, "antiphon_webrtc_video_pauses_total").await
        + metric(server, "antiphon_webrtc_ways_shrank_total").await
}

/// That all of it came, and went on coming, from the first look to the last.
fn is_steady(looks: &[Received]) {
    for pair in looks.windows(2) {
        let rises = |of: fn(&Received) -> &Value, what: &str| number(of(&pair[0]), what) < number(of(&pair[1]), what);
        assert!(rises(|look| &look.voice, "packetsReceived"), "{} then {}", pair[0].voice, pair[1].voice);
        assert!(rises(|look| &look.picture, "framesDecoded"), "{} then {}", pair[0].picture, pair[1].picture);
    }
    for some in looks.windows(LOOKS_WITH_A_BEEP) {
        let (from, to) = (&some[0].voice, &some[LOOKS_WITH_A_BEEP - 1].voice);
        assert!(number(from, "totalAudioEnergy") < number(to, "totalAudioEnergy"), "{from} then {to}");
    }
    let loudest = looks.iter().map(|look| number(&look.voice, "audioLevel")).fold(0.0, f64::max);
    assert!(loudest > AUDIBLE, "{loudest}");
}

/// That no voice was lost.
fn is_heard_whole(looks: &[Received]) {
    let (before, after) = (&looks[0].voice, &looks[looks.len() - 1].voice);
    assert_eq!(number(before, "packetsLost"), number(after, "packetsLost"), "{before} then {after}");
}

/// That nothing of a picture was lost, and it never stood still.
fn is_seen_whole(looks: &[Received]) {
    let (before, after) = (&looks[0].picture, &looks[looks.len() - 1].picture);
    for what in ["packetsLost", "freezeCount"] {
        assert_eq!(number(before, what), number(after, what), "{before} then {after}");
    }
}

/// What each page has received of whom it watches, time and again.
async fn look_for(time: Duration, watching: [(&Page<'_>, &str); 2]) -> [Vec<Received>; 2] {
    let mut looks = [Vec::new(), Vec::new()];
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    while begun.elapsed() < time {
        tick.tick().await;
        for ((page, whom), looks) in watching.into_iter().zip(&mut looks) {
            looks.push(Received::of(page, whom).await);
        }
    }
    looks
}

#[tokio::test]
async fn two_pages_hear_and_see_each_other_for_a_minute_without_a_freeze() {
    let _alone = ALONE.lock().await;
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let mut ids = Vec::new();
    for (page, name) in [(&one, "One"), (&other, "Other")] {
        ids.push(id_of(&enter(page, &server, room, name).await));
        page.call("speak", Value::Null).await;
        page.call("show", json!({})).await;
    }
    let watching = [(&one, &*ids[1]), (&other, &*ids[0])];
    for (page, whom) in watching {
        let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
        page.until(&seen, |seen| seen["framesDecoded"].as_u64() > Some(60)).await;
    }

    let (begun, waited_before, stopped_before) = (Instant::now(), waited(), stops(&server).await);
    let looks = look_for(STEADY, watching).await;
    let busy = waited().zip(waited_before).map(|(after, before)| (after - before).as_secs_f64());
    // Where nobody says, it may have been.
    let busy_percent = busy.map_or(100.0, |seconds| 100.0 * seconds / begun.elapsed().as_secs_f64());
    for looks in &looks {
        println!("from {} and {}", looks[0].voice, looks[0].picture);
        println!("to {} and {}", looks[looks.len() - 1].voice, looks[looks.len() - 1].picture);
    }
    looks.iter().for_each(|looks| is_steady(looks));
    looks.iter().for_each(|looks| is_heard_whole(looks));
    let stopped = stops(&server).await - stopped_before;
    println!(
        "programs waited for a processor for {busy_percent:.0} % of the time; the node stopped pictures {stopped} times"
    );
    if busy_percent < BUSY_PERCENT {
        looks.iter().for_each(|looks| is_seen_whole(looks));
        assert_eq!(stopped, 0.0);
    }
    // Browsers report of each voice about every five seconds, as native clients do.
    let reports = metric(&server, "antiphon_voice_reported_rating_count").await;
    assert!(reports >= 10.0, "{reports} reports by both in a minute");
    assert_eq!(metric(&server, "antiphon_webrtc_reports_dropped_total").await, 0.0);
}
