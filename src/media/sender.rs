//! Datagrams gathered into batches and sent through one socket.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use antiphon_core::wire::datagram::DATAGRAM_BYTES_MAX;

use super::{
    counters::{SocketCounter, SocketStats},
    sys::{self, Outgoing, SEND_BATCH, SendHeaders},
};

/// How many different datagrams a batch holds.
const DATAGRAMS: usize = 32;
/// How often and how long sending waits for room in the socket's buffer before datagrams are dropped.
const SEND_WAITS_MAX: usize = 2;
const SEND_WAIT: Duration = Duration::from_millis(1);

/// A datagram that waits to be sent.
struct Gathered {
    length: usize,
    bytes: [u8; DATAGRAM_BYTES_MAX],
}

/// One worker's way out through one of its sockets.
pub(super) struct Sender {
    socket: Arc<UdpSocket>,
    datagrams: Box<[Gathered; DATAGRAMS]>,
    used: usize,
    outgoing: Vec<Outgoing>,
    headers: SendHeaders,
    /// What happened at this socket, receiving included.
    pub(super) stats: SocketStats,
}

impl Sender {
    pub(super) fn new(socket: Arc<UdpSocket>) -> Self {
        Self {
            socket,
            datagrams: Box::new([const { Gathered { length: 0, bytes: [0; DATAGRAM_BYTES_MAX] } }; DATAGRAMS]),
            used: 0,
            outgoing: Vec::with_capacity(SEND_BATCH),
            headers: SendHeaders::new(),
            stats: SocketStats::default(),
        }
    }

    /// The same datagram to many, with the next flush.
    pub(super) fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        let mut place = self.gather(datagram);
        for to in to {
            if self.outgoing.len() == SEND_BATCH {
                self.flush();
                place = self.gather(datagram);
            }
            self.outgoing.push(Outgoing { datagram: place, to: *to });
        }
    }

    /// Sends everything gathered.
    pub(super) fn flush(&mut self) {
        let Self { socket, datagrams, used, outgoing, headers, stats } = self;
        let mut rest = &outgoing[..];
        let mut waits = 0;
        while !rest.is_empty() {
            let bytes = datagrams.each_ref().map(|gathered| &gathered.bytes[..gathered.length]);
            match headers.send(socket.as_fd(), bytes, rest) {
                Ok(sent) => {
                    stats.add(SocketCounter::SendCalls, 1);
                    stats.add(SocketCounter::DatagramsSent, sent as u64);
                    rest = &rest[sent..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) && waits < SEND_WAITS_MAX => {
                    waits += 1;
                    stats.add(SocketCounter::SendWaits, 1);
                    sys::wait_writable(socket.as_fd(), SEND_WAIT);
                }
                Err(error) if is_full(&error) => {
                    stats.add(SocketCounter::SendDropped, rest.len() as u64);
                    rest = &[];
                }
                // Only the first could not be sent: its address is at fault, not the others'.
                Err(_) => {
                    stats.add(SocketCounter::SendErrors, 1);
                    rest = &rest[1..];
                }
            }
        }
        outgoing.clear();
        *used = 0;
    }

    /// Keeps a copy of a datagram until the next flush; its place.
    fn gather(&mut self, datagram: &[u8]) -> usize {
        if self.used == DATAGRAMS {
            self.flush();
        }
        let place = self.used;
        let gathered = &mut self.datagrams[place];
        gathered.length = datagram.len();
        gathered.bytes[..datagram.len()].copy_from_slice(datagram);
        self.used += 1;
        place
    }
}

/// The kernel takes no more just now: the socket's buffer or the device's queue is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn sender() -> Sender {
        Sender::new(Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a socket")))
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let length = socket.recv(&mut buffer).expect("a datagram");
        buffer[..length].to_vec()
    }

    #[test]
    fn more_datagrams_and_listeners_than_a_batch_holds_are_all_sent() {
        let mut sender = sender();
        let (socket, address) = listener();
        for number in 0..DATAGRAMS as u8 + 10 {
            sender.fan_out(&[number; 40], &[address]);
        }
        sender.fan_out(&[255; 50], &vec![address; SEND_BATCH + 20]);
        sender.flush();
        for number in 0..DATAGRAMS as u8 + 10 {
            assert_eq!(received(&socket), [number; 40]);
        }
        for _ in 0..SEND_BATCH + 20 {
            assert_eq!(received(&socket), [255; 50]);
        }
        let sent = sender.stats[SocketCounter::DatagramsSent];
        assert_eq!(sent, (DATAGRAMS + 10 + SEND_BATCH + 20) as u64);
    }

    #[test]
    fn an_address_that_cannot_be_sent_to_keeps_no_other_waiting() {
        let mut sender = sender();
        let (socket, address) = listener();
        let forbidden = SocketAddr::from(([255, 255, 255, 255], 9));
        sender.fan_out(&[1; 40], &[forbidden, address, forbidden, address, forbidden]);
        sender.flush();
        assert_eq!([received(&socket), received(&socket)], [[1; 40]; 2]);
        let counted = [SocketCounter::SendErrors, SocketCounter::DatagramsSent].map(|counter| sender.stats[counter]);
        assert_eq!(counted, [3, 2]);
    }
}
