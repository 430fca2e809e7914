//! The tests that `promtool` runs on the rules (`deploy/prometheus/tests`), run on our own evaluation as well: each alert
//! must fire and clear here when it does there, with the same labels and words.

use std::time::Duration;

use serde::Deserialize;

use super::*;

const TESTS: [&str; 2] = [
    include_str!("../../deploy/prometheus/tests/alerts.yml"),
    include_str!("../../deploy/prometheus/tests/recording.yml"),
];

#[derive(Deserialize)]
struct File {
    evaluation_interval: String,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    name: String,
    interval: String,
    input_series: Vec<Input>,
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Deserialize)]
struct Input {
    series: String,
    values: String,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    eval_time: String,
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    exp_labels: Labels,
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ExprTest {
    expr: String,
    eval_time: String,
    exp_samples: Vec<ExpectedSample>,
}

#[derive(Deserialize)]
struct ExpectedSample {
    labels: String,
    value: f64,
}

fn ms(text: &str) -> i64 {
    rules_duration(text)
}

fn rules_duration(text: &str) -> i64 {
    let unit = text.chars().last().expect("a unit");
    let count: i64 = text.trim_end_matches(unit).parse().expect("a count");
    count
        * match unit {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            other => panic!("{other}"),
        }
}

/// `promtool`'s short form: `1 2x3 0+10x5 _`.
fn values(text: &str) -> Vec<Option<f64>> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        let (first, times) =
            word.split_once('x').map_or((word, 0), |(first, times)| (first, times.parse().expect("a count")));
        if first == "_" {
            values.extend(vec![None; times.max(1)]);
            continue;
        }
        let (start, step) = match first.split_once('+') {
            Some((start, step)) => (start.parse::<f64>().expect("a number"), step.parse::<f64>().expect("a number")),
            None => (first.parse().expect("a number"), 0.0),
        };
        values.extend((0..=times).map(|index: usize| Some(start + step * index as f64)));
    }
    values
}

/// A series as it is written: its name and labels.
fn series(text: &str) -> (String, Labels) {
    let line = format!("{} 0", text.replace(", ", ","));
    let sample = samples_in(&line, |_| true).next().expect("a series");
    (sample.name().to_owned(), sample.labels().expect("well formed"))
}

/// Plays a test's input from its beginning, evaluating as often as Prometheus would, and calls `at` after each evaluation.
fn play(test: &Test, every_ms: i64, mut at: impl FnMut(i64, &Alerts)) {
    let alerts = Alerts::with(Rules::built_in().expect("rules"), NodeId("n1".to_owned()));
    let step_ms = ms(&test.interval);
    let inputs: Vec<_> = test.input_series.iter().map(|input| (series(&input.series), values(&input.values))).collect();
    let alert_ends = test.alert_rule_test.iter().map(|alert| ms(&alert.eval_time));
    let end_ms = alert_ends.chain(test.promql_expr_test.iter().map(|expr| ms(&expr.eval_time))).max().expect("a test");
    // Recorded series are given as they are; nothing is to be recorded over them.
    let mut rules = alerts.rules.clone();
    rules.recordings.retain(|rule| inputs.iter().all(|((name, _), _)| *name != rule.name));
    // What no alert looks at is recorded for people; here it is looked at.
    rules.recordings.iter().for_each(|rule| alerts.state.lock().samples.keep(&rule.name, 0));
    let mut at_ms = 0;
    while at_ms <= end_ms {
        {
            let state = &mut *alerts.state.lock();
            if at_ms % step_ms == 0 {
                let index = usize::try_from(at_ms / step_ms).expect("small");
                for ((name, labels), values) in &inputs {
                    if let Some(Some(value)) = values.get(index) {
                        state.push(name, labels.clone(), at_ms, *value);
                    }
                }
            }
            state.evaluate(&rules, at_ms);
        }
        at(at_ms, &alerts);
        at_ms += every_ms;
    }
}

#[test]
fn every_alert_fires_and_clears_as_with_prometheus() {
    let mut checked = 0;
    for text in TESTS {
        let file: File = serde_yaml_ng::from_str(text).expect("a test file");
        for test in &file.tests {
            play(test, ms(&file.evaluation_interval), |at_ms, alerts| {
                for wanted in test.alert_rule_test.iter().filter(|wanted| ms(&wanted.eval_time) == at_ms) {
                    check_alerts(&test.name, wanted, alerts);
                    checked += 1;
                }
                for wanted in test.promql_expr_test.iter().filter(|wanted| ms(&wanted.eval_time) == at_ms) {
                    check_expression(&test.name, wanted, alerts, at_ms);
                    checked += 1;
                }
            });
        }
    }
    assert!(checked >= 2 * 28 + 9, "{checked}");
}

fn check_alerts(test: &str, wanted: &AlertTest, alerts: &Alerts) {
    let firing: Vec<_> = alerts.firing().into_iter().filter(|alert| alert.name == wanted.alertname).collect();
    assert_eq!(firing.len(), wanted.exp_alerts.len(), "{test} at {}: {firing:?}", wanted.eval_time);
    for (alert, wanted) in firing.iter().zip(&wanted.exp_alerts) {
        let mut labels = alert.labels.clone();
        labels.insert("severity".to_owned(), alert.severity.as_str().to_owned());
        assert_eq!(labels, wanted.exp_labels, "{test}");
        let words =
            [("summary", &alert.summary), ("description", &alert.description), ("runbook_url", &alert.runbook_url)];
        let words = words.map(|(name, text)| (name.to_owned(), text.clone()));
        assert_eq!(BTreeMap::from(words), wanted.exp_annotations, "{test}");
    }
}

fn check_expression(test: &str, wanted: &ExprTest, alerts: &Alerts, at_ms: i64) {
    let state = alerts.state.lock();
    let query = query::Query::parse(&wanted.expr).expect("supported");
    let found: BTreeMap<Labels, f64> = evaluate(&query, &state.samples, at_ms).into_vector().into_iter().collect();
    let named = wanted.exp_samples.iter().map(|sample| (series(&sample.labels).1, sample.value));
    let expected: BTreeMap<Labels, f64> = named.collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{test}: {}", wanted.expr);
    for (labels, value) in &expected {
        let is = found[labels];
        assert!((is - value).abs() <= value.abs() * 1e-9, "{test}: {}: {is} instead of {value}", wanted.expr);
    }
}

fn other(name: &str, is_up: bool, nodes_live: u32) -> OtherNode {
    OtherNode { node: NodeId(name.to_owned()), is_up, nodes_live: Some(nodes_live) }
}

/// What a node says of itself and of a second one, every five seconds for so long.
fn observe(alerts: &Alerts, from_s: u64, to_s: u64, others: &[OtherNode]) {
    let text = "antiphon_cluster_nodes{state=\"live\"} 2\nantiphon_store_up 1\n";
    for second in (from_s..to_s).step_by(5) {
        alerts.observe(UNIX_EPOCH + Duration::from_secs(second), text, others);
    }
}

#[test]
fn a_node_that_is_gone_is_told_of_until_it_is_back_or_forgotten() {
    let alerts = Alerts::new(NodeId("one".to_owned())).expect("rules");
    let names = |alerts: &Alerts| alerts.firing().into_iter().map(|alert| alert.name).collect::<Vec<_>>();
    observe(&alerts, 0, 60, &[other("two", true, 2)]);
    assert!(names(&alerts).is_empty());
    observe(&alerts, 60, 130, &[other("two", false, 2)]);
    assert_eq!(names(&alerts), ["AntiphonNodeDown"]);
    let firing = alerts.firing();
    assert_eq!((firing[0].summary.as_str(), firing[0].severity), ("two does not answer", Severity::Critical));
    assert_eq!(firing[0].since, UNIX_EPOCH + Duration::from_secs(60));
    observe(&alerts, 130, 140, &[]);
    assert!(names(&alerts).is_empty(), "forgotten");
}

#[test]
fn nodes_that_disagree_are_found_from_either() {
    let alerts = Alerts::new(NodeId("one".to_owned())).expect("rules");
    observe(&alerts, 0, 70, &[other("two", true, 3)]);
    let firing = alerts.firing();
    assert_eq!((firing.len(), firing[0].name.as_str(), firing[0].value), (1, "AntiphonNodesDisagree", 1.0));
    // The other one finds it, too, and it is the same alert.
    let all = alerts.all(alerts.shared().iter());
    assert_eq!(all, firing);
    let mut shared = alerts.shared();
    shared[0].labels = vec![("instance".to_owned(), "two".to_owned())];
    assert_eq!(alerts.all(shared.iter()).len(), 2);
    shared[0].name = "OfAReleaseToCome".to_owned();
    assert_eq!(alerts.all(shared.iter()).len(), 1);
}
