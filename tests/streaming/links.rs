//! Who may read a file: whoever has a good link to it, and nobody gets out of the folder.

use std::{fs, os::unix::fs::symlink};

use antiphon::{
    settings::Secret,
    streaming::{FilePath, Link, Secrets},
};
use serde_json::json;

use crate::Streaming;

const SECRET: &str = "your-32-chars-secret-key-here-ok";
const OLD_SECRET: &str = "the-32-chars-secret-key-before-it";

fn signed(secret: &str, path: &str, expires: &str, quality: &str) -> String {
    let file = FilePath::new(path).expect("a path");
    Secrets::new(secret.as_bytes(), None).sign(Link { path: &file, expires, quality })
}

fn in_seconds(seconds: i64) -> String {
    (time::OffsetDateTime::now_utc().unix_timestamp() + seconds).to_string()
}

#[tokio::test]
async fn links_are_good_until_they_run_out_and_for_their_file_alone() {
    let streaming = Streaming::start(|settings| {
        settings.streaming.secret = Some(Secret::new(SECRET));
        settings.streaming.secret_previous = Some(Secret::new(OLD_SECRET));
    })
    .await;
    streaming.put("a b/ü.mp3", b"sound");
    let nobody = &streaming.nobody;
    let path = "a b/ü.mp3";
    let get = async |expires: &str, sig: &str, more: &str| {
        nobody.get(&format!("/stream/a%20b/%C3%BC.mp3?expires={expires}&sig={sig}{more}")).await
    };
    let soon = in_seconds(60);
    for secret in [SECRET, OLD_SECRET] {
        let answer = get(&soon, &signed(secret, path, &soon, ""), "").await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "sound"), "with {secret}");
    }
    let original = signed(SECRET, path, &soon, "original");
    assert_eq!(get(&soon, &original, "&quality=original").await.text, "sound");
    get(&soon, &original, "").await.expect_error(403, "BAD_SIGNATURE");
    get(&soon, &signed("another", path, &soon, ""), "").await.expect_error(403, "BAD_SIGNATURE");
    get(&soon, &signed(SECRET, "b.mp3", &soon, ""), "").await.expect_error(403, "BAD_SIGNATURE");
    get(&in_seconds(61), &signed(SECRET, path, &soon, ""), "").await.expect_error(403, "BAD_SIGNATURE");
    let past = in_seconds(-1);
    get(&past, &signed(SECRET, path, &past, ""), "").await.expect_error(410, "LINK_EXPIRED");
    let late = in_seconds(8 * 86_400);
    get(&late, &signed(SECRET, path, &late, ""), "").await.expect_error(403, "BAD_SIGNATURE");
    for query in ["", "?expires=1", "?sig=x", "?expires=1&expires=2&sig=x", "?expires=&sig="] {
        let answer = nobody.get(&format!("/stream/a%20b/%C3%BC.mp3{query}")).await;
        answer.expect_error(403, "BAD_SIGNATURE");
    }
    // Whether there is such a file is not told to who has no link.
    nobody.get("/stream/none.mp3").await.expect_error(403, "BAD_SIGNATURE");
    streaming.stop().await;
}

#[tokio::test]
async fn links_are_made_for_accounts_and_files_that_there_are() {
    let streaming = Streaming::start(|_| {}).await;
    streaming.put("sub/a.mp3", b"sound");
    let ask = |path: &str, ttl_s: u64| json!({"path": path, "ttl_s": ttl_s});
    let answer = streaming.anna.post("/api/streams/sign", ask("sub/a.mp3", 604_800)).await.expect(200);
    let (url, expires) = (&answer["data"]["url"], &answer["data"]["expires"]);
    assert!(expires.as_i64().expect("a time") > time::OffsetDateTime::now_utc().unix_timestamp() + 604_700);
    assert_eq!(streaming.nobody.get(url.as_str().expect("a link")).await.text, "sound");
    let sign = async |body| streaming.anna.post("/api/streams/sign", body).await;
    sign(ask("sub/a.mp3", 0)).await.expect_error(400, "INVALID_INPUT");
    sign(ask("sub/a.mp3", 604_801)).await.expect_error(400, "INVALID_INPUT");
    sign(json!({"path": "sub/a.mp3", "ttl_s": 1, "quality": "best"})).await.expect_error(400, "INVALID_INPUT");
    for path in ["none.mp3", "../a.mp3", "/etc/passwd", ""] {
        sign(ask(path, 60)).await.expect_error(404, "NOT_FOUND");
    }
    let answer = streaming.nobody.post("/api/streams/sign", ask("sub/a.mp3", 60)).await;
    answer.expect_error(401, "UNAUTHENTICATED");
    streaming.stop().await;
}

/// Ways out of a folder as they have been tried elsewhere, to `secret.mp3` beside it and to what every machine has.
const WAYS_OUT: [&str; 36] = [
    "../secret.mp3",
    "..%2fsecret.mp3",
    "..%2Fsecret.mp3",
    "%2e%2e/secret.mp3",
    "%2e%2e%2fsecret.mp3",
    "%2E%2E%2Fsecret.mp3",
    ".%2e/secret.mp3",
    "%2e./secret.mp3",
    "sub/../../secret.mp3",
    "sub/..%2f..%2fsecret.mp3",
    "sub/%2e%2e/%2e%2e/secret.mp3",
    "./../secret.mp3",
    "././../secret.mp3",
    "sub/./../../secret.mp3",
    "..//secret.mp3",
    "//secret.mp3",
    "%2fsecret.mp3",
    "%2f%2fsecret.mp3",
    "..%5csecret.mp3",
    "..%5c..%5csecret.mp3",
    "%5csecret.mp3",
    "..%252fsecret.mp3",
    "%252e%252e%252fsecret.mp3",
    "..%c0%afsecret.mp3",
    "%c0%ae%c0%ae/secret.mp3",
    "..%ef%bc%8fsecret.mp3",
    "..%00/secret.mp3",
    "..%0a/secret.mp3",
    "../secret.mp3%00.mp3",
    "secret.mp3%00",
    "....//secret.mp3",
    "..;/secret.mp3",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd%00.mp3",
];

#[tokio::test]
async fn no_spelling_leads_out_of_the_folder() {
    let streaming = Streaming::start(|settings| settings.streaming.secret = Some(Secret::new(SECRET))).await;
    let outside = streaming.audio_dir().parent().expect("a folder").to_owned();
    fs::write(outside.join("secret.mp3"), "secret").expect("writes");
    streaming.put("sub/a.mp3", b"sound");
    symlink(outside.join("secret.mp3"), streaming.audio_dir().join("link.mp3")).expect("links");
    symlink("../..", streaming.audio_dir().join("sub/up")).expect("links");
    let address = streaming.server.running.addresses().http;
    let expires = in_seconds(60);
    // A client of ours would tidy such paths up before it sends them.
    let ask = async |path: &str, sig: &str| {
        let target = format!("/stream/{path}?expires={expires}&sig={sig}");
        raw_get(address, &target).await
    };
    for path in WAYS_OUT {
        // Signed as it is, decoded once: whatever the signer was talked into.
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, format!("{decoded}\n{expires}\n").as_bytes());
        let sig = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, tag);
        let answer = ask(path, &sig).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("NOT_FOUND"), "{path}: {answer}");
        assert!(!answer.ends_with("secret") && !answer.contains("root:"), "{path}: {answer}");
    }
    for path in ["link.mp3", "sub/up/secret.mp3"] {
        let answer = ask(path, &signed(SECRET, path, &expires, "")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let good = ask("sub/a.mp3", &signed(SECRET, "sub/a.mp3", &expires, "")).await;
    assert!(good.starts_with("HTTP/1.1 200 ") && good.ends_with("sound"), "{good}");
    streaming.stop().await;
}

/// The answer to a request whose target is sent as it is.
async fn raw_get(address: std::net::SocketAddr, target: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("reads");
    String::from_utf8_lossy(&answer).into_owned()
}
