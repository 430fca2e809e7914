//! The relays' numbers as metrics, like the engines' in [`super::media`].

use antiphon_core::relay::{Counter, Family, RelayStats};

use super::{
    family::family_label,
    metrics::{Direction, RelayMetrics, Sampled, Shown},
};
use crate::media::{SocketCounter, SocketStats};

family_label!(
    /// Why a datagram of another node was dropped.
    RelayDatagramDrop = "reason" of Counter, Family::DatagramsDropped
);
family_label!(
    /// Why a part of a datagram was passed over.
    RecordSkip = "reason" of Counter, Family::RecordsSkipped
);
family_label!(
    /// How far a received frame was on its way.
    HopReceived = "hop" of Counter, Family::FramesReceived
);
family_label!(
    /// How far a sent frame is on its way.
    HopSent = "hop" of Counter, Family::FramesSent
);
family_label!(
    /// Why a frame was not passed on.
    RelayFrameDrop = "reason" of Counter, Family::FramesDropped
);
family_label!(
    /// How many records a datagram carries.
    RecordBundle = "records" of Counter, Family::DatagramsSent
);
family_label!(
    /// What became of a worker of another node.
    PeerChange = "change" of Counter, Family::PeerChanges
);
family_label!(
    /// What this node is to a channel.
    ChannelRole = "role" of Counter, Family::Channels
);

/// Which metric shows a counter.
fn shown(relay: &RelayMetrics, counter: Counter) -> Shown<'_> {
    match counter.family() {
        Family::DatagramsReceived => Shown::Counter(&relay.datagrams_received),
        Family::DatagramsDropped => Shown::Counter(relay.datagrams_dropped.of(RelayDatagramDrop(counter))),
        Family::RecordsSkipped => Shown::Counter(relay.records_skipped.of(RecordSkip(counter))),
        Family::FramesReceived => Shown::Counter(relay.frames_received.of(HopReceived(counter))),
        Family::FramesSent => Shown::Counter(relay.frames_sent.of(HopSent(counter))),
        Family::FramesDropped => Shown::Counter(relay.frames_dropped.of(RelayFrameDrop(counter))),
        Family::DatagramsSent => Shown::Counter(relay.datagrams_sent.of(RecordBundle(counter))),
        Family::BytesSent => Shown::Counter(&relay.sent_bytes),
        Family::OwnerChanges => Shown::Counter(&relay.owner_changes),
        Family::DirectEntries => Shown::Counter(&relay.direct_entries),
        Family::PeerChanges => Shown::Counter(relay.peer_changes.of(PeerChange(counter))),
        Family::SetsCut => Shown::Counter(&relay.sets_cut),
        Family::Channels => Shown::Gauge(relay.channels.of(ChannelRole(counter))),
        Family::Peers => Shown::Gauge(&relay.peers),
    }
}

/// What was last read of the relays.
#[derive(Debug, Default)]
pub(super) struct SampledRelays {
    counters: Vec<Sampled>,
    received_bytes: Sampled,
    kernel_drops: Sampled,
    receive_errors: Sampled,
    send_errors: Sampled,
    send_dropped: Sampled,
    events_dropped: Sampled,
}

impl SampledRelays {
    /// Brings the metrics up to what `workers` relays counted.
    pub(super) fn bring(&mut self, relay: &RelayMetrics, stats: &RelayStats, socket: &SocketStats, workers: u16) {
        self.counters.resize_with(RelayStats::COUNT, Sampled::default);
        for (counter, last) in Counter::ALL.iter().zip(&mut self.counters) {
            // Each worker knows all nodes.
            let per = if counter.family() == Family::Peers { u64::from(workers.max(1)) } else { 1 };
            shown(relay, *counter).bring(last, stats[*counter] / per);
        }
        self.received_bytes.bring(&relay.received_bytes, socket[SocketCounter::BytesReceived]);
        self.kernel_drops.bring(&relay.kernel_drops, socket[SocketCounter::KernelDrops]);
        self.receive_errors.bring(relay.socket_errors.of(Direction::Receive), socket[SocketCounter::ReceiveErrors]);
        self.send_errors.bring(relay.socket_errors.of(Direction::Send), socket[SocketCounter::SendErrors]);
        self.send_dropped.bring(&relay.send_dropped, socket[SocketCounter::SendDropped]);
        self.events_dropped.bring(&relay.events_dropped, socket[SocketCounter::EventsDropped]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::metrics;

    #[test]
    fn gauges_are_gauges_and_counters_counters() {
        for counter in Counter::ALL {
            let is_gauge = matches!(shown(&metrics().relay, *counter), Shown::Gauge(_));
            assert_eq!(is_gauge, counter.family().is_gauge(), "{counter:?}");
        }
    }
}
