//! ICE over TCP (RFC 6544, 4571) for clients whose UDP is blocked: each datagram behind its length in two bytes.
//!
//! A connection's first datagram is STUN, whose fragment names the worker; from then on its datagrams go there, and what
//! that worker's peers send to the client's address comes back by the connection. Nothing is believed of it but that: the
//! peer checks every datagram as it checks UDP.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use antiphon_core::{ids::WorkerIndex, wire::datagram::DATAGRAM_BYTES_MAX};
use str0m::net::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{api::PeerCommand, demux::PeerDatagram, stun};
use crate::media::Media;

/// How long a connection may be silent: clients check their way every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long its first datagram may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams that may wait for a connection: half a second of a good picture.
const WAITING_MAX: usize = 128;
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
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Which one it is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves so many connections at once, for ever; further ones are closed at once.
    pub async fn serve(self, media: Media, connections_max: usize) {
        let places = Arc::new(Semaphore::new(connections_max));
        loop {
            let Ok((stream, from)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let media = media.clone();
            tokio::spawn(async move {
                // However it ends, its client tries again or goes another way.
                _ = serve_one(&media, stream, from).await;
                drop(place);
            });
        }
    }
}

async fn serve_one(media: &Media, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, writer) = stream.into_split();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    let first = timeout(FIRST_PATIENCE, read(&mut reader, &mut datagram)).await??;
    let Some(worker) = stun::fragment_in(&datagram[..first]).and_then(stun::worker_of) else { return Ok(()) };
    let address = (Protocol::Tcp, SocketAddr::new(from.ip().to_canonical(), from.port()));
    let (way, waiting) = mpsc::channel(WAITING_MAX);
    media.send_to_peers(worker, PeerCommand::Reach { address, way }).await;
    let reading = read_all(media, worker, &mut reader, address, (&mut datagram, first));
    let ended = tokio::select! {
        ended = reading => ended,
        ended = write_all(writer, waiting) => ended,
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
