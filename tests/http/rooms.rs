//! Rooms over HTTP: made, looked at, entered and ended.

use serde_json::json;

use crate::{
    client::{Client, keys},
    on_both_databases,
};

on_both_databases!(a_room_is_made_and_entered_without_an_account, rooms_keep_their_terms,);

async fn a_room_is_made_and_entered_without_an_account(nobody: &Client) {
    let made = nobody.post("/api/v1/rooms", json!({"name": "Ma Réunion", "max_publishers": 10})).await.expect(201);
    let room = &made["data"];
    assert_eq!(
        keys(room),
        ["created_at", "current_users", "expires_at", "max_publishers", "max_users", "name", "room_id"]
    );
    assert_eq!((&room["name"], &room["max_publishers"]), (&json!("Ma Réunion"), &json!(10)));
    let path = format!("/api/v1/rooms/{}", room["room_id"].as_str().expect("an id"));
    assert_eq!(nobody.get(&path).await.expect(200)["data"], *room);
    let entered = nobody.post(&format!("{path}/join"), json!({"display": "Alice"})).await.expect(200);
    let entry = &entered["data"];
    assert_eq!(keys(entry), ["ice_servers", "participant_id", "room_id", "token", "ws_url"]);
    let token = entry["token"].as_str().expect("a token");
    let alice = nobody.with_token(Some(token));
    let me = alice.get("/api/users/me").await.expect(200);
    assert_eq!((&me["data"]["display_name"], &me["data"]["id"]), (&json!("Alice"), &entry["participant_id"]));
    let ws_url = entry["ws_url"].as_str().expect("a URL");
    assert!(
        ws_url.starts_with("ws://")
            && ws_url.ends_with(&format!("/ws?room_id={}", entry["room_id"].as_str().expect("an id")))
    );
    let left = alice.post(&format!("{path}/leave"), json!({})).await.expect(200);
    assert_eq!(left["data"]["left"], false, "one who never was in it");
    nobody.post(&format!("{path}/leave"), json!({})).await.expect(401);
    let again = alice.post(&format!("{path}/join"), json!({"display": "Alice"})).await.expect(200);
    assert_eq!(again["data"]["token"], token, "who came with a token goes on with it");
}

async fn rooms_keep_their_terms(nobody: &Client) {
    let owner = nobody.register("owner").await;
    nobody.post("/api/v1/rooms", json!({"name": ""})).await.expect(400);
    let made = owner.post("/api/v1/rooms", json!({"name": "Standup", "max_users": 3})).await.expect(201);
    assert_eq!((&made["data"]["max_users"], &made["data"]["max_publishers"]), (&json!(3), &json!(0)));
    owner.post("/api/v1/rooms", json!({"name": "standup"})).await.expect(409);
    let plain = owner.post("/api/channels", json!({"name": "General"})).await.expect(201);
    let path = format!("/api/v1/rooms/{}", plain["data"]["id"].as_str().expect("an id"));
    assert!(nobody.get(&path).await.expect(200)["data"]["expires_at"].is_null(), "a channel that stays");
    let hidden = owner.post("/api/channels", json!({"name": "Hidden", "is_private": true})).await.expect(201);
    let path = format!("/api/v1/rooms/{}", hidden["data"]["id"].as_str().expect("an id"));
    nobody.get(&path).await.expect(404);
    nobody.post(&format!("{path}/join"), json!({"display": "Eve"})).await.expect(404);
    nobody.get("/api/v1/rooms/nonsense").await.expect(400);
}
