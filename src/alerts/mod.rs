//! Alerts, as each node evaluates them: the rules that Prometheus has (`deploy/prometheus/rules`), over this node's own
//! metrics of the last minutes and what the register says of the others. Nodes tell each other of their firing alerts, so
//! that any of them lists all.
//!
//! ```text
//!  metrics in text ─┐                            ┌─ pending ── for long enough ──► firing ──► the others, the API
//!  other nodes ─────┴─► samples ─► evaluate ─────┘
//! ```

mod evaluate;
mod query;
mod rules;
mod samples;
mod template;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_core::ids::NodeId;
use parking_lot::Mutex;

pub use self::rules::{Component, RulesError, Severity};
use self::{
    evaluate::evaluate,
    rules::{AlertRule, Rules},
    samples::{Labels, Samples, samples_in},
};
use crate::{
    cluster::{ALERTS_SHARED_MAX, SharedAlert},
    telemetry::metrics::metrics,
};

/// The job's name, which is part of the rules.
const JOB: &str = "antiphon";

/// Alerts of one rule that are followed at most.
const ACTIVE_MAX: usize = 256;

/// An alert that fires, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct FiringAlert {
    /// The rule's name.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub component: Component,
    /// What tells it from others of the rule, `instance` among it: the node's name.
    pub labels: BTreeMap<String, String>,
    /// The value of the rule's expression.
    pub value: f64,
    /// In a sentence.
    pub summary: String,
    /// What it means.
    pub description: String,
    /// Where to read what to do.
    pub runbook_url: String,
    /// Since when the expression holds.
    pub since: SystemTime,
}

/// What is known of another node.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherNode {
    /// Its name.
    pub node: NodeId,
    /// False when it is gone without having said so.
    pub is_up: bool,
    /// The live nodes that it sees, if it says so.
    pub nodes_live: Option<u32>,
}

/// This node's alerts.
#[derive(Debug)]
pub struct Alerts {
    rules: Rules,
    instance: NodeId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    samples: Samples,
    /// Of each rule, by what tells alerts apart.
    active: Vec<BTreeMap<Labels, Active>>,
}

/// An alert whose expression holds.
#[derive(Clone, Copy, Debug)]
struct Active {
    since_ms: i64,
    value: f64,
    fires: bool,
}

impl Alerts {
    /// Alerts of the node of that name.
    ///
    /// # Errors
    /// When a rule is none that can be evaluated here, which a test rules out.
    pub fn new(instance: NodeId) -> Result<Self, RulesError> {
        Ok(Self::with(Rules::built_in()?, instance))
    }

    fn with(rules: Rules, instance: NodeId) -> Self {
        let mut state = State { active: vec![BTreeMap::new(); rules.alerts.len()], ..State::default() };
        let recorded = rules.recordings.iter().map(|rule| &rule.query);
        for query in recorded.chain(rules.alerts.iter().map(|rule| &rule.query)) {
            query.each_selector(&mut |selector, range_ms| state.samples.keep(&selector.name, range_ms));
        }
        Self { rules, instance, state: Mutex::new(state) }
    }

    /// Takes in this node's metrics as of now, in Prometheus' text format, and what is known of the others; then
    /// evaluates every rule. To be called every few seconds.
    pub fn observe(&self, now: SystemTime, text: &str, others: &[OtherNode]) {
        let at_ms = unix_ms(now);
        let state = &mut *self.state.lock();
        state.take_own(&self.instance, text, at_ms);
        state.take_others(&self.instance, others, at_ms);
        state.evaluate(&self.rules, at_ms);
        let firing = state.active.iter().flat_map(BTreeMap::values).filter(|active| active.fires).count();
        metrics().alerts.firing.set(firing as f64);
        metrics().alerts.evaluations.increment(1);
    }

    /// This node's firing alerts, the most severe first.
    #[must_use]
    pub fn firing(&self) -> Vec<FiringAlert> {
        let state = self.state.lock();
        let mut firing: Vec<FiringAlert> = Vec::new();
        for (rule, active) in self.rules.alerts.iter().zip(&state.active) {
            let fires = active.iter().filter(|(_, active)| active.fires);
            firing.extend(fires.map(|(labels, active)| rule.in_words(labels.clone(), active.value, active.since_ms)));
        }
        sort(&mut firing);
        firing
    }

    /// The same for the other nodes.
    #[must_use]
    pub fn shared(&self) -> Vec<SharedAlert> {
        let shared = |alert: FiringAlert| SharedAlert {
            name: alert.name,
            labels: alert.labels.into_iter().collect(),
            value: alert.value,
            since_ms: u64::try_from(unix_ms(alert.since)).unwrap_or(0),
        };
        self.firing().into_iter().take(ALERTS_SHARED_MAX).map(shared).collect()
    }

    /// This node's alerts and those that others tell of, each once, the most severe first. Of a rule that this release
    /// does not have nothing can be said.
    #[must_use]
    pub fn all<'a>(&self, others: impl Iterator<Item = &'a SharedAlert>) -> Vec<FiringAlert> {
        let mut all = self.firing();
        for alert in others {
            let Some(rule) = self.rules.alerts.iter().find(|rule| rule.name == alert.name) else { continue };
            let labels: Labels = alert.labels.iter().cloned().collect();
            if all.iter().any(|known| known.name == alert.name && known.labels == labels) {
                continue;
            }
            all.push(rule.in_words(labels, alert.value, i64::try_from(alert.since_ms).unwrap_or(0)));
        }
        sort(&mut all);
        all
    }
}

fn sort(alerts: &mut [FiringAlert]) {
    alerts.sort_by(|one, other| {
        let key = |alert: &FiringAlert| (std::cmp::Reverse(alert.severity), alert.since);
        key(one).cmp(&key(other)).then_with(|| (&one.name, &one.labels).cmp(&(&other.name, &other.labels)))
    });
}

impl AlertRule {
    fn in_words(&self, labels: Labels, value: f64, since_ms: i64) -> FiringAlert {
        FiringAlert {
            name: self.name.clone(),
            severity: self.severity,
            component: self.component,
            summary: self.summary.render(&labels, value),
            description: self.description.render(&labels, value),
            runbook_url: self.runbook_url.clone(),
            since: UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(since_ms).unwrap_or(0)),
            labels,
            value,
        }
    }
}

impl State {
    /// Keeps what the rules need of this node's own metrics.
    fn take_own(&mut self, instance: &NodeId, text: &str, at_ms: i64) {
        let target = target(instance);
        let wanted: Vec<_> = samples_in(text, |name| self.samples.wants(name)).collect();
        for sample in wanted {
            if !self.samples.push_written(&sample, &target, at_ms) {
                metrics().alerts.samples_dropped.increment(1);
            }
        }
        self.push("up", target.into(), at_ms, 1.0);
    }

    /// And what the rules that look at all nodes need of the others. Those that are not named are no more.
    fn take_others(&mut self, instance: &NodeId, others: &[OtherNode], at_ms: i64) {
        for node in others {
            self.push("up", target(&node.node).into(), at_ms, f64::from(u8::from(node.is_up)));
            if let Some(nodes_live) = node.nodes_live.filter(|_| node.is_up) {
                let mut labels = Labels::from(target(&node.node));
                labels.insert("state".to_owned(), "live".to_owned());
                self.push("antiphon_cluster_nodes", labels, at_ms, nodes_live.into());
            }
        }
        let is_named = |labels: &Labels, needs_up: bool| {
            labels.get("instance").is_some_and(|name| {
                let is_it = |node: &OtherNode| node.node.0 == *name && (node.is_up || !needs_up);
                instance.0 == *name || others.iter().any(is_it)
            })
        };
        self.samples.retain("up", |labels| is_named(labels, false));
        self.samples.retain("antiphon_cluster_nodes", |labels| is_named(labels, true));
    }

    fn push(&mut self, name: &str, labels: Labels, at_ms: i64, value: f64) {
        if !self.samples.push(name, labels, at_ms, value) {
            metrics().alerts.samples_dropped.increment(1);
        }
    }

    fn evaluate(&mut self, rules: &Rules, at_ms: i64) {
        for rule in &rules.recordings {
            let found = evaluate(&rule.query, &self.samples, at_ms).into_vector();
            self.samples.retain(&rule.name, |labels| found.iter().any(|(of, _)| of == labels));
            for (labels, value) in found {
                self.push(&rule.name, labels, at_ms, value);
            }
        }
        for (rule, active) in rules.alerts.iter().zip(&mut self.active) {
            let found = evaluate(&rule.query, &self.samples, at_ms).into_vector();
            follow(active, found, at_ms, rule.for_ms);
        }
    }
}

/// Takes in what a rule's expression yields now: what it no longer yields has cleared.
fn follow(active: &mut BTreeMap<Labels, Active>, found: Vec<(Labels, f64)>, at_ms: i64, for_ms: i64) {
    active.retain(|labels, _| found.iter().any(|(of, _)| of == labels));
    for (labels, value) in found.into_iter().take(ACTIVE_MAX) {
        let alert = active.entry(labels).or_insert(Active { since_ms: at_ms, value, fires: false });
        alert.value = value;
        alert.fires |= at_ms - alert.since_ms >= for_ms;
    }
}

/// The labels that Prometheus gives what it scrapes from a node.
fn target(instance: &NodeId) -> [(String, String); 2] {
    [("job".to_owned(), JOB.to_owned()), ("instance".to_owned(), instance.0.clone())]
}

fn unix_ms(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
