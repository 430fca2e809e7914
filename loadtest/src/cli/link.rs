//! `link`: what a frame between two nodes costs.

use std::process::ExitCode;

use antiphon_core::clock::Micros;
use antiphon_loadtest::scale::{LinkConfig, LinkCost, Sending, measure_link};
use anyhow::{Result, ensure};
use clap::Args;

use super::output;

const WAYS: [(Sending, &str); 4] = [
    (Sending::EachFrame, "no relay, a datagram for each frame"),
    (Sending::Datagrams, "relay"),
    (Sending::Segmented, "relay, UDP_SEGMENT"),
    (Sending::SegmentedAndCoalesced, "relay, UDP_SEGMENT and UDP_GRO"),
];

/// The arguments of `link`.
#[derive(Debug, Args)]
pub(crate) struct LinkArguments {
    /// Channels with members on both nodes, one of whom speaks
    #[arg(long, default_value_t = 1_000)]
    channels: u32,
    /// Bytes of each frame
    #[arg(long, default_value_t = 80)]
    frame_bytes: usize,
    /// Each frame has up to so many bytes fewer
    #[arg(long, default_value_t = 0)]
    vary: usize,
    /// Lengths of turns, in microseconds
    #[arg(long, value_name = "US", value_delimiter = ',', default_values_t = [100, 250, 1_000, 2_000, 5_000])]
    turns_us: Vec<u64>,
    /// For how many seconds is spoken
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Chooses phases and lengths
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl LinkArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Self { channels, frame_bytes, vary, seconds, seed, .. } = self;
        ensure!((1..=100_000).contains(&channels), "there are 1 to 100,000 channels");
        ensure!(vary < frame_bytes && frame_bytes <= 1_100, "a frame has 1 to 1,100 bytes");
        ensure!((1..=600).contains(&seconds), "somebody speaks for 1 to 600 seconds");
        ensure!(self.turns_us.iter().all(|turn| (50..=10_000).contains(turn)), "a turn takes 50 to 10,000 µs");
        let mut costs = Vec::new();
        for turn in self.turns_us.into_iter().map(Micros) {
            let time = Micros::from_secs(seconds);
            let config = LinkConfig { channels, frame_bytes, frame_bytes_vary: vary, turn, time, seed };
            for (sending, _) in WAYS {
                costs.push(measure_link(&config, sending)?);
            }
        }
        let text = if self.json { serde_json::to_string_pretty(&costs)? } else { table(&costs) };
        output::result(format_args!("{text}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn table(costs: &[LinkCost]) -> String {
    let mut text = "| turn, µs | way | frames in a datagram | datagrams in a send | CPU µs per frame |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for cost in costs {
        let way = WAYS.iter().find(|(sending, _)| *sending == cost.sending).map_or("", |(_, name)| name);
        text += &format!(
            "| {} | {way} | {:.2} | {:.2} | {:.3} |\n",
            cost.turn_us, cost.frames_per_datagram, cost.datagrams_per_send, cost.cpu_us_per_frame
        );
    }
    text
}
