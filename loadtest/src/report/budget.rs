//! Budgets: what a figure may be at most, or must be at least, and whether it was.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::PhaseReport;
use crate::{
    load::{Better, Figure},
    scenario::Scenario,
};

/// A budget as it is typed: `p99_ms=5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Of which figure.
    pub figure: Figure,
    /// The most, or the least where more is better.
    pub limit: f64,
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("`{text}` is no budget; something like p99_ms=5 would do");
        let (name, limit) = text.split_once('=').ok_or_else(no)?;
        let figure = name.trim().parse().map_err(|error: crate::load::UnknownFigure| error.to_string())?;
        let limit: f64 = limit.trim().parse().map_err(|_| no())?;
        if limit.is_finite() { Ok(Self { figure, limit }) } else { Err(no()) }
    }
}

/// What came of a budget in one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BudgetOutcome {
    /// The phase.
    pub phase: String,
    /// Of which figure.
    pub figure: Figure,
    /// The most, or the least where more is better.
    pub limit: f64,
    /// What it was; `None` when it was not measured, and then the budget is missed.
    pub value: Option<f64>,
    /// Whether it was kept.
    pub met: bool,
}

impl BudgetOutcome {
    /// Of every budget in every phase.
    pub(super) fn of(scenario: &Scenario, phases: &[PhaseReport]) -> Vec<Self> {
        let of_phase = |(phase, report): (_, &PhaseReport)| {
            let budgets = scenario.budgets_of(phase).into_iter();
            let (name, figures) = (report.name.clone(), report.figures.clone());
            budgets.map(move |(figure, limit)| {
                let value = figures.get(&figure).copied();
                let met = value.is_some_and(|value| figure.keeps(value, limit));
                Self { phase: name.clone(), figure, limit, value, met }
            })
        };
        scenario.phases.iter().zip(phases).flat_map(of_phase).collect()
    }
}

impl fmt::Display for BudgetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, figure, limit, value, .. } = self;
        let bound = match figure.better() {
            Better::Lower => "at most",
            Better::Higher => "at least",
        };
        match value {
            Some(value) => write!(f, "{figure} in phase {phase}: {value:.4}, {bound} {limit} wanted"),
            None => write!(f, "{figure} in phase {phase}: not measured, {bound} {limit} wanted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_figure_and_a_number() {
        let budget: Budget = "p99_ms = 5.5".parse().expect("a budget");
        assert_eq!((budget.figure.name(), budget.limit), ("p99_ms", 5.5));
        for (text, hint) in
            [("p99_ms", "would do"), ("p99_ms=fast", "would do"), ("p99=5", "p99_ms"), ("mos=nan", "would do")]
        {
            assert!(text.parse::<Budget>().expect_err(text).contains(hint), "{text}");
        }
    }

    #[test]
    fn what_was_missed_or_not_measured_says_so() {
        let outcome = |name: &str, limit, value| BudgetOutcome {
            phase: "calm".to_owned(),
            figure: name.parse().expect("a figure"),
            limit,
            value,
            met: false,
        };
        assert_eq!(outcome("p99_ms", 5.0, Some(7.25)).to_string(), "p99_ms in phase calm: 7.2500, at most 5 wanted");
        assert_eq!(outcome("mos", 4.0, None).to_string(), "mos in phase calm: not measured, at least 4 wanted");
    }
}
