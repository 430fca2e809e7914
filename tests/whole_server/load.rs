//! The load tester drives a scenario against a real server: what it loses on purpose is told from what the server loses,
//! budgets set the exit code, and two reports can be compared.

use std::process::{Command, Output};

use serde_json::Value;

use super::{
    process::{Process, Scratch, tool},
    support::nodes::http,
};

/// Everything that can happen beside talking, in two phases of two seconds.
const SCENARIO: &str = r#"
name = "everything"
talk = "p59"
transports = { udp = 0.75, tunnel = 0.25 }
[[groups]]
channels = 2
talkers = 4
listeners = 2
[[groups]]
channels = 2
listeners = 10
[[phases]]
name = "visited"
duration = "2s"
warm_up = "500ms"
scrape_every = "500ms"
churn = { per_second = 10.0, stay = "300ms" }
storm = { at = "500ms", clients = 20, per_second = 100.0 }
[[phases]]
name = "bad networks"
duration = "2s"
warm_up = "500ms"
impairment = { loss = 0.2, delay = "10ms", jitter = "5ms", duplicate = 0.05, reorder = 0.05 }
"#;

fn load(arguments: &[&str]) -> Output {
    Command::new(tool("antiphon-loadtest")).args(arguments).output().expect("the tool runs")
}

/// Two who talk, and most who hear as browsers do.
const BY_WEBRTC: &str = r#"
name = "by webrtc"
transports = { udp = 1.0, webrtc = 3.0 }
[[groups]]
channels = 2
talkers = 2
listeners = 8
[[phases]]
name = "listening"
duration = "2s"
"#;

/// A figure of a phase.
fn figure(report: &Value, phase: usize, name: &str) -> f64 {
    report["phases"][phase]["figures"][name].as_f64().unwrap_or_else(|| panic!("{name} of phase {phase}: {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_is_measured_judged_drawn_and_compared() {
    let server = Process::start(&[]).await;
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let (scenario, json, html) = (at("everything.toml"), at("report.json"), at("report.html"));
    std::fs::write(&scenario, SCENARIO).expect("written");
    let (url, pid) = (server.url().to_string(), server.id().to_string());
    let run = ["run", &scenario, "--server", &url, "--pid", &pid, "--lateness-max-ms", "60000"];
    let more = ["--json", &json, "--html", &html, "--budget", "p50_ms=0.000001", "--budget", "corrupt=0"];
    let output = load(&[&run[..], &more].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("budget missed: p50_ms in phase visited"), "{errors}");
    assert!(!errors.contains("corrupt in phase"), "what was kept is not named: {errors}");

    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    assert_eq!(report["budgets"].as_array().map(Vec::len), Some(4));
    // A fifth is lost on each of both ways; what else is lost, a busy machine may have dropped.
    assert!(figure(&report, 1, "loss_heard") > 0.1 && figure(&report, 1, "loss") < 0.05, "{report}");
    assert!(figure(&report, 0, "loss_heard") < 0.05 && figure(&report, 1, "p50_ms") > 20.0);
    assert!(figure(&report, 1, "mos") < figure(&report, 0, "mos"));
    assert!(report["phases"][0]["outcome"]["over_gateway"].as_u64() > Some(0), "some tunnel");
    assert_eq!(report["phases"][0]["outcome"]["storm"]["times"]["count"].as_u64(), Some(20));
    assert_eq!(figure(&report, 0, "join_failures") as u64, 0);
    assert!(figure(&report, 0, "scrape_p99_ms") > 0.0 && figure(&report, 0, "memory_mib") > 1.0);
    let page = std::fs::read_to_string(&html).expect("written");
    assert!(page.contains("bad networks") && page.contains("<svg") && !page.contains("src="), "{page}");

    assert!(load(&["compare", &json, &json]).status.success(), "the same is no worse");
    let worse = report.to_string().replace("\"p50_ms\":", "\"p50_ms\":1000");
    let worse_json = at("worse.json");
    std::fs::write(&worse_json, worse).expect("written");
    let output = load(&["compare", &json, &worse_json]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("p50_ms in phase visited"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_by_webrtc_get_every_frame_as_it_was_spoken() {
    let server = Process::start(&[]).await;
    let scratch = Scratch::new();
    let scenario = scratch.path().join("webrtc.toml").display().to_string();
    std::fs::write(&scenario, BY_WEBRTC).expect("written");
    let (url, pid) = (server.url().to_string(), server.id().to_string());
    let run = ["run", &scenario, "--server", &url, "--pid", &pid, "--lateness-max-ms", "60000"];
    let output = load(&[&run[..], &["--json", "-", "--budget", "corrupt=0", "--budget", "loss=0.05"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let delivered = report["phases"][0]["outcome"]["delivered"].as_u64().expect("a count");
    assert!(delivered > 3_000, "{delivered} of 3,600: two hear nine each in two channels");
    assert!(figure(&report, 0, "join_memory_kib") > 0.0);
    let metrics = http().get(server.url().http("/metrics")).send().await.expect("answered").text().await.expect("text");
    let sent = metrics
        .lines()
        .find(|line| line.contains("rtp_packets_total{") && line.contains("\"audio\"") && line.contains("\"send\""));
    let sent: f64 = sent.and_then(|line| line.split(' ').next_back()?.parse().ok()).expect("a count");
    assert!(sent > 1_000.0, "{sent} packets of voice went to browsers' like");
}
