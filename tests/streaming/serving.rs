//! What an answer says, conditions, and limits.

use antiphon::settings::Settings;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Streaming, client::Answer, pattern};

async fn with(streaming: &Streaming, method: Method, link: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(streaming.nobody.request(method, link), |request, (name, value)| request.header(*name, *value));
    streaming.nobody.send(request).await
}

#[tokio::test]
async fn an_answer_says_what_the_file_is_and_conditions_are_kept() {
    let streaming = Streaming::start(|_| {}).await;
    let content = "a sound ".repeat(1_000);
    for (path, media_type) in
        [("a.mp3", "audio/mpeg"), ("sub/b.OPUS", "audio/ogg"), ("c.flac", "audio/flac"), ("d.m4a", "audio/mp4")]
    {
        streaming.put(path, content.as_bytes());
        let answer = streaming.nobody.get(&streaming.link(path).await).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, media_type));
    }
    let link = streaming.link("a.mp3").await;
    let whole = streaming.nobody.get(&link).await;
    assert_eq!(whole.text, content);
    for (name, value) in [
        ("content-length", "8000"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(whole.header("content-security-policy").starts_with("default-src 'none'"));
    let (etag, modified) = (whole.header("etag"), whole.header("last-modified"));
    assert!(etag.starts_with('"') && modified.ends_with(" GMT"), "{etag} {modified}");

    let head = with(&streaming, Method::HEAD, &link, &[("range", "bytes=0-1")]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.header("etag")), (200, "8000", etag));
    assert!(head.text.is_empty(), "a range of a HEAD is none");

    let get = async |headers: &[(&str, &str)]| with(&streaming, Method::GET, &link, headers).await;
    for same in [("if-none-match", etag), ("if-modified-since", modified)] {
        let answer = get(&[same]).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag"), answer.text.as_str()), (304, etag, ""), "{same:?}");
    }
    get(&[("if-match", "\"other\"")]).await.expect_error(412, "INVALID_INPUT");
    for (condition, status) in [(etag, 206), ("\"other\"", 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)] {
        let answer = get(&[("range", "bytes=2-6"), ("if-range", condition)]).await;
        assert_eq!(answer.status.as_u16(), status, "{condition}");
        assert_eq!(answer.text == "sound", status == 206, "{condition}");
    }
    let refused = get(&[("range", "bytes=8000-")]).await;
    refused.expect_error(416, "RANGE_NOT_SATISFIABLE");
    assert_eq!(refused.header("content-range"), "bytes */8000");
    with(&streaming, Method::POST, &link, &[]).await.expect_error(405, "METHOD_NOT_ALLOWED");
    streaming.stop().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_and_seek() {
    let page = "https://app.example.org";
    let streaming = Streaming::start(|settings| settings.http.allowed_origins = vec![page.to_owned()]).await;
    streaming.put("a.mp3", b"sound");
    let link = streaming.link("a.mp3").await;
    let allowed = with(&streaming, Method::GET, &link, &[("origin", page), ("range", "bytes=1-2")]).await;
    assert_eq!((allowed.text.as_str(), allowed.header("access-control-allow-origin")), ("ou", page));
    assert!(allowed.header("access-control-expose-headers").contains("content-range"));
    let asked =
        [("origin", page), ("access-control-request-method", "GET"), ("access-control-request-headers", "range")];
    let preflight = with(&streaming, Method::OPTIONS, &link, &asked).await;
    assert!(preflight.header("access-control-allow-headers").contains("range"));
    let other = with(&streaming, Method::GET, &link, &[("origin", "https://evil.example")]).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
    streaming.stop().await;
}

#[tokio::test]
async fn requests_for_files_have_a_rate_of_their_own() {
    let streaming = Streaming::start(|settings| settings.limits.stream_requests_per_minute_per_address = 3).await;
    streaming.put("a.mp3", b"sound");
    let link = streaming.link("a.mp3").await;
    for _ in 0..3 {
        assert_eq!(streaming.nobody.get(&link).await.text, "sound");
    }
    let refused = streaming.nobody.get(&link).await;
    refused.expect_error(429, "RATE_LIMITED");
    assert!(!refused.header("retry-after").is_empty());
    streaming.link("a.mp3").await;
    streaming.stop().await;
}

/// A file too long for the sockets' buffers, so that its answer stands as long as nobody reads it.
const LONG: usize = 32 * 1_024 * 1_024;

/// Asks for a link and reads the head of its answer, and no more.
async fn begun(streaming: &Streaming, link: &str) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(streaming.server.running.addresses().http).await.expect("connects");
    stream.write_all(format!("GET {link} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sends");
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream
}

async fn runs_into(change: impl FnOnce(&mut Settings), status: u16, code: &str) {
    let streaming = Streaming::start(change).await;
    streaming.put("long.mp3", &pattern(LONG));
    let link = streaming.link("long.mp3").await;
    let (_first, second) = (begun(&streaming, &link).await, begun(&streaming, &link).await);
    let refused = streaming.nobody.get(&link).await;
    refused.expect_error(status, code);
    assert!(!refused.header("retry-after").is_empty());
    drop(second);
    // Its place is free as soon as the server has seen it go.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while with(&streaming, Method::GET, &link, &[("range", "bytes=0-0")]).await.status.as_u16() != 206 {
        assert!(std::time::Instant::now() < end, "the place is not free again");
        tokio::task::yield_now().await;
    }
    streaming.stop().await;
}

#[tokio::test]
async fn an_address_is_sent_so_many_files_at_once() {
    runs_into(|settings| settings.limits.streams_per_address = 2, 429, "RATE_LIMITED").await;
}

#[tokio::test]
async fn a_node_sends_so_many_files_at_once() {
    runs_into(|settings| settings.limits.streams = 2, 503, "TEMPORARILY_UNAVAILABLE").await;
}

#[tokio::test]
async fn a_file_that_is_too_long_is_not_there() {
    let streaming = Streaming::start(|settings| settings.streaming.max_file_size_bytes = 1_000).await;
    streaming.put("fits.mp3", &[7; 1_000]);
    streaming.put("long.mp3", &[7; 1_001]);
    streaming.link("fits.mp3").await;
    let body = serde_json::json!({"path": "long.mp3", "ttl_s": 60});
    let why = streaming.anna.post("/api/streams/sign", body).await.expect_error(404, "NOT_FOUND");
    assert!(why.contains("max_file_size_bytes"), "{why}");
    streaming.stop().await;
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_breaks_the_answer_off() {
    let streaming = Streaming::start(|settings| settings.streaming.cache_max_size_mb = 0).await;
    streaming.put("long.mp3", &pattern(LONG));
    let mut stream = begun(&streaming, &streaming.link("long.mp3").await).await;
    let file = std::fs::File::options().write(true).open(streaming.audio_dir().join("long.mp3")).expect("opens");
    file.set_len(1_000_000).expect("shrinks");
    let mut rest = Vec::new();
    // An end or an error: both tell the client that it has not got all.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < LONG, "nothing is made up");
    streaming.stop().await;
}
