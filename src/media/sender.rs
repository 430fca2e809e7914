//! Datagrams gathered into batches and sent through one socket.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use antiphon_core::wire::datagram::DATAGRAM_BYTES_MAX;

use super::{
    counters::{SocketCounter, SocketStats},
    sys::{self, Outgoing, SEND_BATCH, SEND_PARTS, SendHeaders},
    trains,
};

/// How many different datagrams a batch holds.
const DATAGRAMS: usize = SEND_PARTS;
/// However many of them leave in one message, it is within the kernel's limits.
const _: () = assert!(DATAGRAMS <= 64 && DATAGRAMS * DATAGRAM_BYTES_MAX <= 65_507);
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
    /// Whether datagrams of one length leave in one message; no longer once the system has refused to cut one.
    segmenting: bool,
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
            segmenting: false,
            stats: SocketStats::default(),
        }
    }

    /// One that sends every datagram to one address, and couples those of one length for one worker of a node.
    pub(super) fn segmenting(socket: Arc<UdpSocket>) -> Self {
        Self { segmenting: true, ..Self::new(socket) }
    }

    /// The same datagram to many, with the next flush.
    pub(super) fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        let mut place = self.gather(datagram);
        for to in to {
            if self.outgoing.len() == SEND_BATCH {
                self.flush();
                place = self.gather(datagram);
            }
            self.outgoing.push(Outgoing::one(place, *to));
        }
    }

    /// What `write` makes in place to one, with the next flush; false when it makes nothing.
    pub(super) fn compose(
        &mut self,
        to: SocketAddr,
        write: impl FnOnce(&mut [u8; DATAGRAM_BYTES_MAX]) -> Option<usize>,
    ) -> bool {
        if self.used == DATAGRAMS || self.outgoing.len() == SEND_BATCH {
            self.flush();
        }
        let gathered = &mut self.datagrams[self.used];
        let Some(length) = write(&mut gathered.bytes) else { return false };
        gathered.length = length;
        self.outgoing.push(Outgoing::one(self.used, to));
        self.used += 1;
        true
    }

    /// Sends everything gathered.
    pub(super) fn flush(&mut self) {
        let Self { socket, datagrams, used, outgoing, headers, segmenting, stats } = self;
        if outgoing.is_empty() {
            *used = 0;
            return;
        }
        let bytes = &mut [&[][..]; DATAGRAMS][..*used];
        for (bytes, gathered) in bytes.iter_mut().zip(datagrams.iter()) {
            *bytes = &gathered.bytes[..gathered.length];
        }
        if *segmenting {
            trains::couple(bytes, outgoing);
        }
        let (mut done, mut waits) = (0, 0);
        while let rest @ [first, ..] = &outgoing[done..] {
            match headers.send(socket.as_fd(), bytes, rest) {
                Ok(sent) => done += count_sent(stats, &rest[..sent]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if first.count > 1 && cannot_segment(&error) => {
                    trains::uncouple(outgoing, done);
                    *segmenting = false;
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    let sent = send_in_fragments(headers, socket.as_fd(), bytes, &rest[..1]);
                    stats.add(if sent { SocketCounter::DatagramsSent } else { SocketCounter::SendErrors }, 1);
                    done += 1;
                }
                Err(error) if is_full(&error) && waits < SEND_WAITS_MAX => {
                    waits += 1;
                    stats.add(SocketCounter::SendWaits, 1);
                    sys::wait_writable(socket.as_fd(), SEND_WAIT);
                }
                Err(error) if is_full(&error) => {
                    stats.add(SocketCounter::SendDropped, datagrams_in(rest));
                    done = outgoing.len();
                }
                // Only the first could not be sent: its address is at fault, not the others'.
                Err(_) => {
                    stats.add(SocketCounter::SendErrors, datagrams_in(&rest[..1]));
                    done += 1;
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

fn datagrams_in(outgoing: &[Outgoing]) -> u64 {
    outgoing.iter().map(|message| message.count as u64).sum()
}

/// Counts what one call sent: how many messages that were.
fn count_sent(stats: &mut SocketStats, sent: &[Outgoing]) -> usize {
    let coupled = sent.iter().filter(|message| message.count > 1).map(|message| message.count as u64).sum();
    stats.add(SocketCounter::SendCalls, 1);
    stats.add(SocketCounter::DatagramsSent, datagrams_in(sent));
    stats.add(SocketCounter::DatagramsSegmented, coupled);
    sent.len()
}

/// The device does not cut messages apart, or not into datagrams of that length.
fn cannot_segment(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// Sends a datagram that is longer than the link takes at once: a frame near the longest there is, alone in its
/// datagram. Rare enough for three calls.
fn send_in_fragments(headers: &mut SendHeaders, socket: BorrowedFd<'_>, datagrams: &[&[u8]], one: &[Outgoing]) -> bool {
    let sent = sys::allow_fragments(socket, true).and_then(|()| headers.send(socket, datagrams, one)).is_ok();
    // Refused, the next long datagram needs no such detour.
    _ = sys::allow_fragments(socket, false);
    sent
}

/// The kernel takes no more just now: the socket's buffer or the device's queue is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::{super::socket::NODE_WORKER_OFFSET, *};

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

    /// Bursts of datagrams for two workers each of two nodes, of few lengths.
    fn bursts() -> Vec<(usize, Vec<u8>)> {
        let burst = |number: u8| {
            let mut datagram = vec![number; [1_200, 1_200, 1_200, 700, 1_201][usize::from(number) % 5]];
            datagram[NODE_WORKER_OFFSET] = number / 2 % 2;
            (usize::from(number) % 2, datagram)
        };
        (0..DATAGRAMS as u8 * 3).map(burst).collect()
    }

    /// What each of two listeners gets for each of its workers.
    fn sent_through(sender: &mut Sender) -> Vec<Vec<Vec<u8>>> {
        let listeners = [listener(), listener()];
        let bursts = bursts();
        bursts.iter().for_each(|(to, datagram)| sender.fan_out(datagram, &[listeners[*to].1]));
        sender.flush();
        let mut heard = vec![Vec::new(); 4];
        for (to, _) in &bursts {
            let datagram = received(&listeners[*to].0);
            heard[to * 2 + usize::from(datagram[NODE_WORKER_OFFSET])].push(datagram);
        }
        heard
    }

    #[test]
    fn coupled_or_not_all_datagrams_arrive_whole_and_in_order() {
        let mut singly = sender();
        let mut coupled = Sender::segmenting(Arc::clone(&singly.socket));
        let expected = sent_through(&mut singly);
        assert!(expected.iter().all(|way| way.len() == DATAGRAMS * 3 / 4));
        assert_eq!(sent_through(&mut coupled), expected);
        let counted = |sender: &Sender| {
            [SocketCounter::DatagramsSent, SocketCounter::SendErrors].map(|counter| sender.stats[counter])
        };
        assert_eq!((counted(&singly), counted(&coupled)), ([DATAGRAMS as u64 * 3, 0], [DATAGRAMS as u64 * 3, 0]));
        assert_eq!(singly.stats[SocketCounter::DatagramsSegmented], 0);
        assert!(coupled.stats[SocketCounter::DatagramsSegmented] > DATAGRAMS as u64);
    }

    /// A socket that sends without check sums cannot have its messages cut: as with a device that does not compute them.
    #[test]
    fn where_the_kernel_refuses_to_cut_datagrams_leave_one_by_one() {
        let mut sender = Sender::segmenting(Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a socket")));
        sys::send_unchecked(sender.socket.as_fd()).expect("Linux");
        let (socket, address) = listener();
        let datagram = |number: u8| {
            let mut datagram = [number; 100];
            datagram[NODE_WORKER_OFFSET] = 0;
            datagram
        };
        for round in [0..4, 4..8] {
            round.for_each(|number| sender.fan_out(&datagram(number), &[address]));
            sender.flush();
        }
        (0..8).for_each(|number| assert_eq!(received(&socket), datagram(number)));
        let counters = [SocketCounter::DatagramsSent, SocketCounter::DatagramsSegmented, SocketCounter::SendErrors];
        assert_eq!(counters.map(|counter| sender.stats[counter]), [8, 0, 0]);
        assert!(!sender.segmenting);
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

    #[test]
    fn a_datagram_longer_than_the_link_takes_is_sent_in_fragments() {
        let mut sender = sender();
        sys::allow_fragments(sender.socket.as_fd(), false).expect("Linux");
        let (socket, address) = listener();
        // Loopback takes 65,536 bytes: what is too long for it cannot be made here, but the detour can be gone.
        let outgoing = [Outgoing::one(0, address)];
        let datagram = [5; DATAGRAM_BYTES_MAX];
        assert!(send_in_fragments(&mut sender.headers, sender.socket.as_fd(), &[&datagram[..]], &outgoing));
        assert_eq!(received(&socket), datagram);
    }
}
