//! Opening a database, and many who use one at once.

use std::os::unix::fs::PermissionsExt;

use antiphon::store::{Ban, ChannelChange, NewUser, Store, StoreError};
use time::Duration;

use crate::{
    Context, LIFETIMES, MEMBER, OWNER, bucket, channel, invite, login, on_both, open, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    what_is_stored_is_there_after_opening_again,
    many_writers_wait_for_each_other,
    whatever_happens_at_once_waits_its_turn,
    a_closed_store_is_unavailable,
);

/// Whoever asks is told to come back, rather than that all went well in a file that nobody will find again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_taken_away_is_unavailable_until_it_is_back() {
    let database = TestDatabase::sqlite();
    let TestDatabase::Sqlite(dir) = &database else { panic!("a folder") };
    let store = open(&database.url()).await;
    let anna = user(&store, "Anna").await;
    let aside = dir.with_extension("aside");
    std::fs::rename(dir, &aside).expect("moved away");
    std::fs::create_dir(dir).expect("nothing in its place");
    for round in 0..3 {
        let name = format!("user{round}");
        let read = at_once(8, |_| {
            let store = store.clone();
            async move { store.user(anna.id).await }
        });
        for outcome in read.await {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        }
        let written = store.create_user(NewUser::named(name)).await;
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }
    std::fs::remove_dir(dir).expect("no new database was made");
    std::fs::rename(&aside, dir).expect("put back");
    assert_eq!(store.user(anna.id).await, Ok(Some(anna)));
    user(&store, "Berta").await;
    store.close().await;
}

/// Several processes that start at once on a new database all find it up to date.
async fn check_first_starts(database: TestDatabase) {
    let stores = at_once(5, |_| {
        let url = database.url();
        async move { open(&url).await }
    });
    for (index, store) in stores.await.into_iter().enumerate() {
        user(&store, &format!("user{index}")).await;
        assert_eq!(store.users_count().await, Ok(index as u64 + 1));
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_start_at_once_on_a_new_sqlite_file() {
    check_first_starts(TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_start_at_once_on_a_new_postgres_database() {
    check_first_starts(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn only_its_owner_may_read_a_sqlite_file() {
    let database = TestDatabase::sqlite();
    let store = open(&database.url()).await;
    user(&store, "Anna").await;
    let TestDatabase::Sqlite(dir) = &database else { unreachable!("it is one") };
    let files: Vec<_> = std::fs::read_dir(dir).expect("readable").map(|file| file.expect("readable")).collect();
    assert!(files.len() > 1, "the file and its log");
    for file in files {
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    store.close().await;
    let nowhere = Store::open("sqlite:/nowhere/antiphon.db").await.expect_err("there is no such folder");
    assert!(matches!(&nowhere, StoreError::Corrupt(text) if text.contains("/nowhere/antiphon.db")), "{nowhere}");
}

#[tokio::test]
async fn a_database_in_memory_is_one_database() {
    let store = open("sqlite::memory:").await;
    let ids = at_once(10, |index| {
        let store = store.clone();
        async move { user(&store, &format!("user{index}")).await.id }
    });
    for id in ids.await {
        assert!(store.user(id).await.expect("works").is_some());
    }
    store.close().await;
}

async fn what_is_stored_is_there_after_opening_again(Context { store, url }: Context) {
    let anna = user(&store, "Anna").await;
    let again = at_once(3, |_| {
        let url = url.clone();
        async move { open(&url).await }
    });
    for other in again.await {
        assert_eq!(other.user(anna.id).await, Ok(Some(anna.clone())));
        other.ping().await.expect("alive");
        other.close().await;
    }
}

async fn many_writers_wait_for_each_other(Context { store, url }: Context) {
    let other = open(&url).await;
    let results = at_once(100, |index| {
        let store = if index % 2 == 0 { store.clone() } else { other.clone() };
        async move { store.create_user(NewUser::named(format!("user{index}"))).await }
    });
    assert!(results.await.iter().all(Result::is_ok), "none is told that the database is busy");
    assert_eq!(store.users_count().await, Ok(100));
    other.close().await;
}

/// Changes to the same few rows from all sides: they may find that others were faster, but none fails for having met
/// another.
async fn whatever_happens_at_once_waits_its_turn(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let mut others = Vec::new();
    for index in 0..4 {
        others.push(user(&store, &format!("user{index}")).await);
    }
    for round in 0..4_u8 {
        let general = channel(&store, "General", &anna).await;
        let code = store.create_invite(invite(&general, &anna), 10).await.expect("room").code;
        for (index, user) in others.iter().enumerate() {
            login(&store, user, 16 * round + u8::try_from(index).expect("few")).await;
        }
        let results = at_once(48, |index| {
            let (store, code, user) = (store.clone(), code.clone(), others[index % 4].clone());
            let (ours, other) = (bucket(1, 1_000), bucket(2, 1_000));
            async move {
                let token = [16 * round + u8::try_from(index % 4).expect("few"); 32];
                match index / 4 {
                    0 | 1 => store.redeem_invite(&code, user.id, start()).await.map(drop),
                    2 => store.set_membership(general.id, user.id, OWNER).await,
                    3 => store.set_membership(general.id, user.id, MEMBER).await,
                    4 => {
                        let ban = Ban { channel: general.id, user: user.id, by: user.id, reason: None, until: None };
                        store.set_ban(ban).await
                    }
                    5 => store.remove_membership(general.id, user.id).await.map(drop),
                    6 => store.end_refresh_families_of(user.id).await.map(drop),
                    7 => store.rotate_refresh(token, [255; 32], start(), LIFETIMES).await.map(drop),
                    8 => store.begin_login_attempt(&[ours, other], start()).await.map(drop),
                    9 => store.take_back_login_attempt(&[other, ours]).await,
                    10 => store.sweep(start() + Duration::DAY * 400).await.map(drop),
                    _ if index % 4 == 0 => store.delete_channel(general.id).await.map(drop),
                    _ => store.update_channel(general.id, ChannelChange::default()).await.map(drop),
                }
            }
        });
        for result in results.await {
            assert!(
                matches!(
                    result,
                    Ok(()) | Err(StoreError::Missing | StoreError::OwnerStays | StoreError::Conflict("id"))
                ),
                "{result:?}"
            );
        }
        store.delete_channel(general.id).await.expect("works");
    }
}

async fn a_closed_store_is_unavailable(Context { store, .. }: Context) {
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let refused = store.create_user(NewUser::named("Anna")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
