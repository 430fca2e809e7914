//! The load tester does something to nodes while people talk, and tells what that sounded like.

use std::process::Command;

use antiphon_loadtest::rest::Rest;
use serde_json::Value;

use crate::support::{
    nodes::Nodes,
    process::{Scratch, tool},
};

const SCENARIO: &str = r#"
name = "two faults"
[[groups]]
channels = 1
talkers = 6
listeners = 6
[[phases]]
name = "drained"
duration = "3s"
warm_up = "1s"
faults = ["1s api-drain 1", "2s api-undrain 1"]
[[phases]]
name = "killed"
duration = "3s"
warm_up = "1s"
faults = ["1s kill 2"]
budgets = { silence_p99_ms = 2500 }
"#;

/// What the load tester reports of a scenario with faults, on three nodes of its own.
async fn report_of(scenario: &str, options: &[&str]) -> Value {
    let cluster = Nodes::start(3).await;
    let (admin, password) = ("admin", "a long enough password");
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    // The first account of an empty database administers it.
    rest.register(admin, password).await.expect("registered");
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let (file, json) = (at("scenario.toml"), at("report.json"));
    std::fs::write(&file, scenario).expect("written");
    let output = Command::new(tool("antiphon-loadtest"))
        .args(["run", &file, "--json", &json, "--admin", admin, "--admin-password", password])
        .args(["--server", &urls_of(&cluster), "--pid", &pids_of(&cluster), "--lateness-max-ms", "60000"])
        .args(options)
        .output()
        .expect("the tool runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON")
}

fn urls_of(cluster: &Nodes) -> String {
    cluster.nodes.iter().map(|node| node.url().to_string()).collect::<Vec<_>>().join(",")
}

fn pids_of(cluster: &Nodes) -> String {
    cluster.nodes.iter().map(|node| node.id().to_string()).collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_by_the_api_and_a_kill_are_scripted_and_their_gaps_measured() {
    let report = report_of(SCENARIO, &[]).await;
    let fault = |phase: usize| &report["phases"][phase]["outcome"]["faults"]["faults"][0];
    assert_eq!((&fault(0)["action"], &fault(1)["action"]), (&"api-drain".into(), &"kill".into()));
    for phase in [0, 1] {
        let survivors = fault(phase)["survivors_us"]["count"].as_u64();
        let moved = fault(phase)["moved_us"]["count"].as_u64();
        assert!(survivors > Some(0) && moved > Some(0), "{}", fault(phase));
    }
    let gap = report["phases"][1]["figures"]["silence_p99_ms"].as_f64();
    assert!(gap > Some(10.0), "frames are 20 ms apart: {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_over_three_nodes_reads_everything_once_and_in_order() {
    let cluster = Nodes::start(3).await;
    let output = Command::new(tool("antiphon-loadtest"))
        .args(["chat", "--server", &urls_of(&cluster), "--pid", &pids_of(&cluster), "--json", "-"])
        .args(["--lateness-max-ms", "60000"])
        .args(["--set", "phases.0.chat.members=30", "--set", "phases.0.chat.writers=6"])
        .args(["--set", "phases.0.chat.per_second=30", "--duration", "3s", "--budget", "chat_p99_ms=60000"])
        .output()
        .expect("the tool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let chat = &report["phases"][0]["outcome"]["chat"];
    let count = |name: &str| chat[name].as_u64();
    assert_eq!((count("sent"), count("acknowledged"), count("lost")), (Some(90), Some(90), Some(0)), "{chat}");
    assert_eq!(count("delivered"), Some(90 * 29), "{chat}");
}

const ROOM: &str = r#"
name = "a room under faults"
[[phases]]
name = "drained"
duration = "5s"
warm_up = "1s"
chat = { members = 30, writers = 6, per_second = 30 }
faults = ["1s api-drain 1", "4s api-undrain 1"]
[[phases]]
name = "killed"
duration = "6s"
warm_up = "1s"
chat = { members = 30, writers = 6, per_second = 30 }
faults = ["2s kill 2"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_room_under_a_drain_and_a_kill_resumes_and_misses_and_doubles_nothing() {
    let report = report_of(ROOM, &["--fail-on-loss"]).await;
    for (phase, due) in [(0, 150), (1, 180)] {
        let chat = &report["phases"][phase]["outcome"]["chat"];
        let count = |name: &str| chat[name].as_u64();
        assert_eq!((count("sent"), count("acknowledged")), (Some(due), Some(due)), "{chat}");
        assert_eq!((count("delivered"), count("lost")), (Some(due * 29), Some(0)), "{chat}");
        assert_eq!((count("doubled"), count("out_of_order"), count("corrupt")), (Some(0), Some(0), Some(0)), "{chat}");
        assert_eq!((count("returned"), count("sessions_ended")), (Some(10), Some(0)), "a third of them: {chat}");
    }
}
