//! What is kept for a while, and deleted then.

use antiphon::store::{AUDIT_KEPT, Attempt, Ban, Bucket, LOGIN_PLACE_REMEMBERED, NewAudit, NewInvite, Rotation, Swept};
use time::{Duration, OffsetDateTime};

use crate::{
    Context, attempt, bucket, channel, guest, invite, on_both, refresh, run, start, support::databases::TestDatabase,
    user,
};

on_both!(
    the_sweep_deletes_what_has_had_its_time,
    the_sweep_works_in_batches,
    what_was_done_is_written_down_for_a_while,
);

async fn the_sweep_deletes_what_has_had_its_time(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let (gone, owning, staying) =
        (guest(&store, "Gone").await, guest(&store, "Owning").await, guest(&store, "Staying").await);
    let general = channel(&store, "General", &anna).await;
    channel(&store, "Guests'", &owning).await;
    let now = OffsetDateTime::now_utc() + Duration::DAY;
    let (past, future) = (now - Duration::SECOND, now + Duration::SECOND);
    for (token, user, expires_at) in [(1, &anna, past), (2, &anna, future), (3, &gone, past), (4, &staying, future)] {
        store.start_refresh_family(user.id, [token; 32], start(), expires_at, 10).await.expect("works");
    }
    attempt(&store, &[Bucket { forgiven: Duration::SECOND, ..bucket(1, 1) }], past - Duration::SECOND).await;
    attempt(&store, &[bucket(2, 1)], now).await;
    store.remember_login_place(&bucket(9, 1), [1; 32], past - LOGIN_PLACE_REMEMBERED).await.expect("works");
    store.remember_login_place(&bucket(9, 1), [2; 32], now).await.expect("works");
    let mut codes = Vec::new();
    for (max_uses, expires_at) in [(Some(1), None), (None, Some(past)), (Some(2), Some(future))] {
        let new = NewInvite { max_uses, expires_at, ..invite(&general, &anna) };
        codes.push(store.create_invite(new, 10).await.expect("room").code);
    }
    store.redeem_invite(&codes[0], staying.id, past).await.expect("works").expect("open");
    for (user, until) in [(&gone, past), (&berta, future)] {
        let ban = Ban { channel: general.id, user: user.id, by: anna.id, reason: None, until: Some(until) };
        store.set_ban(ban).await.expect("works");
    }

    let swept = store.sweep(now).await.expect("works");
    assert_eq!(
        swept,
        Swept {
            refresh: 4,
            logins: 2,
            invites: 2,
            bans: 1,
            guests: 1,
            rooms: 0,
            audit: 0,
            notifications: 0,
            codes: 0,
            sends: 0,
            more: false
        }
    );
    assert_eq!(store.sweep(now).await, Ok(Swept::default()), "nothing is left to sweep");
    for (user, stays) in [(&anna, true), (&berta, true), (&gone, false), (&owning, true), (&staying, true)] {
        assert_eq!(store.user(user.id).await.expect("works").is_some(), stays, "{}", user.username);
    }
    assert!(matches!(refresh(&store, 2, 20, now).await, Rotation::Rotated(_)));
    assert!(matches!(attempt(&store, &[bucket(2, 1)], now).await, Attempt::Refused { .. }));
    assert_eq!(store.is_login_place([2; 32], past).await, Ok(true));
    assert!(store.invite(&codes[2], now).await.expect("works").is_some());
    assert!(store.active_ban(general.id, berta.id, now).await.expect("works").is_some());
}

async fn what_was_done_is_written_down_for_a_while(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let done = |action, count: u32| NewAudit {
        actor: anna.id,
        actor_name: anna.username.clone(),
        action,
        target: (count > 0).then(|| count.to_string()),
        detail: serde_json::json!({"count": count}),
    };
    for count in 0..3 {
        store.record_audit(done("test.one", count)).await.expect("works");
        store.record_audit(done("test.other", count)).await.expect("works");
    }
    let (entries, total) = store.audit(Some("test.one"), 2, 0).await.expect("works");
    let targets: Vec<_> = entries.iter().map(|entry| entry.target.as_deref()).collect();
    assert_eq!((targets, total), (vec![Some("2"), Some("1")], 3), "newest first");
    assert_eq!(entries[0].detail, serde_json::json!({"count": 2}));
    assert_eq!(store.audit(None, 100, 4).await.expect("works").0.len(), 2);
    let kept = OffsetDateTime::now_utc() + AUDIT_KEPT;
    assert_eq!(store.sweep(kept - Duration::MINUTE).await.expect("works").audit, 0);
    assert_eq!(store.sweep(kept + Duration::MINUTE).await.expect("works").audit, 6);
}

async fn the_sweep_works_in_batches(Context { store, .. }: Context) {
    let now = OffsetDateTime::now_utc() + Duration::DAY;
    for index in 0..501 {
        guest(&store, &format!("guest{index}")).await;
    }
    let first = store.sweep(now).await.expect("works");
    assert!(first.more && first.guests > 0 && first.guests < 501, "{first:?}");
    let second = store.sweep(now).await.expect("works");
    assert_eq!((first.guests + second.guests, second.more), (501, false));
    let guest = guest(&store, "New").await;
    store.sweep(OffsetDateTime::now_utc()).await.expect("works");
    assert!(store.user(guest.id).await.expect("works").is_some(), "a new guest gets its first token in a moment");
}
