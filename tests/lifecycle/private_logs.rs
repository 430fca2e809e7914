//! What must never stand in a log, however much of it is asked for.

use std::{io::Read, process::ChildStderr, thread::JoinHandle};

use antiphon_core::gateway::{JoinChannel, MediaMode, MediaTransport};
use antiphon_core::{gateway::Encoding, wire::frame::FrameKind};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, VoiceFrame},
    gateway::{GatewayConfig, Identity},
    rest::{NewChannel, Rest},
};
use serde_json::Value;

use crate::Program;

const NAME: &str = "Wilhelmina";
const PASSWORD: &str = "a very private password";
const GUEST: &str = "Guinevere";

/// Reads all that a program says on standard error until it ends.
fn read_all(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("text");
        said
    })
}

#[tokio::test]
async fn nothing_private_is_logged() {
    let mut program = Program::start(&[
        ("RUST_LOG", "trace"),
        ("ANTIPHON_LOG__FORMAT", "json"),
        ("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "0"),
    ]);
    let log = read_all(program.child.stderr.take().expect("piped"));
    let url = program.url();
    let secrets = a_busy_minute(&url).await;
    program.signal("TERM");
    assert!(program.ended().await.success());
    let log = log.join().expect("it was read");
    for secret in &secrets {
        assert!(secret.len() >= 6 && !log.contains(secret.as_str()), "{secret} is in the log");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_route = |route: &str| lines.iter().any(|line| line["span"]["route"] == route);
    assert!(of_route("/api/auth/login") && of_route("/api/invites/{code}") && of_route("/ws"), "requests are logged");
    let sessions = lines.iter().filter(|line| line["span"]["session_id"].is_string()).count();
    assert!(sessions > 0, "sessions are logged");
}

/// Does what people do, right and wrong, and gives everything private that was said.
async fn a_busy_minute(url: &str) -> Vec<String> {
    let server: ServerUrl = url.parse().expect("a URL");
    let rest = Rest::new(server.clone()).expect("a client");
    let account = rest.register(NAME, PASSWORD).await.expect("registers");
    let login = rest.login(NAME, PASSWORD).await.expect("logs in");
    rest.login(NAME, "another private password").await.expect_err("wrong");
    let refreshed = rest.refresh(&login.refresh_token).await.expect("refreshes");
    rest.refresh(&login.refresh_token).await.expect_err("used");
    let secret_channel = NewChannel { name: "Conspiracy".to_owned(), ..NewChannel::default() };
    let channel = rest.create_channel(&account.access_token, &secret_channel).await.expect("a channel");

    let http = reqwest::Client::new();
    let invites = format!("{url}/api/channels/{}/invites", channel.id);
    let request = http.post(invites).bearer_auth(&account.access_token).json(&serde_json::json!({}));
    let invite: Value = request.send().await.expect("answers").json().await.expect("JSON");
    let code = invite["data"]["code"].as_str().expect("a code").to_owned();
    let guest = rest.guest(GUEST).await.expect("guests are welcome");
    let used = http.post(format!("{url}/api/invites/{code}")).bearer_auth(&guest.access_token).send().await;
    assert!(used.expect("answers").status().is_success());
    let ticket = format!("{url}/ws?token={}", guest.access_token);
    assert_eq!(http.get(ticket).send().await.expect("answers").status(), 400, "no WebSocket is asked for");

    let config = GatewayConfig {
        server,
        others: Vec::new(),
        encoding: Encoding::Json,
        identity: Identity::Token(guest.access_token.clone()),
    };
    let (client, _events) = Client::connect(config).await.expect("the gateway takes it");
    let join = JoinChannel {
        channel_id: channel.id,
        media: MediaTransport::Udp,
        mode: MediaMode::Forward,
        cipher: None,
        sample_rate: None,
        channels: None,
        invite: Some(code.clone()),
    };
    let joined = client.join(join).await.expect("there is room");
    let udp = joined.voice.udp.expect("it goes by UDP");
    let frame = VoiceFrame { kind: FrameKind::Audio, flags: 0, level: 20, timestamp: 0, bytes: vec![0xfc; 80] };
    client.send(channel.id, frame).await.expect("sent");
    client.close().await;

    let mut secrets: Vec<String> =
        [NAME, PASSWORD, GUEST, "another private password", "Conspiracy"].map(str::to_owned).into();
    for tokens in [account, login, refreshed, guest] {
        secrets.extend([tokens.access_token, tokens.refresh_token]);
    }
    secrets.extend([code, udp.session_key, udp.group_key.key]);
    secrets
}
