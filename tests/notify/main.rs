//! Notifications through real sockets: a whole server on each database, a real mail server, a push service that checks and
//! decrypts what it gets, and a provider of short messages that checks signatures; each of them dies meanwhile.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "a part of it is for the server's own ports")]
mod authority;
mod bounds;
mod browser;
mod claims;
mod cluster;
mod codes;
mod email;
mod email_tls;
mod given_up;
mod kinds;
mod permissions;
mod push;
mod quiet;
mod receiver;
mod seen;
mod sms;

use std::time::Duration;

use antiphon::settings::{ConnectionUrl, Settings};
use reqwest::Method;
use serde_json::Value;

use self::support::{
    chatters::{PATIENCE, call},
    databases::TestDatabase,
    server::TestServer,
};

/// A server of its own on the database, which sends outside at once.
pub(crate) async fn start(database: &TestDatabase, change: impl FnOnce(&mut Settings)) -> TestServer {
    let url: ConnectionUrl = database.url().parse().expect("a URL");
    TestServer::start(|settings| {
        settings.database.url = Some(url);
        settings.notify.wait_s = 0;
        settings.notify.push_allow_private = true;
        settings.notify.public_url = Some("https://talk.example.org".to_owned());
        change(settings);
    })
    .await
}

/// Runs a scenario, `async fn(&str)` with the server's URL, against a server of its own on the database.
pub(crate) async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(&str)) {
    let server = start(&database, |_| {}).await;
    scenario(&server.url()).await;
    server.stop().await;
}

/// Where one's notifications are.
pub(crate) fn path(url: &str, rest: &str) -> String {
    format!("{url}/api/v1/users/me/notifications{rest}")
}

/// One's notifications, the newest first.
pub(crate) async fn listed(url: &str, token: &str) -> Vec<Value> {
    let (status, answer) = call(Method::GET, &path(url, ""), token, Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["notifications"].as_array().expect("a list").clone()
}

/// How many are unread.
pub(crate) async fn unread(url: &str, token: &str) -> u64 {
    let (_, answer) = call(Method::GET, &path(url, ""), token, Value::Null).await;
    answer["data"]["unread"].as_u64().expect("a count")
}

/// Waits until the newest notification is as `right` says; it.
pub(crate) async fn newest(url: &str, token: &str, right: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let newest = listed(url, token).await.into_iter().next();
            if let Some(newest) = newest.filter(&right) {
                return newest;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(found) => found,
        Err(_) => panic!("it becomes so; the list is {:?}", listed(url, token).await),
    }
}

/// Whether one of a notification's ways has got so far.
pub(crate) fn is_delivery(notification: &Value, way: &str, state: &str) -> bool {
    let deliveries = notification["deliveries"].as_array().into_iter().flatten();
    deliveries.into_iter().any(|delivery| delivery["way"] == way && delivery["state"] == state)
}
