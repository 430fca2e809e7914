//! The load tester's recorder, whose node is killed under it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{
    nodes::Nodes,
    people::{Person, make_channel},
    process::{Process, Scratch, tool},
};

/// Listens at one node, and goes to the other when that is gone; yields once it is in the channel.
fn record(out: &Path, node: &Process, other: &Process) -> Child {
    let mut record = Command::new(tool("antiphon-loadtest"))
        .args(["record", "--channel", "lobby", "--until-silence", "3", "--json"])
        .args(["--server", &node.url().to_string(), "--fallback", &other.url().to_string(), "--out"])
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the recorder starts");
    let words = BufReader::new(record.stderr.as_mut().expect("piped")).lines();
    assert!(words.map_while(Result::ok).any(|line| line.contains("listens in")), "the recorder joins");
    record
}

/// Speaks the sample of some five seconds.
fn play(node: &Process) -> Child {
    Command::new(tool("antiphon-loadtest"))
        .arg("play")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/samples/hello.ogg"))
        .args(["--channel", "lobby", "--json", "--server", &node.url().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the player starts")
}

async fn ended(child: Child) -> (Output, Value) {
    let output =
        tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends")).await.expect("no panic");
    let said = serde_json::from_slice(&output.stdout).expect("JSON");
    (output, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_on_at_another_node() {
    let mut cluster = Nodes::start(2).await;
    let channel = make_channel(&cluster.nodes[1], "lobby", 10).await;
    let scratch = Scratch::new();
    let recorder = record(&scratch.path().join("heard.ogg"), &cluster.nodes[0], &cluster.nodes[1]);
    let mut witness = Person::join(&cluster.nodes[1], "witness", channel).await;
    let player = play(&cluster.nodes[1]);
    witness.hear().await;
    cluster.nodes[0].kill();
    let (played, spoken) = ended(player).await;
    assert!(played.status.success() && spoken["resumed"] == 0, "{spoken}");
    let (recorded, heard) = ended(recorder).await;
    println!("{heard} of {spoken}");
    assert!(recorded.status.success() && heard["resumed"] == 1, "{heard}");
    let frames = |figures: &Value| figures["frames"].as_u64().expect("a number");
    // Killed at the first frames: nearly all came after it.
    assert!(frames(&heard) > frames(&spoken) / 2, "{heard} of {spoken}");
}
