//! `compare`: two reports, figure by figure.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use antiphon_loadtest::report::{Comparison, Written};
use anyhow::{Context, Result};
use clap::Args;

use super::output;

/// The arguments of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// What `--json` wrote of the run before
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// What it wrote of the run after
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// The share by which a figure may be worse
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    tolerance: f64,
    /// Compare runs of different scenarios, too, phase by phase of the same name
    #[arg(long)]
    different: bool,
}

impl CompareArguments {
    /// Exits with 1 when something has become worse.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Written::read(&text).with_context(|| file.display().to_string())
        };
        let comparison = Comparison::of(&read(&self.before)?, &read(&self.after)?, self.tolerance, self.different)?;
        output::result(format_args!("{}", table(&comparison)));
        let worse: Vec<String> = comparison
            .regressions()
            .map(|difference| format!("{} in phase {}", difference.figure, difference.phase))
            .collect();
        if worse.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        output::note(format_args!("worse by more than {} %: {}", self.tolerance * 100.0, worse.join(", ")));
        Ok(ExitCode::FAILURE)
    }
}

fn table(comparison: &Comparison) -> String {
    let mut text = format!("{:20} {:16} {:>12} {:>12} {:>8}\n", "phase", "figure", "before", "after", "ratio");
    for difference in &comparison.differences {
        let (before, after) = difference.values;
        let ratio = if before == 0.0 { "-".to_owned() } else { format!("{:.3}", after / before) };
        let mark = if difference.worse { "  worse" } else { "" };
        // Writing into a String cannot fail.
        let _written = writeln!(
            text,
            "{:20} {:16} {before:>12.4} {after:>12.4} {ratio:>8}{mark}",
            difference.phase, difference.figure
        );
    }
    text
}
