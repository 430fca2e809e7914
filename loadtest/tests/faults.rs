//! Scripts of faults that cannot be carried out, and reports of several runs put together.

use std::process::{Command, Output};

use serde_json::{Value, json};

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antiphon-loadtest")).args(arguments).output().expect("the tool runs")
}

/// Nobody listens there: a script is looked at before anyone connects.
const NODES: &str = "http://127.0.0.1:9,http://127.0.0.2:9";

#[test]
fn a_script_that_cannot_be_carried_out_says_why_before_anyone_connects() {
    for (arguments, hint) in [
        (vec!["--fault", "1s kill 1"], "--pid"),
        (vec!["--pid", "1"], "one for each"),
        (vec!["--pid", "1,2", "--fault", "1s kill 3"], "there are 2 servers"),
        (vec!["--pid", "1,2", "--fault", "9.5s kill 1"], "to see what follows"),
        (vec!["--pid", "1,2", "--fault", "3s drain 2", "--fault", "2.5s kill 1"], "to see what follows"),
        (vec!["--pid", "1,2", "--channels", "2", "--fault", "1s kill owner"], "by its place"),
        (vec!["--fault", "1s shoot 1"], "drain"),
        (vec!["--fault", "1s api-drain 1"], "--admin"),
        (vec!["--pid", "1,2", "--fault", "1s kill 1", "--talk", "p59"], "talk continuously"),
    ] {
        let arguments: Vec<&str> = [&["voice", "--server", NODES, "--duration", "10"], &arguments[..]].concat();
        let output = tool(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(hint), "{arguments:?}: {errors}");
    }
}

fn counts(values: &[[u64; 2]]) -> Value {
    json!({ "count": 0, "p50": 0, "p99": 0, "max": 0, "values": values })
}

/// A report as `voice --json` writes it, as far as it is read here.
fn report(survivors: &[[u64; 2]], lost: u64) -> Value {
    let none = counts(&[]);
    let fault = json!({
        "action": "kill", "target": "owner", "node": 2, "at_s": 2.0,
        "survivors_us": counts(survivors), "survivors_across_us": counts(survivors), "moved_us": none,
        "heard_again_us": counts(&[[250_000, 1]]), "hear_again_us": none,
        "never_heard_again": 0, "never_hear_again": 1,
    });
    let moved = json!({ "expected": 0, "lost": 0 });
    let lost = json!({
        "survivors": { "expected": 100, "lost": lost }, "moved": moved,
        "of_moved_speakers": none, "to_moved_listeners": none,
    });
    let faults = json!({ "before_us": counts(&[[20_000, 4]]), "faults": [fault], "lost": lost });
    json!({ "phases": [{ "outcome": { "faults": null } }, { "outcome": { "faults": faults } }] })
}

#[test]
fn what_several_runs_wrote_is_put_together() {
    let folder = std::env::temp_dir().join(format!("antiphon-loadtest-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("a new folder");
    let files: Vec<String> = [report(&[[20_000, 98]], 3), report(&[[140_000, 2]], 4)]
        .iter()
        .zip(1..)
        .map(|(report, number)| {
            let file = folder.join(format!("{number}.json"));
            std::fs::write(&file, report.to_string()).expect("written");
            file.display().to_string()
        })
        .collect();
    let output = tool(&["faults", &files[0], &files[1]]);
    std::fs::remove_dir_all(&folder).expect("removed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for line in [
        "2 × kill owner",
        "silence at survivors, ms: p50 20.0, p99 140.0, max 140.0 (of 100)",
        "heard again after, ms: p50 250.0, p99 250.0, max 250.0 (of 2); never: 0",
        "hear again after, ms: none; never: 2",
        "lost between survivors: 7 of 200",
    ] {
        assert!(text.contains(line), "{line} is not in: {text}");
    }
}

#[test]
fn a_report_without_faults_is_said_to_be_none() {
    let file = std::env::temp_dir().join(format!("antiphon-loadtest-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&file, r#"{"phases":[{"outcome":{"faults":null}}]}"#).expect("written");
    let output = tool(&["faults", &file.display().to_string()]);
    std::fs::remove_file(&file).expect("removed");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no report of a run with faults"), "{output:?}");
}
