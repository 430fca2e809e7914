//! A member with a mix whose node dies goes on with a mix of another node's, under a new stream.

use antiphon_core::gateway::{MediaMode, MediaTransport};

use crate::{
    support::{
        nodes::Nodes,
        people::{PATIENCE, make_channel},
    },
    voices::{Voice, how},
};

const TONE_HZ: f64 = 710.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_mix_goes_on_from_another_node() {
    let mut cluster = Nodes::start(2).await;
    let channel = make_channel(&cluster.nodes[1], "moving", 20).await;
    let speaker = Voice::join(
        cluster.nodes[1].url(),
        "speaker",
        Some(TONE_HZ),
        how(channel, MediaMode::Forward, MediaTransport::Udp),
    )
    .await;
    let listener = Voice::join_knowing(
        cluster.nodes[0].url(),
        cluster.others(0),
        "listener",
        None,
        how(channel, MediaMode::Mixed, MediaTransport::Udp),
    )
    .await;
    speaker.until_udp_works().await;
    listener.until_udp_works().await;
    listener.hears(&[TONE_HZ], &[]).await;
    let before = listener.mix();
    cluster.nodes[0].kill();
    let wait = async {
        while listener.resumed().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("resumed at the other node");
    let mix = listener.resumed().and_then(|joined| joined.voice.mix_stream_id).expect("a mix again");
    assert_ne!(mix, before, "another node's numbering is another stream");
    listener.forget();
    listener.hears(&[TONE_HZ], &[]).await;
    assert_eq!(listener.streams(), [mix]);
}
