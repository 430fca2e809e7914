//! A PostgreSQL of the tests' own: started when a test first needs it, shared by the tests that run beside it, gone
//! with the last.
//!
//! It listens on a Unix socket in a folder of its own and on no port, so that any number of test binaries can run at
//! once.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak, mpsc},
    thread::JoinHandle,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The user and group called nobody, as which PostgreSQL runs where tests run as root: it refuses to run as root
/// itself.
const NOBODY: u32 = 65_534;

/// A database that no other test uses. The server runs at least as long as this lives.
pub struct PostgresDatabase {
    /// For `DATABASE_URL`.
    pub url: String,
    _server: Arc<Server>,
}

/// Makes a new, empty database.
pub async fn fresh_database() -> PostgresDatabase {
    let server = Server::shared();
    let name = format!("t{}", uuid::Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&server.url("postgres")).await.expect("the server takes connections");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.expect("a database");
    connection.close().await.expect("a clean end");
    PostgresDatabase { url: server.url(&name), _server: server }
}

impl PostgresDatabase {
    /// Ends all connections to it and lets no new one in, or lets them in again: as if the server were away, for this
    /// database alone.
    pub async fn set_away(&self, is_away: bool) {
        let name = self.url.split(['?']).next().and_then(|url| url.rsplit('/').next()).expect("a name");
        let mut connection =
            PgConnection::connect(&self._server.url("postgres")).await.expect("the server takes connections");
        let allow = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !is_away);
        sqlx::raw_sql(AssertSqlSafe(allow)).execute(&mut connection).await.expect("set");
        if is_away {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
            sqlx::query(end).bind(name).execute(&mut connection).await.expect("ended");
        }
        connection.close().await.expect("a clean end");
    }
}

/// A running server. Dropping it stops the server and removes its files.
struct Server {
    dir: PathBuf,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The one that runs, or a new one.
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.dir.display())
    }

    fn start() -> Self {
        let programs = programs();
        let dir = std::env::temp_dir().join(format!("antiphon-pg-{:08x}", uuid::Uuid::now_v7().as_u128() as u32));
        fs::create_dir(&dir).expect("a new folder");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("our folder");
        let is_root = fs::metadata("/proc/self").expect("Linux").uid() == 0;
        if is_root {
            chown(&dir, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(&dir).stdin(Stdio::null());
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let data = dir.join("data");
        let made = command(&programs.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "--encoding=UTF8", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        // PostgreSQL is told to stop when the thread that started it ends, which a killed test process brings about,
        // too.
        let mut postgres = command(Path::new("setpriv"));
        postgres.args(["--pdeathsig", "INT"]).arg(programs.join("postgres"));
        postgres.arg("-D").arg(&data).arg("-k").arg(&dir).args(["-c", "listen_addresses="]);
        for setting in [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "shared_buffers=32MB",
            "max_connections=300",
        ] {
            postgres.args(["-c", setting]);
        }
        postgres.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut stop_postgres = command(&programs.join("pg_ctl"));
        stop_postgres.args(["stop", "--mode=immediate", "--wait", "-D"]).arg(&data).stdout(Stdio::null());
        let (stop, stopped) = mpsc::channel();
        let (tell_ready, ready) = mpsc::channel();
        let files = dir.clone();
        let keeper = std::thread::spawn(move || {
            let mut child = postgres.spawn().expect("setpriv (util-linux) and postgres run");
            wait_until_ready(&mut child);
            tell_ready.send(()).expect("somebody waits");
            // Nothing is ever sent: this ends when the sender is dropped. Killed, PostgreSQL would leave shared memory
            // behind.
            let _ = stopped.recv();
            if !stop_postgres.status().is_ok_and(|status| status.success()) {
                let _ = child.kill();
            }
            let _ = child.wait();
            let _ = fs::remove_dir_all(files);
        });
        ready.recv().expect("PostgreSQL says that it is ready");
        Self { dir, stop: Some(stop), keeper: Some(keeper) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Reads what the server says until it says that it is ready; the rest is read away, so that it can go on saying
/// things.
fn wait_until_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut said = String::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        if line.contains("ready to accept connections") {
            std::thread::spawn(move || lines.for_each(drop));
            return;
        }
        said.push_str(&line);
        said.push('\n');
    }
    panic!("PostgreSQL did not start:\n{said}");
}

/// The folder of PostgreSQL's programs: Debian's, of the newest version there is, or the one in the path.
fn programs() -> PathBuf {
    let version = |path: &PathBuf| -> Option<u32> { path.parent()?.file_name()?.to_str()?.parse().ok() };
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let newest = debian.filter(|path| path.join("initdb").exists()).max_by_key(version);
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest
        .or_else(|| std::env::split_paths(&path).find(|path| path.join("initdb").exists()))
        .expect("PostgreSQL's programs are installed (Debian: apt-get install postgresql; scripts/setup does it)")
}
