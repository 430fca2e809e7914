//! Webhooks: what happens in a channel, posted in order and signed, also when the receiver dies in between.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use antiphon::store::Store;
use antiphon_core::gateway::Role;
use aws_lc_rs::hmac;
use axum::{Router, body::Bytes, http::HeaderMap, http::StatusCode, routing::post};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc, task::JoinHandle};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(
    everything_is_posted_in_order_and_signed,
    one_that_does_not_answer_keeps_no_other_waiting,
    only_administrators_have_webhooks,
);

/// A place that is told, on a port that stays the same.
struct Receiver {
    address: SocketAddr,
    secret: Arc<Mutex<String>>,
    tell: mpsc::UnboundedSender<Value>,
    serving: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> (Self, mpsc::UnboundedReceiver<Value>) {
        let (tell, told) = mpsc::unbounded_channel();
        let (secret, listener) = (Arc::default(), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let address = listener.local_addr().expect("bound");
        let serving = serve(listener, Arc::clone(&secret), tell.clone());
        (Self { address, secret, tell, serving }, told)
    }

    fn kill(&mut self) {
        self.serving.abort();
    }

    async fn start_again(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                // The one before has not gone yet.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.serving = serve(listener, Arc::clone(&self.secret), self.tell.clone());
    }
}

/// So that nothing is left of a receiver that is killed.
const CLOSE: [(&str, &str); 1] = [("connection", "close")];

fn serve(listener: TcpListener, secret: Arc<Mutex<String>>, tell: mpsc::UnboundedSender<Value>) -> JoinHandle<()> {
    let take = move |headers: HeaderMap, body: Bytes| {
        let (secret, tell) = (secret.lock().expect("not poisoned").clone(), tell.clone());
        async move {
            if !is_signed(&headers, &body, &secret) {
                return (StatusCode::FORBIDDEN, CLOSE);
            }
            let _ = tell.send(serde_json::from_slice(&body).expect("JSON"));
            (StatusCode::OK, CLOSE)
        }
    };
    let router = Router::new().route("/hook", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") })
}

fn is_signed(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let header = headers["antiphon-signature"].to_str().expect("text");
    let (at, signature) = header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("its form");
    let bytes: Vec<u8> = (0..signature.len() / 2)
        .map(|index| u8::from_str_radix(&signature[index * 2..index * 2 + 2], 16).expect("hex"))
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, &[format!("{at}.").as_bytes(), body].concat(), &bytes).is_ok()
}

/// The texts of the messages among the next events, until there are so many; each event's place follows the one before.
async fn texts(told: &mut mpsc::UnboundedReceiver<Value>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let delivery = tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time").expect("told");
        assert_eq!(delivery["complete"], true, "{delivery}");
        let mut place = delivery["after"]["offset"].as_u64().expect("a place");
        for event in delivery["events"].as_array().into_iter().flatten() {
            let position = event.get("position").unwrap_or(&event["data"]["position"]);
            place += 1;
            assert_eq!(position["offset"], place, "in order, without a gap: {delivery}");
            if event["type"] == "message" {
                texts.push(event["data"]["content"].as_str().expect("text").to_owned());
            }
        }
        assert_eq!(delivery["position"]["offset"], place);
    }
    texts
}

#[tokio::test]
async fn the_webhook_of_who_is_no_administrator_any_more_is_told_nothing() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let store_url = database.url();
        run(database, async |url| {
            let admin = register(url, "admin").await;
            register(url, "second").await;
            let store = Store::open(&store_url).await.expect("the same database");
            let second = store.user_by_name("second").await.expect("works").expect("registered").id;
            store.set_role(second, Role::Admin).await.expect("works");
            let login = json!({"username": "second", "password": "a long enough password"});
            let (_, login) = call(Method::POST, &format!("{url}/api/auth/login"), "", login).await;
            let id = channel(url, &admin, "lobby", json!({})).await;
            let (receiver, mut told) = Receiver::start().await;
            let path = format!("{url}/api/channels/{id}/webhooks");
            let hook = json!({"url": format!("http://{}/hook", receiver.address)});
            let token = login["access_token"].as_str().expect("a token");
            let (status, made) = call(Method::POST, &path, token, hook).await;
            assert_eq!(status, 201, "{made}");
            made["data"]["secret"]
                .as_str()
                .expect("a secret")
                .clone_into(&mut receiver.secret.lock().expect("not poisoned"));
            let mut alice = Chatter::guest(url, "alice").await;
            alice.ask(json!({"type": "JoinChannel", "channel_id": id, "media": "websocket"})).await;
            alice.say("lobby", "before").await;
            assert_eq!(texts(&mut told, 1).await, ["before"]);
            store.set_role(second, Role::User).await.expect("works");
            alice.say("lobby", "after").await;
            let hook = until(&path, &admin, |hook| hook["given_up_at"].is_string()).await;
            assert!(hook["last_error"].as_str().is_some_and(|why| why.contains("no administrator")), "{hook}");
            assert!(told.try_recv().is_err(), "it was told nothing");
            // Another administrator takes it over, and nothing is missing.
            let retry = format!("{path}/{}/retry", hook["id"].as_str().expect("an id"));
            assert_eq!(call(Method::POST, &retry, &admin, Value::Null).await.0, 200);
            assert_eq!(texts(&mut told, 1).await, ["after"]);
            store.close().await;
        })
        .await;
    }
}

/// Waits until the first webhook is as `right` says.
async fn until(path: &str, admin: &str, right: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let (_, hooks) = call(Method::GET, path, admin, Value::Null).await;
            if right(&hooks["data"][0]) {
                return hooks["data"][0].clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it becomes so")
}

async fn everything_is_posted_in_order_and_signed(url: &str) {
    let admin = register(url, "admin").await;
    let id = channel(url, &admin, "lobby", json!({})).await;
    let (mut receiver, mut told) = Receiver::start().await;
    let path = format!("{url}/api/channels/{id}/webhooks");
    let hook = json!({"url": format!("http://{}/hook", receiver.address)});
    let (status, made) = call(Method::POST, &path, &admin, hook).await;
    assert_eq!(status, 201, "{made}");
    let begin = format!("{}:{}", made["data"]["epoch"].as_str().expect("an epoch"), made["data"]["offset"]);
    let secret = made["data"]["secret"].as_str().expect("a secret").to_owned();
    receiver.secret.lock().expect("not poisoned").clone_from(&secret);
    let mut alice = Chatter::guest(url, "alice").await;
    alice.ask(json!({"type": "JoinChannel", "channel_id": id, "media": "websocket"})).await;
    for number in 0..3 {
        alice.say("lobby", &number.to_string()).await;
    }
    assert_eq!(texts(&mut told, 3).await, ["0", "1", "2"]);
    receiver.kill();
    for number in 3..6 {
        alice.say("lobby", &number.to_string()).await;
    }
    // It is seen to fail before it is back.
    let hooks = until(&path, &admin, |hook| hook["failures"].as_u64() > Some(0)).await;
    assert!(hooks["last_error"].is_string() && hooks.get("secret").is_none(), "the secret is shown once: {hooks}");
    receiver.start_again().await;
    assert_eq!(texts(&mut told, 3).await, ["3", "4", "5"]);
    // All of it once more, for whoever lost it.
    let (status, events) =
        call(Method::GET, &format!("{url}/api/channels/{id}/events?after={begin}"), &admin, Value::Null).await;
    let kinds: Vec<_> =
        events["data"]["events"].as_array().into_iter().flatten().map(|event| event["type"].clone()).collect();
    assert_eq!((status, &events["data"]["complete"]), (200, &json!(true)));
    assert_eq!(kinds.iter().filter(|kind| **kind == "message").count(), 6, "{events}");
    assert_eq!(kinds[0], "UserJoined", "members, too");
    let (_, gone) =
        call(Method::GET, &format!("{url}/api/channels/{id}/events?after=another:1"), &admin, Value::Null).await;
    assert_eq!(gone["data"]["complete"], false);
    // Who does not have the secret takes nothing for ours.
    *receiver.secret.lock().expect("not poisoned") = "another".to_owned();
    alice.say("lobby", "6").await;
    until(&path, &admin, |hook| hook["last_error"] == "it answered 403 Forbidden").await;
    *receiver.secret.lock().expect("not poisoned") = secret;
    let hook = format!("{path}/{}", made["data"]["id"].as_str().expect("an id"));
    assert_eq!(call(Method::POST, &format!("{hook}/retry"), &admin, Value::Null).await.0, 200);
    assert_eq!(texts(&mut told, 1).await, ["6"]);
    assert_eq!(call(Method::DELETE, &hook, &admin, Value::Null).await.0, 200);
    assert_eq!(call(Method::DELETE, &hook, &admin, Value::Null).await.0, 404);
}

async fn one_that_does_not_answer_keeps_no_other_waiting(url: &str) {
    let admin = register(url, "admin").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (receiver, mut told) = Receiver::start().await;
    let mut alice = Chatter::guest(url, "alice").await;
    for (name, address) in [("slow", silent.local_addr().expect("bound")), ("quick", receiver.address)] {
        let id = channel(url, &admin, name, json!({})).await;
        let hook = json!({"url": format!("http://{address}/hook")});
        let (status, made) = call(Method::POST, &format!("{url}/api/channels/{id}/webhooks"), &admin, hook).await;
        assert_eq!(status, 201, "{made}");
        let secret = made["data"]["secret"].as_str().expect("a secret");
        secret.clone_into(&mut receiver.secret.lock().expect("not poisoned"));
        alice.join(name).await;
    }
    alice.say("slow", "who answers?").await;
    let (mut posting, _) = tokio::time::timeout(PATIENCE, silent.accept()).await.expect("in time").expect("a post");
    alice.say("quick", "I do").await;
    let given_up = async { while posting.read(&mut [0; 4_096]).await.is_ok_and(|length| length > 0) {} };
    tokio::select! {
        texts = texts(&mut told, 1) => assert_eq!(texts, ["I do"]),
        () = given_up => panic!("it waited for the other"),
    }
}

async fn only_administrators_have_webhooks(url: &str) {
    let admin = register(url, "admin").await;
    let owner = register(url, "owner").await;
    let id = channel(url, &owner, "lobby", json!({})).await;
    let path = format!("{url}/api/channels/{id}");
    let hook = json!({"url": "http://127.0.0.1:1/"});
    for (method, path) in [
        (Method::POST, format!("{path}/webhooks")),
        (Method::GET, format!("{path}/webhooks")),
        (Method::GET, format!("{path}/events?after=a:1")),
        (Method::DELETE, format!("{path}/webhooks/{id}")),
        (Method::POST, format!("{path}/webhooks/{id}/retry")),
    ] {
        assert_eq!(call(method, &path, &owner, hook.clone()).await.0, 403, "{path}");
    }
    for wrong in ["ftp://example.org/", "no URL", "file:///etc/passwd"] {
        let (status, _) = call(Method::POST, &format!("{path}/webhooks"), &admin, json!({"url": wrong})).await;
        assert_eq!(status, 400, "{wrong}");
    }
    assert_eq!(call(Method::GET, &format!("{path}/events?after=nonsense"), &admin, Value::Null).await.0, 400);
}
