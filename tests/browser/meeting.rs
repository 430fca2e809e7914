//! People who meet on one node: pages with pages, and pages with native clients.

use std::time::Duration;

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use antiphon_loadtest::client::ClientEvent;
use serde_json::{Value, json};

use crate::{
    chromium::{Chromium, PATIENCE, Page},
    support::{
        nodes::http,
        people::{Person, make_channel},
        process::Process,
    },
    tone::{hear, say, tone},
};

/// Enters a room as a guest that the server makes; what the server says.
pub(crate) async fn enter(page: &Page<'_>, server: &Process, room: ChannelId, display: &str) -> Value {
    enter_with(page, server, room, display, json!({})).await
}

/// With what else the page is to know.
pub(crate) async fn enter_with(
    page: &Page<'_>,
    server: &Process,
    room: ChannelId,
    display: &str,
    more: Value,
) -> Value {
    let url = server.url().http(&format!("/api/v1/rooms/{room}/join"));
    let answer = http().post(url).json(&json!({ "display": display })).send().await.expect("answered");
    let answer: Value = answer.json().await.expect("JSON");
    let data = &answer["data"];
    let ws_url =
        format!("{}&token={}", data["ws_url"].as_str().expect("a URL"), data["token"].as_str().expect("a token"));
    let mut argument = json!({ "url": ws_url, "room": room, "display": display });
    argument.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    page.call("enter", argument).await
}

pub(crate) fn id_of(joined: &Value) -> String {
    joined["participant_id"].as_str().expect("an id").to_owned()
}

/// A figure of a node, by its name and labels.
pub(crate) async fn metric(server: &Process, name: &str) -> f64 {
    let answer = http().get(server.url().http("/metrics")).send().await.expect("answered");
    let text = answer.text().await.expect("text");
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{name} is there: {text}"))
}

/// Waits until a page hears somebody at a frequency.
pub(crate) async fn hears(page: &Page<'_>, whom: &str, hz: f64) {
    let near = |found: &Value| found.as_f64().is_some_and(|found| (found - hz).abs() < 15.0);
    page.until(&format!("heard()['{whom}'] || null"), near).await;
}

#[tokio::test]
async fn two_pages_hear_and_see_each_other() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let one_id = id_of(&enter(&one, &server, room, "One").await);
    one.call("speak", json!(440)).await;
    one.call("show", json!({})).await;
    let joined = enter(&other, &server, room, "Other").await;
    let other_id = id_of(&joined);
    let publisher = &joined["publishers"][0];
    assert_eq!((publisher["id"].as_str(), publisher["display"].as_str()), (Some(&*one_id), Some("One")));
    other.call("speak", json!(880)).await;
    other.call("show", json!({})).await;
    hears(&other, &one_id, 440.0).await;
    hears(&one, &other_id, 880.0).await;
    for (page, whom) in [(&one, &other_id), (&other, &one_id)] {
        let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
        let before = page.until(&seen, |seen| seen["framesDecoded"].as_u64() > Some(10)).await;
        page.until(&seen, |seen| seen["framesDecoded"].as_u64() > before["framesDecoded"].as_u64().map(|n| n + 40))
            .await;
        let ways = page.evaluate("ways()").await;
        assert_eq!(ways["subscriber"]["protocol"], "udp", "{ways}");
        assert!(ways["subscriber"]["srtp"].as_str().is_some_and(|cipher| cipher.contains("AEAD")), "{ways}");
    }
}

#[tokio::test]
async fn a_page_and_a_native_client_hear_each_other() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let mut native = Person::join(&server, "native", room).await;
    native.udp_becomes(true).await;
    let page = browser.page().await;
    let joined = enter(&page, &server, room, "Page").await;
    let publisher = &joined["publishers"][0];
    let native_id = native.client.user().id.to_string();
    assert_eq!((publisher["id"].as_str(), &publisher["kinds"]), (Some(&*native_id), &json!(["audio"])));
    page.call("speak", json!(440)).await;
    let page_stream = stream_of(&mut native, &id_of(&joined)).await;
    let found = hear(&mut native, page_stream, 50).await;
    assert!((found - 440.0).abs() < 15.0, "{found}");
    let frames = tone(880.0, 1_500);
    tokio::select! {
        () = say(&native, &frames) => panic!("not heard in 30 s"),
        () = hears(&page, &native_id, 880.0) => {}
    }
}

/// The stream of somebody who came, as the native client was told.
pub(crate) async fn stream_of(person: &mut Person, user: &str) -> antiphon_core::ids::StreamId {
    let waiting = async {
        loop {
            if let ClientEvent::Message(message) = person.events.recv().await.expect("goes on")
                && let ServerMessage::UserJoined(joined) = *message
                && joined.user_id.to_string() == user
            {
                return joined.stream_id;
            }
        }
    };
    tokio::time::timeout(PATIENCE.max(Duration::from_secs(1)), waiting).await.expect("told")
}
