//! The load tester drives a scenario against a real server: what it loses on purpose is told from what the server loses,
//! budgets set the exit code, and two reports can be compared.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use antiphon_loadtest::{ServerUrl, rest::Rest};
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

/// The scenario `chat`, made small; what it took is not asked.
const SMALL_CHAT: [&str; 12] = [
    "chat",
    "--set",
    "phases.0.chat.members=20",
    "--set",
    "phases.0.warm_up=500ms",
    "--duration",
    "2s",
    "--budget",
    "chat_p99_ms=60000",
    "--lateness-max-ms",
    "60000",
    "--json",
];

#[tokio::test(flavor = "multi_thread")]
async fn everyone_in_a_room_reads_everything_once_and_in_order() {
    let server = Process::start(&[]).await;
    let (url, pid) = (server.url().to_string(), server.id().to_string());
    for (encoding, code) in [("json", 0), ("msgpack", 1)] {
        let writers = ["-", "--set", "phases.0.chat.writers=4", "--set", "phases.0.chat.per_second=40"];
        let target = ["--server", &url, "--pid", &pid, "--encoding", encoding];
        // One budget that nothing keeps, in the second run.
        let budget = ["--budget", "chat_ack_p50_ms=0.000001"];
        let output = load(&[&SMALL_CHAT[..], &writers, &target, &budget[..2 * code]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), i32::try_from(code).ok(), "{encoding}: {errors}");
        assert_eq!(errors.contains("budget missed: chat_ack_p50_ms in phase writing"), code == 1, "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let count = |name: &str| report["phases"][0]["outcome"]["chat"][name].as_u64();
        assert_eq!((count("sent"), count("acknowledged")), (Some(80), Some(80)), "{report}");
        assert_eq!((count("expected"), count("delivered")), (Some(80 * 19), Some(80 * 19)), "{report}");
        assert!(figure(&report, 0, "chat_cpu_us") > 0.0 && figure(&report, 0, "chat_p50_ms") > 0.0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_refuses_of_chat_is_told_by_its_code() {
    let server = Process::start(&[("ANTIPHON_LIMITS__GATEWAY_MESSAGES_PER_MINUTE", "60")]).await;
    let url = server.url().to_string();
    // A dozen more than the limit: some twenty refused in a row would end the session.
    let writers = ["-", "--set", "phases.0.chat.writers=1", "--set", "phases.0.chat.per_second=30"];
    let output = load(&[&SMALL_CHAT[..], &writers, &["--server", &url]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("budget missed: chat_failures") && !errors.contains("chat_lost"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let chat = &report["phases"][0]["outcome"]["chat"];
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let refused = count(&chat["refused"]["RATE_LIMITED"]);
    assert!(refused > 3 && count(&chat["acknowledged"]) + refused == 60, "{chat}");
    assert_eq!(count(&chat["delivered"]), 19 * count(&chat["acknowledged"]), "{chat}");
}

/// Voice by itself, beside files at full rate, and beside files as fast as they play.
const FILES: &str = r#"
name = "files"
budgets = { corrupt = 0 }
[[groups]]
channels = 1
talkers = 1
listeners = 2
[[phases]]
name = "voice alone"
duration = "1s"
warm_up = "200ms"
[[phases]]
name = "full rate"
duration = "1s"
warm_up = "200ms"
stream = { listeners = 3, range_bytes = 65536 }
budgets = { stream_failures = 0, stream_corrupt = 0 }
[[phases]]
name = "playing"
duration = "2s"
warm_up = "200ms"
stream = { listeners = 2, range_bytes = 16384, pace = "playing" }
budgets = { stream_failures = 0, stream_corrupt = 0 }
"#;

/// Two seconds of noise at 48 kHz, one channel: 192,000 bytes.
fn put_noise(folder: &Path) {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(192_000)
    .collect();
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + 192_000_u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    for field in [1_u16, 1] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    for field in [48_000_u32, 96_000] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    for field in [2_u16, 16] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(b"data");
    file.extend_from_slice(&192_000_u32.to_le_bytes());
    file.extend(noise);
    std::fs::create_dir_all(folder).expect("made");
    std::fs::write(folder.join("noise.wav"), file).expect("written");
}

/// A server with one audio file, which it lists, and its folder.
async fn server_with_noise(scratch: &Scratch, requests_per_minute: &str) -> Process {
    let folder = scratch.path().join("audio");
    put_noise(&folder);
    let server = Process::start(&[
        ("AUDIO_DIR", &folder.display().to_string()),
        ("ANTIPHON_LIMITS__STREAM_REQUESTS_PER_MINUTE_PER_ADDRESS", requests_per_minute),
    ])
    .await;
    until_listed(server.url()).await;
    server
}

async fn until_listed(server: ServerUrl) {
    let rest = Rest::new(server).expect("a client");
    let token = rest.guest("looker").await.expect("a guest").access_token;
    let listed = async {
        while rest.streams(&token, 1).await.expect("listed").is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), listed).await.expect("it lists the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_listened_to_beside_voice_and_every_byte_is_compared() {
    let scratch = Scratch::new();
    let server = server_with_noise(&scratch, "0").await;
    let scenario = scratch.path().join("files.toml").display().to_string();
    std::fs::write(&scenario, FILES).expect("written");
    let (url, pid) = (server.url().to_string(), server.id().to_string());
    let run = ["run", &scenario, "--server", &url, "--pid", &pid, "--lateness-max-ms", "60000", "--json", "-"];
    let output = load(&run);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!((0..3).all(|phase| figure(&report, phase, "p99_ms") > 0.0), "voice is measured in each: {report}");
    assert!(report["phases"][0]["outcome"]["streams"].is_null(), "{report}");
    for phase in [1, 2] {
        let streams = &report["phases"][phase]["outcome"]["streams"];
        assert!(streams["requests"].as_u64() > Some(5) && streams["bytes"].as_u64() > Some(65_536), "{streams}");
        assert!(figure(&report, phase, "stream_first_byte_p99_ms") > 0.0, "{streams}");
        assert!(figure(&report, phase, "stream_cpu_s_per_gib") > 0.0, "{streams}");
    }
    // Two listeners who play two seconds fetch no more than that much of the file, and the range under way.
    let played = report["phases"][2]["outcome"]["streams"]["bytes"].as_u64();
    assert!(played <= Some(2 * (192_000 + 2 * 16_384)), "{played:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_refuses_of_files_is_told_by_its_code() {
    let scratch = Scratch::new();
    let server = server_with_noise(&scratch, "30").await;
    let url = server.url().to_string();
    let small =
        ["--set", "groups=[]", "--set", "phases=[{ name = \"files\", duration = 2, stream = { listeners = 2 } }]"];
    let small = [&small[..], &["--set", "budgets={ stream_failures = 0 }", "--server", &url]].concat();
    let output = load(&[&["stream"][..], &small, &["--json", "-"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("budget missed: stream_failures in phase files"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failures = &report["phases"][0]["outcome"]["streams"]["failures"];
    assert!(failures["RATE_LIMITED"].as_u64() > Some(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_files_is_told_from_one_that_fails() {
    let server = Process::start(&[]).await;
    let url = server.url().to_string();
    let phases = "phases=[{ name = \"files\", duration = 1, stream = { listeners = 2 } }]";
    let output = load(&["stream", "--set", "groups=[]", "--set", phases, "--server", &url]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("no audio files"), "{errors}");
}
