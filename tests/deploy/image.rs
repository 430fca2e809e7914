//! `deploy/docker/Dockerfile`: small, not root's, and its health check asks what the server understands.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{path, read, settings_of};

/// Instructions with their arguments, continued lines put together.
fn instructions() -> Vec<(String, String)> {
    let file = read("deploy/docker/Dockerfile").replace("\\\n", " ");
    let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("arguments"))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// The arguments of an instruction's last use: of the image itself, not of what builds it.
fn last(name: &str) -> String {
    instructions().into_iter().rfind(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} is there")).1
}

#[test]
fn the_image_runs_the_server_as_nobody_special() {
    assert_eq!(last("FROM"), "debian:bookworm-slim");
    let user = last("USER");
    let (user, group) = user.split_once(':').expect("numbers, as orchestrators check them");
    assert!(user.parse::<u32>().expect("a number") > 0 && group.parse::<u32>().expect("a number") > 0);
    assert_eq!(last("ENTRYPOINT"), "[\"antiphon\"]");
    assert_eq!(last("STOPSIGNAL"), "SIGTERM");
    let environment: BTreeMap<String, String> = last("ENV")
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("name and value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let settings = settings_of("Dockerfile", &environment);
    assert!(settings.server.host.is_unspecified());
    assert_eq!(settings.data_dir.to_str(), Some(last("VOLUME").as_str()));
    let (server, relay) = (&settings.server, settings.cluster.relay_port);
    let ports =
        format!("{}/tcp {}/tcp {}/udp {relay}/udp", server.port, server.websocket_port, settings.audio.udp_port);
    assert_eq!(last("EXPOSE"), ports);
}

#[test]
fn the_health_check_is_a_command_of_the_server() {
    let check = last("HEALTHCHECK");
    let (options, command) = check.split_once("CMD ").expect("a command");
    for option in ["--interval=", "--timeout=", "--start-period="] {
        assert!(options.contains(option), "{option}");
    }
    let command: Vec<String> = serde_json::from_str(command).expect("a list: there may be no shell");
    assert_eq!(command[0], "antiphon");
    // On a port where nobody answers it says so, and does not ask what it was meant to be.
    let output = Command::new(env!("CARGO_BIN_EXE_antiphon"))
        .args(&command[1..])
        .env_clear()
        .env("ANTIPHON_SERVER__PORT", "1")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_build_has_what_it_needs() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    let first = instructions().remove(0);
    assert_eq!(first, ("FROM".to_owned(), format!("rust:{rust}-bookworm AS build")));
    let ignored = read(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in ["Cargo.toml", "Cargo.lock", "src", "core", "loadtest", "migrations"] {
        assert!(!ignored.iter().any(|line| line.trim_start_matches("**/") == needed), "{needed} is sent");
    }
    assert!(ignored.contains(&"**/.env"), "secrets are not");
    // Files outside of src that are built in.
    let mut folders = vec![path("src")];
    let mut built_in = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = fs::read_to_string(&entry).unwrap_or_default();
            for file in text.split("include_str!(\"../../").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(!ignored.iter().any(|line| Path::new(file).starts_with(line)), "{file} is sent");
                built_in += 1;
            }
        }
    }
    assert!(built_in > 0, "there are such files");
}
