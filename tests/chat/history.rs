//! What was written before, and for how long it is kept.

use antiphon::store::Store;
use reqwest::Method;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(a_history_is_read_in_pages, pages_of_long_messages_are_short, slow_mode_makes_members_wait);

async fn a_history_is_read_in_pages(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("lobby").await;
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(alice.say("lobby", &format!("number {number}")).await["id"].clone());
    }
    let mut page = async |further: Value| {
        let mut ask = json!({"type": "room_history", "room": "lobby"});
        for (key, value) in further.as_object().into_iter().flatten() {
            ask[key] = value.clone();
        }
        let answer = alice.ask(ask).await;
        let messages = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
        messages.iter().map(|message| message["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(page(json!({})).await, ids);
    assert_eq!(page(json!({"limit": 3})).await, ids[7..]);
    assert_eq!(page(json!({"limit": 3, "before": ids[7]})).await, ids[4..7]);
    assert_eq!(page(json!({"limit": 3, "after": ids[4]})).await, ids[5..8]);
    assert_eq!(page(json!({"after": ids[9]})).await, Vec::<Value>::new());
    assert_eq!(page(json!({"before": 9_007_199_254_740_993_u64})).await, ids);
    for wrong in [json!({"limit": 0}), json!({"limit": 201}), json!({"before": 5, "after": 1}), json!({"before": -1})] {
        let mut ask = json!({"type": "room_history", "room": "lobby"});
        for (key, value) in wrong.as_object().into_iter().flatten() {
            ask[key] = value.clone();
        }
        assert_eq!(alice.refused(ask).await, "INVALID_INPUT", "{wrong}");
    }
}

/// What a page of long messages may take.
const PAGE_BYTES_MAX: usize = 256 * 1024;

async fn pages_of_long_messages_are_short(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("lobby").await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(alice.say("lobby", &format!("long {}", "\u{1f3a7}".repeat(3_900))).await["id"].clone());
    }
    let mut page = async |way: &str, from: &Value| {
        let ask = json!({"type": "room_history", "room": "lobby", "limit": 200, way: from});
        let answer = alice.ask(ask).await;
        let bytes = answer["data"].to_string().len();
        assert!(bytes <= PAGE_BYTES_MAX, "{bytes}");
        answer["data"].as_array().expect("messages").iter().map(|message| message["id"].clone()).collect::<Vec<_>>()
    };
    let (mut back, mut on) = (page("before", &Value::Null).await, page("after", &json!(0)).await);
    assert!((10..20).contains(&back.len()) && (10..20).contains(&on.len()), "{} {}", back.len(), on.len());
    loop {
        let (older, newer) = (page("before", &back[0]).await, page("after", on.last().expect("some")).await);
        if older.is_empty() && newer.is_empty() {
            break;
        }
        back = [older, back].concat();
        on.extend(newer);
    }
    assert_eq!((&back, &on), (&ids, &ids), "the newest go back and the oldest go on, without a gap");
    let found = alice.ask(json!({"type": "search", "query": "long", "limit": 200})).await;
    assert!(found["data"].to_string().len() <= PAGE_BYTES_MAX + 64, "a search holds no more");
    assert_eq!(found["data"]["messages"][0]["id"], ids[39]);
}

async fn slow_mode_makes_members_wait(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "slow", json!({})).await;
    let path = format!("{url}/api/channels/{id}/chat");
    let (status, terms) = call(Method::PUT, &path, &owner_token, json!({"slow_mode_s": 3_600})).await;
    assert_eq!(
        (status, &terms["data"]["slow_mode_s"], &terms["data"]["history"]),
        (200, &json!(3_600), &json!("everyone"))
    );
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("slow").await;
    alice.say("slow", "first").await;
    assert_eq!(alice.refused(json!({"type": "message", "room": "slow", "content": "second"})).await, "RATE_LIMITED");
    let mut owner = Chatter::with_token(url, &owner_token).await;
    owner.join("slow").await;
    owner.say("slow", "one").await;
    owner.say("slow", "two: not for those who keep order").await;
    let (status, _) = call(Method::PUT, &path, &alice.token, json!({})).await;
    assert_eq!(status, 403);
    let (status, _) = call(Method::PUT, &path, &owner_token, json!({"slow_mode_s": 21_601})).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn messages_go_by_age_and_by_number() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let store_url = database.url();
        run(database, async |url| {
            let owner = register(url, "owner").await;
            let counted = channel(url, &owner, "counted", json!({})).await;
            let aged = channel(url, &owner, "aged", json!({})).await;
            channel(url, &owner, "kept", json!({})).await;
            for (id, terms) in [(&counted, json!({"keep_count": 2})), (&aged, json!({"keep_s": 3_600}))] {
                let (status, _) = call(Method::PUT, &format!("{url}/api/channels/{id}/chat"), &owner, terms).await;
                assert_eq!(status, 200);
            }
            let mut alice = Chatter::guest(url, "alice").await;
            for room in ["counted", "aged", "kept"] {
                alice.join(room).await;
                for number in 0..4 {
                    alice.say(room, &format!("{room} {number}")).await;
                }
            }
            let store = Store::open(&store_url).await.expect("the same database");
            let expired = store.expire_messages(OffsetDateTime::now_utc()).await.expect("works");
            assert_eq!(expired.count, 2);
            let expired = store.expire_messages(OffsetDateTime::now_utc() + Duration::hours(2)).await.expect("works");
            assert_eq!((expired.count, expired.more), (4, false));
            store.close().await;
            for (room, left) in [("counted", 2), ("aged", 0), ("kept", 4)] {
                let history = alice.ask(json!({"type": "room_history", "room": room})).await;
                assert_eq!(history["data"].as_array().map(Vec::len), Some(left), "{room}");
                let found = alice.ask(json!({"type": "search", "query": room})).await;
                assert_eq!(
                    found["data"]["messages"].as_array().map(Vec::len),
                    Some(left),
                    "{room}: what is gone is not found"
                );
            }
        })
        .await;
    }
}
