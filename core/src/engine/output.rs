//! What an engine asks of the world, called while it works.

use std::net::SocketAddr;

use super::{Event, Handover};
use crate::{
    clock::Micros,
    ids::{ChannelId, WorkerIndex},
    wire::frame::FrameHeader,
};

/// Takes an engine's effects. The datagrams' bytes are only valid during the call.
pub trait Output {
    /// One datagram to one address.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);

    /// The same datagram to many addresses.
    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]);

    /// Something for the control plane. False when it has no room: the engine tries again later with what must not be
    /// missed, and counts the rest.
    fn event(&mut self, event: Event) -> bool;

    /// Something for another worker's engine. False when its queue is full.
    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool;

    /// A forwarded frame of a channel that has members who hear it by WebRTC, other than its speaker.
    fn peers(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) {
        let (_, _, _) = (channel, header, bytes);
    }

    /// A forwarded frame of a channel that has members who hear a mix, other than its speaker. False when there is no room
    /// for it: the frame is missing in the mix.
    fn mix(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let (_, _, _, _) = (now, channel, header, bytes);
        false
    }

    /// A frame of a member here, checked, of a channel that is recorded. False when there is no room for it: the frame is
    /// missing in the recording.
    fn record(&mut self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let (_, _, _, _) = (now, channel, header, bytes);
        false
    }

    /// A member's frame, checked, for the other nodes; only where the engine is `relayed`. False when nobody is to hear
    /// it, here or there: the channel limits its speakers and others are louder.
    fn relay(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let (_, _, _) = (channel, header, bytes);
        true
    }
}
