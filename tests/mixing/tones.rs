//! Everybody hears all others at their level and nobody themselves, whichever way they came and whichever node they are on.

use antiphon_core::gateway::{MediaMode, MediaTransport};

use crate::{
    support::{nodes::Nodes, people::make_channel, process::Process},
    voices::{Voice, how},
};

/// Each speaker's tone, far enough from the others' and from their overtones.
const TONES_HZ: [f64; 5] = [430.0, 710.0, 1_130.0, 1_790.0, 2_570.0];

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_the_others_and_nobody_themselves() {
    let server = Process::start(&[]).await;
    let channel = make_channel(&server, "mixed", 20).await;
    let (udp, websocket) = (MediaTransport::Udp, MediaTransport::Websocket);
    let mut speakers = Vec::new();
    // Three who hear streams; one who speaks and hears a mix by UDP, and one over the gateway.
    for (index, (mode, media)) in [
        (MediaMode::Forward, udp),
        (MediaMode::Forward, udp),
        (MediaMode::Forward, websocket),
        (MediaMode::Mixed, udp),
        (MediaMode::Mixed, websocket),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("speaker-{index}-{mode:?}-{media:?}");
        speakers.push(Voice::join(server.url(), &name, Some(TONES_HZ[index]), how(channel, mode, media)).await);
    }
    let silent = Voice::join(server.url(), "silent-udp", None, how(channel, MediaMode::Mixed, udp)).await;
    let tunnelled =
        Voice::join(server.url(), "silent-websocket", None, how(channel, MediaMode::Mixed, websocket)).await;
    for voice in speakers.iter().filter(|voice| voice.joined.voice.udp.is_some()).chain([&silent]) {
        voice.until_udp_works().await;
    }
    silent.hears(&TONES_HZ, &[600.0, 2_000.0]).await;
    tunnelled.hears(&TONES_HZ, &[600.0, 2_000.0]).await;
    for own in [3, 4] {
        let others: Vec<f64> = TONES_HZ.iter().copied().filter(|hz| *hz != TONES_HZ[own]).collect();
        speakers[own].hears(&others, &[TONES_HZ[own]]).await;
    }
    // One stream each, of their own mix; those with streams get the others' alone.
    for voice in [&silent, &tunnelled, &speakers[3], &speakers[4]] {
        assert_eq!(voice.streams(), [voice.mix()]);
    }
    assert_eq!(tunnelled.ways().0, 0, "by the gateway alone");
    silent.forget();
    silent.hears(&TONES_HZ, &[]).await;
    assert_eq!((silent.ways().1, silent.gaps()), (0, 0), "by UDP alone, one frame after the other");
    let mixes = [silent.mix(), tunnelled.mix(), speakers[3].mix(), speakers[4].mix()];
    let streams = speakers[0].streams();
    assert_eq!(streams.len(), 4, "the four other speakers");
    assert!(streams.iter().all(|stream| !mixes.contains(stream)));
    // A speaker who stops is no longer in it; the others are.
    speakers[0].speaks(false);
    silent.hears(&TONES_HZ[1..], &TONES_HZ[..1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speakers_on_another_node_are_in_the_mix() {
    let cluster = Nodes::start(2).await;
    let channel = make_channel(&cluster.nodes[0], "mixed", 20).await;
    let at = |index: usize| cluster.nodes[index].url();
    let (udp, mixed) = (MediaTransport::Udp, MediaMode::Mixed);
    let here = Voice::join(at(0), "here", Some(TONES_HZ[0]), how(channel, mixed, udp)).await;
    let there = Voice::join(at(1), "there", Some(TONES_HZ[1]), how(channel, mixed, udp)).await;
    let streams = Voice::join(at(1), "streams", Some(TONES_HZ[2]), how(channel, MediaMode::Forward, udp)).await;
    let silent = Voice::join(at(0), "silent", None, how(channel, mixed, MediaTransport::Websocket)).await;
    for voice in [&here, &there, &streams] {
        voice.until_udp_works().await;
    }
    silent.hears(&TONES_HZ[..3], &[]).await;
    here.hears(&TONES_HZ[1..3], &TONES_HZ[..1]).await;
    there.hears(&[TONES_HZ[0], TONES_HZ[2]], &[TONES_HZ[1]]).await;
    assert_eq!(there.streams(), [there.mix()]);
}
