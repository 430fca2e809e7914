//! What other threads leave for a worker, and how they wake it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

use antiphon_core::engine::{Command, Handover};
use crossbeam_queue::ArrayQueue;

use super::{
    mixing::MixedPacket,
    spread::{Load, Part},
    sys,
    webrtc::PeerDatagram,
};

/// What other threads leave for one worker. All queues are bounded; what does not fit is the sender's to count.
pub(super) struct Inbox {
    /// Frames from the gateway ([`Command::Frame`]).
    pub(super) frames: ArrayQueue<Command>,
    /// From the other workers.
    pub(super) handovers: ArrayQueue<Handover>,
    /// Parts of long lists that other workers would have sent over.
    pub(super) parts: ArrayQueue<Part>,
    /// For WebRTC peers, from other workers and from TCP.
    pub(super) for_peers: ArrayQueue<PeerDatagram>,
    /// From the mixer.
    pub(super) mixed: ArrayQueue<MixedPacket>,
    /// Frames of mixes from the other workers ([`Handover::Mixed`]), which take none of the room of those that are forwarded.
    pub(super) mix_frames: ArrayQueue<Handover>,
    /// How busy the worker is.
    pub(super) load: Load,
    waker: Waker,
}

/// Parts that may wait for a worker: 10 ms of sending, half of what a frame lasts.
const PARTS_MAX: usize = 64;

/// Packets of mixes that may wait for a worker: what some hundred channels are given in one tick.
const MIXED_MAX: usize = 512;

impl Inbox {
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            frames: ArrayQueue::new(capacity),
            handovers: ArrayQueue::new(capacity),
            parts: ArrayQueue::new(PARTS_MAX),
            for_peers: ArrayQueue::new(capacity),
            mixed: ArrayQueue::new(MIXED_MAX),
            mix_frames: ArrayQueue::new(capacity),
            load: Load::default(),
            waker: Waker::new()?,
        })
    }

    /// Leaves a frame; false when there is no room.
    pub(super) fn leave_frame(&self, frame: Command) -> bool {
        let left = self.frames.push(frame).is_ok();
        self.waker.wake();
        left
    }

    /// Leaves a hand-over; false when there is no room.
    pub(super) fn leave_handover(&self, handover: Handover) -> bool {
        let queue = match handover {
            Handover::Mixed { .. } => &self.mix_frames,
            _ => &self.handovers,
        };
        let left = queue.push(handover).is_ok();
        self.waker.wake();
        left
    }

    /// Leaves a part of a long list; false when there is no room.
    pub(super) fn leave_part(&self, part: Part) -> bool {
        let left = self.parts.push(part).is_ok();
        self.waker.wake();
        left
    }

    /// Leaves something for WebRTC peers; false when there is no room.
    pub(super) fn leave_for_peers(&self, left: PeerDatagram) -> bool {
        let left = self.for_peers.push(left).is_ok();
        self.waker.wake();
        left
    }

    /// Leaves a packet of a mix; false when there is no room.
    pub(super) fn leave_mixed(&self, packet: MixedPacket) -> bool {
        let left = self.mixed.push(packet).is_ok();
        self.waker.wake();
        left
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
            && self.handovers.is_empty()
            && self.parts.is_empty()
            && self.for_peers.is_empty()
            && self.mixed.is_empty()
            && self.mix_frames.is_empty()
    }
}

/// Wakes a thread that sleeps in `ppoll`, and costs no system call while it is awake.
pub(super) struct Waker {
    sleeping: AtomicBool,
    event: File,
}

impl Waker {
    fn new() -> io::Result<Self> {
        Ok(Self { sleeping: AtomicBool::new(false), event: File::from(sys::eventfd()?) })
    }

    /// Call after leaving something: the worker sees it before it sleeps, or is woken.
    pub(super) fn wake(&self) {
        // Either the worker sees what was left when it looks after announcing its sleep, or its announcement is seen here.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // It only fails when the counter is at its end, and then the worker is awake.
            _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// The worker announces that it is going to sleep. It must look once more for what was left before it does.
    pub(super) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake; `woken` when the event was seen.
    pub(super) fn awake(&self, woken: bool) {
        self.sleeping.store(false, Ordering::Relaxed);
        if woken {
            // Empties the counter; a wake that comes now is seen by the look at the queues that follows.
            _ = (&self.event).read(&mut [0; 8]);
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::ids::MediaSessionId;
    use std::time::Duration;

    fn handover() -> Handover {
        Handover::Unprove { session: MediaSessionId(1) }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let inbox = Inbox::new(2).expect("an inbox");
        assert!(inbox.is_empty());
        assert!(inbox.leave_handover(handover()) && inbox.leave_handover(handover()));
        assert!(!inbox.leave_handover(handover()));
        assert_eq!(inbox.handovers.len(), 2);
    }

    #[test]
    fn only_a_sleeper_is_woken_and_once() {
        let waker = Waker::new().expect("a waker");
        waker.wake();
        assert!((&waker.event).read(&mut [0; 8]).is_err(), "nobody slept");
        waker.announce_sleep();
        waker.wake();
        waker.wake();
        let mut count = [0; 8];
        (&waker.event).read_exact(&mut count).expect("woken");
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn nothing_left_is_overlooked_however_the_threads_interleave() {
        const COUNT: usize = 20_000;
        let inbox = Inbox::new(8).expect("an inbox");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = 0;
                while left < COUNT {
                    left += usize::from(inbox.leave_handover(handover()));
                }
            });
            let mut taken = 0;
            while taken < COUNT {
                while inbox.handovers.pop().is_some() {
                    taken += 1;
                }
                inbox.waker().announce_sleep();
                let mut woken = false;
                if inbox.is_empty() && taken < COUNT {
                    let patience = Some(Duration::from_secs(20));
                    woken = sys::wait([Some(socket.as_fd()), None], inbox.waker().as_fd(), patience).expect("waits");
                    assert!(woken, "something was left and the sleeper was not woken");
                }
                inbox.waker().awake(woken);
            }
        });
    }
}
