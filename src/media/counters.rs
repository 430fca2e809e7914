//! What the media workers count beside their engines: sockets, queues, time. Each worker publishes its numbers once per
//! turn; whoever asks adds them up.

use std::{
    ops::{AddAssign, Index},
    sync::atomic::{AtomicU64, Ordering},
};

use antiphon_core::{engine::EngineStats, relay::RelayStats};

use super::{
    forwarding::{FORWARDING_BUCKETS, ForwardingTimes},
    webrtc::PeerStats,
};

macro_rules! socket_counters {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        /// One number of [`SocketStats`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum SocketCounter {
            $($(#[$doc])* $name,)+
        }

        impl SocketCounter {
            /// Every counter, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

socket_counters! {
    /// Datagrams received, of whatever kind.
    DatagramsReceived;
    /// Their bytes.
    BytesReceived;
    /// Calls that received at least one datagram.
    ReceiveCalls;
    /// Calls that failed otherwise than for lack of datagrams.
    ReceiveErrors;
    /// Datagrams that the kernel dropped because the receive buffer was full.
    KernelDrops;
    /// Datagrams that the kernel took.
    DatagramsSent;
    /// Of those, datagrams that left in one message with others.
    DatagramsSegmented;
    /// Calls that sent at least one datagram.
    SendCalls;
    /// Waits because the kernel took no more just then.
    SendWaits;
    /// Datagrams dropped because it still took no more.
    SendDropped;
    /// Datagrams that could not be sent at all, such as to an unreachable address.
    SendErrors;
    /// Turns of the loop.
    Turns;
    /// Times another thread had to wake the worker.
    Wakes;
    /// Time not spent waiting, in microseconds.
    BusyMicros;
    /// Commands taken.
    Commands;
    /// Frames from the gateway dropped because the worker's queue was full.
    GatewayFramesDropped;
    /// Hand-overs to other workers dropped because their queue was full.
    HandoversDropped;
    /// Frames of mixes likewise.
    MixFramesDropped;
    /// Parts of long lists of listeners that were left to other workers.
    PartsLeft;
    /// Those that another worker had no room for, so that they were sent here.
    PartsRefused;
    /// Events of the relay dropped because nobody took them in time.
    EventsDropped;
}

/// Numbers since the workers started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketStats {
    numbers: [u64; Self::COUNT],
}

impl Default for SocketStats {
    fn default() -> Self {
        Self { numbers: [0; Self::COUNT] }
    }
}

impl SocketStats {
    /// How many numbers there are.
    pub const COUNT: usize = SocketCounter::ALL.len();

    pub(super) fn add(&mut self, counter: SocketCounter, count: u64) {
        self.numbers[counter as usize] += count;
    }

    pub(super) fn set(&mut self, counter: SocketCounter, value: u64) {
        self.numbers[counter as usize] = value;
    }
}

impl Index<SocketCounter> for SocketStats {
    type Output = u64;
    fn index(&self, counter: SocketCounter) -> &u64 {
        &self.numbers[counter as usize]
    }
}

impl AddAssign for SocketStats {
    fn add_assign(&mut self, other: Self) {
        for (number, more) in self.numbers.iter_mut().zip(other.numbers) {
            *number += more;
        }
    }
}

/// The sums over all workers of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaCounters {
    /// What the engines counted.
    pub engine: EngineStats,
    /// What happened around them.
    pub socket: SocketStats,
    /// What the relays counted; nothing where there is none.
    pub relay: RelayStats,
    /// What happened at the relays' sockets.
    pub relay_socket: SocketStats,
    /// What the WebRTC peers counted.
    pub peers: PeerStats,
    /// How long frames took through the node.
    pub forwarding: ForwardingTimes,
}

impl AddAssign for MediaCounters {
    fn add_assign(&mut self, other: Self) {
        self.engine += other.engine;
        self.socket += other.socket;
        self.relay += other.relay;
        self.relay_socket += other.relay_socket;
        self.peers += other.peers;
        self.forwarding += other.forwarding;
    }
}

/// An array of numbers that one thread writes and others read while it does.
struct Slots<const COUNT: usize>([AtomicU64; COUNT]);

impl<const COUNT: usize> Default for Slots<COUNT> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNT])
    }
}

impl<const COUNT: usize> Slots<COUNT> {
    fn store(&self, numbers: &[u64; COUNT]) {
        self.0.iter().zip(numbers).for_each(|(slot, number)| slot.store(*number, Ordering::Relaxed));
    }

    fn load(&self) -> [u64; COUNT] {
        self.0.each_ref().map(|slot| slot.load(Ordering::Relaxed))
    }
}

/// One worker's numbers, for others to read while it works.
#[derive(Default)]
pub(super) struct Published {
    engine: Slots<{ EngineStats::COUNT }>,
    socket: Slots<{ SocketStats::COUNT }>,
    relay: Slots<{ RelayStats::COUNT }>,
    relay_socket: Slots<{ SocketStats::COUNT }>,
    peers: Slots<{ PeerStats::COUNT }>,
    forwarding: Slots<FORWARDING_BUCKETS>,
}

impl Published {
    /// By the worker alone.
    pub(super) fn store(&self, engine: &EngineStats, socket: &SocketStats, forwarding: &ForwardingTimes) {
        self.engine.store(engine.numbers());
        self.socket.store(&socket.numbers);
        self.forwarding.store(forwarding.counts());
    }

    /// By the worker alone, where it has a relay.
    pub(super) fn store_relay(&self, relay: &RelayStats, socket: &SocketStats) {
        self.relay.store(relay.numbers());
        self.relay_socket.store(&socket.numbers);
    }

    /// By the worker alone.
    pub(super) fn store_peers(&self, peers: &PeerStats) {
        self.peers.store(peers.numbers());
    }

    /// By anyone. Numbers of different counters may be a turn apart.
    pub(super) fn load(&self) -> MediaCounters {
        MediaCounters {
            engine: EngineStats::from_numbers(self.engine.load()),
            socket: SocketStats { numbers: self.socket.load() },
            relay: RelayStats::from_numbers(self.relay.load()),
            relay_socket: SocketStats { numbers: self.relay_socket.load() },
            peers: PeerStats::from_numbers(self.peers.load()),
            forwarding: ForwardingTimes::from_counts(self.forwarding.load()),
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::clock::Micros;

    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let published = Published::default();
        let mut socket = SocketStats::default();
        socket.add(SocketCounter::Turns, 3);
        socket.set(SocketCounter::KernelDrops, 7);
        let mut forwarding = ForwardingTimes::default();
        forwarding.record(Micros(70));
        published.store(&EngineStats::default(), &socket, &forwarding);
        socket.add(SocketCounter::Turns, 2);
        published.store_relay(&RelayStats::default(), &socket);
        let mut sum = published.load();
        sum += published.load();
        assert_eq!((sum.socket[SocketCounter::Turns], sum.socket[SocketCounter::KernelDrops]), (6, 14));
        assert_eq!((sum.relay_socket[SocketCounter::Turns], sum.forwarding.counts()[0]), (10, 2));
    }
}
