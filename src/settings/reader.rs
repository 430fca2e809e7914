//! Where each setting's value comes from: the file, then the environment, else its default; and what is wrong with
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::value::Value;

/// Where a value in force was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default.
    Default,
    /// In the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What is wrong and what would be right; never a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => f.write_str(&self.message),
            _ => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

/// What is known of one setting: what it is, and what it is set to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The section's name, empty for settings above all sections.
    pub section: &'static str,
    /// The key in its section.
    pub key: &'static str,
    /// What it means, in Markdown.
    pub doc: String,
    /// What type of value it takes.
    pub kind: &'static str,
    /// The values it may have, if only some of its type.
    pub allowed: Option<String>,
    /// Environment variables that set it beside its own.
    pub aliases: Vec<&'static str>,
    /// Its default as TOML; `None` when it is not set by default.
    pub default: Option<String>,
    /// What is in force, as TOML with secrets hidden.
    pub value: Option<String>,
    /// Where that was set.
    pub origin: Origin,
}

impl Entry {
    /// `section.key`.
    #[must_use]
    pub fn name(&self) -> String {
        dotted(self.section, self.key)
    }

    /// Its own environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        match self.section {
            "" => format!("{PREFIX}{}", self.key.to_uppercase()),
            section => format!("{PREFIX}{}__{}", section.to_uppercase(), self.key.to_uppercase()),
        }
    }
}

const PREFIX: &str = "ANTIPHON_";
/// Variables of the load tester and of the cluster on one machine, which whoever uses them may have set for all programs.
const OF_TOOLS: [&str; 7] = [
    "ANTIPHON_BINARY",
    "ANTIPHON_URL",
    "ANTIPHON_PASSWORD",
    "ANTIPHON_ADMIN_PASSWORD",
    "ANTIPHON_CLUSTER_PORT",
    "ANTIPHON_CLUSTER_DIR",
    "ANTIPHON_CLUSTER_RESTART_S",
];

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Cuts an alias's own part out of what the variable holds.
type Part = fn(&str) -> Result<&str, String>;

/// What a setting may be, in words and as a check.
struct Check<T> {
    allowed: String,
    allows: fn(&T) -> bool,
}

/// What a setting's declaration says beside its type and default.
pub(super) struct Rule<T> {
    aliases: Vec<(&'static str, Part)>,
    check: Option<Check<T>>,
}

impl<T> Rule<T> {
    pub(super) fn new() -> Self {
        Self { aliases: Vec::new(), check: None }
    }

    /// Also set by this environment variable.
    pub(super) fn env(self, name: &'static str) -> Self {
        self.env_part(name, |text| Ok(text))
    }

    /// Also set by a part of this environment variable.
    pub(super) fn env_part(mut self, name: &'static str, part: Part) -> Self {
        self.aliases.push((name, part));
        self
    }

    /// Only what `allows` accepts, which `allowed` names.
    pub(super) fn only(mut self, allowed: impl Into<String>, allows: fn(&T) -> bool) -> Self {
        self.check = Some(Check { allowed: allowed.into(), allows });
        self
    }
}

/// Reads settings one by one and remembers each, and all that is wrong.
pub(super) struct Reader<'a> {
    file: Option<&'a Path>,
    /// What the file sets: section and key to value and line.
    in_file: BTreeMap<(String, String), (DeValue<'a>, usize)>,
    environment: &'a BTreeMap<String, String>,
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Over an already read `file` (its path and text) and the environment's variables.
    pub(super) fn new(file: Option<(&'a Path, &'a str)>, environment: &'a BTreeMap<String, String>) -> Self {
        let mut reader = Self {
            file: file.map(|(path, _)| path),
            in_file: BTreeMap::new(),
            environment,
            entries: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        if let Some((_, text)) = file {
            reader.parse(text);
        }
        reader
    }

    fn parse(&mut self, text: &'a str) {
        let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(span.start));
            self.problems.push(Problem { origin: self.at_line(line), message: error.message().to_owned() });
        }
        for (key, value) in document.into_inner() {
            let line = line_of(key.span().start);
            match value.into_inner() {
                DeValue::Table(section) => {
                    for (inner, value) in section {
                        let place = (key.get_ref().to_string(), inner.get_ref().to_string());
                        self.in_file.insert(place, (Spanned::into_inner(value), line_of(inner.span().start)));
                    }
                }
                value => {
                    self.in_file.insert((String::new(), key.get_ref().to_string()), (value, line));
                }
            }
        }
    }

    fn at_line(&self, line: usize) -> Origin {
        Origin::File { path: self.file.unwrap_or(Path::new("")).to_owned(), line }
    }

    /// The value of `section.key`: what is set, if that is right, else the default.
    pub(super) fn take<T: Value>(
        &mut self,
        section: &'static str,
        key: &'static str,
        docs: &[&str],
        rule: &Rule<T>,
        default: T,
    ) -> T {
        let mut entry = Entry {
            section,
            key,
            doc: docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
            kind: T::KIND,
            allowed: rule.check.as_ref().map(|check| check.allowed.clone()),
            aliases: rule.aliases.iter().map(|(name, _)| *name).collect(),
            default: default.to_toml(),
            value: None,
            origin: Origin::Default,
        };
        let found = self.find(&entry, rule);
        let value = match found {
            None => default,
            Some((origin, value)) => {
                let wrong = value.and_then(|value| match &rule.check {
                    Some(Check { allowed, allows }) if !allows(&value) => {
                        let shown = value.to_toml().unwrap_or_default();
                        Err(format!("must be {allowed}, not {shown}"))
                    }
                    _ => Ok(value),
                });
                match wrong {
                    Ok(value) => {
                        entry.origin = origin;
                        value
                    }
                    Err(message) => {
                        self.problems.push(Problem { origin, message: format!("{} {message}", entry.name()) });
                        default
                    }
                }
            }
        };
        entry.value = value.to_toml();
        self.entries.push(entry);
        value
    }

    /// Where the setting is set with the greatest say, and what to.
    fn find<T: Value>(&mut self, entry: &Entry, rule: &Rule<T>) -> Option<(Origin, Result<T, String>)> {
        let mut found = self
            .in_file
            .remove(&(entry.section.to_owned(), entry.key.to_owned()))
            .map(|(value, line)| (self.at_line(line), T::from_toml(&value)));
        for (name, part) in &rule.aliases {
            // Many ways of starting a program pass a variable that is not set as an empty one.
            if let Some(text) = self.environment.get(*name).filter(|text| !text.is_empty()) {
                found = Some((Origin::Environment((*name).to_owned()), part(text).and_then(T::from_text)));
                break;
            }
        }
        let variable = entry.variable();
        if let Some(text) = self.environment.get(&variable) {
            found = Some((Origin::Environment(variable), T::from_text(text)));
        }
        found
    }

    /// Everything set that is no setting becomes a problem, with the nearest real one.
    pub(super) fn refuse_unknown(&mut self) {
        for ((section, key), (_, line)) in std::mem::take(&mut self.in_file) {
            let name = dotted(&section, &key);
            let message = format!("{name} is no setting{}", nearest(&name, self.entries.iter().map(Entry::name), ""));
            self.problems.push(Problem { origin: self.at_line(line), message });
        }
        let known: BTreeSet<String> = self.entries.iter().map(Entry::variable).collect();
        let is_ours = |name: &str| name.starts_with(PREFIX) && !OF_TOOLS.contains(&name);
        for name in self.environment.keys().filter(|name| is_ours(name) && !known.contains(*name)) {
            let meant = known.iter().find(|known| same_letters(known, name)).cloned();
            let hint = match &meant {
                Some(meant) => format!("; did you mean {meant}, with other underscores?"),
                None => nearest(name, known.iter().cloned(), PREFIX),
            };
            let problem = Problem { origin: Origin::Environment(name.clone()), message: format!("sets nothing{hint}") };
            // Orchestrators set names of their own below a service's: those are nobody's mistake, and stop nothing.
            let is_mistaken = name.contains("__") || (meant.is_some() && !self.is_service_link(name));
            if is_mistaken { self.problems.push(problem) } else { self.warnings.push(problem) }
        }
    }

    /// Whether Kubernetes, or Docker for linked containers, has made this variable: for a service called `antiphon-server`
    /// there are `ANTIPHON_SERVER_SERVICE_HOST`, `ANTIPHON_SERVER_PORT` = `tcp://10.0.0.1:3000` and
    /// `ANTIPHON_SERVER_PORT_3000_TCP_ADDR`, whatever we call our settings.
    fn is_service_link(&self, name: &str) -> bool {
        let is_address = |text: &String| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
        let is_of_service = |service: &str| self.environment.contains_key(&format!("{service}_SERVICE_HOST"));
        let value_says = self.environment.get(name).is_some_and(is_address);
        value_says || name.match_indices('_').any(|(place, _)| is_of_service(&name[..place]))
    }

    /// Pairs of variables that are both set for one setting and differ: the one in force and the one that isn't.
    pub(super) fn overridden(&self) -> Vec<(String, String)> {
        let set = |name: &str| self.environment.get(name).filter(|text| !text.is_empty());
        let own_and_aliases = self.entries.iter().flat_map(|entry| {
            let names = std::iter::once(entry.variable()).chain(entry.aliases.iter().map(|name| (*name).to_owned()));
            let mut named = names.filter(|name| set(name).is_some());
            let first = named.next();
            named.filter_map(move |name| first.clone().map(|first| (first, name))).collect::<Vec<_>>()
        });
        // A variable of several parts is not comparable with a setting of one.
        own_and_aliases.filter(|(one, other)| other != "WS_BIND_ADDR" && set(one) != set(other)).collect()
    }

    /// Where `section.key` was set.
    pub(super) fn origin(&self, section: &str, key: &str) -> Origin {
        let entry = self.entries.iter().find(|entry| entry.section == section && entry.key == key);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }
}

/// Whether two variables differ in their underscores alone.
fn same_letters(one: &str, other: &str) -> bool {
    let letters = |name: &'_ str| name.bytes().filter(|byte| *byte != b'_').collect::<Vec<_>>();
    letters(one) == letters(other)
}

/// "; did you mean …?", or nothing when nothing is near. A prefix that all share counts for nothing.
fn nearest(name: &str, known: impl Iterator<Item = String>, prefix: &str) -> String {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    known
        .map(|candidate| {
            let own = candidate.strip_prefix(prefix).unwrap_or(&candidate);
            (strsim::jaro_winkler(name, own), candidate)
        })
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean {candidate}?"))
}
