//! The command line, as a person or a script uses it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use antiphon::store::{NewUser, Store};
use antiphon_core::{gateway::Role, ids::UserId};
use serde_json::{Value, json};
use uuid::Uuid;

/// A folder to run in, without any of this process's settings.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("antiphon-cli-{}", Uuid::now_v7()));
        fs::create_dir(&dir).expect("a new folder");
        Self { dir }
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.args(arguments).current_dir(&self.dir).env_clear().envs(environment.iter().copied());
        command.output().expect("the program runs")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).expect("our folder");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn config_prints_what_is_in_force_and_hides_secrets() {
    let place = Place::new();
    place.write("settings.toml", "[server]\nport = 4000\n[metrics]\ntoken = \"hunter2\"\n");
    let output =
        place.run(&["config"], &[("JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2"), ("SERVER_HOST", "::1")]);
    assert!(output.status.success());
    let shown = stdout(&output);
    for line in [
        "port = 4000 # settings.toml line 2",
        "host = \"::1\" # environment variable SERVER_HOST",
        "jwt_secret = \"(hidden)\" # environment variable JWT_SECRET",
        "token = \"(hidden)\" # settings.toml line 4",
        "udp_port = 3002 # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in:\n{shown}");
    }
    assert!(!shown.contains("hunter2") && !stderr(&output).contains("hunter2"));
    assert_eq!(fs::read_dir(&place.dir).expect("our folder").count(), 1, "nothing was made");
}

#[test]
fn config_check_says_what_is_wrong_and_where() {
    let place = Place::new();
    let output = place.run(&["config", "--check"], &[]);
    assert!(output.status.success());
    assert_eq!(stdout(&output), "the settings are right (the environment; there is no settings file)\n");

    place.write("settings.toml", "[server]\nprot = 1\nhost = \"nowhere\"\n");
    for arguments in [["config", "--check"].as_slice(), &["config"], &["serve"], &[], &["admin", "grant", "Anna"]] {
        let output = place.run(arguments, &[("REDIS_URL", "redis://localhost")]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
        let said = stderr(&output);
        for problem in [
            "these things are wrong in the settings:",
            "settings.toml line 2: server.prot is no setting; did you mean server.port?",
            "settings.toml line 3: server.host must be an IP address",
            "environment variable REDIS_URL: redis.url needs a database that all nodes share",
        ] {
            assert!(said.contains(problem), "{problem} in:\n{said}");
        }
    }
}

#[test]
fn config_check_reads_the_certificates_files() {
    let place = Place::new();
    let files = [("ANTIPHON_SERVER__TLS_CERTIFICATE", "cert.pem"), ("ANTIPHON_SERVER__TLS_KEY", "key.pem")];
    let check = || place.run(&["config", "--check"], &files);
    let refused = |wanted: &str| {
        let output = check();
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains(wanted), "{wanted} in: {}", stderr(&output));
    };
    refused("cannot use cert.pem (server.tls_certificate)");
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let (one, other) = (pair(), pair());
    place.write("cert.pem", &one.cert.pem());
    refused("cannot use key.pem (server.tls_key)");
    place.write("key.pem", &other.signing_key.serialize_pem());
    refused("does not belong to the certificate");
    place.write("key.pem", &one.signing_key.serialize_pem());
    assert!(check().status.success());
    let lacking = [("ANTIPHON_CLUSTER__CA_FILE", "ca.pem")];
    let output = place.run(&["config", "--check"], &lacking);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("ca.pem (cluster.ca_file)"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_doctor_looks_into_a_data_dir_that_is_named_from_here() {
    let place = Place::new();
    let folder = place.dir.join("antiphon-data");
    let found = || {
        let output = place.run(&["doctor", "--json"], &[]);
        let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        let findings = report["findings"].as_array().expect("a list").clone();
        let data = findings.into_iter().find(|finding| finding["group"] == "data").expect("looked at");
        (data["verdict"].clone(), data["found"].as_str().expect("text").to_owned())
    };
    assert_eq!(found(), (json!("ok"), "antiphon-data is made at the first start".to_owned()));
    fs::create_dir(&folder).expect("our folder");
    for (mode, verdict, wanted) in
        [(0o755, "warn", "others may look into"), (0o700, "ok", "looked into by nobody else")]
    {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("our folder");
        let (said, found) = found();
        assert!(said == verdict && found.contains(wanted), "{mode:o}: {said} {found}");
    }
}

#[test]
fn the_settings_file_is_the_named_one_or_here_or_in_the_data_dir() {
    let place = Place::new();
    fs::create_dir(place.dir.join("data")).expect("our folder");
    place.write("data/settings.toml", "[server]\nport = 1\n");
    let port = |arguments: &[&str]| {
        let shown = stdout(&place.run(arguments, &[("ANTIPHON_DATA_DIR", "data")]));
        shown.lines().find_map(|line| line.strip_prefix("port = ").map(str::to_owned)).expect("a port")
    };
    assert_eq!(port(&["config"]), "1 # data/settings.toml line 2");
    place.write("settings.toml", "[server]\nport = 2\n");
    assert_eq!(port(&["config"]), "2 # settings.toml line 2");
    place.write("other.toml", "[server]\nport = 3\n");
    assert_eq!(port(&["--config", "other.toml", "config"]), "3 # other.toml line 2");
    assert_eq!(port(&["config", "--config", "other.toml"]), "3 # other.toml line 2");
    let missing = place.run(&["--config", "missing.toml", "config"], &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("cannot read the settings file missing.toml"), "{}", stderr(&missing));
}

#[tokio::test]
async fn admin_grant_and_revoke_change_a_role() {
    let place = Place::new();
    let early = place.run(&["admin", "grant", "Anna"], &[]);
    assert_eq!(early.status.code(), Some(1));
    assert!(stderr(&early).contains("there is no database antiphon-data/antiphon.db"), "{}", stderr(&early));
    assert_eq!(fs::read_dir(&place.dir).expect("our folder").count(), 0, "nothing was made");

    fs::create_dir(place.dir.join("antiphon-data")).expect("our folder");
    let url = format!("sqlite:{}", place.dir.join("antiphon-data/antiphon.db").display());
    let store = Store::open(&url).await.expect("the database opens");
    let anna = store.create_user(NewUser::named("Anna")).await.expect("a free name").id;
    store.create_user(NewUser { is_guest: true, ..NewUser::named("Visitor") }).await.expect("a free name");
    let role = async || store.user(anna).await.expect("works").expect("exists").role;
    for (command, said, expected) in [
        (["grant", "aNNA"].as_slice(), "Anna is an administrator now\n", Role::Admin),
        (&["grant", "aNNA"], "Anna is an administrator already\n", Role::Admin),
        (&["revoke", "aNNA", "--force"], "Anna is an ordinary account now\n", Role::User),
        (&["revoke", "aNNA"], "Anna is an ordinary account already\n", Role::User),
    ] {
        let output = place.run(&[&["admin"], command].concat(), &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!((stdout(&output).as_str(), role().await), (said, expected));
    }
    let (entries, count) = store.audit(Some("user.update"), 10, 0).await.expect("works");
    let entries: Vec<_> = entries.iter().map(|entry| (&*entry.actor_name, entry.detail["role"].as_str())).collect();
    let by = "the command line";
    assert_eq!(
        (entries, count),
        (vec![(by, Some("user")), (by, Some("admin"))], 2),
        "newest first; what changes nothing is none"
    );
    the_last_administrator_stays(&place, &store, anna).await;
    for (name, wrong) in [("nobody", "there is no account called \"nobody\""), ("Visitor", "is a guest")] {
        let output = place.run(&["admin", "grant", name], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(wrong), "{}", stderr(&output));
    }
    store.close().await;
}

/// Unless it is forced. One who is switched off cannot come in, and does not count.
async fn the_last_administrator_stays(place: &Place, store: &Store, anna: UserId) {
    let ben = store.create_user(NewUser::named("Ben")).await.expect("a free name").id;
    let revoke = || place.run(&["admin", "revoke", "anna"], &[]);
    let role = async || store.user(anna).await.expect("works").expect("exists").role;
    assert!(place.run(&["admin", "grant", "anna"], &[]).status.success());
    assert!(place.run(&["admin", "grant", "ben"], &[]).status.success());
    store.set_active(ben, false).await.expect("works");
    let refused = revoke();
    assert_eq!((refused.status.code(), role().await), (Some(1), Role::Admin));
    let said = stderr(&refused);
    assert!(said.contains("Anna is the last administrator") && said.contains("--force"), "{said}");
    store.set_active(ben, true).await.expect("works");
    assert!(revoke().status.success());
    assert_eq!(role().await, Role::User);
}

#[test]
fn help_says_what_there_is() {
    let place = Place::new();
    let help = stdout(&place.run(&["--help"], &[]));
    for word in
        ["serve", "config", "doctor", "health", "admin", "--config <FILE>", "settings.toml", "docs/configuration.md"]
    {
        assert!(help.contains(word), "{word} in:\n{help}");
    }
    assert_eq!(place.run(&["sevre"], &[]).status.code(), Some(2));
    assert_eq!(stdout(&place.run(&["--version"], &[])), format!("antiphon {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_folder_is_transcoded_and_drawn_once() {
    let place = Place::new();
    fs::create_dir_all(place.dir.join("in/sub")).expect("our folder");
    let sound = place.dir.join("in/sub/tone.wav");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "sine=frequency=440:duration=3", "-y"])
        .arg(&sound)
        .status()
        .expect("ffmpeg runs");
    assert!(made.success());
    place.write("in/broken.mp3", "no sound");
    place.write("in/notes.txt", "not for us");

    let run = || {
        let folders = ["--input-dir", "in", "--output-dir", "out", "--jobs", "2"];
        let qualities = [&["transcode"], &folders[..], &["--quality", "low", "--quality", "high"]].concat();
        let waveforms =
            [&["waveform"], &folders[..], &["--format", "json", "--format", "png", "--width", "64"]].concat();
        let path = std::env::var("PATH").expect("a path");
        [place.run(&qualities, &[("PATH", &path)]), place.run(&waveforms, &[("PATH", &path)])]
    };
    for output in run() {
        assert_eq!(output.status.code(), Some(1), "one file is broken");
        assert!(stdout(&output).contains("2 made, 0 there already, 2 failed"), "{}", stdout(&output));
        let told = stderr(&output);
        assert!(told.contains("broken.mp3: the file"), "{told}");
    }
    let size = |name: &str| fs::metadata(place.dir.join("out/sub").join(name)).expect(name).len();
    assert!(size("tone.wav.low.opus") < size("tone.wav.high.opus"));
    assert!(size("tone.wav.waveform.png") > 50);
    let json = fs::read(place.dir.join("out/sub/tone.wav.waveform.json")).expect("made");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((json["length"].as_u64(), json["samples_per_pixel"].as_u64()), (Some(300), Some(480)));
    // What is there stays as it is.
    for output in run() {
        assert!(stdout(&output).contains("0 made, 2 there already, 2 failed"), "{}", stdout(&output));
    }
    let left: Vec<_> =
        fs::read_dir(place.dir.join("out")).expect("made").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["sub"], "nothing half made");
}
