//! The library's list.

use crate::Streaming;

#[tokio::test]
async fn the_library_lists_what_can_be_streamed() {
    let streaming = Streaming::start(|settings| settings.streaming.max_file_size_bytes = 10).await;
    for path in ["b.mp3", "Sub/Intro One.ogg", "sub/deep/two.flac", "sub/intro three.wav"] {
        streaming.put(path, b"sound");
    }
    for hidden in [".a.mp3", ".git/a.mp3", "notes.txt", "sub/page.html"] {
        streaming.put(hidden, b"other");
    }
    streaming.put("long.mp3", &[0; 11]);
    std::os::unix::fs::symlink("b.mp3", streaming.audio_dir().join("link.mp3")).expect("links");
    let paths = async |query: &str| {
        let body = streaming.anna.get(&format!("/api/streams{query}")).await.expect(200);
        let paths: Vec<String> = body["data"]
            .as_array()
            .expect("files")
            .iter()
            .map(|file| file["path"].as_str().expect("a path").to_owned())
            .collect();
        (paths, body["pagination"]["total_items"].as_u64().expect("a number"))
    };
    let all = ["Sub/Intro One.ogg", "b.mp3", "sub/deep/two.flac", "sub/intro three.wav"].map(str::to_owned);
    assert_eq!(paths("").await, (all.to_vec(), 4));
    assert_eq!(paths("?limit=2&page=2").await, (all[2..].to_vec(), 4));
    assert_eq!(paths("?search=INTRO").await, (vec![all[0].clone(), all[3].clone()], 2));
    assert_eq!(paths("?search=sub+two").await, (vec![all[2].clone()], 1));
    assert_eq!(paths("?search=none").await, (vec![], 0));
    let first = &streaming.anna.get("/api/streams?search=b.mp3").await.expect(200)["data"][0];
    assert_eq!((first["size_bytes"].as_u64(), first["media_type"].as_str()), (Some(5), Some("audio/mpeg")));
    assert!(first["modified_at"].as_str().expect("a time").ends_with('Z'));
    streaming.anna.get("/api/streams?limit=0").await.expect_error(400, "INVALID_INPUT");
    streaming.nobody.get("/api/streams").await.expect_error(401, "UNAUTHENTICATED");
    for path in all {
        streaming.link(&path).await;
    }
    streaming.stop().await;
}
