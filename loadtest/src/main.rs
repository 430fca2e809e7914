//! `antiphon-loadtest`: plays into a channel, records what is heard there, and measures servers.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            cli::output::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
