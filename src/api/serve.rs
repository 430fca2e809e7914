//! A listening socket's loop: HTTP/1.1, inside TLS where that is set, with time and size limits that slow or greedy peers
//! run into.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use antiphon_core::gateway::ErrorCode;
use axum::{Router, body::Body, extract::Request, http::header, response::IntoResponse};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    pin,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::{error::ApiError, lingering::Lingering, patience::Patient};
use crate::{
    client_address::{ClientAddress, ReachedAddress},
    places::{NoPlace, Place, Places},
    settings::Network,
    telemetry::metrics::{HandshakeOutcome, metrics},
    tls::{HANDSHAKE_TIMEOUT, Tls, speaks_tls},
};

/// The address of the other end of the connection, in each request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Both ends of a connection.
#[derive(Clone, Copy)]
struct Ends {
    peer: Peer,
    reached: ReachedAddress,
}

/// A request's head must be complete within this time, and a kept-alive connection be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing of an answer for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head, and the buffer of each connection.
const HEAD_BYTES_MAX: usize = 32 * 1_024;

/// How long the answer to a request that was given up may take to be taken.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// How long connections may take to finish their answers once told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long to wait after the system would not accept, as when it has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listening socket serves, and how.
#[derive(Clone)]
pub(crate) struct Serving {
    /// Answers the requests.
    pub(crate) router: Router,
    /// With which TLS, if with any.
    pub(crate) tls: Option<Tls>,
    /// So many connections are open at once; further ones wait in the kernel.
    pub(crate) connections_max: usize,
    /// Of those, from one address; further ones are closed at once.
    pub(crate) per_address: u32,
    /// Proxies, which have the connections of all their clients.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// In each request's extensions: by it the connection is ended as soon as the answer is sent, whatever its client still
/// sends.
#[derive(Clone, Debug, Default)]
pub(super) struct GiveUp(Arc<Notify>);

impl GiveUp {
    pub(super) fn ask(&self) {
        self.0.notify_one();
    }
}

/// How many connections each address has.
struct PerAddress {
    places: Arc<Places<IpAddr>>,
    unbound: Vec<Network>,
}

impl PerAddress {
    fn new(serving: &Serving) -> Self {
        let places = Arc::new(Places::unseen(u32::MAX, serving.per_address));
        Self { places, unbound: serving.trusted_proxies.clone() }
    }

    /// The place of a connection, where its address has one left; a trusted proxy needs none.
    fn place(&self, Peer(peer): Peer) -> Result<Option<Place>, NoPlace> {
        let address = peer.ip().to_canonical();
        if self.unbound.iter().any(|network| network.contains(address)) {
            return Ok(None);
        }
        let place = Places::take(&self.places, ClientAddress(address).limit_key());
        place.map(Some).inspect_err(|_| metrics().http.connections_refused.increment(1))
    }
}

/// Serves until `stop` turns true, then lets open requests finish for a few seconds. Connections that became WebSockets are
/// no longer its own.
pub(crate) async fn serve(listener: TcpListener, serving: Serving, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(serving.connections_max));
    let addresses = Arc::new(PerAddress::new(&serving));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, ends)) => {
                let (router, stop) = (serving.router.clone(), stop.clone());
                let (slots, addresses) = (Arc::clone(&slots), Arc::clone(&addresses));
                let Some(tls) = serving.tls.clone() else {
                    let (Ok(slot), Ok(place)) = (slots.try_acquire_owned(), addresses.place(ends.peer)) else {
                        continue;
                    };
                    connections.spawn(async move {
                        let _places = (slot, place);
                        connection(Patient::new(stream, WRITE_TIMEOUT), ends, router, stop).await;
                    });
                    continue;
                };
                // Taken after the handshake alone, so that peers who stall in it hold no place, nor one of their address's.
                connections.spawn(async move {
                    if let Some((stream, _slot)) = secured(stream, ends, &tls, slots, stop.clone()).await
                        && let Ok(_place) = addresses.place(ends.peer)
                    {
                        connection(stream, ends, router, stop).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, all_done).await.is_err() {
        tracing::info!("gave up on requests that were still open");
    }
}

/// The next connection, once there is a slot for it. That is not held while nobody comes: a handshake may want it.
async fn accept(listener: &TcpListener, slots: &Semaphore) -> io::Result<(TcpStream, Ends)> {
    drop(slots.acquire().await.map_err(io::Error::other)?);
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let reached = ReachedAddress(stream.local_addr()?.ip().to_canonical());
    Ok((stream, Ends { peer: Peer(peer), reached }))
}

/// A connection inside TLS, with its place among the connections.
type Secured = (TlsStream<Patient<TcpStream>>, OwnedSemaphorePermit);

/// The connection once its handshake is done and there is a place for it; counts what became of it.
async fn secured(
    stream: TcpStream,
    ends: Ends,
    tls: &Tls,
    slots: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) -> Option<Secured> {
    let handshake = tls.begin_handshake();
    let outcome = tokio::select! {
        arrived = tokio::time::timeout(HANDSHAKE_TIMEOUT, arrive(stream, ends, tls, slots, stop.clone())) => {
            arrived.unwrap_or(Err(HandshakeOutcome::TimedOut))
        }
        () = handshake.given_up() => Err(HandshakeOutcome::GivenUp),
        () = stopped(&mut stop) => return None,
    };
    let counted = outcome.as_ref().err().copied().unwrap_or(HandshakeOutcome::Ok);
    metrics().tls.handshakes.of(counted).increment(1);
    outcome.ok()
}

/// The handshake, or a clear word to whoever speaks plain HTTP.
async fn arrive(
    stream: TcpStream,
    ends: Ends,
    tls: &Tls,
    slots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
) -> Result<Secured, HandshakeOutcome> {
    // A port that is open is all that a health check may want to know: it breaks off without a word.
    let is_tls = speaks_tls(&stream).await.map_err(|_| HandshakeOutcome::Failed)?;
    let stream = Patient::new(stream, WRITE_TIMEOUT);
    if !is_tls {
        connection(stream, ends, Router::new().fallback(plain_http), stop).await;
        return Err(HandshakeOutcome::PlainHttp);
    }
    let stream = tls.accept(stream).await.map_err(|error| {
        tracing::trace!(%error, "a TLS handshake failed");
        HandshakeOutcome::Failed
    })?;
    let slot = slots.acquire_owned().await.map_err(|_| HandshakeOutcome::Failed)?;
    Ok((stream, slot))
}

/// What plain HTTP is told where TLS is spoken. Not a redirection: whatever secret the request had has already been sent
/// in the clear, and should not go on to work by accident.
async fn plain_http() -> impl IntoResponse {
    let message = "this port speaks TLS: ask by https:// (and wss://)";
    ([(header::CONNECTION, "close")], ApiError::new(ErrorCode::InvalidInput, message))
}

/// One connection's requests, one after another.
async fn connection<Io>(stream: Io, ends: Ends, router: Router, mut stop: watch::Receiver<bool>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let give_up = GiveUp::default();
    let asked = give_up.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ends.peer);
        request.extensions_mut().insert(ends.reached);
        request.extensions_mut().insert(give_up.clone());
        let request = Lingering::around(request);
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = asked.0.notified() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // Peers that break off or send no HTTP: usual, and theirs to mend.
        tracing::trace!(%error, "connection ended");
    }
}

/// Returns once `stop` is true, or nobody is left to make it so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpSocket,
        task::JoinHandle,
    };

    use super::*;

    /// A server whose `/slow` answers once told to.
    async fn started(connections_max: usize) -> (SocketAddr, Arc<Notify>, watch::Sender<bool>, JoinHandle<()>) {
        started_with(connections_max, u32::MAX, &[]).await
    }

    async fn started_with(
        connections_max: usize,
        per_address: u32,
        trusted_proxies: &[&str],
    ) -> (SocketAddr, Arc<Notify>, watch::Sender<bool>, JoinHandle<()>) {
        let release = Arc::new(Notify::new());
        let released = Arc::clone(&release);
        let slow = move || async move {
            released.notified().await;
            "at last"
        };
        let router = Router::new().route("/", get(|| async { "at once" })).route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        let trusted_proxies = trusted_proxies.iter().map(|network| network.parse().expect("a network")).collect();
        let serving = Serving { router, tls: None, connections_max, per_address, trusted_proxies };
        let task = tokio::spawn(serve(listener, serving, stopped));
        (address, release, stop, task)
    }

    async fn asked(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("sends");
        stream
    }

    /// Reads until `end` has come.
    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            let mut part = [0; 1_024];
            let count = stream.read(&mut part).await.expect("reads");
            assert!(count > 0, "closed after {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn stopping_lets_open_requests_finish_and_closes_idle_connections() {
        let (address, release, stop, task) = started(10).await;
        let mut idle = asked(address, "/").await;
        read_until(&mut idle, "at once").await;
        let mut busy = asked(address, "/slow").await;
        // Its handler runs once another connection, opened later, was answered.
        read_until(&mut asked(address, "/").await, "at once").await;
        stop.send(true).expect("somebody listens");
        assert_eq!(idle.read(&mut [0; 16]).await.expect("closed in good order"), 0);
        release.notify_one();
        let answer = read_until(&mut busy, "at last").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        task.await.expect("it ends");
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn connections_above_the_limit_wait_for_a_place() {
        let (address, _release, _stop, _task) = started(1).await;
        let mut first = asked(address, "/").await;
        read_until(&mut first, "at once").await;
        let mut second = asked(address, "/").await;
        let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut [0; 16])).await;
        assert!(early.is_err(), "the first is still open");
        drop(first);
        read_until(&mut second, "at once").await;
    }

    #[tokio::test]
    async fn an_address_has_no_more_than_its_share_unless_it_is_a_trusted_proxys() {
        let (address, _release, _stop, _task) = started_with(10, 2, &[]).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = asked(address, "/").await;
            read_until(&mut stream, "at once").await;
            open.push(stream);
        }
        let mut third = TcpStream::connect(address).await.expect("the kernel takes it");
        // It may be reset before it is closed.
        assert_eq!(third.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed without an answer");
        let other = TcpSocket::new_v4().expect("a socket");
        other.bind("127.0.0.2:0".parse().expect("an address")).expect("another address");
        let mut other = other.connect(address).await.expect("connects");
        other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sends");
        read_until(&mut other, "at once").await;

        let (address, _release, _stop, _task) = started_with(10, 2, &["127.0.0.0/8"]).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = asked(address, "/").await;
            read_until(&mut stream, "at once").await;
            open.push(stream);
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (address, _release, _stop, _task) = started(10).await;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let line = format!("x-padding: {}\r\n", "x".repeat(1_000));
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{}", line.repeat(HEAD_BYTES_MAX / 1_000 + 2));
        // It may close before everything is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
