//! WHIP and WHEP: a page that speaks nothing but HTTP and WebRTC.

use antiphon_loadtest::rest::Rest;
use reqwest::Url;
use serde_json::{Value, json};

use crate::{
    chromium::Chromium,
    rooms::{enter, hears},
    support::{nodes::http, people::make_channel, process::Process},
};

async fn guest(server: &Process, name: &str) -> (String, String) {
    let body = json!({ "username": name });
    let made = http().post(server.url().http("/api/users")).json(&body).send().await.expect("answered");
    let made: Value = made.json().await.expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&made["user"]["id"]), text(&made["access_token"]))
}

#[tokio::test]
async fn a_channel_is_published_to_and_played_by_http_alone() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let (publisher_id, token) = guest(&server, "publisher").await;
    let (_, player_token) = guest(&server, "player").await;
    let (publisher, player, page) = (browser.page().await, browser.page().await, browser.page().await);
    let whip = server.url().http("/whip/lobby");
    let location = publisher.call("whip", json!({ "url": whip.as_str(), "token": token, "hz": 440 })).await;
    enter(&page, &server, room, "Page").await;
    hears(&page, &publisher_id, 440.0).await;
    let whep = server.url().http(&format!("/whep/{room}"));
    player.call("whep", json!({ "url": whep.as_str(), "token": player_token })).await;
    let near = |found: &Value| found.as_f64().is_some_and(|found| (found - 440.0).abs() < 15.0);
    player.until("played() || null", near).await;
    player.until("pictures()", |count| count.as_u64() > Some(20)).await;

    let session = server.url().http(location.as_str().expect("a path"));
    let candidate = "a=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host\r\n";
    let patch = |session: &Url, token: &str| {
        let patch =
            http().patch(session.clone()).bearer_auth(token).header("content-type", "application/trickle-ice-sdpfrag");
        patch.body(candidate).send()
    };
    assert_eq!(patch(&session, &token).await.expect("answered").status(), 204);
    assert_eq!(patch(&session, &player_token).await.expect("answered").status(), 404, "another's session");
    let elsewhere = make_channel(&server, "elsewhere", 10).await.to_string();
    let of_another = session.as_str().replace(&room.to_string(), &elsewhere).parse().expect("a URL");
    assert_eq!(patch(&of_another, &token).await.expect("answered").status(), 404, "another channel's session");
    let ended = http().delete(session.clone()).bearer_auth(&token).send().await.expect("answered");
    assert_eq!(ended.status(), 200);
    page.until(&format!("page.events.some((event) => event.type === 'publisher_left' && event.payload.publisher_id === '{publisher_id}')"), |left| left == true).await;
    let refused =
        http().post(server.url().http("/whip/lobby")).header("content-type", "application/sdp").body("v=0").send();
    assert_eq!(refused.await.expect("answered").status(), 401);
    let refused =
        http().post(server.url().http("/whip/lobby")).bearer_auth(&token).header("content-type", "application/sdp");
    assert_eq!(refused.body("no SDP").send().await.expect("answered").status(), 400);
}

#[tokio::test]
async fn whoever_is_switched_off_neither_publishes_nor_plays_by_http_any_more() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let administrator = Rest::new(server.url()).expect("a client");
    let administrator =
        administrator.login("owner-of-lobby", "a long enough password").await.expect("the first account");
    let (publisher_id, token) = guest(&server, "publisher").await;
    let (player_id, player_token) = guest(&server, "player").await;
    let (publisher, player, page) = (browser.page().await, browser.page().await, browser.page().await);
    let whip = server.url().http("/whip/lobby");
    publisher.call("whip", json!({ "url": whip.as_str(), "token": token, "hz": 440 })).await;
    let whep = server.url().http(&format!("/whep/{room}"));
    player.call("whep", json!({ "url": whep.as_str(), "token": player_token })).await;
    enter(&page, &server, room, "Page").await;
    hears(&page, &publisher_id, 440.0).await;
    for user in [&publisher_id, &player_id] {
        let url = server.url().http(&format!("/api/users/{user}"));
        let off = http().put(url).bearer_auth(&administrator.access_token).json(&json!({ "is_active": false }));
        assert_eq!(off.send().await.expect("answered").status(), 200);
        let left = format!("page.events.some((event) => event.type === 'UserLeft' && event.user_id === '{user}')");
        page.until(&left, |left| left == true).await;
    }
    page.until(&format!("page.events.some((event) => event.type === 'publisher_left' && event.payload.publisher_id === '{publisher_id}')"), |left| left == true).await;
}
