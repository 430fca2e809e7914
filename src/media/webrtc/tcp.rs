//! ICE over TCP (RFC 6544, 4571) for clients whose UDP is blocked: each datagram behind its length in two bytes.
//!
//! A connection's first datagram is STUN, whose fragment names a peer and its worker; from then on its datagrams go there, and
//! what that worker's peers send to the client's address comes back by the connection. Nothing is believed of it but that: the
//! peer checks every datagram as it checks UDP. It has a place among those that are served once the worker knows the peer:
//! whoever was told nothing by this server takes no place from those who were.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use antiphon_core::{ids::WorkerIndex, wire::datagram::DATAGRAM_BYTES_MAX};
use str0m::net::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{api::PeerCommand, demux::PeerDatagram, stun};
use crate::{
    client_address::ClientAddress,
    media::Media,
    places::{NoPlace, Place, Places},
    tcp::listen,
    telemetry::metrics::{TcpRefusal, metrics},
};

/// How long a connection may be silent: clients check their way every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long its first datagram may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams that may wait for a connection: half a second of a good picture.
const WAITING_MAX: usize = 128;
/// Connections that may wait for that at once, however few are served.
const WAITING_CONNECTIONS_MIN: u32 = 16;
/// How long to wait where the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port for clients whose UDP is blocked.
pub struct IceTcp {
    listener: TcpListener,
}

impl IceTcp {
    /// Takes a port.
    ///
    /// # Errors
    /// When it is taken already.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: listen(address)? })
    }

    /// Which one it is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves so many connections at once, and so many of one address, for ever; further ones are closed at once.
    pub async fn serve(self, media: Media, connections_max: u32, per_address: u32) {
        let doors = Arc::new(Doors::new(connections_max, per_address));
        loop {
            let Ok((stream, from)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let key = ClientAddress(from.ip()).limit_key();
            let Ok(waiting) = Places::take(&doors.waiting, key).inspect_err(count_refusal) else { continue };
            let (media, doors) = (media.clone(), Arc::clone(&doors));
            tokio::spawn(async move {
                // However it ends, its client tries again or goes another way.
                _ = serve_one(&media, (stream, from), &doors, waiting).await;
            });
        }
    }
}

/// Who is let in, one door behind the other.
struct Doors {
    /// Those that have not yet said which peer they belong to.
    waiting: Arc<Places<IpAddr>>,
    /// Those that are served.
    served: Arc<Places<IpAddr>>,
}

impl Doors {
    fn new(connections_max: u32, per_address: u32) -> Self {
        let waiting = (connections_max / 4).max(WAITING_CONNECTIONS_MIN);
        Self {
            waiting: Arc::new(Places::unseen(waiting, per_address.min(waiting / 4))),
            served: Arc::new(Places::unseen(connections_max, per_address)),
        }
    }
}

fn count_refusal(why: &NoPlace) {
    let reason = match why {
        NoPlace::InAll(_) => TcpRefusal::Full,
        NoPlace::ForEach(_) => TcpRefusal::Address,
    };
    metrics().webrtc.tcp_refused.of(reason).increment(1);
}

async fn serve_one(
    media: &Media,
    (stream, from): (TcpStream, SocketAddr),
    doors: &Doors,
    waiting: Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, writer) = stream.into_split();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    let first = timeout(FIRST_PATIENCE, read(&mut reader, &mut datagram)).await??;
    let fragment: Box<[u8]> = stun::fragment_in(&datagram[..first]).unwrap_or_default().into();
    let worker = stun::worker_of(&fragment).filter(|worker| worker.0 < media.workers());
    let Some(worker) = worker else {
        metrics().webrtc.tcp_refused.of(TcpRefusal::Unknown).increment(1);
        return Ok(());
    };
    let address = (Protocol::Tcp, SocketAddr::new(from.ip().to_canonical(), from.port()));
    let (way, to_send) = mpsc::channel(WAITING_MAX);
    let (known, told) = oneshot::channel();
    media.send_to_peers(worker, PeerCommand::Reach { address, fragment, way, known }).await;
    if !told.await.unwrap_or(false) {
        metrics().webrtc.tcp_refused.of(TcpRefusal::Unknown).increment(1);
        return Ok(());
    }
    let ended = match Places::take(&doors.served, ClientAddress(from.ip()).limit_key()).inspect_err(count_refusal) {
        Ok(_place) => {
            drop(waiting);
            let reading = read_all(media, worker, &mut reader, address, (&mut datagram, first));
            tokio::select! {
                ended = reading => ended,
                ended = write_all(writer, to_send) => ended,
            }
        }
        Err(_) => Ok(()),
    };
    media.send_to_peers(worker, PeerCommand::Unreach { address }).await;
    ended
}

async fn read_all(
    media: &Media,
    worker: WorkerIndex,
    reader: &mut OwnedReadHalf,
    address: (Protocol, SocketAddr),
    (datagram, first): (&mut [u8; DATAGRAM_BYTES_MAX], usize),
) -> io::Result<()> {
    let mut length = first;
    loop {
        if let Some(came) = PeerDatagram::came(address, &datagram[..length]) {
            // One that finds no room is lost, as on UDP.
            _ = media.leave_for_peers(worker, came);
        }
        length = timeout(SILENCE_MAX, read(reader, datagram)).await??;
    }
}

async fn read(reader: &mut OwnedReadHalf, datagram: &mut [u8; DATAGRAM_BYTES_MAX]) -> io::Result<usize> {
    let length = usize::from(reader.read_u16().await?);
    let room = datagram.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
    reader.read_exact(room).await
}

async fn write_all(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Box<[u8]>>) -> io::Result<()> {
    let mut framed = Vec::with_capacity(2 + DATAGRAM_BYTES_MAX);
    while let Some(datagram) = waiting.recv().await {
        let Ok(length) = u16::try_from(datagram.len()) else { continue };
        framed.clear();
        framed.extend(length.to_be_bytes());
        framed.extend(&*datagram);
        writer.write_all(&framed).await?;
    }
    Ok(())
}
