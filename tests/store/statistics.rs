//! Totals of channels, people and files.

use antiphon::store::{ChannelTotals, Increments, Listen, ListenTotals, UserTotals};
use antiphon_core::ids::{ChannelId, UserId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    Context, channel, on_both, open, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(listens_add_up_by_file_and_day_until_they_are_forgotten, totals_add_up_and_begin_anew);

async fn totals_add_up_and_begin_anew(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    assert_eq!((store.channel_totals(general.id).await, store.user_totals(anna.id).await), (Ok(None), Ok(None)));
    let carried =
        ChannelTotals { joins: 1, frames_in: 50, frames_out: 100, bytes_in: 4_000, bytes_out: 9_000, frames_lost: 2 };
    let spoke = UserTotals { joins: 1, voice_ms: 3_000, frames: 50, bytes: 4_000 };
    let nowhere = ChannelId(Uuid::from_u128(7));
    let increments = Increments {
        channels: vec![(general.id, carried), (nowhere, carried)],
        users: vec![(anna.id, spoke), (UserId(Uuid::from_u128(7)), spoke)],
    };
    let later = start() + Duration::MINUTE;
    store.add_statistics(&increments, start()).await.expect("works");
    store.add_statistics(&increments, later).await.expect("works");
    let counted = store.channel_totals(general.id).await.expect("works").expect("counted");
    let twice =
        ChannelTotals { joins: 2, frames_in: 100, frames_out: 200, bytes_in: 8_000, bytes_out: 18_000, frames_lost: 4 };
    assert_eq!((counted.totals, counted.since), (twice, start()));
    let counted = store.user_totals(anna.id).await.expect("works").expect("counted");
    assert_eq!(counted.totals, UserTotals { joins: 2, voice_ms: 6_000, frames: 100, bytes: 8_000 });
    assert_eq!((counted.since, counted.last_at), (start(), later));
    assert_eq!(store.user_totals(berta.id).await, Ok(None));
    assert_eq!(store.channel_totals(nowhere).await, Ok(None), "there is no such channel");
    // The server's are of all, and stay when a channel goes.
    assert!(store.delete_channel(general.id).await.expect("works"));
    let server = store.server_totals().await.expect("works").expect("counted");
    assert_eq!((server.totals.frames_in, server.totals.frames_lost), (200, 8));
    assert_eq!(store.channels_counts(anna.id).await, Ok((0, 0)));
    assert_eq!(store.reset_statistics().await, Ok(2), "the account's and the server's");
    assert_eq!((store.server_totals().await, store.user_totals(anna.id).await), (Ok(None), Ok(None)));
}

/// Nodes that add to the same rows at once neither lose anything nor wait for each other for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_may_add_to_totals_at_once() {
    let database = TestDatabase::postgres().await;
    let store = open(&database.url()).await;
    let anna = user(&store, "Anna").await;
    let mut channels = Vec::new();
    for index in 0..10 {
        channels.push(channel(&store, &format!("Channel {index}"), &anna).await.id);
    }
    let one = ChannelTotals { frames_in: 1, ..ChannelTotals::default() };
    let added = at_once(8, |index| {
        let (store, mut channels) = (store.clone(), channels.clone());
        channels.rotate_left(index);
        async move {
            for _ in 0..5 {
                let channels = channels.iter().map(|channel| (*channel, one)).collect();
                store.add_statistics(&Increments { channels, users: Vec::new() }, start()).await.expect("works");
            }
        }
    });
    added.await;
    for channel in channels {
        assert_eq!(store.channel_totals(channel).await.expect("works").expect("counted").totals.frames_in, 40);
    }
    store.close().await;
}

async fn listens_add_up_by_file_and_day_until_they_are_forgotten(Context { store, .. }: Context) {
    let listen = |path: &str, ended: OffsetDateTime, seconds: i64, heard_permille: u32, origin: &str| Listen {
        id: Uuid::now_v7(),
        path: path.to_owned(),
        quality: "low".to_owned(),
        began: ended - Duration::seconds(seconds),
        ended,
        bytes: 1_000,
        heard_permille,
        ranges: "0-1000".to_owned(),
        origin: origin.to_owned(),
    };
    let (first, second) = (start(), start() + Duration::days(1));
    let listens = [
        listen("a.mp3", first, 100, 900, "one"),
        listen("a.mp3", second, 20, 899, "two"),
        listen("b.mp3", second, 3, 1_000, "two"),
    ];
    store.keep_listens(&listens).await.expect("stored");
    store.keep_listens(&listens[..1]).await.expect("what is there already stays as it is");
    let totals = |listens, complete, origins, sent_bytes, seconds: i64| ListenTotals {
        listens,
        complete,
        origins,
        sent_bytes,
        listened_us: seconds * 1_000_000,
    };
    let long_ago = first - Duration::days(1);
    assert_eq!(store.listen_totals(long_ago).await.expect("read"), totals(3, 2, 2, 3_000, 123));
    assert_eq!(store.listen_totals(second).await.expect("read"), totals(2, 1, 1, 2_000, 23), "since then");
    let by_path = store.listens_by_path(long_ago, 10).await.expect("read");
    let wanted = [("a.mp3".to_owned(), totals(2, 1, 2, 2_000, 120)), ("b.mp3".to_owned(), totals(1, 1, 1, 1_000, 3))];
    assert_eq!(by_path, wanted);
    let by_day = store.listens_by_day(long_ago, 10).await.expect("read");
    let day = |moment: OffsetDateTime| moment.replace_time(time::Time::MIDNIGHT);
    assert_eq!(by_day, [(day(second), totals(2, 1, 1, 2_000, 23)), (day(first), totals(1, 1, 1, 1_000, 100))]);
    assert_eq!(store.listens_of("a.mp3", 1).await.expect("read"), listens[1..2], "the last first");
    assert!(!store.sweep_listens(second).await.expect("deleted"));
    assert_eq!(store.listen_totals(long_ago).await.expect("read"), totals(2, 1, 1, 2_000, 23));
}
