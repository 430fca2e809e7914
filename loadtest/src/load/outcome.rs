//! What a run came to.

use std::time::Duration;

use serde::Serialize;

use super::{
    chat::ChatOutcome,
    churn::ChurnOutcome,
    faults::FaultsOutcome,
    process::CpuUsed,
    quality::Quality,
    scrape::ScrapesOutcome,
    series::Step,
    storm::StormOutcome,
    streams::StreamsOutcome,
    tally::{Times, TimesSummary},
    thread::{Carried, Sample},
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
    /// Of those, explained by what the run itself lost on impaired ways.
    pub lost_on_way: u64,
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
    /// From the speaker's send to the kernel's receive stamp, of frames that came by UDP.
    pub latency: TimesSummary,
    /// The same as a curve: so many ms or less took that share of them.
    pub latency_distribution: Vec<(f64, f64)>,
    /// From the speaker's send until the message was read, of frames that came in the WebSocket.
    pub tunnel_latency: TimesSummary,
    /// How it sounded to those who stayed, where there was something to hear.
    pub quality: Option<Quality>,
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
    /// Those who came all at once, where any did.
    pub storm: Option<StormOutcome>,
    /// The fetches of metrics, where there were any.
    pub scrapes: Option<ScrapesOutcome>,
    /// What was written and read, where anything was.
    pub chat: Option<ChatOutcome>,
    /// The audio files that were listened to, where any were.
    pub streams: Option<StreamsOutcome>,
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
    /// The measured time in steps.
    pub steps: Vec<Step>,
}

/// One node of several.
#[derive(Clone, Debug, Serialize)]
pub struct NodeOutcome {
    /// Its URL.
    pub server: String,
    /// Clients that connected to it at first, in voice and in chat.
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
    /// By how much the subject's resident memory grew for each, from before anybody was connected until all had joined.
    pub memory_bytes_per_join: Option<f64>,
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
    /// Frames dropped since a client's own WebSocket could not keep up.
    pub tunnel_drops: u64,
    /// The load client's own CPU time by time, in cores, gateway sessions included.
    pub cpu_cores: Option<f64>,
    /// Its memory at the end.
    pub memory_bytes: Option<u64>,
}

impl Outcome {
    pub(super) fn new(subject: &str, carried: &Carried) -> Self {
        let Carried { measured, resident, samples, .. } = carried;
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
            lost_on_way: measured.explained,
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
            latency_distribution: tally.latency.distribution(),
            tunnel_latency: tally.tunnel_latency.summary(),
            quality: measured.quality,
            cpu,
            cpu_us_per_delivery: cpu.map(|cpu| per(cpu.seconds * 1e6, deliveries)),
            cpu_cores: cpu.map(|cpu| cpu.seconds / seconds.max(f64::EPSILON)),
            joins: None,
            churn: None,
            storm: None,
            scrapes: None,
            chat: None,
            streams: None,
            resident: resident.clone(),
            nodes: Vec::new(),
            between_nodes: None,
            faults: None,
            client: ClientHealth {
                cpu_cores: carried.own_cpu_cores,
                memory_bytes: carried.own_memory,
                ..measured.client
            },
            steps: steps(tally.series.steps(), samples),
        }
    }

    /// The share of expected deliveries that was lost and that the run's own impairment does not explain.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.share(self.lost.saturating_sub(self.lost_on_way))
    }

    /// The share of expected deliveries that was lost for whatever reason.
    #[must_use]
    pub fn loss_heard(&self) -> f64 {
        self.share(self.lost)
    }

    fn share(&self, lost: u64) -> f64 {
        if self.expected == 0 { 0.0 } else { lost as f64 / self.expected as f64 }
    }

    /// Of each kind of joins that there were.
    pub(super) fn join_times(&self) -> impl Iterator<Item = TimesSummary> {
        let churn = self.churn.as_ref().map(|churn| churn.times);
        let storm = self.storm.as_ref().map(|storm| storm.times);
        let kinds = [self.joins.map(|joins| joins.times), churn, storm];
        kinds.into_iter().flatten().filter(|times| times.count > 0)
    }

    /// Joins of those who come and go that failed or were not begun.
    pub(super) fn join_failures(&self) -> Option<f64> {
        let churn = self.churn.as_ref().map(|churn| churn.failures + churn.skipped);
        let storm = self.storm.as_ref().map(|storm| storm.failures);
        [churn, storm].into_iter().flatten().reduce(|sum, count| sum + count).map(|sum| sum as f64)
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
        if self.client.tunnel_drops > 0 {
            let drops = self.client.tunnel_drops;
            return Some(format!("{drops} frames found no room on their way into the load client's own WebSockets"));
        }
        let max_ms = lateness_max.as_secs_f64() * 1_000.0;
        if lateness.p99_ms > max_ms {
            return Some(format!(
                "one frame in a hundred was sent {:.1} ms or more after its time, {max_ms} ms is the limit; stop what \
                 else runs on this machine, use a core of its own (--pin), fewer clients, or allow it (--lateness-max-ms)",
                lateness.p99_ms
            ));
        }
        let of_chat = self.chat.as_ref().and_then(|chat| chat.bottleneck(lateness_max));
        of_chat.or_else(|| self.streams.as_ref().and_then(|streams| streams.bottleneck(lateness_max)))
    }

    /// What was lost though nothing was lost on purpose, altered, delivered twice or in the wrong order.
    #[must_use]
    pub fn flaws(&self) -> u64 {
        let of_voice = self.lost.saturating_sub(self.lost_on_way) + self.duplicated + self.corrupt;
        let of_streams = self.streams.as_ref().map_or(0, |streams| streams.corrupt);
        of_voice + of_streams + self.chat.as_ref().map_or(0, ChatOutcome::flaws)
    }

    /// How much resident memory has grown from the end of the first minute to the end, as a share.
    #[must_use]
    pub fn resident_growth(&self) -> Option<f64> {
        let first_minute = self.resident.iter().find(|sample| sample.at_s >= 59.0)?;
        let last = self.resident.last().filter(|last| last.at_s > first_minute.at_s)?;
        Some(last.bytes as f64 / first_minute.bytes as f64 - 1.0)
    }
}

/// The swarm's steps with what was sampled beside.
fn steps(mut steps: Vec<Step>, samples: &[Sample]) -> Vec<Step> {
    for (step, sample) in steps.iter_mut().zip(samples) {
        (step.joins, step.cpu_cores, step.memory_bytes) = (sample.joins, sample.cpu_cores, sample.memory_bytes);
    }
    steps
}

impl Joins {
    pub(super) fn new(times: impl Iterator<Item = Duration>, took: Duration, cpu: Option<CpuUsed>) -> Self {
        let mut all = Times::new();
        times.for_each(|time| all.record_us(time.as_micros() as u64));
        let times = all.summary();
        let cpu_ms_per_join = cpu.filter(|_| times.count > 0).map(|cpu| cpu.seconds * 1_000.0 / times.count as f64);
        Self { times, seconds: took.as_secs_f64(), cpu_ms_per_join, memory_bytes_per_join: None }
    }

    /// Takes note of the subject's resident memory before and after.
    pub(super) fn remembers(&mut self, bytes: Option<(u64, u64)>) {
        let each = |(before, after): (u64, u64)| after.saturating_sub(before) as f64 / self.times.count as f64;
        self.memory_bytes_per_join = bytes.filter(|_| self.times.count > 0).map(each);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::swarm::Measured, *};

    fn outcome() -> Outcome {
        let mut lateness = Times::new();
        (0..1_000).for_each(|number| lateness.record_us(number * 10));
        let mut tally = super::super::tally::Tally::new(0, 0..2_000_000_000);
        (tally.delivered, tally.to_passers, tally.datagrams) = (1_900, 100, 500);
        let client = ClientHealth {
            lateness: lateness.summary(),
            sweep_gap: Times::new().summary(),
            receive_drops: 0,
            tunnel_drops: 0,
            cpu_cores: None,
            memory_bytes: None,
        };
        let measured = Measured {
            sent: 200,
            expected: 2_000,
            explained: 40,
            quality: None,
            tally,
            dropped_as_duplicate: 0,
            unopened: 0,
            client,
            cpu: vec![
                Some(CpuUsed { seconds: 0.001, user_share: 0.5 }),
                Some(CpuUsed { seconds: 0.003, user_share: 0.5 }),
            ],
            measured: Duration::from_secs(2),
            watched: None,
        };
        let samples = vec![Sample { joins: 7, cpu_cores: Some(0.5), memory_bytes: None }];
        let (own_cpu_cores, own_memory) = (Some(0.25), Some(1 << 20));
        Outcome::new("node", &Carried { measured, resident: Vec::new(), samples, own_cpu_cores, own_memory })
    }

    #[test]
    fn figures_follow_from_what_was_counted() {
        let outcome = outcome();
        assert_eq!((outcome.lost, outcome.loss_heard()), (100, 0.05));
        assert_eq!(outcome.loss(), 0.03, "40 of them were lost on purpose");
        assert_eq!((outcome.steps.len(), outcome.steps[0].joins, outcome.steps[1].joins), (2, 7, 0));
        assert_eq!(outcome.cpu_us_per_delivery, Some(2.0), "4 ms for 2,000 deliveries, passers' included");
        assert_eq!(outcome.cpu_cores, Some(0.002));
        assert_eq!((outcome.client.cpu_cores, outcome.client.memory_bytes), (Some(0.25), Some(1 << 20)));
        assert_eq!((outcome.delivered_per_s, outcome.frames_per_datagram), (1_000.0, 4.0));
    }

    #[test]
    fn the_slowest_kind_of_joining_is_the_figure() {
        let mut outcome = outcome();
        assert_eq!((outcome.join_times().count(), outcome.join_failures()), (0, None));
        let times = |count, p99_ms| TimesSummary { count, p99_ms, ..TimesSummary::default() };
        outcome.joins =
            Some(Joins { times: times(20, 30.0), seconds: 1.0, cpu_ms_per_join: None, memory_bytes_per_join: None });
        let churn = ChurnOutcome { times: times(5, 70.0), failures: 1, skipped: 2, ..ChurnOutcome::default() };
        outcome.churn = Some(churn);
        let figure = |name: &str| name.parse::<super::super::Figure>().expect(name).of(&outcome);
        assert_eq!((figure("join_p99_ms"), figure("join_failures")), (Some(70.0), Some(3.0)));
        assert_eq!(figure("mos"), None, "nobody heard anything");
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
