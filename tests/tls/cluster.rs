//! Nodes that speak TLS reach each other.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    YEAR,
    authority::Authority,
    support::{postgres::fresh_database, redis::RedisServer, server::TestServer},
};

async fn node(
    name: &str,
    authority: &Authority,
    ca_file: Option<&Path>,
    redis: &RedisServer,
    database: &str,
) -> TestServer {
    TestServer::start(|settings| {
        authority.set(settings);
        settings.cluster.node_id = Some(name.to_owned());
        settings.cluster.relay_port = 0;
        settings.cluster.secret = Some(antiphon::settings::Secret::new("a secret of both nodes of this test"));
        settings.cluster.ca_file = ca_file.map(Path::to_owned);
        settings.auth.jwt_secret = Some(antiphon::settings::Secret::new("another secret of both nodes of this test"));
        settings.redis.url = Some(format!("redis://127.0.0.1:{}", redis.port).parse().expect("a URL"));
        settings.database.url = Some(database.parse().expect("a URL"));
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_passed_on_to_a_node_whose_certificate_is_trusted() {
    let (authority, redis, database) = (Authority::new(), RedisServer::start(), fresh_database().await);
    authority.issue(YEAR);
    let ca = authority.ca_file();
    let trusting = node("trusting", &authority, Some(&ca), &redis, &database.url).await;
    let wary = node("wary", &authority, None, &redis, &database.url).await;
    let http = authority.http();
    let account = json!({"username": "admin", "password": "a long enough password"});
    let admin = http.post(format!("{}/api/auth/register", trusting.url())).json(&account).send().await;
    let admin: Value = admin.expect("answered").json().await.expect("JSON");
    let token = admin["access_token"].as_str().expect("the first account");
    let drain = async |by: &TestServer, name: &str| {
        let url = format!("{}/api/v1/admin/nodes/{name}/drain", by.url());
        // It may take a moment until each has heard of the other.
        for _ in 0..300 {
            let answer = http.post(&url).bearer_auth(token).json(&json!({})).send().await.expect("answered");
            if answer.status() != 404 {
                return answer.json::<Value>().await.expect("JSON");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{name} is never known");
    };
    let passed = drain(&trusting, "wary").await;
    assert_eq!(passed["data"]["mode"], "handover", "{passed}");
    let refused = drain(&wary, "trusting").await;
    assert_eq!(refused["error_code"], "TEMPORARILY_UNAVAILABLE", "it does not know who signed: {refused}");
    let nodes = http.get(format!("{}/api/v1/nodes", wary.url())).bearer_auth(token).send().await.expect("answered");
    let nodes = nodes.text().await.expect("text");
    assert!(nodes.contains(&format!("https://{}", trusting.running.addresses().http)), "{nodes}");
    trusting.stop().await;
    wary.stop().await;
}
