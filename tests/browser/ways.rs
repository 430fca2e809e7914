//! Ways to the node: UDP closed, and TCP closed, too.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    chromium::Chromium,
    gate::Gate,
    rooms::{enter, enter_with, hears, id_of},
    support::{
        network::ReservedPort,
        people::make_channel,
        process::{Process, Scratch},
    },
};

#[tokio::test]
async fn with_udp_closed_a_page_comes_by_tcp() {
    // Nobody takes datagrams there.
    let closed = ReservedPort::take().expect("a port");
    let advertise = format!("127.0.0.1:{}", closed.port());
    let server = Process::start(&[("ANTIPHON_AUDIO__ADVERTISE", &advertise)]).await;
    let browser = Chromium::start().await;
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let whom = id_of(&enter(&one, &server, room, "One").await);
    one.call("speak", json!(440)).await;
    one.call("show", json!({})).await;
    enter(&other, &server, room, "Other").await;
    hears(&other, &whom, 440.0).await;
    let seen = format!("watched().then((found) => found['{whom} video'] || {{}})");
    other.until(&seen, |seen| seen["framesDecoded"].as_u64() > Some(40)).await;
    for (page, which) in [(&one, "publisher"), (&other, "subscriber")] {
        let ways = page.evaluate("ways()").await;
        assert_eq!(ways[which]["protocol"], "tcp", "{ways}");
    }
}

/// A TURN server on loopback; it ends with the test.
struct Turn(Child, Scratch);

const TURN_SECRET: &str = "north";
/// Where its datagrams to peers come from: nobody else's do.
const RELAYED_PORTS: std::ops::RangeInclusive<u16> = 47_000..=47_099;

impl Turn {
    async fn start(port: u16) -> Self {
        let folder = Scratch::new();
        let child = Command::new("turnserver")
            .current_dir(folder.path())
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-tls", "--no-dtls", "--no-cli"])
            .args(["--use-auth-secret", "--realm=antiphon", "--allow-loopback-peers", "--log-file=stdout"])
            .arg(format!("--static-auth-secret={TURN_SECRET}"))
            .arg(format!("--listening-port={port}"))
            .args([format!("--min-port={}", RELAYED_PORTS.start()), format!("--max-port={}", RELAYED_PORTS.end())])
            .arg(format!("--pidfile={}", folder.path().join("pid").display()))
            .arg(format!("--userdb={}", folder.path().join("users").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn is installed: scripts/setup test");
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self(child, folder)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = self.1.path();
    }
}

#[tokio::test]
async fn with_all_else_closed_a_page_comes_through_a_turn_server() {
    let turn_port = ReservedPort::take().expect("a port");
    let _turn = Turn::start(turn_port.port()).await;
    let (gate, leads_to) = Gate::open(RELAYED_PORTS).await;
    let advertise = gate.address.to_string();
    let turn_server = format!("turn:127.0.0.1:{}?transport=tcp", turn_port.port());
    let server = Process::start(&[
        ("ANTIPHON_AUDIO__ADVERTISE", &advertise),
        ("ANTIPHON_ROOMS__TCP_PORT", "0"),
        ("TURN_SERVER", &turn_server),
        ("TURN_SECRET", TURN_SECRET),
    ])
    .await;
    leads_to.send(server.udp_address()).await.expect("waits");
    let browser = Chromium::start().await;
    let room = make_channel(&server, "lobby", 10).await;
    let (one, other) = (browser.page().await, browser.page().await);
    let servers = |joined: &Value| joined["ice_servers"].clone();
    let with_turn = async |page, name| {
        // The first join says which servers there are.
        let url = server.url().http(&format!("/api/v1/rooms/{room}/join"));
        let answer = crate::support::nodes::http().post(url).json(&json!({ "display": name })).send().await;
        let answer: Value = answer.expect("answered").json().await.expect("JSON");
        let rtc = json!({ "iceServers": servers(&answer["data"]) });
        enter_with(page, &server, room, name, json!({ "rtc": rtc })).await
    };
    let whom = id_of(&with_turn(&one, "One").await);
    one.call("speak", json!(440)).await;
    with_turn(&other, "Other").await;
    hears(&other, &whom, 440.0).await;
    for (page, which) in [(&one, "publisher"), (&other, "subscriber")] {
        let ways = page.evaluate("ways()").await;
        assert_eq!(ways[which]["relay"], "tcp", "{ways}");
    }
}
