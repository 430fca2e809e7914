//! Bounds of what waits, for each person and each way, and what a node leaves to others.

use antiphon::store::{DeliveryState, Store, Way};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    browser::Browser,
    claims::{route_all, user, write},
    given_up::metric,
    is_delivery, listed, newest, on_both, path,
    receiver::{Post, Receiver},
    start,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(what_waits_is_bounded_for_each_person_and_way, a_node_leaves_to_others_what_it_cannot_send);

async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(TestDatabase)) {
    scenario(database).await;
}

async fn subscribe(url: &str, token: &str) -> (Receiver, mpsc::UnboundedReceiver<Post>) {
    let (service, posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(url, "/push"), token, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    let subscription = browser.subscription(&service.url());
    assert_eq!(call(Method::POST, &path(url, "/push"), token, subscription).await.0, 201);
    (service, posts)
}

async fn what_waits_is_bounded_for_each_person_and_way(database: TestDatabase) {
    let server = start(&database, |settings| {
        settings.notify.wait_s = 3_600;
        settings.notify.waiting_per_person = 2;
        settings.notify.waiting_max = 3;
    })
    .await;
    let url = server.url();
    let [ada, bob, clara] = [register(&url, "ada").await, register(&url, "bob").await, register(&url, "clara").await];
    channel(&url, &ada, "lobby", json!({})).await;
    let _services = [subscribe(&url, &ada).await, subscribe(&url, &bob).await];
    let (mut clara, mut eve) = (Chatter::with_token(&url, &clara).await, Chatter::guest(&url, "eve").await);
    eve.join("lobby").await;
    let line = |reason: &str| format!(r#"antiphon_notifications_dropped_total{{reason="{reason}"}}"#);
    let before = [metric(&url, &line("person")).await, metric(&url, &line("waiting")).await];
    // Of each pair that comes to one person the last finds no place: the person's two are taken, then the way's three.
    for said in ["@ada 1", "@ada 2", "@ada 3", "@bob 1", "@bob 2"] {
        eve.say("lobby", said).await;
    }
    // What was written before was routed before.
    eve.say("lobby", "@clara").await;
    clara.next("notification").await;
    let waits = |list: Vec<Value>| list.iter().map(|found| is_delivery(found, "push", "waiting")).collect::<Vec<_>>();
    assert_eq!(waits(listed(&url, &ada).await), [false, true, true]);
    assert_eq!(waits(listed(&url, &bob).await), [false, true]);
    for (reason, before) in ["person", "waiting"].into_iter().zip(before) {
        assert!(metric(&url, &line(reason)).await >= before + 1.0, "{reason} is counted");
    }
    server.stop().await;
}

async fn a_node_leaves_to_others_what_it_cannot_send(database: TestDatabase) {
    let store = Store::open(&database.url()).await.expect("opens");
    let (from, to) = (user(&store, "from").await, user(&store, "to").await);
    write(&store, &from, &to, "a mail").await;
    let mail = route_all(&store, &[Way::Email]).await.remove(0);
    // It sends no mail. What came after that shows that it had its turn.
    let server = start(&database, |_| {}).await;
    let url = server.url();
    let ada = register(&url, "ada").await;
    channel(&url, &ada, "lobby", json!({})).await;
    let (_service, mut posts) = subscribe(&url, &ada).await;
    let mut bob = Chatter::guest(&url, "bob").await;
    bob.join("lobby").await;
    bob.say("lobby", "@ada").await;
    tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted");
    newest(&url, &ada, |found| is_delivery(found, "push", "sent")).await;
    let found = store.deliveries_of(to.id, mail.id, 10).await.expect("works");
    assert_eq!((found.len(), found[0].state, found[0].attempts), (1, DeliveryState::Waiting, 0), "{found:?}");
    server.stop().await;
    store.close().await;
}
