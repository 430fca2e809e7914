//! What is counted elsewhere and shown as metrics: read when somebody scrapes, and every few seconds besides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::Counter;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    buckets::FORWARDING_SECONDS,
    media::{SampledTable, Shown, engines},
    metrics::{
        self, Direction, KeyframeAsk, MediaMetrics, Metrics, Outcome, PeerDrop, PeerEnd, PeerUse, RelayMetrics,
        Release, RtpMedia, RtpNotSent, Sampled, WebRtcMetrics, WorkerState, metrics,
    },
    process::ProcessReading,
    relay::relays,
};
use crate::media::{
    FORWARDING_BUCKETS, ForwardingTimes, Media, MediaCounters, SocketCounter, SocketStats,
    webrtc::{PeerCounter, PeerStats},
};

/// Reads the counters of other parts into the metrics.
pub struct Sampler {
    media: Media,
    last: Mutex<Last>,
}

/// What was last read.
#[derive(Default)]
struct Last {
    engines: SampledTable,
    relays: SampledTable,
    sockets: SampledTable,
    relay_sockets: SampledTable,
    peers: SampledTable,
    forwarding: [Sampled; FORWARDING_BUCKETS],
}

/// How often the async runtime's timers are tried.
const TIMER_TRIAL: Duration = Duration::from_millis(500);

impl Sampler {
    /// Reads `media` and the process.
    #[must_use]
    pub fn new(media: Media) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics().process.start_time.set(since_1970.as_secs_f64());
        metrics().process.build_info.of(Release).set(1.0);
        Self { media, last: Mutex::default() }
    }

    /// Reads everything now, and moves recorded samples into their buckets.
    pub fn sample(&self) {
        let counters = self.media.counters();
        self.last.lock().bring(metrics(), &counters);
        let workers = &metrics().media.workers;
        workers.of(WorkerState::Started).set(f64::from(self.media.workers()));
        workers.of(WorkerState::Running).set(f64::from(self.media.workers_running()));
        if let Some(reading) = ProcessReading::take() {
            let process = &metrics().process;
            process.cpu.set(reading.cpu_seconds);
            process.resident_memory.set(reading.resident_memory_bytes as f64);
            process.open_files.set(reading.open_files as f64);
            process.open_files_limit.set(reading.open_files_limit.map_or(f64::INFINITY, |limit| limit as f64));
        }
        metrics::run_upkeep();
    }
}

impl Last {
    fn bring(&mut self, metrics: &Metrics, counters: &MediaCounters) {
        let (media, relay) = (&metrics.media, &metrics.relay);
        self.engines.bring(engines(media, &counters.engine));
        self.relays.bring(relays(relay, &counters.relay));
        self.sockets.bring(sockets(media, &counters.socket).into_iter());
        self.relay_sockets.bring(relay_sockets(relay, &counters.relay_socket).into_iter());
        self.peers.bring(peers(&metrics.webrtc, &counters.peers).into_iter());
        media.busy.set(counters.socket[SocketCounter::BusyMicros] as f64 / 1e6);
        self.bring_forwarding(media, &counters.forwarding);
    }

    /// Each bucket by a value that falls into it: its own bound, and anything above the last one.
    fn bring_forwarding(&mut self, media: &MediaMetrics, times: &ForwardingTimes) {
        let values = FORWARDING_SECONDS.into_iter().chain([1.0]);
        for ((last, count), value) in self.forwarding.iter_mut().zip(times.counts()).zip(values) {
            last.bring_bucket(&media.forwarding, value, *count);
        }
    }
}

/// What happened at the media workers' sockets and queues, each number with its metric.
fn sockets<'a>(media: &'a MediaMetrics, stats: &SocketStats) -> [(Shown<'a>, u64); 16] {
    use SocketCounter as C;
    let (calls, errors, parts) = (&media.socket_calls, &media.socket_errors, &media.fan_out_parts);
    let table: [(C, &Counter); 16] = [
        (C::BytesReceived, &media.received_bytes),
        (C::ReceiveCalls, calls.of(Direction::Receive)),
        (C::ReceiveErrors, errors.of(Direction::Receive)),
        (C::KernelDrops, &media.kernel_drops),
        (C::SendCalls, calls.of(Direction::Send)),
        (C::SendErrors, errors.of(Direction::Send)),
        (C::SendDropped, &media.send_dropped),
        (C::SendWaits, &media.send_waits),
        (C::Turns, &media.turns),
        (C::Wakes, &media.wakes),
        (C::Commands, &media.commands),
        (C::GatewayFramesDropped, &media.gateway_frames_dropped),
        (C::HandoversDropped, &media.handovers_dropped),
        (C::MixFramesDropped, &media.mix_frames_dropped),
        (C::PartsLeft, parts.of(Outcome::Ok)),
        (C::PartsRefused, parts.of(Outcome::Refused)),
    ];
    table.map(|(counter, metric)| (Shown::Counter(metric), stats[counter]))
}

/// What the WebRTC peers counted.
fn peers<'a>(webrtc: &'a WebRtcMetrics, stats: &PeerStats) -> [(Shown<'a>, u64); PeerStats::COUNT] {
    use Direction::{Receive, Send};
    use PeerCounter as C;
    use RtpMedia::{Audio, Video};
    let shown = |counter: C| match counter {
        C::Publishers => Shown::Gauge(webrtc.peers.of(PeerUse::Publish)),
        C::Subscribers => Shown::Gauge(webrtc.peers.of(PeerUse::Subscribe)),
        C::Connected => Shown::Gauge(&webrtc.connected),
        C::Established => Shown::Counter(&webrtc.established),
        C::NeverConnected => Shown::Counter(webrtc.ended.of(PeerEnd::NeverConnected)),
        C::NoPlace => Shown::Counter(&webrtc.refused),
        C::Lost => Shown::Counter(webrtc.ended.of(PeerEnd::Lost)),
        C::Broken => Shown::Counter(webrtc.ended.of(PeerEnd::Broken)),
        C::Taken => Shown::Counter(&webrtc.datagrams_received),
        C::Unknown => Shown::Counter(webrtc.datagrams_dropped.of(PeerDrop::Unknown)),
        C::NotAuthentic => Shown::Counter(webrtc.datagrams_dropped.of(PeerDrop::NotAuthentic)),
        C::Unexpected => Shown::Counter(webrtc.datagrams_dropped.of(PeerDrop::Unexpected)),
        C::TooManyAddresses => Shown::Counter(webrtc.datagrams_dropped.of(PeerDrop::TooManyAddresses)),
        C::HandedOver => Shown::Counter(webrtc.handed_over.of(Outcome::Ok)),
        C::HandoversDropped => Shown::Counter(webrtc.handed_over.of(Outcome::Refused)),
        C::Sent => Shown::Counter(&webrtc.datagrams_sent),
        C::TcpDropped => Shown::Counter(&webrtc.tcp_dropped),
        C::AudioIn => Shown::Counter(webrtc.rtp.of((Audio, Receive))),
        C::AudioOut => Shown::Counter(webrtc.rtp.of((Audio, Send))),
        C::AudioLost => Shown::Counter(&webrtc.audio_lost),
        C::ReportsDropped => Shown::Counter(&webrtc.reports_dropped),
        C::AudioRepeated => Shown::Counter(&webrtc.audio_repeated),
        C::VideoIn => Shown::Counter(webrtc.rtp.of((Video, Receive))),
        C::VideoOut => Shown::Counter(webrtc.rtp.of((Video, Send))),
        C::AudioRecovered => Shown::Counter(&webrtc.recovered),
        C::NoTrack => Shown::Counter(webrtc.not_sent.of(RtpNotSent::NoTrack)),
        C::NoCodec => Shown::Counter(webrtc.not_sent.of(RtpNotSent::NoCodec)),
        C::KeyframesAsked => Shown::Counter(webrtc.keyframes.of(KeyframeAsk::Server)),
        C::KeyframesWanted => Shown::Counter(webrtc.keyframes.of(KeyframeAsk::Subscribers)),
        C::LayerSwitches => Shown::Counter(&webrtc.layer_switches),
        C::VideoPauses => Shown::Counter(&webrtc.video_pauses),
        C::VideoLeftOver => Shown::Counter(&webrtc.video_left_over),
        C::WaysShrank => Shown::Counter(&webrtc.ways_shrank),
        C::WaysTried => Shown::Counter(&webrtc.ways_tried),
        C::Negotiations => Shown::Counter(&webrtc.negotiations),
    };
    std::array::from_fn(|index| (shown(PeerCounter::ALL[index]), stats[PeerCounter::ALL[index]]))
}

/// Likewise of the relays'.
fn relay_sockets<'a>(relay: &'a RelayMetrics, stats: &SocketStats) -> [(Shown<'a>, u64); 5] {
    use SocketCounter as C;
    let table: [(C, &Counter); 5] = [
        (C::KernelDrops, &relay.kernel_drops),
        (C::SendDropped, &relay.send_failures),
        (C::SendErrors, &relay.send_failures),
        (C::DatagramsSegmented, &relay.segmented),
        (C::EventsDropped, &relay.events_dropped),
    ];
    table.map(|(counter, metric)| (Shown::Counter(metric), stats[counter]))
}

/// Measures for ever how much later than asked the async runtime's timers fire.
pub async fn try_timers() {
    loop {
        let wanted = Instant::now() + TIMER_TRIAL;
        tokio::time::sleep_until(wanted).await;
        metrics().process.timer_lateness.record(wanted.elapsed().as_secs_f64());
    }
}
