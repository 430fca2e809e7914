//! Who may not read a room gets nothing of it by any notification, whatever way.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    is_delivery, listed, newest, on_both, path,
    receiver::Receiver,
    run,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
    unread,
};

on_both!(
    who_may_not_read_is_told_nothing,
    who_may_not_read_any_more_sees_nothing_of_it,
    whom_one_blocks_tells_nothing,
    a_guest_subscribes_no_browser
);

async fn who_may_not_read_is_told_nothing(url: &str) {
    let owner_token = register(url, "owner").await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    let eve = register(url, "eve").await;
    let mut eve = Chatter::with_token(url, &eve).await;
    let (_receiver, mut posts) = subscribe(url, &eve.token).await;

    // A private channel that she does not belong to.
    channel(url, &owner_token, "hidden", json!({"is_private": true})).await;
    owner.join("hidden").await;
    owner.say("hidden", "the secret: @eve").await;
    // A public one whose history is not for her.
    let id = channel(url, &owner_token, "notes", json!({})).await;
    let terms = json!({"history": "members"});
    let chat = format!("{url}/api/channels/{id}/chat");
    assert_eq!(call(Method::PUT, &chat, &owner_token, terms).await.0, 200);
    owner.join("notes").await;
    owner.say("notes", "another secret: @eve").await;
    // One that she is banned from, in which she had written.
    let id = channel(url, &owner_token, "open", json!({})).await;
    owner.join("open").await;
    eve.join("open").await;
    let hers = eve.say("open", "hello").await["id"].clone();
    let ban = json!({"user_id": eve.id()});
    assert_eq!(call(Method::POST, &format!("{url}/api/channels/{id}/ban"), &owner_token, ban).await.0, 200);
    owner.say("open", "a secret of the ban: @eve").await;
    let answer = json!({"type": "message", "room": "open", "content": "a secret answer", "reply_to": hers});
    assert_eq!(owner.ask(answer).await["type"], "message");

    // What comes after all of that is for her, and the first that she is told of, each way.
    owner.dm("eve", "for you").await;
    assert_eq!(eve.next("notification").await["data"]["content"], "for you");
    // She is connected, so it does not go outside.
    newest(url, &eve.token, |found| is_delivery(found, "push", "skipped")).await;
    let list = listed(url, &eve.token).await;
    assert!(list.len() == 1 && !format!("{list:?}").contains("secret"), "{list:?}");
    assert!(eve.passed_over.iter().all(|message| message["type"] != "notification"), "{:?}", eve.passed_over);
    // A mention goes outside all the same; it is the first that does.
    let yard = channel(url, &owner_token, "yard", json!({})).await;
    owner.join("yard").await;
    owner.say("yard", "a word for @eve").await;
    let post = posts.recv().await.expect("pushed");
    assert!(post.body.len() > 100, "{yard}");
    assert_eq!(post.header("content-encoding"), "aes128gcm");
    assert!(posts.try_recv().is_err(), "and nothing else");
}

/// Subscribes a browser of somebody.
async fn subscribe(url: &str, token: &str) -> (Receiver, tokio::sync::mpsc::UnboundedReceiver<crate::receiver::Post>) {
    let (receiver, posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(url, "/push"), token, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    let subscription = browser.subscription(&format!("{}/send", receiver.url()));
    assert_eq!(call(Method::POST, &path(url, "/push"), token, subscription).await.0, 201);
    (receiver, posts)
}

async fn who_may_not_read_any_more_sees_nothing_of_it(url: &str) {
    let owner_token = register(url, "owner").await;
    let id = channel(url, &owner_token, "club", json!({"is_private": true})).await;
    let (mut owner, mut member) = (Chatter::with_token(url, &owner_token).await, Chatter::guest(url, "member").await);
    let membership = format!("{url}/api/channels/{id}/members/{}", member.id());
    assert_eq!(call(Method::PUT, &membership, &owner_token, json!({"role": "member"})).await.0, 200);
    assert_eq!(member.next("notification").await["data"]["kind"], "invitation");
    owner.join("club").await;
    owner.say("club", "the secret: @member").await;
    assert_eq!(member.next("notification").await["data"]["kind"], "mention");
    assert_eq!(unread(url, &member.token).await, 2);
    assert_eq!(call(Method::DELETE, &membership, &owner_token, Value::Null).await.0, 200);
    assert_eq!(listed(url, &member.token).await, Vec::<Value>::new());
    assert_eq!(unread(url, &member.token).await, 0, "what is not shown does not count");
    owner.say("club", "gone? @member").await;
    owner.dm("member", "farewell").await;
    assert_eq!(member.next("notification").await["data"]["content"], "farewell");
    assert_eq!(listed(url, &member.token).await.len(), 1);
    // Who may read it again sees it again, and is not told twice of one membership.
    assert_eq!(call(Method::PUT, &membership, &owner_token, json!({"role": "member"})).await.0, 200);
    let kinds: Vec<Value> = listed(url, &member.token).await.into_iter().map(|found| found["kind"].clone()).collect();
    assert_eq!(kinds, ["direct_message", "mention", "invitation"]);
    // Nobody sees anything of a channel that is gone.
    assert_eq!(call(Method::DELETE, &format!("{url}/api/channels/{id}"), &owner_token, Value::Null).await.0, 200);
    assert_eq!(listed(url, &member.token).await.len(), 1);
}

async fn whom_one_blocks_tells_nothing(url: &str) {
    let owner = register(url, "owner").await;
    channel(url, &owner, "lobby", json!({})).await;
    let (mut alice, mut eve) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "eve").await);
    alice.join("lobby").await;
    eve.join("lobby").await;
    let said = alice.say("lobby", "hello").await;
    assert_eq!(alice.ask(json!({"type": "block", "user": "eve"})).await["type"], "Ack");
    eve.say("lobby", "@alice, look").await;
    eve.ask(json!({"type": "message", "room": "lobby", "content": "an answer", "reply_to": said["id"]})).await;
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;
    bob.say("lobby", "@alice, hello").await;
    assert_eq!(alice.next("notification").await["data"]["username"], "bob");
    assert_eq!(listed(url, &alice.token).await.len(), 1);
    // What they told before is not shown any more, and does not count.
    assert_eq!(alice.ask(json!({"type": "block", "user": "bob"})).await["type"], "Ack");
    assert_eq!(listed(url, &alice.token).await, Vec::<Value>::new());
    assert_eq!(unread(url, &alice.token).await, 0);
}

async fn a_guest_subscribes_no_browser(url: &str) {
    let guest = Chatter::guest(url, "guest").await;
    let (service, _posts) = Receiver::start().await;
    let (_, page) = call(Method::GET, &path(url, "/push"), &guest.token, Value::Null).await;
    let browser = Browser::new(page["data"]["public_key"].as_str().expect("a key"));
    let (status, refused) =
        call(Method::POST, &path(url, "/push"), &guest.token, browser.subscription(&service.url())).await;
    assert_eq!((status, refused["error_code"].as_str()), (403, Some("PERMISSION_DENIED")), "anybody can be a guest");
}
