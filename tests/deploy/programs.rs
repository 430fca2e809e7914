//! Files that other programs read: systemd, the kernel, HAProxy.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use antiphon::settings::Settings;

use crate::{path, read, settings_of, support::process::Scratch};

const UNIT: &str = "deploy/systemd/antiphon.service";

fn run(program: &str, arguments: &[&str], file: &Path) -> Output {
    let output = Command::new(program).args(arguments).arg(file).output();
    output.unwrap_or_else(|_| panic!("{program} runs (scripts/setup test installs it)"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The values of a key of the unit.
fn values(key: &str) -> Vec<String> {
    let prefix = format!("{key}=");
    read(UNIT).lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let scratch = Scratch::new();
    let unit = scratch.path().join("antiphon.service");
    // It looks whether the program is there.
    fs::write(&unit, read(UNIT).replace("/usr/local/bin/antiphon", env!("CARGO_BIN_EXE_antiphon")))
        .expect("our folder");
    let verified = run("systemd-analyze", &["verify", "--man=no"], &unit);
    assert!(verified.status.success() && said(&verified).trim().is_empty(), "{}", said(&verified));
    // Of 100: an ordinary service has 96.
    let exposed = run("systemd-analyze", &["security", "--no-pager", "--offline=true", "--threshold=20"], &unit);
    assert!(exposed.status.success(), "{}", said(&exposed));
}

#[test]
fn the_unit_gives_the_node_what_it_needs() {
    let environment: BTreeMap<String, String> = values("Environment")
        .iter()
        .map(|pair| pair.split_once('=').expect("name and value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let settings = settings_of(UNIT, &environment);
    let number = |key: &str| values(key)[0].parse::<u32>().expect("a number");
    assert!(number("TimeoutStopSec") > settings.server.drain_deadline_s);
    assert!(number("LimitNOFILE") >= settings.limits.gateway_connections + 1_024, "as `antiphon doctor` wants it");
    let state = format!("/var/lib/{}", values("StateDirectory")[0]);
    assert_eq!(settings.data_dir.to_str(), Some(state.as_str()));
    let (users, folders) =
        (read("deploy/systemd/antiphon.sysusers.conf"), read("deploy/systemd/antiphon.tmpfiles.conf"));
    assert!(users.contains(&format!("\nu {} ", values("User")[0])));
    assert!(folders.contains(&format!("\nd /etc/antiphon 0750 root {} -", values("Group")[0])));
    // The programs that the unit starts are commands that there are.
    for line in values("ExecStartPre").iter().chain(&values("ExecStart")) {
        let arguments: Vec<&str> = line
            .split(' ')
            .skip(1)
            .map(|word| word.replace("/etc/antiphon/settings.toml", "/dev/null"))
            .map(|word| &*word.leak())
            .collect();
        let checked =
            if arguments.contains(&"config") { arguments } else { [arguments, vec!["config", "--check"]].concat() };
        let output = Command::new(env!("CARGO_BIN_EXE_antiphon")).args(checked).env_clear().output().expect("it runs");
        assert!(output.status.success(), "{line}: {}", said(&output));
    }
}

#[test]
fn the_kernels_limits_are_as_large_as_sockets_want_them() {
    let file = read("deploy/sysctl/90-antiphon.conf");
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let set: BTreeMap<&str, u64> = lines
        .map(|line| line.split_once(" = ").expect("name = value"))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect();
    let wanted = Settings::default().media.receive_buffer_bytes;
    for name in ["net.core.rmem_max", "net.core.wmem_max"] {
        assert!(set[name] >= wanted.into(), "{name}");
        assert!(read("docs/operations.md").contains("deploy/sysctl/90-antiphon.conf"));
    }
    for name in set.keys() {
        let place = Path::new("/proc/sys").join(name.replace('.', "/"));
        // Some are not shown to a container.
        assert!(place.exists() || !Path::new("/proc/sys/net/core/netdev_max_backlog").exists(), "{name} is a limit");
    }
}

#[test]
fn haproxy_takes_its_configurations() {
    let scratch = Scratch::new();
    let general =
        read("deploy/haproxy/haproxy.cfg").replace("@PORT@", "3000") + "    server node-1 127.0.0.1:1 check\n";
    let file = scratch.path().join("haproxy.cfg");
    fs::write(&file, general).expect("our folder");
    for file in [file, path("deploy/compose/haproxy.cfg")] {
        let checked = run("haproxy", &["-c", "-f"], &file);
        assert!(checked.status.success(), "{}: {}", file.display(), said(&checked));
    }
}
