//! Who may record, hear and delete, and who is told nothing.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    channel::{Account, administrator},
    support::{people::Person, process::Process},
};

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_moderators_record_and_nobody_else_hears_of_the_files() {
    let server = Process::start(&[]).await;
    let admin = administrator(server.url()).await;
    let owner = Account::register(server.url(), "owner").await;
    let moderator = Account::register(server.url(), "moderator").await;
    let stranger = Account::register(server.url(), "stranger").await;
    let channel = owner.make_channel("lobby").await;
    let role = format!("/api/channels/{channel}/members/{}", moderator.id);
    let (status, _) = owner.ask(Method::PUT, &role, Some(json!({"role": "moderator"}))).await;
    assert_eq!(status, StatusCode::OK);

    let hooks = format!("/api/channels/{channel}/webhooks");
    let (status, hook) = admin.ask(Method::POST, &hooks, Some(json!({"url": "http://127.0.0.1:9/"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{hook}");
    let recordings = format!("/api/channels/{channel}/recordings");
    let (status, _) = stranger.ask(Method::POST, &recordings, Some(json!({}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let first = owner.start(channel).await["id"].as_str().expect("an id").to_owned();
    let (status, answer) = moderator.ask(Method::POST, &recordings, Some(json!({}))).await;
    assert_eq!((status, &answer["error_code"]), (StatusCode::CONFLICT, &json!("CONFLICT")), "one at a time");
    let (status, _) = owner.ask(Method::DELETE, &format!("{recordings}/{first}"), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "it goes on");
    let mut person = Person::join(&server, "speaker", channel).await;
    person.udp_becomes(true).await;
    for number in 0..20 {
        person.say(number).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    moderator.stop(channel).await;
    let (status, _) = moderator.ask(Method::DELETE, &format!("{recordings}/current"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "it has ended");
    let finished = moderator.until_finished(channel, &first).await;
    let path = finished["track_list"][0]["path"].as_str().expect("a path").to_owned();

    let sign = |account: &Account| {
        let (account, path) = (account.clone(), path.clone());
        async move { account.ask(Method::POST, "/api/streams/sign", Some(json!({"path": path, "ttl_s": 9}))).await.0 }
    };
    assert_eq!(sign(&stranger).await, StatusCode::NOT_FOUND);
    assert_eq!(sign(&moderator).await, StatusCode::OK);
    let theirs = stranger.make_channel("theirs").await;
    let play = format!("/api/channels/{theirs}/playback");
    let (status, _) = stranger.ask(Method::POST, &play, Some(json!({"path": path}))).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "nor is it played where they may play");
    for path in [recordings.clone(), format!("{recordings}/{first}"), format!("{recordings}/{first}/timeline")] {
        assert_eq!(stranger.ask(Method::GET, &path, None).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(admin.ask(Method::GET, &path, None).await.0, StatusCode::OK, "{path}");
    }
    for part in ["", "/qualities", "/waveform"] {
        let (status, _) = stranger.ask(Method::GET, &format!("/api/streams/{path}{part}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{part}");
    }
    let listed = |account: &Account| {
        let account = account.clone();
        async move { account.ask(Method::GET, "/api/streams?search=recordings", None).await.1.to_string() }
    };
    assert!(!listed(&stranger).await.contains(&first) && listed(&admin).await.contains(&path));
    let (status, _) = owner.ask(Method::DELETE, &format!("/api/streams/{path}"), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "it goes with its recording");

    let (status, _) = moderator.ask(Method::DELETE, &format!("{recordings}/{first}"), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "the owner's");
    let (status, _) = owner.ask(Method::DELETE, &format!("{recordings}/{first}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(sign(&owner).await, StatusCode::NOT_FOUND);
    // What webhooks are told is what happened since.
    let after = format!("{}:{}", hook["data"]["epoch"].as_str().expect("an epoch"), hook["data"]["offset"]);
    let (_, since) = admin.ask(Method::GET, &format!("/api/channels/{channel}/events?after={after}"), None).await;
    let events = since["data"]["events"].as_array().expect("events").iter();
    let told: Vec<&str> = events.filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(told, ["RecordingStarted", "UserJoined", "RecordingStopped", "RecordingFinished"]);
    let (_, audit) = admin.ask(Method::GET, "/api/advanced/admin/audit", None).await;
    let audit = audit.to_string();
    for action in ["recording.start", "recording.stop", "recording.delete"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
}
