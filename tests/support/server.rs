//! A whole server in this process, on ports of its own, with data of its own.

use std::{net::Ipv4Addr, path::PathBuf};

use antiphon::{
    server::{Running, Server},
    settings::Settings,
};
use uuid::Uuid;

/// A server that stops, and whose data goes, with the test.
pub struct TestServer {
    /// The server.
    pub running: Running,
    data_dir: PathBuf,
}

impl TestServer {
    /// Starts one with `change`d settings. Without a database URL among them it has SQLite.
    pub async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let data_dir = std::env::temp_dir().join(format!("antiphon-test-{}", Uuid::new_v4()));
        let mut settings = Settings { data_dir: data_dir.clone(), ..Settings::default() };
        settings.server.host = Ipv4Addr::LOCALHOST.into();
        settings.server.port = 0;
        settings.server.websocket_port = 0;
        settings.server.drain_deadline_s = 0;
        settings.audio.udp_port = 0;
        settings.media.workers = 1;
        change(&mut settings);
        let running = Server::start(settings).await.expect("the server starts");
        Self { running, data_dir }
    }

    /// `http://address:port`, or `https` where it speaks TLS.
    pub fn url(&self) -> String {
        format!("{}://{}", self.running.addresses().http_scheme(), self.running.addresses().http)
    }

    /// Stops it and waits until it has.
    pub async fn stop(self) {
        self.running.stop().await;
        let _ = std::fs::remove_dir_all(&self.data_dir);
    }
}
