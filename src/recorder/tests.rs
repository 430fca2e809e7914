//! The recorder over real media workers' queues and real files.

use std::{path::PathBuf, time::Duration};

use antiphon_core::{
    clock::Micros,
    engine::FrameBytes,
    ids::{ChannelId, RecordingId, StreamId, TrackId, UserId},
    wire::frame::{FrameHeader, FrameKind},
};
use uuid::Uuid;

use super::{
    ended::being_written,
    timeline::TrackHead,
    track::{Track, packet_of},
    *,
};
use crate::media::FrameToRecord;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("antiphon-recorder-{}", Uuid::now_v7())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const RECORDING: RecordingId = RecordingId(Uuid::from_u128(7));
const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(8));
const WALL_US: i64 = 1_700_000_000_000_000;

fn head() -> TrackHead {
    TrackHead {
        track: TrackId(Uuid::now_v7()),
        recording: RECORDING,
        channel: CHANNEL,
        user: UserId(Uuid::from_u128(9)),
        username: "alice".to_owned(),
        node: "one".to_owned(),
        stream: StreamId(1),
        channels: 1,
        started_us: 0,
    }
}

/// A packet of 20 ms that no other is: its table of contents says SILK, one frame.
fn packet(number: u16) -> Vec<u8> {
    let mut packet = vec![1 << 3];
    packet.extend(number.to_be_bytes());
    packet.extend([0x55; 30]);
    packet
}

fn frame(at_ms: u64, number: u16, kind: FrameKind) -> FrameToRecord {
    frame_at(at_ms, number, u32::from(number) * 960, kind)
}

fn frame_at(at_ms: u64, number: u16, timestamp: u32, kind: FrameKind) -> FrameToRecord {
    FrameToRecord {
        at: Micros::from_millis(at_ms),
        channel: CHANNEL,
        header: FrameHeader { stream: StreamId(1), sequence: number, timestamp, kind_flags: kind as u8, level: 20 },
        bytes: FrameBytes::copy_from(&packet(number)).expect("short"),
    }
}

fn begin(folder: &Folder, first: &FrameToRecord) -> Track {
    Track::begin(&folder.0, head(), WALL_US, first).expect("begins")
}

fn push(track: &mut Track, frame: &FrameToRecord) {
    track.push(frame, packet_of(frame).expect("a packet")).expect("writes");
    track.tick(frame.at, Micros::ZERO).expect("writes");
}

/// Where each packet that was said begins, in ms, by its number.
fn said(folder: &Folder, track: &EndedTrack) -> Vec<(u16, u64)> {
    let path = being_written(&folder.0, RECORDING).join(format!("{}.opus", track.head.track));
    let mut reader = ::ogg::PacketReader::new(std::fs::File::open(path).expect("there"));
    let (mut at, mut said, mut heads) = (0_u64, Vec::new(), 0);
    while let Some(packet) = reader.read_packet().expect("well formed") {
        heads += 1;
        if heads <= 2 {
            continue;
        }
        if let [8, high, low, ..] = packet.data[..] {
            said.push((u16::from_be_bytes([high, low]), at / 48));
        }
        at += u64::from(antiphon_core::opus_packet::duration_samples(&packet.data).expect("a packet"));
    }
    assert_eq!(at, track.samples);
    said
}

fn only_ended(folder: &Folder) -> EndedTrack {
    let mut tracks = ended(&folder.0).expect("reads");
    assert_eq!(tracks.len(), 1);
    tracks.remove(0)
}

#[test]
fn packets_are_where_they_were_said_whatever_order_they_came_in() {
    let folder = Folder::new();
    let first = frame(1_000, 0, FrameKind::AudioStart);
    let mut track = begin(&folder, &first);
    push(&mut track, &first);
    for (at_ms, number) in [(1_020, 1), (1_060, 3), (1_061, 2), (1_120, 6), (1_240, 12), (1_245, 4), (1_260, 13)] {
        push(&mut track, &frame(at_ms, number, FrameKind::Audio));
    }
    track.finish().expect("ends");
    let whole = only_ended(&folder);
    let numbers: Vec<(u16, u64)> = said(&folder, &whole);
    // The fourth came long after the sixth: nobody waited for it any more.
    assert_eq!(numbers, [(0, 0), (1, 20), (2, 40), (3, 60), (6, 120), (12, 240), (13, 260)]);
    assert_eq!(whole.head.started_us, WALL_US + 1_000_000);
    whole.put_away(&folder.0).expect("moves");
    assert!(ended(&folder.0).expect("reads").is_empty() && !is_pending(&folder.0, RECORDING));
}

#[test]
fn what_is_said_after_a_pause_is_where_it_was_said() {
    let folder = Folder::new();
    let first = frame(0, 0, FrameKind::AudioStart);
    let mut track = begin(&folder, &first);
    push(&mut track, &first);
    // Timestamps that go on with time, and ones that count frames.
    push(&mut track, &frame_at(5_000, 1, 5_000 * 48, FrameKind::AudioStart));
    push(&mut track, &frame_at(9_000, 2, 5_000 * 48 + 960, FrameKind::AudioStart));
    push(&mut track, &frame_at(9_020, 3, 5_000 * 48 + 1_920, FrameKind::Audio));
    track.finish().expect("ends");
    let whole = only_ended(&folder);
    assert_eq!(said(&folder, &whole), [(0, 0), (1, 5_000), (2, 9_000), (3, 9_020)]);
    let id = whole.head.track;
    whole.put_away(&folder.0).expect("moves");
    let timeline = timeline(&folder.0, RECORDING, id).expect("there");
    let ms = |sample: u64| sample / 48;
    let spurts: Vec<(u64, u64)> = timeline.spurts.iter().map(|(from, to)| (ms(*from), ms(*to))).collect();
    assert_eq!(spurts, [(0, 20), (5_000, 5_020), (9_000, 9_040)]);
}

#[test]
fn a_track_that_was_broken_off_has_all_but_the_last_moment() {
    let folder = Folder::new();
    let first = frame(0, 0, FrameKind::AudioStart);
    let mut track = begin(&folder, &first);
    push(&mut track, &first);
    for number in 1..225 {
        push(&mut track, &frame(u64::from(number) * 20, number, FrameKind::Audio));
    }
    assert!(ended(&folder.0).expect("reads").is_empty(), "it is being written");
    let path = std::fs::read_dir(being_written(&folder.0, RECORDING)).expect("there").flatten().next();
    assert!(path.is_some());
    // As a process does that is killed: nothing more is written.
    drop(track);
    let whole = only_ended(&folder);
    assert!(whole.samples >= 4_300 * 48, "{} ms", whole.samples / 48);
    let numbers: Vec<u16> = said(&folder, &whole).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (0..numbers.len() as u16).collect::<Vec<_>>());
}

#[test]
fn a_track_without_sound_is_removed() {
    let folder = Folder::new();
    let first = frame(0, 0, FrameKind::AudioStart);
    drop(begin(&folder, &first));
    assert!(ended(&folder.0).expect("reads").is_empty() && !is_pending(&folder.0, RECORDING));
}

#[tokio::test]
async fn channels_are_recorded_from_their_begin_to_their_end_and_no_others() {
    let folder = Folder::new();
    let inlet = RecordInlet::new();
    let config = crate::media::MediaConfig { workers: 1, ..crate::media::MediaConfig::default() };
    let (media, _events) = Media::start(config).expect("media workers");
    let config =
        RecorderConfig { folder: folder.0.clone(), node: "one".to_owned(), track_bytes_max: 1 << 20, tracks_max: 10 };
    let recorder = Recorder::start(config, inlet.clone(), &media).expect("starts");
    recorder.begin(CHANNEL, RECORDING).await;
    recorder.speaker(CHANNEL, StreamId(1), UserId(Uuid::from_u128(9)), "alice".to_owned()).await;
    let leave = |channel, number: u16| {
        let header = FrameHeader {
            stream: StreamId(1),
            sequence: number,
            timestamp: u32::from(number) * 960,
            kind_flags: 0,
            level: 20,
        };
        assert!(inlet.give(media.now(), channel, &header, &packet(number)));
    };
    leave(CHANNEL, 0);
    leave(ChannelId(Uuid::nil()), 1);
    leave(CHANNEL, 1);
    recorder.end(CHANNEL).await;
    tokio::time::timeout(Duration::from_secs(20), recorder.track_ended()).await.expect("it ends");
    let whole = only_ended(&folder);
    assert_eq!(said(&folder, &whole).into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1]);
    drop(whole);
    recorder.stop().await;
    media.stop().await;
}
