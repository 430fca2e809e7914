//! Scenario files: what is read, what is refused and why.

use super::*;

const SMALL: &str = r#"
name = "small"
budgets = { p99_ms = 20, loss = 0.01 }
[[groups]]
channels = 2
talkers = 1
listeners = 3
[[phases]]
name = "calm"
duration = "5s"
[[phases]]
name = "rough"
duration = 10
talk = "p59"
impairment = { loss = 0.01, delay = "20ms" }
budgets = { p99_ms = 60 }
groups = [{ channels = 1, talkers = 2 }]
"#;

#[test]
fn what_is_not_said_has_a_default_and_phases_differ_where_they_say_so() {
    let scenario: Scenario = SMALL.parse().expect("a scenario");
    assert_eq!((scenario.seed, scenario.frame_bytes, scenario.talk), (1, 80, Talk::Continuous));
    let [calm, rough] = scenario.phases.as_slice() else { panic!("{scenario:?}") };
    assert_eq!((calm.duration, rough.duration), (Duration::from_secs(5), Duration::from_secs(10)));
    assert_eq!((scenario.talk_of(calm), scenario.talk_of(rough)), (Talk::Continuous, Talk::P59));
    let groups: Vec<&[Group]> = scenario.groups_by_phase().collect();
    assert_eq!((groups[0][0].clients(), groups[1][0].clients()), (4, 2));
    let limit = |phase: &Phase, name: &str| scenario.budgets_of(phase)[&name.parse::<Figure>().expect("a figure")];
    assert_eq!((limit(calm, "p99_ms"), limit(rough, "p99_ms"), limit(rough, "loss")), (20.0, 60.0, 0.01));
}

#[test]
fn what_is_written_reads_as_the_same() {
    for text in PRESETS.iter().map(|preset| preset.text).chain([SMALL]) {
        let scenario: Scenario = text.parse().expect("a scenario");
        assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }
}

#[test]
fn presets_are_named_as_their_files() {
    for preset in PRESETS {
        let scenario: Scenario = preset.text.parse().unwrap_or_else(|error| panic!("{}: {error}", preset.name));
        assert_eq!(scenario.name, preset.name);
        assert!(!scenario.description.is_empty() && !scenario.budgets.is_empty(), "{}", preset.name);
    }
    assert!(Preset::named("storm").is_some() && Preset::named("weather").is_none());
}

#[test]
fn every_file_that_comes_along_can_be_carried_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path());
    let joins_failed = "join_failures".parse::<Figure>().expect("a figure");
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(file.file_stem().and_then(|stem| stem.to_str()), Some(scenario.name.as_str()));
        for phase in &scenario.phases {
            // A budget of what is not measured is missed.
            let comes_somebody = phase.churn.is_some() || phase.storm.is_some();
            assert!(comes_somebody || !scenario.budgets_of(phase).contains_key(&joins_failed), "{}", file.display());
        }
        count += 1;
    }
    assert!(count >= PRESETS.len());
}

#[test]
fn the_documentations_example_has_every_field() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/load-testing.md")).expect("the page");
    let example = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let scenario: Scenario = example.parse().unwrap_or_else(|error| panic!("{error}"));
    // What is written leaves out only what is absent: nothing may be.
    let [calm, busy, bad] = scenario.phases.as_slice() else { panic!("three phases") };
    assert!(!scenario.description.is_empty() && !scenario.budgets.is_empty() && scenario.ramp_per_s.is_some());
    assert!(calm.talk.is_some() && !busy.faults.is_empty() && busy.scrape_every.is_some() && !busy.budgets.is_empty());
    assert!(calm.chat.is_some() && calm.stream.is_some());
    assert!(busy.churn.is_some() && busy.storm.is_some() && bad.impairment.is_some() && bad.groups.is_some());
}

#[test]
fn a_phase_needs_nobody_in_voice_where_others_are() {
    let phase = "name = \"room\"\n[[phases]]\nname = \"writing\"\nduration = 5\n";
    let chat = "chat = { members = 3, writers = 1, per_second = 2.5 }\n";
    let scenario: Scenario = format!("{phase}{chat}").parse().expect("a scenario");
    assert_eq!(scenario.phases[0].chat.as_ref().map(|chat| chat.message_bytes), Some(100));
    let error = phase.parse::<Scenario>().expect_err("nobody").to_string();
    assert!(error.contains("there is nobody"), "{error}");
    let churn = "churn = { per_second = 1, stay = 1 }\n";
    let error = format!("{phase}{chat}{churn}").parse::<Scenario>().expect_err("nowhere to go").to_string();
    assert!(error.contains("no groups"), "{error}");
}

#[test]
fn what_cannot_be_carried_out_says_where_and_why() {
    for (from, to, hint) in [
        ("name = \"small\"", "", "missing field `name`"),
        ("seed", "seeds", "missing"),
        ("channels = 2", "channels = 0", "phase calm"),
        ("listeners = 3", "listeners = 0", "another hears it"),
        ("listeners = 3", "listeners = 60_000", "clients; 100000 are the most"),
        ("p99_ms = 20", "p98_ms = 20", "p999_ms"),
        ("duration = \"5s\"", "duration = \"soon\"", "no duration"),
        ("duration = \"5s\"", "duration = 0.01", "100 ms"),
        ("duration = \"5s\"", "duration = 5\nlength = 1", "unknown field `length`"),
        ("loss = 0.01, delay", "loss = 1.5, delay", "phase rough: impairment: loss"),
        ("talk = \"p59\"", "talk = \"p59\"\nfaults = [\"1s kill 1\"]", "talk continuously"),
        ("talk = \"p59\"", "faults = [\"1s shoot 1\"]", "kill, drain"),
        ("talk = \"p59\"", "churn = { per_second = 0, stay = 2 }", "phase rough: churn"),
        ("talk = \"p59\"", "storm = { clients = 0 }", "phase rough: storm"),
        ("talk = \"p59\"", "chat = { members = 1, writers = 1, per_second = 1 }", "phase rough: chat: 1 of 1 write"),
        ("talk = \"p59\"", "stream = { listeners = 0 }", "phase rough: stream: 1 to 100 files"),
        ("talk = \"p59\"", "stream = { listeners = 1, range_bytes = 0 }", "range_bytes"),
        ("talk = \"p59\"", "stream = { listeners = 1, pace = \"slow\" }", "playing"),
        ("talk = \"p59\"", "scrape_every = \"1ms\"", "scrape_every"),
        ("name = \"small\"", "name = \"small\"\ntransports = { udp = 0 }", "transports"),
        ("name = \"small\"", "name = \"small\"\nframe_bytes = 9", "frame_bytes"),
        ("name = \"small\"", "name = \"small\"\nramp_per_s = 0", "ramp_per_s"),
    ] {
        let text = if from == "seed" { String::new() } else { SMALL.replacen(from, to, 1) };
        let error = text.parse::<Scenario>().expect_err(to).to_string();
        assert!(error.contains(hint), "{to}: {error}");
    }
}
