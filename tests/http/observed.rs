//! Health, metrics, the document and its page: what the server says of itself.

use std::{io::Write, process::Stdio};

use antiphon::settings::{Secret, Settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Database,
    client::{Client, keys},
    run,
    support::server::TestServer,
};

#[tokio::test]
async fn health_in_four_forms() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let health = nobody.get("/health").await;
            assert_eq!((health.status.as_u16(), health.text.as_str()), (200, "OK"));
            assert_eq!(nobody.get("/health/live").await.expect(200)["data"], json!({"status": "live"}));
            assert_eq!(nobody.get("/health/ready").await.expect(200)["data"], json!({"status": "ready"}));
            let detailed = nobody.get("/health/detailed").await.expect(200)["data"].clone();
            assert_eq!(detailed["status"], "ok");
            assert_eq!(detailed["checks"]["store"]["status"], "ok");
            assert!(detailed["checks"]["store"]["latency_ms"].as_f64().expect("measured") > 0.0);
            assert_eq!(detailed["checks"]["media"]["status"], "ok");
            assert!(detailed["process"]["resident_memory_bytes"].as_u64().expect("measured") > 1_000_000);
        },
    )
    .await;
}

#[tokio::test]
async fn a_draining_server_wants_no_new_sessions() {
    let server = TestServer::start(|settings| settings.server.drain_deadline_s = 60).await;
    let client = Client::new(server.url());
    client.get("/health/ready").await.expect(200);
    let alice = client.register("alice").await;
    server.running.begin_drain();
    let refused = client.get("/health/ready").await;
    refused.expect_error(503, "TEMPORARILY_UNAVAILABLE");
    assert!(!refused.header("retry-after").is_empty());
    for way in ["/whip/General", "/whep/General"] {
        let offer = alice.request(Method::POST, way).header("content-type", "application/sdp").body("v=0");
        alice.send(offer).await.expect_error(503, "TEMPORARILY_UNAVAILABLE");
    }
    client.get("/health/live").await.expect(200);
    assert_eq!(client.get("/health/detailed").await.expect(200)["data"]["status"], "draining");
    server.stop().await;
}

#[tokio::test]
async fn a_drain_takes_what_is_set_where_nothing_is_said() {
    let server = TestServer::start(|settings| settings.server.drain_deadline_s = 60).await;
    let admin = Client::new(server.url()).register("admin").await;
    let nodes = admin.get("/api/v1/nodes").await.expect(200);
    let path = format!("/api/v1/admin/nodes/{}/drain", nodes["data"]["nodes"][0]["node_id"].as_str().expect("a name"));
    let begun = admin.send(admin.request(Method::POST, &path)).await.expect(200);
    assert_eq!(begun["data"]["mode"], "handover", "{begun}");
    let log = admin.get("/api/advanced/admin/audit?action=node.drain").await.json();
    assert_eq!(log["data"][0]["detail"], json!({"deadline_s": 60, "mode": "handover"}));
    admin.delete(&path).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn metrics_satisfy_prometheus_own_checker() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let alice = nobody.register("alice").await;
            alice.channel("General", false).await;
            nobody.get("/nothing").await.expect_error(404, "NOT_FOUND");
            let metrics = nobody.get("/metrics").await;
            assert_eq!(metrics.status, 200);
            assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
            for line in [
                "antiphon_http_requests_total{area=\"channels\",method=\"post\",status=\"2xx\"}",
                "antiphon_http_errors_total{code=\"NOT_FOUND\"}",
                "antiphon_auth_attempts_total{action=\"register\",outcome=\"ok\"}",
            ] {
                let value = metrics.text.lines().find_map(|found| found.strip_prefix(line)).expect(line);
                assert!(value.trim().parse::<f64>().expect("a number") >= 1.0, "{line} {value}");
            }
            assert!(!metrics.text.contains(alice.id()), "no one's id is a label");
            lint(&metrics.text);
        },
    )
    .await;
}

/// `promtool check metrics`, which also complains of missing help and of names against the rules.
fn lint(metrics: &str) {
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian: apt-get install prometheus; scripts/setup does it)");
    promtool.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&complaints));
}

#[tokio::test]
async fn metrics_may_ask_for_a_token() {
    let with_token = |settings: &mut Settings| settings.metrics.token = Some(Secret::new("scrape me"));
    run(Database::Sqlite, with_token, async |nobody: &Client| {
        nobody.get("/metrics").await.expect_error(401, "UNAUTHENTICATED");
        let alice = nobody.register("alice").await;
        alice.get("/metrics").await.expect_error(401, "UNAUTHENTICATED");
        assert_eq!(nobody.with_token(Some("scrape me")).get("/metrics").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn metrics_may_have_an_address_of_their_own() {
    let server = TestServer::start(|settings| {
        settings.metrics.listen = Some("127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    let http = Client::new(server.url());
    http.get("/metrics").await.expect_error(404, "NOT_FOUND");
    let document = http.get("/api/openapi.json").await.json();
    assert!(document["paths"].get("/metrics").is_none(), "what is elsewhere is not described here");
    let address = server.running.addresses().metrics.expect("an address of its own");
    let metrics = Client::new(format!("http://{address}"));
    assert_eq!(metrics.get("/metrics").await.status, 200);
    metrics.get("/api/channels").await.expect_error(404, "NOT_FOUND");
    server.stop().await;
}

#[tokio::test]
async fn the_document_and_its_page_come_from_here_alone() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let document = nobody.get("/api/openapi.json").await.json();
            assert!(document["openapi"].as_str().expect("a version").starts_with("3.1."));
            assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
            let page = nobody.get("/docs/").await;
            assert_eq!(page.status, 200);
            for asset in references(&page.text) {
                assert!(!asset.contains("//"), "{asset} is elsewhere");
                let found = nobody.get(&format!("/docs/{}", asset.trim_start_matches("./"))).await;
                assert_eq!(found.status, 200, "{asset}");
            }
            let initializer = nobody.get("/docs/swagger-initializer.js").await.text;
            assert!(initializer.contains("/api/openapi.json") && initializer.contains("none"), "{initializer}");

            let home = nobody.get("/").await;
            assert!(home.header("content-type").starts_with("text/html"));
            for path in references(&home.text) {
                assert_eq!(nobody.get(path).await.status, 200, "{path}");
            }
            assert!(home.header("content-security-policy").contains("default-src 'none'"));
        },
    )
    .await;
}

/// What a page's `href` and `src` attributes name.
fn references(html: &str) -> Vec<&str> {
    let found: Vec<&str> = html
        .split("href=\"")
        .skip(1)
        .chain(html.split("src=\"").skip(1))
        .filter_map(|rest| rest.split('"').next())
        .filter(|reference| !reference.is_empty())
        .collect();
    assert!(found.len() >= 4, "{html}");
    found
}

#[tokio::test]
async fn the_audio_config_is_the_settings() {
    let mono = |settings: &mut Settings| settings.audio.channels = 1;
    run(Database::Sqlite, mono, async |nobody: &Client| {
        nobody.get("/api/audio/config").await.expect_error(401, "UNAUTHENTICATED");
        let config: Value = nobody.guest("anna").await.get("/api/audio/config").await.json();
        assert_eq!(keys(&config), ["bit_depth", "buffer_size", "channels", "latency_target_ms", "sample_rate"]);
        let expected = json!({
            "sample_rate": 48_000, "channels": 1, "bit_depth": 16, "buffer_size": 1_024, "latency_target_ms": 50
        });
        assert_eq!(config, expected);
    })
    .await;
}

#[tokio::test]
async fn answers_carry_the_request_id_and_are_not_stored() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let named = nobody.request(Method::GET, "/api/channels").header("x-request-id", "trace-7");
            let answer = nobody.send(named).await;
            assert_eq!(answer.header("x-request-id"), "trace-7");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            let (one, other) = (nobody.get("/nothing").await, nobody.get("/nothing").await);
            assert_eq!(one.header("x-request-id").len(), 36);
            assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
        },
    )
    .await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let one_origin = |settings: &mut Settings| settings.http.allowed_origins = vec!["https://app.example.org".into()];
    run(Database::Sqlite, one_origin, async |nobody: &Client| {
        let allowed = async |origin: &str| {
            let preflight = nobody
                .request(Method::OPTIONS, "/api/channels")
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type");
            let preflight = nobody.send(preflight).await;
            let actual = nobody.send(nobody.request(Method::GET, "/nothing").header("origin", origin)).await;
            let echoed = preflight.header("access-control-allow-origin").to_owned();
            assert_eq!(actual.header("access-control-allow-origin"), echoed, "errors can be read, too");
            echoed
        };
        for origin in ["https://app.example.org", "http://localhost:5173", "http://127.0.0.1:8080"] {
            assert_eq!(allowed(origin).await, origin);
        }
        for origin in ["https://evil.example.org", "http://localhost.evil.org", "null"] {
            assert_eq!(allowed(origin).await, "", "{origin}");
        }
    })
    .await;
}
