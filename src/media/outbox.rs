//! What an engine asks for, carried out: datagrams gathered into batches and sent, events and hand-overs passed on.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use antiphon_core::{
    engine::{Event, Handover, Output},
    ids::WorkerIndex,
    wire::datagram::DATAGRAM_BYTES_MAX,
};
use tokio::sync::mpsc;

use super::{
    counters::{SocketCounter, SocketStats},
    inbox::Inbox,
    spread::{LISTENERS_MIN, PART_LISTENERS, Part},
    sys::{self, Outgoing, SEND_BATCH, SendHeaders},
};

/// How many different datagrams a batch holds.
const DATAGRAMS: usize = 32;
/// How often and how long sending waits for room in the socket's buffer before datagrams are dropped.
const SEND_WAITS_MAX: usize = 2;
const SEND_WAIT: Duration = Duration::from_millis(1);
/// Of the event queue's room, the part that is kept free of audio: one in so many.
const EVENTS_RESERVED: usize = 8;

/// So many workers, this one included, send over one list at most.
const WORKERS_SHARING: usize = 8;

/// A datagram that waits to be sent.
struct Gathered {
    length: usize,
    bytes: [u8; DATAGRAM_BYTES_MAX],
}

/// Datagrams of one turn, and to whom.
struct Batch {
    datagrams: Box<[Gathered; DATAGRAMS]>,
    used: usize,
    outgoing: Vec<Outgoing>,
    headers: SendHeaders,
}

/// One worker's output.
pub(super) struct Outbox {
    socket: Arc<UdpSocket>,
    batch: Batch,
    events: mpsc::Sender<Event>,
    /// Whose outbox it is.
    index: usize,
    /// All workers' inboxes, by index.
    inboxes: Arc<[Inbox]>,
    /// Whether long lists are shared with other workers just now.
    pub(super) sharing: bool,
    pub(super) stats: SocketStats,
}

impl Outbox {
    pub(super) fn new(
        socket: Arc<UdpSocket>,
        events: mpsc::Sender<Event>,
        index: usize,
        inboxes: Arc<[Inbox]>,
    ) -> Self {
        let batch = Batch {
            datagrams: Box::new([const { Gathered { length: 0, bytes: [0; DATAGRAM_BYTES_MAX] } }; DATAGRAMS]),
            used: 0,
            outgoing: Vec::with_capacity(SEND_BATCH),
            headers: SendHeaders::new(),
        };
        Self { socket, batch, events, index, inboxes, sharing: false, stats: SocketStats::default() }
    }

    /// Sends everything gathered.
    pub(super) fn flush(&mut self) {
        let Batch { datagrams, used, outgoing, headers } = &mut self.batch;
        let mut rest = &outgoing[..];
        let mut waits = 0;
        while !rest.is_empty() {
            let bytes = datagrams.each_ref().map(|gathered| &gathered.bytes[..gathered.length]);
            match headers.send(self.socket.as_fd(), bytes, rest) {
                Ok(sent) => {
                    self.stats.add(SocketCounter::SendCalls, 1);
                    self.stats.add(SocketCounter::DatagramsSent, sent as u64);
                    rest = &rest[sent..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    let sent = send_in_fragments(headers, self.socket.as_fd(), bytes, &rest[..1]);
                    let counter = if sent { SocketCounter::DatagramsSent } else { SocketCounter::SendErrors };
                    self.stats.add(counter, 1);
                    rest = &rest[1..];
                }
                Err(error) if is_full(&error) && waits < SEND_WAITS_MAX => {
                    waits += 1;
                    self.stats.add(SocketCounter::SendWaits, 1);
                    sys::wait_writable(self.socket.as_fd(), SEND_WAIT);
                }
                Err(error) if is_full(&error) => {
                    self.stats.add(SocketCounter::SendDropped, rest.len() as u64);
                    rest = &[];
                }
                // Only the first could not be sent: its address is at fault, not the others'.
                Err(_) => {
                    self.stats.add(SocketCounter::SendErrors, 1);
                    rest = &rest[1..];
                }
            }
        }
        outgoing.clear();
        *used = 0;
    }

    /// Sends a datagram from here.
    pub(super) fn send_all(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        let mut place = self.gather(datagram);
        for to in to {
            if self.batch.outgoing.len() == SEND_BATCH {
                self.flush();
                place = self.gather(datagram);
            }
            self.batch.outgoing.push(Outgoing { datagram: place, to: *to });
        }
    }

    /// Sends a datagram over a long list: parts of it from here, the others from workers that have time. Each part
    /// goes to the same worker every time, as long as the same have time, so that listeners get datagrams in order.
    fn share_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        let inboxes = Arc::clone(&self.inboxes);
        let has_time = |index: &usize| *index != self.index && inboxes[*index].load.has_time();
        let helpers = (0..inboxes.len()).filter(has_time).count();
        let index_of = |helper: usize| (0..inboxes.len()).filter(has_time).nth(helper);
        let workers: [Option<usize>; WORKERS_SHARING] =
            std::array::from_fn(|place| place.checked_sub(1).and_then(index_of));
        let sharing = (helpers + 1).min(WORKERS_SHARING);
        for (number, part) in to.chunks(PART_LISTENERS).enumerate() {
            let left = workers[number % sharing].is_some_and(|worker| self.leave_part(worker, datagram, part));
            if !left {
                self.send_all(datagram, part);
            }
        }
    }

    fn leave_part(&mut self, worker: usize, datagram: &[u8], to: &[SocketAddr]) -> bool {
        let left = self.inboxes[worker].leave_part(Part::new(datagram, to));
        self.stats.add(if left { SocketCounter::PartsLeft } else { SocketCounter::PartsRefused }, 1);
        left
    }

    /// Keeps a copy of a datagram until the next flush; its place.
    fn gather(&mut self, datagram: &[u8]) -> usize {
        if self.batch.used == DATAGRAMS {
            self.flush();
        }
        let place = self.batch.used;
        let gathered = &mut self.batch.datagrams[place];
        gathered.length = datagram.len();
        gathered.bytes[..datagram.len()].copy_from_slice(datagram);
        self.batch.used += 1;
        place
    }
}

/// Sends a datagram that is longer than the link takes at once: a frame near the longest there is, alone in its
/// datagram. Rare enough for three calls.
fn send_in_fragments<const DATAGRAMS: usize>(
    headers: &mut SendHeaders,
    socket: BorrowedFd<'_>,
    datagrams: [&[u8]; DATAGRAMS],
    one: &[Outgoing],
) -> bool {
    let sent = sys::allow_fragments(socket, true).and_then(|()| headers.send(socket, datagrams, one)).is_ok();
    // Refused, the next long datagram needs no such detour.
    _ = sys::allow_fragments(socket, false);
    sent
}

/// The kernel takes no more just now: the socket's buffer or the device's queue is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Output for Outbox {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.send_all(datagram, &[to]);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        if self.sharing && to.len() >= LISTENERS_MIN {
            self.share_out(datagram, to);
        } else {
            self.send_all(datagram, to);
        }
    }

    fn event(&mut self, event: Event) -> bool {
        let audio = matches!(event, Event::Tunnel { .. });
        if audio && self.events.capacity() <= self.events.max_capacity() / EVENTS_RESERVED {
            return false;
        }
        self.events.try_send(event).is_ok()
    }

    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool {
        let left = self.inboxes.get(usize::from(to.0)).is_some_and(|inbox| inbox.leave_handover(handover));
        if !left {
            self.stats.add(SocketCounter::HandoversDropped, 1);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::{
        engine::FrameBytes,
        ids::{ChannelId, MediaSessionId, StreamId},
        wire::frame::FrameHeader,
    };
    use uuid::Uuid;

    fn listener() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn outbox(event_queue: usize) -> (Outbox, mpsc::Receiver<Event>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (events, received) = mpsc::channel(event_queue);
        let inboxes = Arc::new([(); 2].map(|()| Inbox::new(2).expect("an inbox")));
        (Outbox::new(Arc::new(socket), events, 0, inboxes), received)
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let length = socket.recv(&mut buffer).expect("a datagram");
        buffer[..length].to_vec()
    }

    #[test]
    fn more_datagrams_and_listeners_than_a_batch_holds_are_all_sent() {
        let (mut outbox, _events) = outbox(1);
        let (socket, address) = listener();
        for number in 0..DATAGRAMS as u8 + 10 {
            outbox.send(address, &[number; 40]);
        }
        outbox.fan_out(&[255; 50], &vec![address; SEND_BATCH + 20]);
        outbox.flush();
        for number in 0..DATAGRAMS as u8 + 10 {
            assert_eq!(received(&socket), [number; 40]);
        }
        for _ in 0..SEND_BATCH + 20 {
            assert_eq!(received(&socket), [255; 50]);
        }
        let sent = outbox.stats[SocketCounter::DatagramsSent];
        assert_eq!(sent, (DATAGRAMS + 10 + SEND_BATCH + 20) as u64);
    }

    #[test]
    fn an_address_that_cannot_be_sent_to_keeps_no_other_waiting() {
        let (mut outbox, _events) = outbox(1);
        let (socket, address) = listener();
        let forbidden = SocketAddr::from(([255, 255, 255, 255], 9));
        outbox.fan_out(&[1; 40], &[forbidden, address, forbidden, address, forbidden]);
        outbox.flush();
        assert_eq!([received(&socket), received(&socket)], [[1; 40]; 2]);
        let counted = [SocketCounter::SendErrors, SocketCounter::DatagramsSent].map(|counter| outbox.stats[counter]);
        assert_eq!(counted, [3, 2]);
    }

    #[test]
    fn a_long_list_is_shared_and_each_listener_is_in_one_part() {
        let (mut outbox, _events) = outbox(1);
        let (socket, address) = listener();
        let to: Vec<SocketAddr> = (0..LISTENERS_MIN).map(|_| address).collect();
        let heard = |outbox: &mut Outbox, to: &[SocketAddr]| {
            outbox.fan_out(&[7; 40], to);
            let mut parts = 0;
            while let Some(part) = outbox.inboxes[1].parts.pop() {
                outbox.send_all(part.datagram(), part.to());
                parts += 1;
            }
            outbox.flush();
            to.iter().for_each(|_| assert_eq!(received(&socket), [7; 40]));
            parts
        };
        assert_eq!(heard(&mut outbox, &to), 0, "it has time itself");
        outbox.sharing = true;
        assert_eq!(heard(&mut outbox, &to[1..]), 0, "too short");
        assert_eq!(heard(&mut outbox, &to), 2);
        assert_eq!(outbox.stats[SocketCounter::PartsLeft], 2);
        assert_eq!(outbox.stats[SocketCounter::DatagramsSent], 3 * LISTENERS_MIN as u64 - 1);
    }

    #[test]
    fn a_part_that_finds_no_room_is_sent_here() {
        let (mut outbox, _events) = outbox(1);
        let (_socket, address) = listener();
        outbox.sharing = true;
        let to = vec![address; LISTENERS_MIN];
        let lists = 40;
        (0..lists).for_each(|_| outbox.fan_out(&[1; 40], &to));
        outbox.flush();
        let [left, refused, sent] =
            [SocketCounter::PartsLeft, SocketCounter::PartsRefused, SocketCounter::DatagramsSent]
                .map(|counter| outbox.stats[counter]);
        assert!(refused > 0);
        assert_eq!(sent, (lists * LISTENERS_MIN) as u64 - left * PART_LISTENERS as u64);
    }

    #[test]
    fn a_datagram_longer_than_the_link_takes_is_sent_in_fragments() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sys::allow_fragments(socket.as_fd(), false).expect("Linux");
        let (socket, address) = (Arc::new(socket), listener());
        let inboxes = Arc::new([Inbox::new(2).expect("an inbox")]);
        let mut outbox = Outbox::new(socket, mpsc::channel(1).0, 0, inboxes);
        // Loopback takes 65,536 bytes: what is too long for it cannot be made here, but the detour can be gone.
        assert!(send_in_fragments(
            &mut outbox.batch.headers,
            outbox.socket.as_fd(),
            [&[5; DATAGRAM_BYTES_MAX][..]],
            &[Outgoing { datagram: 0, to: address.1 }],
        ));
        assert_eq!(received(&address.0), [5; DATAGRAM_BYTES_MAX]);
    }

    #[test]
    fn audio_leaves_room_for_other_events() {
        let (mut outbox, _received) = outbox(EVENTS_RESERVED * 2);
        let stream = StreamId(1);
        let audio = || Event::Tunnel {
            channel: ChannelId(Uuid::nil()),
            header: FrameHeader { stream, sequence: 0, timestamp: 0, kind_flags: 0, level: 0 },
            bytes: FrameBytes::copy_from(&[1]).expect("short"),
        };
        let taken = (0..100).filter(|_| outbox.event(audio())).count();
        assert_eq!(taken, EVENTS_RESERVED * 2 - 2);
        let state = || Event::Proven { session: MediaSessionId(1), proven: false };
        assert_eq!([(); 3].map(|()| outbox.event(state())), [true, true, false]);
    }

    #[test]
    fn handovers_beyond_a_workers_room_are_counted() {
        let (mut outbox, _events) = outbox(1);
        let handover = || Handover::Retire { session: MediaSessionId(1) };
        assert_eq!([(); 3].map(|()| outbox.handover(WorkerIndex(0), handover())), [true, true, false]);
        assert!(!outbox.handover(WorkerIndex(7), handover()), "no such worker");
        assert_eq!(outbox.stats[SocketCounter::HandoversDropped], 2);
    }
}
