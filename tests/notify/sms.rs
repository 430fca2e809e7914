//! Short messages, by a provider that checks signatures and dies meanwhile.

use std::sync::atomic::Ordering;

use antiphon::settings::Secret;
use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    given_up::metric,
    is_delivery, newest, on_both, path,
    receiver::{Post, Receiver},
    start,
    support::{
        chatters::{Chatter, PATIENCE, call, channel, register},
        databases::TestDatabase,
        nodes::http,
    },
};

on_both!(short_messages_come_signed_also_when_the_provider_dies);

const SECRET: &str = "the secret of the provider";

async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(&str, Receiver, mpsc::UnboundedReceiver<Post>)) {
    let (provider, posts) = Receiver::start().await;
    let url = provider.url();
    let server = start(&database, |settings| {
        settings.notify.sms_url = Some(url);
        settings.notify.sms_secret = Some(Secret::new(SECRET));
        settings.notify.sms_codes_per_hour = 1;
    })
    .await;
    scenario(&server.url(), provider, posts).await;
    server.stop().await;
}

/// The next message, whose signature is right.
async fn message(posts: &mut mpsc::UnboundedReceiver<Post>) -> Value {
    let post = tokio::time::timeout(PATIENCE, posts.recv()).await.expect("in time").expect("posted");
    let header = post.header("antiphon-signature");
    let (at, signature) = header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("its form");
    let bytes: Vec<u8> = (0..signature.len() / 2)
        .map(|index| u8::from_str_radix(&signature[index * 2..index * 2 + 2], 16).expect("hex"))
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &[format!("{at}.").as_bytes(), &post.body].concat(), &bytes).expect("signed by the server");
    let message: Value = serde_json::from_slice(&post.body).expect("JSON");
    assert_eq!(post.header("idempotency-key"), message["id"].as_str().expect("an id"));
    message
}

async fn short_messages_come_signed_also_when_the_provider_dies(
    url: &str,
    mut provider: Receiver,
    mut posts: mpsc::UnboundedReceiver<Post>,
) {
    let ada = register(url, "ada").await;
    channel(url, &ada, "lobby", json!({})).await;
    let sms = path(url, "/addresses/sms");
    assert_eq!(call(Method::PUT, &sms, &ada, json!({"address": "0612345678"})).await.0, 400);
    // What the provider does not take is not the one code that the server sends in this hour.
    let dora = register(url, "dora").await;
    provider.status.store(503, Ordering::Relaxed);
    for status in [503, 429] {
        let asked = call(Method::PUT, &sms, &dora, json!({"address": "+33 6 12 34 56 77"})).await;
        assert_eq!(asked.0, status, "{asked:?}");
    }
    assert!(metric(url, "antiphon_notifications_codes_not_sent_total").await >= 1.0);
    provider.status.store(201, Ordering::Relaxed);
    assert_eq!(call(Method::PUT, &sms, &ada, json!({"address": "+33 6 12 34 56 78"})).await.0, 200);
    let sent = message(&mut posts).await;
    assert_eq!(sent["to"], "+33612345678");
    let words = sent["text"].as_str().expect("text").split(|c: char| !c.is_ascii_digit());
    let code = words.into_iter().find(|word| word.len() == 8).expect("a code").to_owned();
    assert_eq!(call(Method::POST, &format!("{sms}/confirm"), &ada, json!({"code": code})).await.0, 200);
    // Codes cost money, too: the server sends so many in an hour.
    let eve = register(url, "eve").await;
    let request = http().put(&sms).bearer_auth(&eve).json(&json!({"address": "+33 6 12 34 56 79"}));
    let refused = request.send().await.expect("answered");
    let retry_after = refused.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    assert!(refused.status() == 429 && retry_after.is_some_and(|s| (1..=3_600).contains(&s)), "{refused:?}");
    let answer = refused.text().await.expect("text");
    assert!(answer.contains("RATE_LIMITED") && answer.contains("this server"), "{answer}");
    let line = r#"antiphon_notifications_codes_refused_total{bound="server"}"#;
    assert!(metric(url, line).await >= 1.0);

    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;

    // Short messages cost money: nobody gets them who did not ask for them.
    // In her session she is told of it once it is decided which ways it goes.
    let mut session = Chatter::with_token(url, &ada).await;
    bob.say("lobby", "@ada: not wanted").await;
    assert_eq!(session.next("notification").await["data"]["content"], "@ada: not wanted");
    let wanted = json!({"mention": {"sms": true}});
    assert_eq!(call(Method::PUT, &path(url, "/preferences"), &ada, wanted).await.0, 200);
    bob.say("lobby", "@ada: two\nlines").await;
    let sent = message(&mut posts).await;
    assert_eq!(
        (&sent["to"], &sent["text"]),
        (&json!("+33612345678"), &json!("bob mentions you in lobby: @ada: two lines"))
    );

    provider.kill();
    bob.say("lobby", "@ada: while it is away").await;
    newest(url, &ada, |found| found["deliveries"][0]["attempts"].as_u64() > Some(0)).await;
    provider.start_again().await;
    let sent = message(&mut posts).await;
    assert!(sent["text"].as_str().is_some_and(|text| text.ends_with("while it is away")), "{sent}");
    newest(url, &ada, |found| is_delivery(found, "sms", "sent")).await;
    assert!(posts.try_recv().is_err());
}
