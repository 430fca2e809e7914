//! What people are told of: mentions, replies, messages to them, memberships; once each, to read and to have read.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    listed, newest, on_both, path, run,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
    unread,
};

on_both!(people_are_told_of_what_is_for_them, what_is_read_is_read_everywhere, preferences_are_kept_and_checked);

async fn people_are_told_of_what_is_for_them(url: &str) {
    let owner = register(url, "owner").await;
    let id = channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "Bob").await);
    alice.join("lobby").await;
    bob.join("lobby").await;

    // Named twice, whatever the case, in one message: told once.
    let said = alice.say("lobby", "@bob, are you there? @BOB! @nobody @alice").await;
    let told = bob.next("notification").await["data"].clone();
    assert_eq!(
        (&told["kind"], &told["username"], &told["room"]),
        (&json!("mention"), &json!("alice"), &json!("lobby"))
    );
    assert_eq!((&told["message_id"], &told["channel_id"]), (&said["id"], &json!(id)));
    assert_eq!(told["content"], said["content"]);

    let answer = json!({"type": "message", "room": "lobby", "content": "yes", "reply_to": said["id"]});
    assert_eq!(bob.ask(answer).await["type"], "message");
    assert_eq!(alice.next("notification").await["data"]["kind"], "reply");
    let again =
        json!({"type": "message", "room": "lobby", "content": "@alice: yes", "reply_to": said["id"], "nonce": "n"});
    for _ in 0..2 {
        // Sent again with its nonce it is one message, and told once; a mention that answers is a mention.
        assert_eq!(bob.ask(again.clone()).await["type"], "message");
    }
    assert_eq!(alice.next("notification").await["data"]["kind"], "mention");

    bob.dm("alice", "between us").await;
    let told = alice.next("notification").await["data"].clone();
    assert_eq!(
        (&told["kind"], &told["content"], told.get("room")),
        (&json!("direct_message"), &json!("between us"), None)
    );

    let role = json!({"role": "member"});
    let member = format!("{url}/api/channels/{id}/members/{}", bob.id());
    for _ in 0..2 {
        assert_eq!(call(Method::PUT, &member, &owner, role.clone()).await.0, 200);
    }
    let told = bob.next("notification").await["data"].clone();
    assert_eq!(
        (&told["kind"], &told["username"], &told["room"]),
        (&json!("invitation"), &json!("owner"), &json!("lobby"))
    );

    let kinds = |list: Vec<Value>| list.into_iter().map(|found| found["kind"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(listed(url, &alice.token).await), ["direct_message", "mention", "reply"]);
    assert_eq!(kinds(listed(url, &bob.token).await), ["invitation", "mention"]);
    assert_eq!((unread(url, &alice.token).await, unread(url, &owner).await), (3, 0));
    let older = alice_before(url, &alice.token).await;
    assert_eq!(kinds(older), ["mention", "reply"]);

    // What is changed or taken away is so here, too.
    alice.ask(json!({"type": "edit", "id": said["id"], "content": "@bob, hello"})).await;
    newest(url, &bob.token, |found| found["kind"] == "invitation").await;
    assert_eq!(listed(url, &bob.token).await[1]["content"], "@bob, hello");
    alice.ask(json!({"type": "delete", "id": said["id"]})).await;
    assert_eq!(kinds(listed(url, &bob.token).await), ["invitation"]);
    assert_eq!(unread(url, &bob.token).await, 1);
}

/// All but the newest, by a page.
async fn alice_before(url: &str, token: &str) -> Vec<Value> {
    let newest = listed(url, token).await[0]["id"].as_str().expect("an id").to_owned();
    let query = format!("?before={newest}&limit=2&unread=true");
    let (status, answer) = call(Method::GET, &path(url, &query), token, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["notifications"].as_array().expect("a list").clone()
}

async fn what_is_read_is_read_everywhere(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    let mut bob = Chatter::guest(url, "bob").await;
    let mut elsewhere = Chatter::with_token(url, &bob.token).await;
    alice.join("lobby").await;
    let mut last = Value::Null;
    for number in 0..3 {
        last = alice.say("lobby", &format!("@bob {number}")).await;
        bob.next("notification").await;
    }
    alice.dm("bob", "hello").await;
    bob.next("notification").await;
    assert_eq!(unread(url, &bob.token).await, 4);

    // Reading the room up to a message reads what tells of it and of those before.
    let first = listed(url, &bob.token).await[2]["message_id"].clone();
    bob.ask(json!({"type": "mark_read", "room": "lobby", "id": first})).await;
    assert_eq!(elsewhere.next("notifications_read").await["data"]["unread"], 2);
    bob.ask(json!({"type": "mark_read", "room": "lobby", "id": last["id"]})).await;
    assert_eq!(elsewhere.next("notifications_read").await["data"]["unread"], 1);

    // The other by itself; another's is none.
    let list = listed(url, &bob.token).await;
    let dm = json!({"id": list[0]["id"]});
    assert_eq!(call(Method::POST, &path(url, "/read"), &alice.token, dm.clone()).await.0, 404);
    let (status, left) = call(Method::POST, &path(url, "/read"), &bob.token, dm).await;
    assert_eq!((status, &left["data"]["unread"]), (200, &json!(0)));
    assert_eq!(elsewhere.next("notifications_read").await["data"]["unread"], 0);
    alice.say("lobby", "@bob 4").await;
    let told = bob.next("notification").await["data"]["id"].clone();
    let (_, left) = call(Method::POST, &path(url, "/read"), &bob.token, json!({"up_to": told})).await;
    assert_eq!(left["data"]["unread"], 0);
    for wrong in [json!({}), json!({"id": told, "up_to": told}), json!({"id": "x"})] {
        assert_eq!(call(Method::POST, &path(url, "/read"), &bob.token, wrong).await.0, 400);
    }
    for wrong in ["?limit=0", "?limit=101", "?before=x"] {
        assert_eq!(call(Method::GET, &path(url, wrong), &bob.token, Value::Null).await.0, 400, "{wrong}");
    }
    assert_eq!(call(Method::GET, &path(url, ""), "", Value::Null).await.0, 401);
}

async fn preferences_are_kept_and_checked(url: &str) {
    let token = register(url, "ada").await;
    let preferences = path(url, "/preferences");
    let (_, usual) = call(Method::GET, &preferences, &token, Value::Null).await;
    let all = json!({"gateway": true, "email": true, "sms": false, "push": true});
    assert_eq!((&usual["data"]["mention"], &usual["data"]["quiet_hours"]), (&all, &Value::Null));
    let hours = json!({"from": "22:00", "to": "07:00", "time_zone": "Europe/Paris"});
    let new = json!({"mention": {"gateway": false, "sms": true}, "quiet_hours": hours});
    let (status, set) = call(Method::PUT, &preferences, &token, new).await;
    assert_eq!(status, 200, "{set}");
    let (_, found) = call(Method::GET, &preferences, &token, Value::Null).await;
    assert_eq!(found["data"], set["data"]);
    assert_eq!(found["data"]["mention"], json!({"gateway": false, "email": true, "sms": true, "push": true}));
    assert_eq!((&found["data"]["reply"], &found["data"]["quiet_hours"]), (&all, &hours));
    for (wrong, named) in [
        (json!({"quiet_hours": {"from": "22:00", "to": "07:00", "time_zone": "Paris"}}), "time_zone"),
        (json!({"quiet_hours": {"from": "25:00", "to": "07:00", "time_zone": "UTC"}}), "from"),
        (json!({"quiet_hours": {"from": "07:00", "to": "07:00", "time_zone": "UTC"}}), "differ"),
        (json!({"mentions": {}}), "mentions"),
        (json!({"mention": {"fax": true}}), "fax"),
    ] {
        let (status, answer) = call(Method::PUT, &preferences, &token, wrong).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(named)), "{answer}");
    }

    // Who wants nothing over the gateway gets nothing there; the list has it.
    channel(url, &token, "lobby", json!({})).await;
    let (mut ada, mut bob) = (Chatter::with_token(url, &token).await, Chatter::guest(url, "bob").await);
    bob.join("lobby").await;
    bob.say("lobby", "@ada one").await;
    let answered = bob.say("lobby", "two").await;
    newest(url, &token, |found| found["kind"] == "mention").await;
    bob.dm("ada", "three").await;
    assert_eq!(ada.next("notification").await["data"]["kind"], "direct_message", "and the mention did not come");
    assert!(ada.passed_over.iter().all(|message| message["type"] != "notification"), "{:?}", ada.passed_over);
    assert!(answered["id"].is_number());
}
