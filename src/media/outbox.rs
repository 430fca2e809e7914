//! What an engine asks for, carried out: datagrams gathered into batches and sent, events and hand-overs passed on.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
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
    sys::{Outgoing, SEND_BATCH, SendHeaders},
};

/// How many different datagrams a batch holds.
const DATAGRAMS: usize = 32;
/// How often and how long sending waits for room in the socket's buffer before datagrams are dropped.
const SEND_WAITS_MAX: usize = 2;
const SEND_WAIT: Duration = Duration::from_millis(1);
/// Of the event queue's room, the part that is kept free of audio: one in so many.
const EVENTS_RESERVED: usize = 8;

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
    /// All workers' inboxes, by index.
    inboxes: Arc<[Inbox]>,
    pub(super) stats: SocketStats,
}

impl Outbox {
    pub(super) fn new(socket: Arc<UdpSocket>, events: mpsc::Sender<Event>, inboxes: Arc<[Inbox]>) -> Self {
        let batch = Batch {
            datagrams: Box::new([const { Gathered { length: 0, bytes: [0; DATAGRAM_BYTES_MAX] } }; DATAGRAMS]),
            used: 0,
            outgoing: Vec::with_capacity(SEND_BATCH),
            headers: SendHeaders::new(),
        };
        Self { socket, batch, events, inboxes, stats: SocketStats::default() }
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
                Err(error) if is_full(&error) && waits < SEND_WAITS_MAX => {
                    waits += 1;
                    self.stats.add(SocketCounter::SendWaits, 1);
                    super::sys::wait_writable(self.socket.as_fd(), SEND_WAIT);
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

/// The kernel takes no more just now: the socket's buffer or the device's queue is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Output for Outbox {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.fan_out(datagram, &[to]);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        let mut place = self.gather(datagram);
        for to in to {
            if self.batch.outgoing.len() == SEND_BATCH {
                self.flush();
                place = self.gather(datagram);
            }
            self.batch.outgoing.push(Outgoing { datagram: place, to: *to });
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
        let inboxes = Arc::new([Inbox::new(2).expect("an inbox")]);
        (Outbox::new(Arc::new(socket), events, inboxes), received)
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
