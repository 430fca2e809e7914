//! Connections to either database, and the little in which the two differ.

use std::{
    fs::OpenOptions,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    str::FromStr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Pool, Postgres, SqlSafeStr, Sqlite, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tracing::log::LevelFilter;

use super::{Result, StoreError};

/// A pool of connections to one kind of database.
#[derive(Clone, Debug)]
pub(super) enum Pools {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
}

/// Runs `$body` with `$db` bound to the pool, whichever kind it is.
macro_rules! on_db {
    ($pools:expr, |$db:ident| $body:expr) => {
        match $pools {
            $crate::store::pools::Pools::Sqlite($db) => $body,
            $crate::store::pools::Pools::Postgres($db) => $body,
        }
    };
}
pub(super) use on_db;

/// Runs `$body` with `$tx` bound to a transaction that may write, which `$body` commits; what isn't committed is
/// undone. When the database undid it to break a deadlock, it runs again.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $body:block) => {
        $crate::store::pools::on_db!(&$store.writers, |db| {
            let mut tries_left = $crate::store::pools::TRIES;
            loop {
                let outcome: $crate::store::Result<_> = async {
                    let mut $tx = $crate::store::pools::begin(db).await?;
                    $body
                }
                .await;
                tries_left -= 1;
                match outcome {
                    Err($crate::store::StoreError::Interrupted) if tries_left > 0 => {}
                    outcome => break outcome,
                }
            }
        })
    };
}
pub(super) use transaction;

/// How often a transaction is tried that the database undoes for another's sake.
pub(super) const TRIES: u32 = 5;

/// What the two databases call differently.
pub(super) trait Dialect: sqlx::Database {
    /// Begins a transaction that will write. SQLite takes its one write lock here, so that no transaction fails
    /// half-way for having read before another wrote.
    const BEGIN: &'static str;

    /// Asks for the time, in microseconds since 1970.
    const CLOCK: &'static str;

    /// Until the transaction ends, no other one that asks for the same `lock` goes on. Within SQLite's write lock that
    /// holds anyway.
    fn lock(transaction: &mut Transaction<'static, Self>, lock: Lock) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Draws so many numbers for messages, growing: higher than all that were drawn before this was asked.
    fn draw(
        transaction: &mut Transaction<'static, Self>,
        count: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<i64>>> + Send;

    /// Looks for messages with all words of `$1`, as [`Dialect::all_words`] puts them, in the channels whose ids, without
    /// hyphens, stand in `$2` with spaces between, or between `$3` and others, before `$4`, at most `$5`.
    const SEARCH: &'static str;

    /// Normalised words, at least one, as the database's search wants them.
    fn all_words(words: &[String]) -> String;
}

/// What only one transaction at a time may count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lock {
    /// Accounts: which one is the first.
    Accounts = 0x616e_7401,
    /// Channels: how many there are.
    Channels = 0x616e_7402,
    /// Guests: how many there are.
    Guests = 0x616e_7403,
    /// Messages that have had their time.
    Retention = 0x616e_7404,
    /// Push subscriptions: how many somebody has.
    Push = 0x616e_7405,
    /// Codes that confirm addresses: how many were sent.
    Codes = 0x616e_7406,
    /// Uploads: how much there is of them.
    Uploads = 0x616e_7408,
    /// Recordings: how many go on, and how much there is of them.
    Recordings = 0x616e_7409,
}

impl Dialect for Sqlite {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const CLOCK: &'static str = "SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)";

    async fn lock(_: &mut Transaction<'static, Self>, _: Lock) -> sqlx::Result<()> {
        Ok(())
    }

    async fn draw(transaction: &mut Transaction<'static, Self>, count: i64) -> sqlx::Result<Vec<i64>> {
        let draw = "UPDATE chat_ids SET last = last + $1 RETURNING last";
        let last: i64 = sqlx::query_scalar(draw).bind(count).fetch_one(&mut **transaction).await?;
        Ok((last - count + 1..=last).collect())
    }

    const SEARCH: &'static str =
        "SELECT messages.id, channel_id, low_id, high_id, from_id, username, content, mentions, reply_to, created_us,
             edited_us, deleted_by, changed_id
         FROM messages JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id
         WHERE messages.id IN (SELECT rowid FROM message_words WHERE message_words MATCH $1)
             AND (channel_id IS NOT NULL AND instr($2, lower(hex(channel_id))) > 0 OR low_id = $3 OR high_id = $3)
             AND messages.id < $4 ORDER BY messages.id DESC LIMIT $5";

    fn all_words(words: &[String]) -> String {
        words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" ")
    }
}

impl Dialect for Postgres {
    const BEGIN: &'static str = "BEGIN";
    const CLOCK: &'static str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

    async fn lock(transaction: &mut Transaction<'static, Self>, lock: Lock) -> sqlx::Result<()> {
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock as i64).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn draw(transaction: &mut Transaction<'static, Self>, count: i64) -> sqlx::Result<Vec<i64>> {
        let draw = "SELECT nextval('chat_ids') FROM generate_series(1, $1)";
        let mut drawn: Vec<i64> = sqlx::query_scalar(draw).bind(count).fetch_all(&mut **transaction).await?;
        drawn.sort_unstable();
        Ok(drawn)
    }

    const SEARCH: &'static str =
        "SELECT messages.id, channel_id, low_id, high_id, from_id, username, content, mentions, reply_to, created_us,
             edited_us, deleted_by, changed_id
         FROM messages JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id
         WHERE array_to_tsvector(string_to_array(messages.words, ' ')) @@ CAST($1 AS tsquery)
             AND (channel_id = ANY (CAST(string_to_array($2, ' ') AS uuid[])) OR low_id = $3 OR high_id = $3)
             AND messages.id < $4 ORDER BY messages.id DESC LIMIT $5";

    fn all_words(words: &[String]) -> String {
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" & ")
    }
}

/// What the database's clock shows, in microseconds since 1970.
pub(super) async fn clock<DB>(pool: &Pool<DB>) -> Result<i64>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
    for<'q> DB::Arguments: sqlx::IntoArguments<DB>,
    i64: sqlx::Type<DB> + for<'r> sqlx::Decode<'r, DB>,
    usize: sqlx::ColumnIndex<DB::Row>,
{
    let mut connection = pool.acquire().await?;
    Ok(sqlx::query_scalar(DB::CLOCK).fetch_one(&mut *connection).await?)
}

/// Begins a transaction that will write.
pub(super) async fn begin<DB: Dialect>(pool: &Pool<DB>) -> Result<Transaction<'static, DB>> {
    Ok(pool.begin_with(DB::BEGIN).await?)
}

/// How long a method waits for a connection, and SQLite for another process to finish writing.
const WAIT: Duration = Duration::from_secs(5);
/// How long one waits before trying again to open a file that another one is opening.
const RETRY: Duration = Duration::from_millis(20);
/// How long one statement may take in PostgreSQL.
const STATEMENT_TIMEOUT: &str = "10s";
/// A statement slower than this is logged (without its values).
const SLOW: Duration = Duration::from_millis(500);

/// Opens the pools of writers and of readers, with the tables up to date.
pub(super) async fn open(url: &str, connections: u32) -> Result<(Pools, Pools)> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => open_sqlite(url, connections).await,
        Some("postgres" | "postgresql") => open_postgres(url, connections).await,
        _ => Err(StoreError::Corrupt("the URL must begin with sqlite: or postgres:".to_owned())),
    }
}

async fn open_sqlite(url: &str, connections: u32) -> Result<(Pools, Pools)> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(open_error)?
        .create_if_missing(false)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What is answered is on the disk: with less, power that fails takes the last changes with it.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(WAIT)
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Warn, SLOW);
    let is_in_memory = url.contains(":memory:") || url.contains("mode=memory");
    if !is_in_memory {
        make_file(options.get_filename())?;
    }
    let pool = while_in_place(options.get_filename());
    // A connection that is closed takes a database in memory with it, so that one has a single connection that stays.
    let one = pool.clone().max_connections(1).acquire_timeout(WAIT).idle_timeout(None).max_lifetime(None);
    let writers = connect_first(one, &options).await?;
    migrate_sqlite(&writers).await?;
    let readers = if is_in_memory {
        writers.clone()
    } else {
        let many = pool.max_connections(connections.saturating_sub(1).max(1));
        many.acquire_timeout(WAIT).connect_with(options).await.map_err(open_error)?
    };
    Ok((Pools::Sqlite(writers), Pools::Sqlite(readers)))
}

/// Connects to a file that others may be opening, too. Who is first switches a new one to its log, and for that moment
/// SQLite sends the others away at once instead of having them wait.
async fn connect_first(pool: PoolOptions<Sqlite>, options: &SqliteConnectOptions) -> Result<Pool<Sqlite>> {
    let given_up = Instant::now() + WAIT;
    loop {
        match pool.clone().connect_with(options.clone()).await.map_err(open_error) {
            Err(StoreError::Unavailable(_)) if Instant::now() < given_up => tokio::time::sleep(RETRY).await,
            outcome => return outcome,
        }
    }
}

/// Makes the database's file, when there is none, such that only its owner may read it: it will hold password hashes.
/// SQLite gives its companions the same rights. SQLite itself makes no file: were this one taken away, a new one in its
/// place would be empty, and no database is better.
fn make_file(path: &Path) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(StoreError::Corrupt(format!("cannot make the file {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Pools that give up connections to `file` once it is another than at their first use, or none: what they wrote would
/// be lost.
fn while_in_place(file: &Path) -> PoolOptions<Sqlite> {
    let (file, known) = (file.to_owned(), OnceLock::new());
    // A connection was asked how it is when it was given back, and no file goes away as a server does.
    PoolOptions::new().test_before_acquire(false).before_acquire(move |_, _| {
        // A database in memory is no file, then as now.
        let now = identity(&file);
        let in_place = *known.get_or_init(|| now) == now;
        Box::pin(async move { Ok(in_place) })
    })
}

/// What tells a file from another that has its path later.
fn identity(file: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(file).ok().map(|found| (found.dev(), found.ino()))
}

/// Brings the tables up to date. Only PostgreSQL keeps two processes from doing so at once: here the slower one of a step fails,
/// and finds that step done when it looks again, so it fails at most once for each.
async fn migrate_sqlite(pool: &Pool<Sqlite>) -> Result<()> {
    let mut connection = pool.acquire().await.map_err(open_error)?;
    let mut outcome = Ok(());
    for _ in 0..=SQLITE.len() {
        outcome = migrator(SQLITE).run_direct(None, &mut *connection, false).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(|error| migrate_error(&error))
}

async fn open_postgres(url: &str, connections: u32) -> Result<(Pools, Pools)> {
    let options = PgConnectOptions::from_str(url)
        .map_err(open_error)?
        .application_name("antiphon")
        .options([("statement_timeout", STATEMENT_TIMEOUT)])
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Warn, SLOW);
    // The tables are brought up to date on a connection of its own: that may take longer than a statement usually may.
    let mut connection = options.clone().options([("statement_timeout", "0")]).connect().await.map_err(open_error)?;
    // `run` takes what is generic in a way that keeps this future from being `Send`.
    migrator(POSTGRES).run_direct(None, &mut connection, false).await.map_err(|error| migrate_error(&error))?;
    connection.close().await?;
    let pool = PoolOptions::<Postgres>::new().max_connections(connections).acquire_timeout(WAIT);
    let pool = pool.connect_with(options).await.map_err(open_error)?;
    Ok((Pools::Postgres(pool.clone()), Pools::Postgres(pool)))
}

/// Why a database cannot be opened: what may pass by itself, or what is wrong with the URL.
fn open_error(error: sqlx::Error) -> StoreError {
    let text = error.to_string();
    match StoreError::from(error) {
        StoreError::Unavailable(text) => StoreError::Unavailable(text),
        _ => StoreError::Corrupt(text),
    }
}

fn migrate_error(error: &sqlx::migrate::MigrateError) -> StoreError {
    StoreError::Corrupt(format!("cannot bring its tables up to date: {error}"))
}

/// The files of `migrations/`, by version.
type Migrations = &'static [(i64, &'static str, &'static str)];

macro_rules! migrations {
    ($folder:literal: $($version:literal $name:literal),+) => {
        &[$(($version, $name, include_str!(concat!("../../migrations/", $folder, "/", $name, ".sql")))),+]
    };
}

const SQLITE: Migrations = migrations!("sqlite": 1 "0001_accounts_and_channels", 2 "0002_server_mutes",
    3 "0003_statistics_and_audit", 4 "0004_chat", 5 "0005_rooms", 6 "0006_webhooks",
    7 "0007_notifications", 8 "0008_audio_files", 9 "0009_notification_bounds",
    10 "0010_recordings", 12 "0012_what_was_told", 13 "0013_codes_and_presence",
    14 "0014_webhook_makers", 15 "0015_waiting_tracks", 16 "0016_handled_reports");
const POSTGRES: Migrations = migrations!("postgres": 1 "0001_accounts_and_channels", 2 "0002_server_mutes",
    3 "0003_statistics_and_audit", 4 "0004_chat", 5 "0005_rooms", 6 "0006_webhooks",
    7 "0007_notifications", 8 "0008_audio_files", 9 "0009_notification_bounds",
    10 "0010_recordings", 12 "0012_what_was_told", 13 "0013_codes_and_presence",
    14 "0014_webhook_makers", 15 "0015_waiting_tracks", 16 "0016_handled_reports");

fn migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|(version, name, sql)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A node of the release before may start again after one of the next has been here.
    migrator.set_ignore_missing(true);
    migrator
}

/// The versions of this release's migrations.
pub(super) fn migration_versions() -> impl Iterator<Item = i64> {
    SQLITE.iter().map(|(version, ..)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_answers_when_a_change_is_on_the_disk() {
        let file = std::env::temp_dir().join(format!("antiphon-pools-{}.db", uuid::Uuid::now_v7()));
        let (writers, _) = open(&format!("sqlite:{}", file.display()), 2).await.expect("opens");
        let Pools::Sqlite(writers) = writers else { panic!("SQLite") };
        let level: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&writers).await.expect("works");
        assert_eq!(level, 2, "FULL");
        writers.close().await;
        for companion in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{companion}", file.display()));
        }
    }

    #[test]
    fn both_databases_have_the_same_migrations() {
        let names =
            |migrations: Migrations| migrations.iter().map(|(version, name, _)| (*version, *name)).collect::<Vec<_>>();
        assert_eq!(names(SQLITE), names(POSTGRES));
        for folder in ["sqlite", "postgres"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let files = std::fs::read_dir(path).expect("the folder is there");
            let mut files: Vec<_> =
                files.map(|file| file.expect("readable").file_name().into_string().expect("UTF-8")).collect();
            files.sort();
            let listed: Vec<_> = SQLITE.iter().map(|(_, name, _)| format!("{name}.sql")).collect();
            assert_eq!(files, listed, "every file of migrations/{folder} is listed, in order");
        }
    }
}
