//! How a page gets into a room, what it hears there, and what others and the node see of it.

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use antiphon_loadtest::client::ClientEvent;
use serde_json::{Value, json};

use crate::{
    chromium::{PATIENCE, Page},
    support::{nodes::http, people::Person, process::Process},
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
    tokio::time::timeout(PATIENCE, waiting).await.expect("told")
}
