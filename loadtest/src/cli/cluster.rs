//! What a report says of several nodes: what each cost, what went between them, and what faults led to.

use std::fmt::Write as _;

use antiphon_loadtest::load::{BetweenNodes, Counts, FaultsOutcome, Lost, LostBySeat, Outcome, Silences};

/// All of it; nothing for a single node that nothing was done to.
pub(crate) fn nodes(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for (place, node) in (1..).zip(&outcome.nodes) {
        let cpu = node.cpu.zip(node.cpu_cores).map_or_else(
            || "CPU not known".to_owned(),
            |(cpu, cores)| format!("CPU {:.2} s, {cores:.2} cores", cpu.seconds),
        );
        let _written = writeln!(text, "node {place}, {}: {} clients, {cpu}", node.server, node.clients);
    }
    match &outcome.between_nodes {
        // Where nobody speaks, as in chat, nothing is to go that way.
        Some(BetweenNodes::Measured(traffic)) if outcome.sent > 0 => {
            let _written = writeln!(
                text,
                "between nodes {:.0} bytes, {:.0} datagrams, {:.0} frames a second; for each spoken frame {:.1} bytes, \
                 {:.2} datagrams, {:.2} frames",
                traffic.bytes_per_s,
                traffic.datagrams_per_s,
                traffic.frames_per_s,
                traffic.bytes_per_spoken_frame,
                traffic.datagrams_per_spoken_frame,
                traffic.frames_per_spoken_frame
            );
        }
        Some(BetweenNodes::Unknown(reason)) => {
            let _written = writeln!(text, "what went between nodes is not known: {reason}");
        }
        Some(BetweenNodes::Measured(_)) | None => {}
    }
    if let Some(outcome) = &outcome.faults {
        text += &faults(outcome);
    }
    text
}

fn faults(outcome: &FaultsOutcome) -> String {
    let mut text = usual(&outcome.before_us);
    for fault in &outcome.faults {
        let (at_s, node) = (fault.at_s, fault.node);
        let _written = writeln!(text, "at {at_s:.1} s: {} {} (node {node})", fault.action, fault.target);
        text += &silences(&fault.silences);
    }
    text + &losses(&outcome.lost)
}

/// The longest silences before any fault.
pub(crate) fn usual(before_us: &Counts) -> String {
    let usual = milliseconds(before_us);
    format!(
        "\nthe longest silence of each listener and speaker; 20 ms between frames are none\n  before any fault, ms: {usual}\n"
    )
}

/// What a fault, or several, sounded like.
pub(crate) fn silences(silences: &Silences) -> String {
    let Silences { survivors_us, survivors_across_us, moved_us, .. } = silences;
    let Silences { heard_again_us, hear_again_us, never_heard_again, never_hear_again, .. } = silences;
    format!(
        "  silence at survivors, ms: {}\n    of those on different nodes: {}\n  silence between survivors and moved members, ms: {}\n  \
         moved speakers heard again after, ms: {}; never: {never_heard_again}\n  \
         moved members hear again after, ms: {}; never: {never_hear_again}\n",
        milliseconds(survivors_us),
        milliseconds(survivors_across_us),
        milliseconds(moved_us),
        milliseconds(heard_again_us),
        milliseconds(hear_again_us),
    )
}

/// What was lost, by where people sat.
pub(crate) fn losses(lost: &LostBySeat) -> String {
    let of = |Lost { expected, lost }: Lost| format!("{lost} of {expected}");
    format!(
        "frames lost between survivors: {}; from or to moved members: {}\n  \
         of a moved speaker's, by each survivor: {}\n  of a survivor's, by each moved member: {}\n",
        of(lost.survivors),
        of(lost.moved),
        figures(&lost.of_moved_speakers, |frames| frames.to_string()),
        figures(&lost.to_moved_listeners, |frames| frames.to_string()),
    )
}

fn milliseconds(us: &Counts) -> String {
    figures(us, |us| format!("{:.1}", us as f64 / 1_000.0))
}

fn figures(counts: &Counts, show: impl Fn(u64) -> String) -> String {
    if counts.total() == 0 {
        return "none".to_owned();
    }
    let (p50, p99, max) = (counts.quantile(0.5), counts.quantile(0.99), counts.max());
    format!("p50 {}, p99 {}, max {} (of {})", show(p50), show(p99), show(max), counts.total())
}
