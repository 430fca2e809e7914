//! Who may not read a room gets nothing of it, by whatever message.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(
    who_may_not_read_gets_nothing,
    a_history_is_for_whom_the_channel_says,
    what_was_missed_begins_when_one_came,
    who_was_removed_hears_nothing_more,
    who_is_kicked_without_voice_is_put_out,
    who_is_banned_for_a_time_is_put_out_until_it_is_over,
    those_who_keep_order_remove_mute_and_hear_reports,
);

/// Every way to ask for something of a room.
fn ways(room: &str, id: &Value) -> Vec<Value> {
    vec![
        json!({"type": "join", "room": room}),
        json!({"type": "message", "room": room, "content": "x"}),
        json!({"type": "room_history", "room": room}),
        json!({"type": "search", "query": "secret", "room": room}),
        json!({"type": "typing", "room": room}),
        json!({"type": "mark_read", "room": room, "id": 1}),
        json!({"type": "edit", "id": id, "content": "x"}),
        json!({"type": "delete", "id": id}),
        json!({"type": "react", "id": id, "emoji": "x"}),
        json!({"type": "report", "id": id, "reason": "x"}),
    ]
}

/// Everything that can happen in a room, about somebody who is not to hear of it.
async fn everything_happens(owner: &mut Chatter, room: &str) {
    let kept = owner.say(room, "@eve: the secret word").await["id"].clone();
    let gone = owner.say(room, "@eve: a secret that goes").await["id"].clone();
    for change in [
        json!({"type": "edit", "id": kept, "content": "@eve: the secret word, once more"}),
        json!({"type": "react", "id": kept, "emoji": "+1"}),
        json!({"type": "typing", "room": room}),
        json!({"type": "mark_read", "room": room, "id": kept}),
        json!({"type": "delete", "id": gone}),
    ] {
        let answer = owner.ask(change.clone()).await;
        assert_ne!(answer["type"], "error", "{change}: {answer}");
    }
}

/// Neither what comes by itself nor what is there without naming the room has anything of it.
async fn sees_nothing(url: &str, eve: &mut Chatter, channel: &str) {
    assert_eq!(eve.heard_meanwhile().await, Vec::<Value>::new());
    let found = eve.ask(json!({"type": "search", "query": "secret"})).await;
    assert_eq!(found["data"], json!({"messages": [], "dms": []}));
    let unread = eve.ask(json!({"type": "unread"})).await["data"].clone();
    assert_eq!(unread, json!([]));
    let recover = json!({"type": "Recover", "channel_id": channel, "position": {"epoch": "", "offset": 0}});
    assert_eq!(eve.ask(recover).await["type"], "Error");
    let (status, told) =
        call(Method::GET, &format!("{url}/api/v1/users/me/notifications"), &eve.token, Value::Null).await;
    assert!(status == 200 && !told.to_string().contains("secret"), "{told}");
    for path in ["webhooks", "events?after=x:0"] {
        let (status, _) =
            call(Method::GET, &format!("{url}/api/channels/{channel}/{path}"), &eve.token, Value::Null).await;
        assert_eq!(status, 403, "{path}");
    }
    // Nor is anything of it heard: what was recorded, what is said now, what is played.
    let recording = uuid::Uuid::nil();
    for (method, path, body) in [
        (Method::GET, "reports".to_owned(), Value::Null),
        (Method::PUT, format!("reports/1/{recording}"), json!({"state": "handled"})),
        (Method::GET, "recordings".to_owned(), Value::Null),
        (Method::GET, format!("recordings/{recording}"), Value::Null),
        (Method::GET, format!("recordings/{recording}/timeline"), Value::Null),
        (Method::POST, "listen".to_owned(), json!({"ttl_s": 60})),
        (Method::POST, "playback".to_owned(), json!({"path": "a.mp3"})),
    ] {
        let (status, told) = call(method, &format!("{url}/api/channels/{channel}/{path}"), &eve.token, body).await;
        assert!(matches!(status, 403 | 404), "{path}: {status} {told}");
    }
}

async fn who_may_not_read_gets_nothing(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "hidden", json!({"is_private": true})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    owner.join("hidden").await;
    let message = owner.say("hidden", "the secret word").await["id"].clone();
    let mut eve = Chatter::guest(url, "eve").await;
    for room in ["hidden", &id] {
        for way in ways(room, &message) {
            let code = eve.refused(way.clone()).await;
            let expected = if way.get("room").is_none() { "NOT_FOUND" } else { "CHANNEL_NOT_FOUND" };
            assert_eq!(code, expected, "{way}");
        }
    }
    everything_happens(&mut owner, "hidden").await;
    sees_nothing(url, &mut eve, &id).await;
    for path in ["chat", "reports"] {
        let (status, _) = call(Method::GET, &format!("{url}/api/channels/{id}/{path}"), &eve.token, Value::Null).await;
        assert_eq!(status, 404, "{path}");
    }
    // A public one, once they are banned from it.
    let id = channel(url, &owner_token, "open", json!({})).await;
    owner.join("open").await;
    let message = owner.say("open", "another secret").await["id"].clone();
    eve.join("open").await;
    assert_eq!(eve.ask(json!({"type": "mark_read", "room": "open", "id": message})).await["type"], "read");
    let ban = json!({"user_id": eve.id()});
    let (status, _) = call(Method::POST, &format!("{url}/api/channels/{id}/ban"), &owner_token, ban).await;
    assert_eq!(status, 200);
    let removed = eve.next("Removed").await;
    assert_eq!((&removed["channel_id"], &removed["reason"]), (&json!(id), &json!("banned")));
    everything_happens(&mut owner, "open").await;
    sees_nothing(url, &mut eve, &id).await;
    for way in ways("open", &message) {
        assert_eq!(eve.refused(way.clone()).await, "PERMISSION_DENIED", "{way}");
    }
    // Nor by taking the session up again from a place before the ban.
    eve.lose().await;
    everything_happens(&mut owner, "open").await;
    assert!(eve.positions.contains_key(&id), "she says up to where she was there");
    let resumed = eve.resume(url).await;
    assert!(resumed["type"] == "Resumed" && !resumed.to_string().contains("secret"), "{resumed}");
    sees_nothing(url, &mut eve, &id).await;
}

async fn a_history_is_for_whom_the_channel_says(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "lobby", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    owner.join("lobby").await;
    owner.say("lobby", "the secret word").await;
    let (mut member, mut stranger) = (Chatter::guest(url, "member").await, Chatter::guest(url, "stranger").await);
    let path = format!("{url}/api/channels/{id}");
    let (status, _) =
        call(Method::PUT, &format!("{path}/members/{}", member.id()), &owner_token, json!({"role": "member"})).await;
    assert_eq!(status, 200);
    for (history, by_member, by_stranger) in
        [("everyone", true, true), ("members", true, false), ("moderators", false, false)]
    {
        let (status, _) = call(Method::PUT, &format!("{path}/chat"), &owner_token, json!({"history": history})).await;
        assert_eq!(status, 200);
        for (chatter, may) in [(&mut owner, true), (&mut member, by_member), (&mut stranger, by_stranger)] {
            let asked = json!({"type": "room_history", "room": "lobby"});
            let answer = chatter.ask(asked).await;
            assert_eq!(answer["type"] == "room_history", may, "{history}: {answer}");
            let found = chatter.ask(json!({"type": "search", "query": "secret", "room": "lobby"})).await;
            assert_eq!(found["type"] == "search", may, "{history}: {found}");
        }
        let found = member.ask(json!({"type": "search", "query": "secret"})).await;
        assert_eq!(found["data"]["messages"].as_array().is_some_and(|found| !found.is_empty()), by_member, "{history}");
        // What is written while they are there they see all the same.
        stranger.join("lobby").await;
        owner.say("lobby", "now").await;
        assert_eq!(stranger.next("message").await["data"]["content"], "now");
    }
}

async fn who_was_removed_hears_nothing_more(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "club", json!({"is_private": true})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let mut member = Chatter::guest(url, "member").await;
    let membership = format!("{url}/api/channels/{id}/members/{}", member.id());
    call(Method::PUT, &membership, &owner_token, json!({"role": "member"})).await;
    assert_eq!(member.next("notification").await["data"]["kind"], "invitation");
    owner.join("club").await;
    member.join("club").await;
    owner.say("club", "welcome").await;
    assert_eq!(member.next("message").await["data"]["content"], "welcome");
    let (status, _) = call(Method::DELETE, &membership, &owner_token, Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(member.next("Removed").await["channel_id"], json!(id));
    owner.say("club", "gone?").await;
    assert_eq!(member.heard_meanwhile().await, Vec::<Value>::new());
    assert_eq!(member.refused(json!({"type": "join", "room": "club"})).await, "CHANNEL_NOT_FOUND");
    // And of a channel that was made private while they were there.
    let id = channel(url, &owner_token, "square", json!({})).await;
    owner.join("square").await;
    member.join("square").await;
    let (status, _) =
        call(Method::PUT, &format!("{url}/api/channels/{id}"), &owner_token, json!({"is_private": true})).await;
    assert_eq!(status, 200);
    assert_eq!(member.next("Removed").await["channel_id"], json!(id));
    let (status, _) = call(Method::DELETE, &format!("{url}/api/channels/{id}"), &owner_token, Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(owner.next("Removed").await["channel_id"], json!(id));
    assert_eq!(owner.refused(json!({"type": "message", "room": &id, "content": "x"})).await, "CHANNEL_NOT_FOUND");
}

async fn those_who_keep_order_remove_mute_and_hear_reports(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "lobby", json!({})).await;
    let path = format!("{url}/api/channels/{id}");
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
    for chatter in [&mut owner, &mut alice, &mut bob] {
        chatter.join("lobby").await;
    }
    let message = alice.say("lobby", "rude").await["id"].clone();
    bob.next("message").await;
    assert_eq!(bob.ask(json!({"type": "report", "id": message, "reason": "rude"})).await["type"], "Ack");
    let (status, _) = call(Method::GET, &format!("{path}/reports"), &alice.token, Value::Null).await;
    assert_eq!(status, 403);
    let (status, reports) = call(Method::GET, &format!("{path}/reports"), &owner_token, Value::Null).await;
    assert_eq!(
        (status, &reports["data"][0]["message_id"], &reports["data"][0]["reason"]),
        (200, &message, &json!("rude"))
    );
    owner.ask(json!({"type": "delete", "id": message})).await;
    assert_eq!(alice.next("message_deleted").await["data"]["by"], json!(owner.id()));
    let (status, audit) =
        call(Method::GET, &format!("{url}/api/advanced/admin/audit"), &owner_token, Value::Null).await;
    assert!(status == 200 && audit.to_string().contains("message.remove"), "{audit}");
    let own = owner.say("lobby", "rules").await["id"].clone();
    assert_eq!(alice.refused(json!({"type": "delete", "id": own})).await, "PERMISSION_DENIED");
    let mute = json!({"user_id": alice.id(), "muted": true});
    let (status, _) = call(Method::POST, &format!("{path}/mute"), &owner_token, mute).await;
    assert_eq!(status, 200);
    let again = json!({"type": "message", "room": "lobby", "content": "rude again"});
    assert_eq!(alice.refused(again).await, "PERMISSION_DENIED");
}

/// What somebody was told who was put out, and nothing more than once.
async fn put_out(chatter: &mut Chatter) -> Value {
    let removed = chatter.next("Removed").await;
    let further = chatter.heard_meanwhile().await;
    assert!(further.iter().all(|message| message["type"] != "Removed"), "{further:?}");
    json!([removed["channel_id"], removed["reason"], removed["by"], removed["message"]])
}

async fn who_is_kicked_without_voice_is_put_out(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "open", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let (mut eve, mut dora) = (Chatter::guest(url, "eve").await, Chatter::guest(url, "dora").await);
    for chatter in [&mut owner, &mut eve, &mut dora] {
        chatter.join("open").await;
    }
    let kick = json!({"user_id": eve.id(), "reason": "enough"});
    let kicking =
        async || call(Method::POST, &format!("{url}/api/channels/{id}/kick"), &owner_token, kick.clone()).await.0;
    assert_eq!(kicking().await, 200);
    assert_eq!(put_out(&mut eve).await, json!([id, "kicked", owner.id(), "enough"]));
    owner.say("open", "is eve gone?").await;
    assert_eq!(dora.next("message").await["data"]["content"], "is eve gone?", "others stay");
    assert_eq!(eve.heard_meanwhile().await, Vec::<Value>::new());
    assert_eq!(eve.refused(json!({"type": "message", "room": "open", "content": "no"})).await, "PERMISSION_DENIED");
    assert_eq!(kicking().await, 404, "she is nowhere in it");
    // She may come back, and is told once where she is in voice, too.
    eve.join("open").await;
    let joined = eve.ask(json!({"type": "JoinChannel", "channel_id": id, "media": "websocket"})).await;
    assert_eq!(joined["type"], "ChannelJoined", "{joined}");
    assert_eq!(kicking().await, 200);
    assert_eq!(put_out(&mut eve).await, json!([id, "kicked", owner.id(), "enough"]));
    owner.say("open", "and now?").await;
    assert_eq!(eve.heard_meanwhile().await, Vec::<Value>::new());
}

async fn who_is_banned_for_a_time_is_put_out_until_it_is_over(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "open", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let mut eve = Chatter::guest(url, "eve").await;
    owner.join("open").await;
    eve.join("open").await;
    let message = eve.say("open", "a secret of mine").await["id"].clone();
    let ban = async |seconds: u32| {
        let ban = json!({"user_id": eve.id(), "reason": "spam", "duration_s": seconds});
        call(Method::POST, &format!("{url}/api/channels/{id}/ban"), &owner_token, ban).await.0
    };
    assert_eq!(ban(3_600).await, 200);
    assert_eq!(ban(3_600).await, 200, "once more, for who is out");
    assert_eq!(put_out(&mut eve).await, json!([id, "banned", owner.id(), "spam"]));
    everything_happens(&mut owner, "open").await;
    sees_nothing(url, &mut eve, &id).await;
    for way in ways("open", &message) {
        assert_eq!(eve.refused(way.clone()).await, "PERMISSION_DENIED", "{way}");
    }
    let ban = json!({"user_id": eve.id(), "duration_s": 1});
    assert_eq!(call(Method::POST, &format!("{url}/api/channels/{id}/ban"), &owner_token, ban).await.0, 200);
    let joined = async {
        // Nobody is told that a ban is over.
        while eve.ask(json!({"type": "join", "room": "open"})).await["type"] != "join_ack" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joined).await.expect("a ban ends");
    assert_eq!(eve.say("open", "back").await["content"], "back");
}

/// What a session is told that asks for everything from the journal's beginning on.
async fn recovered(chatter: &mut Chatter, channel: &str) -> Value {
    let position = json!({"epoch": chatter.positions[channel]["epoch"], "offset": 0});
    let answer = chatter.ask(json!({"type": "Recover", "channel_id": channel, "position": position})).await;
    assert_eq!((&answer["type"], &answer["recovered"]), (&json!("Recovered"), &json!(true)), "{answer}");
    answer["events"].clone()
}

async fn what_was_missed_begins_when_one_came(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "lobby", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    owner.join("lobby").await;
    owner.say("lobby", "the secret word").await;
    let mut eve = Chatter::guest(url, "eve").await;
    eve.join("lobby").await;
    assert!(recovered(&mut eve, &id).await.to_string().contains("secret"), "everyone may read it");
    let terms = json!({"history": "members"});
    assert_eq!(call(Method::PUT, &format!("{url}/api/channels/{id}/chat"), &owner_token, terms).await.0, 200);
    assert_eq!(recovered(&mut eve, &id).await, json!([]), "who is no member came later");
    owner.say("lobby", "and now").await;
    eve.next("message").await;
    let events = recovered(&mut eve, &id).await;
    assert_eq!((events.as_array().map(Vec::len), &events[0]["data"]["content"]), (Some(1), &json!("and now")));
    assert!(recovered(&mut owner, &id).await.to_string().contains("secret"), "the owner may read it");
    // Nor by taking the session up again, nor by coming anew.
    eve.lose().await;
    owner.say("lobby", "and while away").await;
    let from_the_beginning = json!({"epoch": eve.positions[&id]["epoch"], "offset": 0});
    eve.positions.insert(id.clone(), from_the_beginning);
    let resumed = eve.resume(url).await;
    let missed = resumed["rooms"][0]["events"].to_string();
    assert!(missed.contains("and while away") && !missed.contains("secret"), "{resumed}");
    assert_eq!(eve.ask(json!({"type": "leave_room", "room": "lobby"})).await["type"], "Ack");
    owner.say("lobby", "and while out").await;
    eve.join("lobby").await;
    assert_eq!(recovered(&mut eve, &id).await, json!([]));
}
