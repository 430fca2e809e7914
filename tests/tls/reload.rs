//! A new certificate takes the old one's place while people are connected.

use std::fs;

use rustls::version::TLS13;
use tokio::time::{Duration, timeout};

use crate::{
    PATIENCE, YEAR, ask,
    authority::Authority,
    connect, shown,
    support::{process::Process, server::TestServer},
};

/// A metric's value, from `/metrics`.
async fn metric(authority: &Authority, url: &str, name: &str) -> f64 {
    let text = authority.http().get(format!("{url}/metrics")).send().await.expect("answered");
    let text = text.text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
    line.trim().parse().expect("a number")
}

/// Waits until a metric is above a value.
async fn becomes_above(authority: &Authority, url: &str, name: &str, value: f64) {
    let wait = async {
        while metric(authority, url, name).await <= value {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} rises above {value}"));
}

const READ: &str = "antiphon_tls_reloads_total{outcome=\"ok\"}";
const REFUSED: &str = "antiphon_tls_reloads_total{outcome=\"refused\"}";
const EXPIRY: &str = "antiphon_tls_certificate_expiry_timestamp_seconds";

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_served_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let first = authority.issue(YEAR);
    let server = TestServer::start(|settings| authority.set(settings)).await;
    let (address, url, client) = (server.running.addresses().http, server.url(), authority.client(&TLS13));
    let mut open = connect(address, &client).await.expect("a handshake");
    assert_eq!(shown(&open), first);
    let second = authority.issue(2 * YEAR);
    let wait = async {
        loop {
            let stream = connect(address, &client).await.expect("a handshake at any time");
            if shown(&stream) == second {
                return;
            }
            assert_eq!(shown(&stream), first);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the new one is served");
    assert!(ask(&mut open, "/health").await.starts_with("HTTP/1.1 200 "), "the old connection goes on");

    // A pair of two halves, one that has run out, and no file at all.
    let before = metric(&authority, &url, REFUSED).await;
    fs::write(authority.key_file(), authority.make(YEAR).2).expect("our folder");
    becomes_above(&authority, &url, REFUSED, before).await;
    authority.issue(-time::Duration::days(1));
    becomes_above(&authority, &url, REFUSED, before + 1.0).await;
    fs::remove_file(authority.key_file()).expect("our file");
    becomes_above(&authority, &url, REFUSED, before + 2.0).await;
    assert_eq!(shown(&connect(address, &client).await.expect("a handshake")), second, "what was right is served on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_them_read_at_once() {
    let authority = Authority::new();
    authority.issue(YEAR);
    let files = [authority.certificate_file(), authority.key_file()].map(|file| file.display().to_string());
    let settings = [("ANTIPHON_SERVER__TLS_CERTIFICATE", &*files[0]), ("ANTIPHON_SERVER__TLS_KEY", &*files[1])];
    let node = Process::start(&settings).await;
    let url = node.url().http("").to_string();
    let url = url.trim_end_matches('/');
    assert!(url.starts_with("https://"), "{url}");
    assert_eq!(metric(&authority, url, READ).await, 0.0);
    // The files are as they were: nothing but the signal has them read.
    node.signal("HUP");
    becomes_above(&authority, url, READ, 0.0).await;
    let expiry = metric(&authority, url, EXPIRY).await;
    authority.issue(2 * YEAR);
    becomes_above(&authority, url, EXPIRY, expiry).await;
    let later = metric(&authority, url, EXPIRY).await - expiry;
    assert!((later - YEAR.as_seconds_f64()).abs() < 600.0, "{later}");
}
