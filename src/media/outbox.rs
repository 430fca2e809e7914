//! What an engine asks for, carried out: datagrams sent, events and hand-overs passed on.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use antiphon_core::{
    engine::{Event, Handover, Output},
    ids::WorkerIndex,
};
use tokio::sync::mpsc;

use super::{counters::SocketCounter, inbox::Inbox, sender::Sender};

/// Of the event queue's room, the part that is kept free of audio: one in so many.
const EVENTS_RESERVED: usize = 8;

/// One worker's output.
pub(super) struct Outbox {
    pub(super) sender: Sender,
    events: mpsc::Sender<Event>,
    /// All workers' inboxes, by index.
    inboxes: Arc<[Inbox]>,
}

impl Outbox {
    pub(super) fn new(socket: Arc<UdpSocket>, events: mpsc::Sender<Event>, inboxes: Arc<[Inbox]>) -> Self {
        Self { sender: Sender::new(socket), events, inboxes }
    }
}

impl Output for Outbox {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sender.fan_out(datagram, &[to]);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        self.sender.fan_out(datagram, to);
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
            self.sender.stats.add(SocketCounter::HandoversDropped, 1);
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

    fn outbox(event_queue: usize) -> (Outbox, mpsc::Receiver<Event>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (events, received) = mpsc::channel(event_queue);
        let inboxes = Arc::new([Inbox::new(2).expect("an inbox")]);
        (Outbox::new(Arc::new(socket), events, inboxes), received)
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
}
