//! What cannot be sent is given up where people see it: who waited for it, and administrators, who can have it tried again.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    is_delivery, newest, on_both, path,
    receiver::Receiver,
    start,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
        nodes::http,
    },
};

on_both!(what_is_given_up_is_seen_and_can_be_tried_again, a_flood_is_bounded);

async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(&str)) {
    let server = start(&database, |settings| {
        settings.notify.attempts_max = 2;
        settings.notify.per_hour = 3;
    })
    .await;
    scenario(&server.url()).await;
    server.stop().await;
}

/// A figure of a node.
pub(crate) async fn metric(url: &str, line: &str) -> f64 {
    let text = http().get(format!("{url}/metrics")).send().await.expect("answered").text().await.expect("text");
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{line} is there: {text}"))
}

async fn what_is_given_up_is_seen_and_can_be_tried_again(url: &str) {
    let admin = register(url, "admin").await;
    let ada = register(url, "ada").await;
    channel(url, &admin, "lobby", json!({})).await;
    let (service, mut posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(url, "/push"), &ada, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    call(Method::POST, &path(url, "/push"), &ada, browser.subscription(&service.url())).await;
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;
    let line = r#"antiphon_notifications_deliveries_total{way="push",outcome="given_up"}"#;
    let before = metric(url, line).await;

    // Later it may work, says the service, until there were as many attempts as may be.
    service.status.store(503, Ordering::Relaxed);
    bob.say("lobby", "@ada: one").await;
    let found = newest(url, &ada, |found| is_delivery(found, "push", "given_up")).await;
    assert_eq!(found["deliveries"][0]["attempts"], 2);
    assert!(found["deliveries"][0].get("error").is_none(), "why is for administrators");
    // It never will.
    service.status.store(400, Ordering::Relaxed);
    bob.say("lobby", "@ada: two").await;
    let found =
        newest(url, &ada, |found| found["content"] == "@ada: two" && is_delivery(found, "push", "given_up")).await;
    assert_eq!(found["deliveries"][0]["attempts"], 1);
    assert!(metric(url, line).await >= before + 2.0);

    let given_up = format!("{url}/api/advanced/admin/notifications");
    assert_eq!(call(Method::GET, &given_up, &ada, Value::Null).await.0, 403);
    let (status, list) = call(Method::GET, &given_up, &admin, Value::Null).await;
    let list = list["data"].as_array().expect("a list").clone();
    assert_eq!((status, list.len(), &list[0]["error"]), (200, 2, &json!("it answered 400 Bad Request")), "{list:?}");
    assert_eq!(list[1]["error"], "it answered 503 Service Unavailable");
    service.status.store(201, Ordering::Relaxed);
    for found in &list {
        let retry = format!("{given_up}/{}/retry", found["id"].as_str().expect("an id"));
        assert_eq!(call(Method::POST, &retry, &ada, Value::Null).await.0, 403);
        assert_eq!(call(Method::POST, &retry, &admin, Value::Null).await.0, 200);
        let post = tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted");
        browser.open(&service.url(), &post.headers, &post.body).expect("authentic");
        assert_eq!(call(Method::POST, &retry, &admin, Value::Null).await.0, 404, "it is not given up any more");
    }
    let (_, list) = call(Method::GET, &given_up, &admin, Value::Null).await;
    assert_eq!(list["data"], json!([]));
    let (_, audit) = call(Method::GET, &format!("{url}/api/advanced/admin/audit"), &admin, Value::Null).await;
    assert!(audit.to_string().contains("notification.retry"), "{audit}");
}

async fn a_flood_is_bounded(url: &str) {
    let ada = register(url, "ada").await;
    channel(url, &ada, "lobby", json!({})).await;
    let (service, mut posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(url, "/push"), &ada, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    call(Method::POST, &path(url, "/push"), &ada, browser.subscription(&service.url())).await;
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;
    let line = r#"antiphon_notifications_dropped_total{reason="rate"}"#;
    let before = metric(url, line).await;
    for number in 0..5 {
        bob.say("lobby", &format!("@ada: {number}")).await;
    }
    newest(url, &ada, |found| found["content"] == "@ada: 4").await;
    // Three an hour go outside, in order; the list has them all.
    for number in 0..3 {
        let post = tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted");
        let shown = browser.open(&service.url(), &post.headers, &post.body).expect("authentic");
        assert!(shown["body"].as_str().is_some_and(|body| body.starts_with("@ada: ")), "{number}: {shown}");
    }
    let wait = async {
        while metric(url, line).await < before + 2.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("two are dropped, and counted");
    assert_eq!(crate::listed(url, &ada).await.len(), 5);
    assert!(posts.try_recv().is_err());
}
