//! `run`, `churn`, `storm`, `mixed`, `webrtc`, `chat`, `stream` and `soak`: carry out a scenario.

use std::{process::ExitCode, time::Duration};

use antiphon_loadtest::{
    load::measure_scenario,
    parse_duration,
    report::Report,
    scenario::{Assignment, PRESETS, Preset, Scenario},
};
use anyhow::{Context, Result, anyhow};
use clap::Args;

use super::{
    measuring::{MeasuringArguments, run_async},
    output,
    progress::Progress,
    target::TargetArguments,
};

/// The arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// A scenario's TOML file, or the name of one that comes with the program: churn, storm, mixed, webrtc, chat, stream, soak
    #[arg(value_name = "FILE|NAME")]
    scenario: String,
    #[command(flatten)]
    options: RunOptions,
}

/// What all of them take.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    measuring: MeasuringArguments,
    /// Put another value into the scenario, named by where it stands: `groups.0.talkers=5`, `phases.1.churn.stay=5s`
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<Assignment>,
    /// Let every phase be measured for so long
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Choose otherwise who speaks when and what gets lost
    #[arg(long)]
    seed: Option<u64>,
    /// Print the scenario with all that was changed, and run nothing
    #[arg(long)]
    print_scenario: bool,
}

impl RunArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let text = match Preset::named(&self.scenario) {
            Some(preset) => preset.text.to_owned(),
            None => std::fs::read_to_string(&self.scenario).with_context(|| {
                let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                format!("{} is neither a file nor one of {}", self.scenario, names.join(", "))
            })?,
        };
        self.options.run(&text).with_context(|| self.scenario.clone())
    }
}

impl RunOptions {
    pub(crate) fn run_preset(self, name: &str) -> Result<ExitCode> {
        let preset = Preset::named(name).with_context(|| name.to_owned())?;
        self.run(preset.text)
    }

    fn run(self, text: &str) -> Result<ExitCode> {
        let scenario = self.scenario(text)?;
        if self.print_scenario {
            output::result(format_args!("{scenario}"));
            return Ok(ExitCode::SUCCESS);
        }
        self.measuring.pin()?;
        run_async(carry_out(scenario, self.target, self.measuring))
    }

    fn scenario(&self, text: &str) -> Result<Scenario> {
        let mut table: toml::Table = text.parse()?;
        for assignment in &self.set {
            assignment.apply(&mut table).map_err(|reason| anyhow!(reason))?;
        }
        let mut scenario = Scenario::of_table(table)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        if let Some(duration) = self.duration {
            scenario.phases.iter_mut().for_each(|phase| phase.duration = duration);
        }
        self.measuring.add_budgets(&mut scenario);
        scenario.check()?;
        Ok(scenario)
    }
}

async fn carry_out(scenario: Scenario, target: TargetArguments, measuring: MeasuringArguments) -> Result<ExitCode> {
    let progress = Progress::new(scenario.phases.iter().map(|phase| phase.name.clone()).collect());
    let config = target.config(measuring.sweep_ms)?;
    let outcomes = measure_scenario(&scenario, &config, &|phase, stage| progress.show(phase, stage)).await?;
    drop(progress);
    measuring.conclude(&Report::new(scenario, outcomes))
}
