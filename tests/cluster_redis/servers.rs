//! Every way to reach Redis.

use std::{path::Path, process::Command};

use antiphon::cluster::{RedisCluster, RedisConfig, SharedState};
use antiphon_core::ids::ChannelId;
use uuid::Uuid;

use crate::{
    node::{Node, config, new, record},
    support::redis::{RedisServer, RedisServers, WatchedRedis},
};

/// Joins in many channels through one node, told to the other.
async fn work(a: &Node, b: &mut Node, channels: std::ops::Range<u128>) {
    for number in channels {
        let channel = ChannelId(Uuid::from_u128(number));
        b.membership.watch(channel).await.expect("watches");
        a.membership.join(channel, 10, new(1), None).await.expect("joins");
        assert_eq!(b.entry().await.position.offset, 1);
        b.membership.unwatch(channel).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_servers() {
    let mut redis = RedisServers::start();
    let (mut a, mut b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    a.sees_nodes(2).await;
    work(&a, &mut b, 1..30).await;
    let channels: Vec<ChannelId> = (1..40).map(|number| ChannelId(Uuid::from_u128(number))).collect();
    let occupied = a.membership.occupancy(&channels).await.expect("available");
    assert_eq!(occupied.iter().sum::<u32>(), 29);
    assert!(b.view.borrow().shared == SharedState::Up);
    // One of the servers falls silent: it is noticed, whichever it is.
    redis.servers[2].kill();
    a.is_away().await;
    redis.servers[2].start_again(true);
    a.reconnected().await;
    b.reconnected().await;
    work(&a, &mut b, 100..110).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_names_the_next_primary() {
    let mut redis = WatchedRedis::start();
    let (mut a, mut b) = (Node::start(&redis.url(), "a").await, Node::start(&redis.url(), "b").await);
    work(&a, &mut b, 1..5).await;
    redis.primary.kill();
    a.is_away().await;
    a.reconnected().await;
    b.reconnected().await;
    work(&a, &mut b, 10..15).await;
    assert!(redis.replica.cli(&["info", "replication"]).contains("role:master"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_no_more_rights_than_needed() {
    let redis = RedisServer::start();
    let rights = [
        "acl",
        "setuser",
        "antiphon",
        "on",
        ">s3cret/word",
        "~antiphon:*",
        "&antiphon:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        "+info",
    ];
    assert_eq!(redis.cli(&rights), "OK");
    assert_eq!(redis.cli(&["acl", "setuser", "default", "off"]), "OK");
    let refused = RedisConfig { start_patience: std::time::Duration::from_millis(500), ..config(&redis.url()) };
    assert!(RedisCluster::start(refused, record("nobody")).await.is_err());
    let url = format!("redis://antiphon:s3cret%2Fword@127.0.0.1:{}", redis.port);
    let (a, mut b) = (Node::start(&url, "a").await, Node::start(&url, "b").await);
    work(&a, &mut b, 1..5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_of_ones_own() {
    let redis = RedisServer::start_with(
        |dir| {
            make_certificates(dir);
            let file = |name: &str| dir.join(name).display().to_string();
            vec![
                "--port".into(),
                "0".into(),
                "--tls-port".into(),
                "PORT".into(),
                "--tls-cert-file".into(),
                file("server.pem"),
                "--tls-key-file".into(),
                file("server.key"),
                "--tls-ca-cert-file".into(),
                file("ca.pem"),
                "--tls-auth-clients".into(),
                "no".into(),
            ]
        },
        &["--tls", "--cacert", "DIR/ca.pem"],
    );
    let url = format!("rediss://localhost:{}", redis.port);
    let stranger = RedisConfig { start_patience: std::time::Duration::from_secs(2), ..config(&url) };
    assert!(RedisCluster::start(stranger, record("stranger")).await.is_err(), "the system does not know who signed it");
    let config = RedisConfig { ca_file: Some(redis.dir().join("ca.pem")), ..config(&url) };
    let (a, mut b) = (Node::start_with(config.clone(), "a").await, Node::start_with(config, "b").await);
    work(&a, &mut b, 1..5).await;
}

/// Somebody who signs, and what they signed for this machine.
fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("our folder");
    for arguments in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=Test -keyout ca.key -out ca.pem \
         -addext basicConstraints=critical,CA:true",
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    ] {
        let made = Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()).output();
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}
