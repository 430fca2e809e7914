//! The outbox in the database: of many nodes one takes something on, and one that was too slow changes nothing.

use std::collections::BTreeSet;

use antiphon::store::{
    AT_ONCE_PER_USER, Change, Delivery, DuePlace, LOOKED_AT_ONCE, Lately, NOTIFICATIONS_PER_USER, NewDelivery,
    NewMessage, NewUser, Notification, Outcome, Scope, Store, Tried, User, Way,
};
use antiphon_core::{gateway::NotificationKind, ids::PushId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    on_both,
    support::databases::{TestDatabase, at_once},
};

on_both!(
    a_notification_is_as_lasting_as_its_cause,
    of_many_nodes_one_takes_a_thing_on,
    what_a_dead_node_left_is_taken_on_when_its_lease_is_over,
    ways_and_people_do_not_take_each_others_places,
    what_is_behind_more_than_one_look_has_its_turn,
    what_went_lately_is_counted_by_way_and_ends,
    what_went_is_counted_when_its_cause_is_gone,
    who_writes_much_drives_out_their_own,
);

const LEASE: Duration = Duration::seconds(30);

pub(crate) async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(Store)) {
    let store = Store::open(&database.url()).await.expect("opens");
    scenario(store.clone()).await;
    store.close().await;
}

pub(crate) async fn user(store: &Store, name: &str) -> User {
    store.create_user(NewUser::named(name)).await.expect("made")
}

/// Writes to somebody, who is told of it unless it was sent before; whether it was stored.
pub(crate) async fn write(store: &Store, from: &User, to: &User, nonce: &str) -> bool {
    let new = NewMessage {
        from: from.id,
        username: from.username.clone(),
        content: nonce.to_owned(),
        mentions: Vec::new(),
        nonce: Some(nonce.to_owned()),
        reply_to: None,
        is_slowed: false,
        notify: vec![(to.id, NotificationKind::DirectMessage)],
    };
    let applied = store.apply(Scope::pair(from.id, to.id), &[Change::Post(new)]).await.expect("works");
    matches!(applied.outcomes[0], Outcome::Done(_))
}

/// Routes everything that was written, each by these ways.
pub(crate) async fn route_all(store: &Store, ways: &[Way]) -> Vec<Notification> {
    let now = OffsetDateTime::now_utc();
    let push = |way| (way == Way::Push).then(|| PushId(Uuid::from_u128(1)));
    let ways: Vec<_> = ways.iter().map(|way| NewDelivery { way: *way, push: push(*way), next_at: now }).collect();
    let mut routed = Vec::new();
    loop {
        let ids = store.claim_notifications(now, now + LEASE).await.expect("works");
        if ids.is_empty() {
            return routed;
        }
        for id in ids {
            let found = store.notification(id).await.expect("works").expect("there");
            let done = store.route_notification(&found, now + LEASE, &ways).await;
            assert!(done.expect("works").is_some(), "it was taken on by this one");
            routed.push(found);
        }
    }
}

/// Takes on what is due by a way.
async fn claim(store: &Store, way: Way, most: usize) -> Vec<Delivery> {
    let now = OffsetDateTime::now_utc();
    store.claim_deliveries(way, now, now + LEASE, most, &mut DuePlace::default()).await.expect("works")
}

async fn a_notification_is_as_lasting_as_its_cause(store: Store) {
    let (ada, bob) = (user(&store, "ada").await, user(&store, "bob").await);
    assert!(write(&store, &ada, &bob, "one").await);
    assert!(!write(&store, &ada, &bob, "one").await, "sent again");
    assert_eq!(store.unread_notifications(bob.id).await.expect("works"), 1);
    // One that is refused tells nobody.
    let new = NewMessage {
        from: ada.id,
        username: "ada".to_owned(),
        content: "x".to_owned(),
        mentions: Vec::new(),
        nonce: None,
        reply_to: Some(antiphon_core::ids::MessageId(1_000_000)),
        is_slowed: false,
        notify: vec![(bob.id, NotificationKind::DirectMessage)],
    };
    let applied = store.apply(Scope::pair(ada.id, bob.id), &[Change::Post(new)]).await.expect("works");
    assert!(matches!(applied.outcomes[0], Outcome::Refused(_)));
    assert_eq!(store.unread_notifications(bob.id).await.expect("works"), 1);
    // With an account goes what it was told; who wrote may be gone.
    store.delete_user(ada.id).await.expect("works");
    let found = store.notifications(bob.id, None, true, 10).await.expect("works");
    assert_eq!((found.len(), found[0].from, found[0].content.as_str()), (1, ada.id, "one"));
    route_all(&store, &[Way::Email]).await;
    store.delete_user(bob.id).await.expect("works");
    assert_eq!(claim(&store, Way::Email, 10).await, []);
    // Somebody who is gone by then is told nothing, and the message is stored all the same.
    let clara = user(&store, "clara").await;
    assert!(write(&store, &clara, &bob, "too late").await);
}

async fn of_many_nodes_one_takes_a_thing_on(store: Store) {
    let ada = user(&store, "ada").await;
    for number in 0..5 {
        let somebody = user(&store, &format!("somebody{number}")).await;
        for number in 0..4 {
            write(&store, &ada, &somebody, &number.to_string()).await;
        }
    }
    let now = OffsetDateTime::now_utc();
    let claimed = at_once(8, |index| {
        let store = store.clone();
        // Each under a lease of its own.
        let until = now + Duration::seconds(30) + Duration::milliseconds(i64::try_from(index).expect("few"));
        async move { (until, store.claim_notifications(now, until).await.expect("works")) }
    })
    .await;
    let all: Vec<_> = claimed.iter().flat_map(|(_, ids)| ids.clone()).collect();
    let distinct: BTreeSet<_> = all.iter().map(|id| id.0).collect();
    assert_eq!((all.len(), distinct.len()), (20, 20), "each once");
    for (until, ids) in claimed {
        for id in ids {
            let found = store.notification(id).await.expect("works").expect("there");
            let ways = [NewDelivery { way: Way::Email, push: None, next_at: now }];
            assert!(store.route_notification(&found, until, &ways).await.expect("works").is_some());
            let again = store.route_notification(&found, until, &ways).await.expect("works");
            assert_eq!(again, None, "it is routed");
        }
    }
    let later = OffsetDateTime::now_utc();
    let mut all = Vec::new();
    loop {
        let claimed = at_once(8, |index| {
            let store = store.clone();
            let until = later + Duration::seconds(30) + Duration::milliseconds(i64::try_from(index).expect("few"));
            async move {
                store.claim_deliveries(Way::Email, later, until, 5, &mut DuePlace::default()).await.expect("works")
            }
        })
        .await;
        assert!(claimed.iter().all(|claimed| claimed.len() <= 5));
        let before = all.len();
        all.extend(claimed.into_iter().flatten().map(|delivery| delivery.id.0));
        // Whoever wanted what another got takes on less, and more the next time.
        if all.len() == before {
            break;
        }
    }
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (20, 20), "each once");
}

async fn what_a_dead_node_left_is_taken_on_when_its_lease_is_over(store: Store) {
    let (ada, bob) = (user(&store, "ada").await, user(&store, "bob").await);
    write(&store, &ada, &bob, "one").await;
    route_all(&store, &[Way::Email]).await;
    let now = OffsetDateTime::now_utc();
    let (until, second) = (now + Duration::seconds(30), Duration::seconds(1));
    let first = store.claim_deliveries(Way::Email, now, until, 10, &mut DuePlace::default()).await.expect("works");
    assert_eq!(first.len(), 1);
    assert_eq!(
        store
            .claim_deliveries(Way::Email, until - second, until + second, 10, &mut DuePlace::default())
            .await
            .expect("works"),
        [],
        "leased"
    );
    let (later, its_until) = (until + second, until + Duration::seconds(31));
    let second_node =
        store.claim_deliveries(Way::Email, later, its_until, 10, &mut DuePlace::default()).await.expect("works");
    assert_eq!(second_node[0].id, first[0].id, "the same id in each attempt");
    // The first was slow, not dead: what it says counts no more.
    assert!(!store.delivery_tried(first[0].id, until, &Tried::GivenUp("slow".to_owned())).await.expect("works"));
    let again_at = later + Duration::seconds(10);
    let failed = Tried::Failed("no".to_owned(), again_at);
    assert!(store.delivery_tried(first[0].id, its_until, &failed).await.expect("works"));
    assert_eq!(
        store.claim_deliveries(Way::Email, later, its_until, 10, &mut DuePlace::default()).await.expect("works"),
        [],
        "not before its time"
    );
    let third = store
        .claim_deliveries(Way::Email, again_at, again_at + second, 10, &mut DuePlace::default())
        .await
        .expect("works");
    assert_eq!((third.len(), third[0].attempts, third[0].last_error.as_deref()), (1, 1, Some("no")));
    let facts = store.outbox_facts(again_at + Duration::seconds(60)).await.expect("works");
    assert_eq!((facts.waiting, facts.not_routed), (vec![(Way::Email, 1)], 0));
    let overdue = again_at + Duration::seconds(60) - facts.oldest_due_at.expect("it is due");
    assert_eq!(overdue.whole_seconds(), 60);
    assert!(store.delivery_tried(first[0].id, again_at + second, &Tried::Sent).await.expect("works"));
    assert_eq!(store.outbox_facts(again_at).await.expect("works").waiting, []);
}

async fn ways_and_people_do_not_take_each_others_places(store: Store) {
    let (ada, bob, clara) = (user(&store, "ada").await, user(&store, "bob").await, user(&store, "clara").await);
    for number in 0..10 {
        write(&store, &ada, &bob, &number.to_string()).await;
    }
    route_all(&store, &[Way::Email, Way::Push]).await;
    write(&store, &ada, &clara, "to clara").await;
    route_all(&store, &[Way::Email]).await;

    // Bob's were there before hers, and there were places for all of them.
    let mails = claim(&store, Way::Email, 16).await;
    assert!(mails.iter().all(|delivery| delivery.way == Way::Email), "{mails:?}");
    let of = |user: &User| mails.iter().filter(|delivery| delivery.user == user.id).count();
    assert_eq!((of(&bob), of(&clara)), (usize::try_from(AT_ONCE_PER_USER).expect("few"), 1));
    assert_eq!(claim(&store, Way::Email, 16).await, [], "as many as he may have are under way, on whichever node");
    assert_eq!(claim(&store, Way::Push, 16).await.len(), 4, "another way is another thing");

    // One that is done makes place for one more.
    let done = mails.iter().find(|delivery| delivery.user == bob.id).expect("there");
    let second = Duration::seconds(1);
    let now = OffsetDateTime::now_utc() + LEASE + second;
    let again =
        store.claim_deliveries(Way::Email, now, now + LEASE, 16, &mut DuePlace::default()).await.expect("works");
    assert_eq!(again.len(), 5, "their leases are over");
    assert!(store.delivery_tried(done.id, now + LEASE, &Tried::Sent).await.expect("works"));
    let next = store.claim_deliveries(Way::Email, now, now + LEASE, 16, &mut DuePlace::default()).await.expect("works");
    assert!(next.len() == 1 && !mails.iter().any(|delivery| delivery.id == next[0].id), "{next:?}");
}

/// Routes everything that was written, to so many browsers each.
async fn route_to_browsers(store: &Store, browsers: u128) {
    let now = OffsetDateTime::now_utc();
    let way = |browser| NewDelivery { way: Way::Push, push: Some(PushId(Uuid::from_u128(browser))), next_at: now };
    let ways: Vec<_> = (1..=browsers).map(way).collect();
    for id in store.claim_notifications(now, now + LEASE).await.expect("works") {
        let found = store.notification(id).await.expect("works").expect("there");
        store
            .route_notification(&found, now + LEASE, &ways)
            .await
            .expect("works")
            .expect("it was taken on by this one");
    }
}

async fn what_is_behind_more_than_one_look_has_its_turn(store: Store) {
    let (ada, bob, clara) = (user(&store, "ada").await, user(&store, "bob").await, user(&store, "clara").await);
    // More than two looks take in, of which but a few may be under way.
    let (written, browsers) = (25, 100);
    for number in 0..written {
        write(&store, &ada, &bob, &number.to_string()).await;
    }
    route_to_browsers(&store, browsers).await;
    assert!(i64::from(written) * i64::try_from(browsers).expect("few") > 2 * LOOKED_AT_ONCE);
    write(&store, &ada, &clara, "to clara").await;
    route_to_browsers(&store, 1).await;
    let (now, mut place) = (OffsetDateTime::now_utc(), DuePlace::default());
    let mut claimed = Vec::new();
    for _ in 0..4 {
        let found = store.claim_deliveries(Way::Push, now, now + LEASE, 16, &mut place).await.expect("works");
        claimed.push((found.iter().filter(|one| one.user == bob.id).count(), found.len()));
    }
    let first = usize::try_from(AT_ONCE_PER_USER).expect("few");
    // The second look goes on where the first ended, the third begins anew.
    assert_eq!(claimed, [(first, first), (0, 1), (0, 0), (0, 0)]);
    assert!(store.claim_deliveries(Way::Push, now, now + LEASE, 16, &mut place).await.expect("works").is_empty());
}

async fn what_went_lately_is_counted_by_way_and_ends(store: Store) {
    let (ada, bob) = (user(&store, "ada").await, user(&store, "bob").await);
    for number in 0..4 {
        write(&store, &ada, &bob, &number.to_string()).await;
    }
    let all = route_all(&store, &[Way::Email, Way::Push]).await;
    let now = OffsetDateTime::now_utc();
    let mails =
        store.claim_deliveries(Way::Email, now, now + LEASE, 16, &mut DuePlace::default()).await.expect("works");
    for (notification, tried) in all.iter().zip([Tried::Sent, Tried::Skipped("it was read")]) {
        let mail = mails.iter().find(|mail| mail.notification == notification.id).expect("there");
        assert!(store.delivery_tried(mail.id, now + LEASE, &tried).await.expect("works"));
    }
    // Of the four one is asked about, one was sent, one skipped, and one waits.
    let mut lately = store.lately(&all[3]).await.expect("works");
    lately.sort_by_key(|(way, _)| *way);
    let expected = [(Way::Email, Lately { in_hour: 2, waiting: 1 }), (Way::Push, Lately { in_hour: 3, waiting: 3 })];
    assert_eq!(lately, expected);

    let swept = store.sweep(now + antiphon::store::NOTIFICATIONS_KEPT + Duration::days(1)).await.expect("works");
    assert_eq!(swept.notifications, 4);
    assert_eq!(store.unread_notifications(bob.id).await.expect("works"), 0);
    assert_eq!(store.outbox_facts(now).await.expect("works").waiting, [], "and their ways with them");
}

/// Tells somebody as often as is kept; the last time.
async fn write_more_than_is_kept(store: &Store, from: &User, to: &User) -> Notification {
    let mut last = None;
    for number in 0..NOTIFICATIONS_PER_USER {
        write(store, from, to, &format!("more {number}")).await;
        // Before others drive it out.
        if number % 50 == 49 {
            last = route_all(store, &[]).await.pop().or(last);
        }
    }
    last.expect("some")
}

async fn what_went_is_counted_when_its_cause_is_gone(store: Store) {
    let (ada, bob) = (user(&store, "ada").await, user(&store, "bob").await);
    for number in 0..3 {
        write(&store, &ada, &bob, &number.to_string()).await;
    }
    let all = route_all(&store, &[Way::Email]).await;
    let now = OffsetDateTime::now_utc();
    for mail in store.claim_deliveries(Way::Email, now, now + LEASE, 16, &mut DuePlace::default()).await.expect("works")
    {
        let tried = if mail.notification == all[0].id { Tried::GivenUp("no".to_owned()) } else { Tried::Sent };
        assert!(store.delivery_tried(mail.id, now + LEASE, &tried).await.expect("works"));
    }
    let last = write_more_than_is_kept(&store, &ada, &bob).await;
    assert!(store.notification(all[2].id).await.expect("works").is_none(), "it had to go");
    let lately = store.lately(&last).await.expect("works");
    assert_eq!(lately, [(Way::Email, Lately { in_hour: 3, waiting: 0 })]);
}

async fn who_writes_much_drives_out_their_own(store: Store) {
    let (ada, eve, bob) = (user(&store, "ada").await, user(&store, "eve").await, user(&store, "bob").await);
    for number in 0..3 {
        write(&store, &ada, &bob, &format!("ada {number}")).await;
    }
    route_all(&store, &[Way::Email]).await;
    write_more_than_is_kept(&store, &eve, &bob).await;
    let found = store.notifications(bob.id, None, true, 1_000).await.expect("works");
    let of = |from: &User| found.iter().filter(|found| found.from == from.id).count();
    assert_eq!((of(&ada), of(&eve)), (3, usize::try_from(NOTIFICATIONS_PER_USER).expect("few") - 3));
    assert_eq!(claim(&store, Way::Email, 16).await.len(), 3, "and what waits of it goes out");
}
