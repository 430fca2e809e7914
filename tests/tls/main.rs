//! TLS on the server's own ports, with certificates of an authority of the test's own.

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod cluster;
mod load_tester;
mod reload;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use antiphon::{
    doctor::{Probe, ask_own},
    server::Server,
    settings::Settings,
};
use authority::Authority;
use futures_util::StreamExt as _;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use support::{process::Scratch, server::TestServer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const YEAR: time::Duration = time::Duration::days(365);

/// A connection to a port of this machine.
async fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::clone(client)).connect(name, stream).await
}

/// The certificate that a server showed.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// Asks for something on a connection that stays open.
async fn ask<Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut Io, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.expect("sends");
    let mut text = String::new();
    let mut part = [0; 1_024];
    while !text.contains("\r\n\r\n") {
        let count = timeout(PATIENCE, stream.read(&mut part)).await.expect("an answer").expect("reads");
        assert!(count > 0, "closed after {text:?}");
        text += &String::from_utf8_lossy(&part[..count]);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_how_it_is_without_tls_hears_that_it_is_spoken() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let server = TestServer::start(|settings| authority.set(settings)).await;
    let mut settings = Settings::default();
    settings.server.port = server.running.addresses().http.port();
    let said = ask_own(&settings, Probe::Ready).await.expect("a client").expect("not well");
    assert!(
        said.contains("answers 400") && said.ends_with("this port speaks TLS: ask by https:// (and wss://)"),
        "{said}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_gateway_run_inside_both_versions() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let server = TestServer::start(|settings| authority.set(settings)).await;
    let addresses = server.running.addresses();
    let page = authority.http().get(server.url()).send().await.expect("trusted").text().await.expect("text");
    assert!(page.contains("<title>Antiphon</title>"), "{page}");
    for version in [&TLS12, &TLS13] {
        let client = authority.client(version);
        let mut stream = connect(addresses.http, &client).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        for _ in 0..2 {
            let answer = ask(&mut stream, "/health").await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("OK"), "{answer}");
        }
        for (address, path) in [(addresses.http, "/ws"), (addresses.websocket, "/")] {
            let stream = connect(address, &client).await.expect("a handshake");
            let url = format!("wss://{address}{path}");
            let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
            let hello = socket.next().await.expect("a message").expect("whole").into_text().expect("text");
            assert!(hello.contains("\"Hello\""), "{hello}");
        }
    }
    let mut modern = ClientConfig::clone(&authority.client(&TLS13));
    modern.alpn_protocols = vec![b"h2".to_vec()];
    let refused = connect(addresses.http, &Arc::new(modern)).await.expect_err("only HTTP/1.1 is spoken");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_what_to_do_instead() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let server = TestServer::start(|settings| authority.set(settings)).await;
    for address in [server.running.addresses().http, server.running.addresses().websocket] {
        let answer = reqwest::get(format!("http://{address}/health")).await.expect("an answer");
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["connection"], "close");
        let body: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(body["error_code"], "INVALID_INPUT");
        assert!(body["error"].as_str().expect("a text").contains("https://"), "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn peers_who_stall_in_the_handshake_hold_no_place() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let server = TestServer::start(|settings| {
        authority.set(settings);
        settings.http.connections_max = 16;
        settings.http.connections_per_address = Some(16);
    });
    let server = server.await;
    let address = server.running.addresses().http;
    let client = authority.client(&TLS13);
    let mut stalled = Vec::new();
    for index in 0..40 {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        // Some say nothing at all, some begin a handshake and go no further.
        if index % 2 == 0 {
            stream.write_all(&[22, 3, 1]).await.expect("sends");
        }
        stalled.push(stream);
    }
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut stream = timeout(PATIENCE, connect(address, &client)).await.expect("no wait").expect("a handshake");
        assert!(ask(&mut stream, "/health").await.starts_with("HTTP/1.1 200 "));
        open.push(stream);
    }
    // All places are taken now, by those who are really there.
    let mut waiting = timeout(PATIENCE, connect(address, &client)).await.expect("no wait").expect("a handshake");
    waiting.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sends");
    let early = timeout(Duration::from_millis(200), waiting.read_u8()).await;
    assert!(early.is_err(), "it waits for a place");
    drop(open);
    timeout(PATIENCE, waiting.read_u8()).await.expect("its turn").expect("an answer");
    drop(stalled);
    server.stop().await;
}

#[tokio::test]
async fn files_of_no_use_are_named_before_anything_is_bound() {
    let (authority, other, scratch) = (Authority::new(), Authority::new(), Scratch::new());
    authority.issue(YEAR);
    other.issue(YEAR);
    let text = scratch.path().join("text");
    std::fs::write(&text, "no PEM").expect("our folder");
    let missing = scratch.path().join("missing");
    for (certificate, key, wrong) in [
        (missing.clone(), authority.key_file(), "missing (server.tls_certificate): No such file"),
        (authority.certificate_file(), missing, "missing (server.tls_key): No such file"),
        (text.clone(), authority.key_file(), "text (server.tls_certificate): it holds no certificate in PEM form"),
        (authority.certificate_file(), text, "text (server.tls_key): it holds no private key"),
        (authority.certificate_file(), other.key_file(), "does not belong to the certificate in"),
    ] {
        let mut settings = Settings { data_dir: scratch.path().join("data"), ..Default::default() };
        settings.server.tls_certificate = Some(certificate);
        settings.server.tls_key = Some(key);
        let error = Server::start(settings).await.err().expect("it does not start").to_string();
        assert!(error.contains(wrong), "{error}");
    }
}
