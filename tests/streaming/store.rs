//! An S3 store of the test's own: a real server over a folder, which can be stopped, started again, and made to break off.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep},
};

use crate::support::network::ReservedPort;

pub(crate) const BUCKET: &str = "library";
pub(crate) const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test-secret-key";

/// How a store that is slow counts time.
const STEP: Duration = Duration::from_millis(100);

/// A store with one bucket.
pub(crate) struct BucketStore {
    folder: PathBuf,
    port: ReservedPort,
    /// Bytes that it still sends before it breaks off once.
    sends: Arc<AtomicU64>,
    /// Bytes that each connection sends in a [`STEP`].
    pace: Arc<AtomicU64>,
    running: JoinSet<()>,
}

impl BucketStore {
    pub(crate) async fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("antiphon-bucket-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(folder.join(BUCKET)).expect("can be made");
        let [sends, pace] = [(); 2].map(|()| Arc::new(AtomicU64::new(u64::MAX)));
        let mut store =
            Self { folder, port: ReservedPort::take().expect("a port"), sends, pace, running: JoinSet::new() };
        store.go_on();
        store
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.port())
    }

    /// Ends it with all its connections, as when its process is killed.
    pub(crate) async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    /// Starts it again at the same address, over the same folder.
    pub(crate) fn go_on(&mut self) {
        let service = {
            let mut service = S3ServiceBuilder::new(FileSystem::new(&self.folder).expect("a folder"));
            service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
            service.build()
        };
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("can be set");
        socket.bind((Ipv4Addr::LOCALHOST, self.port.port()).into()).expect("reserved");
        let listener = socket.listen(64).expect("listens");
        let (sends, pace) = (Arc::clone(&self.sends), Arc::clone(&self.pace));
        self.running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (sends, pace) = (Arc::clone(&sends), Arc::clone(&pace));
                let next = Box::pin(tokio::time::sleep(Duration::ZERO));
                connections.spawn(serve(Fragile { stream, sends, pace, next }, service.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
    }

    /// Breaks a connection off once it has sent so many more bytes.
    pub(crate) fn break_off_after(&self, bytes: u64) {
        self.sends.store(bytes, Ordering::SeqCst);
    }

    /// Sends so many bytes a second by each connection from now on.
    pub(crate) fn set_pace(&self, bytes_per_s: u64) {
        self.pace.store(bytes_per_s / 10, Ordering::SeqCst);
    }

    /// Whether it has broken off what it was to.
    pub(crate) fn has_broken_off(&self) -> bool {
        self.sends.load(Ordering::SeqCst) == u64::MAX
    }

    /// The keys of all objects whose key begins so, with their folders.
    pub(crate) fn keys_under(&self, folder: &str) -> Vec<String> {
        let root = self.folder.join(BUCKET);
        let (mut folders, mut keys) = (vec![root.join(folder)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => keys.push(path.strip_prefix(&root).expect("below").to_string_lossy().into_owned()),
                }
            }
        }
        keys
    }

    /// What an object holds, if it is there.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(BUCKET).join(key)).ok()
    }

    /// Removes an object as a rule of the store would.
    pub(crate) fn remove(&self, key: &str) {
        fs::remove_file(self.folder.join(BUCKET).join(key)).expect("it is there");
    }

    /// Writes an object as somebody else would.
    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) {
        let bucket = Bucket::new(self.url().parse().expect("a URL"), UrlStyle::Path, BUCKET, "us-east-1").expect("one");
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY);
        let url = bucket.put_object(Some(&credentials), key).sign(Duration::from_secs(60));
        let sent = reqwest::Client::new().put(url).body(bytes.to_vec()).send().await.expect("an answer");
        assert!(sent.status().is_success(), "{sent:?}");
    }
}

impl Drop for BucketStore {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(stream: Fragile, service: S3Service) {
    // Ends with an error where it breaks off.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A connection that may be slow, and break off in the middle.
struct Fragile {
    stream: TcpStream,
    sends: Arc<AtomicU64>,
    pace: Arc<AtomicU64>,
    /// When it sends more, where it is slow.
    next: Pin<Box<Sleep>>,
}

impl AsyncRead for Fragile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.sends.load(Ordering::SeqCst);
        if left == 0 {
            self.sends.store(u64::MAX, Ordering::SeqCst);
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let pace = self.pace.load(Ordering::SeqCst);
        if pace < u64::MAX {
            ready!(self.next.as_mut().poll(cx));
            self.next.as_mut().reset(Instant::now() + STEP);
        }
        let most = usize::try_from(left.min(pace)).unwrap_or(usize::MAX).min(bytes.len());
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes[..most]);
        if let (Poll::Ready(Ok(count)), true) = (&written, left < u64::MAX) {
            self.sends.store(left - *count as u64, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
