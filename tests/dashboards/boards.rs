//! Grafana's boards as files, and the rules that they keep.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::expressions::{Expression, Wanted, selectors};

/// Kinds of panels that Grafana has not given up.
const PANEL_TYPES: [&str; 7] = ["row", "timeseries", "stat", "table", "heatmap", "bargauge", "text"];

/// A board.
pub(crate) struct Board {
    file: String,
    json: Value,
}

/// Every board of the repository.
pub(crate) fn all() -> Vec<Board> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let files = fs::read_dir(folder).expect("the boards are there").map(|entry| entry.expect("readable").path());
    let read = |path: std::path::PathBuf| {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("text");
        Board { json: serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}")), file }
    };
    files.filter(|path| path.extension().is_some_and(|end| end == "json")).map(read).collect()
}

impl Board {
    pub(crate) fn uid(&self) -> &str {
        text(&self.json["uid"])
    }

    /// What its panels, variables and annotations ask Prometheus.
    pub(crate) fn expressions(&self, wanted: Wanted) -> Vec<Expression> {
        let mut found = Vec::new();
        for panel in list(&self.json["panels"]) {
            for target in list(&panel["targets"]) {
                let place = format!("{} / {} {}", self.uid(), text(&panel["title"]), text(&target["refId"]));
                // Marked where nothing is right, with why.
                let wanted = if target["mayBeEmpty"].is_string() { Wanted::Nothing } else { wanted };
                found.push(Expression::new(place, text(&target["expr"]), wanted));
            }
        }
        for annotation in list(&self.json["annotations"]["list"]) {
            let place = format!("{} / annotation {}", self.uid(), text(&annotation["name"]));
            found.push(Expression::new(place, text(&annotation["expr"]), wanted));
        }
        for variable in list(&self.json["templating"]["list"]).iter().filter(|variable| variable["type"] == "query") {
            let query = text(&variable["query"]["query"]);
            let series =
                query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(',')).expect("label_values");
            let place = format!("{} / variable {}", self.uid(), text(&variable["name"]));
            found.push(Expression::new(place, series.0, wanted));
        }
        found
    }

    /// Whether it is as all boards are.
    pub(crate) fn check(&self, uids: &BTreeSet<&str>) {
        let Self { file, json } = self;
        assert_eq!(self.uid(), format!("antiphon-{}", file.trim_end_matches(".json")));
        assert!(!text(&json["title"]).is_empty() && !text(&json["description"]).is_empty(), "{file}");
        assert_eq!((&json["schemaVersion"], &json["tags"]), (&json!(41), &json!(["antiphon"])), "{file}");
        let link = &json["links"][0];
        let kept = [&link["includeVars"], &link["keepTime"]];
        assert_eq!((&link["tags"], kept), (&json!(["antiphon"]), [&json!(true); 2]), "{file}: leads to the others");
        let variables: Vec<&str> = list(&json["templating"]["list"]).iter().map(|found| text(&found["name"])).collect();
        assert_eq!(variables, ["datasource", "instance"], "{file}");
        let panels = list(&json["panels"]);
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{file}: each panel has an id of its own");
        panels.iter().for_each(|panel| self.check_panel(panel, uids));
        self.check_places(panels);
    }

    fn check_panel(&self, panel: &Value, uids: &BTreeSet<&str>) {
        let (kind, title) = (text(&panel["type"]), text(&panel["title"]));
        let place = format!("{}: {title}", self.file);
        assert!(PANEL_TYPES.contains(&kind) && !title.is_empty(), "{place}: {kind}");
        if kind == "row" {
            return;
        }
        assert!(text(&panel["description"]).ends_with('.'), "{place}: says what it shows");
        let links = list(&panel["links"]);
        assert!(!links.is_empty(), "{place}: leads on");
        for link in links.iter().chain(list(&panel["fieldConfig"]["defaults"]["links"])) {
            let url = text(&link["url"]);
            let uid = url.strip_prefix("/d/").and_then(|rest| rest.split('?').next()).expect("a board's address");
            assert!(uids.contains(uid), "{place}: there is no {uid}");
            for kept in ["${datasource:queryparam}", "instance", "${__url_time_range}"] {
                assert!(url.contains(kept), "{place}: {url} keeps {kept}");
            }
        }
        if kind == "text" {
            return;
        }
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{place}: has a unit");
        let targets = list(&panel["targets"]);
        let names: BTreeSet<&str> = targets.iter().map(|target| text(&target["refId"])).collect();
        assert!(!targets.is_empty() && names.len() == targets.len(), "{place}: targets have names of their own");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
            for selector in selectors(text(&target["expr"])) {
                assert!(selector.contains("instance=~\"$instance"), "{place}: {selector} is of the nodes chosen");
            }
        }
    }

    /// No panel is on another.
    fn check_places(&self, panels: &[Value]) {
        let mut taken = BTreeSet::new();
        for panel in panels {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{}: {}", self.file, panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{}: {} is on another", self.file, panel["title"]);
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
