//! What goes into a worker's relay and what comes out, as values.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    ids::{ChannelId, NodeId, NodeNumber, WorkerIndex},
    wire::frame::FrameHeader,
};

/// The most workers that a node of a cluster can have: a datagram names one with a byte.
pub const WORKERS_MAX: u16 = 256;

/// How a relay is set up.
#[derive(Clone)]
pub struct RelayConfig {
    /// Which of the node's workers it is.
    pub worker: WorkerIndex,
    /// What all nodes of the cluster know, and nobody else.
    pub secret: Arc<[u8]>,
}

/// The versions of the relay protocol that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

impl Versions {
    /// Those that this program speaks.
    pub const SPOKEN: Self = Self { min: 1, max: 1 };

    /// The newest that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// A node as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub id: NodeId,
    /// Its number while it runs.
    pub number: NodeNumber,
    /// When it started, in Unix microseconds: another at each start, since keys are derived from it.
    pub started_at_us: u64,
    /// Where its relay listens.
    pub address: SocketAddr,
    /// How many workers it has, 1 to [`WORKERS_MAX`].
    pub workers: u16,
    /// What it speaks.
    pub versions: Versions,
    /// Its share of the channels.
    pub capacity: u32,
    /// Whether it may own channels: not while it drains.
    pub serving: bool,
}

/// From the control plane to one relay.
#[derive(Clone, Debug)]
pub enum RelayCommand {
    /// The cluster as the registry sees it.
    SetPeers {
        /// Grows with every change of who lives and who serves.
        epoch: u64,
        /// This node.
        me: NodeInfo,
        /// All others that live.
        peers: Arc<[NodeInfo]>,
    },
    /// The channel has members here from now on.
    Open {
        /// Which.
        channel: ChannelId,
        /// 0: all are forwarded; else the loudest so many.
        max_speakers: u32,
    },
    /// A setting changed.
    SetMaxSpeakers {
        /// Which channel.
        channel: ChannelId,
        /// As in `Open`.
        max_speakers: u32,
    },
    /// Whether somebody here meets by WebRTC, and may see pictures of other nodes.
    SetPictures {
        /// In which channel.
        channel: ChannelId,
        /// They may.
        wanted: bool,
    },
    /// The channel's last local member has left.
    Close {
        /// Which.
        channel: ChannelId,
    },
}

/// What happened, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// A channel that is open here has another owner in this node's view.
    OwnerChanged {
        /// Which channel.
        channel: ChannelId,
        /// The node, if any is left.
        owner: Option<NodeNumber>,
    },
    /// A worker of another node is not heard: its channels' frames are sent directly.
    PeerSuspected {
        /// Which node.
        node: NodeNumber,
        /// Which of its workers.
        worker: WorkerIndex,
    },
    /// It is not heard for so long that it owns nothing in this node's view.
    PeerLost {
        /// Which node.
        node: NodeNumber,
        /// Which of its workers.
        worker: WorkerIndex,
    },
    /// It was lost, and is heard again.
    PeerBack {
        /// Which node.
        node: NodeNumber,
        /// Which of its workers.
        worker: WorkerIndex,
    },
    /// Another node has seen a newer epoch than the registry told this one.
    RingBehind {
        /// The newer epoch.
        epoch: u64,
    },
}

/// Takes a relay's effects, while it works. The bytes are only valid during the call.
pub trait Output {
    /// One datagram to another node.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);

    /// A frame of another node for the channel's members here. It may come twice.
    fn deliver(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]);

    /// A packet of a picture, or else a word of those who meet, of another node ([`crate::video`]). It may come twice.
    fn record(&mut self, channel: ChannelId, is_picture: bool, body: &[u8]) {
        let (_, _, _) = (channel, is_picture, body);
    }

    /// Something to watch.
    fn event(&mut self, event: RelayEvent);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_releases_find_a_version_and_distant_ones_none() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 1).common(versions(1, 2)), Some(1));
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(1, 2).common(versions(3, 4)), None);
        assert_eq!(versions(3, 4).common(versions(1, 2)), None);
    }
}
