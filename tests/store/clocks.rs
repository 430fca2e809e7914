//! Clocks that are set: what was written while one was ahead is in the database when it is right again.

use antiphon::store::{Change, ChatTerms, NewMessage, Outcome, Part, Refusal, Scope, User};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use time::Duration;

use crate::{Context, channel, on_both, run, support::databases::TestDatabase, user};

on_both!(messages_stay_in_order_and_nobody_waits_for_a_clock_that_was_set_back);

const AHEAD: Duration = Duration::HOUR;

/// Has every message written as by a clock that is an hour ahead.
async fn set_ahead(url: &str) {
    let sql = "UPDATE messages SET created_us = created_us + 3600000000";
    if url.starts_with("sqlite:") {
        let mut database = SqliteConnection::connect(url).await.expect("there");
        sqlx::query(sql).execute(&mut database).await.expect("set");
    } else {
        let mut database = PgConnection::connect(url).await.expect("there");
        sqlx::query(sql).execute(&mut database).await.expect("set");
    }
}

fn says(from: &User, content: &str) -> Change {
    Change::Post(NewMessage {
        from: from.id,
        username: from.username.clone(),
        content: content.to_owned(),
        mentions: Vec::new(),
        nonce: None,
        reply_to: None,
        is_slowed: true,
        notify: Vec::new(),
    })
}

async fn messages_stay_in_order_and_nobody_waits_for_a_clock_that_was_set_back(Context { store, url }: Context) {
    let anna = user(&store, "Anna").await;
    let general = channel(&store, "General", &anna).await;
    let scope = Scope::Room(general.id);
    let applied = store.apply(scope, &[says(&anna, "ahead")]).await.expect("stored");
    assert!(matches!(applied.outcomes[..], [Outcome::Done(_)]));
    set_ahead(&url).await;

    // What comes after it is later by its number, whatever the clock says, and a history is in that order.
    store.apply(scope, &[says(&anna, "right")]).await.expect("stored");
    let history = store.history(scope, Part::Newest, 10).await.expect("read");
    let mut by_number: Vec<_> = history.iter().map(|(message, _)| message).collect();
    by_number.sort_by_key(|message| message.id);
    assert_eq!(by_number.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(), ["ahead", "right"]);
    assert!(by_number[0].created_at - by_number[1].created_at > AHEAD - Duration::MINUTE, "each as it was written");

    // Slow mode makes nobody wait for longer than it says.
    set_ahead(&url).await;
    let terms = ChatTerms { slow_mode_s: 30, ..store.chat_terms(general.id).await.expect("read") };
    store.set_chat_terms(general.id, terms).await.expect("set");
    let applied = store.apply(scope, &[says(&anna, "too soon")]).await.expect("asked");
    assert_eq!(applied.outcomes, [Outcome::Refused(Refusal::TooSoon { seconds: 30 })]);
}
