//! Audio files.

use antiphon::store::{Claim, Claimed, FileSeen, LibraryQuery};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{Context, on_both, run, start, support::databases::TestDatabase, user};

on_both!(
    a_list_of_files_is_believed_less_than_what_was_written_since,
    a_file_that_could_not_be_removed_is_its_owners_again,
    files_of_recordings_are_listed_for_those_who_may_know,
);

async fn a_list_of_files_is_believed_less_than_what_was_written_since(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let seen = |size_bytes| FileSeen { path: "a.mp3".to_owned(), size_bytes, modified: start() };
    let claim = |size_bytes| Claim {
        file: seen(size_bytes),
        by: anna.id,
        is_admin: false,
        account_bytes_max: 100_000,
        total_bytes_max: 1_000_000,
    };
    let size = async || store.library_file("a.mp3").await.expect("works").map(|file| file.seen.size_bytes);
    assert_eq!(store.claim_file(&claim(90), true).await, Ok(Claimed::Room(100_000)));
    assert_eq!(size().await, None, "it was only asked");
    let Ok(Claimed::Granted(first)) = store.claim_file(&claim(90), false).await else { panic!("there is room") };
    assert_eq!(store.claim_file(&claim(100_001), true).await, Ok(Claimed::AccountFull(0)));
    // A list from before the upload, one in which it is not yet, and one of much later.
    let now = OffsetDateTime::now_utc();
    assert_eq!(store.sync_library(&[seen(10)], true, now).await, Ok(false));
    assert_eq!(store.sync_library(&[], true, now).await, Ok(false));
    assert_eq!(size().await, Some(90));
    assert_eq!(store.sync_library(&[seen(90)], true, now).await, Ok(true));
    assert_eq!(store.sync_library(&[seen(10)], true, now + Duration::HOUR).await, Ok(true));
    assert_eq!(size().await, Some(10));
    let Ok(Claimed::Granted(second)) = store.claim_file(&claim(80), false).await else { panic!("there is room") };
    assert_eq!(store.forget_file("a.mp3", first).await, Ok(false), "it is another upload's by now");
    assert_eq!(store.forget_file("a.mp3", second).await, Ok(true));
    assert_eq!(size().await, None);
}

async fn a_file_that_could_not_be_removed_is_its_owners_again(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let claim = |size_bytes| Claim {
        file: FileSeen { path: "a.mp3".to_owned(), size_bytes, modified: start() },
        by: anna.id,
        is_admin: false,
        account_bytes_max: 100_000,
        total_bytes_max: 150_000,
    };
    let Ok(Claimed::Granted(_)) = store.claim_file(&claim(90), false).await else { panic!("there is room") };
    store.set_tags("a.mp3", &["jazz".to_owned(), "live".to_owned()]).await.expect("it is there");
    let known = store.library_file("a.mp3").await.expect("works").expect("there");
    assert_eq!(store.forget_file("a.mp3", known.touched).await, Ok(true));
    store.remember_file(&known).await.expect("works");
    assert_eq!(store.library_file("a.mp3").await.expect("works").as_ref(), Some(&known));
    let other = Claim { file: FileSeen { path: "b.mp3".to_owned(), ..claim(10).file }, ..claim(10) };
    assert_eq!(store.claim_file(&other, true).await, Ok(Claimed::AccountFull(65_536)), "it counts again");
    // What came in its place meanwhile stays as it is.
    assert_eq!(store.forget_file("a.mp3", known.touched).await, Ok(true));
    let Ok(Claimed::Granted(_)) = store.claim_file(&claim(80), false).await else { panic!("there is room") };
    store.remember_file(&known).await.expect("works");
    let now = store.library_file("a.mp3").await.expect("works").expect("there");
    assert_eq!((now.seen.size_bytes, now.tags.len()), (80, 0));
}

async fn files_of_recordings_are_listed_for_those_who_may_know(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let seen = |path: &str| FileSeen { path: path.to_owned(), size_bytes: 9, modified: start() };
    let hidden = format!("recordings/{}/mix.opus", Uuid::now_v7());
    for path in [hidden.as_str(), "recordings/concert.opus", "song.mp3"] {
        store.add_library_file(&seen(path), anna.id).await.expect("works");
    }
    let paths = async |with_recordings| {
        let query = LibraryQuery { with_recordings, ..LibraryQuery::default() };
        let (files, count) = store.library_page(&query, 9, 0).await.expect("works");
        assert_eq!(files.len() as u64, count);
        files.into_iter().map(|file| file.seen.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(true).await, [hidden.as_str(), "recordings/concert.opus", "song.mp3"]);
    assert_eq!(paths(false).await, ["recordings/concert.opus", "song.mp3"]);
    let file = store.library_file(&hidden).await.expect("works").expect("there");
    assert_eq!(file.owner, Some(anna.id));
}
