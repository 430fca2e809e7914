//! A Redis of a test's own, on a free port of this machine: killed, frozen and started again as the test likes, gone with
//! it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct RedisServer {
    /// Where it listens.
    pub port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    /// What `redis-cli` needs to reach it.
    access: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// One that keeps its data in files, as long as nobody deletes them.
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new(), &[])
    }

    /// One with further arguments, which may name files in the folder given, and what `redis-cli` needs then.
    pub fn start_with(further: impl Fn(&Path) -> Vec<String>, access: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("antiphon-redis-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).expect("a new folder");
        // Somebody else may take the port between our finding it free and the server's taking it.
        for _ in 0..20 {
            let port = free_port();
            let mut arguments: Vec<String> =
                ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"].map(str::to_owned).into();
            arguments.push(dir.display().to_string());
            let further: Vec<String> =
                further(&dir).into_iter().map(|argument| argument.replace("PORT", &port.to_string())).collect();
            if !further.iter().any(|argument| argument == "--tls-port") {
                arguments.extend(["--port".to_owned(), port.to_string()]);
            }
            // A file of settings comes before all else.
            let is_file = further.first().is_some_and(|first| first.ends_with(".conf"));
            let at = if is_file { 0 } else { arguments.len() };
            arguments.splice(at..at, further);
            let access = access.iter().map(|argument| argument.replace("DIR", &dir.display().to_string())).collect();
            let child = spawn(&dir, &arguments);
            let mut server = Self { port, dir: dir.clone(), arguments, access, child };
            if server.is_ready() {
                return server;
            }
        }
        panic!("redis-server did not start: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The folder of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was, with the data it had or without.
    pub fn start_again(&mut self, keeps_data: bool) {
        if !keeps_data {
            let _ = fs::remove_dir_all(self.dir.join("appendonlydir"));
        }
        self.child = spawn(&self.dir, &self.arguments);
        assert!(self.is_ready(), "redis-server did not start again");
    }

    /// It takes connections and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(&self.access)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether it comes to answer. False when it ends instead.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("our child").is_some() {
                return false;
            }
            if self.cli(&["ping"]).contains("PONG") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// It ends with the thread that starts it, however that ends.
fn spawn(dir: &Path, arguments: &[String]) -> Child {
    let log = fs::File::create(dir.join("log")).expect("a file");
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "redis-server"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) and redis-server run (scripts/setup test installs them)")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// A Redis Cluster of three servers.
pub struct RedisServers {
    /// Each with a third of the slots.
    pub servers: Vec<RedisServer>,
}

impl RedisServers {
    /// Three servers that know each other.
    pub fn start() -> Self {
        let arguments = |_: &Path| -> Vec<String> {
            let bus = free_port().to_string();
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus]
                .map(str::to_owned)
                .into()
        };
        let servers: Vec<RedisServer> = (0..3).map(|_| RedisServer::start_with(arguments, &[])).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(servers.iter().map(|server| format!("127.0.0.1:{}", server.port))).arg("--cluster-yes");
        let created = create.output().expect("redis-cli runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let is_ok = |server: &RedisServer| server.cli(&["cluster", "info"]).contains("cluster_state:ok");
        let deadline = Instant::now() + PATIENCE;
        while !servers.iter().all(is_ok) {
            assert!(Instant::now() < deadline, "the cluster does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { servers }
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        let node = |server: &RedisServer| format!("node=127.0.0.1:{}", server.port);
        let others: Vec<String> = self.servers[1..].iter().map(node).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.servers[0].port, others.join("&"))
    }
}

/// A server, its replica, and a sentinel that watches both.
pub struct WatchedRedis {
    /// The primary at first.
    pub primary: RedisServer,
    /// Its replica.
    pub replica: RedisServer,
    sentinel: RedisServer,
}

impl WatchedRedis {
    /// All three, once the sentinel knows the replica.
    pub fn start() -> Self {
        let primary = RedisServer::start();
        let of = primary.port.to_string();
        let replica = RedisServer::start_with(
            |_| ["--replicaof", "127.0.0.1", &of, "--repl-diskless-sync-delay", "0"].map(str::to_owned).into(),
            &[],
        );
        let sentinel = RedisServer::start_with(
            |dir| {
                let file = dir.join("sentinel.conf");
                let watch = format!(
                    "sentinel monitor voice 127.0.0.1 {of} 1\nsentinel down-after-milliseconds voice 500\n\
                     sentinel failover-timeout voice 3000\n"
                );
                fs::write(&file, watch).expect("our folder");
                vec![file.display().to_string(), "--sentinel".to_owned()]
            },
            &[],
        );
        let deadline = Instant::now() + PATIENCE;
        while !sentinel.cli(&["sentinel", "replicas", "voice"]).contains(&replica.port.to_string())
            || !replica.cli(&["info", "replication"]).contains("master_link_status:up")
        {
            assert!(Instant::now() < deadline, "the sentinel does not learn of the replica");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { primary, replica, sentinel }
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=voice", self.sentinel.port)
    }
}
