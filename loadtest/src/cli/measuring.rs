//! How it is measured, and what becomes of it: the same for all commands that measure.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use antiphon_loadtest::{
    load::{pin_process, yield_to_swarm},
    report::{Budget, Report},
    scenario::Scenario,
};
use anyhow::{Context, Result};
use clap::Args;

use super::{output, report};

/// The exit code when a budget was missed.
const EXIT_BUDGET: u8 = 1;

/// The exit code when something was lost, altered or delivered twice, where that was asked for.
const EXIT_LOSS: u8 = 2;

/// The exit code when the load client was the bottleneck.
const EXIT_BOTTLENECK: u8 = 3;

/// How it is measured, and where the report goes.
#[derive(Debug, Args)]
pub(crate) struct MeasuringArguments {
    /// Milliseconds between two sweeps over the sockets [default: 3, more for thousands of clients]
    #[arg(long, value_name = "MS")]
    pub(crate) sweep_ms: Option<f64>,
    /// Refuse to report when one frame in a hundred was sent later than this
    #[arg(long, value_name = "MS", default_value_t = 5.0)]
    lateness_max_ms: f64,
    /// Bind the load client to this CPU; the server belongs on the others
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,
    /// Bind the relay to these CPUs [default: all but the load client's]
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    floor_pin: Vec<usize>,
    /// Exit with 1, and say so, when a figure of a phase is not within this: `p99_ms=5`. An unknown name lists all
    #[arg(long, value_name = "FIGURE=LIMIT")]
    budget: Vec<Budget>,
    /// Write everything as JSON into this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Draw everything on a page of HTML that needs no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 2 when anything was lost, altered or delivered twice
    #[arg(long)]
    fail_on_loss: bool,
}

impl MeasuringArguments {
    /// Adds the budgets of the command line to those of the scenario.
    pub(crate) fn add_budgets(&self, scenario: &mut Scenario) {
        for Budget { figure, limit } in &self.budget {
            scenario.budgets.insert(*figure, *limit);
            scenario.phases.iter_mut().for_each(|phase| phase.budgets.retain(|own, _| own != figure));
        }
    }

    /// Binds this process to its CPU and says which ones the relay gets.
    pub(crate) fn pin(&self) -> Result<Vec<usize>> {
        let all = std::thread::available_parallelism()?.get();
        let Some(own) = self.pin else { return Ok(self.floor_pin.clone()) };
        pin_process(&[own]).with_context(|| format!("CPU {own}"))?;
        let others: Vec<usize> = (0..all).filter(|cpu| *cpu != own).collect();
        let relay_cpus = if self.floor_pin.is_empty() { others } else { self.floor_pin.clone() };
        // On a machine with one CPU the relay has to share it.
        Ok(if relay_cpus.is_empty() { vec![own] } else { relay_cpus })
    }

    /// Prints the report, unless it would say more of the load client than of what it measured.
    pub(crate) fn conclude(&self, report: &Report) -> Result<ExitCode> {
        let lateness_max = milliseconds(self.lateness_max_ms);
        let reason = report.outcomes().find_map(|outcome| {
            outcome.bottleneck(lateness_max).map(|reason| format!("against {}: {reason}", outcome.subject))
        });
        if let Some(reason) = reason {
            output::note(format_args!("not reported, since the load client was the bottleneck: {reason}"));
            return Ok(ExitCode::from(EXIT_BOTTLENECK));
        }
        if self.json.as_deref() != Some("-") {
            output::result(format_args!("{}", report::table(report)));
        }
        let json = || serde_json::to_string_pretty(report);
        match self.json.as_deref() {
            Some("-") => output::result(format_args!("{}", json()?)),
            Some(file) => std::fs::write(file, json()? + "\n").with_context(|| file.to_owned())?,
            None => {}
        }
        if let Some(file) = &self.html {
            std::fs::write(file, report.html()).with_context(|| file.display().to_string())?;
        }
        Ok(self.verdict(report))
    }

    fn verdict(&self, report: &Report) -> ExitCode {
        let missed: Vec<String> = report.missed().map(ToString::to_string).collect();
        if !missed.is_empty() {
            missed.iter().for_each(|missed| output::note(format_args!("budget missed: {missed}")));
            return ExitCode::from(EXIT_BUDGET);
        }
        let flawed = report.phases.iter().any(|phase| phase.outcome.flaws() > 0);
        if self.fail_on_loss && flawed { ExitCode::from(EXIT_LOSS) } else { ExitCode::SUCCESS }
    }
}

pub(crate) fn run_async(future: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(yield_to_swarm)
        .enable_all()
        .build()?;
    runtime.block_on(future)
}

pub(crate) fn milliseconds(count: f64) -> Duration {
    Duration::try_from_secs_f64(count / 1_000.0).unwrap_or_default()
}
