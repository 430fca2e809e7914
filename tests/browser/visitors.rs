//! The server's own page, used as people use it: by its buttons and fields.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    chromium::{Chromium, Page},
    rooms::metric,
    support::{chatters::call, process::Process},
};

/// Comes in under a name.
pub(crate) async fn come_in(page: &Page<'_>, name: &str) {
    fill(page, "#guest-name", name).await;
    click(page, "#guest-form button").await;
    page.until("document.querySelector('#me').textContent", |me| me == name).await;
}

pub(crate) async fn fill(page: &Page<'_>, field: &str, text: &str) {
    let text = Value::from(text);
    page.evaluate(&format!("document.querySelector('{field}').value = {text}")).await;
}

pub(crate) async fn click(page: &Page<'_>, button: &str) {
    page.until(&format!("Boolean(document.querySelector('{button}'))"), |there| there == true).await;
    page.evaluate(&format!("document.querySelector('{button}').click()")).await;
}

/// Enters the channel that the list names.
pub(crate) async fn enter(page: &Page<'_>, channel: &str) {
    let find = format!(
        "[...document.querySelectorAll('#channels button')].find((button) => button.querySelector('.name').textContent === '{channel}')"
    );
    page.until(&format!("Boolean({find})"), |there| there == true).await;
    page.evaluate(&format!("{find}.click()")).await;
}

pub(crate) async fn sees(page: &Page<'_>, people: &[&str]) {
    let names = "[...document.querySelectorAll('#people .name')].map((name) => name.textContent)";
    page.until(names, |seen| *seen == serde_json::json!(people)).await;
}

/// How many pixels the tiles lie on each other.
const OVERLAPS: &str = "(() => {
    const tiles = [...document.querySelectorAll('#tiles figure')].map((tile) => tile.getBoundingClientRect());
    const shared = (one, other, from, to) => Math.max(0, Math.min(one[to], other[to]) - Math.max(one[from], other[from]));
    const overlap = (one, other) => shared(one, other, 'left', 'right') * shared(one, other, 'top', 'bottom');
    return tiles.reduce((sum, one, at) => sum + tiles.slice(at + 1).reduce((sum, other) => sum + overlap(one, other), 0), 0);
})()";

/// How loud the first voice is that a page plays; 0 while it plays none.
pub(crate) const LOUDNESS: &str = "(async () => {
    const sound = document.querySelector('#sounds audio');
    if (!sound) return 0;
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(sound.srcObject).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let loudest = 0;
    for (let look = 0; look < 60; look++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        analyser.getFloatTimeDomainData(samples);
        loudest = Math.max(loudest, ...samples.map(Math.abs));
    }
    await context.close();
    return loudest;
})()";

#[tokio::test]
async fn two_visitors_make_a_channel_and_hear_each_other() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let (anna, berta) = (browser.visit(&home).await, browser.visit(&home).await);
    anna.picture("door").await;
    come_in(&anna, "Anna").await;
    come_in(&berta, "Berta").await;
    anna.picture("channels").await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    // Nobody is there to be heard, which is no connection that is still to come.
    anna.until("document.querySelector('#connection').dataset.state", |state| state == "good").await;
    enter(&berta, "Tea").await;
    sees(&anna, &["Anna", "Berta"]).await;
    sees(&berta, &["Anna", "Berta"]).await;

    // The fake microphone beeps.
    for page in [&anna, &berta] {
        page.until(LOUDNESS, |loudness| loudness.as_f64() > Some(0.01)).await;
        page.until("document.querySelector('#connection').dataset.state", |state| state == "good").await;
    }
    // What browsers measure their ways by when they begin would count for dozens.
    assert!(metric(&server, "antiphon_media_frames_lost_total").await < 10.0, "next to nothing is lost on one machine");

    // Berta mutes herself, which both see; with the button's key she is heard again.
    click(&berta, "#mute").await;
    let badges = "[...document.querySelectorAll('#people .badge')].map((badge) => badge.textContent).join()";
    anna.until(badges, |badges| badges.as_str().is_some_and(|badges| badges.contains("muted"))).await;
    berta.evaluate("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'm', bubbles: true }))").await;
    anna.until(badges, |badges| badges.as_str().is_some_and(|badges| !badges.contains("muted"))).await;

    // What she writes, markup and all, is text at Anna's.
    fill(&berta, "#message-text", "<b>Tea?</b> https://example.org").await;
    click(&berta, "#message-form button.primary").await;
    let written = "[...document.querySelectorAll('#messages .text')].map((text) => text.textContent).join()";
    for page in [&anna, &berta] {
        page.until(written, |text| text == "<b>Tea?</b> https://example.org").await;
    }
    assert_eq!(anna.evaluate("document.querySelectorAll('#messages b').length").await, 0);

    // Her camera has a tile at Anna's, with pictures, and it goes with her.
    click(&berta, "#camera").await;
    anna.until("document.querySelector('#tiles video')?.videoWidth ?? 0", |width| width.as_u64() > Some(0)).await;
    anna.picture("room").await;
    anna.scheme("dark").await;
    anna.picture("room-dark").await;
    // Where there is no room for all tiles they are scrolled, and lie beside each other all the same.
    click(&anna, "#camera").await;
    anna.until("document.querySelectorAll('#tiles figure').length", |tiles| *tiles == 2).await;
    for (width, height) in [(1_200, 800), (1_200, 500), (390, 844)] {
        anna.resize(width, height).await;
        assert_eq!(anna.evaluate(OVERLAPS).await, 0, "{width} by {height}");
    }
    anna.picture("room-low").await;
    click(&anna, "#camera").await;
    click(&berta, "#leave").await;
    sees(&anna, &["Anna"]).await;
    anna.until("document.querySelectorAll('#tiles figure').length", |tiles| *tiles == 0).await;
}

#[tokio::test]
async fn a_link_leads_a_visitor_into_a_private_channel() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let anna = browser.visit(server.url().http("/").as_str()).await;
    come_in(&anna, "Anna").await;
    fill(&anna, "#create-name", "Secret").await;
    click(&anna, "#create-private").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    click(&anna, "#invite").await;
    let link = anna.until("document.querySelector('#invite-link').value", |link| link != "").await;
    anna.picture("invite").await;
    let berta = browser.visit(link.as_str().expect("a link")).await;
    come_in(&berta, "Berta").await;
    sees(&berta, &["Anna", "Berta"]).await;
}

#[tokio::test]
async fn what_goes_wrong_is_said_in_words() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let (anna, other) = (browser.visit(&home).await, browser.visit(&home).await);
    come_in(&anna, "Anna").await;
    fill(&other, "#guest-name", "anna").await;
    click(&other, "#guest-form button").await;
    let notice = "document.querySelector('#notices .error')?.textContent ?? ''";
    other.until(notice, |said| said.as_str().is_some_and(|said| said.contains("taken"))).await;

    // A microphone that is refused leaves one listening.
    anna.evaluate(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))",
    )
    .await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    anna.until(notice, |said| said.as_str().is_some_and(|said| said.contains("microphone"))).await;
    assert_eq!(anna.evaluate("document.querySelector('#mute').getAttribute('aria-pressed')").await, "true");
    anna.picture("microphone-refused").await;
}

#[tokio::test]
async fn a_bell_tells_of_a_mention_and_leads_to_it() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let (anna, berta) = (browser.visit(&home).await, browser.visit(&home).await);
    come_in(&anna, "Anna").await;
    come_in(&berta, "Berta").await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    let count = "document.querySelector('#bell-count').hidden ? '' : document.querySelector('#bell-count').textContent";
    assert_eq!(berta.evaluate(count).await, "");
    anna.until("document.querySelector('#chat').hidden", |hidden| hidden == false).await;
    fill(&anna, "#message-text", "@Berta, <b>tea?</b>").await;
    click(&anna, "#message-form button.primary").await;
    berta.until(count, |count| count == "1").await;
    let label = "document.querySelector('#bell').getAttribute('aria-label')";
    assert_eq!(berta.evaluate(label).await, "Notifications, 1 unread");
    click(&berta, "#bell").await;
    berta.until("document.querySelector('#bell-list .text')?.textContent", |text| text == "@Berta, <b>tea?</b>").await;
    assert_eq!(berta.evaluate("document.querySelectorAll('#bell-list b').length").await, 0);

    // It leads into the channel, and is read.
    click(&berta, "#bell-list button").await;
    sees(&berta, &["Anna", "Berta"]).await;
    berta.until(count, |count| count == "").await;

    // What she wants is kept.
    click(&berta, "#bell").await;
    click(&berta, "#preferences-open").await;
    let push = "document.querySelector('#way-mention-push')?.checked";
    berta.until(push, |checked| checked == true).await;
    click(&berta, "#way-mention-push").await;
    click(&berta, "#quiet").await;
    fill(&berta, "#quiet-zone", "Mars/Olympus").await;
    click(&berta, "#preferences-form button.primary").await;
    let notice = "document.querySelector('#notices .error')?.textContent ?? ''";
    berta.until(notice, |said| said.as_str().is_some_and(|said| said.contains("time_zone"))).await;
    fill(&berta, "#quiet-zone", "Europe/Paris").await;
    click(&berta, "#preferences-form button.primary").await;
    berta.until("document.querySelector('#preferences').open", |open| open == false).await;
    click(&berta, "#preferences-open").await;
    berta.until(push, |checked| checked == false).await;
    assert_eq!(berta.evaluate("document.querySelector('#quiet-zone').value").await, "Europe/Paris");

    // What is asked for again before the first answer has come is shown once.
    berta.evaluate("document.querySelector('#preferences').close()").await;
    if berta.evaluate("document.querySelector('#bell-dialog').open").await == false {
        click(&berta, "#bell").await;
    }
    berta.evaluate(SLOW_ANSWERS).await;
    for text in ["@Berta, milk?", "@Berta, sugar?"] {
        fill(&anna, "#message-text", text).await;
        click(&anna, "#message-form button.primary").await;
        anna.until("document.querySelector('#message-text').value", |left| left == "").await;
    }
    let ids =
        "window.asked === 0 ? [...document.querySelectorAll('#bell-list [data-id]')].map((row) => row.dataset.id) : []";
    let rows = berta.until(ids, |rows| rows.as_array().is_some_and(|rows| rows.len() >= 3)).await;
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows}");

    // The service worker is allowed by the page's policy, and shows what a push service brings.
    let registered = "navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)
        .then((registration) => registration.active.scriptURL)";
    let script = berta.evaluate(registered).await;
    assert!(script.as_str().is_some_and(|url| url.ends_with("/sw.js")), "{script}");
}

/// Answers come later than what is asked for next; `asked` says how many are awaited.
const SLOW_ANSWERS: &str = "(() => {
    const fetched = window.fetch;
    window.asked = 0;
    window.fetch = async (...what) => {
        window.asked += 1;
        try {
            const answer = await fetched(...what);
            await new Promise((resolve) => setTimeout(resolve, 1000));
            return answer;
        } finally {
            setTimeout(() => { window.asked -= 1; }, 100);
        }
    };
})()";

#[tokio::test]
async fn who_signs_out_is_told_nothing_more_in_the_browser() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let anna = browser.visit(&home).await;
    // Guests are told nothing while the page is closed.
    fill(&anna, "#account-name", "Anna").await;
    fill(&anna, "#account-password", "a long enough password").await;
    click(&anna, "#account-form button[value=register]").await;
    anna.until("document.querySelector('#me').textContent", |me| me == "Anna").await;
    let token = anna.evaluate("JSON.parse(localStorage.getItem('antiphon.account')).access_token").await;
    let token = token.as_str().expect("a token").to_owned();
    // The example of RFC 8291, since no push service is at hand.
    let keys = json!({
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    });
    let subscription = json!({"endpoint": "https://push.example.org/anna", "keys": keys});
    let push = server.url().http("/api/v1/users/me/notifications/push").to_string();
    assert_eq!(call(Method::POST, &push, &token, subscription.clone()).await.0, 201);
    let subscribed = format!(
        "(() => {{
            const subscription = {{ toJSON: () => ({subscription}), unsubscribe: async () => {{ window.unsubscribed = true; }} }};
            const registration = {{ pushManager: {{ getSubscription: async () => subscription }} }};
            navigator.serviceWorker.getRegistration = async () => registration;
        }})()"
    );
    anna.evaluate(&subscribed).await;
    click(&anna, "#sign-out").await;
    anna.until("document.querySelector('#welcome').hidden", |hidden| hidden == false).await;
    assert_eq!(anna.evaluate("window.unsubscribed").await, true);
    let (_, page) = call(Method::GET, &push, &token, Value::Null).await;
    assert_eq!(page["data"]["subscriptions"], json!([]));
}

#[tokio::test]
async fn what_a_push_service_brings_is_shown_once_while_nobody_looks() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let home = server.url().http("/").to_string();
    let origin = home.trim_end_matches('/');
    // The push service is reached by a page elsewhere, which is no client of the worker.
    let (page, elsewhere) = (browser.page().await, browser.page().await);
    page.allow_notifications(origin).await;
    page.go(&home).await;
    page.evaluate(
        "navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready).then(() => true)",
    )
    .await;
    let worker = elsewhere.service_worker().await;
    let message = |id: &str, title: &str| {
        serde_json::json!({"id": id, "kind": "mention", "title": title, "body": "<b>tea?</b>", "path": "/#channel=1"})
            .to_string()
    };
    // Somebody looks: the page tells them itself.
    elsewhere.push(origin, &worker, &message("0", "seen")).await;
    page.go("about:blank").await;
    page.until("location.href", |address| *address == "about:blank").await;
    // Twice under one id, and something that is no message of ours.
    for title in ["first", "again"] {
        elsewhere.push(origin, &worker, &message("1", title)).await;
    }
    elsewhere.push(origin, &worker, "nonsense").await;
    elsewhere.push(origin, &worker, &message("2", "second")).await;
    page.go(&home).await;
    let shown = "navigator.serviceWorker.ready.then((worker) => worker.getNotifications())
        .then((shown) => shown.map(({ title, body, tag }) => [title, body, tag]).sort())";
    let wanted = serde_json::json!([["again", "<b>tea?</b>", "1"], ["second", "<b>tea?</b>", "2"]]);
    page.until(shown, |shown| *shown == wanted).await;
}
