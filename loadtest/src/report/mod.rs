//! What a run came to, put together: to be written as JSON, drawn as a page, compared with another.

mod budget;
mod compare;
mod environment;
mod page;
mod plot;

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;

pub use budget::{Budget, BudgetOutcome};
pub use compare::{CompareError, Comparison, Difference, Written};
pub use environment::Environment;

use crate::{
    load::{Figure, Outcome},
    scenario::Scenario,
};

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// Every figure that has a name and was measured.
    pub figures: BTreeMap<Figure, f64>,
    /// All of it.
    pub outcome: Outcome,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// When it was put together, in seconds since 1970.
    pub time_unix_s: u64,
    /// Where it was measured.
    pub environment: Environment,
    /// What was run.
    pub scenario: Scenario,
    /// What its phases came to; none where only a relay was measured.
    pub phases: Vec<PhaseReport>,
    /// The relay under the same clients, before and after.
    pub floors: Vec<Outcome>,
    /// A relay that bundles.
    pub bundled: Option<Outcome>,
    /// The nodes' CPU time for each delivery over the relay's.
    pub cost_ratio: Option<f64>,
    /// How far the relay's before and after are apart.
    pub floor_spread: Option<f64>,
    /// What each phase was held to.
    pub budgets: Vec<BudgetOutcome>,
}

impl Report {
    /// Of a scenario and what its phases came to, in order.
    #[must_use]
    pub fn new(scenario: Scenario, outcomes: Vec<Outcome>) -> Self {
        let phases: Vec<PhaseReport> = scenario
            .phases
            .iter()
            .zip(outcomes)
            .map(|(phase, outcome)| PhaseReport {
                name: phase.name.clone(),
                figures: Figure::measured(&outcome),
                outcome,
            })
            .collect();
        let budgets = BudgetOutcome::of(&scenario, &phases);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time_unix_s: since_1970.as_secs(),
            environment: Environment::here(),
            scenario,
            phases,
            floors: Vec::new(),
            bundled: None,
            cost_ratio: None,
            floor_spread: None,
            budgets,
        }
    }

    /// With relays that were measured before and after.
    #[must_use]
    pub fn with_relays(mut self, floors: Vec<Outcome>, bundled: Option<Outcome>) -> Self {
        (self.floors, self.bundled) = (floors, bundled);
        self.cost_ratio = self.phases.first().and_then(|phase| self.ratio(&phase.outcome));
        self.floor_spread = match self.floors.as_slice() {
            [before, after] => before
                .cpu_us_per_delivery
                .zip(after.cpu_us_per_delivery)
                .map(|(before, after)| (before - after).abs() / before.min(after)),
            _ => None,
        };
        self
    }

    /// An outcome's CPU time for each delivery over the relay's mean, where both are known.
    #[must_use]
    pub fn ratio(&self, outcome: &Outcome) -> Option<f64> {
        let costs: Vec<f64> = self.floors.iter().filter_map(|floor| floor.cpu_us_per_delivery).collect();
        let floor = (!costs.is_empty()).then(|| costs.iter().sum::<f64>() / costs.len() as f64)?;
        Some(outcome.cpu_us_per_delivery? / floor)
    }

    /// Everything measured, in the order it was.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let phases = self.phases.iter().map(|phase| &phase.outcome);
        self.floors.iter().take(1).chain(phases).chain(self.floors.iter().skip(1)).chain(&self.bundled)
    }

    /// The budgets that were missed.
    pub fn missed(&self) -> impl Iterator<Item = &BudgetOutcome> {
        self.budgets.iter().filter(|budget| !budget.met)
    }
}
