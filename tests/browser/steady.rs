//! A minute of two pages that hear and see each other: nothing is lost, nothing freezes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    chromium::{Chromium, Page},
    layers::ALONE,
    meeting::{enter, hears, id_of},
    support::{people::make_channel, process::Process},
};

/// How often a page is looked at: what it has received has risen each time.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
const LOOKS: u32 = 12;
/// Samples that were made up, in a thousand: the browser stretches and shortens voice as its clock and its sound's differ.
const CONCEALED_PER_MILLE: f64 = 10.0;

/// What a page has received of somebody.
struct Received {
    audio: Value,
    video: Value,
}

impl Received {
    async fn of(page: &Page<'_>, whom: &str) -> Self {
        let found = page.evaluate("watched()").await;
        let [audio, video] = ["audio", "video"].map(|kind| found[format!("{whom} {kind}")].clone());
        Self { audio, video }
    }

    /// What shows that it goes on: packets, the tone's energy, pictures.
    fn rising(&self) -> [f64; 3] {
        [&self.audio["packetsReceived"], &self.audio["totalAudioEnergy"], &self.video["framesDecoded"]].map(number)
    }

    /// What must not rise: packets lost of voice, and how often and how long pictures froze.
    fn faults(&self) -> [f64; 3] {
        [&self.audio["packetsLost"], &self.video["freezeCount"], &self.video["totalFreezesDuration"]].map(number)
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn for_a_minute_nothing_is_lost_and_no_picture_freezes() {
    let _alone = ALONE.lock().await;
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let one_id = id_of(&enter(&one, &server, room, "One").await);
    let other_id = id_of(&enter(&other, &server, room, "Other").await);
    for (page, hz) in [(&one, 440), (&other, 880)] {
        page.call("speak", json!(hz)).await;
        page.call("show", json!({})).await;
    }
    hears(&other, &one_id, 440.0).await;
    hears(&one, &other_id, 880.0).await;
    let pages = [(&one, &other_id), (&other, &one_id)];
    for (page, whom) in pages {
        let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
        page.until(&seen, |seen| seen["framesDecoded"].as_u64() > Some(40)).await;
    }

    let mut before = [Received::of(&one, &other_id).await, Received::of(&other, &one_id).await];
    let first = [Received::of(&one, &other_id).await, Received::of(&other, &one_id).await];
    let mut looks = tokio::time::interval(LOOKED_AT_EVERY);
    looks.tick().await;
    for look in 1..=LOOKS {
        looks.tick().await;
        for (place, (page, whom)) in pages.into_iter().enumerate() {
            let now = Received::of(page, whom).await;
            for (was, is) in before[place].rising().into_iter().zip(now.rising()) {
                assert!(is > was, "look {look}: {} {} does not go on", now.audio, now.video);
            }
            assert!(number(&now.audio["audioLevel"]) > 0.01, "look {look}: {}", now.audio);
            before[place] = now;
        }
    }
    for (first, last) in first.iter().zip(&before) {
        println!("{} {}", last.audio, last.video);
        assert_eq!(last.faults(), first.faults(), "from {} {}", first.audio, first.video);
        let more = |what: &str| number(&last.audio[what]) - number(&first.audio[what]);
        let concealed = more("concealedSamples") / more("totalSamplesReceived") * 1_000.0;
        assert!(concealed < CONCEALED_PER_MILLE, "{concealed} of a thousand samples were made up");
    }
}
