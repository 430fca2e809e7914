//! What can be set, in `settings.toml` and the environment.
//!
//! Each setting is declared once, in `declaration.rs`. [`load`] reads them all, reports everything that is wrong at
//! once and touches nothing else: no port, no database. A value comes from, in this order, `ANTIPHON_SECTION__KEY`, the
//! other environment variables that name the same thing (`DATABASE_URL` …), the file, the default.

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
pub use local_state::{DataDirLock, LocalState, LocalStateError};
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

/// Reads the settings of this process: from `file`, else from `settings.toml` here or in the data dir, and the
/// environment.
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
    /// The file of the database, when it is one.
    #[must_use]
    pub fn database_file(&self) -> Option<PathBuf> {
        let url = self.database_url();
        let path = url.strip_prefix("sqlite:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        let (path, parameters) = path.split_once('?').unwrap_or((path, ""));
        let is_in_memory = path.is_empty() || path == ":memory:" || parameters.contains("mode=memory");
        (!is_in_memory).then(|| path.into())
    }

    /// The URL of the database: what is set, else SQLite in the data dir.
    #[must_use]
    pub fn database_url(&self) -> String {
        match &self.database.url {
            Some(url) => url.expose().to_owned(),
            None => format!("sqlite:{}", self.data_dir.join("antiphon.db").display()),
        }
    }

    /// The folder of audio files: what is set, else one in the data dir.
    #[must_use]
    pub fn audio_dir(&self) -> PathBuf {
        self.streaming.audio_dir.clone().unwrap_or_else(|| self.data_dir.join("audio"))
    }

    /// The folder of copies of the bucket's files: what is set, else one in the data dir.
    #[must_use]
    pub fn bucket_dir(&self) -> PathBuf {
        self.bucket.cache_dir.clone().unwrap_or_else(|| self.data_dir.join("bucket"))
    }

    /// The folder of what is made of audio files: what is set, else one in the data dir.
    #[must_use]
    pub fn made_dir(&self) -> PathBuf {
        self.streaming.made_dir.clone().unwrap_or_else(|| self.data_dir.join("made"))
    }

    /// The same for people to read: without a password.
    #[must_use]
    pub fn shown_database_url(&self) -> String {
        match &self.database.url {
            Some(url) => url.to_string(),
            None => self.database_url(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_both(file: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(Some((Path::new("settings.toml"), file)), &environment)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
        read_both(file, environment).expect_err("something is wrong")
    }

    #[test]
    fn without_any_settings_everything_has_its_default() {
        let settings = Settings::default();
        assert_eq!(settings.server.host.to_string(), "127.0.0.1");
        assert_eq!((settings.server.port, settings.server.websocket_port, settings.audio.udp_port), (3000, 3001, 3002));
        assert_eq!(settings.database_url(), "sqlite:antiphon-data/antiphon.db");
        assert!(settings.auth.guests && settings.auth.jwt_secret.is_none());
        let loaded = read_both("", &[]).expect("nothing is wrong with nothing");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn an_older_servers_file_is_read_as_it_is() {
        let file = "
            [server]
            host = \"127.0.0.1\"
            port = 3000
            websocket_port = 3001

            [audio]
            udp_port = 3002
            sample_rate = 48000
            channels = 2
            buffer_size = 1024
            max_packet_size = 1500

            [limits]
            max_users_per_channel = 12
            max_channels = 100
        ";
        let loaded = read_both(file, &[]).expect("all of it is known");
        assert_eq!(loaded.settings.limits.max_users_per_channel, 12);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn the_environment_counts_before_the_file_and_our_names_before_others() {
        let file = "[server]\nport = 1\nhost = \"10.0.0.1\"\n[audio]\nudp_port = 9";
        let loaded = read_both(file, &[("SERVER_PORT", "2"), ("SERVER_HOST", "::1"), ("ANTIPHON_SERVER__PORT", "3")])
            .expect("nothing is wrong");
        let Settings { server, audio, .. } = &loaded.settings;
        assert_eq!((server.port, server.host.to_string().as_str(), audio.udp_port), (3, "::1", 9));
        let origin = |name: &str| {
            let entry = loaded.entries.iter().find(|entry| entry.name() == name).expect("a setting");
            entry.origin.to_string()
        };
        assert_eq!(origin("server.port"), "environment variable ANTIPHON_SERVER__PORT");
        assert_eq!(origin("server.host"), "environment variable SERVER_HOST");
        assert_eq!(origin("audio.udp_port"), "settings.toml line 5");
        assert_eq!(origin("media.workers"), "default");
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "environment variable SERVER_PORT: is not used, because ANTIPHON_SERVER__PORT is set too and says otherwise"
            ]
        );
    }

    #[test]
    fn each_older_variable_is_understood() {
        let loaded = read_both(
            "",
            &[
                ("STREAM_SERVER_PORT", "8082"),
                ("WS_BIND_ADDR", "0.0.0.0:9001"),
                ("DATABASE_URL", "postgres://anna:pass@db/antiphon"),
                ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
                ("JWT_EXPIRY_SECONDS", "60"),
                ("SECRET_KEY", "k"),
                ("ROOM_TTL_SECONDS", "10"),
                ("STUN_SERVER", "stun:s"),
                ("TURN_SERVER", "turn:t"),
                ("TURN_SECRET", "s"),
                ("AUDIO_DIR", "./audio"),
                ("ALLOWED_ORIGINS", "https://a.example, https://b.example"),
                ("MAX_FILE_SIZE", "1"),
                ("MAX_RANGE_SIZE", "2"),
                ("CACHE_MAX_SIZE_MB", "3"),
                ("REDIS_URL", ""),
                ("ANTIPHON_DATA_DIR", "/var/lib/antiphon"),
            ],
        )
        .expect("all of it is known");
        let Settings { server, auth, http, streaming, rooms, .. } = &loaded.settings;
        assert_eq!((server.port, server.websocket_port), (8082, 9001));
        assert_eq!(server.websocket_host.expect("set").to_string(), "0.0.0.0");
        assert_eq!(loaded.settings.database_url(), "postgres://anna:pass@db/antiphon");
        assert_eq!(auth.access_token_ttl_s, 60);
        assert_eq!(http.allowed_origins, ["https://a.example", "https://b.example"]);
        assert_eq!((streaming.cache_max_size_mb, rooms.ttl_s), (3, 10));
        assert_eq!((streaming.max_file_size_bytes, streaming.max_range_size_bytes), (1, 2));
        assert_eq!(streaming.secret.as_ref().expect("set").expose(), "k");
        assert_eq!(loaded.settings.audio_dir(), Path::new("./audio"));
        assert_eq!(loaded.settings.data_dir, Path::new("/var/lib/antiphon"));
        assert!(
            loaded.warnings.iter().any(|warning| warning.to_string().contains("streaming.secret is shorter")),
            "what can be guessed is said: {:?}",
            loaded.warnings
        );
    }

    #[test]
    fn everything_wrong_is_reported_at_once_with_its_place() {
        let file = "\
[server]
prot = 3000
websocket_port = \"3001\"
[audio]
channels = 7
[sever]
host = \"127.0.0.1\"
[limits]
max_channels = 4_294_967_296
";
        let found = problems(
            file,
            &[("ANTIPHON_AUDIO__UDP_PROT", "1"), ("JWT_EXPIRY_SECONDS", "soon"), ("ANTIPHON_AUTH__GUESTS", "perhaps")],
        );
        assert_eq!(
            found,
            [
                "settings.toml line 3: server.websocket_port must be a whole number, not a TOML string",
                "settings.toml line 5: audio.channels must be 1 or 2, not 7",
                "settings.toml line 9: limits.max_channels must be a whole number from 0 to 4294967295, not 4294967296",
                "environment variable ANTIPHON_AUTH__GUESTS: auth.guests must be true or false, not \"perhaps\"",
                "environment variable JWT_EXPIRY_SECONDS: auth.access_token_ttl_s must be a whole number from 0 to 4294967295, not \"soon\"",
                "settings.toml line 2: server.prot is no setting; did you mean server.port?",
                "settings.toml line 7: sever.host is no setting; did you mean server.host?",
                "environment variable ANTIPHON_AUDIO__UDP_PROT: sets nothing; did you mean ANTIPHON_AUDIO__UDP_PORT?",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_a_problem_with_a_line() {
        let found = problems("[server]\nport = 3000\nhost = \n", &[]);
        assert!(found[0].starts_with("settings.toml line 3: "), "{found:?}");
    }

    #[test]
    fn settings_must_agree_with_each_other() {
        for (file, wrong) in [
            ("[server]\nport = 3001", "server.websocket_port must differ from server.port"),
            ("[cluster]\nhttp_url = \"voice.example.org\"", "an http or https URL"),
            ("[auth]\nissuer = \"https://id.example\"", "needs auth.issuer_jwks"),
            ("[auth]\nissuer_jwks = \"keys.json\"", "needs auth.issuer,"),
            ("[auth]\nissuer = \"i\"\nissuer_jwks = \"http://id.example/keys\"", "must be an https URL"),
            ("[server]\ntls_certificate = \"a.pem\"", "needs server.tls_key"),
            ("[server]\ntls_key = \"a.pem\"", "needs server.tls_certificate"),
            ("[auth]\njwt_secret_previous = \"0123456789abcdef0123456789abcdef\"", "needs auth.jwt_secret"),
            ("[limits]\nmax_users_ceiling = 5", "must not be above limits.max_users_ceiling"),
            ("[log]\nlevel = \"a=b=c\"", "must be levels (off, error,"),
            ("[http]\nallowed_origins = [\"https://a.example/\"]", "without a path"),
            ("[database]\nurl = \"mysql://localhost/x\"", "must be a sqlite: or postgres: URL"),
        ] {
            let found = problems(file, &[]);
            assert!(found.len() == 1 && found[0].contains(wrong), "{file}: {found:?}");
        }
        for (file, wrong) in [
            ("[redis]\nurl = \"redis://localhost:6379\"", "needs a database that all nodes share"),
            ("[redis]\nurl = \"redis://localhost:6379\"", "needs cluster.secret"),
            ("[redis]\nurl = \"redis://localhost:6379\"", "needs auth.jwt_secret"),
            ("[redis]\nurl = \"redis://localhost\"\n[cluster]\nsecret = \"short\"", "at least 32 bytes"),
            ("[redis]\nurl = \"redis://localhost\"\n[server]\nhost = \"0.0.0.0\"", "cluster.advertise must be set"),
            ("[redis]\nurl = \"redis-://localhost\"", "must be a redis:, rediss:,"),
        ] {
            let found = problems(file, &[]);
            assert!(found.iter().any(|problem| problem.contains(wrong)), "{file}: {found:?}");
        }
        for right in [
            "[server]\nport = 0\nwebsocket_port = 0",
            "[auth]\nissuer = \"i\"\nissuer_jwks = \"http://127.0.0.1:8080/keys\"",
            "[auth]\nissuer = \"i\"\nissuer_jwks = \"https://id.example/keys\"",
            "[redis]\nurl = \"rediss-sentinel://:pass@one:26379?sentinelServiceName=voice\"\n[database]\nurl = \
             \"postgres://db/antiphon\"\n[cluster]\nsecret = \"0123456789abcdef0123456789abcdef\"\n[auth]\njwt_secret = \
             \"0123456789abcdef0123456789abcdef\"",
        ] {
            read_both(right, &[]).expect("nothing is wrong");
        }
    }

    #[test]
    fn a_list_in_a_variable_has_commas_or_the_files_form() {
        for text in ["a.example:1, b.example:2", r#"["a.example:1", "b.example:2"]"#] {
            let loaded = read_both("", &[("ANTIPHON_AUDIO__ADVERTISE", text)]).expect("read");
            assert_eq!(loaded.settings.audio.advertise, ["a.example:1", "b.example:2"], "{text}");
        }
        assert!(!problems("", &[("ANTIPHON_AUDIO__ADVERTISE", "[\"a.example:1\"")]).is_empty());
        assert!(!problems("", &[("ANTIPHON_AUDIO__ADVERTISE", "[1]")]).is_empty());
    }

    #[test]
    fn a_database_may_be_a_file() {
        for (url, file) in [
            ("sqlite:a/b.db", Some("a/b.db")),
            ("sqlite:///a/b.db?mode=rwc", Some("/a/b.db")),
            ("sqlite::memory:", None),
            ("postgres://db/antiphon", None),
        ] {
            let loaded = read_both("", &[("DATABASE_URL", url)]).expect("nothing is wrong");
            assert_eq!(loaded.settings.database_file(), file.map(PathBuf::from), "{url}");
        }
        assert_eq!(Settings::default().database_file(), Some("antiphon-data/antiphon.db".into()));
    }

    #[test]
    fn what_kubernetes_sets_by_itself_stops_nothing() {
        let loaded = read_both("", &[("ANTIPHON_PORT", "tcp://10.0.0.1:3000")]).expect("only a warning");
        assert!(loaded.warnings[0].to_string().contains("ANTIPHON_PORT: sets nothing"), "{:?}", loaded.warnings);
        // All that it sets for a service called antiphon-server, whose name begins like our settings'.
        let of_service = [
            ("ANTIPHON_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("ANTIPHON_SERVER_SERVICE_PORT", "3000"),
            ("ANTIPHON_SERVER_SERVICE_PORT_HTTP", "3000"),
            ("ANTIPHON_SERVER_PORT", "tcp://10.0.0.1:3000"),
            ("ANTIPHON_SERVER_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
            ("ANTIPHON_SERVER_PORT_3000_TCP_PROTO", "tcp"),
            ("ANTIPHON_SERVER_PORT_3000_TCP_PORT", "3000"),
            ("ANTIPHON_SERVER_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ];
        let loaded = read_both("", &of_service).expect("only warnings");
        assert_eq!((loaded.warnings.len(), loaded.settings.server.port), (8, 3_000), "{:?}", loaded.warnings);
        // Not even where a service's variable has all letters of a setting's.
        let host = [("ANTIPHON_SERVER_SERVICE_HOST", "10.0.0.1"), ("ANTIPHON_SERVER_HOST", "web")];
        assert_eq!(read_both("", &host).expect("only warnings").warnings.len(), 2);
    }

    #[test]
    fn one_underscore_where_two_belong_is_a_mistake() {
        for (variable, meant) in [
            ("ANTIPHON_SERVER_PORT", "ANTIPHON_SERVER__PORT"),
            ("ANTIPHON_SERVER___PORT", "ANTIPHON_SERVER__PORT"),
            ("ANTIPHON_CLUSTER_NODE_ID", "ANTIPHON_CLUSTER__NODE_ID"),
            ("ANTIPHON_DATADIR", "ANTIPHON_DATA_DIR"),
        ] {
            let told =
                format!("environment variable {variable}: sets nothing; did you mean {meant}, with other underscores?");
            assert_eq!(problems("", &[(variable, "4000")]), [told]);
        }
        read_both("", &[("ANTIPHON_DATA_DIR", "data")]).expect("a setting above all sections");
        assert_eq!(
            problems("", &[("ANTIPHON_FOO__BAR", "1")]),
            ["environment variable ANTIPHON_FOO__BAR: sets nothing"],
            "nothing is near"
        );
        let loaded = read_both("", &[("ANTIPHON_PLATE", "12")]).expect("anybody's");
        assert_eq!(loaded.warnings.len(), 1);
        let of_tools = [("ANTIPHON_URL", "http://127.0.0.1:3000"), ("ANTIPHON_CLUSTER_PORT", "4000")];
        assert_eq!(read_both("", &of_tools).expect("what our own tools read").warnings.len(), 0);
    }

    #[test]
    fn an_empty_variable_takes_back_what_the_file_set_but_a_foreign_one_does_nothing() {
        let file = "[database]\nurl = \"sqlite:a.db\"\n[audio]\nadvertise = [\"a:1\"]";
        let loaded =
            read_both(file, &[("DATABASE_URL", ""), ("ANTIPHON_AUDIO__ADVERTISE", "")]).expect("nothing is wrong");
        assert_eq!(loaded.settings.database_url(), "sqlite:a.db");
        assert!(loaded.settings.audio.advertise.is_empty());
        let loaded = read_both(file, &[("ANTIPHON_DATABASE__URL", "")]).expect("nothing is wrong");
        assert!(loaded.settings.database.url.is_none());
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let file = "
            [auth]
            jwt_secret = \"hunter2hunter2\"
            [database]
            url = \"postgres://anna:hunter2@db/antiphon\"
            [metrics]
            token = \"hunter2\"
            [cluster]
            secret = \"hunter2\"
            [streaming]
            secret = \"hunter2\"
        ";
        let loaded = read_both(file, &[]).expect("nothing is wrong");
        for shown in [loaded.to_toml(), format!("{loaded:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for wrong in
            ["[auth]\njwt_secret = \"hunter2", "[metrics]\ntoken = [\"hunter2\"]", "[database]\nurl = \"hunter2\""]
        {
            let found = problems(wrong, &[]);
            assert!(!found.concat().contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let file = "[server]\nport = 4000\ntrusted_proxies = [\"10.0.0.0/8\"]\n[log]\nformat = \"json\"";
        let shown = read_both(file, &[]).expect("nothing is wrong").to_toml();
        assert!(shown.contains("port = 4000 # settings.toml line 2"), "{shown}");
        assert!(shown.contains("# jwt_secret # not set: generated in antiphon-data/jwt_secret"), "{shown}");
        let again = read_both(&shown, &[]).expect("it is a settings file");
        assert_eq!(again.settings.server.port, 4000);
        assert_eq!(again.settings.log.format, LogFormat::Json);
    }

    #[test]
    fn the_document_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let current = documentation();
        if std::env::var_os("ANTIPHON_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &current).expect("docs/ can be written");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == current,
            "docs/configuration.md is out of date: ANTIPHON_UPDATE_DOCS=1 cargo test -p antiphon --lib settings"
        );
    }

    #[test]
    fn every_setting_says_what_it_is() {
        for entry in read_both("", &[]).expect("nothing is wrong").entries {
            assert!(entry.doc.ends_with('.'), "{} has a sentence: {:?}", entry.name(), entry.doc);
        }
    }

    #[test]
    fn a_bucket_is_named_in_whole_or_not_at_all() {
        let keys =
            [("endpoint", "https://s3.example.org"), ("name", "our-audio"), ("access_key", "a"), ("secret_key", "b")];
        let file = |without: &str, more: &str| {
            let lines = keys.iter().filter(|(key, _)| *key != without);
            lines.fold("[bucket]\n".to_owned(), |file, (key, value)| file + &format!("{key} = \"{value}\"\n")) + more
        };
        let whole = read_both(&file("", "prefix = \"a b/c/\""), &[]).expect("whole").settings;
        assert_eq!(whole.bucket_dir(), Path::new("antiphon-data/bucket"));
        assert!(!format!("{:?}", whole.bucket).contains("\"b\""), "the secret is hidden");
        for (without, more, expected) in [
            ("endpoint", "", "bucket.name needs bucket.endpoint"),
            ("name", "", "bucket.endpoint needs bucket.name"),
            ("secret_key", "", "bucket.endpoint needs bucket.secret_key"),
            ("name", "name = \"Our_Audio\"", "lower-case letters"),
            ("name", "name = \"our.audio\"\nvirtual_host = true", "bucket.virtual_host cannot be"),
            ("", "prefix = \"no-slash\"", "end with a slash"),
            ("", "prefix = \"a/../b/\"", "end with a slash"),
            ("", "cache_max_size_mb = 99", "bucket.cache_max_size_mb must hold"),
            ("", "cache_dir = \"antiphon-data/audio\"", "bucket.cache_dir must be a folder of its own"),
        ] {
            let found = problems(&file(without, more), &[]).join("\n");
            assert!(found.contains(expected), "{without} {more}: {found}");
        }
    }
}
