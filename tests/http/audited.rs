//! Whatever an administrator does is in the audit log: every route that only they may use, as the API describes itself.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{client::Client, on_both_databases};

on_both_databases!(
    what_administrators_do_is_written_down,
    what_moderators_do_is_written_down,
    others_do_nothing_and_nothing_hides
);

const NOTHING: &str = "00000000-0000-7000-8000-000000000001";

/// Something that an administrator does.
struct Act {
    method: Method,
    /// The route, as the API's description has it.
    route: &'static str,
    /// What stands in the braces, in order.
    of: Vec<String>,
    body: Value,
    /// Its name in the log.
    action: &'static str,
}

fn act(method: Method, route: &'static str, of: &[&str], body: Value, action: &'static str) -> Act {
    Act { method, route, of: of.iter().map(|part| (*part).to_owned()).collect(), body, action }
}

impl Act {
    fn path(&self) -> String {
        let mut of = self.of.iter();
        let parts = self.route.split('/').map(|part| match part.starts_with('{') {
            true => of.next().expect("as many as there are braces").as_str(),
            false => part,
        });
        parts.collect::<Vec<_>>().join("/")
    }
}

/// All there is, in an order in which nothing is gone before it is needed.
fn acts(user: &str, channel: &str, webhook: &str, node: &str) -> Vec<Act> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let hooks = "/api/channels/{id}/webhooks";
    let hook = "/api/channels/{id}/webhooks/{webhook}";
    let drain = "/api/v1/admin/nodes/{id}/drain";
    let url = json!({"url": "http://127.0.0.1:9/"});
    vec![
        act(put.clone(), "/api/users/{id}", &[user], json!({"display_name": "B"}), "user.update"),
        act(put.clone(), "/api/advanced/users/{id}", &[user], json!({"is_active": false}), "user.update"),
        act(delete.clone(), "/api/advanced/users/{id}", &[user], json!({}), "user.delete"),
        act(put, "/api/advanced/audio/config", &[], json!({"bit_depth": 32}), "audio_config.update"),
        act(post.clone(), "/api/advanced/audio/config/reset", &[], json!({}), "audio_config.reset"),
        act(post.clone(), hooks, &[channel], url, "webhook.create"),
        act(
            post.clone(),
            "/api/channels/{id}/webhooks/{webhook}/retry",
            &[channel, webhook],
            json!({}),
            "webhook.retry",
        ),
        act(delete.clone(), hook, &[channel, webhook], json!({}), "webhook.delete"),
        act(delete.clone(), "/api/streams/{path}", &["none.wav"], json!({}), "stream.delete"),
        act(post.clone(), "/api/advanced/admin/notifications/{id}/retry", &[NOTHING], json!({}), "notification.retry"),
        act(post.clone(), drain, &[node], json!({"deadline_s": 9, "mode": "wait"}), "node.drain"),
        act(delete, drain, &[node], json!({}), "node.undrain"),
        act(post.clone(), "/api/advanced/admin/cleanup", &[], json!({}), "server.cleanup"),
        act(post.clone(), "/api/advanced/admin/reset/node", &[], json!({}), "node.reset"),
        act(post, "/api/advanced/admin/reset", &[], json!({}), "server.reset"),
    ]
}

/// All that those who keep order in a channel do to others there, in an order in which each still can be done.
fn moderation(channel: &str, user: &str) -> Vec<Act> {
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let member = "/api/channels/{id}/members/{user}";
    let whom = |further: Value| {
        let mut body = json!({"user_id": user});
        for (key, value) in further.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        body
    };
    let mute = "/api/channels/{id}/mute";
    vec![
        act(put.clone(), member, &[channel, user], json!({"role": "member"}), "channel.set_member"),
        act(post.clone(), mute, &[channel], whom(json!({"muted": true})), "channel.mute"),
        act(post.clone(), mute, &[channel], whom(json!({"muted": false})), "channel.unmute"),
        act(post.clone(), "/api/channels/{id}/kick", &[channel], whom(json!({"reason": "loud"})), "channel.kick"),
        act(delete.clone(), member, &[channel, user], json!({}), "channel.remove_member"),
        act(post, "/api/channels/{id}/ban", &[channel], whom(json!({"reason": "spam"})), "channel.ban"),
        act(delete, "/api/channels/{id}/ban/{user}", &[channel, user], json!({}), "channel.unban"),
        act(put, "/api/channels/{id}/chat", &[channel], json!({"slow_mode_s": 5}), "channel.chat_terms"),
    ]
}

/// Routes of channels that change something, and are no moderation: what people do for themselves, what makes and ends channels, and
/// what others of these tests and those of chat, recordings and playback look at.
const OTHERS: [&str; 14] = [
    "/api/channels",
    "/api/channels/{id}",
    "/api/channels/{id}/invites",
    "/api/channels/{id}/invites/{code}",
    "/api/channels/{id}/listen",
    "/api/channels/{id}/playback",
    "/api/channels/{id}/recordings",
    "/api/channels/{id}/recordings/current",
    "/api/channels/{id}/recordings/{recording}",
    "/api/channels/{id}/recordings/{recording}/mix",
    "/api/channels/{id}/reports/{message}/{by}",
    "/api/channels/{id}/webhooks",
    "/api/channels/{id}/webhooks/{webhook}",
    "/api/channels/{id}/webhooks/{webhook}/retry",
];

async fn what_moderators_do_is_written_down(nobody: &Client) {
    let (admin, ben, eve) =
        (nobody.register("admin").await, nobody.register("ben").await, nobody.register("eve").await);
    let channel = ben.channel("General", false).await;
    let acts = moderation(&channel, eve.id());
    let document = nobody.get("/api/openapi.json").await.json();
    let known = |route: &str| OTHERS.contains(&route) || acts.iter().any(|act| act.route == route);
    let changing = changing(&document);
    let unknown: Vec<_> =
        changing.iter().filter(|(_, path)| path.starts_with("/api/channels") && !known(path)).collect();
    assert!(changing.len() > 20 && unknown.is_empty(), "not looked at: {unknown:?}");

    for act in &acts {
        let before = newest(&admin).await["pagination"]["total_items"].as_u64().expect("a count");
        let request = |who: &Client| who.request(act.method.clone(), &act.path()).json(&act.body);
        let refused = eve.send(request(&eve)).await;
        let is_own = act.action == "channel.remove_member";
        assert!(is_own || refused.status.is_client_error(), "{}: {}", act.path(), refused.text);
        ben.send(request(&ben)).await;
        let log = newest(&admin).await;
        let context = format!("{} {}: {log}", act.method, act.path());
        assert_eq!(log["pagination"]["total_items"], before + 1, "{context}");
        let (entry, is_about_her) = (&log["data"][0], act.action != "channel.chat_terms");
        assert_eq!((&entry["action"], &entry["actor_id"]), (&json!(act.action), &json!(ben.id())), "{context}");
        let target = if is_about_her { eve.id() } else { &channel };
        assert_eq!(entry["target"], json!(target), "{context}");
        assert!(!is_about_her || entry["detail"]["channel_id"] == json!(channel), "{context}");
    }
    let kicked = admin.get("/api/advanced/admin/audit?action=channel.kick").await.json();
    assert_eq!(kicked["data"][0]["detail"], json!({"channel_id": channel, "reason": "loud"}));
    // What is kept for long is not written without end.
    let mute =
        async || ben.post(&format!("/api/channels/{channel}/mute"), json!({"user_id": eve.id(), "muted": true})).await;
    for _ in 0..=120 {
        if mute().await.status.as_u16() == 429 {
            return;
        }
    }
    panic!("a moderator acts without end");
}

/// The routes that change something and that the API's description reserves for administrators.
fn reserved(document: &Value) -> BTreeSet<(String, String)> {
    let reserved = operations(document).filter(|(path, method, operation)| {
        let tagged = operation["tags"].as_array().is_some_and(|tags| tags.contains(&json!("admin")));
        let forbidden = operation["responses"]["403"]["description"].as_str().unwrap_or_default();
        *method != "get" && (tagged || path.contains("/admin/") || forbidden.contains("administrator"))
    });
    reserved.map(|(path, method, _)| (method.to_uppercase(), path.clone())).collect()
}

/// All routes that change something.
fn changing(document: &Value) -> BTreeSet<(String, String)> {
    let changing = operations(document).filter(|(_, method, _)| *method != "get");
    changing.map(|(path, method, _)| (method.to_uppercase(), path.clone())).collect()
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("operations").iter().map(move |(method, operation)| (path, method, operation))
    })
}

async fn newest(admin: &Client) -> Value {
    admin.get("/api/advanced/admin/audit?limit=1").await.json()
}

async fn what_administrators_do_is_written_down(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
    let channel = admin.channel("General", false).await;
    let hooks = format!("/api/channels/{channel}/webhooks");
    let webhook = admin.post(&hooks, json!({"url": "http://127.0.0.1:9/"})).await.expect(201)["data"]["id"].clone();
    let nodes = admin.get("/api/v1/nodes").await.expect(200);
    let node = nodes["data"]["nodes"][0]["node_id"].as_str().expect("a name").to_owned();
    let acts = acts(ben.id(), &channel, webhook.as_str().expect("an id"), &node);

    let document = nobody.get("/api/openapi.json").await.json();
    let tried: BTreeSet<(String, String)> =
        acts.iter().map(|act| (act.method.to_string(), act.route.to_owned())).collect();
    let untried: Vec<_> = reserved(&document).into_iter().filter(|route| !tried.contains(route)).collect();
    assert!(reserved(&document).len() >= 12 && untried.is_empty(), "not looked at: {untried:?}");

    for act in &acts {
        let before = newest(&admin).await["pagination"]["total_items"].as_u64().expect("a count");
        let answer = admin.send(admin.request(act.method.clone(), &act.path()).json(&act.body)).await;
        let log = newest(&admin).await;
        let context = format!("{} {}: {} {log}", act.method, act.path(), answer.text);
        assert_eq!(log["pagination"]["total_items"], before + 1, "{context}");
        assert_eq!(log["data"][0]["action"], act.action, "{context}");
        assert_eq!(log["data"][0]["actor_id"], admin.id(), "{context}");
    }
    let drained = admin.get("/api/advanced/admin/audit?action=node.drain").await.json();
    assert_eq!(drained["data"][0]["target"], json!(node));
    assert_eq!(drained["data"][0]["detail"], json!({"deadline_s": 9, "mode": "wait"}));
}

/// What marks a request as passed on by another node hides nothing, and what others are refused is not written down.
async fn others_do_nothing_and_nothing_hides(nobody: &Client) {
    let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
    let reset = admin.request(Method::POST, "/api/advanced/admin/reset/node").header("x-antiphon-forwarded", "1");
    admin.send(reset).await.expect(200);
    assert_eq!(newest(&admin).await["data"][0]["action"], "node.reset");
    let before = newest(&admin).await["pagination"]["total_items"].clone();
    let channel = ben.channel("General", false).await;
    for act in acts(admin.id(), &channel, NOTHING, "nowhere") {
        let answer = ben.send(ben.request(act.method.clone(), &act.path()).json(&act.body)).await;
        assert!(answer.status.is_client_error(), "{} {}: {}", act.method, act.path(), answer.text);
    }
    assert_eq!(newest(&admin).await["pagination"]["total_items"], before, "what is refused is not done");
}
