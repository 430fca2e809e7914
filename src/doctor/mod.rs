//! `antiphon doctor`: looks at everything that a node needs and says what is wrong with it and what to do. It changes
//! nothing, and a node may run beside it.
//!
//! Each file is a group of checks, which adds what it finds to the [`Report`].

mod addresses;
mod bucket;
mod files;
mod machine;
mod notify;
mod own;
mod ports;
mod report;
mod secrets;
mod shared;

pub use self::{
    own::{Probe, ask_own},
    report::{Finding, Report, Verdict},
};
use crate::settings::{Loaded, Problems};

/// Looks at everything. Where the settings are wrong there is nothing else to look at.
pub async fn examine(loaded: Result<&Loaded, &Problems>) -> Report {
    let mut report = Report::default();
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(Problems(problems)) => {
            let mut group = report.group("settings");
            for problem in problems {
                group.fail(problem.to_string(), "docs/configuration.md lists every setting");
            }
            return report;
        }
    };
    settings(loaded, &mut report);
    let settings = &loaded.settings;
    secrets::examine(settings, &mut report);
    files::examine(settings, &mut report);
    machine::examine(settings, &mut report);
    ports::examine(settings, &mut report).await;
    addresses::examine(settings, &mut report).await;
    shared::examine(settings, &mut report).await;
    bucket::examine(settings, &mut report).await;
    notify::examine(settings, &mut report).await;
    report
}

fn settings(loaded: &Loaded, report: &mut Report) {
    let mut group = report.group("settings");
    match &loaded.file {
        Some(file) => group.ok(format!("{} and the environment", file.display())),
        None => group.ok("the environment; there is no settings file"),
    }
    for warning in &loaded.warnings {
        group.warn(warning.to_string(), "`antiphon config` shows what is in force and where it was set");
    }
}
