//! The command line.

mod access;
pub(crate) mod output;
mod play;
mod record;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Plays into channels of an Antiphon server, records what is heard there, and measures it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speak an Ogg Opus or WAV file in a channel, in real time
    Play(play::PlayArguments),
    /// Write what is heard in a channel into a file
    Record(record::RecordArguments),
}

impl Arguments {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Play(arguments) => block_on(arguments.run()),
            Command::Record(arguments) => block_on(arguments.run()),
        }
    }
}

/// One client needs no more than this thread.
fn block_on(future: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)?;
    Ok(ExitCode::SUCCESS)
}
