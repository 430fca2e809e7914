//! Several nodes: what one writes another may send, nothing is sent by two, and a node that is killed leaves nothing unsent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    browser::Browser,
    given_up::metric,
    path,
    receiver::{HANGS, Post, Receiver},
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        nodes::Nodes,
    },
};

const SETTINGS: [(&str, &str); 4] = [
    ("ANTIPHON_NOTIFY__PUSH_ALLOW_PRIVATE", "true"),
    ("ANTIPHON_NOTIFY__WAIT_S", "0"),
    ("ANTIPHON_NOTIFY__PER_HOUR", "10000"),
    ("ANTIPHON_LIMITS__GATEWAY_MESSAGES_PER_MINUTE", "100000"),
];

/// What a push service took: how often each notification came.
type Came = Arc<Mutex<BTreeMap<String, usize>>>;

fn note_all(mut posts: mpsc::UnboundedReceiver<Post>, browser: Browser, origin: String) -> Came {
    let came = Came::default();
    let noted = Arc::clone(&came);
    tokio::spawn(async move {
        while let Some(post) = posts.recv().await {
            let shown = browser.open(&origin, &post.headers, &post.body).expect("authentic");
            let id = shown["id"].as_str().expect("an id").to_owned();
            *noted.lock().expect("not poisoned").entry(id).or_default() += 1;
        }
    });
    came
}

async fn all_have_come(came: &Came, count: usize) {
    let wait = async {
        while came.lock().expect("not poisoned").len() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let all = tokio::time::timeout(PATIENCE * 3, wait).await;
    all.unwrap_or_else(|_| panic!("{} of {count} came", came.lock().expect("not poisoned").len()));
}

async fn subscribe(url: &str, token: &str, service: &Receiver) -> Browser {
    let (_, page) = call(Method::GET, &path(url, "/push"), token, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    let (status, answer) = call(Method::POST, &path(url, "/push"), token, browser.subscription(&service.url())).await;
    assert_eq!(status, 201, "{answer}");
    browser
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_one_sends_and_both_tell_sessions() {
    let nodes = Nodes::start_with(2, &SETTINGS).await;
    let urls: Vec<String> = nodes.nodes.iter().map(|node| node.url().http("/").to_string()).collect();
    let urls: Vec<&str> = urls.iter().map(|url| url.trim_end_matches('/')).collect();
    let token = register(urls[0], "ada").await;
    channel(urls[0], &token, "lobby", json!({})).await;
    let (service, posts) = Receiver::start().await;
    let browser = subscribe(urls[1], &token, &service).await;
    let (_, page) = call(Method::GET, &path(urls[0], "/push"), &token, Value::Null).await;
    let (_, other) = call(Method::GET, &path(urls[1], "/push"), &token, Value::Null).await;
    assert_eq!(page["data"]["public_key"], other["data"]["public_key"], "one key for all nodes");
    let came = note_all(posts, browser, service.url());
    // Her sessions are on both nodes; those who write, too.
    let mut sessions = [Chatter::with_token(urls[0], &token).await, Chatter::with_token(urls[1], &token).await];
    let mut writers = [Chatter::guest(urls[0], "bob").await, Chatter::guest(urls[1], "eve").await];
    for writer in &mut writers {
        writer.join("lobby").await;
    }
    let count = 60;
    for number in 0..count {
        writers[number % 2].say("lobby", &format!("@ada {number}")).await;
    }
    for session in &mut sessions {
        let mut told = BTreeSet::new();
        while told.len() < count {
            told.insert(session.next("notification").await["data"]["id"].to_string());
        }
    }
    all_have_come(&came, count).await;
    // When all is done and no node is at it any more, nothing more can come, sent twice or not.
    all_is_done(&urls, &token).await;
    let line = r#"antiphon_notifications_deliveries_total{way="push",outcome="sent"}"#;
    let sent = [metric(urls[0], line).await, metric(urls[1], line).await];
    assert_eq!(sent[0] + sent[1], 60.0, "each by one node: {sent:?}");
    let came = came.lock().expect("not poisoned").clone();
    assert!(came.len() == count && came.values().all(|times| *times == 1), "{came:?}");
    drop(service);
}

/// Waits until nothing waits of what somebody was told, and no node sends anything.
async fn all_is_done(urls: &[&str], token: &str) {
    let wait = async {
        loop {
            let (_, page) = call(Method::GET, &path(urls[0], "?limit=100"), token, Value::Null).await;
            let mut under_way = 0.0;
            for url in urls {
                under_way += metric(url, r#"antiphon_notifications_under_way{way="push"}"#).await;
            }
            let all = page["data"]["notifications"].as_array().expect("a list");
            let is_done = |delivery: &Value| delivery["done_at"].is_string();
            if all.iter().all(|found| found["deliveries"].as_array().is_some_and(|ways| ways.iter().all(is_done)))
                && under_way == 0.0
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 3, wait).await.expect("all is sent in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_leaves_nothing_unsent() {
    let mut nodes = Nodes::start_with(2, &SETTINGS).await;
    let urls: Vec<String> = nodes.nodes.iter().map(|node| node.url().http("/").to_string()).collect();
    let urls: Vec<String> = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    let token = register(&urls[0], "ada").await;
    channel(&urls[0], &token, "lobby", json!({})).await;
    let (service, posts) = Receiver::start().await;
    let browser = subscribe(&urls[0], &token, &service).await;
    let came = note_all(posts, browser, service.url());
    let mut bob = Chatter::guest(&urls[1], "bob").await;
    bob.join("lobby").await;
    // A push service that is busy leaves some of it to be tried again while the node dies.
    service.status.store(503, Ordering::Relaxed);
    let count = 60;
    for number in 0..count {
        if number == count / 3 {
            nodes.nodes[0].kill();
        }
        if number == count / 2 {
            service.status.store(201, Ordering::Relaxed);
        }
        bob.say("lobby", &format!("@ada {number}")).await;
    }
    nodes.restart(0).await;
    all_have_come(&came, count).await;
    let came = came.lock().expect("not poisoned").clone();
    println!("{} came, {} of them more than once", came.len(), came.values().filter(|times| **times > 1).count());
    assert_eq!(came.len(), count, "each under its own id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_was_sending_when_it_was_killed_comes_again_under_its_id() {
    let mut nodes = Nodes::start_with(2, &SETTINGS).await;
    let url = nodes.nodes[0].url().http("/").to_string();
    let url = url.trim_end_matches('/');
    let token = register(url, "ada").await;
    channel(url, &token, "lobby", json!({})).await;
    let (service, mut posts) = Receiver::start().await;
    let browser = subscribe(url, &token, &service).await;
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;
    // The one node that is left sends it, hears no answer, and dies.
    nodes.nodes[1].kill();
    service.status.store(HANGS, Ordering::Relaxed);
    bob.say("lobby", "@ada").await;
    let first = tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted");
    nodes.nodes[0].kill();
    service.status.store(201, Ordering::Relaxed);
    nodes.restart(1).await;
    // When the dead node's lease is over the other goes on.
    let second = tokio::time::timeout(PATIENCE * 3, posts.recv()).await.expect("in time").expect("posted");
    let [first, second] = [first, second].map(|post| {
        let shown = browser.open(&service.url(), &post.headers, &post.body).expect("authentic");
        (shown["id"].clone(), post.header("topic").to_owned())
    });
    assert_eq!(first, second);
    let url = nodes.nodes[1].url().http("/").to_string();
    crate::newest(url.trim_end_matches('/'), &token, |found| crate::is_delivery(found, "push", "sent")).await;
    assert!(posts.try_recv().is_err());
}
