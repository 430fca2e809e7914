//! Uploading, replacing, removing, tagging, and finding again; on either database.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Streaming,
    client::{Answer, Client},
    support::{databases::TestDatabase, sounds::write_sound},
};

/// The bytes of a tone in one of the formats.
fn tone(streaming: &Streaming, ending: &str, codec: &str) -> Vec<u8> {
    let path = streaming.audio_dir().with_file_name(format!("made.{ending}"));
    write_sound(&path, codec);
    fs::read(path).expect("ours")
}

async fn send(client: &Client, method: Method, path: &str, bytes: &[u8]) -> Answer {
    client.send(client.request(method, &format!("/api/streams/{path}")).body(bytes.to_vec())).await
}

/// Announces an upload of so many bytes; what the server says to that, before any of them is sent.
async fn announce(
    streaming: &Streaming,
    client: &Client,
    (method, path): (&str, &str),
    bytes: usize,
) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(streaming.server.running.addresses().http).await.expect("listens");
    let token = client.token();
    let head = format!(
        "{method} /api/streams/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n\
         Content-Length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sends");
    let mut answer = vec![0; 4_096];
    let read = timeout(Duration::from_secs(30), stream.read(&mut answer)).await.expect("nothing need be sent");
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    (stream, answer)
}

async fn paths(client: &Client, query: &str) -> Vec<String> {
    let body = client.get(&format!("/api/streams?{query}")).await.expect(200);
    let files = body["data"].as_array().expect("files");
    files.iter().map(|file| file["path"].as_str().expect("a path").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_plays_is_found_and_can_be_removed() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let streaming =
            Streaming::start(|settings| settings.database.url = Some(database.url().parse().expect("a URL"))).await;
        let root = streaming.nobody.register("root").await;
        let (bela, cora) = (streaming.nobody.register("bela").await, streaming.nobody.register("cora").await);
        let (mp3, flac) = (tone(&streaming, "mp3", "libmp3lame"), tone(&streaming, "flac", "flac"));
        let uploaded = send(&bela, Method::POST, "Bela/new/one.mp3", &mp3).await.expect(201);
        assert_eq!(uploaded["data"]["size_bytes"].as_u64(), Some(mp3.len() as u64));
        let link = streaming.link("Bela/new/one.mp3").await;
        assert_eq!(streaming.nobody.get(&link).await.header("content-length"), mp3.len().to_string());
        assert_eq!(paths(&cora, "search=NEW").await, ["Bela/new/one.mp3"]);

        // There it stays until its owner, or an administrator, says otherwise.
        send(&bela, Method::POST, "Bela/new/one.mp3", &mp3).await.expect_error(409, "CONFLICT");
        send(&cora, Method::PUT, "Bela/new/one.mp3", &mp3).await.expect_error(403, "PERMISSION_DENIED");
        send(&cora, Method::DELETE, "Bela/new/one.mp3", b"").await.expect_error(403, "PERMISSION_DENIED");
        send(&streaming.anna, Method::POST, "guest.mp3", &mp3).await.expect_error(403, "PERMISSION_DENIED");
        streaming.put("operators.flac", &flac);
        send(&bela, Method::PUT, "operators.flac", &flac).await.expect_error(403, "PERMISSION_DENIED");
        send(&root, Method::PUT, "operators.flac", &flac[..]).await.expect(200);
        // What cannot be streamed is the operators', too.
        let outside = streaming.audio_dir().with_file_name("outside.mp3");
        fs::write(&outside, b"theirs").expect("written");
        std::os::unix::fs::symlink(&outside, streaming.audio_dir().join("link.mp3")).expect("linked");
        for method in [Method::POST, Method::PUT] {
            send(&bela, method, "link.mp3", &mp3).await.expect_error(409, "CONFLICT");
        }
        // Nor is a file a folder, or a folder a file.
        send(&bela, Method::POST, "Bela/new/one.mp3/two.mp3", &mp3).await.expect_error(409, "CONFLICT");
        send(&bela, Method::POST, "folder.mp3/two.mp3", &mp3).await.expect(201);
        send(&bela, Method::PUT, "folder.mp3", &mp3).await.expect_error(409, "CONFLICT");
        assert_eq!(send(&bela, Method::DELETE, "folder.mp3/two.mp3", b"").await.status, 204);
        assert!(streaming.audio_dir().join("link.mp3").is_symlink());
        assert_eq!(fs::read(&outside).expect("there"), b"theirs");
        let longer = [&mp3[..], &mp3[..]].concat();
        send(&bela, Method::PUT, "Bela/new/one.mp3", &longer).await.expect(200);

        // Tags.
        let tags = |list: &[&str]| json!({"tags": list});
        let tagged = bela.put("/api/streams/Bela/new/one.mp3/tags", tags(&["Live", "jazz ", "live"])).await.expect(200);
        assert_eq!(tagged["data"]["tags"], json!(["jazz", "live"]));
        cora.put("/api/streams/Bela/new/one.mp3/tags", tags(&["x"])).await.expect_error(403, "PERMISSION_DENIED");
        bela.put("/api/streams/none.mp3/tags", tags(&["x"])).await.expect_error(404, "NOT_FOUND");
        assert_eq!(paths(&cora, "tag=Jazz").await, ["Bela/new/one.mp3"]);
        assert_eq!(paths(&cora, "search=live+one").await, ["Bela/new/one.mp3"], "a tag and the path");
        assert_eq!(paths(&cora, "tag=rock").await, [""; 0]);
        assert_eq!(paths(&bela, "mine=true").await, ["Bela/new/one.mp3"]);
        let shown = cora.get("/api/streams/Bela/new/one.mp3").await.expect(200);
        assert_eq!((&shown["data"]["owner_id"], &shown["data"]["tags"]), (&bela.user["id"], &json!(["jazz", "live"])));

        send(&bela, Method::DELETE, "Bela/new/one.mp3", b"").await;
        assert!(!streaming.audio_dir().join("Bela").exists(), "folders go with their last file");
        assert_eq!(paths(&cora, "").await, ["operators.flac"]);
        streaming.nobody.get(&link).await.expect_error(404, "NOT_FOUND");
        send(&root, Method::DELETE, "operators.flac", b"").await;
        assert_eq!(paths(&cora, "").await, [""; 0]);
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sound_or_not_what_it_is_called_is_not_kept() {
    let streaming = Streaming::start(|settings| settings.streaming.max_file_size_bytes = 3_000_000).await;
    let bela = streaming.nobody.register("bela").await;
    let flac = tone(&streaming, "flac", "flac");
    let mut too_fast = tone(&streaming, "wav", "pcm_s16le");
    too_fast[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    for (path, bytes) in [
        ("too_fast.wav", &*too_fast),
        ("page.mp3", b"<html><script>alert(1)</script></html>".repeat(100).as_slice()),
        ("empty.mp3", b""),
        ("flac.mp3", &flac),
        ("list.webm", b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
    ] {
        send(&bela, Method::POST, path, bytes).await.expect_error(422, "INVALID_INPUT");
    }
    for path in ["../up.flac", "a/../../up.flac", ".hidden.flac", "page.html", "a//b.flac", "a\\b.flac"] {
        let path = path.replace('\\', "%5C").replace("..", "%2e%2e");
        send(&bela, Method::POST, &path, &flac).await.expect_error(404, "NOT_FOUND");
    }
    send(&bela, Method::POST, "long.flac", &vec![0; 3_000_001]).await.expect_error(409, "LIMIT_REACHED");
    assert_eq!(paths(&bela, "").await, [""; 0]);
    let left = fs::read_dir(streaming.audio_dir().join(".uploads")).expect("there").count();
    assert_eq!(left, 0, "nothing half sent stays");
    send(&bela, Method::POST, "flac.flac", &flac).await.expect(201);
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_exactly_however_many_upload_at_once() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let streaming = Streaming::start(|settings| {
            settings.database.url = Some(database.url().parse().expect("a URL"));
            settings.streaming.upload_quota_mb_per_account = 1;
            settings.streaming.upload_quota_mb = 2;
            settings.limits.uploads_per_account = 16;
        })
        .await;
        let root = streaming.nobody.register("root").await;
        let bela = streaming.nobody.register("bela").await;
        // Some 192 KiB: five fit into one MiB.
        let mp3 = tone(&streaming, "mp3", "libmp3lame").into_iter().collect::<Vec<u8>>();
        let tone = mp3.repeat((192 * 1_024_usize).div_ceil(mp3.len()));
        let fit = 1_024 * 1_024 / tone.len();
        let mut uploads = tokio::task::JoinSet::new();
        for index in 0..fit + 4 {
            let (bela, tone) = (bela.clone(), tone.clone());
            uploads.spawn(async move { send(&bela, Method::POST, &format!("{index}.mp3"), &tone).await });
        }
        let answers = uploads.join_all().await;
        let kept = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(kept, fit, "{:?}", answers.iter().map(|answer| &answer.text).collect::<Vec<_>>());
        for refused in answers.iter().filter(|answer| answer.status != 201) {
            let why = refused.expect_error(409, "LIMIT_REACHED");
            assert!(why.contains("1048576"), "{why}");
        }
        assert_eq!(paths(&bela, "limit=100").await.len(), fit);
        // An administrator has no quota but that of all.
        let mut more: Vec<Value> = Vec::new();
        for index in 0..2 * fit {
            more.push(send(&root, Method::POST, &format!("root/{index}.mp3"), &tone).await.json());
        }
        let refused = more.iter().filter(|answer| answer["error_code"] == "LIMIT_REACHED").count();
        assert!(refused > 0 && refused < more.len(), "{more:?}");
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_kept_need_not_be_sent() {
    let streaming = Streaming::start(|settings| settings.streaming.upload_quota_mb_per_account = 1).await;
    let _root = streaming.nobody.register("root").await;
    let (bela, cora) = (streaming.nobody.register("bela").await, streaming.nobody.register("cora").await);
    send(&bela, Method::POST, "one.mp3", &tone(&streaming, "mp3", "libmp3lame")).await.expect(201);
    for (client, what, bytes, expected) in [
        (&cora, ("PUT", "one.mp3"), 900_000, ["HTTP/1.1 403", "PERMISSION_DENIED"]),
        (&bela, ("POST", "one.mp3"), 900_000, ["HTTP/1.1 409", "CONFLICT"]),
        (&bela, ("POST", "two.mp3"), 1_100_000, ["HTTP/1.1 409", "LIMIT_REACHED"]),
        (&streaming.anna, ("POST", "three.mp3"), 900_000, ["HTTP/1.1 403", "PERMISSION_DENIED"]),
        (&bela, ("PUT", "one.mp3"), 900_000, ["HTTP/1.1 100", "Continue"]),
    ] {
        let (_stream, answer) = announce(&streaming, client, what, bytes).await;
        assert!(expected.iter().all(|part| answer.contains(part)), "{what:?}: {answer}");
    }
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_does_not_take_all_places() {
    let streaming = Streaming::start(|settings| {
        settings.limits.uploads = 3;
        settings.limits.uploads_per_account = 2;
    })
    .await;
    let _root = streaming.nobody.register("root").await;
    let (bela, cora) = (streaming.nobody.register("bela").await, streaming.nobody.register("cora").await);
    let mut sending = Vec::new();
    for (client, path, expected) in [
        (&bela, "1.mp3", ["HTTP/1.1 100", "Continue"]),
        (&bela, "2.mp3", ["HTTP/1.1 100", "Continue"]),
        (&bela, "3.mp3", ["HTTP/1.1 429", "limits.uploads_per_account"]),
        (&cora, "4.mp3", ["HTTP/1.1 100", "Continue"]),
        (&cora, "5.mp3", ["HTTP/1.1 503", "limits.uploads"]),
    ] {
        let (stream, answer) = announce(&streaming, client, ("POST", path), 1_000).await;
        assert!(expected.iter().all(|part| answer.contains(part)), "{path}: {answer}");
        sending.push(stream);
    }
    drop(sending);
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_too_slowly_gives_up_its_place() {
    let streaming = Streaming::start(|settings| settings.limits.uploads = 1).await;
    let _root = streaming.nobody.register("root").await;
    let bela = streaming.nobody.register("bela").await;
    let (mut slow, answer) = announce(&streaming, &bela, ("POST", "slow.mp3"), 1_000_000).await;
    assert!(answer.contains("100 Continue"), "{answer}");
    slow.write_all(&[0; 100]).await.expect("sends");
    let mut answer = String::new();
    let end = timeout(Duration::from_secs(60), slow.read_to_string(&mut answer)).await;
    assert!(answer.contains("408") && answer.contains("upload_bytes_per_s_min"), "{end:?} {answer}");
    send(&bela, Method::POST, "fast.mp3", &tone(&streaming, "mp3", "libmp3lame")).await.expect(201);
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_files_count_too() {
    let streaming = Streaming::start(|settings| settings.streaming.upload_quota_mb_per_account = 1).await;
    let _root = streaming.nobody.register("root").await;
    let bela = streaming.nobody.register("bela").await;
    let tone = &tone(&streaming, "mp3", "libmp3lame")[..16_000];
    for number in 0..16 {
        send(&bela, Method::POST, &format!("{number}.mp3"), tone).await.expect(201);
    }
    send(&bela, Method::POST, "16.mp3", tone).await.expect_error(409, "LIMIT_REACHED");
    streaming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_how_much_comes_is_stopped_where_the_quota_ends() {
    let streaming = Streaming::start(|settings| settings.streaming.upload_quota_mb_per_account = 1).await;
    let _root = streaming.nobody.register("root").await;
    let bela = streaming.nobody.register("bela").await;
    let stream = TcpStream::connect(streaming.server.running.addresses().http).await.expect("listens");
    let (mut reading, mut writing) = stream.into_split();
    let head = format!(
        "POST /api/streams/long.mp3 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        bela.token()
    );
    // More than all buffers on the way hold, and less than a file may have.
    let (chunks, chunk) = (900, [b"10000\r\n", &[0; 0x1_0000][..], b"\r\n"].concat());
    let sending = tokio::spawn(async move {
        writing.write_all(head.as_bytes()).await.expect("sends");
        for sent in 0..chunks {
            if writing.write_all(&chunk).await.is_err() {
                return sent;
            }
        }
        chunks
    });
    let mut answer = vec![0; 4_096];
    let read = timeout(Duration::from_secs(30), reading.read(&mut answer)).await.expect("an answer before the end");
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    assert!(answer.contains("409") && answer.contains("LIMIT_REACHED") && answer.contains("1048576"), "{answer}");
    drop(reading);
    let sent = timeout(Duration::from_secs(30), sending).await.expect("the connection ends").expect("no panic");
    assert!(sent < chunks, "all {sent} chunks were taken");
    streaming.stop().await;
}
