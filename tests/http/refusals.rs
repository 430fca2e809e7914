//! What HTTP itself can get wrong, and what the server answers when it cannot do its work.

use std::time::Duration;

use antiphon::settings::Settings;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Database,
    client::{Client, PASSWORD},
    run, run_on,
    support::databases::TestDatabase,
};

#[tokio::test]
async fn what_takes_sdp_refuses_in_json() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let alice = nobody.register("alice").await;
            let channel = alice.channel("General", false).await;
            for way in ["whip", "whep"] {
                let path = format!("/{way}/{channel}");
                let send = async |method, path: &str, media_type, body: Vec<u8>| {
                    alice.send(alice.request(method, path).header("content-type", media_type).body(body)).await
                };
                let offer = async |body| send(Method::POST, &path, "application/sdp", body).await;
                offer(b"v=0\xff".to_vec()).await.expect_error(400, "INVALID_INPUT");
                offer(b"no SDP".to_vec()).await.expect_error(400, "INVALID_INPUT");
                offer(vec![b'v'; 3 << 20]).await.expect_error(413, "INVALID_INPUT");
                alice.post(&path, json!({})).await.expect_error(415, "INVALID_INPUT");
                nobody.post(&path, json!({})).await.expect_error(401, "UNAUTHENTICATED");
                let session = format!("{path}/none");
                let ways = "application/trickle-ice-sdpfrag";
                send(Method::PATCH, &session, ways, b"\xff".to_vec()).await.expect_error(400, "INVALID_INPUT");
                send(Method::PATCH, &session, ways, Vec::new()).await.expect_error(404, "NOT_FOUND");
                alice.delete(&session).await.expect_error(404, "NOT_FOUND");
                let unreadable = format!("/{way}/%ff");
                send(Method::POST, &unreadable, "application/sdp", Vec::new()).await.expect_error(400, "INVALID_INPUT");
            }
            alice.get("/admin/stats?days=many").await.expect_error(400, "INVALID_INPUT");
        },
    )
    .await;
}

/// An offer of one section of sound.
fn offer_of_sound(direction: &str, codec: &str) -> String {
    let fingerprint = vec!["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 100\r\n\
         c=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=rtcp-mux\r\na=rtpmap:100 {codec}\r\na={direction}\r\n"
    )
}

#[tokio::test]
async fn a_fragment_is_taken_whole_or_refused_for_what_it_is() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let alice = nobody.register("alice").await;
            let channel = alice.channel("General", false).await;
            let offer =
                alice.request(Method::POST, &format!("/whip/{channel}")).header("content-type", "application/sdp");
            let begun = alice.send(offer.body(offer_of_sound("sendonly", "opus/48000/2"))).await;
            let (session, tag) = (begun.header("location"), begun.header("etag"));
            let patch = async |tag: Option<&str>, body: String| {
                let request =
                    alice.request(Method::PATCH, session).header("content-type", "application/trickle-ice-sdpfrag");
                let request = tag.into_iter().fold(request, |request, tag| request.header("if-match", tag));
                alice.send(request.body(body)).await
            };
            let candidate =
                |at: u32| format!("a=candidate:{at} 1 udp 2130706431 192.0.2.1 {} typ host\r\n", 9_000 + at);
            let ways = |numbers: std::ops::Range<u32>| numbers.map(candidate).collect::<String>();
            for tag in [None, Some("*"), Some(tag)] {
                assert_eq!(patch(tag, format!("a=ice-ufrag:abcd\r\n{}", ways(0..1))).await.status, 204);
            }
            patch(Some("\"another\""), ways(0..1)).await.expect_error(412, "INVALID_INPUT");
            patch(None, "a=ice-ufrag:anew\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n".into())
                .await
                .expect_error(422, "INVALID_INPUT");
            // Had any of these been taken, there would be no room for the last.
            patch(None, format!("{}a=candidate:none\r\n", ways(1..61))).await.expect_error(400, "INVALID_INPUT");
            patch(None, ways(100..165)).await.expect_error(409, "LIMIT_REACHED");
            assert_eq!(patch(None, ways(61..121)).await.status, 204);
            patch(None, ways(121..131)).await.expect_error(409, "LIMIT_REACHED");
            assert_eq!(patch(None, ways(121..124)).await.status, 204);
        },
    )
    .await;
}

#[tokio::test]
async fn an_offer_that_carries_nothing_has_no_place_in_the_channel() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let alice = nobody.register("alice").await;
            let channel = alice.channel("General", false).await;
            let here = async || {
                alice.get(&format!("/api/channels/{channel}")).await.expect(200)["data"]["current_users"].clone()
            };
            for (way, other, direction, wrong) in
                [("whip", "whep", "sendonly", "recvonly"), ("whep", "whip", "recvonly", "sendonly")]
            {
                // What the client does, the server's answer does not.
                let answered = format!("a={wrong}");
                let offer = async |body: String| {
                    let request = alice.request(Method::POST, &format!("/{way}/{channel}"));
                    alice.send(request.header("content-type", "application/sdp").body(body)).await
                };
                for (offered, codec) in
                    [(wrong, "opus/48000/2"), ("inactive", "opus/48000/2"), (direction, "speex/8000")]
                {
                    let refused = offer(offer_of_sound(offered, codec)).await.expect_error(400, "INVALID_INPUT");
                    assert!(refused.ends_with(direction), "{way}, {offered} {codec}: {refused}");
                    assert_eq!(here().await, 0, "{way}, {offered} {codec}");
                }
                for offered in [direction, "sendrecv"] {
                    let taken = offer(offer_of_sound(offered, "opus/48000/2")).await;
                    assert_eq!((taken.status.as_u16(), here().await), (201, json!(1)), "{}", taken.text);
                    assert!(taken.text.lines().any(|line| line == answered), "{}", taken.text);
                    let session = taken.header("location");
                    alice.delete(&session.replace(way, other)).await.expect_error(404, "NOT_FOUND");
                    assert_eq!(here().await, 1, "that was no session of {other}");
                    assert_eq!((alice.delete(session).await.status.as_u16(), here().await), (200, json!(0)));
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            for path in ["/nothing", "/api", "/api/users/me/nothing", "/api/channels/", "/health/"] {
                nobody.get(path).await.expect_error(404, "NOT_FOUND");
            }
            for (method, path, allow) in [
                (Method::DELETE, "/api/channels", "GET,HEAD,POST"),
                (Method::GET, "/api/auth/login", "POST"),
                (Method::PATCH, "/api/users/me", "GET,HEAD,PUT"),
                (Method::POST, "/health", "GET,HEAD"),
            ] {
                let answer = nobody.send(nobody.request(method, path)).await;
                answer.expect_error(405, "METHOD_NOT_ALLOWED");
                assert_eq!(answer.header("allow"), allow, "{path}");
            }
            let login = |body: &'static str, content_type: Option<&'static str>| {
                let request = nobody.request(Method::POST, "/api/auth/login").body(body);
                match content_type {
                    Some(content_type) => request.header("content-type", content_type),
                    None => request,
                }
            };
            for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
                nobody.send(login("{}", content_type)).await.expect_error(415, "INVALID_INPUT");
            }
            for (body, hint) in [
                ("", "EOF"),
                ("{", "EOF"),
                ("{}", "missing field `username`"),
                (r#"{"username": 3}"#, "username: invalid type: integer `3`, expected a string"),
                (r#"{"username": "a", "username": "b"}"#, "duplicate field `username`"),
                ("[]", "invalid length 0"),
                ("null", "invalid type: null"),
            ] {
                let sentence =
                    nobody.send(login(body, Some("application/json"))).await.expect_error(400, "INVALID_INPUT");
                assert!(sentence.contains(hint), "{body}: {sentence}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let small = |settings: &mut Settings| settings.http.body_bytes_max = 2_048;
    run(Database::Sqlite, small, async |nobody: &Client| {
        let fits = json!({"username": "x".repeat(1_900), "password": PASSWORD});
        nobody.post("/api/auth/register", fits).await.expect_error(400, "INVALID_INPUT");
        let large = json!({"username": "x".repeat(2_100), "password": PASSWORD});
        nobody.post("/api/auth/register", large).await.expect_error(413, "INVALID_INPUT");
    })
    .await;
}

/// Sends everything before it reads, as simple clients do: a reset in between would lose them the answer.
#[tokio::test]
async fn the_refusal_of_a_large_body_arrives() {
    const BODY_BYTES: usize = 12 * 1_024 * 1_024;
    let small = |settings: &mut Settings| settings.http.body_bytes_max = 2_048;
    run(Database::Sqlite, small, async |nobody: &Client| {
        let address = nobody.base().strip_prefix("http://").expect("a URL");
        for (length, body) in [
            (format!("content-length: {BODY_BYTES}"), vec![b'x'; BODY_BYTES]),
            ("transfer-encoding: chunked".to_owned(), chunked(BODY_BYTES)),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            let head = format!(
                "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\
                 connection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("sends");
            stream.write_all(&body).await.expect("sends all of it");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer and an orderly end");
            assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
            assert!(answer.contains(r#""error_code":"INVALID_INPUT""#), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_waited_for() {
    run(
        Database::Sqlite,
        |settings| settings.http.request_timeout_s = 600,
        async |nobody: &Client| {
            let address = nobody.base().strip_prefix("http://").expect("a URL");
            let mut stream = TcpStream::connect(address).await.expect("connects");
            let head = "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                        content-length: 99999999999\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.expect("sends");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 413");
        },
    )
    .await;
}

/// A body of so many bytes in chunks.
fn chunked(bytes: usize) -> Vec<u8> {
    const CHUNK: usize = 64 * 1_024;
    let chunk = [format!("{CHUNK:x}\r\n").into_bytes(), vec![b'x'; CHUNK], b"\r\n".to_vec()].concat();
    [chunk.repeat(bytes / CHUNK), b"0\r\n\r\n".to_vec()].concat()
}

#[tokio::test]
async fn a_body_that_nobody_waits_for_is_not_asked_for() {
    let small = |settings: &mut Settings| settings.http.body_bytes_max = 2_048;
    run(Database::Sqlite, small, async |nobody: &Client| {
        let address = nobody.base().strip_prefix("http://").expect("a URL");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let head = "POST /nothing HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50000\r\n\
                    connection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_never_comes_is_waited_for_no_longer_than_its_request_may_take() {
    let quick = |settings: &mut Settings| settings.http.request_timeout_s = 1;
    run(Database::Sqlite, quick, async |nobody: &Client| {
        let address = nobody.base().strip_prefix("http://").expect("a URL");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let head = "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 50\r\n\r\n{\"username\"";
        stream.write_all(head.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "its client does not keep the connection: {answer}");
        assert!(answer.contains(r#""error_code":"TIMEOUT""#), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_path_or_a_name_is_said_in_plain_words() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let answer = nobody.register("alice").await.get("/api/channels/nonsense").await.expect(400);
            assert_eq!(answer["error"], "`id` in the path is a UUID, which `nonsense` is not");
            nobody.post("/api/users", json!({"username": "bob"})).await.expect(201);
            let answer = nobody.post("/api/users", json!({"username": "bob"})).await.expect(409);
            assert!(answer["error"].as_str().expect("text").contains("auth.guest_ttl_s"), "{answer}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_small_body_in_very_many_pieces_is_refused_and_in_some_hundred_it_is_taken() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let address = nobody.base().strip_prefix("http://").expect("a URL");
            let body = br#"{"username": "alice"}"#;
            for (spaces, status) in [(900, "201"), (3_000, "400")] {
                let mut stream = TcpStream::connect(address).await.expect("connects");
                let head = "POST /api/users HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                        transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
                let piece = |byte: &u8| [b"1\r\n", &[*byte][..], b"\r\n"].concat();
                let pieces = body.iter().chain(std::iter::repeat_n(&b' ', spaces)).flat_map(piece);
                let request: Vec<u8> = head.bytes().chain(pieces).chain(*b"0\r\n\r\n").collect();
                stream.write_all(&request).await.expect("sends");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("an answer");
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{spaces}: {answer}");
                assert_eq!(answer.contains("more than 1024 pieces"), status == "400", "{answer}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be_away_and_is_used_when_it_is_back() {
    let database = TestDatabase::postgres().await;
    run_on(
        &database,
        |_| {},
        async |nobody: &Client| {
            let alice = nobody.register("alice").await;
            close_to_all(&database).await;
            for answer in [
                alice.get("/api/users/me").await,
                alice.post("/api/channels", json!({"name": "General"})).await,
                nobody.get("/api/channels").await,
                nobody.post("/api/users", json!({"username": "bob"})).await,
            ] {
                answer.expect_error(503, "TEMPORARILY_UNAVAILABLE");
                assert!(answer.header("retry-after").parse::<u32>().expect("seconds") >= 1);
            }
            nobody.get("/health/live").await.expect(200);
            nobody.get("/health/ready").await.expect(200);
            let health = health_that_is(nobody, "degraded").await;
            assert_eq!(health["checks"]["store"], json!({"status": "unavailable", "latency_ms": null}));
            open_to_all(&database).await;
            alice.get("/api/users/me").await.expect(200);
            health_that_is(nobody, "ok").await;
        },
    )
    .await;
}

/// The detailed health once its status is `wanted`: checks are kept for a second.
async fn health_that_is(nobody: &Client, wanted: &str) -> Value {
    for _ in 0..300 {
        let health = nobody.get("/health/detailed").await.expect(200)["data"].clone();
        if health["status"] == wanted {
            return health;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the health never became {wanted}");
}

/// Makes PostgreSQL refuse the database to everybody, and ends their connections.
async fn close_to_all(database: &TestDatabase) {
    let name = name_of(database);
    beside(database, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    beside(database, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
}

async fn open_to_all(database: &TestDatabase) {
    beside(database, &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", name_of(database))).await;
}

fn name_of(database: &TestDatabase) -> String {
    let url = database.url();
    let (front, _) = url.split_once('?').expect("a socket's folder");
    front.rsplit('/').next().expect("a name").to_owned()
}

/// Runs a statement in another database of the same PostgreSQL.
async fn beside(database: &TestDatabase, statement: &str) {
    let url = database.url().replacen(&name_of(database), "postgres", 1);
    let mut connection = PgConnection::connect(&url).await.expect("PostgreSQL runs");
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.expect("it is done");
}
