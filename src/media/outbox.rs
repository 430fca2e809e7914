//! What an engine asks for, carried out: datagrams sent, events and hand-overs passed on.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use antiphon_core::{
    clock::Micros,
    engine::{Event, Handover, Output},
    ids::{ChannelId, WorkerIndex},
    wire::frame::FrameHeader,
};
use tokio::sync::mpsc;

use super::{
    counters::SocketCounter,
    inbox::Inbox,
    mixing::MixInlets,
    recording::RecordInlet,
    sender::Sender,
    spread::{LISTENERS_MIN, PART_LISTENERS, Part},
};

/// Of the event queue's room, the part that is kept free of audio: one in so many.
const EVENTS_RESERVED: usize = 8;

/// So many workers, this one included, send over one list at most.
const WORKERS_SHARING: usize = 8;

/// Where frames go that are wanted beside forwarding.
#[derive(Clone, Default)]
pub(super) struct SideOutlets {
    /// Those for mixes.
    pub(super) mix: Option<MixInlets>,
    /// Those to be recorded.
    pub(super) record: Option<RecordInlet>,
}

/// One worker's output.
pub(super) struct Outbox {
    pub(super) sender: Sender,
    events: mpsc::Sender<Event>,
    /// Whose outbox it is.
    index: usize,
    /// All workers' inboxes, by index.
    inboxes: Arc<[Inbox]>,
    /// Whether long lists are shared with other workers just now.
    pub(super) sharing: bool,
    side: SideOutlets,
}

impl Outbox {
    pub(super) fn new(
        socket: Arc<UdpSocket>,
        events: mpsc::Sender<Event>,
        index: usize,
        inboxes: Arc<[Inbox]>,
        side: SideOutlets,
    ) -> Self {
        Self { sender: Sender::new(socket), events, index, inboxes, sharing: false, side }
    }

    /// All workers', by index.
    pub(super) fn inboxes(&self) -> &Arc<[Inbox]> {
        &self.inboxes
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
                self.sender.fan_out(datagram, part);
            }
        }
    }

    fn leave_part(&mut self, worker: usize, datagram: &[u8], to: &[SocketAddr]) -> bool {
        let left = self.inboxes[worker].leave_part(Part::new(datagram, to));
        self.sender.stats.add(if left { SocketCounter::PartsLeft } else { SocketCounter::PartsRefused }, 1);
        left
    }
}

impl Output for Outbox {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sender.fan_out(datagram, &[to]);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        if self.sharing && to.len() >= LISTENERS_MIN {
            self.share_out(datagram, to);
        } else {
            self.sender.fan_out(datagram, to);
        }
    }

    fn event(&mut self, event: Event) -> bool {
        let audio = matches!(event, Event::Tunnel { .. } | Event::TunnelMix { .. });
        if audio && self.events.capacity() <= self.events.max_capacity() / EVENTS_RESERVED {
            return false;
        }
        self.events.try_send(event).is_ok()
    }

    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool {
        let lost = match handover {
            Handover::Mixed { .. } => SocketCounter::MixFramesDropped,
            _ => SocketCounter::HandoversDropped,
        };
        let left = self.inboxes.get(usize::from(to.0)).is_some_and(|inbox| inbox.leave_handover(handover));
        if !left {
            self.sender.stats.add(lost, 1);
        }
        left
    }

    fn mix(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.side.mix.as_ref().is_some_and(|inlets| inlets.leave(now, channel, header, bytes))
    }

    fn record(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.side.record.as_ref().is_some_and(|inlet| inlet.leave(now, channel, header, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::{
        engine::FrameBytes,
        ids::{MediaSessionId, StreamId},
    };
    use std::time::Duration;
    use uuid::Uuid;

    fn outbox(event_queue: usize) -> (Outbox, mpsc::Receiver<Event>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (events, received) = mpsc::channel(event_queue);
        let inboxes = Arc::new([(); 2].map(|()| Inbox::new(2).expect("an inbox")));
        (Outbox::new(Arc::new(socket), events, 0, inboxes, SideOutlets::default()), received)
    }

    fn listener() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a datagram");
        buffer[..length].to_vec()
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
                outbox.sender.fan_out(part.datagram(), part.to());
                parts += 1;
            }
            outbox.sender.flush();
            to.iter().for_each(|_| assert_eq!(received(&socket), [7; 40]));
            parts
        };
        assert_eq!(heard(&mut outbox, &to), 0, "it has time itself");
        outbox.sharing = true;
        assert_eq!(heard(&mut outbox, &to[1..]), 0, "too short");
        assert_eq!(heard(&mut outbox, &to), 2);
        assert_eq!(outbox.sender.stats[SocketCounter::PartsLeft], 2);
        assert_eq!(outbox.sender.stats[SocketCounter::DatagramsSent], 3 * LISTENERS_MIN as u64 - 1);
    }

    #[test]
    fn a_part_that_finds_no_room_is_sent_here() {
        let (mut outbox, _events) = outbox(1);
        let (_socket, address) = listener();
        outbox.sharing = true;
        let to = vec![address; LISTENERS_MIN];
        let lists = 40;
        (0..lists).for_each(|_| outbox.fan_out(&[1; 40], &to));
        outbox.sender.flush();
        let [left, refused, sent] =
            [SocketCounter::PartsLeft, SocketCounter::PartsRefused, SocketCounter::DatagramsSent]
                .map(|counter| outbox.sender.stats[counter]);
        assert!(refused > 0);
        assert_eq!(sent, (lists * LISTENERS_MIN) as u64 - left * PART_LISTENERS as u64);
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
        assert_eq!(outbox.sender.stats[SocketCounter::HandoversDropped], 2);
    }

    #[test]
    fn mixes_take_no_room_of_what_is_forwarded() {
        let (mut outbox, _events) = outbox(1);
        let header = FrameHeader { stream: StreamId(1), sequence: 0, timestamp: 0, kind_flags: 0, level: 0 };
        let session = MediaSessionId(1);
        let mix = || Handover::Mixed { session, header, bytes: FrameBytes::copy_from(&[1]).expect("short") };
        assert_eq!([(); 3].map(|()| outbox.handover(WorkerIndex(0), mix())), [true, true, false]);
        assert!(outbox.handover(WorkerIndex(0), Handover::Retire { session }));
        let [mixes, others] = [SocketCounter::MixFramesDropped, SocketCounter::HandoversDropped];
        assert_eq!((outbox.sender.stats[mixes], outbox.sender.stats[others]), (1, 0));
    }
}
