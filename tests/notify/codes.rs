//! Codes that confirm addresses: what bounds them cannot be got round by forgetting addresses, or by further accounts.

use antiphon::{
    store::{CodeWish, Store, User, Way},
    telemetry::metrics::CodeBound,
};
use time::{Duration, OffsetDateTime};

use crate::{
    claims::{run, user},
    on_both,
    support::databases::{TestDatabase, at_once},
};

on_both!(
    an_address_gets_so_many_codes_whoever_asks,
    an_account_gets_so_many_codes_whatever_the_way,
    the_server_sends_so_many_short_messages,
    at_once_no_more_are_sent_either,
    what_was_not_sent_counts_for_a_moment_alone,
);

/// Asks for a code, as many of which may be sent in an hour.
async fn ask(store: &Store, user: &User, way: Way, address: &str, most: Option<u32>, at: OffsetDateTime) -> CodeWish {
    store.begin_confirming(user.id, way, address, b"a hash", most, at).await.expect("works")
}

fn refused(bound: CodeBound, after: Duration) -> CodeWish {
    CodeWish::TooMany { bound, seconds: after.whole_seconds().unsigned_abs() }
}

async fn an_address_gets_so_many_codes_whoever_asks(store: Store) {
    let now = OffsetDateTime::now_utc();
    for number in 0..5 {
        let somebody = user(&store, &format!("somebody{number}")).await;
        assert_eq!(ask(&store, &somebody, Way::Email, "eve@example.org", None, now).await, CodeWish::Granted);
        // What is forgotten was sent all the same.
        store.forget_address(somebody.id, Way::Email).await.expect("works");
        store.delete_user(somebody.id).await.expect("works");
    }
    let sixth = user(&store, "sixth").await;
    let minute = now + Duration::minutes(1);
    for address in ["eve@example.org", "Eve@Example.org", "eve+more@example.org"] {
        let wish = ask(&store, &sixth, Way::Email, address, None, minute).await;
        assert_eq!(wish, refused(CodeBound::Address, Duration::minutes(59)), "{address}");
    }
    assert_eq!(ask(&store, &sixth, Way::Email, "adam@example.org", None, minute).await, CodeWish::Granted);
    let hour = now + Duration::HOUR;
    assert_eq!(ask(&store, &sixth, Way::Email, "eve@example.org", None, hour).await, CodeWish::Granted);
    let swept = store.sweep(hour + Duration::days(1)).await.expect("works");
    assert_eq!(swept.codes, 7);
}

async fn an_account_gets_so_many_codes_whatever_the_way(store: Store) {
    let (ada, start) = (user(&store, "ada").await, OffsetDateTime::now_utc());
    for number in 0..5 {
        let at = start + Duration::minutes(number);
        let mail = format!("ada{number}@example.org");
        assert_eq!(ask(&store, &ada, Way::Email, &mail, None, at).await, CodeWish::Granted);
        let soon = ask(&store, &ada, Way::Email, &mail, None, at + Duration::seconds(10)).await;
        assert_eq!(soon, refused(CodeBound::Account, Duration::seconds(20)));
        let phone = format!("+3361234567{number}");
        assert_eq!(ask(&store, &ada, Way::Sms, &phone, None, at).await, CodeWish::Granted);
        store.forget_address(ada.id, Way::Email).await.expect("works");
    }
    let at = start + Duration::HOUR;
    for way in [Way::Email, Way::Sms] {
        let wish = ask(&store, &ada, way, "+33612345699", None, at).await;
        assert_eq!(wish, refused(CodeBound::Account, Duration::hours(23)), "{way:?}");
    }
    let day = start + Duration::days(1);
    assert_eq!(ask(&store, &ada, Way::Email, "ada@example.org", None, day).await, CodeWish::Granted);
}

async fn the_server_sends_so_many_short_messages(store: Store) {
    let now = OffsetDateTime::now_utc();
    for number in 0..3 {
        let somebody = user(&store, &format!("somebody{number}")).await;
        let phone = format!("+3361234567{number}");
        assert_eq!(ask(&store, &somebody, Way::Sms, &phone, Some(3), now).await, CodeWish::Granted);
    }
    let fourth = user(&store, "fourth").await;
    let later = now + Duration::minutes(10);
    let wish = ask(&store, &fourth, Way::Sms, "+33612345699", Some(3), later).await;
    assert_eq!(wish, refused(CodeBound::Server, Duration::minutes(50)));
    assert_eq!(ask(&store, &fourth, Way::Email, "d@example.org", None, later).await, CodeWish::Granted, "mail goes on");
    let hour = now + Duration::HOUR;
    assert_eq!(ask(&store, &fourth, Way::Sms, "+33612345699", Some(3), hour).await, CodeWish::Granted);
}

async fn at_once_no_more_are_sent_either(store: Store) {
    let mut people = Vec::new();
    for number in 0..8 {
        people.push(user(&store, &format!("somebody{number}")).await);
    }
    let now = OffsetDateTime::now_utc();
    let wishes = at_once(people.len(), |index| {
        let (store, somebody) = (store.clone(), people[index].clone());
        async move { ask(&store, &somebody, Way::Email, "eve@example.org", None, now).await }
    })
    .await;
    assert_eq!(wishes.iter().filter(|wish| **wish == CodeWish::Granted).count(), 5, "{wishes:?}");
}

async fn what_was_not_sent_counts_for_a_moment_alone(store: Store) {
    let (ada, start) = (user(&store, "ada").await, OffsetDateTime::now_utc());
    let phone = "+33612345678";
    let every = Duration::seconds(30);
    // More often than an account, an address or the server could have any.
    for number in 0..12 {
        let at = start + every * number;
        assert_eq!(ask(&store, &ada, Way::Sms, phone, Some(1), at).await, CodeWish::Granted, "{number}");
        store.code_not_sent(ada.id, Way::Sms, at).await.expect("works");
        let soon = ask(&store, &ada, Way::Sms, phone, Some(1), at + Duration::seconds(10)).await;
        assert_eq!(soon, refused(CodeBound::Account, Duration::seconds(20)), "nobody asks without end");
    }
    let at = start + every * 12;
    assert_eq!(ask(&store, &ada, Way::Sms, phone, Some(1), at).await, CodeWish::Granted);
    let wish = ask(&store, &ada, Way::Sms, phone, Some(1), at + every).await;
    assert_eq!(wish, refused(CodeBound::Server, Duration::HOUR - every), "that one was sent");
}
