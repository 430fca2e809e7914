//! `antiphon-loadtest`: plays into a channel, records what is heard there, and measures servers.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// What is logged unless `RUST_LOG` says otherwise. Why a certificate is not believed is in the error, which says what to do.
const LOGGED: &str = "warn,rustls_platform_verifier=off";

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| LOGGED.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            let said = format!("error: {error:#}");
            cli::output::note(format_args!("{said}"));
            if let Some(hint) = cli::hint(&said) {
                cli::output::note(format_args!("{hint}"));
            }
            ExitCode::FAILURE
        }
    }
}
