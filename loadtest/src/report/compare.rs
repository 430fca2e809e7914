//! Two runs of the same scenario, figure by figure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::load::Figure;

/// What of a written report is compared.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Written {
    /// What was run, but for its seed and budgets: those may differ.
    scenario: serde_json::Value,
    phases: Vec<WrittenPhase>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct WrittenPhase {
    name: String,
    /// A figure that only the other program knows is no reason to fail.
    figures: BTreeMap<String, f64>,
}

/// Why two reports are not compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// Not a report.
    #[error("this is no report: {0}")]
    Report(String),
    /// They are of different runs.
    #[error("the scenarios differ in {0}; what differs says nothing then (--different compares them nevertheless)")]
    Different(String),
}

/// One figure of one phase in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The phase.
    pub phase: String,
    /// The figure.
    pub figure: Figure,
    /// In the first run, and in the second.
    pub values: (f64, f64),
    /// Whether it has become worse by more than is tolerated.
    pub worse: bool,
}

/// All of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// In the order of phases and figures.
    pub differences: Vec<Difference>,
}

impl Written {
    /// Reads a report.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self, CompareError> {
        serde_json::from_str(text).map_err(|error| CompareError::Report(error.to_string()))
    }

    /// Names of what differs in the scenarios.
    fn differs_in(&self, other: &Self) -> Vec<String> {
        let keys = |written: &Self| -> BTreeMap<String, serde_json::Value> {
            let fields = written.scenario.as_object().cloned().unwrap_or_default().into_iter();
            fields.filter(|(name, _)| !matches!(name.as_str(), "seed" | "budgets" | "description")).collect()
        };
        let (left, right) = (keys(self), keys(other));
        let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        names.into_iter().filter(|name| left.get(*name) != right.get(*name)).cloned().collect()
    }
}

impl Comparison {
    /// Compares `after` with `before`; a figure is worse when it is so by more than that share. With `different` the
    /// scenarios need not be the same, and phases are matched by name.
    ///
    /// # Errors
    /// When the runs are of different scenarios.
    pub fn of(before: &Written, after: &Written, tolerance: f64, different: bool) -> Result<Self, CompareError> {
        let differs = before.differs_in(after);
        if !different && !differs.is_empty() {
            return Err(CompareError::Different(differs.join(", ")));
        }
        let mut differences = Vec::new();
        for phase in &before.phases {
            let Some(other) = after.phases.iter().find(|other| other.name == phase.name) else { continue };
            for figure in Figure::all() {
                let of = |phase: &WrittenPhase| phase.figures.get(figure.name()).copied();
                let Some(values) = of(phase).zip(of(other)) else { continue };
                let worse = figure.worse(values.0, values.1, tolerance);
                differences.push(Difference { phase: phase.name.clone(), figure, values, worse });
            }
        }
        Ok(Self { differences })
    }

    /// Those that have become worse.
    pub fn regressions(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|difference| difference.worse)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(seed: u64, channels: u64, p99_ms: f64, mos: f64) -> Written {
        let figures = json!({ "p99_ms": p99_ms, "mos": mos, "of_another_program": 1 });
        let text = json!({
            "scenario": { "name": "calm", "seed": seed, "groups": [{ "channels": channels }] },
            "phases": [{ "name": "calm", "figures": figures }],
        });
        Written::read(&text.to_string()).expect("a report")
    }

    #[test]
    fn what_became_worse_by_more_than_is_tolerated_is_a_regression() {
        let before = written(1, 2, 5.0, 4.3);
        let compare = |after: &Written| Comparison::of(&before, after, 0.1, false).expect("the same scenario");
        assert_eq!(compare(&written(2, 2, 5.4, 4.3)).regressions().count(), 0);
        let worse = compare(&written(1, 2, 7.0, 3.0));
        let names: Vec<&str> = worse.regressions().map(|difference| difference.figure.name()).collect();
        assert_eq!(names, ["p99_ms", "mos"]);
        assert_eq!(worse.differences.len(), 2, "only figures that are known are compared");
    }

    #[test]
    fn different_scenarios_are_not_compared_unless_it_is_asked_for() {
        let (before, after) = (written(1, 2, 5.0, 4.3), written(1, 3, 5.0, 4.3));
        let error = Comparison::of(&before, &after, 0.1, false).expect_err("other groups").to_string();
        assert!(error.contains("groups"), "{error}");
        assert!(Comparison::of(&before, &after, 0.1, true).is_ok());
        assert!(matches!(Written::read("{}"), Err(CompareError::Report(_))));
    }
}
