//! The rules as files: Prometheus' own checks, and that no alert is without a test and a runbook.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of a folder of `deploy/prometheus`.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = repository().join("deploy/prometheus").join(folder);
    fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").path()).collect()
}

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output = Command::new("promtool")
        .args(arguments)
        .args(files)
        .output()
        .expect("promtool runs (scripts/setup test installs it)");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_takes_the_configuration_and_the_rules() {
    promtool(&["check", "config"], &[repository().join("deploy/prometheus/prometheus.yml")]);
    promtool(&["check", "rules"], &files("rules"));
}

#[test]
fn every_alert_fires_and_clears_as_its_test_says() {
    promtool(&["test", "rules"], &files("tests"));
    let tests = read("deploy/prometheus/tests/alerts.yml");
    let (mut fired, mut cleared, mut alert) = (BTreeSet::new(), BTreeSet::new(), "");
    for line in tests.lines().map(str::trim) {
        match line.trim_start_matches("- ").split_once(':') {
            Some(("alertname", name)) => alert = name.trim(),
            Some(("exp_alerts", "")) => _ = fired.insert(alert),
            Some(("exp_alerts", _)) => _ = cleared.insert(alert),
            _ => {}
        }
    }
    let rules = read("deploy/prometheus/rules/alerts.yml");
    let alerts: BTreeSet<&str> = alerts(&rules).collect();
    assert_eq!((&fired, &cleared), (&alerts, &alerts), "each has a test that fires it and one that clears it");
}

#[test]
fn every_alert_says_what_it_is_about_and_has_a_runbook() {
    let (rules, operations) = (read("deploy/prometheus/rules/alerts.yml"), read("docs/operations.md"));
    let runbook = operations.split_once("\n## Runbook\n").expect("a section").1;
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, alerts(&rules).collect(), "a section for each alert, and no other");
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name").trim();
        for part in [
            "severity: ".to_owned(),
            "summary: ".to_owned(),
            "description: ".to_owned(),
            format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase()),
        ] {
            assert!(rule.contains(&part), "{name} has no {part}");
        }
    }
}

fn alerts(rules: &str) -> impl Iterator<Item = &str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "))
}
