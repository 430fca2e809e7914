//! What can be set, in `settings.toml` and the environment.
//!
//! Each setting is declared once, in `declaration.rs`. [`load`] reads them all, reports everything that is wrong at once and
//! touches nothing else: no port, no database. A value comes from, in this order, `ANTIPHON_SECTION__KEY`, the other environment
//! variables that name the same thing (`DATABASE_URL` …), the file, the default.

mod check;
mod declaration;
mod local_state;
mod reader;
mod show;
mod types;
mod value;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

pub use declaration::{
    Audio, Auth, Cluster, Database, Http, Limits, Log, Media, Metrics, Redis, Rooms, Server, Settings, Streaming,
};
pub use local_state::{LocalState, LocalStateError};
pub use reader::{Entry, Origin, Problem};
pub use show::documentation;
pub use types::{ConnectionUrl, LogFormat, Network, Secret};

use reader::Reader;

/// The settings' usual file name.
pub const FILE_NAME: &str = "settings.toml";

/// The settings in force, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub settings: Settings,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Every setting with its origin.
    pub entries: Vec<Entry>,
    /// What is not wrong but not right either.
    pub warnings: Vec<Problem>,
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong in the settings:", if self.0.len() == 1 { "one thing is" } else { "these things are" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Reads the settings of this process: from `file`, else from `settings.toml` here or in the data dir, and the environment.
///
/// # Errors
/// Everything that is wrong, at once. A `file` that was named must exist; the others need not.
pub fn load(file: Option<&Path>) -> Result<Loaded, Problems> {
    let mut environment = BTreeMap::new();
    let mut unreadable = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => drop(environment.insert(name, value)),
            Err(_) if name.starts_with("ANTIPHON_") => {
                unreadable.push(Problem { origin: Origin::Environment(name), message: "is not UTF-8".to_owned() });
            }
            Err(_) => {}
        }
    }
    let chosen = file.map(Path::to_owned).or_else(|| usual_file(&environment));
    let text = match &chosen {
        None => None,
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                let message = format!("cannot read the settings file {}: {error}", path.display());
                unreadable.push(Problem { origin: Origin::Default, message });
                None
            }
        },
    };
    let file = chosen.as_deref().zip(text.as_deref());
    match read(file, &environment) {
        Ok(loaded) if unreadable.is_empty() => Ok(loaded),
        Ok(_) => Err(Problems(unreadable)),
        Err(Problems(more)) => Err(Problems(unreadable.into_iter().chain(more).collect())),
    }
}

/// `settings.toml` here, else in the data dir, whichever there is.
fn usual_file(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let data_dir = environment.get("ANTIPHON_DATA_DIR").map_or_else(|| Settings::default().data_dir, PathBuf::from);
    [PathBuf::from(FILE_NAME), data_dir.join(FILE_NAME)].into_iter().find(|path| path.is_file())
}

/// Reads the settings from a file's text and an environment.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn read(file: Option<(&Path, &str)>, environment: &BTreeMap<String, String>) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(file, environment);
    let settings = Settings::read(&mut reader);
    reader.refuse_unknown();
    check::cross_checks(&settings, &mut reader);
    let Reader { entries, problems, warnings, .. } = reader;
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    Ok(Loaded { settings, file: file.map(|(path, _)| path.to_owned()), entries, warnings })
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(&mut Reader::new(None, &BTreeMap::new()))
    }
}

impl Settings {
    /// The URL of the database: what is set, else SQLite in the data dir.
    #[must_use]
    pub fn database_url(&self) -> String {
        match &self.database.url {
            Some(url) => url.expose().to_owned(),
            None => format!("sqlite:{}", self.data_dir.join("antiphon.db").display()),
        }
    }
}
