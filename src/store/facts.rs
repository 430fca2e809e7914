//! What a database says of itself, for whoever sets it up. Nothing is changed or made.

use std::{
    collections::BTreeSet,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};

use super::{Result, StoreError, pools};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a database says of itself.
#[derive(Clone, Debug)]
pub struct DatabaseFacts {
    /// Its kind and release.
    pub version: String,
    /// How many of this release's migrations were applied.
    pub migrations_applied: usize,
    /// Those that the next start will apply.
    pub migrations_pending: usize,
    /// Those that only a later release knows.
    pub migrations_unknown: usize,
    /// How many connections it takes, from all clients together; none where that has no limit.
    pub connections_max: Option<u32>,
    /// How far its clock is ahead of this machine's, in seconds, half a round trip more or less; none on this machine.
    pub clock_ahead_s: Option<f64>,
}

impl DatabaseFacts {
    /// Asks the database at `url`, as [`super::Store::open`] takes it.
    ///
    /// # Errors
    /// When it cannot be reached, or is none.
    pub async fn ask(url: &str) -> Result<Self> {
        let asking = async { if url.starts_with("sqlite:") { ask_sqlite(url).await } else { ask_postgres(url).await } };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unavailable("no answer".to_owned())),
        }
    }

    fn new(version: String, applied: &[i64]) -> Self {
        let known: BTreeSet<i64> = pools::migration_versions().collect();
        let applied: BTreeSet<i64> = applied.iter().copied().collect();
        Self {
            version,
            migrations_applied: known.intersection(&applied).count(),
            migrations_pending: known.difference(&applied).count(),
            migrations_unknown: applied.difference(&known).count(),
            connections_max: None,
            clock_ahead_s: None,
        }
    }
}

async fn ask_sqlite(url: &str) -> Result<DatabaseFacts> {
    let options = SqliteConnectOptions::from_str(url)?.create_if_missing(false);
    let mut database: SqliteConnection = options.connect().await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut database).await?;
    let table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')";
    let applied = if sqlx::query_scalar(table).fetch_one(&mut database).await? {
        sqlx::query_scalar(APPLIED).fetch_all(&mut database).await?
    } else {
        Vec::new()
    };
    database.close().await?;
    Ok(DatabaseFacts::new(format!("SQLite {version}"), &applied))
}

async fn ask_postgres(url: &str) -> Result<DatabaseFacts> {
    let mut database: PgConnection =
        PgConnectOptions::from_str(url)?.application_name("antiphon doctor").connect().await?;
    let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut database).await?;
    let connections: String = sqlx::query_scalar("SHOW max_connections").fetch_one(&mut database).await?;
    let asked = now_s();
    let there: f64 =
        sqlx::query_scalar("SELECT EXTRACT(EPOCH FROM clock_timestamp())::float8").fetch_one(&mut database).await?;
    let middle = f64::midpoint(asked, now_s());
    let table = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let applied = if sqlx::query_scalar(table).fetch_one(&mut database).await? {
        sqlx::query_scalar(APPLIED).fetch_all(&mut database).await?
    } else {
        Vec::new()
    };
    database.close().await?;
    Ok(DatabaseFacts {
        connections_max: connections.parse().ok(),
        clock_ahead_s: Some(there - middle),
        ..DatabaseFacts::new(format!("PostgreSQL {version}"), &applied)
    })
}

/// The versions of migrations that were applied whole.
const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
