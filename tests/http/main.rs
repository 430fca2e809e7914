//! The HTTP API of a whole server through real sockets: what every route answers, what it refuses, who may do what.
//!
//! Scenarios that touch the database run on SQLite and on PostgreSQL.

mod accounts;
mod advanced;
mod audited;
mod channels;
mod client;
mod figures;
mod limits;
mod live;
mod malformed;
mod observed;
mod permissions;
mod refusals;
mod rooms;
mod tokens;

#[path = "../support/mod.rs"]
mod support;

use antiphon::settings::{ConnectionUrl, Settings};

use self::{
    client::Client,
    support::{databases::TestDatabase, server::TestServer},
};

/// Runs a scenario, `async fn(&Client)`, against a server of its own on each database.
macro_rules! on_both_databases {
    ($($scenario:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $scenario() {
                $crate::run($crate::Database::Sqlite, |_| {}, super::$scenario).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $scenario() {
                $crate::run($crate::Database::Postgres, |_| {}, super::$scenario).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;

/// Which database a server has.
#[derive(Clone, Copy)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// Runs a scenario as nobody against a new server.
pub(crate) async fn run(database: Database, change: impl FnOnce(&mut Settings), scenario: impl AsyncFnOnce(&Client)) {
    let database = match database {
        Database::Sqlite => TestDatabase::sqlite(),
        Database::Postgres => TestDatabase::postgres().await,
    };
    run_on(&database, change, scenario).await;
}

/// The same on a database that the test knows.
pub(crate) async fn run_on(
    database: &TestDatabase,
    change: impl FnOnce(&mut Settings),
    scenario: impl AsyncFnOnce(&Client),
) {
    let url: ConnectionUrl = database.url().parse().expect("a URL");
    let server = TestServer::start(|settings| {
        settings.database.url = Some(url);
        change(settings);
    })
    .await;
    scenario(&Client::new(server.url())).await;
    server.stop().await;
}
