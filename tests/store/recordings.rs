//! Recordings, their tracks and mixes.

use antiphon::store::{
    Channel, MixState, NewRecording, Recording, RecordingLimits, RecordingTrack, Store, StoreError, User,
};
use antiphon_core::{
    gateway::RecordingEnd,
    ids::{ChannelId, RecordingId, TrackId},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    Context, channel, on_both, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    a_channel_has_one_recording_at_a_time,
    of_many_who_begin_to_record_one_does,
    recordings_have_tracks_and_end_with_their_channel,
    a_mix_is_made_by_one_node_at_a_time,
);

fn of_channel(channel: &Channel, by: &User) -> NewRecording {
    NewRecording { channel: channel.id, name: "a talk".to_owned(), by: by.id, by_name: by.username.clone() }
}

async fn record(store: &Store, channel: &Channel, by: &User) -> Result<Recording, StoreError> {
    store.begin_recording(of_channel(channel, by), RecordingLimits { at_once: 3, bytes: 1_000 }).await
}

fn track_of(recording: &Recording, bytes: u64) -> RecordingTrack {
    RecordingTrack {
        id: TrackId(Uuid::now_v7()),
        recording: recording.id,
        user: recording.by,
        username: "anna".to_owned(),
        node: "one".to_owned(),
        started_at: start(),
        samples: 48_000,
        bytes,
        channels: 1,
    }
}

async fn a_channel_has_one_recording_at_a_time(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let first = record(&store, &lobby, &anna).await.expect("begins");
    assert_eq!((first.ended_at, &first.mix, first.tracks), (None, &MixState::None, 0));
    assert_eq!(record(&store, &lobby, &anna).await, Err(StoreError::Conflict("recording of this channel")));
    assert_eq!(store.open_recording(lobby.id).await, Ok(Some(first.clone())));
    assert_eq!(store.finish_recording(first.id).await, Ok(false), "it goes on");
    let ended = store.end_recording(first.id, RecordingEnd::MaxSize, None).await.expect("works").expect("it went on");
    assert_eq!((ended.ended_why, ended.ended_by), (Some(RecordingEnd::MaxSize), None));
    let again = store.end_recording(first.id, RecordingEnd::Stopped, Some(anna.id)).await;
    assert_eq!(again, Ok(None), "it has ended");
    let second = record(&store, &lobby, &anna).await.expect("begins");
    let unfinished: Vec<RecordingId> =
        store.unfinished_recordings().await.expect("works").iter().map(|recording| recording.id).collect();
    assert_eq!(unfinished, [first.id, second.id]);
    assert_eq!(store.finish_recording(first.id).await, Ok(true));
    assert_eq!(store.finish_recording(first.id).await, Ok(false), "once");
    let listed = store.recordings(lobby.id, None).await.expect("works");
    assert_eq!(listed.iter().map(|recording| recording.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(store.recordings(lobby.id, Some(second.id)).await.expect("works")[0].id, first.id);
    store.set_recording_empty(second.id, Some(start())).await.expect("works");
    assert_eq!(store.recording(second.id).await.expect("works").expect("there").empty_since, Some(start()));
    let nobody = NewRecording { channel: ChannelId(Uuid::nil()), ..of_channel(&lobby, &anna) };
    let refused = store.begin_recording(nobody, RecordingLimits { at_once: 9, bytes: 9 }).await;
    assert_eq!(refused, Err(StoreError::Missing));
}

async fn of_many_who_begin_to_record_one_does(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let mut channels = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        channels.push(channel(&store, name, &anna).await);
    }
    let tried = at_once(20, |index| {
        let (store, channel, anna) = (store.clone(), channels[index % 5].clone(), anna.clone());
        async move { record(&store, &channel, &anna).await.is_ok() }
    });
    let begun = tried.await.into_iter().filter(|begun| *begun).count();
    assert_eq!(begun, 3, "as many as may be at once");
}

async fn recordings_have_tracks_and_end_with_their_channel(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let recording = record(&store, &lobby, &anna).await.expect("begins");
    let (one, other) = (track_of(&recording, 400), track_of(&recording, 600));
    for track in [&one, &other, &one] {
        assert_eq!(store.add_recording_track(track, false).await, Ok(true));
    }
    assert_eq!(store.recording_tracks(recording.id).await, Ok(vec![one.clone(), other]));
    let known = store.recording(recording.id).await.expect("works").expect("there");
    assert_eq!((known.tracks, known.bytes, store.recorded_bytes().await), (2, 1_000, Ok(1_000)));
    let other = channel(&store, "other", &anna).await;
    let refused = record(&store, &other, &anna).await;
    assert!(matches!(refused, Err(StoreError::LimitReached(_))), "their room is used up: {refused:?}");
    let nobody = RecordingId(Uuid::now_v7());
    assert_eq!(store.known_recordings(&[recording.id, nobody]).await, Ok(vec![recording.id]));
    store.end_recording(recording.id, RecordingEnd::Stopped, Some(anna.id)).await.expect("works");
    // One that waits to be sent is not there, and there is no end without it.
    let waits = track_of(&recording, 50);
    assert_eq!(store.add_recording_track(&waits, true).await, Ok(true));
    let there = store.recording(recording.id).await.expect("works").expect("there");
    assert_eq!((there.bytes, store.recorded_bytes().await), (1_000, Ok(1_050)), "it takes of the quota");
    assert_eq!(store.finish_recording(recording.id).await, Ok(false));
    store.track_was_sent(waits.id).await.expect("works");
    assert_eq!((store.recorded_bytes().await, store.finish_recording(recording.id).await), (Ok(1_050), Ok(true)));
    let long_ago = OffsetDateTime::now_utc() - Duration::hours(1);
    let long_ago = store.recordings_ended_before(long_ago).await.expect("works");
    assert_eq!(long_ago, [], "it ended just now");
    let later = OffsetDateTime::now_utc() + Duration::days(1);
    assert_eq!(store.recordings_ended_before(later).await.expect("works").len(), 1);
    store.delete_channel(lobby.id).await.expect("works");
    assert_eq!(store.recording(recording.id).await, Ok(None));
    let late = RecordingTrack { id: TrackId(Uuid::now_v7()), ..one };
    assert_eq!(store.add_recording_track(&late, false).await, Ok(false), "its recording is no more");
    assert_eq!((store.recorded_bytes().await, store.delete_recording(recording.id).await), (Ok(0), Ok(false)));
}

async fn a_mix_is_made_by_one_node_at_a_time(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let id = record(&store, &lobby, &anna).await.expect("begins").id;
    let (now, until) = (start(), start() + Duration::MINUTE);
    assert_eq!(store.claim_mix(now, until).await, Ok(None), "nobody wants one");
    store.want_mix(id).await.expect("works");
    assert_eq!(store.claim_mix(now, until).await, Ok(Some(id)));
    assert_eq!(store.claim_mix(now, until).await, Ok(None), "a node makes it");
    assert_eq!(store.claim_mix(until, until + Duration::MINUTE).await, Ok(Some(id)), "that one has had its time");
    assert_eq!(store.mix_made(id, until, None).await, Ok(false), "another node has it");
    assert_eq!(store.mix_made(id, until + Duration::MINUTE, Some("no disk")).await, Ok(true));
    let mix = async || store.recording(id).await.expect("works").expect("there").mix;
    assert_eq!(mix().await, MixState::Failed("no disk".to_owned()));
    store.want_mix(id).await.expect("works");
    assert_eq!((mix().await, store.claim_mix(now, until).await), (MixState::Wanted, Ok(Some(id))));
    assert_eq!(store.mix_made(id, until, None).await, Ok(true));
    store.want_mix(id).await.expect("works");
    assert_eq!(mix().await, MixState::Ready, "once is enough");
}
