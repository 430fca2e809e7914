//! How a server starts, drains and stops, as a process and with real signals.

mod priorities;
mod private_logs;
mod seen;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader, Read},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use antiphon_core::gateway::{Encoding, JoinChannel, MediaMode, MediaTransport, ServerMessage};
use antiphon_loadtest::{
    client::{Client, ClientEvent},
    gateway::{GatewayConfig, Identity},
    rest::{NewChannel, Rest},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{databases::TestDatabase, server::TestServer};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

/// What happens at all happens within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server's program with settings of a test.
struct Program {
    child: Child,
    data_dir: PathBuf,
}

impl Program {
    /// Starts it on free ports, unless `settings` say otherwise.
    fn start(settings: &[(&str, &str)]) -> Self {
        let data_dir = std::env::temp_dir().join(format!("antiphon-lifecycle-{}", Uuid::new_v4()));
        let child = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .env_clear()
            .env("ANTIPHON_DATA_DIR", &data_dir)
            .env("ANTIPHON_SERVER__PORT", "0")
            .env("ANTIPHON_SERVER__WEBSOCKET_PORT", "0")
            .env("ANTIPHON_AUDIO__UDP_PORT", "0")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is there");
        Self { child, data_dir }
    }

    /// Waits until it says how to reach it, and gives its URL. What it says after that, nobody reads: it must not mind.
    fn url(&mut self) -> String {
        let lines = BufReader::new(self.child.stdout.take().expect("piped")).lines();
        let url = lines.map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            Some(format!("http://{}", rest.split('/').next()?))
        });
        url.expect("it says how to reach it")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it has ended.
    async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it is ours") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("it ends")
    }

    /// Must fail to start. Gives what it said of that.
    async fn complaint(mut self) -> String {
        assert!(!self.ended().await.success());
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        said
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data_dir);
    }
}

/// A guest in a channel's voice.
async fn guest_in_voice(url: &str) -> (Client, mpsc::Receiver<ClientEvent>) {
    let server: antiphon_loadtest::ServerUrl = url.parse().expect("a URL");
    let rest = Rest::new(server.clone()).expect("a client");
    let account = rest.guest("anna").await.expect("guests are welcome");
    let lobby = NewChannel { name: "lobby".to_owned(), ..NewChannel::default() };
    let channel = rest.create_channel(&account.access_token, &lobby).await.expect("a channel");
    let config = GatewayConfig {
        server,
        others: Vec::new(),
        encoding: Encoding::Json,
        identity: Identity::Token(account.access_token),
    };
    let (client, events) = Client::connect(config).await.expect("the gateway takes it");
    let join = JoinChannel {
        channel_id: channel.id,
        media: MediaTransport::Udp,
        mode: MediaMode::Forward,
        cipher: None,
        sample_rate: None,
        channels: None,
        invite: None,
    };
    client.join(join).await.expect("there is room");
    (client, events)
}

/// Waits for the event that `pick` wants.
async fn expect<T>(events: &mut mpsc::Receiver<ClientEvent>, pick: impl Fn(ClientEvent) -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("not over yet")) {
                return found;
            }
        }
    });
    found.await.expect("it comes")
}

async fn expect_reconnect(events: &mut mpsc::Receiver<ClientEvent>) -> u64 {
    expect(events, |event| match event {
        ClientEvent::Message(message) => match *message {
            ServerMessage::Reconnect(reconnect) => Some(reconnect.grace_ms),
            _ => None,
        },
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_signal_drains_and_stops() {
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&[("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "1")]);
        let url = program.url();
        let (client, mut events) = guest_in_voice(&url).await;
        program.signal(signal);
        assert_eq!(expect_reconnect(&mut events).await, 1_000, "{signal}");
        assert!(program.ended().await.success(), "{signal}");
        drop(client);
    }
}

#[tokio::test]
async fn an_idle_server_does_not_wait_for_its_deadline() {
    let mut program = Program::start(&[("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "3600")]);
    program.url();
    program.signal("TERM");
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut program = Program::start(&[("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "3600")]);
    let url = program.url();
    let (_client, mut events) = guest_in_voice(&url).await;
    program.signal("TERM");
    expect_reconnect(&mut events).await;
    assert!(program.child.try_wait().expect("it is ours").is_none(), "it waits for the client");
    program.signal("TERM");
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let tcp_port = tcp.local_addr().expect("bound").port().to_string();
    let udp_port = udp.local_addr().expect("bound").port().to_string();
    for (variable, port, setting) in [
        ("ANTIPHON_SERVER__PORT", &tcp_port, "server.port"),
        ("ANTIPHON_SERVER__WEBSOCKET_PORT", &tcp_port, "server.websocket_port"),
        ("ANTIPHON_AUDIO__UDP_PORT", &udp_port, "audio.udp_port"),
    ] {
        let said = Program::start(&[(variable, port)]).complaint().await;
        assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains(setting), "{said}");
    }

    // All of them at once, so that nobody mends one a start.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other_port = other.local_addr().expect("bound").port().to_string();
    let taken = [
        ("ANTIPHON_SERVER__PORT", &*tcp_port),
        ("ANTIPHON_SERVER__WEBSOCKET_PORT", &other_port),
        ("ANTIPHON_AUDIO__UDP_PORT", &udp_port),
    ];
    let said = Program::start(&taken).complaint().await;
    for wanted in [
        format!("TCP 127.0.0.1:{tcp_port} (server.host and server.port: "),
        format!("TCP 127.0.0.1:{other_port} (server.websocket_host and server.websocket_port: "),
        format!("UDP 127.0.0.1:{udp_port} (server.host and audio.udp_port: "),
    ] {
        assert!(said.contains(&wanted), "{wanted} in: {said}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_without_its_password() {
    let nowhere = "postgres://anna:hunter2@127.0.0.1:1/antiphon";
    let said =
        Program::start(&[("DATABASE_URL", nowhere), ("ANTIPHON_DATABASE__WAIT_AT_START_S", "0")]).complaint().await;
    assert!(said.contains("cannot open the database postgres://anna:(hidden)@127.0.0.1:1/antiphon"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn wrong_settings_are_all_told_before_anything_is_made() {
    let program = Program::start(&[("ANTIPHON_SERVER__PROT", "3000"), ("ANTIPHON_AUDIO__CHANNELS", "7")]);
    let data_dir = program.data_dir.clone();
    let said = program.complaint().await;
    assert!(said.contains("ANTIPHON_SERVER__PORT?") && said.contains("audio.channels"), "{said}");
    assert!(!data_dir.exists());
}

/// A database that starts after the server, as when both are started together.
#[tokio::test]
async fn a_database_that_is_late_is_waited_for() {
    let database = TestDatabase::postgres().await;
    let url = database.url();
    let (front, _) = url.split_once('?').expect("a socket's folder");
    let name = front.rsplit('/').next().expect("a name");
    let mut postgres = PgConnection::connect(&url.replacen(name, "postgres", 1)).await.expect("PostgreSQL runs");
    let mut allow = async |allowed: bool| {
        let statement = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut postgres).await.expect("it is done");
    };
    allow(false).await;
    let starting = TestServer::start(|settings| {
        settings.database.url = Some(url.parse().expect("a URL"));
        settings.database.wait_at_start_s = 60;
    });
    tokio::pin!(starting);
    // Long enough to have tried and failed.
    assert!(timeout(Duration::from_millis(1_500), starting.as_mut()).await.is_err(), "there is no database yet");
    allow(true).await;
    let server = timeout(PATIENCE, starting).await.expect("it starts");
    server.stop().await;
}
