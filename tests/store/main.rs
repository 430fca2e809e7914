//! The store, on both databases: every check here runs on SQLite and on PostgreSQL.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod channels;
mod clocks;
mod invites;
mod library;
mod logins;
mod members;
mod opening;
mod recordings;
mod statistics;
mod sweeping;

use std::future::Future;

use antiphon::store::{
    Attempt, Bucket, Channel, ChannelLimits, ChannelRole, Lifetimes, Membership, NewChannel, NewInvite, NewUser,
    Rotation, Store, User,
};
use support::databases::TestDatabase;
use time::{Duration, OffsetDateTime};

/// What a check gets: an open store, and its database.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) url: String,
}

pub(crate) async fn run<F: Future<Output = ()>>(database: TestDatabase, check: fn(Context) -> F) {
    let store = open(&database.url()).await;
    check(Context { store: store.clone(), url: database.url() }).await;
    store.close().await;
}

pub(crate) async fn open(url: &str) -> Store {
    Store::open(url).await.expect("the database opens")
}

/// Long after 1970, and the same in each run.
pub(crate) fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_900_000_000).expect("a moment")
}

pub(crate) async fn user(store: &Store, name: &str) -> User {
    store.create_user(NewUser::named(name)).await.expect("a free name")
}

pub(crate) async fn guest(store: &Store, name: &str) -> User {
    store.create_user(NewUser { is_guest: true, ..NewUser::named(name) }).await.expect("a free name")
}

pub(crate) fn new_channel(name: &str, owner: &User) -> NewChannel {
    NewChannel {
        name: name.to_owned(),
        description: String::new(),
        owner: owner.id,
        max_users: 10,
        max_speakers: 0,
        is_private: false,
    }
}

pub(crate) async fn channel(store: &Store, name: &str, owner: &User) -> Channel {
    store.create_channel(new_channel(name, owner), ChannelLimits::total(u32::MAX)).await.expect("a free name")
}

pub(crate) fn invite(channel: &Channel, by: &User) -> NewInvite {
    NewInvite { channel: channel.id, by: by.id, max_uses: None, expires_at: None }
}

pub(crate) const MEMBER: Membership = Membership { role: ChannelRole::Member, priority: false };

pub(crate) const MODERATOR: Membership = Membership { role: ChannelRole::Moderator, priority: false };

pub(crate) const OWNER: Membership = Membership { role: ChannelRole::Owner, priority: false };

pub(crate) const LIFETIMES: Lifetimes = Lifetimes { account: Duration::DAY, guest: Duration::HOUR };

pub(crate) async fn login(store: &Store, user: &User, token: u8) {
    let expires_at = start() + LIFETIMES.of(user.is_guest);
    store.start_refresh_family(user.id, [token; 32], start(), expires_at, 10).await.expect("works");
}

pub(crate) async fn refresh(store: &Store, token: u8, next: u8, now: OffsetDateTime) -> Rotation {
    store.rotate_refresh([token; 32], [next; 32], now, LIFETIMES).await.expect("the database works")
}

pub(crate) fn bucket(key: u8, failures: u32) -> Bucket {
    Bucket { key: [key; 32], failures, forgiven: Duration::MINUTE }
}

pub(crate) async fn attempt(store: &Store, buckets: &[Bucket], now: OffsetDateTime) -> Attempt {
    store.begin_login_attempt(buckets, now).await.expect("the database works")
}
