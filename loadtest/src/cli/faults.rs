//! `faults`: what the faults of several runs led to, put together.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use antiphon_loadtest::load::{Counts, FaultsOutcome, LostBySeat, Silences};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use super::{cluster, output};

/// The arguments of `faults`.
#[derive(Debug, Args)]
pub(crate) struct FaultsArguments {
    /// What `voice --json`, or `run --json`, wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Of a report only this matters here.
#[derive(Deserialize)]
struct Written {
    phases: Vec<Phase>,
}

#[derive(Deserialize)]
struct Phase {
    outcome: OfPhase,
}

#[derive(Deserialize)]
struct OfPhase {
    faults: Option<FaultsOutcome>,
}

/// All faults of one kind: done the same to the same.
#[derive(Default)]
struct Kind {
    count: usize,
    silences: Silences,
}

#[derive(Default)]
struct Together {
    usual_us: Counts,
    kinds: BTreeMap<(String, String), Kind>,
    lost: LostBySeat,
}

impl FaultsArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut together = Together::default();
        for file in &self.files {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let written: Written = serde_json::from_str(&text)
                .with_context(|| format!("{} is no report of a run with faults", file.display()))?;
            let faults: Vec<FaultsOutcome> =
                written.phases.into_iter().filter_map(|phase| phase.outcome.faults).collect();
            if faults.is_empty() {
                bail!("{} is no report of a run with faults", file.display());
            }
            faults.into_iter().for_each(|faults| together.add(faults));
        }
        output::result(format_args!("{}", together.table()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Together {
    fn add(&mut self, outcome: FaultsOutcome) {
        self.usual_us.merge(&outcome.before_us);
        self.lost.merge(&outcome.lost);
        for fault in outcome.faults {
            let kind = self.kinds.entry((fault.action, fault.target)).or_default();
            kind.count += 1;
            kind.silences.merge(&fault.silences);
        }
    }

    fn table(&self) -> String {
        let mut text = cluster::usual(&self.usual_us);
        for ((action, target), Kind { count, silences }) in &self.kinds {
            text += &format!("{count} × {action} {target}\n{}", cluster::silences(silences));
        }
        text + &cluster::losses(&self.lost)
    }
}
