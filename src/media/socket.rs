//! The workers' sockets: one port, one socket for each, datagrams steered by what they say of their worker.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{MediaConfig, sys, webrtc::stun};

/// Where a native datagram's id lies.
const ID_OFFSET: u32 = 4;
/// Where another node's datagram names the worker that it is for: the lowest byte of the id.
pub(super) const NODE_WORKER_OFFSET: usize = ID_OFFSET as usize + 3;

/// Where clients' datagrams name their workers.
const CLIENT_OFFSETS: sys::ClientOffsets =
    sys::ClientOffsets { native_id: ID_OFFSET, stun_fragment: stun::FIRST_VALUE_OFFSET, stun_zero: stun::ZERO };

/// What of a datagram names its worker.
#[derive(Clone, Copy)]
pub(super) enum Steering {
    /// A client's: the session id, `id % workers` (docs/protocol.md, 2.1), or the fragment in its STUN.
    Client,
    /// Another node's: the lowest byte of the id (docs/protocol.md, 7).
    Node,
}

/// Binds a socket for each worker, in the order of their indices.
///
/// The first is bound on its own, so that a port in use is refused, and only then shared with the others.
pub(super) fn bind(config: &MediaConfig, address: SocketAddr, steering: Steering) -> io::Result<Vec<UdpSocket>> {
    let first = open(config, address)?;
    first.bind(&address.into())?;
    let address = first.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))?;
    let mut sockets = vec![first];
    if config.workers > 1 {
        sockets[0].set_reuse_port(true)?;
        for _ in 1..config.workers {
            let socket = open(config, address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            sockets.push(socket);
        }
        match steering {
            Steering::Client => sys::steer_clients(sockets[0].as_fd(), &CLIENT_OFFSETS, config.workers)?,
            Steering::Node => sys::steer(sockets[0].as_fd(), NODE_WORKER_OFFSET as u32, config.workers)?,
        }
    }
    warn_of_small_buffers(config, &sockets[0], address)?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

fn open(config: &MediaConfig, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families where the address allows it.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(config.receive_buffer_bytes)?;
    socket.set_send_buffer_size(config.send_buffer_bytes)?;
    sys::allow_fragments(socket.as_fd(), false)?;
    Ok(socket)
}

/// The kernel grants less than asked for without saying so.
fn warn_of_small_buffers(config: &MediaConfig, socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // The kernel doubles the number to account for its own structures.
    let granted = socket.recv_buffer_size()? / 2;
    if granted < config.receive_buffer_bytes {
        tracing::warn!(
            %address,
            asked_bytes = config.receive_buffer_bytes,
            granted_bytes = granted,
            "the UDP receive buffer is smaller than configured and may overflow in bursts; raise net.core.rmem_max"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use antiphon_core::ids::WorkerIndex;

    use super::*;

    /// Which of the sockets gets a datagram.
    fn taken_by(sockets: &[UdpSocket], datagram: &[u8]) -> usize {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.send_to(datagram, sockets[0].local_addr().expect("bound")).expect("sent");
        let mut buffer = [0; 64];
        for _ in 0..2_000 {
            if let Some(index) = sockets.iter().position(|socket| socket.recv(&mut buffer).is_ok()) {
                return index;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nobody got it");
    }

    #[test]
    fn clients_datagrams_go_to_the_workers_that_they_name() {
        let config = MediaConfig { workers: 3, ..MediaConfig::default() };
        let sockets = bind(&config, config.bind, Steering::Client).expect("three sockets");
        for worker in 0..3_u8 {
            let mut native = vec![0xc0; 40];
            native[4..8].copy_from_slice(&(300 + u32::from(worker)).to_be_bytes());
            assert_eq!(taken_by(&sockets, &native), usize::from(worker));
            let (fragment, _) = stun::credentials(WorkerIndex(worker.into()));
            let mut message = vec![0; stun::FIRST_VALUE_OFFSET as usize];
            message.extend(fragment.as_bytes());
            assert_eq!(taken_by(&sockets, &message), usize::from(worker));
        }
        // What names no worker that there is, or none at all, goes by its addresses to any of them.
        for nameless in [&b"\0\x01 a STUN message that was cut"[..], &[22, 1, 2, 3], &[0x80; 60], &[0], &[0xc1]] {
            taken_by(&sockets, nameless);
        }
        let mut strange = vec![0; stun::FIRST_VALUE_OFFSET as usize];
        strange.extend(stun::credentials(WorkerIndex(7)).0.as_bytes());
        taken_by(&sockets, &strange);
    }
}
