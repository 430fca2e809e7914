//! A session that was lost gets everything it missed, once.

use serde_json::json;

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, channel, register},
        databases::TestDatabase,
    },
};

on_both!(what_was_missed_comes_with_the_resume, a_gap_is_recovered_from);

async fn what_was_missed_comes_with_the_resume(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    alice.join("lobby").await;
    bob.join("lobby").await;
    let first = alice.say("lobby", "0").await["id"].clone();
    assert_eq!(bob.next("message").await["data"]["content"], "0");
    bob.lose().await;
    for number in 1..6 {
        alice.say("lobby", &number.to_string()).await;
    }
    alice.ask(json!({"type": "edit", "id": first, "content": "zero"})).await;
    let resumed = bob.resume(url).await;
    assert_eq!((&resumed["type"], &resumed["rooms"][0]["recovered"]), (&json!("Resumed"), &json!(true)), "{resumed}");
    alice.say("lobby", "6").await;
    for number in 1..7 {
        assert_eq!(bob.next("message").await["data"]["content"], number.to_string());
    }
    assert_eq!(bob.next("message_edited").await["data"]["content"], "zero");
    assert!(bob.heard_meanwhile().await.iter().all(|heard| heard["type"] != "message"), "each once");
    bob.say("lobby", "back").await;
    assert_eq!(alice.next("message").await["data"]["content"], "back");
}

async fn a_gap_is_recovered_from(url: &str) {
    let owner = register(url, "owner").await;
    let id = channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    let position = alice.join("lobby").await["position"].clone();
    alice.say("lobby", "1").await;
    alice.say("lobby", "2").await;
    let recovered = alice.ask(json!({"type": "Recover", "channel_id": id, "position": position})).await;
    let texts: Vec<_> =
        recovered["events"].as_array().into_iter().flatten().map(|event| event["data"]["content"].clone()).collect();
    assert_eq!((&recovered["recovered"], texts), (&json!(true), vec![json!("1"), json!("2")]), "{recovered}");
    let unknown = json!({"type": "Recover", "channel_id": id, "position": {"epoch": "another", "offset": 1}});
    assert_eq!(alice.ask(unknown).await["recovered"], false);
}
