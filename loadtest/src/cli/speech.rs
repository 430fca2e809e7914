//! `speech`: how a voice sounds through bad networks.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use antiphon_loadtest::speech::{Comparison, SpeechNetwork, compare_adaptation, read_speech, usual_networks};
use anyhow::{Context, Result};
use clap::{Args, value_parser};

use super::output;

/// The arguments of `speech`.
#[derive(Debug, Args)]
pub(crate) struct SpeechArguments {
    /// A WAV file of somebody who speaks, as espeak-ng writes one
    file: PathBuf,
    /// The share of frames that the network loses, instead of the usual networks [usual: 0.05 and 0.1]
    #[arg(long, value_parser = share)]
    loss: Option<f64>,
    /// How many are lost in a row on average, with --loss [usual: 1 and 3]
    #[arg(long, value_name = "FRAMES", default_value_t = 1.0, value_parser = run_length, requires = "loss")]
    burst: f64,
    /// How long it is spoken; the file is repeated
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u32).range(2..=3_600))]
    seconds: u32,
    /// Chooses what is lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=0.9).contains(share)).ok_or_else(|| "a share from 0 to 0.9".to_owned())
}

fn run_length(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|mean| (1.0..=50.0).contains(mean)).ok_or_else(|| "a number from 1 to 50".to_owned())
}

impl SpeechArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let speech = read_speech(&self.file).with_context(|| self.file.display().to_string())?;
        let networks = match self.loss {
            Some(loss) => vec![SpeechNetwork { loss, burst_mean: self.burst }],
            None => usual_networks(),
        };
        let compared = compare_adaptation(&speech, self.seconds, &networks, self.seed)?;
        let text = if self.json { serde_json::to_string_pretty(&compared)? } else { table(&compared) };
        output::result(format_args!("{text}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn table(compared: &[Comparison]) -> String {
    let mut text = String::from(
        "likeness to what was said, 0 to 1 (spectral structure; compare rows with each other, not with other tools)\n\n\
         lost    in a row   encoder   likeness   bit/s   repaired   made up\n",
    );
    for Comparison { network, fixed, adapted } in compared {
        for (name, run) in [("fixed", fixed), ("adapts", adapted)] {
            let SpeechNetwork { loss, burst_mean } = network;
            let percent = loss * 100.0;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{percent:>4.1} %  {burst_mean:>8.1}   {name:<7}  {:>9.4}  {:>6}  {:>9}  {:>8}",
                run.similarity, run.bitrate, run.repaired, run.made_up
            );
        }
    }
    text
}
