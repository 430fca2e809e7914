//! Audio files behind signed links, over real sockets: links, ranges, conditions, limits, and players.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

mod bucket;
mod links;
mod listens;
mod listing;
mod playback;
mod players;
mod qualities;
mod ranges;
mod recorded;
mod serving;
mod store;
mod uploads;
mod watching;
mod waveforms;

#[path = "../http/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the HTTP API")]
mod client;
#[path = "../recording/channel.rs"]
#[allow(dead_code, reason = "shared with the tests of recordings")]
mod recording_channel;
#[path = "../recording/files.rs"]
#[allow(dead_code, reason = "shared with the tests of recordings")]
mod recording_files;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, path::PathBuf};

use antiphon::settings::Settings;
use serde_json::json;

use self::{client::Client, support::server::TestServer};

/// A server with a folder of audio files, and an account on it.
pub(crate) struct Streaming {
    pub(crate) server: TestServer,
    /// As nobody.
    pub(crate) nobody: Client,
    /// As an account.
    pub(crate) anna: Client,
    folder: PathBuf,
}

impl Streaming {
    pub(crate) async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = std::env::temp_dir().join(format!("antiphon-streaming-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).expect("can be made");
        let audio_dir = folder.join("audio");
        let server = TestServer::start(|settings| {
            settings.streaming.audio_dir = Some(audio_dir);
            change(settings);
        })
        .await;
        let nobody = Client::new(server.url());
        let anna = nobody.guest(&format!("anna-{}", uuid::Uuid::new_v4().simple())[..20]).await;
        Self { server, nobody, anna, folder }
    }

    /// The folder of the files; what lies beside it must not be reached.
    pub(crate) fn audio_dir(&self) -> PathBuf {
        self.folder.join("audio")
    }

    /// Writes a file into the folder.
    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        let path = self.audio_dir().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("can be made");
        fs::write(path, content).expect("can be written");
    }

    /// A link to a file, relative to the server.
    pub(crate) async fn link(&self, path: &str) -> String {
        let answer = self.anna.post("/api/streams/sign", json!({"path": path, "ttl_s": 600})).await;
        answer.expect(200)["data"]["url"].as_str().expect("a link").to_owned()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Bytes that tell where they are from.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}
