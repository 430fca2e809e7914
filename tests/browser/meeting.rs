//! People who meet on one node: pages with pages, and pages with native clients.

use serde_json::json;

use crate::{
    chromium::Chromium,
    rooms::{enter, hears, id_of, stream_of},
    support::{
        people::{Person, make_channel},
        process::Process,
    },
    tone::{hear, say, tone},
};

#[tokio::test]
async fn two_pages_hear_and_see_each_other() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let one_id = id_of(&enter(&one, &server, room, "One").await);
    one.call("speak", json!(440)).await;
    one.call("show", json!({})).await;
    let joined = enter(&other, &server, room, "Other").await;
    let other_id = id_of(&joined);
    let publisher = &joined["publishers"][0];
    assert_eq!((publisher["id"].as_str(), publisher["display"].as_str()), (Some(&*one_id), Some("One")));
    other.call("speak", json!(880)).await;
    other.call("show", json!({})).await;
    hears(&other, &one_id, 440.0).await;
    hears(&one, &other_id, 880.0).await;
    for (page, whom) in [(&one, &other_id), (&other, &one_id)] {
        let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
        let before = page.until(&seen, |seen| seen["framesDecoded"].as_u64() > Some(10)).await;
        page.until(&seen, |seen| seen["framesDecoded"].as_u64() > before["framesDecoded"].as_u64().map(|n| n + 40))
            .await;
        let ways = page.evaluate("ways()").await;
        assert_eq!(ways["subscriber"]["protocol"], "udp", "{ways}");
        assert!(ways["subscriber"]["srtp"].as_str().is_some_and(|cipher| cipher.contains("AEAD")), "{ways}");
    }
}

#[tokio::test]
async fn a_page_and_a_native_client_hear_each_other() {
    let (server, browser) = (Process::start(&[]).await, Chromium::start().await);
    let room = make_channel(&server, "lobby", 10).await;
    let mut native = Person::join(&server, "native", room).await;
    native.udp_becomes(true).await;
    let page = browser.page().await;
    let joined = enter(&page, &server, room, "Page").await;
    let publisher = &joined["publishers"][0];
    let native_id = native.client.user().id.to_string();
    assert_eq!((publisher["id"].as_str(), &publisher["kinds"]), (Some(&*native_id), &json!(["audio"])));
    page.call("speak", json!(440)).await;
    let page_stream = stream_of(&mut native, &id_of(&joined)).await;
    let found = hear(&mut native, page_stream, 50).await;
    assert!((found - 440.0).abs() < 15.0, "{found}");
    let frames = tone(880.0, 1_500);
    tokio::select! {
        () = say(&native, &frames) => panic!("not heard in 30 s"),
        () = hears(&page, &native_id, 880.0) => {}
    }
}
