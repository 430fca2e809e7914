//! Who is there.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(who_follows_somebody_learns_where_they_are, whoever_a_reset_puts_out_is_not_there);

/// Asks until it is so, or waits for word of it.
async fn becomes(chatter: &mut Chatter, right: impl Fn(&Value) -> bool) -> Value {
    loop {
        let seen = chatter.next("presence").await["data"][0].clone();
        if right(&seen) {
            return seen;
        }
    }
}

async fn who_follows_somebody_learns_where_they_are(url: &str) {
    let owner_token = register(url, "owner").await;
    let open = channel(url, &owner_token, "open", json!({})).await;
    channel(url, &owner_token, "hidden", json!({"is_private": true})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let mut alice = Chatter::guest(url, "alice").await;
    let nobody = uuid::Uuid::new_v4().to_string();
    let asked = json!({"type": "presence", "users": [owner.id(), nobody]});
    let seen = alice.ask(asked).await["data"].clone();
    let of = |id: &str| seen.as_array().into_iter().flatten().find(|one| one["user_id"] == id).cloned().expect("one");
    assert_eq!((&of(owner.id())["online"], &of(&nobody)["online"]), (&json!(true), &json!(false)));
    owner.join("hidden").await;
    owner.join("open").await;
    let seen = becomes(&mut alice, |seen| seen["channels"] != json!([])).await;
    assert_eq!(
        seen["channels"],
        json!([{"channel_id": open, "voice": false, "speaking": false}]),
        "and nothing hidden"
    );
    owner.ask(json!({"type": "JoinChannel", "channel_id": open, "media": "websocket"})).await;
    becomes(&mut alice, |seen| seen["channels"][0]["voice"] == true).await;
    owner.ask(json!({"type": "LeaveChannel", "channel_id": open})).await;
    owner.ask(json!({"type": "leave_room", "room": "open"})).await;
    becomes(&mut alice, |seen| seen["channels"] == json!([])).await;
    owner.close().await;
    let seen = becomes(&mut alice, |seen| seen["online"] == false).await;
    assert!(seen["last_seen"].as_str().is_some_and(|at| at.ends_with('Z')), "{seen}");
    let many: Vec<String> = (0..201).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    assert_eq!(alice.refused(json!({"type": "presence", "users": many})).await, "INVALID_INPUT");
}

async fn whoever_a_reset_puts_out_is_not_there(url: &str) {
    let admin = register(url, "admin").await;
    let bob = Chatter::guest(url, "bob").await;
    let (status, answer) = call(Method::POST, &format!("{url}/api/advanced/admin/reset"), &admin, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let mut alice = Chatter::guest(url, "alice").await;
    let seen = alice.ask(json!({"type": "presence", "users": [bob.id()]})).await["data"][0].clone();
    assert_eq!(seen["online"], false, "{seen}");
}
