//! What the media workers tell.

use antiphon_core::engine::Event;
use tokio::sync::mpsc;

use super::Rooms;

impl Rooms {
    /// Acts on each event, in order, until the media workers have stopped.
    pub(super) async fn follow(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.happened(&event);
        }
        self.inner.told.send_replace(true);
    }

    fn happened(&self, event: &Event) {
        match event {
            Event::Tunnel { channel, header, bytes } => self.tunnelled(*channel, header, bytes),
            Event::TunnelMix { channel, member, header, bytes } => {
                self.tunnelled_mix(*channel, *member, header, bytes);
            }
            Event::Speaking { channel, stream, speaking } => {
                if let Some(room) = self.room(*channel) {
                    self.sounds(&room, *stream, *speaking);
                }
            }
            Event::Report { session, block } => self.reported(*session, block),
            Event::Proven { session, proven } => {
                if let Some(udp) = self.inner.udp_sessions.get(session) {
                    udp.set_proven(*proven);
                }
            }
            Event::Bound { session, .. } => {
                if let Some(udp) = self.inner.udp_sessions.get(session) {
                    udp.set_bound();
                }
            }
            Event::ChannelTraffic { channel, traffic } => {
                self.inner.ledger.carried(*channel, traffic);
                // The last of it may come when the room has closed.
                if let Some(totals) = self.inner.totals.get(channel) {
                    totals.carried(traffic);
                }
                if let Some(room) = self.room(*channel) {
                    self.review_quality(&room);
                }
            }
            Event::MemberTraffic { channel, stream, traffic } => self.inner.ledger.sent(*channel, *stream, traffic),
        }
    }
}
