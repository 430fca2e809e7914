//! Until when people were there whose only node is killed.

use antiphon::store::Store;
use serde_json::json;
use time::OffsetDateTime;

use crate::support::{
    chatters::{Chatter, is_seen_between, seen_after_coming},
    databases::TestDatabase,
    process::Process,
};

fn url(process: &Process) -> String {
    process.url().http("").to_string().trim_end_matches('/').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_there_when_the_process_was_killed_was_seen_until_then() {
    let database = TestDatabase::sqlite();
    let database_url = database.url();
    let settings = [("DATABASE_URL", database_url.as_str())];
    let mut process = Process::start(&settings).await;
    let bob = Chatter::guest(&url(&process), "bob").await;
    let store = Store::open(&database_url).await.expect("opens");
    let alive = seen_after_coming(&store, &bob).await;
    process.kill();
    let killed = OffsetDateTime::now_utc();
    let process = Process::start(&settings).await;
    let mut alice = Chatter::guest(&url(&process), "alice").await;
    let seen = alice.ask(json!({"type": "presence", "users": [bob.id()]})).await["data"][0].clone();
    assert_eq!(seen["online"], false, "{seen}");
    assert!(is_seen_between(&seen, alive, killed), "{seen}: alive at {alive}, killed at {killed}");
    // And when the dead process is forgotten.
    let settled = store.settle_presence(killed).await.expect("works");
    assert_eq!(settled, 1);
    let seen = alice.ask(json!({"type": "presence", "users": [bob.id()]})).await["data"][0].clone();
    assert!(is_seen_between(&seen, alive, killed), "{seen}");
    store.close().await;
}
