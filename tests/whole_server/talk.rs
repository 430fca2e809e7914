//! The readme's way to talk: a spoken file played by one client is recorded by another, bit for bit.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use antiphon_loadtest::{audio::OggOpusReader, rest::Rest};

use super::process::{Process, Scratch, tool};

/// Makes an Ogg Opus file of a spoken sentence.
fn speak(dir: &Path) -> PathBuf {
    let (wav, ogg) = (dir.join("spoken.wav"), dir.join("spoken.ogg"));
    let sentence = "The quick brown fox jumps over the lazy dog, and then it says so in a channel.";
    run(Command::new("espeak-ng").arg("-w").arg(&wav).arg(sentence));
    run(Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-i"])
        .arg(&wav)
        .args(["-c:a", "libopus", "-b:a", "32k", "-application", "voip", "-frame_duration", "20", "-ac", "1"])
        .arg(&ogg));
    ogg
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn packets(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = OggOpusReader::new(File::open(path).expect("a file")).expect("Ogg Opus");
    std::iter::from_fn(|| reader.next_packet().expect("intact")).collect()
}

/// What an independent decoder hears.
fn decode(path: &Path) -> Vec<f64> {
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-i"])
        .arg(path)
        .args(["-f", "s16le", "-ar", "48000", "-ac", "1", "-"])
        .output()
        .expect("ffmpeg runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]]))).collect()
}

/// Pearson's coefficient over the common length.
fn correlation(left: &[f64], right: &[f64]) -> f64 {
    let length = left.len().min(right.len());
    let (left, right) = (&left[..length], &right[..length]);
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    let (left_mean, right_mean) = (mean(left), mean(right));
    let mut sums = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left - left_mean, right - right_mean);
        sums = (sums.0 + left * right, sums.1 + left * left, sums.2 + right * right);
    }
    sums.0 / (sums.1 * sums.2).sqrt()
}

async fn a_spoken_file_arrives(server: &Process) {
    let scratch = Scratch::new();
    let spoken = speak(scratch.path());
    let heard = scratch.path().join("heard.ogg");
    let server_url = server.url().to_string();
    let mut record = Command::new(tool("antiphon-loadtest"))
        .args(["record", "--server", &server_url, "--channel", "lobby", "--until-silence", "2", "--out"])
        .arg(&heard)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the recorder starts");
    let mut words = BufReader::new(record.stderr.take().expect("piped")).lines();
    let ready = words.by_ref().any(|line| line.expect("text").contains("listens in"));
    assert!(ready, "the recorder joins");
    run(Command::new(tool("antiphon-loadtest"))
        .args(["play", "--server", &server_url, "--channel", "lobby"])
        .arg(&spoken));
    assert!(record.wait().expect("the recorder ends").success());

    let (sent, received) = (packets(&spoken), packets(&heard));
    assert!(sent.len() > 100, "a sentence: {}", sent.len());
    assert_eq!(received.len(), sent.len(), "the same number of frames");
    assert!(received == sent, "every Opus packet is the same, bit for bit");
    let likeness = correlation(&decode(&spoken), &decode(&heard));
    assert!(likeness > 0.99, "correlation {likeness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_leads_into_a_private_channel() {
    let server = Process::start(&[]).await;
    let url = server.url().to_string();
    let rest = Rest::new(server.url().clone()).expect("a client");
    let owner = rest.register("owner", "correct horse battery").await.expect("an account").access_token;
    let private = serde_json::json!({ "name": "attic", "is_private": true });
    let posted = async |path: &str, body: &serde_json::Value| {
        let request = reqwest::Client::new().post(format!("{}{path}", url.trim_end_matches('/')));
        let answer = request.bearer_auth(&owner).json(body).send().await.expect("answered");
        answer.json::<serde_json::Value>().await.expect("JSON")["data"].clone()
    };
    let channel = posted("/api/channels", &private).await;
    let path = format!("/api/channels/{}/invites", channel["id"].as_str().expect("an id"));
    let invite = posted(&path, &serde_json::json!({ "max_uses": 1 })).await;
    let scratch = Scratch::new();
    let record = |invite: &str| {
        let mut command = Command::new(tool("antiphon-loadtest"));
        command.args(["record", "--server", &url, "--invite", invite, "--duration", "0.1", "--out"]);
        let output = command.arg(scratch.path().join("heard.ogg")).output().expect("runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let code = invite["code"].as_str().expect("a code");
    for (code, said) in [(code, "listens in attic"), ("../channels", "is no invite"), (code, "there is no such invite")]
    {
        let words = record(code);
        assert!(words.contains(said), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoken_file_arrives_bit_exact_with_nothing_configured() {
    a_spoken_file_arrives(&Process::start(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoken_file_arrives_bit_exact_with_postgresql() {
    let database = super::support::postgres::fresh_database().await;
    a_spoken_file_arrives(&Process::start(&[("DATABASE_URL", &database.url)]).await).await;
}
