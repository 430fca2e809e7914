//! The rules of `deploy/prometheus/rules`, which Prometheus evaluates over all nodes and each node over itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{query::Query, template::Template};

/// The files, as they are deployed with Prometheus.
const FILES: [&str; 2] = [
    include_str!("../../deploy/prometheus/rules/recording.yml"),
    include_str!("../../deploy/prometheus/rules/alerts.yml"),
];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody else's fault.
    Info,
    /// To be looked at today.
    Warning,
    /// Something does not work.
    Error,
    /// People are affected, or will be soon.
    Critical,
}

impl Severity {
    /// All, the least first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// As the rules write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// The one that is written so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }
}

/// What part of the server a rule is about, by its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Voice: groups `antiphon-media` and `antiphon-voice`.
    Audio,
    /// What nodes share and send each other: group `antiphon-cluster`.
    Network,
    /// The process: group `antiphon-process`.
    Performance,
    /// HTTP, the gateway and the database: group `antiphon-signalling`.
    Signalling,
    /// Nodes as a whole: group `antiphon-nodes`.
    Nodes,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Audio, Self::Network, Self::Performance, Self::Signalling, Self::Nodes];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Network => "network",
            Self::Performance => "performance",
            Self::Signalling => "signalling",
            Self::Nodes => "nodes",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|component| component.as_str() == text)
    }

    fn of_group(group: &str) -> Option<Self> {
        Some(match group {
            "antiphon-media" | "antiphon-voice" => Self::Audio,
            "antiphon-cluster" => Self::Network,
            "antiphon-process" => Self::Performance,
            "antiphon-signalling" | "antiphon-notifications" => Self::Signalling,
            "antiphon-nodes" => Self::Nodes,
            _ => return None,
        })
    }
}

/// What is computed at each evaluation and looked at by other rules.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) query: Query,
}

/// When somebody is to be told.
#[derive(Clone, Debug)]
pub(super) struct AlertRule {
    pub(super) name: String,
    pub(super) component: Component,
    pub(super) severity: Severity,
    pub(super) query: Query,
    /// How long the expression must hold.
    pub(super) for_ms: i64,
    pub(super) summary: Template,
    pub(super) description: Template,
    pub(super) runbook_url: String,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) recordings: Vec<Recording>,
    pub(super) alerts: Vec<AlertRule>,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the alert rules: {0}")]
pub struct RulesError(String);

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default, rename = "for")]
    lasts: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Rules {
    /// The rules that this release is deployed with.
    pub(super) fn built_in() -> Result<Self, RulesError> {
        let mut rules = Self::default();
        for text in FILES {
            rules.read(text)?;
        }
        Ok(rules)
    }

    /// Adds a file's rules.
    fn read(&mut self, text: &str) -> Result<(), RulesError> {
        let file: File = serde_yaml_ng::from_str(text).map_err(|error| RulesError(error.to_string()))?;
        for group in file.groups {
            for entry in group.rules {
                let name = entry.record.clone().or_else(|| entry.alert.clone()).unwrap_or_default();
                self.add(&group.name, entry).map_err(|why| RulesError(format!("{name}: {why}")))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, group: &str, entry: Entry) -> Result<(), String> {
        let query = Query::parse(&entry.expr).map_err(|error| error.to_string())?;
        if let Some(name) = entry.record {
            self.recordings.push(Recording { name, query });
            return Ok(());
        }
        let text = |name: &str| entry.annotations.get(name).map(String::as_str).unwrap_or_default();
        let template = |name| Template::parse(text(name)).ok_or_else(|| format!("its {name} is no template of ours"));
        let severity = entry.labels.get("severity").and_then(|severity| Severity::parse(severity));
        self.alerts.push(AlertRule {
            component: Component::of_group(group).ok_or_else(|| format!("the group {group} is of no component"))?,
            severity: severity.ok_or("it has no severity that is known")?,
            query,
            for_ms: entry.lasts.as_deref().map_or(Ok(0), duration_ms)?,
            summary: template("summary")?,
            description: template("description")?,
            runbook_url: text("runbook_url").to_owned(),
            name: entry.alert.ok_or("it neither records nor alerts")?,
        });
        Ok(())
    }
}

/// A time as Prometheus writes it, of one unit.
fn duration_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    count.parse::<i64>().map(|count| count * unit_ms).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_understood() {
        let rules = Rules::built_in().expect("all of them");
        assert!(rules.alerts.len() >= 28 && rules.recordings.len() >= 9);
        let redis = rules.alerts.iter().find(|rule| rule.name == "AntiphonRedisUnavailable").expect("there");
        assert_eq!((redis.severity, redis.component, redis.for_ms), (Severity::Critical, Component::Network, 15_000));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let rule = |rule: &str| {
            let text = format!("groups: [{{name: antiphon-nodes, rules: [{rule}]}}]");
            Rules::default().read(&text).expect_err("refused").to_string()
        };
        assert!(rule("{alert: A, expr: 'absent(x)', labels: {severity: info}}").contains("A: "));
        assert!(rule("{alert: A, expr: x}").contains("severity"));
        assert!(rule("{alert: A, expr: x, for: soon, labels: {severity: info}}").contains("soon"));
        assert!(rule("{alert: A, expr: x, keep_firing_for: 1m, labels: {severity: info}}").contains("keep_firing_for"));
        assert!(
            rule("{alert: A, expr: x, labels: {severity: info}, annotations: {summary: '{{ printf }}'}}")
                .contains("summary")
        );
    }

    #[test]
    fn severities_are_in_order() {
        assert!(Severity::ALL.is_sorted());
        assert_eq!(Severity::parse("error"), Some(Severity::Error));
    }
}
