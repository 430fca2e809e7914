//! How loud one hears whom is one's own: it changes nobody else's mix.

use antiphon_core::gateway::{MediaMode, MediaTransport, SetMixGain};

use crate::{
    support::{people::make_channel, process::Process},
    voices::{Voice, how},
};

const TONES_HZ: [f64; 2] = [430.0, 1_130.0];

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_turns_somebody_down_for_themselves_alone() {
    let server = Process::start(&[]).await;
    let channel = make_channel(&server, "gains", 20).await;
    let forward = how(channel, MediaMode::Forward, MediaTransport::Udp);
    let mixed = how(channel, MediaMode::Mixed, MediaTransport::Udp);
    let loud = Voice::join(server.url(), "loud", Some(TONES_HZ[0]), forward.clone()).await;
    let other = Voice::join(server.url(), "other", Some(TONES_HZ[1]), forward.clone()).await;
    let picky = Voice::join(server.url(), "picky", None, mixed.clone()).await;
    let usual = Voice::join(server.url(), "usual", None, mixed).await;
    picky.hears(&TONES_HZ, &[]).await;
    let set = |user_id, gain_percent| SetMixGain { channel_id: channel, user_id, gain_percent };
    picky.client.request(set(loud.user(), 0)).await.expect("set");
    picky.hears(&TONES_HZ[1..], &TONES_HZ[..1]).await;
    usual.hears(&TONES_HZ, &[]).await;
    // It goes on by the user, whatever stream they have.
    picky.client.request(set(other.user(), 0)).await.expect("set");
    other.client.leave(channel).await.expect("left");
    let back = other.client.join(forward.clone()).await.expect("joined");
    assert_ne!(back.voice.stream_id, other.joined.voice.stream_id);
    usual.forget();
    usual.hears(&TONES_HZ, &[]).await;
    picky.hears(&[], &TONES_HZ).await;
    // As often as they come back: levels of streams that are gone take no places.
    for _ in 0..70 {
        other.client.leave(channel).await.expect("left");
        other.client.join(forward.clone()).await.expect("joined");
    }
    usual.forget();
    usual.hears(&TONES_HZ, &[]).await;
    picky.hears(&[], &TONES_HZ).await;
    picky.client.request(set(other.user(), 100)).await.expect("set");
    picky.hears(&TONES_HZ[1..], &TONES_HZ[..1]).await;
    let (name, user) = ("loud-again", loud.user());
    drop(loud);
    let again = Voice::join(server.url(), name, Some(TONES_HZ[0]), forward).await;
    assert_ne!(again.user(), user, "another guest: heard as they are");
    picky.hears(&TONES_HZ, &[]).await;
    picky.client.request(set(again.user(), 0)).await.expect("set");
    picky.hears(&TONES_HZ[1..], &TONES_HZ[..1]).await;
    picky.client.request(set(again.user(), 100)).await.expect("set");
    picky.hears(&TONES_HZ, &[]).await;
    for (gain, wrong) in [
        (set(again.user(), 201), "gain_percent must be from 0 (silent) to 200, not 201"),
        (set(picky.user(), 50), "nobody hears themselves"),
    ] {
        let refused = picky.client.request(gain).await.expect_err("refused").to_string();
        assert!(refused.contains(wrong) && refused.contains("INVALID_INPUT"), "{refused}");
    }
    let refused = other.client.request(set(again.user(), 50)).await.expect_err("refused").to_string();
    assert!(refused.contains("join with `mode` `mixed`"), "{refused}");
    // One is that of the guest who has left: they may come back.
    for speaker in 0..63_u128 {
        picky.client.request(set(antiphon_core::ids::UserId(uuid::Uuid::from_u128(speaker)), 50)).await.expect("set");
    }
    let refused = picky.client.request(set(other.user(), 50)).await.expect_err("refused").to_string();
    assert!(refused.contains("64 speakers"), "{refused}");
}
