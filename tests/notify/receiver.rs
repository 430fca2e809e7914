//! Somebody who takes posts, on a port that stays the same, and can be killed and started again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

/// What was posted.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Post {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    /// What it answers.
    pub(crate) status: Arc<AtomicU16>,
    tell: mpsc::UnboundedSender<Post>,
    serving: JoinHandle<()>,
}

/// As its status: it takes what is posted, and never answers.
pub(crate) const HANGS: u16 = 0;

/// So that nothing is left of a receiver that is killed.
const CLOSE: [(&str, &str); 1] = [("connection", "close")];

impl Receiver {
    pub(crate) async fn start() -> (Self, mpsc::UnboundedReceiver<Post>) {
        let (tell, told) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, status) = (listener.local_addr().expect("bound"), Arc::new(AtomicU16::new(201)));
        let serving = serve(listener, Arc::clone(&status), tell.clone());
        (Self { address, status, tell, serving }, told)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn kill(&mut self) {
        self.serving.abort();
    }

    pub(crate) async fn start_again(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                // The one before has not gone yet.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.serving = serve(listener, Arc::clone(&self.status), self.tell.clone());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Tells of what it takes: with a success, or without an answer.
fn serve(listener: TcpListener, status: Arc<AtomicU16>, tell: mpsc::UnboundedSender<Post>) -> JoinHandle<()> {
    let take = move |headers: HeaderMap, body: Bytes| {
        let (status, tell) = (status.load(Ordering::Relaxed), tell.clone());
        async move {
            if status == HANGS {
                let _ = tell.send(Post { headers, body });
                return std::future::pending().await;
            }
            let status = StatusCode::from_u16(status).expect("a status");
            if status.is_success() {
                let _ = tell.send(Post { headers, body });
            }
            (status, CLOSE)
        }
    };
    let router = Router::new().fallback(take);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") })
}
