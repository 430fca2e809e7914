//! What `deploy/` holds works with this release: names of settings, ports, metrics and commands are real, programs take the
//! files, and nginx balances real nodes. And what `antiphon doctor` says before a node is.

#[path = "../support/mod.rs"]
mod support;

mod compose;
mod doctor;
mod image;
mod kubernetes;
mod nginx;
mod programs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use antiphon::settings::{self, Settings};
use serde::Deserialize as _;
use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn path(file: &str) -> PathBuf {
    repository().join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The documents of a YAML file. A key that is there twice is an error.
fn yaml(file: &str) -> Vec<Value> {
    documents(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn documents(text: &str) -> Result<Vec<Value>, serde_yaml_ng::Error> {
    let document = |document| {
        let mut value = serde_yaml_ng::Value::deserialize(document)?;
        value.apply_merge()?;
        serde_yaml_ng::from_value(value)
    };
    serde_yaml_ng::Deserializer::from_str(text).map(document).collect()
}

/// A list, or nothing.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The settings that these variables make. Each must be one that sets something, and there is nothing to be warned of.
fn settings_of(place: &str, environment: &BTreeMap<String, String>) -> Settings {
    let known = settings::read(None, &BTreeMap::new()).expect("defaults are right").entries;
    let known: BTreeSet<String> = known
        .iter()
        .flat_map(|entry| {
            std::iter::once(entry.variable()).chain(entry.aliases.iter().map(|alias| (*alias).to_owned()))
        })
        .collect();
    for name in environment.keys() {
        assert!(known.contains(name), "{place}: {name} is no setting");
    }
    let loaded = settings::read(None, environment).unwrap_or_else(|problems| panic!("{place}: {problems}"));
    assert!(loaded.warnings.is_empty(), "{place}: {:?}", loaded.warnings);
    loaded.settings
}

/// A secret that will do.
const SECRET: &str = "Zt4oQvTgu8mYw1xK0sLr2bNc6dPe9fHj";

#[test]
#[should_panic(expected = "ANTIPHON_SERVER__PROT is no setting")]
fn a_name_that_is_no_setting_is_found() {
    settings_of("test", &BTreeMap::from([("ANTIPHON_SERVER__PROT".to_owned(), "1".to_owned())]));
}
