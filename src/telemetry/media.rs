//! The media workers' numbers as metrics. The workers count for themselves, without a shared counter on their hot path;
//! this says which metric each of their numbers is.

use antiphon_core::engine::{Counter, EngineStats, Family};

use super::{
    family::Label,
    family_label::family_label,
    metrics::{MediaMetrics, Sampled},
};

family_label!(
    /// What a datagram from a client was.
    DatagramType = "type" of DatagramsReceived
);
family_label!(
    /// Why a datagram was dropped.
    DatagramDrop = "reason" of DatagramsDropped
);
family_label!(
    /// Why a frame was dropped.
    FrameDrop = "reason" of FramesDropped
);
family_label!(
    /// How many frames a datagram carries.
    BundleSize = "frames" of DatagramsSent
);
family_label!(
    /// What becomes of an event that the control plane has no room for.
    EventFate = "fate" of EventsRefused
);
family_label!(
    /// How far a UDP session is.
    SessionState = "state" of Sessions
);

/// A metric that a number is shown as.
pub(super) enum Shown<'a> {
    Counter(&'a metrics::Counter),
    Gauge(&'a metrics::Gauge),
}

/// Which metric shows a counter.
fn shown(media: &MediaMetrics, counter: Counter) -> Shown<'_> {
    match counter.family() {
        Family::DatagramsReceived => Shown::Counter(media.datagrams_received.of(DatagramType(counter))),
        Family::DatagramsDropped => Shown::Counter(media.datagrams_dropped.of(DatagramDrop(counter))),
        Family::FramesAccepted => Shown::Counter(&media.frames_received),
        Family::FramesRemote => Shown::Counter(&media.frames_remote),
        Family::FramesDropped => Shown::Counter(media.frames_dropped.of(FrameDrop(counter))),
        Family::FramesLost => Shown::Counter(&media.frames_lost),
        Family::FramesSent => Shown::Counter(&media.frames_delivered),
        Family::FramesToPeers => Shown::Counter(&media.frames_to_peers),
        Family::FramesToMixer => Shown::Counter(&media.frames_to_mixer),
        Family::FramesMixed => Shown::Counter(&media.frames_mixed),
        Family::FramesToRecorder => Shown::Counter(&media.frames_to_recorder),
        Family::FramesTunnelled => Shown::Counter(&media.frames_tunnelled),
        Family::DatagramsSent => Shown::Counter(media.datagrams_sent.of(BundleSize(counter))),
        Family::Answers => Shown::Counter(&media.answers_sent),
        Family::BytesSent => Shown::Counter(&media.sent_bytes),
        Family::Sealed => Shown::Counter(&media.seals),
        Family::FramesHandedOver => Shown::Counter(&media.frames_handed_over),
        Family::EventsRefused => Shown::Counter(media.events_refused.of(EventFate(counter))),
        Family::CommandsRefused => Shown::Counter(&media.commands_refused),
        Family::Sessions => Shown::Gauge(media.sessions.of(SessionState(counter))),
        Family::Channels => Shown::Gauge(&media.channels),
        Family::Members => Shown::Gauge(&media.members),
    }
}

/// What was last read of a table of numbers.
#[derive(Debug, Default)]
pub(super) struct SampledTable(Vec<Sampled>);

impl SampledTable {
    /// Brings the metric that shows each number up to it.
    pub(super) fn bring<'a>(&mut self, numbers: impl ExactSizeIterator<Item = (Shown<'a>, u64)>) {
        self.0.resize_with(numbers.len(), Sampled::default);
        for ((shown, number), last) in numbers.zip(&mut self.0) {
            match shown {
                Shown::Counter(metric) => last.bring(metric, number),
                Shown::Gauge(metric) => metric.set(number as f64),
            }
        }
    }
}

/// The engines' numbers, each with its metric.
pub(super) fn engines<'a>(
    media: &'a MediaMetrics,
    stats: &'a EngineStats,
) -> impl ExactSizeIterator<Item = (Shown<'a>, u64)> {
    Counter::ALL.iter().map(|counter| (shown(media, *counter), stats[*counter]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::metrics;

    #[test]
    fn labels_are_the_families_own() {
        assert_eq!(
            DatagramType::ALL.iter().map(|value| value.text()).collect::<Vec<_>>(),
            ["media", "bind", "ping", "report"]
        );
        for value in FrameDrop::ALL {
            assert_eq!(FrameDrop::ALL[value.index()], *value);
            assert_eq!(value.0.family(), Family::FramesDropped);
        }
    }

    #[test]
    fn gauges_are_gauges_and_counters_counters() {
        for counter in Counter::ALL {
            let is_gauge = matches!(shown(&metrics().media, *counter), Shown::Gauge(_));
            assert_eq!(is_gauge, counter.family().is_gauge(), "{counter:?}");
        }
    }
}
