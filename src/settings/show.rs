//! The settings written out: `antiphon config` and `docs/configuration.md`.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    Entry, Loaded, Origin, Settings,
    declaration::SECTIONS,
    local_state::{JWT_SECRET_FILE, NODE_ID_FILE},
    reader::Reader,
};

impl Loaded {
    /// What is in force as TOML, secrets hidden, with each value's origin beside it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for entry in &self.entries {
            if entry.section != section {
                section = entry.section;
                let _ = write!(out, "\n[{section}]\n");
            }
            let origin = match self.stand_in(entry) {
                Some(stand_in) => format!("not set: {stand_in}"),
                None => entry.origin.to_string(),
            };
            let _ = match &entry.value {
                Some(value) => writeln!(out, "{} = {value} # {origin}", entry.key),
                None => writeln!(out, "# {} # {origin}", entry.key),
            };
        }
        out
    }

    /// What takes the place of a setting that is not set.
    fn stand_in(&self, entry: &Entry) -> Option<String> {
        if entry.value.is_some() {
            return None;
        }
        let data_dir = &self.settings.data_dir;
        match entry.name().as_str() {
            "auth.jwt_secret" => Some(format!("generated in {}", data_dir.join(JWT_SECRET_FILE).display())),
            "cluster.node_id" => Some(format!("generated in {}", data_dir.join(NODE_ID_FILE).display())),
            "database.url" => Some(self.settings.database_url()),
            _ if entry.origin == Origin::Default => Some("default".to_owned()),
            _ => None,
        }
    }
}

/// `docs/configuration.md`: every setting, from its declaration.
#[must_use]
pub fn documentation() -> String {
    let nothing = BTreeMap::new();
    let mut reader = Reader::new(None, &nothing);
    let _ = Settings::read(&mut reader);
    let mut out = String::from(PREFACE);
    let (top, rest): (Vec<_>, Vec<_>) = reader.entries.iter().partition(|entry| entry.section.is_empty());
    out.push_str("## Above all sections\n\n");
    write_table(&mut out, top.into_iter());
    for (section, docs) in SECTIONS {
        let about: Vec<_> = docs.iter().map(|line| line.trim()).collect();
        let _ = write!(out, "\n## `[{section}]`\n\n{}\n\n", about.join(" "));
        write_table(&mut out, rest.iter().copied().filter(|entry| entry.section == *section));
    }
    out
}

const PREFACE: &str = "\
# Settings

<!-- Generated: `ANTIPHON_UPDATE_DOCS=1 cargo test -p antiphon --lib settings` writes it from src/settings/declaration.rs. -->

Antiphon runs without any. What is to differ goes into `settings.toml`, which is looked for in the current folder and
then in the data dir (or named: `antiphon --config FILE`), or into the environment: `ANTIPHON_SECTION__KEY` sets `key` of
`[section]`, lists separated by commas. Some settings have further variables, named in the tables. `ANTIPHON_…` counts
before those, both before the file, the file before the default.

Everything that is wrong is reported at once, before any port is opened: so is a variable `ANTIPHON_…` that sets nothing, where it
has two underscores or differs from a real one in its underscores alone (`ANTIPHON_SERVER_PORT`). Others are only warned of, and so
are those that Kubernetes makes for a service of such a name. `antiphon config` prints what is in force and where each value was set,
secrets hidden; `antiphon config --check` only checks.

";

fn write_table<'a>(out: &mut String, entries: impl Iterator<Item = &'a Entry>) {
    out.push_str("| setting | default | what it is |\n|---|---|---|\n");
    for entry in entries {
        let default = entry.default.as_ref().map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let mut about = entry.doc.clone();
        if let Some(allowed) = &entry.allowed {
            let _ = write!(about, " Allowed: {allowed}.");
        }
        if !entry.aliases.is_empty() {
            let names: Vec<_> = entry.aliases.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(about, " Also: {}.", names.join(", "));
        }
        let _ = writeln!(out, "| `{}` | {default} | {} |", entry.key, about.replace('|', "\\|"));
    }
}
