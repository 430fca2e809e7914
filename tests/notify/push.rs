//! Push to browsers, by a push service that checks, decrypts, and dies meanwhile.

use std::{collections::BTreeSet, net::TcpListener, sync::atomic::Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    browser::Browser,
    given_up::metric,
    is_delivery, newest, on_both, path,
    receiver::{Post, Receiver},
    run, start,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(
    a_browser_is_told_also_when_its_push_service_dies,
    a_subscription_is_checked_and_ends,
    a_push_service_that_takes_nothing_is_asked_no_more,
);

async fn posted(posts: &mut mpsc::UnboundedReceiver<Post>) -> Post {
    tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted")
}

async fn server_key(url: &str, token: &str) -> String {
    let (_, page) = call(Method::GET, &path(url, "/push"), token, Value::Null).await;
    page["data"]["public_key"].as_str().expect("a key").to_owned()
}

async fn a_browser_is_told_also_when_its_push_service_dies(url: &str) {
    let ada = register(url, "ada").await;
    let id = channel(url, &ada, "lobby", json!({})).await;
    let (mut service, mut posts) = Receiver::start().await;
    let browser = Browser::new(&server_key(url, &ada).await);
    let subscription = browser.subscription(&format!("{}/send/1", service.url()));
    let (status, made) = call(Method::POST, &path(url, "/push"), &ada, subscription).await;
    assert_eq!((status, &made["data"]["service"]), (201, &json!("127.0.0.1")), "{made}");
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;

    bob.say("lobby", "@ada: <b>one</b> 🦀").await;
    let post = posted(&mut posts).await;
    let shown = browser.open(&service.url(), &post.headers, &post.body).expect("authentic, and for this browser");
    assert_eq!((&shown["title"], &shown["body"]), (&json!("bob mentions you in lobby"), &json!("@ada: <b>one</b> 🦀")));
    assert_eq!((&shown["kind"], &shown["path"]), (&json!("mention"), &json!(format!("/#channel={id}"))));
    assert!(!String::from_utf8_lossy(&post.body).contains("one"), "nobody between reads it");
    let another = Browser::new(&server_key(url, &ada).await);
    assert!(another.open(&service.url(), &post.headers, &post.body).is_none(), "nobody else's");
    assert!(browser.open("http://elsewhere.example", &post.headers, &post.body).is_none(), "for this service alone");

    service.kill();
    for number in 0..3 {
        bob.say("lobby", &format!("@ada: while it is away {number}")).await;
    }
    newest(url, &ada, |found| found["deliveries"][0]["attempts"].as_u64() > Some(0)).await;
    service.start_again().await;
    let mut bodies = BTreeSet::new();
    for _ in 0..3 {
        let post = posted(&mut posts).await;
        let shown = browser.open(&service.url(), &post.headers, &post.body).expect("authentic");
        assert!(post.header("topic").len() <= 32, "as push services take them");
        assert!(bodies.insert(shown["body"].to_string()), "once each: {shown}");
    }
    newest(url, &ada, |found| is_delivery(found, "push", "sent")).await;
    assert!(posts.try_recv().is_err(), "and nothing twice");
}

async fn a_subscription_is_checked_and_ends(url: &str) {
    let ada = register(url, "ada").await;
    channel(url, &ada, "lobby", json!({})).await;
    let push = path(url, "/push");
    let (service, mut posts) = Receiver::start().await;
    let browser = Browser::new(&server_key(url, &ada).await);
    let right = browser.subscription(&format!("{}/send", service.url()));
    for (field, wrong) in [
        ("/endpoint", json!("ftp://127.0.0.1/")),
        ("/endpoint", json!("no URL")),
        ("/endpoint", json!(format!("https://push.example.org/{}", "x".repeat(1_000)))),
        ("/keys/p256dh", json!("AAAA")),
        ("/keys/p256dh", json!(format!("B{}", "A".repeat(86)))),
        ("/keys/auth", json!("AAAA")),
        ("/keys/auth", json!("not base64url!")),
    ] {
        let mut subscription = right.clone();
        *subscription.pointer_mut(field).expect("there") = wrong;
        let (status, answer) = call(Method::POST, &push, &ada, subscription).await;
        assert_eq!((status, &answer["error_code"]), (400, &json!("INVALID_INPUT")), "{answer}");
    }
    // Twice is once; ten browsers are enough.
    let (_, first) = call(Method::POST, &push, &ada, right.clone()).await;
    let (_, again) = call(Method::POST, &push, &ada, right.clone()).await;
    assert_eq!(first["data"]["id"], again["data"]["id"]);
    for number in 1..10 {
        let other = browser.subscription(&format!("{}/{number}", service.url()));
        assert_eq!(call(Method::POST, &push, &ada, other).await.0, 201, "{number}");
    }
    let eleventh = browser.subscription(&format!("{}/eleventh", service.url()));
    let (status, answer) = call(Method::POST, &push, &ada, eleventh).await;
    assert_eq!((status, &answer["error_code"]), (409, &json!("LIMIT_REACHED")), "{answer}");
    let (_, page) = call(Method::GET, &push, &ada, Value::Null).await;
    let ids: Vec<String> = page["data"]["subscriptions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| found["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 10);

    // Another who uses the browser after her has it for themselves.
    let bob_token = register(url, "bob").await;
    assert_eq!(call(Method::POST, &push, &bob_token, right).await.0, 201);
    let one = format!("{push}/{}", ids[1]);
    assert_eq!(call(Method::DELETE, &one, &bob_token, Value::Null).await.0, 404, "not theirs");
    for id in &ids[1..9] {
        assert_eq!(call(Method::DELETE, &format!("{push}/{id}"), &ada, Value::Null).await.0, 200);
    }
    assert_eq!(call(Method::DELETE, &one, &ada, Value::Null).await.0, 404);

    // One whose service says that it is gone is forgotten.
    let mut bob = Chatter::with_token(url, &bob_token).await;
    bob.join("lobby").await;
    service.status.store(410, Ordering::Relaxed);
    bob.say("lobby", "@ada, are you there?").await;
    newest(url, &ada, |found| is_delivery(found, "push", "skipped")).await;
    let (_, page) = call(Method::GET, &push, &ada, Value::Null).await;
    assert_eq!(page["data"]["subscriptions"], json!([]));
    assert!(posts.try_recv().is_err());
}

async fn a_push_service_that_takes_nothing_is_asked_no_more(url: &str) {
    let ada = register(url, "ada").await;
    channel(url, &ada, "lobby", json!({})).await;
    let (service, _posts) = Receiver::start().await;
    let browser = Browser::new(&server_key(url, &ada).await);
    let push = path(url, "/push");
    assert_eq!(call(Method::POST, &push, &ada, browser.subscription(&service.url())).await.0, 201);
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;
    let line = r#"antiphon_notifications_subscriptions_ended_total{reason="refused"}"#;
    let before = metric(url, line).await;
    // Three times in a row, as after a change of the server's key; once or twice may be a mistake of theirs.
    for (number, (status, left)) in [(403, 1), (401, 1), (201, 1), (403, 1), (403, 1), (401, 0)].into_iter().enumerate()
    {
        service.status.store(status, Ordering::Relaxed);
        let said = format!("@ada: {number}");
        bob.say("lobby", &said).await;
        let state = if status == 201 { "sent" } else { "given_up" };
        newest(url, &ada, |found| found["content"] == said && is_delivery(found, "push", state)).await;
        let (_, page) = call(Method::GET, &push, &ada, Value::Null).await;
        assert_eq!(page["data"]["subscriptions"].as_array().map(Vec::len), Some(left), "after {number}");
    }
    assert!(metric(url, line).await > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_makes_the_server_call_private_addresses() {
    let database = TestDatabase::sqlite();
    let server = start(&database, |settings| settings.notify.push_allow_private = false).await;
    let url = server.url();
    let ada = register(&url, "ada").await;
    let browser = Browser::new(&server_key(&url, &ada).await);
    for endpoint in [
        "http://push.example.org/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://2130706433/",
    ] {
        let (status, answer) = call(Method::POST, &path(&url, "/push"), &ada, browser.subscription(endpoint)).await;
        assert_eq!((status, &answer["error_code"]), (400, &json!("INVALID_INPUT")), "{endpoint}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_makes_the_server_call_names_of_private_addresses() {
    // A name may lead anywhere, which shows when it is called. Where that is allowed it is.
    for is_allowed in [false, true] {
        let database = TestDatabase::sqlite();
        let server = start(&database, |settings| settings.notify.push_allow_private = is_allowed).await;
        let url = server.url();
        let ada = register(&url, "ada").await;
        let browser = Browser::new(&server_key(&url, &ada).await);
        channel(&url, &ada, "lobby", json!({})).await;
        // Whoever connects is seen before they say anything.
        let service = TcpListener::bind("127.0.0.1:0").expect("a port");
        service.set_nonblocking(true).expect("works");
        let named = format!("https://localhost:{}/", service.local_addr().expect("bound").port());
        assert_eq!(call(Method::POST, &path(&url, "/push"), &ada, browser.subscription(&named)).await.0, 201);
        let mut bob = Chatter::guest(&url, "bob").await;
        bob.join("lobby").await;
        bob.say("lobby", "@ada").await;
        newest(&url, &ada, |found| found["deliveries"][0]["attempts"].as_u64() > Some(0)).await;
        assert_eq!(service.accept().is_ok(), is_allowed);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_the_databases_and_stays() {
    let database = TestDatabase::sqlite();
    let mut keys = BTreeSet::new();
    for _ in 0..2 {
        let server = start(&database, |_| {}).await;
        let token = Chatter::guest(&server.url(), &format!("guest{}", keys.len())).await.token;
        keys.insert(server_key(&server.url(), &token).await);
        server.stop().await;
    }
    assert_eq!(keys.len(), 1);
    let server = start(&database, |settings| settings.notify.push = false).await;
    let token = register(&server.url(), "ada").await;
    let (_, page) = call(Method::GET, &path(&server.url(), "/push"), &token, Value::Null).await;
    assert_eq!(page["data"]["public_key"], Value::Null);
    let subscription = Browser::new("").subscription("https://push.example.org/");
    assert_eq!(call(Method::POST, &path(&server.url(), "/push"), &token, subscription).await.0, 400);
    server.stop().await;
}
