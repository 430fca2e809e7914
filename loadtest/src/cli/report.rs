//! A report for people: a table and what only nodes have to tell.

use std::fmt::Write as _;

use antiphon_loadtest::{
    load::{Outcome, Phases},
    report::{PhaseReport, Report},
};

use super::{beside, cluster};

/// Two floors further apart than this say that the machine was not quiet: the ratio says little.
const FLOOR_SPREAD_MAX: f64 = 0.10;

/// All of it.
pub(crate) fn table(report: &Report) -> String {
    let mut text = heading(report);
    if voiced(report).next().is_some() || !report.floors.is_empty() {
        text += "                                 delivered                  latency, ms              frames/  CPU µs/  floor\n";
        text +=
            "                           /s       lost  dup     p50     p95     p99   p99.9  datagram delivery  ratio\n";
    }
    let several = report.phases.len() > 1;
    report.floors.iter().take(1).for_each(|floor| row(&mut text, report, &floor.subject, floor));
    for phase in voiced(report) {
        let name = if several { &phase.name } else { &phase.outcome.subject };
        row(&mut text, report, name, &phase.outcome);
    }
    let rest = report.floors.iter().skip(1).chain(&report.bundled);
    rest.for_each(|relay| row(&mut text, report, &relay.subject, relay));
    for (phase, groups) in report.phases.iter().zip(report.scenario.groups_by_phase()) {
        if several {
            text += &format!("\nphase {}:", phase.name);
        }
        text += "\n";
        if !groups.is_empty() {
            details(&mut text, &phase.outcome);
        }
        text += &used(&phase.outcome);
        text += &beside::text(&phase.outcome);
        text += &cluster::nodes(&phase.outcome);
    }
    if let Some(spread) = report.floor_spread.filter(|spread| *spread > FLOOR_SPREAD_MAX) {
        let percent = spread * 100.0;
        text += &format!("the two floors differ by {percent:.0} %: the machine was not quiet, measure again\n");
    }
    text + &budgets(report)
}

/// The phases in which somebody is in voice.
fn voiced(report: &Report) -> impl Iterator<Item = &PhaseReport> {
    let phases = report.phases.iter().zip(report.scenario.groups_by_phase());
    phases.filter(|(_, groups)| !groups.is_empty()).map(|(phase, _)| phase)
}

fn heading(report: &Report) -> String {
    let scenario = &report.scenario;
    if voiced(report).next().is_none() && report.floors.is_empty() {
        return format!("{}\n", scenario.name);
    }
    let mut text = format!("{}: {} bytes a frame", scenario.name, scenario.frame_bytes);
    for group in &scenario.groups {
        text += &format!("; {} × {} clients, {} talking", group.channels, group.clients(), group.talkers);
    }
    let grid = if scenario.grid == Phases::Aligned { "aligned" } else { "random" };
    text + &format!("; {grid} phases\n\n")
}

fn budgets(report: &Report) -> String {
    let (kept, all) = (report.budgets.iter().filter(|budget| budget.met).count(), report.budgets.len());
    if all == 0 { String::new() } else { format!("{kept} of {all} budgets kept\n") }
}

fn row(text: &mut String, report: &Report, name: &str, outcome: &Outcome) {
    let Outcome { delivered_per_s, lost, duplicated, latency, frames_per_datagram, .. } = outcome;
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let (p50, p95, p99, p999) = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.p999_ms);
    let (cost, ratio) = (optional(outcome.cpu_us_per_delivery), optional(report.ratio(outcome)));
    // Writing into a String cannot fail.
    let _written = writeln!(
        text,
        "{name:20} {delivered_per_s:9.0} {lost:9} {duplicated:4} {p50:8.2}{p95:8.2}{p99:8.2}{p999:8.2}  \
         {frames_per_datagram:8.2} {cost:>8}  {ratio:>5}"
    );
}

/// What only a node has to tell.
fn details(text: &mut String, node: &Outcome) {
    let (percent, unexplained) = (node.loss_heard() * 100.0, node.loss() * 100.0);
    *text += &format!(
        "{} of {} deliveries lost ({percent:.4} %; {unexplained:.4} % not by impairment), {} altered, {} over the gateway, {} duplicates dropped by clients, \
         {} datagrams opened with no key\n",
        node.lost, node.expected, node.corrupt, node.over_gateway, node.dropped_as_duplicate, node.unopened
    );
    if let Some(joins) = node.joins {
        let (times, seconds) = (joins.times, joins.seconds);
        let cost = joins.cpu_ms_per_join.map_or_else(String::new, |cost| format!(", {cost:.2} ms of CPU each"));
        let memory = joins.memory_bytes_per_join;
        let memory = memory.map_or_else(String::new, |bytes| format!(", {:.0} KiB of memory each", bytes / 1024.0));
        *text += &format!(
            "{} joins in {seconds:.2} s: p50 {:.1} ms, p99 {:.1} ms{cost}{memory}\n",
            times.count, times.p50_ms, times.p99_ms
        );
    }
    if let Some(churn) = &node.churn {
        let why = churn.first_failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        *text += &format!(
            "{} others joined (p99 {:.1} ms), {} left, {} failed{why}, {} were not begun; {} deliveries to them\n",
            churn.joins, churn.times.p99_ms, churn.leaves, churn.failures, churn.skipped, node.to_passers
        );
    }
    *text += &beside::voice(node);
    let (lateness, sweep) = (node.client.lateness, node.client.sweep_gap);
    *text += &format!(
        "load client: frames sent p99 {:.2} ms after their time, sockets swept every {:.1} ms (p99 {:.1})\n",
        lateness.p99_ms, sweep.p50_ms, sweep.p99_ms
    );
}

/// What the nodes used, and what the load client did.
fn used(node: &Outcome) -> String {
    let mut text = String::new();
    if let Some((cpu, cores)) = node.cpu.zip(node.cpu_cores) {
        let (seconds, user) = (cpu.seconds, cpu.user_share * 100.0);
        text += &format!("server CPU {seconds:.2} s, {cores:.2} cores, {user:.0} % of it in user space\n");
    }
    if node.sessions_ended > 0 {
        text += &format!("{} clients' sessions ended though nobody wanted it\n", node.sessions_ended);
    }
    text + &memory(node) + &own(node)
}

/// What the load client itself used.
fn own(node: &Outcome) -> String {
    let Some((cores, bytes)) = node.client.cpu_cores.zip(node.client.memory_bytes) else { return String::new() };
    format!("load client {cores:.2} cores, {:.0} MiB\n", bytes as f64 / f64::from(1 << 20))
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
