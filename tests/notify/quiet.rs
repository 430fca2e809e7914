//! Quiet hours: open sessions are told, and the rest waits until they end.

use reqwest::Method;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    browser::Browser,
    is_delivery, newest, path,
    receiver::Receiver,
    start,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
};

fn clock(moment: OffsetDateTime) -> String {
    format!("{:02}:{:02}", moment.hour(), moment.minute())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_quiet_hours_waits_until_they_end() {
    let database = TestDatabase::sqlite();
    let server = start(&database, |_| {}).await;
    let url = server.url();
    let ada_token = register(&url, "ada").await;
    channel(&url, &ada_token, "lobby", json!({})).await;
    let (service, mut posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(&url, "/push"), &ada_token, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    let subscription = browser.subscription(&service.url());
    assert_eq!(call(Method::POST, &path(&url, "/push"), &ada_token, subscription).await.0, 201);
    let (mut ada, mut bob) = (Chatter::with_token(&url, &ada_token).await, Chatter::guest(&url, "bob").await);
    bob.join("lobby").await;

    // They end with this minute, or with the next if this one is nearly over.
    let now = OffsetDateTime::now_utc();
    let end = now + Duration::minutes(if now.second() < 50 { 1 } else { 2 });
    let hours = json!({"from": clock(now - Duration::hours(1)), "to": clock(end), "time_zone": "Etc/UTC"});
    let preferences = path(&url, "/preferences");
    let (status, set) = call(Method::PUT, &preferences, &ada_token, json!({"quiet_hours": hours})).await;
    assert_eq!(status, 200, "{set}");
    bob.say("lobby", "@ada: quiet").await;
    assert_eq!(ada.next("notification").await["data"]["content"], "@ada: quiet", "sessions are told");
    let waiting = newest(&url, &ada_token, |found| is_delivery(found, "push", "waiting")).await;
    let next_at = waiting["deliveries"][0]["next_at"].as_str().expect("a time");
    assert!(next_at.contains(&format!("T{}:00", clock(end))), "{next_at} is the end, {}", clock(end));
    assert!(posts.try_recv().is_err(), "nothing yet");
    // A minute and some, at most two.
    let patience = std::time::Duration::from_secs(150);
    let post = tokio::time::timeout(patience, posts.recv()).await.expect("in time").expect("posted");
    let came = OffsetDateTime::now_utc();
    assert!(came.minute() == end.minute() || came > end, "not before they ended");
    let shown = browser.open(&service.url(), &post.headers, &post.body).expect("authentic");
    assert_eq!(shown["body"], "@ada: quiet");

    // What comes in further ones waits. His connection may have timed out meanwhile.
    let mut bob = Chatter::with_token(&url, &bob.token).await;
    bob.join("lobby").await;
    let from = OffsetDateTime::now_utc() - Duration::hours(1);
    let hours = json!({"from": clock(from), "to": clock(from + Duration::hours(12)), "time_zone": "Etc/UTC"});
    assert_eq!(call(Method::PUT, &preferences, &ada_token, json!({"quiet_hours": hours})).await.0, 200);
    bob.say("lobby", "@ada: later").await;
    newest(&url, &ada_token, |found| is_delivery(found, "push", "waiting")).await;
    assert!(posts.try_recv().is_err());
    server.stop().await;
}
