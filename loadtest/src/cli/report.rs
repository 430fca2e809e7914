//! How measurements are shown: a progress bar while they run, a table and JSON when they are done.

use std::fmt::Write as _;

use antiphon_loadtest::load::{Outcome, Phases, Shape, Stage};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::cluster;

/// Two floors further apart than this say that the machine was not quiet: the ratio says little.
const FLOOR_SPREAD_MAX: f64 = 0.10;

/// A bar on standard error, gone when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    name: String,
}

impl Progress {
    pub(crate) fn new(name: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{msg:44} {bar:40} {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, name: name.to_owned() }
    }

    /// Shows how far a run is.
    pub(crate) fn show(&self, stage: Stage) {
        let (what, share) = match stage {
            Stage::Connecting(count, all) => (format!("connected {count}"), share(count, all)),
            Stage::Joining(count, all) => (format!("joined {count}"), share(count, all)),
            Stage::Binding(count, all) => (format!("bound {count}"), share(count, all)),
            Stage::Speaking(spoken, all, delivered) => {
                (format!("{delivered} delivered"), spoken.as_secs_f64() / all.as_secs_f64())
            }
        };
        self.bar.set_message(format!("{}: {what}", self.name));
        self.bar.set_position((share * 1_000.0) as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn share(count: usize, all: usize) -> f64 {
    count as f64 / all.max(1) as f64
}

/// All that was measured in one call.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    channels: usize,
    clients_per_channel: usize,
    speakers_per_channel: usize,
    frame_bytes: usize,
    aligned: bool,
    seconds: f64,
    pub(crate) node: Option<Outcome>,
    pub(crate) floors: Vec<Outcome>,
    pub(crate) bundled: Option<Outcome>,
}

/// The report with what follows from it.
#[derive(Serialize)]
struct WithRatios<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// The node's CPU time for each delivery over the relay's.
    cost_ratio: Option<f64>,
    /// How far the floors before and after are apart.
    floor_spread: Option<f64>,
    /// Growth of resident memory since the first minute.
    resident_growth: Option<f64>,
}

impl Report {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            channels: shape.channels,
            clients_per_channel: shape.clients,
            speakers_per_channel: shape.speakers,
            frame_bytes: shape.frame_bytes,
            aligned: shape.phases == Phases::Aligned,
            seconds: shape.duration.as_secs_f64(),
            node: None,
            floors: Vec::new(),
            bundled: None,
        }
    }

    /// Everything measured, in the order of the table.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.floors.iter().take(1).chain(&self.node).chain(self.floors.iter().skip(1)).chain(&self.bundled)
    }

    /// The mean cost of the floors, in µs.
    fn floor_us(&self) -> Option<f64> {
        let costs: Vec<f64> = self.floors.iter().filter_map(|floor| floor.cpu_us_per_delivery).collect();
        (!costs.is_empty()).then(|| costs.iter().sum::<f64>() / costs.len() as f64)
    }

    fn ratio(&self, outcome: &Outcome) -> Option<f64> {
        self.floor_us().zip(outcome.cpu_us_per_delivery).map(|(floor, cost)| cost / floor)
    }

    fn floor_spread(&self) -> Option<f64> {
        let [before, after] = self.floors.as_slice() else { return None };
        let (before, after) = (before.cpu_us_per_delivery?, after.cpu_us_per_delivery?);
        Some((before - after).abs() / before.min(after))
    }

    pub(crate) fn json(&self) -> Result<String> {
        let node = self.node.as_ref();
        let with_ratios = WithRatios {
            report: self,
            cost_ratio: node.and_then(|node| self.ratio(node)),
            floor_spread: self.floor_spread(),
            resident_growth: node.and_then(Outcome::resident_growth),
        };
        Ok(serde_json::to_string_pretty(&with_ratios)?)
    }

    pub(crate) fn table(&self) -> String {
        let Self { channels, clients_per_channel, speakers_per_channel, frame_bytes, seconds, .. } = self;
        let phases = if self.aligned { "aligned" } else { "random" };
        let mut text = format!(
            "{channels} × {clients_per_channel} clients, {speakers_per_channel} speaking, {frame_bytes} bytes, \
             {seconds} s, {phases} phases\n\n"
        );
        text += "                                 delivered                  latency, ms              frames/  CPU µs/  floor\n";
        text +=
            "                           /s       lost  dup     p50     p95     p99   p99.9  datagram delivery  ratio\n";
        self.outcomes().for_each(|outcome| self.row(&mut text, outcome));
        if let Some(node) = &self.node {
            details(&mut text, node);
            text += &cluster::nodes(node);
        }
        if let Some(spread) = self.floor_spread().filter(|spread| *spread > FLOOR_SPREAD_MAX) {
            let percent = spread * 100.0;
            text += &format!("the two floors differ by {percent:.0} %: the machine was not quiet, measure again\n");
        }
        text
    }

    fn row(&self, text: &mut String, outcome: &Outcome) {
        let Outcome { subject, delivered_per_s, lost, duplicated, latency, frames_per_datagram, .. } = outcome;
        let optional = |value: Option<f64>, decimals: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
        };
        let (p50, p95, p99, p999) = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.p999_ms);
        let cost = optional(outcome.cpu_us_per_delivery, 2);
        let ratio = optional(self.ratio(outcome), 2);
        // Writing into a String cannot fail.
        let _written = writeln!(
            text,
            "{subject:20} {delivered_per_s:9.0} {lost:9} {duplicated:4} {p50:8.2}{p95:8.2}{p99:8.2}{p999:8.2}  \
             {frames_per_datagram:8.2} {cost:>8}  {ratio:>5}"
        );
    }
}

/// What only a node has to tell.
fn details(text: &mut String, node: &Outcome) {
    let percent = node.loss() * 100.0;
    *text += &format!(
        "\n{} of {} deliveries lost ({percent:.4} %), {} altered, {} over the gateway, {} duplicates dropped by clients, \
         {} datagrams opened with no key\n",
        node.lost, node.expected, node.corrupt, node.over_gateway, node.dropped_as_duplicate, node.unopened
    );
    if let Some((cpu, cores)) = node.cpu.zip(node.cpu_cores) {
        let (seconds, user) = (cpu.seconds, cpu.user_share * 100.0);
        *text += &format!("server CPU {seconds:.2} s, {cores:.2} cores, {user:.0} % of it in user space\n");
    }
    if node.sessions_ended > 0 {
        *text += &format!("{} clients' sessions ended though nobody wanted it\n", node.sessions_ended);
    }
    if let Some(joins) = node.joins {
        let (times, seconds) = (joins.times, joins.seconds);
        let cost = joins.cpu_ms_per_join.map_or_else(String::new, |cost| format!(", {cost:.2} ms of CPU each"));
        *text += &format!(
            "{} joins in {seconds:.2} s: p50 {:.1} ms, p99 {:.1} ms{cost}\n",
            times.count, times.p50_ms, times.p99_ms
        );
    }
    if let Some(churn) = &node.churn {
        let why = churn.first_failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        *text += &format!(
            "{} others joined, {} left, {} failed{why}, {} were not begun; {} deliveries to them\n",
            churn.joins, churn.leaves, churn.failures, churn.skipped, node.to_passers
        );
    }
    *text += &memory(node);
    let (lateness, sweep) = (node.client.lateness, node.client.sweep_gap);
    *text += &format!(
        "load client: frames sent p99 {:.2} ms after their time, sockets swept every {:.1} ms (p99 {:.1})\n",
        lateness.p99_ms, sweep.p50_ms, sweep.p99_ms
    );
}

/// The nodes' memory, and how it grew.
fn memory(node: &Outcome) -> String {
    if node.resident.is_empty() {
        return String::new();
    }
    let samples: Vec<String> = node
        .resident
        .iter()
        .map(|sample| format!("{:.1} MiB at {:.0} s", sample.bytes as f64 / f64::from(1 << 20), sample.at_s))
        .collect();
    let growth = node
        .resident_growth()
        .map_or_else(String::new, |growth| format!(" ({:+.1} % since the first minute)", growth * 100.0));
    format!("server memory {}{growth}\n", samples.join(", "))
}
