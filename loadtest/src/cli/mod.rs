//! The command line.

mod access;
mod cluster;
mod faults;
mod link;
mod load;
pub(crate) mod output;
mod play;
mod record;
mod report;
mod scale;

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
    /// Let many clients talk through a server, verify and count every frame, and measure what it cost
    Voice(Box<load::VoiceArguments>),
    /// The same against a bare relay in a process of its own: what forwarding costs at the least
    Floor(Box<load::FloorArguments>),
    /// Put together what the faults of several runs of `voice --fault … --json FILE` led to
    Faults(faults::FaultsArguments),
    /// Measure what a frame between two nodes costs, with real relays over sockets of this machine
    Link(link::LinkArguments),
    /// Say what a cluster too large to have would carry: computed, and simulated with real relays in virtual time
    Scale(scale::ScaleArguments),
    /// Be that relay (started by `floor` and `voice --floor`)
    #[command(hide = true)]
    Relay(load::RelayArguments),
}

impl Arguments {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Play(arguments) => block_on(arguments.run()),
            Command::Record(arguments) => block_on(arguments.run()),
            Command::Voice(arguments) => arguments.run(),
            Command::Floor(arguments) => arguments.run(),
            Command::Faults(arguments) => arguments.run(),
            Command::Link(arguments) => arguments.run(),
            Command::Scale(arguments) => arguments.run(),
            Command::Relay(arguments) => arguments.run(),
        }
    }
}

/// One client needs no more than this thread.
fn block_on(future: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
