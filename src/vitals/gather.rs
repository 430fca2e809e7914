//! This node in figures, as of the last second.

use std::{sync::Arc, time::Instant};

use antiphon_core::engine::Counter;

use crate::{
    cluster::{Load, NodeStatistics},
    gateway::Gateway,
    media::{FORWARDING_BUCKETS, FORWARDING_US, Media, MediaCounters, SocketCounter},
    rooms::Rooms,
    streaming::Listening,
    telemetry::process,
};

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// How much it has to do.
    pub load: Load,
    /// How it is. Alerts and what it sees of other nodes are added by whoever knows.
    pub statistics: NodeStatistics,
}

/// Looks at this node's parts.
pub struct Gatherer {
    media: Media,
    gateway: Gateway,
    rooms: Rooms,
    listening: Arc<Listening>,
    processors: f64,
    started: Instant,
    last: Reading,
    forwarding_us: u32,
}

/// What was read at a moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu_seconds: f64,
    counters: MediaCounters,
}

impl Gatherer {
    /// Looks at these parts from now on.
    #[must_use]
    pub fn new(media: Media, gateway: Gateway, rooms: Rooms, listening: Arc<Listening>) -> Self {
        let now = Instant::now();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpu_seconds = process::cpu_and_memory().map_or(0.0, |(cpu_seconds, _)| cpu_seconds);
        let last = Reading { at: now, cpu_seconds, counters: media.counters() };
        let processors = processors as f64;
        Self { media, gateway, rooms, listening, processors, started: now, last, forwarding_us: 0 }
    }

    /// What is to be told now. Rates are of the time since it was last called.
    pub fn gather(&mut self) -> Gathered {
        let (cpu_seconds, memory_bytes) = process::cpu_and_memory().unwrap_or((self.last.cpu_seconds, 0));
        let now = Reading { at: Instant::now(), cpu_seconds, counters: self.media.counters() };
        let last = std::mem::replace(&mut self.last, now);
        let passed_s = now.at.duration_since(last.at).as_secs_f64().max(0.001);
        let rate =
            |of: fn(&MediaCounters) -> u64| of(&now.counters).saturating_sub(of(&last.counters)) as f64 / passed_s;
        let busy_processors = rate(|counters| counters.socket[SocketCounter::BusyMicros]) / 1e6;
        let rooms = self.rooms.measure(busy_processors * 100.0);
        self.forwarding_us = median_us(&last.counters, &now.counters).unwrap_or(self.forwarding_us);
        let statistics = NodeStatistics {
            uptime_s: self.started.elapsed().as_secs(),
            connections: count(self.gateway.connections() as u64),
            people: rooms.people,
            channels: rooms.channels,
            voice: rooms.voice,
            packets_in_per_s: rate(|counters| counters.engine[Counter::FramesAccepted]) as f32,
            packets_out_per_s: rate(|counters| counters.engine[Counter::FramesSent]) as f32,
            bytes_per_s: rate(|counters| {
                counters.engine[Counter::BytesSent] + counters.socket[SocketCounter::BytesReceived]
            }),
            cpu_percent: ((cpu_seconds - last.cpu_seconds) / passed_s / self.processors * 100.0) as f32,
            memory_bytes,
            workers_running: self.media.workers_running(),
            forwarding_us: self.forwarding_us,
            listeners: count(self.listening.live() as u64),
            channel_listeners: count(self.rooms.overheard().iter().map(|(_, listeners)| *listeners as u64).sum()),
            watches_listening: self.gateway.is_watched(),
            ..NodeStatistics::default()
        };
        let load = Load {
            sessions: count(self.gateway.sessions_count() as u64),
            members: count(now.counters.engine[Counter::MembersPresent]),
            busy: (busy_processors / f64::from(self.media.workers().max(1))).min(1.0) as f32,
        };
        Gathered { load, statistics }
    }
}

fn count(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The median of how long frames were in the node between two readings, within its bucket by proportion; `None` where
/// there were none.
fn median_us(last: &MediaCounters, now: &MediaCounters) -> Option<u32> {
    let mut counts = [0; FORWARDING_BUCKETS];
    for ((count, now), last) in counts.iter_mut().zip(now.forwarding.counts()).zip(last.forwarding.counts()) {
        *count = now.saturating_sub(*last);
    }
    median_of(&counts)
}

fn median_of(counts: &[u64; FORWARDING_BUCKETS]) -> Option<u32> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let mut below = 0;
    for (index, count) in counts.iter().enumerate() {
        if (below + count) * 2 >= total {
            let start = if index == 0 { 0 } else { FORWARDING_US[index - 1] };
            // Nothing is known of how far above the last bound the rest is.
            let end = FORWARDING_US.get(index).copied().unwrap_or(start);
            let within = (total as f64 / 2.0 - below as f64) / *count as f64;
            return u32::try_from(start + ((end - start) as f64 * within) as u64).ok();
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_within_its_bucket() {
        let mut counts = [0; FORWARDING_BUCKETS];
        assert_eq!(median_of(&counts), None);
        counts[0] = 10;
        assert_eq!(median_of(&counts), Some(50), "half of the first bucket's 100");
        counts[3] = 30;
        // Ten of thirty into the bucket from 1,000 to 2,000.
        assert_eq!(median_of(&counts), Some(1_333));
        counts[FORWARDING_BUCKETS - 1] = 1_000;
        assert_eq!(median_of(&counts), Some(50_000));
    }
}
