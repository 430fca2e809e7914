//! What a worker's WebRTC peers count.

use std::ops::{AddAssign, Index};

macro_rules! peer_counters {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        /// One number of [`PeerStats`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PeerCounter {
            $($(#[$doc])* $name,)+
        }

        impl PeerCounter {
            /// Every counter, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

peer_counters! {
    /// Now: connections that publish.
    Publishers;
    /// Now: connections that hear and see.
    Subscribers;
    /// Now: of both, those that stand.
    Connected;
    /// Connections that came to stand.
    Established;
    /// Connections that never did, in time.
    NeverConnected;
    /// Connections refused: the node has as many as it may, or too many wait for their clients.
    NoPlace;
    /// Connections whose client was not heard any more.
    Lost;
    /// Connections that broke the protocol, and were ended for it.
    Broken;
    /// Datagrams of STUN, DTLS, RTP and RTCP taken.
    Taken;
    /// Datagrams dropped: none of our connections'.
    Unknown;
    /// Datagrams dropped: STUN that is not authentic.
    NotAuthentic;
    /// Datagrams dropped: checks of a client that was heard at as many addresses as it may be.
    TooManyAddresses;
    /// Datagrams dropped: RTP of clients that only receive, and of more sources than a client may begin.
    Unexpected;
    /// Datagrams handed to the worker of their connection.
    HandedOver;
    /// Those that its queue had no room for.
    HandoversDropped;
    /// Datagrams sent.
    Sent;
    /// Datagrams that a TCP connection had no room for.
    TcpDropped;
    /// RTP packets of voice taken.
    AudioIn;
    /// RTP packets of voice sent.
    AudioOut;
    /// RTP packets of voice that their receivers reported lost.
    AudioLost;
    /// Reports of voice that the control plane had no room for.
    ReportsDropped;
    /// RTP packets of voice sent once more, because pictures beside them were lost.
    AudioRepeated;
    /// RTP packets of pictures taken.
    VideoIn;
    /// RTP packets of pictures sent.
    VideoOut;
    /// Frames that redundant audio made good.
    AudioRecovered;
    /// Packets that no media section of a subscriber was for: it has as many as it may.
    NoTrack;
    /// Pictures whose coding a subscriber does not know.
    NoCodec;
    /// Whole pictures that publishers were asked for.
    KeyframesAsked;
    /// Whole pictures that subscribers asked for.
    KeyframesWanted;
    /// Times that a subscriber went over to another layer.
    LayerSwitches;
    /// Times that a picture was paused for lack of room.
    VideoPauses;
    /// RTP packets of pictures dropped: their picture was paused before they had left.
    VideoLeftOver;
    /// Times that a way had become too narrow for the pictures on it, seen by how packets crossed it.
    WaysShrank;
    /// Times that a way was tried for more.
    WaysTried;
    /// Offers and answers made.
    Negotiations;
}

/// Numbers since the worker started, and its gauges as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    numbers: [u64; Self::COUNT],
}

impl Default for PeerStats {
    fn default() -> Self {
        Self { numbers: [0; Self::COUNT] }
    }
}

impl PeerStats {
    /// How many numbers there are.
    pub const COUNT: usize = PeerCounter::ALL.len();

    pub(in crate::media) const fn numbers(&self) -> &[u64; Self::COUNT] {
        &self.numbers
    }

    pub(in crate::media) const fn from_numbers(numbers: [u64; Self::COUNT]) -> Self {
        Self { numbers }
    }

    pub(super) fn count(&mut self, counter: PeerCounter) {
        self.add(counter, 1);
    }

    pub(super) fn add(&mut self, counter: PeerCounter, more: u64) {
        self.numbers[counter as usize] += more;
    }

    pub(super) fn down(&mut self, gauge: PeerCounter) {
        let number = &mut self.numbers[gauge as usize];
        *number = number.saturating_sub(1);
    }
}

impl Index<PeerCounter> for PeerStats {
    type Output = u64;
    fn index(&self, counter: PeerCounter) -> &u64 {
        &self.numbers[counter as usize]
    }
}

impl AddAssign for PeerStats {
    fn add_assign(&mut self, other: Self) {
        for (number, more) in self.numbers.iter_mut().zip(other.numbers) {
            *number += more;
        }
    }
}
