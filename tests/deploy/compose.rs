//! `deploy/compose`: three nodes and what they need, with nobody's secrets but one's own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{SECRET, list, path, read, settings_of, text, yaml};

const FOLDER: &str = "deploy/compose";

fn stack() -> Value {
    let file = format!("{FOLDER}/compose.yaml");
    yaml(&file).remove(0)
}

fn services(stack: &Value) -> impl Iterator<Item = (&String, &Value)> {
    stack["services"].as_object().expect("services").iter()
}

/// Variables that a text takes from `.env`, each with whether it is refused while empty.
fn variables(text: &str) -> Vec<(&str, bool)> {
    let parts = text.split("${").skip(1).map(|part| part.split_once('}').expect("it ends").0);
    parts.map(|part| part.split_once(":?").map_or((part, false), |(name, _)| (name, true))).collect()
}

/// The text with a variable's value in its place.
fn filled(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').expect("it ends");
        let value = if variable.starts_with("PUBLIC_HOST") { "voice.example.net" } else { SECRET };
        filled = filled + value + rest;
    }
    filled
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let environment = service["environment"].as_object().expect("an environment");
    environment.iter().map(|(name, value)| (name.clone(), filled(text(value)))).collect()
}

#[test]
fn nodes_have_settings_of_this_release_and_ports_that_they_tell() {
    let stack = stack();
    let nodes: Vec<_> = services(&stack).filter(|(name, _)| name.starts_with("node-")).collect();
    assert_eq!(nodes.len(), 3);
    let mut published = BTreeSet::new();
    for (name, node) in nodes {
        // As the image has it.
        let mut environment = environment(node);
        environment.insert("ANTIPHON_SERVER__HOST".to_owned(), "0.0.0.0".to_owned());
        let settings = settings_of(name, &environment);
        assert_eq!(settings.cluster.node_id.as_deref(), Some(name.as_str()));
        let ports: Vec<&str> = list(&node["ports"]).iter().map(text).collect();
        let outside = |inside: String| {
            let found = ports.iter().find_map(|port| port.strip_suffix(&format!(":{inside}")));
            found.unwrap_or_else(|| panic!("{name} publishes {inside}"))
        };
        let voice = outside(format!("{}/udp", settings.audio.udp_port));
        assert_eq!(settings.audio.advertise, [format!("voice.example.net:{voice}")]);
        let http = outside(format!("{}/tcp", settings.server.port));
        assert_eq!(settings.cluster.http_url, Some(format!("http://voice.example.net:{http}")));
        assert!(published.insert(voice) && published.insert(http), "{name}: taken");
        let own = text(&node["networks"]["cluster"]["ipv4_address"]);
        let relay = settings.cluster.advertise.expect("set");
        assert_eq!(relay.to_string(), format!("{own}:{}", settings.cluster.relay_port));
        let balancer = text(&stack["services"]["haproxy"]["networks"]["cluster"]["ipv4_address"]);
        assert!(
            settings.server.trusted_proxies.iter().any(|proxy| proxy.contains(balancer.parse().expect("an address")))
        );
        let patience: u32 = text(&node["stop_grace_period"]).trim_end_matches('s').parse().expect("seconds");
        assert!(patience > settings.server.drain_deadline_s);
        assert!(node["ulimits"]["nofile"].as_u64() > Some(settings.limits.gateway_connections.into()));
    }
}

#[test]
fn nothing_starts_with_a_secret_that_everybody_knows() {
    let (compose, example) = (read(&format!("{FOLDER}/compose.yaml")), read(&format!("{FOLDER}/.env.example")));
    let asked: BTreeSet<&str> = variables(&compose).into_iter().map(|(name, _)| name).collect();
    let refused: BTreeSet<&str> =
        variables(&compose).into_iter().filter_map(|(name, refused)| refused.then_some(name)).collect();
    assert_eq!(asked, refused, "each is refused while it is empty");
    let lines = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let offered: BTreeSet<&str> = lines.map(|line| line.strip_suffix('=').expect("without a value")).collect();
    assert_eq!(offered, asked);
    for (name, service) in services(&stack()) {
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let is_secret = ["SECRET", "PASSWORD", "AUTH"].iter().any(|part| variable.contains(part));
            assert!(!is_secret || text(value).starts_with("${"), "{name}: {variable} has a value");
        }
    }
}

#[test]
fn what_is_mounted_is_there_and_what_is_named_is_declared() {
    let stack = stack();
    for (name, service) in services(&stack) {
        assert!(service.get("image").is_some(), "{name}");
        for volume in list(&service["volumes"]) {
            let (source, target) = text(volume).split_once(':').expect("source and target");
            assert!(target.starts_with('/'), "{name}: {target}");
            if source.starts_with('.') {
                assert!(path(FOLDER).join(source).exists(), "{name}: {source}");
                assert!(target.ends_with(":ro"), "{name}: {source} is ours");
            } else {
                assert!(stack["volumes"].get(source).is_some(), "{name}: {source}");
            }
        }
        let needed: Vec<&str> = match &service["depends_on"] {
            Value::Object(needed) => needed.keys().map(String::as_str).collect(),
            needed => list(needed).iter().map(text).collect(),
        };
        for needed in needed {
            assert!(stack["services"].get(needed).is_some(), "{name} needs {needed}");
        }
    }
    let build = &stack["services"]["node-1"]["build"];
    let context = path(FOLDER).join(text(&build["context"]));
    assert!(context.join(text(&build["dockerfile"])).exists());
    let command: Vec<&str> = list(&stack["services"]["redis"]["command"]).iter().map(text).collect();
    assert!(command.windows(2).any(|pair| pair == ["--maxmemory-policy", "noeviction"]));
}

#[test]
fn prometheus_and_haproxy_know_the_nodes() {
    let stack = stack();
    let targets = &yaml(&format!("{FOLDER}/nodes.yml"))[0][0]["targets"];
    let targets: Vec<&str> = list(targets).iter().map(text).collect();
    assert_eq!(targets, ["node-1:3000", "node-2:3000", "node-3:3000"]);
    let (ours, general) = (read(&format!("{FOLDER}/haproxy.cfg")), read("deploy/haproxy/haproxy.cfg"));
    // Above that it says how it is filled in.
    let general = &general[general.find("# A balancer").expect("what it is")..];
    let mut wanted = general.replace("    bind 127.0.0.1:@PORT@", "    bind :3000");
    for name in ["node-1", "node-2", "node-3"] {
        let address = text(&stack["services"][name]["networks"]["cluster"]["ipv4_address"]);
        wanted += &format!("    server {name} {address}:3000 check\n");
    }
    assert_eq!(ours.split_once('\n').expect("a first line").1, wanted, "as the general one");
}
