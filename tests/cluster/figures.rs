//! What a cluster says of itself is the same on every node, whoever is asked.

use std::time::Duration;

use antiphon_loadtest::rest::Rest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    nodes::{Nodes, http, until_heard},
    people::{PATIENCE, Person},
    process::Process,
};

/// A node's answer to an account.
async fn ask(node: &Process, token: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = http().request(method, node.url().http(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("answered");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Asks every node until all answers are as wanted; the parts of them that are compared.
async fn all_answer(cluster: &Nodes, token: &str, path: &str, part: impl Fn(&Value) -> Value, wanted: &Value) {
    let mut seen = Vec::new();
    let asked = async {
        loop {
            seen.clear();
            for node in &cluster.nodes {
                let (status, answer) = ask(node, token, Method::GET, path, None).await;
                assert_eq!(status, 200, "{path}: {answer}");
                seen.push(part(&answer));
            }
            if seen.iter().all(|seen| seen == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, asked).await.is_ok();
    assert!(done, "{path}: {seen:?} instead of {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_for_all_of_them() {
    let cluster = Nodes::start(2).await;
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    let admin = rest.register("admin", "a long enough password").await.expect("registered");
    let token = admin.access_token.as_str();
    let channel = cluster.channel_owned_by(0).await;
    let mut speaker = Person::join(&cluster.nodes[0], "speaker", channel).await;
    let mut near = Person::join(&cluster.nodes[0], "near", channel).await;
    let mut far = Person::join(&cluster.nodes[1], "far", channel).await;
    for person in [&mut speaker, &mut near, &mut far] {
        person.udp_becomes(true).await;
    }
    let sent = until_heard(&speaker, &mut [&mut near, &mut far]).await;
    for number in sent..sent + 50 {
        speaker.say(number).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = sent + 50;

    let path = format!("/api/advanced/channels/{channel}/statistics");
    let counts = |answer: &Value| {
        json!([answer["audio_stats"]["packets_received"], answer["total_connections"], answer["current_users"]])
    };
    all_answer(&cluster, token, &path, counts, &json!([sent, 3, 3])).await;
    let path = format!("/api/channels/{channel}/audio/stats");
    let counts = |answer: &Value| json!([answer["data"]["packets_received"], answer["data"]["current_users"]]);
    all_answer(&cluster, token, &path, counts, &json!([sent, 3])).await;
    let user = speaker.client.user().id;
    let path = format!("/api/advanced/users/{user}/statistics");
    let counts = |answer: &Value| json!([answer["data"]["packets_sent"], answer["data"]["total_connections"]]);
    all_answer(&cluster, token, &path, counts, &json!([sent, 1])).await;
    let counts = |answer: &Value| {
        let connections = &answer["system_stats"]["active_connections"];
        json!([answer["active_users"], answer["active_channels"], answer["total_audio_packets"], connections])
    };
    all_answer(&cluster, token, "/api/advanced/statistics/server", counts, &json!([3, 1, sent, 3])).await;
    let counts = |answer: &Value| {
        let audio = &answer["data"]["audio_metrics"];
        json!([audio["active_channels"], audio["active_users"], answer["data"]["network_metrics"]["connection_count"]])
    };
    all_answer(&cluster, token, "/api/metrics/current", counts, &json!([1, 3, 3])).await;
    let nodes = |answer: &Value| {
        let nodes = answer["data"]["nodes"].as_array().expect("a list").iter();
        nodes.map(|node| json!([node["node"], node["active_users"]])).collect()
    };
    all_answer(&cluster, token, "/api/metrics/health", nodes, &json!([["node-0", 2], ["node-1", 1]])).await;

    configuration_and_administration(&cluster, token).await;
}

async fn configuration_and_administration(cluster: &Nodes, token: &str) {
    let wanted =
        json!({"sample_rate": 16_000, "channels": 1, "bit_depth": 16, "buffer_size": 320, "latency_target_ms": 60});
    let path = "/api/advanced/audio/config";
    let (status, answer) = ask(&cluster.nodes[1], token, Method::PUT, path, Some(wanted.clone())).await;
    assert_eq!((status, &answer["data"]), (200, &wanted));
    all_answer(cluster, token, "/api/audio/config", Value::clone, &wanted).await;
    let actions =
        |log: &Value| log["data"].as_array().expect("a list").iter().map(|entry| entry["action"].clone()).collect();
    all_answer(cluster, token, "/api/advanced/admin/audit", actions, &json!(["audio_config.update"])).await;
    for node in &cluster.nodes {
        let (status, answer) = ask(node, token, Method::POST, "/api/advanced/admin/reset", None).await;
        assert_eq!((status, &answer["error_code"]), (403, &json!("PERMISSION_DENIED")));
        let (status, answer) = ask(node, token, Method::GET, "/api/advanced/admin/health-check", None).await;
        assert_eq!(status, 200, "{answer}");
        let checks = answer["data"]["checks"].as_array().expect("a list");
        let parts: Vec<&str> = checks.iter().map(|check| check["component"].as_str().expect("text")).collect();
        // How full this machine's disk is, is not the test's business.
        let fine = checks.iter().filter(|check| check["component"] != "disk").all(|check| check["status"] == "ok");
        assert!(fine, "{answer}");
        assert!(parts.contains(&"redis") && parts.contains(&"relay"), "{parts:?}");
        assert!(parts.iter().any(|part| part.starts_with("node node-")), "{parts:?}");
    }
}
