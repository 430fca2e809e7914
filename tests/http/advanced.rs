//! The advanced API: accounts in pages, filters, deletions, the audio configuration, what administrators do.

use antiphon::settings::Settings;
use antiphon_core::ids::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Database,
    client::{Client, keys},
    on_both_databases, run,
};

on_both_databases!(
    accounts_come_in_pages,
    accounts_are_filtered_and_sorted,
    accounts_change_by_themselves_or_by_administrators,
    accounts_go_with_all_that_is_theirs,
    channels_are_filtered,
    the_audio_configuration_is_changed_checked_and_reset,
    what_has_had_its_time_is_cleaned_up,
    only_administrators_administrate,
    every_part_is_tried,
);

fn as_configured(_: &mut Settings) {}

/// The usernames of a list of accounts.
fn names(answer: &Value) -> Vec<&str> {
    answer["data"].as_array().expect("a list").iter().map(|user| user["username"].as_str().expect("a name")).collect()
}

async fn accounts_come_in_pages(nobody: &Client) {
    let admin = nobody.register("anna").await;
    for name in ["ben", "carl", "dora", "emil"] {
        nobody.guest(name).await;
    }
    let first = admin.get("/api/advanced/users?limit=2").await.json();
    assert_eq!(keys(&first), ["data", "pagination"]);
    assert_eq!(names(&first), ["anna", "ben"]);
    assert_eq!(first["data"][0], admin.user);
    let pagination = json!({"current_page": 1, "total_pages": 3, "total_items": 5, "items_per_page": 2,
        "has_next": true, "has_previous": false});
    assert_eq!(first["pagination"], pagination);
    let last = admin.get("/api/advanced/users?limit=2&page=3").await.json();
    assert_eq!(names(&last), ["emil"]);
    assert_eq!((&last["pagination"]["has_next"], &last["pagination"]["has_previous"]), (&json!(false), &json!(true)));
    let usual = admin.get("/api/advanced/users").await.json();
    assert_eq!((names(&usual).len(), &usual["pagination"]["items_per_page"]), (5, &json!(20)));
    let beyond = admin.get("/api/advanced/users?page=9").await.json();
    assert!(names(&beyond).is_empty());
    for wrong in ["page=0", "limit=0", "limit=101", "sort_by=password", "order=up", "role=king", "page=x"] {
        admin.get(&format!("/api/advanced/users?{wrong}")).await.expect_error(400, "INVALID_INPUT");
    }
    nobody.get("/api/advanced/users").await.expect_error(401, "UNAUTHENTICATED");
}

async fn accounts_are_filtered_and_sorted(nobody: &Client) {
    let admin = nobody.register("zoe").await;
    let ben = nobody.register("Ben").await;
    nobody.guest("a_b").await;
    nobody.guest("axb").await;
    admin.put(&format!("/api/users/{}", ben.id()), json!({"is_active": false})).await.expect(200);
    for (query, wanted) in [
        ("sort_by=username", vec!["a_b", "axb", "Ben", "zoe"]),
        ("sort_by=username&order=desc", vec!["zoe", "Ben", "axb", "a_b"]),
        ("order=desc", vec!["axb", "a_b", "Ben", "zoe"]),
        ("role=admin", vec!["zoe"]),
        ("is_guest=true", vec!["a_b", "axb"]),
        ("is_active=false", vec!["Ben"]),
        ("username=BEN", vec!["Ben"]),
        ("username=_", vec!["a_b"]),
        ("username=%25", vec![]),
        ("is_guest=false&is_active=true", vec!["zoe"]),
    ] {
        let found = admin.get(&format!("/api/advanced/users?{query}")).await.json();
        assert_eq!(names(&found), wanted, "{query}");
        assert_eq!(found["pagination"]["total_items"], wanted.len(), "{query}");
    }
}

async fn accounts_change_by_themselves_or_by_administrators(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
    let carl = nobody.guest("carl").await;
    let path = format!("/api/advanced/users/{}", ben.id());
    let changed = ben.put(&path, json!({"display_name": "Big Ben"})).await.expect(200);
    assert_eq!(changed["data"]["display_name"], "Big Ben");
    carl.put(&path, json!({"display_name": "Mallory"})).await.expect_error(403, "PERMISSION_DENIED");
    let changed = admin.put(&path, json!({"display_name": "B."})).await.expect(200);
    assert_eq!(changed["data"]["display_name"], "B.");
    admin.put(&path, json!({})).await.expect_error(400, "INVALID_INPUT");
    let unknown = format!("/api/advanced/users/{}", UserId(uuid::Uuid::from_u128(7)));
    admin.put(&unknown, json!({"display_name": "X"})).await.expect_error(404, "USER_NOT_FOUND");
    let log = admin.get("/api/advanced/admin/audit").await.json();
    assert_eq!(log["pagination"]["total_items"], 1, "one's own changes are nobody else's: {log}");
    let entry = &log["data"][0];
    assert_eq!(keys(entry), ["action", "actor_id", "actor_name", "at", "detail", "id", "target"]);
    assert_eq!((&entry["action"], &entry["actor_name"]), (&json!("user.update"), &json!("admin")));
    assert_eq!((&entry["target"], &entry["detail"]), (&json!(ben.id()), &json!({"display_name": "B."})));
}

async fn accounts_go_with_all_that_is_theirs(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
    let carl = nobody.guest("carl").await;
    let path = |client: &Client| format!("/api/advanced/users/{}", client.id());
    ben.delete(&path(&carl)).await.expect_error(403, "PERMISSION_DENIED");
    let channel = ben.channel("Ben's", true).await;
    admin.put(&format!("/api/channels/{channel}/members/{}", carl.id()), json!({"role": "member"})).await.expect(200);
    let sentence = admin.delete(&path(&ben)).await.expect_error(409, "CONFLICT");
    assert!(sentence.contains("1 channels"), "{sentence}");
    assert_eq!(admin.delete(&path(&carl)).await.expect(200)["data"]["user_id"], carl.id());
    admin.get(&path(&carl).replace("/advanced", "")).await.expect_error(404, "USER_NOT_FOUND");
    carl.get("/api/users/me").await.expect_error(401, "UNAUTHENTICATED");
    let members = ben.get(&format!("/api/channels/{channel}/members")).await.expect(200);
    assert_eq!(members["data"].as_array().expect("a list").len(), 1);
    ben.delete(&format!("/api/channels/{channel}")).await.expect(200);
    ben.delete(&path(&ben)).await.expect(200);
    admin.delete(&path(&ben)).await.expect_error(404, "USER_NOT_FOUND");
    admin.delete(&path(&admin)).await.expect_error(409, "CONFLICT");
    let log = admin.get("/api/advanced/admin/audit?action=user.delete").await.json();
    let targets: Vec<&Value> = log["data"].as_array().expect("a list").iter().map(|entry| &entry["target"]).collect();
    assert!(targets.contains(&&json!(carl.id())), "{log}");
}

async fn channels_are_filtered(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
    let carl = nobody.guest("carl").await;
    for (name, is_private) in [("Lobby", false), ("Music", false), ("Secret lobby", true)] {
        ben.channel(name, is_private).await;
    }
    let found = async |who: &Client, query: &str| {
        let answer = who.get(&format!("/api/advanced/channels?{query}")).await.expect(200);
        let names = answer["data"].as_array().expect("a list").iter().map(|channel| channel["name"].to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(&ben, "").await, "\"Lobby\" \"Music\"");
    assert_eq!(found(&ben, "include_private=true").await, "\"Lobby\" \"Music\" \"Secret lobby\"");
    assert_eq!(found(&carl, "include_private=true").await, "\"Lobby\" \"Music\"", "not a member");
    assert_eq!(found(&admin, "channel_type=private").await, "\"Secret lobby\"");
    assert_eq!(found(&ben, "name=LOBBY").await, "\"Lobby\"");
    assert_eq!(found(&ben, "min_users=1").await, "");
    assert_eq!(found(&ben, "max_users=0&channel_type=public").await, "\"Lobby\" \"Music\"");
    ben.get("/api/advanced/channels?channel_type=voice").await.expect_error(400, "INVALID_INPUT");
    ben.get("/api/advanced/channels?min_users=-1").await.expect_error(400, "INVALID_INPUT");
}

async fn the_audio_configuration_is_changed_checked_and_reset(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.guest("ben").await);
    let path = "/api/advanced/audio/config";
    let before = ben.get("/api/audio/config").await.json();
    let wanted =
        json!({"sample_rate": 24_000, "channels": 1, "bit_depth": 24, "buffer_size": 480, "latency_target_ms": 80});
    ben.put(path, wanted.clone()).await.expect_error(403, "PERMISSION_DENIED");
    assert_eq!(admin.put(path, wanted.clone()).await.expect(200)["data"], wanted);
    assert_eq!(ben.get("/api/audio/config").await.json(), wanted);
    let changed = admin.put(path, json!({"bit_depth": 32})).await.expect(200);
    assert_eq!((&changed["data"]["bit_depth"], &changed["data"]["sample_rate"]), (&json!(32), &json!(24_000)));
    for wrong in [
        json!({"sample_rate": 44_100}),
        json!({"channels": 3}),
        json!({"channels": 0}),
        json!({"bit_depth": 8}),
        json!({"buffer_size": 63}),
        json!({"buffer_size": 65_537}),
        json!({"latency_target_ms": 9}),
        json!({"latency_target_ms": 1_001}),
        json!({"sample_rate": "fast"}),
    ] {
        admin.put(path, wrong.clone()).await.expect_error(400, "INVALID_INPUT");
    }
    let reset = format!("{path}/reset");
    ben.post(&reset, json!({})).await.expect_error(403, "PERMISSION_DENIED");
    assert_eq!(admin.post(&reset, json!({})).await.expect(200)["data"], before);
    assert_eq!(ben.get("/api/audio/config").await.json(), before);
    let log = admin.get("/api/advanced/admin/audit").await.json();
    let actions: Vec<&str> =
        log["data"].as_array().expect("a list").iter().map(|entry| entry["action"].as_str().expect("text")).collect();
    assert_eq!(actions, ["audio_config.reset", "audio_config.update", "audio_config.update"], "newest first");
    assert_eq!(log["data"][1]["detail"], json!({"bit_depth": 32}));
}

async fn what_has_had_its_time_is_cleaned_up(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.guest("ben").await);
    let channel = admin.channel("General", false).await;
    let path = format!("/api/channels/{channel}");
    admin.post(&format!("{path}/ban"), json!({"user_id": ben.id(), "duration_s": 1})).await.expect(200);
    admin.post(&format!("{path}/invites"), json!({"ttl_s": 1})).await.expect(201);
    let clean = async || admin.post("/api/advanced/admin/cleanup", json!({})).await.expect(200)["data"].clone();
    let mut cleaned = (0, 0);
    while cleaned != (1, 1) {
        let found = clean().await;
        let wanted = ["audit_entries", "bans", "guests", "invites", "login_records", "more", "refresh_tokens"];
        assert_eq!(keys(&found), wanted);
        let count = |key: &str| found[key].as_u64().expect("a count");
        cleaned = (cleaned.0 + count("bans"), cleaned.1 + count("invites"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let again = clean().await;
    assert_eq!((&again["bans"], &again["invites"], &again["more"]), (&json!(0), &json!(0), &json!(false)));
}

async fn only_administrators_administrate(nobody: &Client) {
    nobody.register("admin").await;
    let ben = nobody.register("ben").await;
    for (method, path) in [
        (Method::GET, "health-check"),
        (Method::POST, "cleanup"),
        (Method::POST, "reset"),
        (Method::POST, "reset/node"),
        (Method::GET, "audit"),
    ] {
        let path = format!("/api/advanced/admin/{path}");
        ben.send(ben.request(method.clone(), &path)).await.expect_error(403, "PERMISSION_DENIED");
        nobody.send(nobody.request(method, &path)).await.expect_error(401, "UNAUTHENTICATED");
    }
}

async fn every_part_is_tried(nobody: &Client) {
    let admin = nobody.register("admin").await;
    let found = admin.get("/api/advanced/admin/health-check").await.expect(200)["data"].clone();
    let checks = found["checks"].as_array().expect("a list");
    let parts: Vec<&str> = checks.iter().map(|check| check["component"].as_str().expect("a name")).collect();
    assert_eq!(parts, ["database", "media_workers", "disk", "clock"]);
    assert!(checks[0]["latency_ms"].as_f64().expect("measured") > 0.0);
    assert!(checks[1]["latency_ms"].as_f64().expect("measured") > 0.0);
    assert_eq!((&checks[0]["status"], &checks[1]["status"]), (&json!("ok"), &json!("ok")));
    assert_eq!(checks[3]["status"], "ok", "{checks:?}");
}

#[tokio::test]
async fn private_channels_have_no_figures_for_strangers() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, ben) = (nobody.register("anna").await, nobody.register("ben").await);
        let carl = nobody.guest("carl").await;
        let id = ben.channel("Secret", true).await;
        for path in ["statistics", "statistics/node"] {
            let path = format!("/api/advanced/channels/{id}/{path}");
            carl.get(&path).await.expect_error(404, "CHANNEL_NOT_FOUND");
            assert_eq!(ben.get(&path).await.status, 200);
            assert_eq!(anna.get(&path).await.status, 200, "an administrator sees all");
        }
    })
    .await;
}
