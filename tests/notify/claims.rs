//! The outbox in the database: of many nodes one takes something on, and one that was too slow changes nothing.

use std::collections::BTreeSet;

use antiphon::store::{
    Change, NewDelivery, NewMessage, NewUser, Notification, OutboxLimits, Outcome, Scope, Store, Tried, User, Way,
};
use antiphon_core::gateway::NotificationKind;
use time::{Duration, OffsetDateTime};

use crate::{
    on_both,
    support::databases::{TestDatabase, at_once},
};

on_both!(
    a_notification_is_as_lasting_as_its_cause,
    of_many_nodes_one_takes_a_thing_on,
    what_a_dead_node_left_is_taken_on_when_its_lease_is_over,
    what_waits_is_bounded,
);

const LIMITS: OutboxLimits = OutboxLimits { per_hour: 1_000, waiting: 1_000 };

async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(Store)) {
    let store = Store::open(&database.url()).await.expect("opens");
    scenario(store.clone()).await;
    store.close().await;
}

async fn user(store: &Store, name: &str) -> User {
    store.create_user(NewUser::named(name)).await.expect("made")
}

/// Writes to somebody, who is told of it unless it was sent before; whether it was stored.
async fn write(store: &Store, from: &User, to: &User, nonce: &str) -> bool {
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

/// Routes everything, by one way each.
async fn route_all(store: &Store, limits: OutboxLimits) -> Vec<Notification> {
    let now = OffsetDateTime::now_utc();
    let mut routed = Vec::new();
    loop {
        let ids = store.claim_notifications(now, now + Duration::seconds(30)).await.expect("works");
        if ids.is_empty() {
            return routed;
        }
        for id in ids {
            let found = store.notification(id).await.expect("works").expect("there");
            let ways = [NewDelivery { way: Way::Email, push: None, next_at: now }];
            let done = store.route_notification(&found, now + Duration::seconds(30), &ways, limits).await;
            assert!(done.expect("works").is_some(), "it was taken on by this one");
            routed.push(found);
        }
    }
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
    route_all(&store, LIMITS).await;
    store.delete_user(bob.id).await.expect("works");
    let now = OffsetDateTime::now_utc();
    assert_eq!(store.claim_deliveries(now, now + Duration::seconds(30), 10).await.expect("works"), []);
    // Somebody who is gone by then is told nothing, and the message is stored all the same.
    let clara = user(&store, "clara").await;
    assert!(write(&store, &clara, &bob, "too late").await);
}

async fn of_many_nodes_one_takes_a_thing_on(store: Store) {
    let (ada, bob) = (user(&store, "ada").await, user(&store, "bob").await);
    for number in 0..20 {
        write(&store, &ada, &bob, &number.to_string()).await;
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
            assert!(store.route_notification(&found, until, &ways, LIMITS).await.expect("works").is_some());
            let again = store.route_notification(&found, until, &ways, LIMITS).await.expect("works");
            assert_eq!(again, None, "it is routed");
        }
    }
    let later = OffsetDateTime::now_utc();
    let mut all = Vec::new();
    loop {
        let claimed = at_once(8, |index| {
            let store = store.clone();
            let until = later + Duration::seconds(30) + Duration::milliseconds(i64::try_from(index).expect("few"));
            async move { store.claim_deliveries(later, until, 5).await.expect("works") }
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
    route_all(&store, LIMITS).await;
    let now = OffsetDateTime::now_utc();
    let (until, second) = (now + Duration::seconds(30), Duration::seconds(1));
    let first = store.claim_deliveries(now, until, 10).await.expect("works");
    assert_eq!(first.len(), 1);
    assert_eq!(store.claim_deliveries(until - second, until + second, 10).await.expect("works"), [], "leased");
    let (later, its_until) = (until + second, until + Duration::seconds(31));
    let second_node = store.claim_deliveries(later, its_until, 10).await.expect("works");
    assert_eq!(second_node[0].id, first[0].id, "the same id in each attempt");
    // The first was slow, not dead: what it says counts no more.
    assert!(!store.delivery_tried(first[0].id, until, &Tried::GivenUp("slow".to_owned())).await.expect("works"));
    let again_at = later + Duration::seconds(10);
    let failed = Tried::Failed("no".to_owned(), again_at);
    assert!(store.delivery_tried(first[0].id, its_until, &failed).await.expect("works"));
    assert_eq!(store.claim_deliveries(later, its_until, 10).await.expect("works"), [], "not before its time");
    let third = store.claim_deliveries(again_at, again_at + second, 10).await.expect("works");
    assert_eq!((third.len(), third[0].attempts, third[0].last_error.as_deref()), (1, 1, Some("no")));
    let facts = store.outbox_facts(again_at + Duration::seconds(60)).await.expect("works");
    assert_eq!(facts.waiting, 1);
    let overdue = again_at + Duration::seconds(60) - facts.oldest_due_at.expect("it is due");
    assert_eq!(overdue.whole_seconds(), 60);
    assert!(store.delivery_tried(first[0].id, again_at + second, &Tried::Sent).await.expect("works"));
    assert_eq!(store.outbox_facts(again_at).await.expect("works").waiting, 0);
}

async fn what_waits_is_bounded(store: Store) {
    let (ada, bob, clara) = (user(&store, "ada").await, user(&store, "bob").await, user(&store, "clara").await);
    for number in 0..4 {
        write(&store, &ada, &bob, &number.to_string()).await;
        write(&store, &ada, &clara, &number.to_string()).await;
    }
    route_all(&store, OutboxLimits { per_hour: 3, waiting: 5 }).await;
    let now = OffsetDateTime::now_utc();
    let due = store.claim_deliveries(now, now + Duration::seconds(30), 100).await.expect("works");
    let of = |user: &User| due.iter().filter(|delivery| delivery.user == user.id).count();
    assert_eq!(due.len(), 5, "no more may wait");
    assert!(of(&bob) <= 3 && of(&clara) <= 3, "no more an hour");
    assert_eq!(store.unread_notifications(bob.id).await.expect("works"), 4, "the list has all");
    let swept = store.sweep(now + antiphon::store::NOTIFICATIONS_KEPT + Duration::days(1)).await.expect("works");
    assert_eq!(swept.notifications, 8);
    assert_eq!(store.unread_notifications(bob.id).await.expect("works"), 0);
    assert_eq!(store.outbox_facts(now).await.expect("works").waiting, 0, "and their ways with them");
}
