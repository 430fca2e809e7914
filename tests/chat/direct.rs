//! Messages between two people.

use serde_json::{Value, json};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, channel, register},
        databases::TestDatabase,
    },
};

on_both!(two_people_write_to_each_other_on_all_their_sessions, nobody_else_sees_any_of_it, what_is_unread_is_counted);

async fn two_people_write_to_each_other_on_all_their_sessions(url: &str) {
    let mut alice = Chatter::guest(url, "alice").await;
    let mut bob = Chatter::guest(url, "bob").await;
    let mut bobs_phone = Chatter::with_token(url, &bob.token).await;
    let mut alices_phone = Chatter::with_token(url, &alice.token).await;
    let said = alice.dm("bob", "psst").await;
    assert_eq!((said["toUser"].as_str(), &said["content"]), (Some(bob.id()), &json!("psst")));
    for session in [&mut bob, &mut bobs_phone, &mut alices_phone] {
        assert_eq!(session.next("dm").await["data"], said);
    }
    let answer = bob.dm(alice.id(), "yes?").await;
    for session in [&mut alice, &mut alices_phone, &mut bobs_phone] {
        assert_eq!(session.next("dm").await["data"], answer);
    }
    let history = alice.ask(json!({"type": "dm_history", "with": "bob"})).await;
    assert_eq!(history["data"], json!([said, answer]), "the oldest first");
    bob.ask(json!({"type": "typing", "to": "alice"})).await;
    assert_eq!(alice.next("typing").await["data"]["username"], "bob");
    alice.ask(json!({"type": "edit", "id": said["id"], "content": "hello"})).await;
    assert_eq!(bob.next("message_edited").await["data"]["content"], "hello");
    assert_eq!(bob.refused(json!({"type": "delete", "id": said["id"]})).await, "PERMISSION_DENIED");
    bob.ask(json!({"type": "react", "id": said["id"], "emoji": "❤️"})).await;
    assert_eq!(alice.next("reactions").await["data"]["reactions"][0]["emoji"], "❤️");
    // Bob wants no more.
    assert_eq!(bob.ask(json!({"type": "block", "user": "alice"})).await["type"], "Ack");
    assert_eq!(alice.refused(json!({"type": "dm", "to": "bob", "content": "hm"})).await, "PERMISSION_DENIED");
    let edit = json!({"type": "edit", "id": said["id"], "content": "hm"});
    assert_eq!(alice.refused(edit).await, "PERMISSION_DENIED");
    assert_eq!(alice.ask(json!({"type": "typing", "to": "bob"})).await["type"], "Ack", "alice does not learn of it");
    assert!(bob.heard_meanwhile().await.iter().all(|heard| heard["type"] != "typing"));
    bob.ask(json!({"type": "block", "user": "alice", "remove": true})).await;
    alice.dm("bob", "again").await;
    assert_eq!(alice.refused(json!({"type": "dm", "to": "nobody", "content": "x"})).await, "USER_NOT_FOUND");
}

async fn nobody_else_sees_any_of_it(url: &str) {
    let mut alice = Chatter::guest(url, "alice").await;
    let _bob = Chatter::guest(url, "bob").await;
    let mut eve = Chatter::guest(url, "eve").await;
    let id = alice.dm("bob", "the secret word").await["id"].clone();
    for with in ["alice", "bob"] {
        assert_eq!(eve.ask(json!({"type": "dm_history", "with": with})).await["data"], json!([]));
    }
    for message in [
        json!({"type": "edit", "id": id, "content": "x"}),
        json!({"type": "delete", "id": id}),
        json!({"type": "react", "id": id, "emoji": "x"}),
        json!({"type": "report", "id": id, "reason": "x"}),
    ] {
        assert_eq!(eve.refused(message.clone()).await, "NOT_FOUND", "{message}");
    }
    let found = eve.ask(json!({"type": "search", "query": "secret"})).await;
    assert_eq!(found["data"], json!({"messages": [], "dms": []}));
    assert_eq!(eve.ask(json!({"type": "unread"})).await["data"], json!([]));
    let reply = json!({"type": "dm", "to": "alice", "content": "x", "reply_to": id});
    assert_eq!(eve.refused(reply).await, "INVALID_INPUT");
    assert_eq!(eve.heard_meanwhile().await, Vec::<Value>::new());
}

async fn what_is_unread_is_counted(url: &str) {
    let owner = register(url, "owner").await;
    let room = channel(url, &owner, "lobby", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner).await;
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("lobby").await;
    alice.say("lobby", "one").await;
    let two = alice.say("lobby", "two @owner").await["id"].clone();
    let three = alice.say("lobby", "three").await["id"].clone();
    let dm = alice.dm("owner", "four").await["id"].clone();
    let counts = owner.ask(json!({"type": "unread"})).await["data"].clone();
    let of = |counts: &Value, field: &str, value: &str| {
        let found = counts.as_array().into_iter().flatten().find(|count| count[field] == value).cloned();
        let found = found.unwrap_or_else(|| panic!("{counts}"));
        (found["unread"].clone(), found["mentions"].clone(), found["last_read"].clone(), found["last_id"].clone())
    };
    assert_eq!(of(&counts, "channel_id", &room), (json!(3), json!(1), json!(0), three.clone()));
    assert_eq!(of(&counts, "with", alice.id()), (json!(1), json!(0), json!(0), dm.clone()));
    let mut phone = Chatter::with_token(url, &owner.token.clone()).await;
    let read = owner.ask(json!({"type": "mark_read", "room": "lobby", "id": two})).await;
    assert_eq!((&read["type"], &read["data"]["id"]), (&json!("read"), &two));
    assert_eq!(phone.next("read").await["data"]["id"], two);
    owner.ask(json!({"type": "mark_read", "with": "alice", "id": dm})).await;
    // What is read stays read.
    assert_eq!(owner.ask(json!({"type": "mark_read", "room": "lobby", "id": 1})).await["data"]["id"], two);
    let counts = phone.ask(json!({"type": "unread"})).await["data"].clone();
    assert_eq!(of(&counts, "channel_id", &room), (json!(1), json!(0), two, three));
    assert_eq!(of(&counts, "with", alice.id()), (json!(0), json!(0), dm.clone(), dm));
}
