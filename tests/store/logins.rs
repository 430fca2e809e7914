//! Refresh tokens, and attempts to log in.

use antiphon::store::{Attempt, Rotation};
use time::Duration;

use crate::{
    Context, attempt, bucket, guest, login, on_both, refresh, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    refresh_tokens_rotate,
    a_used_refresh_token_ends_its_family,
    of_many_refreshes_at_once_one_wins,
    refresh_tokens_run_out_and_log_out,
    logins_of_an_account_are_bounded,
    failures_fill_and_are_forgiven,
    many_attempts_at_once_do_not_pass_together,
    a_refused_attempt_counts_nowhere,
    login_places_are_remembered_for_a_while,
);

async fn refresh_tokens_rotate(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    for token in 1..20 {
        // Each is used shortly before it runs out: the family lasts as long as it is used.
        let now = start() + (Duration::DAY - Duration::SECOND) * i32::from(token);
        assert_eq!(refresh(&store, token, token + 1, now).await, Rotation::Rotated(anna.clone()), "{token}");
    }
    assert_eq!(refresh(&store, 99, 100, start()).await, Rotation::Unknown);
}

async fn a_used_refresh_token_ends_its_family(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    login(&store, &anna, 101).await;
    refresh(&store, 1, 2, start()).await;
    refresh(&store, 2, 3, start()).await;
    assert_eq!(refresh(&store, 1, 4, start()).await, Rotation::Reused);
    assert_eq!(
        refresh(&store, 3, 5, start()).await,
        Rotation::Unknown,
        "the newest of the family is worth nothing now"
    );
    assert_eq!(refresh(&store, 1, 6, start()).await, Rotation::Unknown);
    assert_eq!(refresh(&store, 101, 102, start()).await, Rotation::Rotated(anna), "another login goes on");
}

async fn of_many_refreshes_at_once_one_wins(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    let results = at_once(10, |index| {
        let store = store.clone();
        async move { refresh(&store, 1, 10 + u8::try_from(index).expect("small"), start()).await }
    });
    let results = results.await;
    let won = results.iter().filter(|rotation| matches!(rotation, Rotation::Rotated(_))).count();
    let reused = results.iter().filter(|rotation| **rotation == Rotation::Reused).count();
    assert_eq!((won, reused), (1, 1), "{results:?}");
    for token in 10..20 {
        assert_eq!(refresh(&store, token, 200, start()).await, Rotation::Unknown, "the family has ended");
    }
}

async fn refresh_tokens_run_out_and_log_out(Context { store, .. }: Context) {
    let (anna, visitor) = (user(&store, "Anna").await, guest(&store, "Visitor").await);
    login(&store, &anna, 1).await;
    login(&store, &visitor, 2).await;
    assert_eq!(refresh(&store, 1, 3, start() + Duration::DAY).await, Rotation::Unknown);
    let late = start() + Duration::minutes(59);
    assert_eq!(refresh(&store, 2, 4, late).await, Rotation::Rotated(visitor));
    assert_eq!(refresh(&store, 4, 5, late + Duration::HOUR).await, Rotation::Unknown, "a guest's last an hour");
    assert_eq!(store.end_refresh_family([3; 32]).await, Ok(false));
    assert_eq!(store.end_refresh_family([2; 32]).await, Ok(true), "a used token logs out, too");
    assert_eq!(refresh(&store, 4, 5, late).await, Rotation::Unknown);
    login(&store, &anna, 6).await;
    assert_eq!(store.end_refresh_families_of(anna.id).await, Ok(2));
    assert_eq!(refresh(&store, 6, 7, start()).await, Rotation::Unknown);
}

async fn logins_of_an_account_are_bounded(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    login(&store, &berta, 100).await;
    for token in 1..=4 {
        let now = start() + Duration::seconds(token.into());
        store.start_refresh_family(anna.id, [token; 32], now, now + Duration::DAY, 3).await.expect("works");
        if token == 3 {
            refresh(&store, 1, 11, now).await;
        }
    }
    let now = start() + Duration::MINUTE;
    assert_eq!(refresh(&store, 2, 12, now).await, Rotation::Unknown, "the one unused for longest had to go");
    for token in [11, 3, 4, 100] {
        assert!(matches!(refresh(&store, token, token + 20, now).await, Rotation::Rotated(_)), "{token}");
    }
}

async fn failures_fill_and_are_forgiven(Context { store, .. }: Context) {
    let three = [bucket(1, 3)];
    for _ in 0..3 {
        assert_eq!(attempt(&store, &three, start()).await, Attempt::Counted);
    }
    assert_eq!(attempt(&store, &three, start()).await, Attempt::Refused { retry_after: Duration::MINUTE });
    let later = start() + Duration::seconds(59);
    assert_eq!(attempt(&store, &three, later).await, Attempt::Refused { retry_after: Duration::SECOND });
    let later = start() + Duration::MINUTE;
    assert_eq!(attempt(&store, &three, later).await, Attempt::Counted, "one is forgiven");
    assert!(matches!(attempt(&store, &three, later).await, Attempt::Refused { .. }), "only one");
    store.take_back_login_attempt(&three).await.expect("works");
    assert_eq!(attempt(&store, &three, later).await, Attempt::Counted, "one was taken back");
    let much_later = start() + Duration::DAY;
    for _ in 0..3 {
        assert_eq!(attempt(&store, &three, much_later).await, Attempt::Counted, "all are forgiven, none is saved up");
    }
    assert!(matches!(attempt(&store, &three, much_later).await, Attempt::Refused { .. }));
    store.remember_login_place(&three[0], [9; 32], much_later).await.expect("works");
    assert_eq!(attempt(&store, &three, much_later).await, Attempt::Counted, "a right password forgives all");
}

async fn many_attempts_at_once_do_not_pass_together(Context { store, .. }: Context) {
    let results = at_once(30, |_| {
        let store = store.clone();
        async move { attempt(&store, &[bucket(2, 5), bucket(1, 100)], start()).await }
    });
    assert_eq!(results.await.iter().filter(|attempt| **attempt == Attempt::Counted).count(), 5);
}

async fn a_refused_attempt_counts_nowhere(Context { store, .. }: Context) {
    let (full, other) = (bucket(2, 1), bucket(1, 2));
    assert_eq!(attempt(&store, &[full], start()).await, Attempt::Counted);
    for _ in 0..10 {
        assert!(matches!(attempt(&store, &[other, full], start()).await, Attempt::Refused { .. }));
    }
    for _ in 0..2 {
        assert_eq!(attempt(&store, &[other], start()).await, Attempt::Counted);
    }
}

async fn login_places_are_remembered_for_a_while(Context { store, .. }: Context) {
    assert_eq!(store.is_login_place([1; 32], start()).await, Ok(false));
    store.remember_login_place(&bucket(1, 1), [1; 32], start()).await.expect("works");
    assert_eq!(store.is_login_place([1; 32], start()).await, Ok(true));
    assert_eq!(store.is_login_place([2; 32], start()).await, Ok(false));
    assert_eq!(store.is_login_place([1; 32], start() + Duration::SECOND).await, Ok(false));
    store.remember_login_place(&bucket(1, 1), [1; 32], start() + Duration::DAY).await.expect("works");
    assert_eq!(store.is_login_place([1; 32], start() + Duration::SECOND).await, Ok(true));
}
