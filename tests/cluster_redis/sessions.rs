//! Records of sessions.

use std::time::Duration;

use antiphon::cluster::{ClaimRefused, Moves, Place, RedisConfig, SessionNotice, SessionRecord, TokenHashes};
use antiphon_core::{
    gateway::{Cipher, MediaMode, MediaTransport, Position},
    ids::StreamId,
};
use tokio::time::timeout;

use crate::{
    node::{CHANNEL, Node, PATIENCE, config, id, session, user},
    support::{databases::at_once, redis::RedisServer},
};

const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];
const THIRD: [u8; 32] = [3; 32];

fn tokens(current: [u8; 32]) -> TokenHashes {
    TokenHashes { current, before: None }
}

fn record(current: [u8; 32]) -> SessionRecord {
    let place = Place {
        channel: CHANNEL,
        stream: StreamId(7),
        media: MediaTransport::Udp,
        cipher: Some(Cipher::ChaCha20Poly1305),
        channels: 2,
        mode: MediaMode::Mixed,
    };
    SessionRecord {
        user: user(1),
        tokens: tokens(current),
        places: vec![place],
        texts: vec![CHANNEL],
        entries: vec![(CHANNEL, Position { epoch: "an epoch".to_owned(), offset: 7 })],
        moves: Moves::default(),
    }
}

async fn notice(node: &mut Node) -> SessionNotice {
    timeout(PATIENCE, node.session_notices.recv()).await.expect("a notice comes").expect("the node lives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_with_its_token_and_the_older_node_is_told() {
    let redis = RedisServer::start();
    let (mut a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    let unknown = b.records.claim(session(1), FIRST, tokens(SECOND)).await.map(|_| ());
    assert_eq!(unknown, Err(ClaimRefused::Unknown));
    a.records.refresh(session(1), record(FIRST)).await.expect("written");
    let wrong = b.records.claim(session(1), THIRD, tokens(SECOND)).await.map(|_| ());
    assert_eq!(wrong, Err(ClaimRefused::WrongToken));

    let claimed = b.records.claim(session(1), FIRST, tokens(SECOND)).await.expect("its token");
    assert_eq!((claimed.user, claimed.places, claimed.moves), (user(1), record(FIRST).places, Moves(1)));
    assert_eq!(notice(&mut a).await, SessionNotice::Claimed(session(1)));
    assert_eq!(a.records.refresh(session(1), record(FIRST)).await, Ok(false), "it is no longer this node's");
    let used = a.records.claim(session(1), FIRST, tokens(THIRD)).await.map(|_| ());
    assert_eq!(used, Err(ClaimRefused::WrongToken), "the token was used");

    // The token before holds as long as the node that has the session says so.
    let tokens_of_both = TokenHashes { current: THIRD, before: Some(SECOND) };
    let both = SessionRecord { tokens: tokens_of_both, moves: Moves(1), ..record(THIRD) };
    let stale = SessionRecord { moves: Moves(0), ..both.clone() };
    assert_eq!(b.records.refresh(session(1), stale).await, Ok(false), "taken up again since");
    assert_eq!(b.records.refresh(session(1), both).await, Ok(true));
    let moves = a.records.claim(session(1), SECOND, tokens(FIRST)).await.expect("it holds").moves;
    assert_eq!(moves, Moves(2));
    b.records.release(session(1)).await;
    let again = SessionRecord { moves, ..record(FIRST) };
    assert_eq!(a.records.refresh(session(1), again).await, Ok(true), "only its node can release it");
    a.records.release(session(1)).await;
    let over = b.records.claim(session(1), FIRST, tokens(SECOND)).await.map(|_| ());
    assert_eq!(over, Err(ClaimRefused::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claims_with_one_token_one_succeeds() {
    let redis = RedisServer::start();
    let (a, b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    a.records.refresh(session(1), record(FIRST)).await.expect("written");
    let records = [a.records.clone(), b.records.clone()];
    let outcomes = at_once(20, |index| {
        let records = records[index % 2].clone();
        async move { records.claim(session(1), FIRST, tokens([100 + index as u8; 32])).await.is_ok() }
    })
    .await;
    assert_eq!(outcomes.into_iter().filter(|claimed| *claimed).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_lives_as_long_as_its_node_and_the_grace() {
    let redis = RedisServer::start();
    let config = RedisConfig { session_ttl: Duration::from_millis(800), ..config(&redis.url()) };
    let (a, b) = (Node::start_with(config.clone(), "a").await, Node::start_with(config, "b").await);
    a.records.refresh(session(1), record(FIRST)).await.expect("written");
    tokio::time::sleep(Duration::from_secs(2)).await;
    b.records.claim(session(1), FIRST, tokens(SECOND)).await.expect("it is kept alive");
    b.records.refresh(session(2), record(FIRST)).await.expect("written");
    drop(b);
    let over = async {
        let is_over =
            |outcome: Result<SessionRecord, ClaimRefused>| outcome.is_err_and(|why| why == ClaimRefused::Unknown);
        while !is_over(a.records.claim(session(2), THIRD, tokens(THIRD)).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, over).await.expect("nobody keeps it alive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_its_record_is_written_is_forgotten() {
    let redis = RedisServer::start();
    let config = RedisConfig { session_ttl: Duration::from_millis(400), ..config(&redis.url()) };
    let mut a = Node::start_with(config, "a").await;
    for number in 1..=50 {
        let (written, ()) =
            tokio::join!(a.records.refresh(session(number), record(FIRST)), a.records.release(session(number)));
        written.expect("written");
    }
    let kept = timeout(Duration::from_secs(1), a.session_notices.recv()).await;
    assert!(kept.is_err(), "no record is missed: {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_records_are_asked_for_and_accounts_switched_off_everywhere() {
    let redis = RedisServer::start();
    let config = RedisConfig { session_ttl: Duration::from_millis(800), ..config(&redis.url()) };
    let (mut a, mut b) = (Node::start_with(config.clone(), "a").await, Node::start_with(config, "b").await);
    a.records.account_disabled(id(9)).await;
    assert_eq!(notice(&mut b).await, SessionNotice::AccountDisabled(id(9)));
    a.records.refresh(session(1), record(FIRST)).await.expect("written");
    redis.cli(&["del", &format!("antiphon:{{{}}}:session", session(1))]);
    assert_eq!(notice(&mut a).await, SessionNotice::Reconnected);
    assert_eq!(a.records.refresh(session(1), record(FIRST)).await, Ok(true));
    b.records.claim(session(1), FIRST, tokens(SECOND)).await.expect("it is there again");
}
