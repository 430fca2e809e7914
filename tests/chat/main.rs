//! Chat through real sockets: a whole server on each database, and clients that know no more than the protocol says.

#[path = "../support/mod.rs"]
mod support;

mod direct;
mod history;
mod permissions;
mod presence;
mod reports;
mod resuming;
mod rooms;
mod searching;
mod webhooks;

use antiphon::settings::ConnectionUrl;

use self::support::{databases::TestDatabase, server::TestServer};

/// Runs a scenario, `async fn(&str)` with the server's URL, against a server of its own on the database.
pub(crate) async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(&str)) {
    let url: ConnectionUrl = database.url().parse().expect("a URL");
    let server = TestServer::start(|settings| settings.database.url = Some(url)).await;
    scenario(&server.url()).await;
    server.stop().await;
}
