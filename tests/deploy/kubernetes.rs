//! `deploy/kubernetes`: manifests that agree with each other and with this release.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use antiphon::telemetry::metrics::entries;
use serde_json::Value;

use crate::{SECRET, documents, list, path, read, settings_of, text, yaml};

const FOLDER: &str = "deploy/kubernetes/base";

/// Every object of the base.
fn objects() -> Vec<Value> {
    let kustomization = yaml(&format!("{FOLDER}/kustomization.yaml")).remove(0);
    list(&kustomization["resources"]).iter().flat_map(|file| yaml(&format!("{FOLDER}/{}", text(file)))).collect()
}

fn object(kind: &str, name: &str) -> Value {
    let found = objects().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("{kind} {name} is there"))
}

fn node() -> Value {
    object("StatefulSet", "antiphon")["spec"]["template"].take()
}

fn container(node: &Value) -> &Value {
    &node["spec"]["containers"][0]
}

/// The values of the example's Secret, filled in.
fn secret(key: &str) -> String {
    match key {
        "redis-url" => "redis://:x@redis:6379".to_owned(),
        "database-url" => "postgres://antiphon:x@postgres/antiphon".to_owned(),
        "jwt-secret" | "cluster-secret" => SECRET.to_owned(),
        _ => panic!("secret.example.yaml has no {key}"),
    }
}

/// The settings of the first node, as Kubernetes would set them.
fn settings(node: &Value) -> antiphon::settings::Settings {
    let example = yaml("deploy/kubernetes/secret.example.yaml").remove(0);
    let mut environment = BTreeMap::new();
    for variable in list(&container(node)["env"]) {
        let source = &variable["valueFrom"];
        let value = match variable["value"].as_str() {
            Some(value) => value.replace("$(HOST_IP)", "192.0.2.1").replace("$(POD_IP)", "10.0.0.1"),
            None if source["fieldRef"]["fieldPath"] == "metadata.name" => "antiphon-0".to_owned(),
            None if source.get("fieldRef").is_some() => continue,
            None => {
                let (name, key) = (&source["secretKeyRef"]["name"], text(&source["secretKeyRef"]["key"]));
                assert_eq!(*name, example["metadata"]["name"]);
                assert_eq!(example["stringData"][key], "", "{key}: the example holds no secret");
                secret(key)
            }
        };
        assert!(!value.contains("$("), "{value}: declared before it is used");
        environment.insert(text(&variable["name"]).to_owned(), value);
    }
    settings_of("statefulset.yaml", &environment)
}

#[test]
fn nodes_have_settings_of_this_release_and_time_to_drain() {
    let node = node();
    let settings = settings(&node);
    let spec = &node["spec"];
    let pause = container(&node)["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("a pause");
    let patience = spec["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(patience > pause + u64::from(settings.server.drain_deadline_s));
    assert_eq!(spec["enableServiceLinks"], false);
    let mut ports = BTreeMap::new();
    for port in list(&container(&node)["ports"]) {
        ports.insert(
            text(&port["name"]),
            (port["containerPort"].as_u64(), text(&port["protocol"]), port["hostPort"].as_u64()),
        );
    }
    let port = |port: u16| Some(u64::from(port));
    let (http, voice, relay) = (settings.server.port, settings.audio.udp_port, settings.cluster.relay_port);
    assert_eq!(ports["http"], (port(http), "TCP", port(http)));
    assert_eq!(ports["voice"], (port(voice), "UDP", port(voice)));
    assert_eq!(ports["relay"], (port(relay), "UDP", None), "not for everyone");
    assert_eq!(settings.audio.advertise, [format!("192.0.2.1:{voice}")]);
    assert_eq!(settings.cluster.http_url, Some(format!("http://192.0.2.1:{http}")));
    for (probe, path) in
        [("startupProbe", "/health/live"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")]
    {
        assert_eq!(container(&node)[probe]["httpGet"], serde_json::json!({ "path": path, "port": "http" }));
    }
    // As the image's user.
    let user = spec["securityContext"]["runAsUser"].as_u64().expect("a user");
    assert!(read("deploy/docker/Dockerfile").contains(&format!("USER {user}:{user}\n")));
    let mounted = &container(&node)["volumeMounts"][0]["mountPath"];
    assert!(read("deploy/docker/Dockerfile").contains(&format!("ANTIPHON_DATA_DIR={}", text(mounted))));
}

#[test]
fn what_is_selected_is_there() {
    let labels = &node()["metadata"]["labels"];
    for (kind, name, selector) in [
        ("StatefulSet", "antiphon", "/spec/selector/matchLabels"),
        ("Service", "antiphon", "/spec/selector"),
        ("Service", "antiphon-nodes", "/spec/selector"),
        ("PodDisruptionBudget", "antiphon", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "antiphon", "/spec/podSelector/matchLabels"),
    ] {
        assert_eq!(object(kind, name).pointer(selector), Some(labels), "{kind} {name}");
    }
    let ports: BTreeSet<String> =
        list(&container(&node())["ports"]).iter().map(|port| text(&port["name"]).to_owned()).collect();
    for rule in list(&object("NetworkPolicy", "antiphon")["spec"]["ingress"]) {
        for port in list(&rule["ports"]) {
            assert!(ports.contains(text(&port["port"])), "{port}");
            // The relay is for nodes alone.
            assert_eq!(port["port"] == "relay", rule.get("from").is_some());
        }
    }
    let headless = object("Service", "antiphon-nodes");
    assert_eq!(object("StatefulSet", "antiphon")["spec"]["serviceName"], headless["metadata"]["name"]);
    let monitor = object("ServiceMonitor", "antiphon");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], headless["metadata"]["labels"]);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], headless["spec"]["ports"][0]["name"]);
    let backend = &object("Ingress", "antiphon")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(backend["port"]["name"], object("Service", text(&backend["name"]))["spec"]["ports"][0]["name"]);
}

#[test]
fn the_autoscaler_measures_what_the_adapter_makes_of_real_metrics() {
    let rule = yaml("deploy/kubernetes/prometheus-adapter.values.yaml").remove(0)["rules"]["custom"][0].take();
    let scaler = object("HorizontalPodAutoscaler", "antiphon");
    assert_eq!(scaler["spec"]["metrics"][0]["pods"]["metric"]["name"], rule["name"]["as"]);
    assert_eq!(scaler["spec"]["scaleTargetRef"]["kind"], "StatefulSet");
    let known: BTreeSet<&str> = entries().iter().map(|entry| entry.name).collect();
    let mut asked = 0;
    for query in [&rule["seriesQuery"], &rule["metricsQuery"]] {
        for name in
            text(query).split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| name.starts_with("antiphon_"))
        {
            assert!(known.contains(name), "{name} is no metric");
            asked += 1;
        }
    }
    assert!(asked >= 3);
}

/// The rules of `deploy/prometheus` as an object of the operator.
fn prometheus_rule() -> String {
    let mut made = String::from(
        "# Generated from deploy/prometheus/rules, which a test keeps it to: ANTIPHON_UPDATE_DOCS=1 cargo test -p antiphon --test deploy\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: antiphon\nspec:\n  groups:\n",
    );
    for file in ["recording", "alerts"] {
        let rules = read(&format!("deploy/prometheus/rules/{file}.yml"));
        for line in rules.split_once("groups:\n").expect("groups").1.trim_end().lines() {
            made += &if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
        }
    }
    made
}

#[test]
fn the_operator_has_the_rules_that_prometheus_has() {
    let (file, wanted) = (path(&format!("{FOLDER}/prometheusrule.yaml")), prometheus_rule());
    if std::env::var_os("ANTIPHON_UPDATE_DOCS").is_some() {
        fs::write(&file, &wanted).expect("writes");
    }
    assert!(fs::read_to_string(&file).expect("text") == wanted, "run this once with ANTIPHON_UPDATE_DOCS=1");
    let groups = |file: &str| list(&yaml(file)[0]["groups"]).to_vec();
    let mut rules = groups("deploy/prometheus/rules/recording.yml");
    rules.extend(groups("deploy/prometheus/rules/alerts.yml"));
    assert_eq!(list(&object("PrometheusRule", "antiphon")["spec"]["groups"]), rules);
}

#[test]
fn every_manifest_is_part_of_the_base() {
    let listed: BTreeSet<String> = list(&yaml(&format!("{FOLDER}/kustomization.yaml"))[0]["resources"])
        .iter()
        .map(|file| text(file).to_owned())
        .chain(["kustomization.yaml".to_owned()])
        .collect();
    let files = fs::read_dir(path(FOLDER)).expect("there").map(|entry| entry.expect("readable").file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().expect("text")).collect();
    assert_eq!(listed, files);
}

/// Where kubectl is installed, which no package of Debian brings, it puts the manifests together.
#[test]
fn kustomize_puts_them_together() {
    for folder in ["base", "host-network"] {
        let Ok(output) = Command::new("kubectl").arg("kustomize").arg(path("deploy/kubernetes").join(folder)).output()
        else {
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = String::from_utf8(output.stdout).expect("text");
        let made = documents(&made).expect("YAML");
        let has = |kind: &str| made.iter().any(|object| object["kind"] == kind);
        assert!(has("StatefulSet") && has("PodDisruptionBudget"));
        assert_eq!(has("NetworkPolicy"), folder == "base", "{folder}");
        let job = made.iter().find(|object| object["metadata"]["name"] == "antiphon-nodes").expect("a service");
        assert_eq!(job["metadata"]["labels"]["app.kubernetes.io/name"], "antiphon", "as the rules call the job");
    }
}
