//! Who is refused a mix, and in which words; and what the server shows of its mixes.

use antiphon_core::{
    gateway::{MediaMode, MediaTransport},
    ids::ChannelId,
};
use antiphon_loadtest::rest::Rest;

use crate::{
    support::{
        nodes::http,
        people::{PATIENCE, make_channel},
        process::Process,
    },
    voices::{Voice, connect, how},
};

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_set_hear_a_mix_and_a_seat_is_free_again() {
    let server = Process::start(&[("ANTIPHON_MIXER__LISTENERS_MAX", "1")]).await;
    let channel = make_channel(&server, "limited", 20).await;
    let mixed = how(channel, MediaMode::Mixed, MediaTransport::Udp);
    let (first, _events) = connect(server.url(), Vec::new(), "first").await;
    first.join(mixed.clone()).await.expect("joined");
    let (second, _events) = connect(server.url(), Vec::new(), "second").await;
    let refused = second.join(mixed.clone()).await.expect_err("full").to_string();
    assert!(refused.contains("LIMIT_REACHED") && refused.contains("`forward`"), "{refused}");
    second.join(how(channel, MediaMode::Forward, MediaTransport::Udp)).await.expect("as streams");
    let refused = second.join(mixed.clone()).await.expect_err("as streams already").to_string();
    assert!(refused.contains("another `media`, `mode` or `cipher`"), "{refused}");
    first.leave(channel).await.expect("left");
    second.leave(channel).await.expect("left");
    let joined = second.join(mixed).await.expect("the seat is free");
    assert!(joined.voice.mix_stream_id.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_every_seat() {
    let server = Process::start(&[("ANTIPHON_MIXER__LISTENERS_PER_ADDRESS", "2")]).await;
    let channel = make_channel(&server, "shared", 20).await;
    let mixed = how(channel, MediaMode::Mixed, MediaTransport::Udp);
    let mut guests = Vec::new();
    for name in ["first", "second", "third"] {
        guests.push(connect(server.url(), Vec::new(), name).await);
    }
    for (guest, _events) in &guests[..2] {
        guest.join(mixed.clone()).await.expect("a seat");
    }
    let refused = guests[2].0.join(mixed.clone()).await.expect_err("the third of one address").to_string();
    assert!(refused.contains("LIMIT_REACHED") && refused.contains("mixer.listeners_per_address"), "{refused}");
    assert!(metrics(&server).await.contains("antiphon_mixer_refused_total{reason=\"address\"} 1"));
    guests[0].0.leave(channel).await.expect("left");
    guests[2].0.join(mixed).await.expect("the seat is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_know_of_a_channel_does_not_learn_of_it_by_its_mixer() {
    let server = Process::start(&[("ANTIPHON_MIXER__LISTENERS_MAX", "1")]).await;
    let channel = make_channel(&server, "open", 20).await;
    let (first, _events) = connect(server.url(), Vec::new(), "first").await;
    first.join(how(channel, MediaMode::Mixed, MediaTransport::Udp)).await.expect("the only seat");
    let rest = Rest::new(server.url()).expect("a client");
    let account = rest.register("keeper", "a long enough password").await.expect("registered");
    let made = http()
        .post(server.url().http("/api/channels"))
        .bearer_auth(&account.access_token)
        .json(&serde_json::json!({"name": "hidden", "is_private": true}))
        .send()
        .await
        .expect("answered");
    let made: serde_json::Value = made.json().await.expect("JSON");
    let hidden = made["data"]["id"].as_str().and_then(|id| id.parse().ok()).map(ChannelId).expect("made");
    let (stranger, _events) = connect(server.url(), Vec::new(), "stranger").await;
    let refused =
        stranger.join(how(hidden, MediaMode::Mixed, MediaTransport::Udp)).await.expect_err("hidden").to_string();
    assert!(refused.contains("CHANNEL_NOT_FOUND"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_threads_nothing_is_mixed_and_browsers_get_tracks() {
    let server = Process::start(&[("ANTIPHON_MIXER__THREADS", "0")]).await;
    let channel = make_channel(&server, "none", 20).await;
    let (person, _events) = connect(server.url(), Vec::new(), "person").await;
    let mixed = how(channel, MediaMode::Mixed, MediaTransport::Udp);
    let refused = person.join(mixed).await.expect_err("refused").to_string();
    assert!(refused.contains("INVALID_INPUT") && refused.contains("mixer.threads"), "{refused}");
    let webrtc = how(channel, MediaMode::Mixed, MediaTransport::Webrtc);
    let refused = person.join(webrtc).await.expect_err("refused").to_string();
    assert!(refused.contains("a track of their own"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mixed_shows_in_metrics_and_in_the_channels_figures() {
    let server = Process::start(&[]).await;
    let channel = make_channel(&server, "shown", 20).await;
    let speaker =
        Voice::join(server.url(), "speaker", Some(430.0), how(channel, MediaMode::Forward, MediaTransport::Udp)).await;
    let listener =
        Voice::join(server.url(), "listener", None, how(channel, MediaMode::Mixed, MediaTransport::Udp)).await;
    listener.until_udp_works().await;
    listener.hears(&[430.0], &[]).await;
    let numbers = metrics(&server).await;
    let number = |name: &str| {
        let line =
            numbers.lines().find(|line| line.starts_with(name) && line.as_bytes().get(name.len()) == Some(&b' '));
        let line = line.unwrap_or_else(|| panic!("{name} in {numbers}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert_eq!((number("antiphon_mixer_listeners"), number("antiphon_mixer_channels")), (1.0, 1.0));
    assert_eq!(number("antiphon_mixer_threads{shed=\"nothing\"}"), 1.0);
    assert!(number("antiphon_mixer_encodes_total{for=\"shared\"}") > 50.0);
    assert!(number("antiphon_mixer_packets_total{how=\"decoded\"}") > 50.0);
    assert!(number("antiphon_mixer_tick_duration_seconds_count") > 50.0);
    assert!(number("antiphon_mixer_buffer_depth_seconds_count") > 5.0);
    assert!(number("antiphon_media_frames_to_mixer_total") > 50.0);
    assert!(number("antiphon_media_frames_mixed_total") > 50.0);
    let rest = Rest::new(server.url()).expect("a client");
    let account = rest.register("looker", "a long enough password").await.expect("registered");
    let stats = http().get(server.url().http(&format!("/api/channels/{channel}/audio/stats")));
    let stats = stats.bearer_auth(&account.access_token).send().await.expect("answered");
    let stats: serde_json::Value = stats.json().await.expect("JSON");
    assert_eq!((&stats["data"]["mixed_users"], &stats["data"]["current_users"]), (&1.into(), &2.into()), "{stats}");
    drop((speaker, listener));
    let gone = async {
        while !metrics(&server).await.contains("antiphon_mixer_channels 0") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is mixed for nobody");
}

async fn metrics(server: &Process) -> String {
    let answer = http().get(server.url().http("/metrics")).send().await.expect("answered");
    answer.text().await.expect("text")
}
