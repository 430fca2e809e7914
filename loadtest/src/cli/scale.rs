//! `scale`: what a cluster too large to have would carry.

use std::process::ExitCode;

use antiphon_loadtest::scale::{Deaths, LargeNode, Load, Replaced, Scale, ScaleConfig, Spread, scale};
use anyhow::Result;
use clap::Args;

use super::output;

/// The arguments of `scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArguments {
    /// Nodes
    #[arg(long, default_value_t = 1_000)]
    nodes: u32,
    /// Media workers of each node
    #[arg(long, default_value_t = 8)]
    workers: u16,
    /// Channels with members
    #[arg(long, default_value_t = 1_000_000)]
    channels: u32,
    /// Memberships in all channels together
    #[arg(long, default_value_t = 10_000_000)]
    sessions: u64,
    /// On how many nodes a channel's members are at most [default: wherever they happen to be]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=16))]
    spread: u32,
    /// The share of channels in which somebody speaks
    #[arg(long, default_value_t = 0.25)]
    talking: f64,
    /// How many speak at once in such a channel, on average
    #[arg(long, default_value_t = 1.2)]
    speakers: f64,
    /// Bytes of each frame
    #[arg(long, default_value_t = 80)]
    frame_bytes: usize,
    /// Microseconds that a worker's turn takes: what comes in one turn shares datagrams
    #[arg(long, value_name = "US", default_value_t = 250)]
    turn_us: u64,
    /// Members of the one large channel
    #[arg(long, default_value_t = 100_000)]
    listeners: u32,
    /// Nodes that those are on
    #[arg(long, default_value_t = 50)]
    large_nodes: u32,
    /// How many of them speak
    #[arg(long, default_value_t = 4)]
    large_speakers: u32,
    /// How many times its owner, and another of its nodes, is killed
    #[arg(long, default_value_t = 20)]
    deaths: u32,
    /// Chooses channels, members, phases and delays: the same seed gives the same figures
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl ScaleArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let json = self.json;
        let figures = scale(&self.config())?;
        let text = if json { serde_json::to_string_pretty(&figures)? } else { tables(&figures) };
        output::result(format_args!("{text}"));
        Ok(ExitCode::SUCCESS)
    }

    fn config(self) -> ScaleConfig {
        let Self { nodes, workers, channels, sessions, spread, talking, speakers, frame_bytes, turn_us, .. } = self;
        let Self { listeners, large_nodes, large_speakers, deaths, seed, .. } = self;
        ScaleConfig {
            nodes,
            workers,
            channels,
            sessions,
            spread,
            talking,
            speakers,
            frame_bytes,
            turn_us,
            listeners,
            large_nodes,
            large_speakers,
            deaths,
            seed,
        }
    }
}

/// All figures as tables in Markdown.
fn tables(scale: &Scale) -> String {
    [heading(scale), placement(scale), load(scale), bundling(scale), large(scale), deaths(scale), checks(scale)]
        .join("\n")
}

fn heading(scale: &Scale) -> String {
    let ScaleConfig { nodes, workers, channels, talking, speakers, frame_bytes, turn_us, seed, .. } = scale.config;
    let memberships = scale.placement.memberships;
    let percent = talking * 100.0;
    format!(
        "{} nodes of {workers} workers, {} channels, {} memberships; somebody speaks in {percent} % of channels, \
         {speakers} at once, {frame_bytes}-byte frames; turns of {turn_us} µs, seed {seed}\n",
        whole(nodes.into()),
        whole(channels.into()),
        whole(memberships as f64)
    )
}

fn placement(scale: &Scale) -> String {
    let placement = &scale.placement;
    let moved = |name: &str, moves: &Replaced| {
        let (share, expected) = (moves.share * 100.0, moves.expected_share * 100.0);
        format!(
            "| {name}: channels that move | {}, {share:.3} % ({expected:.3} % must); {} of them needlessly; {} at \
             most to one node |\n",
            whole(moves.moved as f64),
            moves.needless,
            whole(moves.most_for_one as f64)
        )
    };
    format!(
        "| placement (computed by the real ring) | least / mean / most |\n|---|---|\n| channels owned by a node | {}, \
         standard deviation {:.1} |\n| channels open on a node | {} |\n| members on a node | {} |\n\
         | nodes of a channel | {:.0} / {:.2} / {:.0} |\n{}{}\
         | until a worker has given its channels the owners of a new ring | {:.1} ms at least |\n",
        spread(placement.owned, whole),
        placement.owned_deviation,
        spread(placement.open, whole),
        spread(placement.members, whole),
        placement.nodes_per_channel.min,
        placement.nodes_per_channel.mean,
        placement.nodes_per_channel.max,
        moved("a node is lost", &placement.lost),
        moved("a node joins", &placement.joined),
        placement.replacing_ms
    )
}

fn load(scale: &Scale) -> String {
    let loads = [&scale.load, &scale.on_three_nodes];
    let first = match scale.config.spread {
        0 => "members anywhere".to_owned(),
        most => format!("members on ≤ {most} nodes"),
    };
    let mut text =
        format!("| load (computed), least / mean / most | {first} | members on ≤ 3 nodes |\n|---|---|---|\n");
    let mut row = |name: &str, figure: &dyn Fn(&Load) -> String| {
        text += &format!("| {name} | {} | {} |\n", figure(loads[0]), figure(loads[1]));
    };
    row("people speaking", &|load| whole(load.speakers as f64));
    row("copies between nodes for a spoken frame", &|load| format!("{:.2}", load.copies_per_frame));
    row("bytes between nodes for a spoken frame", &|load| whole(load.bytes_per_frame));
    row("a node: frames/s to others", &|load| spread(load.node.frames_out, whole));
    row("a node: datagrams/s to others", &|load| spread(load.node.datagrams_out, whole));
    row("of those heartbeats", &|load| whole(load.control.heartbeats_per_node));
    row("interests and node sets/s", &|load| whole(load.control.refreshes_per_node));
    row("bytes that are no voice", &|load| format!("{:.1} %", load.control.share_of_bytes * 100.0));
    row("a node: Mbit/s to others", &|load| spread(load.node.bits_out, megabits));
    row("a node: Mbit/s from others", &|load| spread(load.node.bits_in, megabits));
    row("links in use, each direction", &|load| whole(load.links as f64));
    row("a link: kbit/s, one direction", &|load| spread(load.link_bits_per_s, kilobits));
    row("a node: frames/s to members", &|load| spread(load.node.deliveries, whole));
    row("a node: cores for members", &|load| spread(load.node.delivery_cores, cores));
    row("a node: cores for other nodes", &|load| spread(load.node.relay_cores, cores));
    text
}

fn bundling(scale: &Scale) -> String {
    let mut text =
        "| length of a turn (computed) | records in a datagram | a node: Mbit/s to others |\n|---|---|---|\n"
            .to_owned();
    for bundling in &scale.load.bundling {
        let length = match bundling.turn_us {
            0 => "none: a datagram for each record".to_owned(),
            turn_us => format!("{turn_us} µs"),
        };
        let rate = megabits(bundling.node_bits_per_s);
        text += &format!("| {length} | {:.2} | {rate} |\n", bundling.records_per_datagram);
    }
    text
}

fn large(scale: &Scale) -> String {
    let large = &scale.large;
    let row = |name: &str, node: &LargeNode| {
        let LargeNode { frames, datagrams, bytes, bits } = *node;
        let (frames, datagrams, bytes) = (whole(frames), whole(datagrams), whole(bytes));
        format!("| {name} | {frames} | {datagrams} | {bytes} | {} |\n", megabits(bits))
    };
    let transit = large.transit;
    format!(
        "One channel of {} listeners on {} nodes, {} speaking (simulated):\n\n\
         | | frames/s to others | datagrams/s | bytes/s | Mbit/s |\n|---|---|---|---|---|\n{}{}\n\
         The busiest link carries {} kbit/s; the slowest frame took {:.2} ms; {} of {} frames were heard. \
         Each node sends its members {} frames/s, all together {}.\n",
        whole(large.listeners.into()),
        large.nodes,
        large.speakers,
        row("the owner", &large.owner),
        row("another node, on average", &large.edge),
        kilobits(large.busiest_link_bits_per_s),
        transit.slowest_ms,
        whole(transit.heard as f64),
        whole(transit.expected as f64),
        whole(large.deliveries_per_node),
        whole(large.deliveries)
    )
}

fn deaths(scale: &Scale) -> String {
    let row = |name: &str, deaths: &Deaths| {
        let Deaths { silence_p50_ms, silence_p99_ms, silence_max_ms, lost_frames_max, .. } = deaths;
        format!(
            "| {name}, {} times | {silence_p50_ms:.0} / {silence_p99_ms:.0} / {silence_max_ms:.0} | {lost_frames_max} \
             | {:.0} | {:.0} |\n",
            deaths.deaths, deaths.one_view_max_ms, deaths.settled_max_ms
        )
    };
    format!(
        "| killed (simulated, the same channel) | silence p50 / p99 / most, ms | frames lost, at most | \
         one view after, ms | no frame past an owner after, ms |\n|---|---|---|---|---|\n{}{}",
        row("the owner", &scale.large.owner_deaths),
        row("another node", &scale.large.other_deaths)
    )
}

fn checks(scale: &Scale) -> String {
    let mut text = "| the model against real relays | | frames/s | datagrams/s | bytes/s | bytes per spoken frame |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for check in &scale.checks {
        for (how, figures) in [("simulated", &check.simulated), ("computed", &check.computed)] {
            text += &format!(
                "| {}, {} channels, {} speaking | {how} | {} | {} | {} | {:.1} |\n",
                check.name,
                whole(check.channels.into()),
                whole(check.speakers.into()),
                whole(figures.frames_per_s),
                whole(figures.datagrams_per_s),
                whole(figures.bytes_per_s),
                figures.bytes_per_frame
            );
        }
    }
    text
}

fn spread(spread: Spread, figure: fn(f64) -> String) -> String {
    format!("{} / {} / {}", figure(spread.min), figure(spread.mean), figure(spread.max))
}

fn megabits(bits: f64) -> String {
    format!("{:.1}", bits / 1e6)
}

fn kilobits(bits: f64) -> String {
    format!("{:.0}", bits / 1e3)
}

fn cores(cores: f64) -> String {
    format!("{cores:.2}")
}

/// A number without its fraction, its thousands set apart.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0.4, 999.0, 1_000.4, 1_234_567.0].map(whole), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn tables_are_the_same_for_the_same_seed_and_name_every_section() {
        let config = ScaleConfig {
            nodes: 10,
            workers: 2,
            channels: 500,
            sessions: 2_000,
            listeners: 50,
            large_nodes: 5,
            large_speakers: 1,
            deaths: 1,
            ..ScaleConfig::default()
        };
        let text = tables(&scale(&config).expect("within bounds"));
        assert_eq!(text, tables(&scale(&config).expect("within bounds")));
        assert_ne!(text, tables(&scale(&ScaleConfig { seed: 2, ..config }).expect("within bounds")));
        for part in ["placement (", "load (", "length of a turn", "the owner |", "killed (", "real relays"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let columns = |line: &str| line.matches('|').count();
        for table in text.split("\n\n").flat_map(|block| block.split_inclusive("|\n\n")) {
            let mut rows = table.lines().filter(|line| line.starts_with('|')).map(columns);
            let first = rows.next();
            assert!(rows.all(|row| Some(row) == first), "{table}");
        }
    }
}
