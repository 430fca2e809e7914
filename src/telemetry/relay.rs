//! The relays' numbers as metrics, as `media` has the engines'.

use antiphon_core::relay::{Counter, Family, RelayStats};

use super::{family::Label, family_label::family_label, media::Shown, metrics::RelayMetrics};

family_label!(
    /// What came of those who meet by WebRTC.
    MeetingIn = "what" of RecordsReceived
);
family_label!(
    /// What went of those who meet by WebRTC.
    MeetingOut = "what" of RecordsSent
);
family_label!(
    /// Why a datagram of another node was dropped.
    RelayDatagramDrop = "reason" of DatagramsDropped
);
family_label!(
    /// Why a record was passed over.
    RecordSkip = "reason" of RecordsSkipped
);
family_label!(
    /// Which way a frame came.
    HopIn = "hop" of FramesReceived
);
family_label!(
    /// Which way a frame went.
    HopOut = "hop" of FramesSent
);
family_label!(
    /// Why a frame did not go to other nodes.
    RelayFrameDrop = "reason" of FramesDropped
);
family_label!(
    /// How many records a datagram carries.
    RecordsSent = "records" of DatagramsSent
);
family_label!(
    /// What became of a worker of another node.
    PeerChange = "state" of PeerChanges
);
family_label!(
    /// What this node is to a channel.
    RelayRole = "role" of Channels
);

/// Which metric shows a counter.
fn shown(relay: &RelayMetrics, counter: Counter) -> Shown<'_> {
    match counter.family() {
        Family::DatagramsReceived => Shown::Counter(&relay.datagrams_received),
        Family::DatagramsDropped => Shown::Counter(relay.datagrams_dropped.of(RelayDatagramDrop(counter))),
        Family::RecordsSkipped => Shown::Counter(relay.records_skipped.of(RecordSkip(counter))),
        Family::FramesReceived => Shown::Counter(relay.frames_received.of(HopIn(counter))),
        Family::FramesSent => Shown::Counter(relay.frames_sent.of(HopOut(counter))),
        Family::RecordsReceived => Shown::Counter(relay.records_received.of(MeetingIn(counter))),
        Family::RecordsSent => Shown::Counter(relay.meeting_sent.of(MeetingOut(counter))),
        Family::FramesDropped => Shown::Counter(relay.frames_dropped.of(RelayFrameDrop(counter))),
        Family::DatagramsSent => Shown::Counter(relay.datagrams_sent.of(RecordsSent(counter))),
        Family::BytesSent => Shown::Counter(&relay.sent_bytes),
        Family::OwnerChanges => Shown::Counter(&relay.owner_changes),
        Family::DirectEntries => Shown::Counter(&relay.direct_entries),
        Family::PeerChanges => Shown::Counter(relay.peer_changes.of(PeerChange(counter))),
        Family::SetsCut => Shown::Counter(&relay.sets_cut),
        Family::Channels => Shown::Gauge(relay.channels.of(RelayRole(counter))),
        Family::Peers => Shown::Gauge(&relay.peers),
    }
}

/// The relays' numbers, each with its metric.
pub(super) fn relays<'a>(
    relay: &'a RelayMetrics,
    stats: &'a RelayStats,
) -> impl ExactSizeIterator<Item = (Shown<'a>, u64)> {
    Counter::ALL.iter().map(|counter| (shown(relay, *counter), stats[*counter]))
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
