//! One client as the thread knows it: its socket, its way, what it has heard.

use std::{cmp::Reverse, io, net::SocketAddr, sync::Arc};

use antiphon_core::{clock::Micros, ids::ChannelId};

use super::Role;
use crate::{
    gateway::Gateway,
    load::{quality::Ear, silence::Pair, system::StampedSocket, tally::Seen, way::Way, wire::Wire},
    voice::VoiceOutput,
};

/// A client that has joined.
pub(super) struct SwarmClient {
    /// `None` of those whose voice travels in the WebSocket.
    pub(super) socket: Option<Socket>,
    pub(super) node: usize,
    pub(super) wire: Wire,
    pub(super) role: Role,
    pub(super) channel: usize,
    pub(super) channel_id: ChannelId,
    pub(super) gateway: Option<Arc<Gateway>>,
    /// Of each speaker of the channel.
    pub(super) seen: Vec<Seen>,
    pub(super) pairs: Vec<Pair>,
    pub(super) ear: Ear,
}

/// A client's own end of its way to the node.
pub(super) struct Socket {
    /// Its own, or one that it shares with others in channels where nobody talks.
    pub(super) socket: Arc<StampedSocket>,
    pub(super) shared: bool,
    pub(super) peer: SocketAddr,
    /// Where the way is impaired.
    pub(super) way: Option<Box<Way>>,
    /// When the swarm will look at the way next.
    pub(super) departs_at: Option<Micros>,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Datagrams that found no room in our own sockets.
    pub(super) receive_drops: u64,
    /// Duplicates that clients dropped.
    pub(super) duplicates: u64,
    /// Frames that found no room on their way into a WebSocket.
    pub(super) tunnel_drops: u64,
    pub(super) unopened: u64,
}

impl SwarmClient {
    pub(super) fn works(&self) -> bool {
        self.socket.is_none() || self.wire.works()
    }

    /// Whether others have the same socket.
    pub(super) fn shares(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.shared)
    }

    /// The socket that nobody else has.
    pub(super) fn own_socket(&self) -> Option<Arc<StampedSocket>> {
        let socket = self.socket.as_ref().filter(|socket| !socket.shared)?;
        Some(Arc::clone(&socket.socket))
    }

    /// The mean over those they hear.
    pub(super) fn jitter_us(&self) -> f64 {
        let (sum, count) =
            self.seen.iter().filter_map(Seen::jitter_us).fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Sends a datagram to the node; false when an impaired way loses it. What the kernel does not take is missed, and
    /// so counted, at the listeners.
    pub(super) fn transmit(&mut self, now: Micros, datagram: &[u8]) -> bool {
        let Some(Socket { socket, way, .. }) = &mut self.socket else { return false };
        let Some(way) = way else {
            drop(socket.send(datagram));
            return true;
        };
        let leaves = way.leave(now, datagram);
        self.depart(now);
        leaves
    }

    /// Lets go what has passed the way by then.
    pub(super) fn depart(&mut self, now: Micros) {
        let Some(Socket { socket, way: Some(way), departs_at, .. }) = &mut self.socket else { return };
        *departs_at = departs_at.filter(|at| *at > now);
        while let Some(datagram) = way.at_node(now) {
            drop(socket.send(&datagram));
        }
    }

    /// When something will have passed the way, unless that is known already.
    pub(super) fn next_departure(&mut self, slot: usize) -> Option<Reverse<(Micros, usize)>> {
        let Socket { way, departs_at, .. } = self.socket.as_mut()?;
        let next = way.as_ref()?.next_at_node()?;
        departs_at.is_none_or(|known| next < known).then(|| {
            *departs_at = Some(next);
            Reverse((next, slot))
        })
    }

    pub(super) fn next_arrival(&mut self, now: Micros) -> Option<(Micros, Vec<u8>)> {
        self.socket.as_mut()?.way.as_mut()?.at_client(now)
    }

    pub(super) fn output(&mut self, now: Micros, output: VoiceOutput) {
        match output {
            // A lost control datagram is repeated by the session.
            VoiceOutput::Datagram(datagram) => {
                self.transmit(now, &datagram);
            }
            VoiceOutput::Tunnel(audio) => {
                if let Some(gateway) = &self.gateway {
                    gateway.send_audio(audio);
                }
            }
            VoiceOutput::UdpWorks(_) => {}
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, client: &SwarmClient) -> io::Result<()> {
        if let Some(socket) = client.own_socket() {
            self.receive_drops += u64::from(socket.dropped()?);
        }
        self.duplicates += client.wire.duplicates();
        self.tunnel_drops += client.gateway.as_ref().map_or(0, |gateway| gateway.audio_dropped());
        Ok(())
    }
}
