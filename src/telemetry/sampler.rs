//! What is counted elsewhere and shown as metrics: read when somebody scrapes, and every few seconds besides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    media::SampledEngines,
    metrics::{self, Direction, FORWARDING_SECONDS, Metrics, Outcome, Release, Sampled, WorkerState, metrics},
    process::ProcessReading,
    relay::SampledRelays,
};
use crate::media::{FORWARDING_BUCKETS, Media, MediaCounters, SocketCounter};

/// Reads the counters of other parts into the metrics.
pub struct Sampler {
    media: Media,
    last: Mutex<Last>,
}

/// What was last read.
#[derive(Default)]
struct Last {
    engines: SampledEngines,
    relays: SampledRelays,
    relay_kernel_drops: Sampled,
    relay_send_failures: Sampled,
    relay_events_dropped: Sampled,
    received_bytes: Sampled,
    receive_calls: Sampled,
    receive_errors: Sampled,
    kernel_drops: Sampled,
    send_calls: Sampled,
    send_errors: Sampled,
    send_dropped: Sampled,
    send_waits: Sampled,
    turns: Sampled,
    gateway_frames_dropped: Sampled,
    handovers_dropped: Sampled,
    parts_left: Sampled,
    parts_refused: Sampled,
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
        let (media, socket) = (&metrics.media, &counters.socket);
        self.engines.bring(media, &counters.engine);
        self.relays.bring(&metrics.relay, &counters.relay);
        let relay = &counters.relay_socket;
        self.relay_kernel_drops.bring(&metrics.relay.kernel_drops, relay[SocketCounter::KernelDrops]);
        let failures = relay[SocketCounter::SendDropped] + relay[SocketCounter::SendErrors];
        self.relay_send_failures.bring(&metrics.relay.send_failures, failures);
        self.relay_events_dropped.bring(&metrics.relay.events_dropped, relay[SocketCounter::EventsDropped]);
        self.received_bytes.bring(&media.received_bytes, socket[SocketCounter::BytesReceived]);
        self.receive_calls.bring(media.socket_calls.of(Direction::Receive), socket[SocketCounter::ReceiveCalls]);
        self.receive_errors.bring(media.socket_errors.of(Direction::Receive), socket[SocketCounter::ReceiveErrors]);
        self.kernel_drops.bring(&media.kernel_drops, socket[SocketCounter::KernelDrops]);
        self.send_calls.bring(media.socket_calls.of(Direction::Send), socket[SocketCounter::SendCalls]);
        self.send_errors.bring(media.socket_errors.of(Direction::Send), socket[SocketCounter::SendErrors]);
        self.send_dropped.bring(&media.send_dropped, socket[SocketCounter::SendDropped]);
        self.send_waits.bring(&media.send_waits, socket[SocketCounter::SendWaits]);
        self.turns.bring(&media.turns, socket[SocketCounter::Turns]);
        self.gateway_frames_dropped.bring(&media.gateway_frames_dropped, socket[SocketCounter::GatewayFramesDropped]);
        self.handovers_dropped.bring(&media.handovers_dropped, socket[SocketCounter::HandoversDropped]);
        self.parts_left.bring(media.fan_out_parts.of(Outcome::Ok), socket[SocketCounter::PartsLeft]);
        self.parts_refused.bring(media.fan_out_parts.of(Outcome::Refused), socket[SocketCounter::PartsRefused]);
        media.busy.set(socket[SocketCounter::BusyMicros] as f64 / 1e6);
        // Each bucket by a value that falls into it: its own bound, and anything above the last one.
        let values = FORWARDING_SECONDS.into_iter().chain([1.0]);
        for ((last, count), value) in self.forwarding.iter_mut().zip(counters.forwarding.counts()).zip(values) {
            last.bring_bucket(&media.forwarding, value, *count);
        }
    }
}

/// Measures for ever how much later than asked the async runtime's timers fire.
pub async fn try_timers() {
    loop {
        let wanted = Instant::now() + TIMER_TRIAL;
        tokio::time::sleep_until(wanted).await;
        metrics().process.timer_lateness.record(wanted.elapsed().as_secs_f64());
    }
}
