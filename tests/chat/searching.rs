//! Looking for words: both databases give the same answers.

use serde_json::json;

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, channel, register},
        databases::TestDatabase,
    },
};

on_both!(the_same_words_find_the_same_messages);

const TEXTS: [&str; 10] = [
    "The quick brown fox",
    "A café in Zürich",
    "quick, quicker, quickest!",
    "日本語のテキスト",
    "Straße und STRASSE",
    "مرحبا بالعالم",
    "e-mail: a.b@example.org",
    "it's 12:30 o'clock",
    "snake_case and CamelCase",
    "\"quoted\" AND NOT (this) OR that*",
];

/// Each query with the numbers of the texts that it finds.
const QUERIES: [(&str, &[usize]); 19] = [
    ("quick", &[0, 2]),
    ("QUICK fox", &[0]),
    ("fox quick", &[0]),
    ("quick cafe", &[]),
    ("cafe", &[1]),
    ("CAFÉ zurich", &[1]),
    ("quicker", &[2]),
    ("quicke", &[]),
    ("日本", &[3]),
    ("テキスト", &[3]),
    ("strasse", &[4]),
    ("مرحبا", &[5]),
    ("example", &[6]),
    ("a.b@example.org", &[6]),
    ("12 30", &[7]),
    ("snake case", &[8]),
    ("and", &[8, 9]),
    ("NOT this", &[9]),
    ("\"that*\" OR", &[9]),
];

async fn the_same_words_find_the_same_messages(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let mut alice = Chatter::guest(url, "alice").await;
    alice.join("lobby").await;
    let mut ids = Vec::new();
    for text in TEXTS {
        ids.push(alice.say("lobby", text).await["id"].clone());
    }
    for (query, expected) in QUERIES {
        for room in [None, Some("lobby")] {
            let mut ask = json!({"type": "search", "query": query});
            if let Some(room) = room {
                ask["room"] = room.into();
            }
            let found = alice.ask(ask).await;
            let found: Vec<_> = found["data"]["messages"].as_array().unwrap_or_else(|| panic!("{found}")).clone();
            let found: Vec<_> = found.into_iter().map(|message| message["id"].clone()).collect();
            let expected: Vec<_> = expected.iter().rev().map(|index| ids[*index].clone()).collect();
            assert_eq!(found, expected, "{query}");
        }
    }
    // What was changed or taken away is found as it is now.
    alice.ask(json!({"type": "edit", "id": ids[0], "content": "a slow hedgehog"})).await;
    alice.ask(json!({"type": "delete", "id": ids[2]})).await;
    for (query, expected) in [("quick", json!([])), ("hedgehog", json!([ids[0]]))] {
        let found = alice.ask(json!({"type": "search", "query": query})).await;
        let found: Vec<_> =
            found["data"]["messages"].as_array().into_iter().flatten().map(|message| message["id"].clone()).collect();
        assert_eq!(json!(found), expected, "{query}");
    }
    alice.dm("owner", "a hedgehog between us").await;
    let found = alice.ask(json!({"type": "search", "query": "hedgehog", "limit": 1})).await;
    assert_eq!(found["data"]["dms"][0]["content"], "a hedgehog between us", "the newest first");
    for wrong in ["", " ,.!", "a b c d e f g h i j k l m n o p q"] {
        assert_eq!(alice.refused(json!({"type": "search", "query": wrong})).await, "INVALID_INPUT", "{wrong}");
    }
}
