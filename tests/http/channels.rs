//! Channels, their members and invites.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Database,
    client::{Client, keys},
    on_both_databases, run,
};

on_both_databases!(
    a_channel_is_made_listed_changed_and_deleted,
    names_and_numbers_are_checked,
    private_channels_are_hidden,
    members_have_roles,
    members_come_in_pages,
    ownership_is_handed_over,
    invites_let_in_as_many_as_they_say,
    bans_keep_out_until_lifted,
    moderation_answers_what_it_did,
    figures_nobody_has_measured_are_null,
);

const CHANNEL_KEYS: [&str; 9] =
    ["created_at", "current_users", "description", "id", "is_private", "max_speakers", "max_users", "name", "owner_id"];

async fn a_channel_is_made_listed_changed_and_deleted(nobody: &Client) {
    let owner = nobody.register("owner").await;
    let body = json!({"name": "General", "description": "Channel général", "max_users": 10, "is_private": false});
    let created = owner.post("/api/channels", body).await.expect(201);
    assert_eq!(keys(&created), ["data", "success"]);
    let channel = &created["data"];
    assert_eq!(keys(channel), CHANNEL_KEYS);
    assert_eq!(channel["owner_id"], owner.user["id"]);
    assert_eq!(
        (&channel["max_users"], &channel["max_speakers"], &channel["current_users"]),
        (&json!(10), &json!(0), &json!(0))
    );

    let listed = nobody.get("/api/channels").await.expect(200);
    assert_eq!(listed["data"], json!([channel]));
    let path = format!("/api/channels/{}", channel["id"].as_str().expect("an id"));
    assert_eq!(owner.get(&path).await.expect(200)["data"], *channel);

    let change = json!({"name": "Lobby", "max_speakers": 3});
    let changed = owner.put(&path, change).await.expect(200)["data"].clone();
    assert_eq!((&changed["name"], &changed["max_speakers"]), (&json!("Lobby"), &json!(3)));
    assert_eq!(changed["description"], channel["description"], "what is not named stays");
    assert_eq!(owner.get(&path).await.expect(200)["data"], changed);

    assert_eq!(owner.delete(&path).await.expect(200)["data"], json!({"channel_id": channel["id"]}));
    for again in [owner.get(&path).await, owner.delete(&path).await, owner.put(&path, json!({})).await] {
        again.expect_error(404, "CHANNEL_NOT_FOUND");
    }
    assert_eq!(nobody.get("/api/channels").await.expect(200)["data"], json!([]));
}

async fn names_and_numbers_are_checked(nobody: &Client) {
    let owner = nobody.guest("owner").await;
    let first = owner.channel("First", false).await;
    let second = owner.channel("Second", false).await;
    owner.post("/api/channels", json!({"name": "FIRST"})).await.expect_error(409, "CONFLICT");
    let path = format!("/api/channels/{second}");
    owner.put(&path, json!({"name": "first"})).await.expect_error(409, "CONFLICT");
    owner.put(&path, json!({"name": "SECOND"})).await.expect(200);

    for (field, wrong) in [
        ("name", json!("")),
        ("name", json!("x".repeat(33))),
        ("name", json!("two\nlines")),
        ("name", json!(first)),
        ("description", json!("x".repeat(1_001))),
        ("description", json!("\u{0}")),
        ("max_users", json!(0)),
        ("max_users", json!(10_001)),
        ("max_users", json!(-1)),
        ("max_users", json!("many")),
        ("max_speakers", json!(10_001)),
        ("is_private", json!("yes")),
    ] {
        let mut body = json!({"name": "Third"});
        body[field] = wrong.clone();
        let sentence = owner.post("/api/channels", body).await.expect_error(400, "INVALID_INPUT");
        assert!(sentence.contains(field), "{field} {wrong}: {sentence}");
        let sentence = owner.put(&path, json!({field: wrong})).await.expect_error(400, "INVALID_INPUT");
        assert!(sentence.contains(field), "{field} {wrong}: {sentence}");
    }
    let sentence = owner.post("/api/channels", json!({})).await.expect_error(400, "INVALID_INPUT");
    assert!(sentence.contains("missing field `name`"), "{sentence}");
}

async fn private_channels_are_hidden(nobody: &Client) {
    let admin = nobody.register("admin").await;
    let (owner, stranger) = (nobody.register("owner").await, nobody.register("stranger").await);
    let id = owner.channel("Secret", true).await;
    let names = |answer: Value| -> Vec<String> {
        let channels = answer["data"].as_array().expect("channels").iter();
        channels.map(|channel| channel["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert!(names(nobody.get("/api/channels").await.expect(200)).is_empty());
    assert!(names(stranger.get("/api/channels").await.expect(200)).is_empty());
    assert_eq!(names(owner.get("/api/channels").await.expect(200)), ["Secret"]);
    let path = format!("/api/channels/{id}");
    stranger.get(&path).await.expect_error(404, "CHANNEL_NOT_FOUND");
    admin.get(&path).await.expect(200);
    owner.put(&format!("{path}/members/{}", stranger.id()), json!({})).await.expect(200);
    stranger.get(&path).await.expect(200);
}

async fn members_have_roles(nobody: &Client) {
    let (owner, friend) = (nobody.register("owner").await, nobody.register("friend").await);
    let id = owner.channel("General", false).await;
    let members = format!("/api/channels/{id}/members");
    let path = format!("{members}/{}", friend.id());

    let entry = owner.put(&path, json!({"role": "moderator", "priority": true})).await.expect(200)["data"].clone();
    assert_eq!(keys(&entry), ["priority", "role", "user", "user_id", "voice"]);
    assert_eq!(
        (&entry["role"], &entry["priority"], &entry["voice"]),
        (&json!("moderator"), &json!(true), &Value::Null)
    );
    assert_eq!(entry["user"], friend.user);
    let listed = friend.get(&members).await.expect(200)["data"].clone();
    assert_eq!(listed[0]["role"], "owner");
    assert_eq!(listed[1], entry);

    let entry = owner.put(&path, json!({"priority": false})).await.expect(200)["data"].clone();
    assert_eq!((&entry["role"], &entry["priority"]), (&json!("moderator"), &json!(false)), "the role stays");
    owner.put(&path, json!({"role": "king"})).await.expect_error(400, "INVALID_INPUT");
    let unknown = format!("{members}/00000000-0000-7000-8000-000000000000");
    owner.put(&unknown, json!({})).await.expect_error(404, "USER_NOT_FOUND");

    let gone = friend.delete(&path).await.expect(200);
    assert_eq!(gone["data"], json!({"channel_id": id, "user_id": friend.user["id"]}));
    owner.delete(&path).await.expect_error(404, "USER_NOT_FOUND");
    assert_eq!(owner.get(&members).await.expect(200)["data"].as_array().expect("members").len(), 1);
}

async fn members_come_in_pages(nobody: &Client) {
    let owner = nobody.register("owner").await;
    let id = owner.channel("General", false).await;
    let members = format!("/api/channels/{id}/members");
    let mut ids = vec![owner.id().to_owned()];
    for index in 0..4 {
        let friend = nobody.guest(&format!("friend{index}")).await;
        owner.put(&format!("{members}/{}", friend.id()), json!({})).await.expect(200);
        ids.push(friend.id().to_owned());
    }
    let page = async |query: &str| -> Vec<String> {
        let answer = owner.get(&format!("{members}{query}")).await.expect(200);
        let entries = answer["data"].as_array().expect("members").iter();
        entries.map(|entry| entry["user_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(page("").await, ids);
    assert_eq!(page("?limit=2").await, ids[..2]);
    assert_eq!(page("?limit=2&offset=2").await, ids[2..4]);
    assert_eq!(page("?offset=4").await, ids[4..]);
    assert!(page("?limit=1000&offset=4294967295").await.is_empty());
    for wrong in ["?limit=0", "?limit=1001", "?limit=-1", "?limit=x", "?offset=-1", "?offset=4294967296"] {
        let sentence = owner.get(&format!("{members}{wrong}")).await.expect_error(400, "INVALID_INPUT");
        assert!(sentence.contains("limit") || sentence.contains("offset"), "{wrong}: {sentence}");
    }
}

async fn ownership_is_handed_over(nobody: &Client) {
    let _admin = nobody.register("admin").await;
    let (owner, heir) = (nobody.register("owner").await, nobody.register("heir").await);
    let id = owner.channel("General", false).await;
    let path = format!("/api/channels/{id}");
    let member = |client: &Client| format!("{path}/members/{}", client.id());
    owner.put(&member(&owner), json!({"role": "member"})).await.expect_error(403, "PERMISSION_DENIED");
    owner.delete(&member(&owner)).await.expect_error(403, "PERMISSION_DENIED");
    owner.put(&member(&heir), json!({"role": "owner"})).await.expect(200);
    assert_eq!(owner.get(&path).await.expect(200)["data"]["owner_id"], heir.user["id"]);
    owner.put(&path, json!({"name": "Mine"})).await.expect_error(403, "PERMISSION_DENIED");
    heir.put(&path, json!({"name": "Mine now"})).await.expect(200);
    let members = heir.get(&format!("{path}/members")).await.expect(200);
    assert_eq!(members["data"][0]["role"], "moderator", "the owner before");
}

async fn invites_let_in_as_many_as_they_say(nobody: &Client) {
    let owner = nobody.register("owner").await;
    let (first, second) = (nobody.register("first").await, nobody.guest("second").await);
    let id = owner.channel("Secret", true).await;
    let invites = format!("/api/channels/{id}/invites");
    let invite = owner.post(&invites, json!({"max_uses": 1, "ttl_s": 3_600})).await.expect(201)["data"].clone();
    let all = ["channel_id", "code", "created_at", "created_by", "expires_at", "max_uses", "uses"];
    assert_eq!(keys(&invite), all);
    assert_eq!((&invite["max_uses"], &invite["uses"]), (&json!(1), &json!(0)));
    let code = format!("/api/invites/{}", invite["code"].as_str().expect("a code"));

    let channel = first.post(&code, json!({})).await.expect(200);
    assert_eq!(channel["data"]["id"], id);
    first.post(&code, json!({})).await.expect(200);
    second.post(&code, json!({})).await.expect_error(404, "NOT_FOUND");
    second.post("/api/invites/made-up", json!({})).await.expect_error(404, "NOT_FOUND");

    // Nothing need be said of it, not even that.
    let endless = owner.send(owner.request(Method::POST, &invites)).await.expect(201)["data"].clone();
    assert_eq!((&endless["max_uses"], &endless["expires_at"]), (&Value::Null, &Value::Null));
    let code = format!("/api/invites/{}", endless["code"].as_str().expect("a code"));
    second.post(&code, json!({})).await.expect(200);
    first.post(&invites, json!({})).await.expect_error(403, "PERMISSION_DENIED");

    // The one that is used up is not listed; the other is, until it is taken back. Who came by it stays.
    let open = owner.get(&invites).await.expect(200)["data"].clone();
    assert_eq!(open.as_array().map(Vec::len), Some(1), "{open}");
    assert_eq!((&open[0]["code"], &open[0]["uses"]), (&endless["code"], &json!(1)));
    let (other, late) = (owner.channel("Other", false).await, nobody.register("late").await);
    let revoke = |channel: &str| format!("/api/channels/{channel}{}", code.replace("/api", ""));
    owner.delete(&revoke(&other)).await.expect_error(404, "NOT_FOUND");
    first.delete(&revoke(&id)).await.expect_error(403, "PERMISSION_DENIED");
    owner.delete(&revoke(&id)).await.expect(200);
    owner.delete(&revoke(&id)).await.expect_error(404, "NOT_FOUND");
    late.post(&code, json!({})).await.expect_error(404, "NOT_FOUND");
    second.get(&format!("/api/channels/{id}")).await.expect(200);
    assert_eq!(owner.get(&invites).await.expect(200)["data"], json!([]));
    for wrong in [json!({"max_uses": 0}), json!({"ttl_s": 0}), json!({"ttl_s": 315_360_001_u64})] {
        owner.post(&invites, wrong).await.expect_error(400, "INVALID_INPUT");
    }
    let unnamed = owner.request(Method::POST, &invites).body(r#"{"max_uses": 1}"#);
    owner.send(unnamed).await.expect_error(415, "INVALID_INPUT");
}

async fn bans_keep_out_until_lifted(nobody: &Client) {
    let (owner, troll) = (nobody.register("owner").await, nobody.register("troll").await);
    let id = owner.channel("Secret", true).await;
    let path = format!("/api/channels/{id}");
    let invite = owner.post(&format!("{path}/invites"), json!({})).await.expect(201);
    let code = format!("/api/invites/{}", invite["data"]["code"].as_str().expect("a code"));
    troll.post(&code, json!({})).await.expect(200);

    let body = json!({"user_id": troll.id(), "reason": "spam", "duration_s": 3_600});
    let ban = owner.post(&format!("{path}/ban"), body).await.expect(200)["data"].clone();
    assert_eq!(keys(&ban), ["by", "channel_id", "reason", "until", "user_id"]);
    assert_eq!((&ban["by"], &ban["reason"]), (&owner.user["id"], &json!("spam")));
    troll.get(&path).await.expect_error(404, "CHANNEL_NOT_FOUND");
    troll.post(&code, json!({})).await.expect_error(404, "NOT_FOUND");

    let lift = format!("{path}/ban/{}", troll.id());
    owner.delete(&lift).await.expect(200);
    owner.delete(&lift).await.expect_error(404, "NOT_FOUND");
    troll.post(&code, json!({})).await.expect(200);
    for wrong in [json!({"user_id": troll.id(), "duration_s": 0}), json!({"user_id": "troll"}), json!({})] {
        owner.post(&format!("{path}/ban"), wrong).await.expect_error(400, "INVALID_INPUT");
    }
}

async fn moderation_answers_what_it_did(nobody: &Client) {
    let (owner, loud) = (nobody.register("owner").await, nobody.guest("loud").await);
    let id = owner.channel("General", false).await;
    let path = format!("/api/channels/{id}");
    for muted in [true, false, false] {
        let answer =
            owner.post(&format!("{path}/mute"), json!({"user_id": loud.id(), "muted": muted})).await.expect(200);
        assert_eq!(answer["data"], json!({"channel_id": id, "user_id": loud.id(), "muted": muted}));
    }
    // Nobody is in voice.
    owner.post(&format!("{path}/kick"), json!({"user_id": loud.id()})).await.expect_error(404, "USER_NOT_FOUND");
    let long = json!({"user_id": loud.id(), "reason": "x".repeat(501)});
    owner.post(&format!("{path}/kick"), long).await.expect_error(400, "INVALID_INPUT");
    owner.post(&format!("{path}/mute"), json!({"user_id": loud.id()})).await.expect_error(400, "INVALID_INPUT");
}

async fn figures_nobody_has_measured_are_null(nobody: &Client) {
    let owner = nobody.register("owner").await;
    let id = owner.channel("General", false).await;
    let stats = owner.get(&format!("/api/channels/{id}/audio/stats")).await.expect(200)["data"].clone();
    assert_eq!(stats["channel_id"], id);
    for counted in ["current_users", "packets_received", "packets_sent", "bytes_transferred", "total_connections"] {
        assert_eq!(stats[counted], 0, "{counted}");
    }
    for measured in ["since", "average_latency_ms", "packet_loss_rate", "jitter_ms", "audio_quality_score"] {
        assert_eq!(stats[measured], Value::Null, "{measured}");
    }
}

#[tokio::test]
async fn there_are_at_most_so_many_channels() {
    let two = |settings: &mut antiphon::settings::Settings| settings.limits.max_channels = 2;
    run(Database::Sqlite, two, async |nobody: &Client| {
        let admin = nobody.register("admin").await;
        let owner = nobody.register("owner").await;
        owner.channel("One", false).await;
        let second = owner.channel("Two", true).await;
        owner.post("/api/channels", json!({"name": "Three"})).await.expect_error(409, "LIMIT_REACHED");
        owner.delete(&format!("/api/channels/{second}")).await.expect(200);
        owner.post("/api/channels", json!({"name": "Three"})).await.expect(201);
        admin.post("/api/channels", json!({"name": "Four"})).await.expect(201);
    })
    .await;
}
