//! A Prometheus of the test's own: it scrapes and evaluates every second, and is gone when dropped.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    PATIENCE,
    expressions::{Expression, Wanted},
    support::{
        network::ReservedPort,
        nodes::http,
        process::{Process, Scratch},
    },
};

/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_millis(250);

/// A running Prometheus with the repository's rules.
pub(crate) struct Prometheus {
    url: String,
    child: Child,
    _port: ReservedPort,
    _files: Scratch,
}

/// A rule as Prometheus has it.
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) health: String,
    pub(crate) last_error: String,
    query: String,
    is_alert: bool,
}

impl Rule {
    /// What it asks for. An alert is silent while all is well; what a recording rule records must be there.
    pub(crate) fn expressions(&self, wanted: Wanted) -> Vec<Expression> {
        if self.is_alert {
            return vec![Expression::new(format!("alert {}", self.name), &self.query, Wanted::Nothing)];
        }
        let place = format!("rule {}", self.name);
        let recorded = Expression::new(format!("{place}, recorded"), &self.name, wanted);
        vec![Expression::new(place, &self.query, wanted), recorded]
    }
}

impl Prometheus {
    /// One that scrapes these nodes.
    pub(crate) async fn start(nodes: &[&Process]) -> Self {
        let (port, files) = (ReservedPort::take().expect("a port"), Scratch::new());
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules/*.yml");
        let address = |node: &&Process| node.url().http("/").socket_addrs(|| None).expect("an address")[0].to_string();
        // JSON is YAML as well.
        let settings = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "antiphon",
                "static_configs": [{ "targets": nodes.iter().map(address).collect::<Vec<_>>() }],
            }],
        });
        let file = files.path().join("prometheus.yml");
        fs::write(&file, settings.to_string()).expect("our folder");
        let log = fs::File::create(files.path().join("log")).expect("our folder");
        let listen = format!("127.0.0.1:{}", port.port());
        // It ends with the thread that starts it, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "prometheus"])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", files.path().join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv (util-linux) and prometheus run (scripts/setup test installs them)");
        let mut started = Self { url: format!("http://{listen}"), child, _port: port, _files: files };
        started.until_ready().await;
        started
    }

    async fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/-/ready", self.url);
        while !http().get(&url).send().await.is_ok_and(|ready| ready.status().is_success()) {
            let has_ended = self.child.try_wait().expect("our child").is_some();
            assert!(!has_ended && Instant::now() < deadline, "it starts: {}", self.log());
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self._files.path().join("log")).unwrap_or_default()
    }

    /// Waits until each of so many nodes was scraped.
    pub(crate) async fn until_scraped(&self, count: usize) {
        let up = format!("count(up == 1) == {count}");
        let expression = Expression::new("scraped".to_owned(), &up, Wanted::Number);
        self.until_all_have_data(vec![expression], PATIENCE).await;
    }

    /// Waits until each expression's answer has what it must have, and prints it with how many series it has.
    pub(crate) async fn until_all_have_data(&self, mut expressions: Vec<Expression>, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let mut lacking = Vec::new();
            for expression in expressions {
                let values = match self.query(&expression.text).await {
                    Ok(values) => values,
                    Err(error) => panic!("{}: {}: {error}", expression.place, expression.text),
                };
                if expression.wanted.met_by(&values) {
                    println!("  {:>3} series  {}: {}", values.len(), expression.place, expression.text);
                } else {
                    lacking.push(expression);
                }
            }
            if lacking.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                let line = |lacking: &Expression| format!("\n  {}: {}", lacking.place, lacking.text);
                let lines: String = lacking.iter().map(line).collect();
                panic!("after {patience:?} these have no data:{lines}");
            }
            expressions = lacking;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The values of an expression's series, or what Prometheus has against it.
    async fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let answer = self.get("query", &[("query", expression)]).await;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let value = |sample: &Value| sample[1].as_str().and_then(|value| value.parse().ok()).expect("a value");
        let result = &answer["data"]["result"];
        Ok(match answer["data"]["resultType"].as_str() {
            Some("scalar") => vec![value(result)],
            _ => result.as_array().expect("series").iter().map(|series| value(&series["value"])).collect(),
        })
    }

    /// Every rule that it has loaded.
    pub(crate) async fn rules(&self) -> Vec<Rule> {
        let answer = self.get("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules: Vec<Rule> = rules
            .map(|rule| Rule {
                name: text(&rule["name"]),
                health: text(&rule["health"]),
                last_error: text(&rule["lastError"]),
                query: text(&rule["query"]),
                is_alert: rule["type"] == "alerting",
            })
            .collect();
        assert!(!rules.is_empty(), "it has the rules");
        rules
    }

    async fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Value {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/{what}", self.url)).expect("a URL");
        url.query_pairs_mut().extend_pairs(parameters);
        http().get(url).send().await.expect("it answers").json().await.expect("JSON")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
