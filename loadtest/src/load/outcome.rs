//! What a run came to.

use std::time::Duration;

use serde::Serialize;

use super::{
    churn::ChurnOutcome,
    faults::FaultsOutcome,
    process::CpuUsed,
    swarm::Measured,
    tally::{Times, TimesSummary},
    traffic::BetweenNodes,
};

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was measured: an Antiphon node, the relay, the bundling relay.
    pub subject: String,
    /// Frames sent in the measured time.
    pub sent: u64,
    /// Deliveries that these should have led to, to those who stayed.
    pub expected: u64,
    /// Deliveries verified, each once.
    pub delivered: u64,
    /// Expected and not delivered.
    pub lost: u64,
    /// Deliveries that were there before, past the client's own check.
    pub duplicated: u64,
    /// Frames and datagrams that the client dropped as there before.
    pub dropped_as_duplicate: u64,
    /// Frames that are not what was sent.
    pub corrupt: u64,
    /// Datagrams that opened with no key.
    pub unopened: u64,
    /// Deliveries by `AudioData` instead of UDP.
    pub over_gateway: u64,
    /// Deliveries to those who came and went.
    pub to_passers: u64,
    /// Clients' sessions that ended though nobody wanted it.
    pub sessions_ended: u64,
    /// The measured time.
    pub seconds: f64,
    /// Deliveries a second.
    pub delivered_per_s: f64,
    /// Frames in each datagram received.
    pub frames_per_datagram: f64,
    /// From the speaker's send to the kernel's receive stamp.
    pub latency: TimesSummary,
    /// The subject's CPU time in the measured time, of all its nodes together, when their process ids were given and
    /// all of them lived.
    pub cpu: Option<CpuUsed>,
    /// The same for each delivery, in µs: user and system, all threads.
    pub cpu_us_per_delivery: Option<f64>,
    /// The subject's share of one core.
    pub cpu_cores: Option<f64>,
    /// Joining, where there is something to join.
    pub joins: Option<Joins>,
    /// Those who came and went, where any did.
    pub churn: Option<ChurnOutcome>,
    /// The subject's resident memory, of all its nodes together, at the start, after each minute, and at the end.
    pub resident: Vec<Resident>,
    /// Each node, where there are several.
    pub nodes: Vec<NodeOutcome>,
    /// What went between the nodes, where there are several.
    pub between_nodes: Option<BetweenNodes>,
    /// What was done to nodes, and what followed.
    pub faults: Option<FaultsOutcome>,
    /// How the load client itself did.
    pub client: ClientHealth,
}

/// One node of several.
#[derive(Clone, Debug, Serialize)]
pub struct NodeOutcome {
    /// Its URL.
    pub server: String,
    /// Clients that connected to it at first.
    pub clients: usize,
    /// Its CPU time in the measured time, when its process id was given and it lived.
    pub cpu: Option<CpuUsed>,
    /// Its share of one core.
    pub cpu_cores: Option<f64>,
}

/// How joining went.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Joins {
    /// From `JoinChannel` to `ChannelJoined`.
    pub times: TimesSummary,
    /// From the first to the last.
    pub seconds: f64,
    /// The subject's CPU time for each, in ms.
    pub cpu_ms_per_join: Option<f64>,
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resident {
    /// Since the measured time began.
    pub at_s: f64,
    /// In RAM.
    pub bytes: u64,
}

/// How the load client did: whether its figures can be believed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientHealth {
    /// How much later than due frames were sent.
    pub lateness: TimesSummary,
    /// Between two sweeps over the sockets.
    pub sweep_gap: TimesSummary,
    /// Datagrams dropped by the kernel since our own sockets were full.
    pub receive_drops: u64,
}

impl Outcome {
    pub(super) fn new(subject: &str, measured: &Measured) -> Self {
        let tally = &measured.tally;
        let seconds = measured.measured.as_secs_f64();
        let deliveries = tally.delivered + tally.to_passers;
        let per = |value: f64, count: u64| if count > 0 { value / count as f64 } else { 0.0 };
        let cpu = CpuUsed::sum(&measured.cpu);
        Self {
            subject: subject.to_owned(),
            sent: measured.sent,
            expected: measured.expected,
            delivered: tally.delivered,
            lost: measured.expected.saturating_sub(tally.delivered),
            duplicated: tally.duplicated,
            dropped_as_duplicate: measured.dropped_as_duplicate,
            corrupt: tally.corrupt,
            unopened: measured.unopened,
            over_gateway: tally.over_gateway,
            to_passers: tally.to_passers,
            sessions_ended: 0,
            seconds,
            delivered_per_s: deliveries as f64 / seconds.max(f64::EPSILON),
            frames_per_datagram: per((deliveries - tally.over_gateway) as f64, tally.datagrams),
            latency: tally.latency.summary(),
            cpu,
            cpu_us_per_delivery: cpu.map(|cpu| per(cpu.seconds * 1e6, deliveries)),
            cpu_cores: cpu.map(|cpu| cpu.seconds / seconds.max(f64::EPSILON)),
            joins: None,
            churn: None,
            resident: Vec::new(),
            nodes: Vec::new(),
            between_nodes: None,
            faults: None,
            client: ClientHealth {
                lateness: measured.lateness.summary(),
                sweep_gap: measured.sweep_gap.summary(),
                receive_drops: measured.receive_drops,
            },
        }
    }

    /// The share of expected deliveries that was lost.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { self.lost as f64 / self.expected as f64 }
    }

    /// Why the figures say more of the load client than of what it measured, where they do.
    #[must_use]
    pub fn bottleneck(&self, lateness_max: Duration) -> Option<String> {
        let ClientHealth { lateness, receive_drops, .. } = self.client;
        if receive_drops > 0 {
            return Some(format!(
                "{receive_drops} datagrams found no room in the load client's own sockets; sweep more often \
                 (--sweep-ms) or use a core of its own (--pin)"
            ));
        }
        let max_ms = lateness_max.as_secs_f64() * 1_000.0;
        (lateness.p99_ms > max_ms).then(|| {
            format!(
                "one frame in a hundred was sent {:.1} ms or more after its time, {max_ms} ms is the limit; use a \
                 core of its own (--pin), fewer clients, or allow it (--lateness-max-ms)",
                lateness.p99_ms
            )
        })
    }

    /// How much resident memory has grown from the end of the first minute to the end, as a share.
    #[must_use]
    pub fn resident_growth(&self) -> Option<f64> {
        let first_minute = self.resident.iter().find(|sample| sample.at_s >= 59.0)?;
        let last = self.resident.last().filter(|last| last.at_s > first_minute.at_s)?;
        Some(last.bytes as f64 / first_minute.bytes as f64 - 1.0)
    }
}

impl Joins {
    pub(super) fn new(times: impl Iterator<Item = Duration>, took: Duration, cpu: Option<CpuUsed>) -> Self {
        let mut all = Times::new();
        times.for_each(|time| all.record_us(time.as_micros() as u64));
        let times = all.summary();
        let cpu_ms_per_join = cpu.filter(|_| times.count > 0).map(|cpu| cpu.seconds * 1_000.0 / times.count as f64);
        Self { times, seconds: took.as_secs_f64(), cpu_ms_per_join }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let mut lateness = Times::new();
        (0..1_000).for_each(|number| lateness.record_us(number * 10));
        let mut tally = super::super::tally::Tally::new();
        (tally.delivered, tally.to_passers, tally.datagrams) = (1_900, 100, 500);
        Outcome::new(
            "node",
            &Measured {
                sent: 200,
                expected: 2_000,
                tally,
                dropped_as_duplicate: 0,
                unopened: 0,
                lateness,
                sweep_gap: Times::new(),
                receive_drops: 0,
                cpu: vec![
                    Some(CpuUsed { seconds: 0.001, user_share: 0.5 }),
                    Some(CpuUsed { seconds: 0.003, user_share: 0.5 }),
                ],
                measured: Duration::from_secs(2),
                watched: None,
            },
        )
    }

    #[test]
    fn figures_follow_from_what_was_counted() {
        let outcome = outcome();
        assert_eq!((outcome.lost, outcome.loss()), (100, 0.05));
        assert_eq!(outcome.cpu_us_per_delivery, Some(2.0), "4 ms for 2,000 deliveries, passers' included");
        assert_eq!(outcome.cpu_cores, Some(0.002));
        assert_eq!((outcome.delivered_per_s, outcome.frames_per_datagram), (1_000.0, 4.0));
    }

    #[test]
    fn a_client_that_was_late_or_full_is_the_bottleneck() {
        let mut outcome = outcome();
        assert_eq!(outcome.bottleneck(Duration::from_millis(10)), None);
        let late = outcome.bottleneck(Duration::from_millis(9)).expect("9.9 ms late");
        assert!(late.contains("9.9 ms"), "{late}");
        outcome.client.receive_drops = 7;
        assert!(outcome.bottleneck(Duration::from_secs(1)).expect("full").contains("7 datagrams"));
    }

    #[test]
    fn memory_grows_from_the_first_minute_on() {
        let mut outcome = outcome();
        let at = |at_s, bytes| Resident { at_s, bytes };
        outcome.resident = vec![at(0.0, 50), at(60.0, 100), at(120.0, 103)];
        let growth = outcome.resident_growth().expect("two minutes");
        assert!((growth - 0.03).abs() < 1e-9);
        outcome.resident.truncate(2);
        assert_eq!(outcome.resident_growth(), None);
    }
}
