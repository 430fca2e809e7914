//! Recordings outlive whatever dies: the channel's owner, a speaker's node, and the only node there is.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    channel::{Account, administrator},
    files::{number, said},
    support::{
        nodes::Nodes,
        people::{PATIENCE, Person, payload},
        process::{Process, Scratch},
        talkers::{Talker, all_hear_each_other},
    },
};

/// What came is written within a millisecond: of what a killed node forwarded in its last moment, with the machine's own delay, so many
/// frames at most are not in its recording.
const UNWRITTEN_MAX: usize = 2;

/// A speaker's packets: what number each has, and when it begins, in microseconds since the recording began.
async fn packets_of(asker: &Account, recording: &Value, user: &str) -> Vec<Vec<(u32, i64)>> {
    let mut tracks = Vec::new();
    let of_user = |track: &&Value| track["user_id"] == user;
    for track in recording["track_list"].as_array().expect("tracks").iter().filter(of_user) {
        let file = asker.fetch(track["path"].as_str().expect("a path")).await;
        let offset_us = track["offset_us"].as_i64().expect("an offset");
        let packets = said(&file).into_iter().map(|(at_us, packet)| {
            assert_eq!(packet, payload(number(&packet)), "bit for bit");
            (number(&packet), offset_us + i64::try_from(at_us).expect("short"))
        });
        tracks.push(packets.collect::<Vec<_>>());
    }
    tracks
}

/// When a speaker's frame of number zero would have been said, by each packet: the earliest and the latest.
fn origin_us(packets: &[(u32, i64)]) -> (i64, i64) {
    let origins = packets.iter().map(|(number, at_us)| at_us - i64::from(*number) * 20_000);
    origins.fold((i64::MAX, i64::MIN), |(least, most), origin| (least.min(origin), most.max(origin)))
}

/// The numbers between a speaker's first packet and their last that no track has.
fn missing(tracks: &[Vec<(u32, i64)>]) -> Vec<u32> {
    let there: BTreeSet<u32> = tracks.iter().flatten().map(|(number, _)| *number).collect();
    let (first, last) = (there.first().expect("some"), there.last().expect("some"));
    (*first..=*last).filter(|number| !there.contains(number)).collect()
}

/// The gap is the fault's: all that others missed is missing, and before it only what the node forwarded as it died.
fn check_gap(gap: &[u32], lost: &[u32]) {
    let (unwritten, rest): (Vec<u32>, Vec<u32>) = gap.iter().partition(|number| !lost.contains(number));
    println!("others missed {} frames of 20 ms, the recording {}: {unwritten:?} of {gap:?}", lost.len(), gap.len());
    assert!(
        rest.len() <= lost.len() && unwritten.len() <= UNWRITTEN_MAX,
        "{gap:?} are missing, where others missed {lost:?}"
    );
    let first_lost = *lost.first().expect("a node was killed");
    let last_moment = first_lost.saturating_sub(UNWRITTEN_MAX as u32)..first_lost;
    assert!(unwritten.iter().all(|number| last_moment.contains(number)), "{unwritten:?} are not of its last moment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_on_when_the_owner_of_its_channel_is_killed() {
    let shared = Scratch::new();
    let folder = shared.path().join("audio");
    let mut cluster = Nodes::start_with(3, &[("AUDIO_DIR", folder.to_str().expect("text"))]).await;
    let admin = administrator(cluster.nodes[0].url()).await.at(cluster.nodes[1].url());
    let channel = cluster.channel_owned_by(0).await;
    let mut talkers = Vec::new();
    for index in 0..3 {
        let (url, others) = (cluster.nodes[index].url(), cluster.others(index));
        talkers.push(Talker::join_at(url, others, &format!("talker-{index}"), channel).await);
    }
    let [killed, heard, other] = &talkers[..] else { panic!("three talkers") };
    all_hear_each_other(&[killed, heard, other]).await;
    let id = admin.start(channel).await["id"].as_str().expect("an id").to_owned();
    let from = killed.next_number();
    heard.until("two seconds are said", |_| killed.next_number() >= from + 100).await;
    let before = killed.next_number();
    cluster.nodes[0].kill();
    killed.until("goes on elsewhere", |notes| notes.resumed > 0).await;
    heard.until_hears(killed).await;
    let after = killed.next_number();
    heard.until("two more seconds are said", |_| killed.next_number() >= after + 100).await;
    let lost = heard.missed(killed, before.saturating_sub(50)..after + 50).await;
    admin.stop(channel).await;
    admin.until_finished(channel, &id).await;
    let recording = admin.recording(channel, &id).await;

    for talker in [heard, other] {
        let tracks = packets_of(&admin, &recording, &talker.user().to_string()).await;
        assert_eq!((tracks.len(), missing(&tracks)), (1, vec![]), "nothing is missing of who was elsewhere");
        let (least, most) = origin_us(&tracks[0]);
        assert!(most - least <= 20_000, "{} µs", most - least);
    }
    let tracks = packets_of(&admin, &recording, &killed.user().to_string()).await;
    assert_eq!(tracks.len(), 2, "of the node that was killed, and of the other");
    let ((least, _), (most, _)) = (origin_us(&tracks[0]), origin_us(&tracks[1]));
    println!("the two parts are {} µs apart", most - least);
    assert!((most - least).abs() <= 20_000, "{} µs", most - least);
    check_gap(&missing(&tracks), &lost);
}

/// Waits until a track in a folder holds a packet.
async fn until_written(folder: &Path, packet: &[u8]) {
    let is_written = || {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut contents = files.filter_map(|file| std::fs::read(file.path()).ok());
        contents.any(|content| content.windows(packet.len()).any(|bytes| bytes == packet))
    };
    let wait = async {
        while !is_written() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_finds_what_it_had_recorded_and_goes_on() {
    let shared = Scratch::new();
    let (data, port) = (shared.path().join("kept"), crate::support::network::ReservedPort::take().expect("a port"));
    let port = port.port().to_string();
    let settings = [("ANTIPHON_DATA_DIR", data.to_str().expect("text")), ("ANTIPHON_SERVER__PORT", port.as_str())];
    let mut server = Process::start(&settings).await;
    let admin = administrator(server.url()).await;
    let channel = admin.make_channel("lobby").await;
    let mut person = Person::join(&server, "speaker", channel).await;
    person.udp_becomes(true).await;
    let id = admin.start(channel).await["id"].as_str().expect("an id").to_owned();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in 0..100 {
        ticks.tick().await;
        person.say(number).await;
    }
    until_written(&data.join("audio/.recording").join(&id), &payload(99)).await;
    server.kill();
    drop(server);
    let server = Process::start(&settings).await;
    let admin = admin.at(server.url());
    let again = Person::join(&server, "again", channel).await;
    assert_eq!(again.joined.recording.as_ref().map(|now| now.recording_id.to_string()), Some(id.clone()), "it goes on");
    admin.stop(channel).await;
    let finished = admin.until_finished(channel, &id).await;
    let tracks = packets_of(&admin, &finished, &person.client.user().id.to_string()).await;
    let numbers: Vec<u32> = tracks[0].iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}
