//! `antiphon doctor` and `antiphon health` as a person runs them, beside real servers, with what is wrong made so on purpose.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use crate::support::{
    databases::TestDatabase,
    network::ReservedPort,
    process::{Process, Scratch},
    redis::RedisServer,
    smtp::MailServer,
};
use serde_json::Value;

/// Free ports for a node that is not started, and a folder for it.
struct Place {
    scratch: Scratch,
    settings: Vec<(String, String)>,
    _ports: Vec<ReservedPort>,
}

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut place = Self { settings: Vec::new(), _ports: Vec::new(), scratch };
        place.set("ANTIPHON_DATA_DIR", &place.scratch.path().join("data").display().to_string());
        for name in ["SERVER__PORT", "SERVER__WEBSOCKET_PORT", "AUDIO__UDP_PORT", "CLUSTER__RELAY_PORT"] {
            let port = ReservedPort::take().expect("a port");
            place.set(&format!("ANTIPHON_{name}"), &port.port().to_string());
            place._ports.push(port);
        }
        place
    }

    fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    fn value(&self, name: &str) -> &str {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).expect("set")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.args(arguments).current_dir(self.scratch.path()).env_clear();
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).output().expect("it runs")
    }

    /// What the doctor found, and whether it said that all is well.
    fn examined(&self) -> (Vec<Found>, bool) {
        let output = self.run(&["doctor", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("findings").iter().map(Found::of).collect();
        let code = output.status.code().expect("no signal");
        assert!(code < 2, "{code}");
        (findings, code == 0)
    }

    /// The finding of a group that says something, which must have this verdict.
    fn finds(&self, group: &str, verdict: &str, said: &str) -> Found {
        let (findings, is_well) = self.examined();
        let fails = findings.iter().any(|finding| finding.verdict == "fail");
        assert_eq!(is_well, !fails, "the exit code says so: {findings:#?}");
        let found = findings.iter().find(|finding| finding.group == group && finding.found.contains(said));
        let found = found.unwrap_or_else(|| panic!("{group}: {said} in {findings:#?}")).clone();
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert_eq!(found.fix.is_empty(), verdict == "ok", "{found:?}");
        found
    }
}

#[derive(Clone, Debug)]
struct Found {
    group: String,
    verdict: String,
    found: String,
    fix: String,
}

impl Found {
    fn of(finding: &Value) -> Self {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        Self { group: text("group"), verdict: text("verdict"), found: text("found"), fix: text("fix") }
    }
}

#[test]
fn a_node_on_its_own_that_can_start_is_well_and_nothing_is_made() {
    let place = Place::new();
    let (findings, is_well) = place.examined();
    assert!(is_well, "{findings:#?}");
    for group in ["settings", "secrets", "data", "tls", "machine", "ports", "addresses", "database", "redis"] {
        assert!(findings.iter().any(|finding| finding.group == group), "{group} in {findings:#?}");
    }
    assert_eq!(fs::read_dir(place.scratch.path()).expect("our folder").count(), 0, "nothing was made");
    let table = String::from_utf8(place.run(&["doctor"]).stdout).expect("text");
    assert!(table.lines().last().expect("lines").ends_with("0 wrong"), "{table}");
}

#[test]
fn wrong_settings_are_all_that_is_told() {
    let mut place = Place::new();
    place.set("ANTIPHON_SERVER__HOST", "nowhere");
    let found = place.finds("settings", "fail", "server.host must be an IP address");
    assert!(found.fix.contains("docs/configuration.md"));
    assert_eq!(place.examined().0.len(), 1);
}

#[test]
fn taken_ports_are_told() {
    let mut place = Place::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    place.set("ANTIPHON_SERVER__PORT", &tcp.local_addr().expect("bound").port().to_string());
    place.set("ANTIPHON_AUDIO__UDP_PORT", &udp.local_addr().expect("bound").port().to_string());
    // Whoever has the port says nothing.
    drop(tcp.accept_one_and_close());
    place.finds("ports", "fail", "(server.port) is taken by something else");
    place.finds("ports", "fail", "(audio.udp_port) is taken by something else");
    place.finds("ports", "ok", "(server.websocket_port) is free");
}

/// Takes connections in a thread and closes them at once, so that whoever asks there need not wait.
trait AcceptOne {
    fn accept_one_and_close(&self) -> std::thread::JoinHandle<()>;
}

impl AcceptOne for TcpListener {
    fn accept_one_and_close(&self) -> std::thread::JoinHandle<()> {
        let listener = self.try_clone().expect("a copy");
        std::thread::spawn(move || while listener.accept().is_ok() {})
    }
}

#[test]
fn a_data_dir_and_its_disk_are_looked_at() {
    let mut place = Place::new();
    let folder = place.scratch.path().join("open");
    fs::create_dir(&folder).expect("our folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("ours");
    place.set("ANTIPHON_DATA_DIR", &folder.display().to_string());
    let found = place.finds("data", "warn", "others may look into");
    assert!(found.fix.starts_with("chmod 700"));
    place.set("ANTIPHON_DATA_DIR", "/proc/antiphon");
    place.finds("data", "fail", "/proc cannot be written");
    fs::write(place.scratch.path().join("file"), "").expect("our folder");
    place.set("ANTIPHON_DATA_DIR", &place.scratch.path().join("file").display().to_string());
    place.finds("data", "fail", "is no folder");
}

#[test]
fn a_certificate_is_looked_at() {
    let mut place = Place::new();
    let (certificate, key) = (place.scratch.path().join("c.pem"), place.scratch.path().join("k.pem"));
    place.set("ANTIPHON_SERVER__TLS_CERTIFICATE", &certificate.display().to_string());
    place.set("ANTIPHON_SERVER__TLS_KEY", &key.display().to_string());
    place.finds("tls", "fail", "No such file");
    let issue = |days: i64| {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(60);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days) + time::Duration::hours(1);
        let pair = rcgen::KeyPair::generate().expect("a key");
        fs::write(&certificate, params.self_signed(&pair).expect("signed").pem()).expect("our folder");
        fs::write(&key, pair.serialize_pem()).expect("our folder");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
    };
    issue(90);
    place.finds("tls", "ok", "is valid for 90 more days");
    for (url, verdict, said) in [
        ("https://localhost:3000/", "ok", "the certificate is for localhost"),
        ("https://voice.example.org", "warn", "the certificate is not for voice.example.org"),
        ("http://localhost:3000", "warn", "and the node speaks TLS"),
    ] {
        place.set("ANTIPHON_CLUSTER__HTTP_URL", url);
        place.finds("tls", verdict, said);
    }
    issue(3);
    place.finds("tls", "warn", "is valid for 3 more days");
    issue(-2);
    place.finds("tls", "fail", "has run out");
    place.set("ANTIPHON_CLUSTER__CA_FILE", &key.display().to_string());
    place.finds("tls", "fail", "(cluster.ca_file): it holds no certificate in PEM form");
    place.set("ANTIPHON_CLUSTER__CA_FILE", &certificate.display().to_string());
    place.finds("tls", "ok", "is what other nodes' certificates must be signed by");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    place.finds("tls", "warn", "everybody on this machine may read");
}

#[test]
fn addresses_that_lead_nowhere_are_told() {
    let mut place = Place::new();
    let port = place.value("ANTIPHON_AUDIO__UDP_PORT").to_owned();
    place.set("ANTIPHON_AUDIO__ADVERTISE", &format!("127.0.0.1:{port}"));
    place.finds("addresses", "ok", "and a datagram to it arrives here");
    place.set("ANTIPHON_AUDIO__ADVERTISE", "127.0.0.1:9");
    place.finds("addresses", "warn", "a datagram to it from here does not arrive");
    place.set("ANTIPHON_AUDIO__ADVERTISE", &format!("0.0.0.0:{port}"));
    place.finds("addresses", "fail", "is no address to send to");
    place.set("ANTIPHON_AUDIO__ADVERTISE", "voice.invalid:3002");
    place.finds("addresses", "fail", "voice.invalid:3002 leads nowhere");
    place.set("ANTIPHON_AUDIO__ADVERTISE", &format!("127.0.0.1:{port}"));
    place.set("ANTIPHON_SERVER__HOST", "0.0.0.0");
    place.finds("addresses", "fail", "leads others to their own machine");
    place.finds("tls", "warn", "in the clear");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_share_is_asked() {
    let (redis, database) = (RedisServer::start(), TestDatabase::postgres().await);
    let mut place = Place::new();
    place.set("REDIS_URL", &format!("redis://127.0.0.1:{}", redis.port));
    place.set("DATABASE_URL", &database.url());
    place.set("JWT_SECRET", "Zt4oQvTgu8mYw1xK0sLr2bNc6dPe9fHj");
    place.set("ANTIPHON_CLUSTER__SECRET", "Jk7pWnRz3cVb5tQx9aSd1fGh2mLy8uEo");
    let (findings, is_well) = place.examined();
    assert!(is_well, "{findings:#?}");
    place.finds("database", "ok", "is PostgreSQL ");
    place.finds("database", "ok", "migrations are applied at the next start");
    place.finds("redis", "ok", "is Redis ");
    place.finds("redis", "ok", "keeps its data over a restart");
    place.finds("clock", "ok", "the database's clock is ");
    place.finds("clock", "ok", "Redis' clock is ");
    place.finds("secrets", "ok", "cluster.secret has the fingerprint ");

    antiphon::store::Store::open(&database.url()).await.expect("opens").close().await;
    place.finds("database", "ok", "migrations are applied");
    place.set("ANTIPHON_DATABASE__MAX_CONNECTIONS", "1000");
    place.finds("database", "warn", "one node may want 1000");

    let evicting = RedisServer::start_with(
        |_| ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"].map(str::to_owned).into(),
        &[],
    );
    place.set("REDIS_URL", &format!("redis://127.0.0.1:{}", evicting.port));
    place.finds("redis", "fail", "it throws away what nodes share");
    place.set("REDIS_URL", &format!("redis://127.0.0.1:{}", ReservedPort::take().expect("a port").port()));
    place.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    place.finds("redis", "fail", "redis://127.0.0.1:");
    place.finds("database", "fail", "postgres://nobody@127.0.0.1:1/nothing");
    place.set("ANTIPHON_CLUSTER__SECRET", "change-me-to-something-of-thirty-two-bytes");
    place.finds("secrets", "fail", "cluster.secret looks like one of an example");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_the_node_that_runs() {
    let mut place = Place::new();
    let none = place.run(&["health"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("nobody answers at http://127.0.0.1:"));
    let node = Process::start(&[]).await;
    let http = node.url().http("/").port().expect("a port").to_string();
    place.set("ANTIPHON_SERVER__PORT", &http);
    place.set("ANTIPHON_AUDIO__UDP_PORT", &node.udp_address().port().to_string());
    for arguments in [["health"].as_slice(), &["health", "live"], &["health", "ready"]] {
        assert!(place.run(arguments).status.success(), "{arguments:?}");
    }
    // The doctor beside it.
    place.finds("ports", "ok", "(server.port) is taken, and a node answers here");
    place.finds("ports", "ok", "(audio.udp_port) is taken, and a node answers here");
}

#[tokio::test]
async fn a_mail_server_is_asked() {
    let mut place = Place::new();
    let mut mail = MailServer::start().await;
    place.set("SMTP_URL", &mail.url());
    place.set("SMTP_FROM", "voice@example.org");
    place.finds("mail", "ok", "takes connections");
    place.finds("mail", "warn", "no link");
    mail.kill();
    place.finds("mail", "fail", "onnection");
}
