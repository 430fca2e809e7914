//! The tool against its own relay: every frame is delivered, verified and counted.

use std::process::{Command, Output};

fn floor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antiphon-loadtest"))
        .arg("floor")
        .args(["--clients", "5", "--speakers", "2", "--channels", "2", "--duration", "1", "--warm-up", "200ms"])
        .args(arguments)
        .output()
        .expect("the tool runs")
}

#[test]
fn both_relays_deliver_every_frame_once() {
    let output = floor(&["--bundle-ms", "2", "--lateness-max-ms", "10000", "--json", "-"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for outcome in [&report["floors"][0], &report["bundled"]] {
        let count = |field: &str| outcome[field].as_u64().expect(field);
        // 4 speakers of 50 frames a second; each is heard by the four others of its channel.
        assert!((160..=240).contains(&count("sent")), "{outcome}");
        assert_eq!(count("expected"), count("sent") * 4, "{outcome}");
        assert_eq!((count("delivered"), count("lost")), (count("expected"), 0), "{outcome}");
        assert_eq!((count("duplicated"), count("corrupt"), count("unopened")), (0, 0, 0), "{outcome}");
        assert_eq!(outcome["latency"]["count"].as_u64(), Some(count("delivered")));
        assert!(outcome["cpu"]["seconds"].as_f64().expect("CPU time") > 0.0);
    }
}

#[test]
fn it_refuses_to_report_when_it_was_the_bottleneck() {
    // Nothing is ever sent at the very microsecond.
    let output = floor(&["--lateness-max-ms", "0"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("not reported") && errors.contains("--lateness-max-ms"), "{errors}");
}

#[test]
fn impossible_scenarios_say_what_would_do() {
    for (arguments, hint) in [
        (["--speakers", "6"], "cannot be among"),
        (["--frame-bytes", "9"], "would do"),
        (["--duration", "1ms"], "cannot be measured"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_antiphon-loadtest"))
            .args(["floor", "--clients", "5"])
            .args(if arguments[0] == "--speakers" { &[][..] } else { &["--speakers", "2"][..] })
            .args(arguments)
            .output()
            .expect("the tool runs");
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(hint), "{errors}");
    }
}
