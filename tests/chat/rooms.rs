//! Writing in rooms.

use serde_json::{Value, json};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, channel, register},
        databases::TestDatabase,
    },
};

on_both!(
    everyone_gets_a_message_once_and_its_sender_as_the_answer,
    a_message_changes_goes_and_gets_signs,
    what_is_sent_again_is_stored_and_told_once,
    what_cannot_be_written_is_refused,
    text_takes_no_place_and_hears_of_voice,
    whoever_is_not_in_a_room_does_nothing_there,
    many_write_at_once_and_all_see_one_order,
);

async fn everyone_gets_a_message_once_and_its_sender_as_the_answer(url: &str) {
    let owner = register(url, "owner").await;
    let id = channel(url, &owner, "General", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    let joined = alice.join("general").await;
    assert_eq!((&joined["room"], &joined["channel_id"]), (&json!("general"), &json!(id)), "by name, whatever its case");
    bob.join(&id).await;
    let said = alice.say("general", "Hello world!").await;
    for (field, expected) in [("username", "alice"), ("content", "Hello world!"), ("room", "General")] {
        assert_eq!(said[field], expected, "{said}");
    }
    assert_eq!((said["fromUser"].as_str(), said["position"]["offset"].as_u64().is_some()), (Some(alice.id()), true));
    assert!(said["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{said}");
    let heard = bob.next("message").await;
    assert_eq!((&heard["data"], heard.get("request_id")), (&said, None));
    let answer = bob.say("General", "and to you").await;
    assert!(answer["id"].as_u64() > said["id"].as_u64(), "ids grow");
    assert_eq!(alice.next("message").await["data"], answer);
    assert_eq!((alice.heard_meanwhile().await, bob.heard_meanwhile().await), (vec![], vec![]), "each once");
    // Typing is for the others.
    assert_eq!(alice.ask(json!({"type": "typing", "room": "general"})).await["type"], "Ack");
    let typing = bob.next("typing").await;
    assert_eq!((&typing["data"]["username"], &typing["data"]["room"]), (&json!("alice"), &json!("General")));
    assert_eq!(alice.ask(json!({"type": "leave_room", "room": "general"})).await["type"], "Ack");
    bob.say("general", "anybody?").await;
    assert_eq!(alice.heard_meanwhile().await, Vec::<Value>::new());
}

async fn a_message_changes_goes_and_gets_signs(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    alice.join("lobby").await;
    bob.join("lobby").await;
    let id = alice.say("lobby", "Helo @bob").await["id"].clone();
    assert_eq!(bob.next("message").await["data"]["mentions"], json!([bob.id()]));
    let edited = alice.ask(json!({"type": "edit", "id": id, "content": "Hello"})).await;
    assert_eq!((&edited["type"], &edited["data"]["content"]), (&json!("message_edited"), &json!("Hello")));
    let heard = bob.next("message_edited").await;
    assert_eq!((&heard["data"]["id"], &heard["data"]["content"]), (&id, &json!("Hello")));
    assert_eq!(bob.refused(json!({"type": "edit", "id": id, "content": "mine"})).await, "PERMISSION_DENIED");
    let signed = bob.ask(json!({"type": "react", "id": id, "emoji": "👍"})).await;
    assert_eq!(signed["type"], "reactions");
    assert_eq!(
        alice.next("reactions").await["data"]["reactions"],
        json!([{"emoji": "👍", "users": [bob.id()], "count": 1}])
    );
    assert_eq!(bob.ask(json!({"type": "react", "id": id, "emoji": "👍"})).await["type"], "Ack", "it was there");
    let history = alice.ask(json!({"type": "room_history", "room": "lobby"})).await;
    assert_eq!(
        (&history["data"][0]["content"], &history["data"][0]["reactions"][0]["count"]),
        (&json!("Hello"), &json!(1))
    );
    assert!(history["data"][0]["edited_at"].is_string() && history["data"][0].get("position").is_none());
    bob.ask(json!({"type": "react", "id": id, "emoji": "👍", "remove": true})).await;
    let reply = bob.ask(json!({"type": "message", "room": "lobby", "content": "hi", "reply_to": id})).await;
    assert_eq!(reply["data"]["reply_to"], id);
    let wrong = json!({"type": "message", "room": "lobby", "content": "hi", "reply_to": 999_999});
    assert_eq!(bob.refused(wrong).await, "INVALID_INPUT");
    assert_eq!(bob.refused(json!({"type": "delete", "id": id})).await, "PERMISSION_DENIED");
    let deleted = alice.ask(json!({"type": "delete", "id": id})).await;
    assert_eq!((&deleted["type"], &deleted["data"]["id"]), (&json!("message_deleted"), &id));
    assert_eq!(bob.next("message_deleted").await["data"]["by"], json!(alice.id()));
    assert_eq!(alice.refused(json!({"type": "edit", "id": id, "content": "back"})).await, "NOT_FOUND");
    let history = bob.ask(json!({"type": "room_history", "room": "lobby"})).await;
    assert_eq!((&history["data"][0]["deleted"], &history["data"][0]["content"]), (&json!(true), &json!("")));
}

async fn what_is_sent_again_is_stored_and_told_once(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    alice.join("lobby").await;
    bob.join("lobby").await;
    let message = json!({"type": "message", "room": "lobby", "content": "once", "nonce": "n1"});
    let first = alice.ask(message.clone()).await;
    let again = alice.ask(message.clone()).await;
    assert_eq!((&again["type"], &again["data"]["id"]), (&json!("message"), &first["data"]["id"]));
    let of_bob = bob.ask(message).await;
    assert_ne!(of_bob["data"]["id"], first["data"]["id"], "a nonce is its sender's");
    let history = bob.ask(json!({"type": "room_history", "room": "lobby"})).await;
    assert_eq!(history["data"].as_array().map(Vec::len), Some(2));
    let heard: Vec<Value> =
        bob.heard_meanwhile().await.into_iter().filter(|heard| heard["type"] == "message").collect();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let dm = json!({"type": "dm", "to": "bob", "content": "once", "nonce": "n1"});
    let (first, again) = (alice.ask(dm.clone()).await, alice.ask(dm).await);
    assert_eq!(first["data"]["id"], again["data"]["id"]);
}

async fn what_cannot_be_written_is_refused(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("lobby").await;
    for wrong in ["", "  \n", "a\u{0}b", "\u{1b}[31m", &"x".repeat(4_001)] {
        let message = json!({"type": "message", "room": "lobby", "content": wrong});
        assert_eq!(alice.refused(message).await, "INVALID_INPUT", "{wrong:?}");
    }
    for right in [
        "'; DROP TABLE messages; --",
        "<script>alert(1)</script>",
        "👨‍👩‍👧‍👦 שלום \u{2067}مرحبا\u{2069}\n\tend",
        &"é".repeat(4_000),
    ] {
        assert_eq!(alice.say("lobby", right).await["content"], right);
    }
    let history = alice.ask(json!({"type": "room_history", "room": "lobby", "limit": 2})).await;
    assert_eq!(history["data"][0]["content"], "👨‍👩‍👧‍👦 שלום \u{2067}مرحبا\u{2069}\n\tend", "exactly as it was written");
    alice.send_text(r#"{"type":"message","room":"lobby","content":"\ud800","request_id":77}"#).await;
    let refused = alice.next("error").await;
    assert_eq!(refused["data"]["error_code"], "INVALID_INPUT", "half a character");
    assert_eq!(alice.refused(json!({"type": "message", "room": "lobby"})).await, "INVALID_INPUT", "no content");
    assert_eq!(alice.refused(json!({"type": "typing"})).await, "INVALID_INPUT");
    assert_eq!(alice.refused(json!({"type": "join", "room": "nowhere"})).await, "CHANNEL_NOT_FOUND");
    // A frame that is too long ends the connection with a code of its own; the session can be taken up again.
    let long = json!({"type": "message", "room": "lobby", "content": "x".repeat(1_000_000)});
    assert!(alice.try_ask(&mut long.clone()).await.is_none());
    assert_eq!(alice.resume(url).await["type"], "Resumed");
    assert_eq!(alice.say("lobby", "still here").await["content"], "still here");
}

async fn text_takes_no_place_and_hears_of_voice(url: &str) {
    let owner = register(url, "owner").await;
    let id = channel(url, &owner, "small", json!({"max_users": 1})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    alice.join("small").await;
    bob.join("small").await;
    let joined = bob.ask(json!({"type": "JoinChannel", "channel_id": id, "media": "websocket"})).await;
    assert_eq!((&joined["type"], joined["members"].as_array().map(Vec::len)), (&json!("ChannelJoined"), Some(1)));
    assert_eq!(alice.next("UserJoined").await["user_id"], json!(bob.id()));
    alice.say("small", "hi").await;
    assert_eq!(bob.next("message").await["data"]["content"], "hi", "once, though by voice and by text");
    assert_eq!(bob.ask(json!({"type": "LeaveChannel", "channel_id": id})).await["type"], "ChannelLeft");
    assert_eq!(alice.next("UserLeft").await["user_id"], json!(bob.id()));
    alice.say("small", "still there?").await;
    assert_eq!(bob.next("message").await["data"]["content"], "still there?");
    assert_eq!(bob.heard_meanwhile().await.iter().filter(|heard| heard["type"] == "message").count(), 0);
    // Whoever comes by voice alone reads and writes, too.
    let mut carol = Chatter::guest(url, "carol").await;
    carol.ask(json!({"type": "JoinChannel", "channel_id": id, "media": "websocket"})).await;
    carol.say(&id, "by voice").await;
    assert_eq!(alice.next("message").await["data"]["content"], "by voice");
}

async fn whoever_is_not_in_a_room_does_nothing_there(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    alice.join("lobby").await;
    let id = alice.say("lobby", "hi").await["id"].clone();
    for message in [
        json!({"type": "message", "room": "lobby", "content": "hi"}),
        json!({"type": "typing", "room": "lobby"}),
        json!({"type": "leave_room", "room": "lobby"}),
        json!({"type": "edit", "id": id, "content": "x"}),
        json!({"type": "delete", "id": id}),
        json!({"type": "react", "id": id, "emoji": "x"}),
        json!({"type": "report", "id": id, "reason": "x"}),
    ] {
        assert_eq!(bob.refused(message.clone()).await, "PERMISSION_DENIED", "{message}");
    }
}

async fn many_write_at_once_and_all_see_one_order(url: &str) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let owner = register(url, "owner").await;
    channel(url, &owner, "busy", json!({})).await;
    let mut reader = Chatter::guest(url, "reader").await;
    reader.join("busy").await;
    let writers = (0..WRITERS).map(|number| {
        let url = url.to_owned();
        tokio::spawn(async move {
            let mut writer = Chatter::guest(&url, &format!("writer{number}")).await;
            writer.join("busy").await;
            let mut ids = Vec::new();
            for index in 0..EACH {
                ids.push(writer.say("busy", &format!("{number} {index}")).await["id"].as_u64().expect("an id"));
            }
            assert!(ids.is_sorted());
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    let mut seen = Vec::new();
    while seen.len() < WRITERS * EACH {
        let message = reader.next("message").await["data"].clone();
        seen.push((message["id"].as_u64().expect("an id"), message["content"].as_str().expect("text").to_owned()));
    }
    assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "in order, each once: {seen:?}");
    let mut texts: Vec<&String> = seen.iter().map(|(_, text)| text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), WRITERS * EACH);
}
