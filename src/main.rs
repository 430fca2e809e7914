//! The command line: a thin way into the library.

use std::{
    fmt::Display,
    io::{self, Write as _},
    num::NonZero,
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use antiphon::{
    batch::{Batch, Wanted},
    doctor::{self, Probe},
    priority, server,
    settings::{self, Loaded, Problems, Settings},
    store::{NewAudit, Store, StoreError, User},
    streaming::waveform::Picture,
    transcode::{Bounds, Quality},
};
use antiphon_core::{gateway::Role, ids::UserId};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use tokio::runtime::Builder;
use uuid::Uuid;

/// Short-lived small buffers are most of what a voice server allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Antiphon, a voice server: voice channels over encrypted UDP, with accounts, an HTTP API and a WebSocket gateway.
///
/// Without any settings it serves this machine alone, with its data in ./antiphon-data. Settings come from
/// settings.toml and from environment variables such as ANTIPHON_SERVER__HOST; docs/configuration.md lists them all,
/// and `antiphon config` shows what is in force.
#[derive(Parser)]
#[command(name = "antiphon", version, max_term_width = 100)]
struct Arguments {
    /// The settings file [default: settings.toml here or in the data dir, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (what happens without a command, too). SIGTERM or Ctrl-C lets clients go elsewhere first; a
    /// second one ends it at once
    Serve,
    /// Print the settings in force as TOML, each with where it was set, secrets hidden
    Config {
        /// Only check them, and the files of certificates that they name: says what is wrong, if anything, and exits with 2
        /// then
        #[arg(long)]
        check: bool,
    },
    /// Look at everything that a node needs here (settings, ports, limits, Redis, database, clocks, addresses, secrets,
    /// certificate, disk) and say what to do about what is wrong. Changes nothing; exits with 1 where something is wrong
    Doctor {
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Ask the node that runs here, with these settings, how it is; exits with 1 unless well
    Health {
        /// What to ask
        #[arg(value_enum, default_value_t = Asked::Ready)]
        what: Asked,
    },
    /// Make Ogg Opus of all audio files of a folder, without a server. What is there already, newer than its file, is kept;
    /// exits with 1 where something could not be made
    Transcode {
        #[command(flatten)]
        folders: Folders,
        /// A quality to make; may be given several times
        #[arg(long, value_enum, default_values_t = [QualityName::Medium])]
        quality: Vec<QualityName>,
    },
    /// Make the waveforms of all audio files of a folder, without a server; otherwise as `transcode`
    Waveform {
        #[command(flatten)]
        folders: Folders,
        /// What to make; may be given several times
        #[arg(long, value_enum, default_values_t = [WaveformForm::Json])]
        format: Vec<WaveformForm>,
        /// A picture's width in pixels
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_096))]
        width: u32,
        /// A picture's height in pixels
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_024))]
        height: u32,
    },
    /// Change what accounts may do, also while the server runs
    #[command(subcommand)]
    Admin(Admin),
}

#[derive(clap::Args)]
struct Folders {
    /// The folder of the files, with its sub-folders
    #[arg(long, value_name = "FOLDER")]
    input_dir: PathBuf,
    /// Where what is made goes, in the same sub-folders
    #[arg(long, value_name = "FOLDER")]
    output_dir: PathBuf,
    /// Files at once [default: one on each processor]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZero<usize>>,
}

#[derive(Clone, Copy, ValueEnum)]
enum QualityName {
    /// 24 kbit/s, 32 in stereo
    Low,
    /// 40 kbit/s, 64 in stereo
    Medium,
    /// 72 kbit/s, 128 in stereo
    High,
}

#[derive(Clone, Copy, ValueEnum)]
enum WaveformForm {
    /// Numbers, as waveform viewers take them
    Json,
    /// A picture
    Png,
    /// A picture that scales
    Svg,
}

#[derive(Subcommand)]
enum Admin {
    /// Make an account an administrator
    Grant {
        /// The account's username
        name: String,
    },
    /// Make an administrator an ordinary account again
    Revoke {
        /// The account's username
        name: String,
        /// Also when it is the last one: nobody could administer the server then, until this command makes another
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Asked {
    /// Whether it works
    Live,
    /// Whether it takes new sessions
    Ready,
}

/// What is wrong with the settings ends the program with this, as wrong arguments do; everything else with 1.
const WRONG_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = settings::load(arguments.config.as_deref());
    if let Some(Command::Doctor { json }) = arguments.command {
        return ended(block_on(examine(loaded, json)));
    }
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems);
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    for warning in &loaded.warnings {
        complain(&format_args!("warning: {warning}"));
    }
    ended(match arguments.command {
        Some(Command::Config { check: true }) => return check(&loaded),
        Some(Command::Config { check: false }) => {
            say(&loaded.to_toml().trim_start());
            Ok(())
        }
        Some(Command::Health { what }) => block_on(ask(&loaded.settings, what)),
        Some(Command::Transcode { folders, quality }) => {
            let wanted = quality.into_iter().map(|quality| Wanted::Quality(quality.into()));
            batch(&loaded.settings, folders, wanted.collect(), (1_000, 200))
        }
        Some(Command::Waveform { folders, format, width, height }) => {
            let wanted = format.into_iter().map(Wanted::from);
            batch(&loaded.settings, folders, wanted.collect(), (width, height))
        }
        Some(Command::Admin(Admin::Grant { name })) => block_on(set_role(&loaded.settings, &name, Change::Grant)),
        Some(Command::Admin(Admin::Revoke { name, force })) => {
            block_on(set_role(&loaded.settings, &name, Change::Revoke { force }))
        }
        _ => serve(loaded.settings),
    })
}

fn ended(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&format_args!("antiphon: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a node. The media workers' threads come from this one, whose priority is the process's; the runtime's is lower.
fn serve(settings: Settings) -> Result<(), String> {
    let niceness = settings.server.niceness;
    let runtime = Builder::new_multi_thread().enable_all().on_thread_start(move || priority::lower(niceness)).build();
    runtime.map_err(no_threads)?.block_on(server::run(settings)).map_err(|error| error.to_string())
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    Builder::new_multi_thread().enable_all().build().map_err(no_threads)?.block_on(work)
}

fn no_threads(error: io::Error) -> String {
    format!("cannot start its threads: {error}")
}

async fn examine(loaded: Result<Loaded, Problems>, json: bool) -> Result<(), String> {
    let report = doctor::examine(loaded.as_ref()).await;
    if json {
        say(&serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        say(&report);
    }
    if report.is_well() { Ok(()) } else { Err("a node with these settings does not work here".to_owned()) }
}

async fn ask(settings: &Settings, what: Asked) -> Result<(), String> {
    let probe = match what {
        Asked::Live => Probe::Live,
        Asked::Ready => Probe::Ready,
    };
    match doctor::ask_own(settings, probe).await {
        Ok(None) => {
            say(&"ok");
            Ok(())
        }
        Ok(Some(wrong)) => Err(wrong),
        Err(error) => Err(error.to_string()),
    }
}

/// Says whether the settings, which are read already, and the files that they name are right.
fn check(loaded: &Loaded) -> ExitCode {
    if let Err(error) = server::check_files(&loaded.settings) {
        complain(&format_args!("antiphon: {error}"));
        return ExitCode::from(WRONG_SETTINGS);
    }
    match &loaded.file {
        Some(file) => say(&format_args!("the settings are right ({} and the environment)", file.display())),
        None => say(&"the settings are right (the environment; there is no settings file)"),
    }
    ExitCode::SUCCESS
}

impl From<QualityName> for Quality {
    fn from(name: QualityName) -> Self {
        match name {
            QualityName::Low => Self::Low,
            QualityName::Medium => Self::Medium,
            QualityName::High => Self::High,
        }
    }
}

impl From<WaveformForm> for Wanted {
    fn from(form: WaveformForm) -> Self {
        match form {
            WaveformForm::Json => Self::WaveformJson,
            WaveformForm::Png => Self::WaveformPng,
            WaveformForm::Svg => Self::WaveformSvg,
        }
    }
}

/// Makes something of a folder's files, within the server's own limits.
fn batch(settings: &Settings, folders: Folders, wanted: Vec<Wanted>, size: (u32, u32)) -> Result<(), String> {
    let Folders { input_dir, output_dir, jobs } = folders;
    let streaming = &settings.streaming;
    let run = Batch {
        wanted,
        jobs,
        picture: Picture { width: size.0, height: size.1, color: [0x3b, 0x82, 0xf6] },
        bounds: Bounds { sound: Duration::from_secs(streaming.transcode_sound_max_s.into()) },
        patience: Duration::from_secs(streaming.transcode_timeout_s.into()),
        ffmpeg: streaming.ffmpeg.clone(),
        output: output_dir,
        input: input_dir.clone(),
    };
    let summary = run.run().map_err(|error| format!("cannot read {}: {error}", input_dir.display()))?;
    say(&format_args!("{} made, {} there already, {} failed", summary.made, summary.kept, summary.failed));
    if summary.failed == 0 { Ok(()) } else { Err("not everything could be made; see above".to_owned()) }
}

/// What becomes of an account's role.
#[derive(Clone, Copy)]
enum Change {
    Grant,
    /// `force`d even if nobody is left who can administer.
    Revoke {
        force: bool,
    },
}

/// Changes the role of the account called `name`. A running server asks the database, so it counts at once.
async fn set_role(settings: &Settings, name: &str, change: Change) -> Result<(), String> {
    let no_database =
        |error: StoreError| format!("cannot open the database {}: {error}", settings.shown_database_url());
    if let Some(file) = settings.database_file().filter(|file| !file.exists()) {
        return Err(format!("there is no database {}: run the server once, with the same settings", file.display()));
    }
    let store = Store::open(&settings.database_url()).await.map_err(no_database)?;
    let outcome = set_role_in(&store, name, change).await;
    store.close().await;
    outcome
}

async fn set_role_in(store: &Store, name: &str, change: Change) -> Result<(), String> {
    let user = store.user_by_name(name).await.map_err(|error| error.to_string())?;
    let user = user.ok_or_else(|| format!("there is no account called {name:?}"))?;
    if user.is_guest {
        return Err(format!("{:?} is a guest: only accounts with a password can be administrators", user.username));
    }
    let (role, now) = match change {
        Change::Grant => (Role::Admin, "an administrator"),
        Change::Revoke { .. } => (Role::User, "an ordinary account"),
    };
    let name = &user.username;
    if user.role == role {
        say(&format_args!("{name} is {now} already"));
        return Ok(());
    }
    audit(store, &user, role).await.map_err(|error| format!("cannot write the audit log: {error}"))?;
    let done = match change {
        Change::Revoke { force: false } => store.revoke_admin(user.id).await,
        _ => store.set_role(user.id, role).await,
    };
    if !done.map_err(|error| error.to_string())? {
        return Err(format!(
            "{name} is the last administrator who can come in: make another one first (`antiphon admin grant NAME`), or \
             say --force"
        ));
    }
    say(&format_args!("{name} is {now} now"));
    Ok(())
}

/// Writes down what is about to be done: whoever may run this has no account that it could be told of, but for the nil id.
async fn audit(store: &Store, user: &User, role: Role) -> Result<(), StoreError> {
    let entry = NewAudit {
        actor: UserId(Uuid::nil()),
        actor_name: "the command line".to_owned(),
        action: "user.update",
        target: Some(user.id.to_string()),
        detail: json!({ "role": role }),
    };
    store.record_audit(entry).await
}

/// Ends the program where nobody takes what it says: without a word where they have what they wanted, as `head` has.
fn say(text: &dyn Display) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        if error.kind() != io::ErrorKind::BrokenPipe {
            complain(&format_args!("cannot write: {error}"));
        }
        process::exit(1);
    }
}

/// Nobody is told where even that cannot be said.
fn complain(text: &dyn Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
