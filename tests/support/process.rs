//! A server process on random ports with a data folder of its own, gone when dropped.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use antiphon_loadtest::ServerUrl;

/// A folder for one test, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("antiphon-test-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One of the workspace's programs, built beside the server.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_antiphon")).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `make test`, which builds it first", path.display());
    path
}

/// A running server.
pub struct Process {
    child: Child,
    told: Told,
    _data: Scratch,
}

/// Where it says that it is.
struct Told {
    http: SocketAddr,
    scheme: String,
    udp: SocketAddr,
    relay: Option<SocketAddr>,
}

impl Process {
    /// Starts one on free ports, with these environment variables besides, and waits until it says how to reach it.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        tokio::task::spawn_blocking(move || Self::start_blocking(&settings)).await.expect("it starts")
    }

    fn start_blocking(settings: &[(String, String)]) -> Self {
        let data = Scratch::new();
        let mut child = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .current_dir(data.path())
            .env("ANTIPHON_DATA_DIR", data.path().join("data"))
            .env("ANTIPHON_SERVER__PORT", "0")
            .env("ANTIPHON_SERVER__WEBSOCKET_PORT", "0")
            .env("ANTIPHON_AUDIO__UDP_PORT", "0")
            .env("ANTIPHON_LOG__LEVEL", "warn")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let told = read_addresses(child.stdout.take().expect("piped"));
        Self { child, told, _data: data }
    }

    pub fn url(&self) -> ServerUrl {
        format!("{}://{}", self.told.scheme, self.told.http).parse().expect("a URL")
    }

    /// Its id in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().expect("a child of ours").is_none() {
            assert!(std::time::Instant::now() < deadline, "it ends");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn udp_address(&self) -> SocketAddr {
        self.told.udp
    }

    /// Where the other nodes of a cluster reach it.
    pub fn relay_address(&self) -> SocketAddr {
        self.told.relay.expect("a node of a cluster")
    }

    /// The memory it occupies.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it ever occupied.
    pub fn resident_bytes_max(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(what)).expect("Linux says so");
        let kibibytes: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the server tells people on starting; a thread goes on reading, so that it never blocks.
fn read_addresses(stdout: ChildStdout) -> Told {
    let (lines, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let (mut http, mut udp, mut relay) = (None, None, None);
    loop {
        let line = told.recv_timeout(Duration::from_secs(60)).expect("the server says how to reach it");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["page", "and", "API", url, ..] => {
                let (scheme, rest) = url.split_once("://").expect("a URL");
                http = rest.strip_suffix('/').map(|address| (scheme.to_owned(), parse(address)));
            }
            ["voice", "UDP", address] => udp = Some(parse(address)),
            ["relay", "UDP", address, ..] => relay = Some(parse(address.trim_end_matches(','))),
            ["Ctrl-C", ..] => break,
            _ => {}
        }
    }
    let (scheme, http) = http.expect("told");
    Told { http, scheme, udp: udp.expect("told"), relay }
}

fn parse(address: &str) -> SocketAddr {
    address.parse().unwrap_or_else(|_| panic!("{address} is an address"))
}
