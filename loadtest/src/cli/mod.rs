//! The command line.

mod access;
mod beside;
mod cluster;
mod compare;
mod faults;
mod link;
mod load;
mod measuring;
pub(crate) mod output;
mod play;
mod progress;
mod record;
mod report;
mod run;
mod scale;
mod speech;
mod target;

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
    /// Carry out a scenario: phases of talking, churn, storms, faults, scrapes and bad networks
    Run(Box<run::RunArguments>),
    /// Carry out the scenario `churn`: people come and go while others talk
    Churn(Box<run::RunOptions>),
    /// Carry out the scenario `storm`: hundreds join within a second
    Storm(Box<run::RunOptions>),
    /// Carry out the scenario `mixed`: what a server sees in daily life
    Mixed(Box<run::RunOptions>),
    /// Carry out the scenario `webrtc`: one talks, two hundred hear as browsers do
    Webrtc(Box<run::RunOptions>),
    /// Carry out the scenario `chat`: a thousand in one room read what twenty write
    Chat(Box<run::RunOptions>),
    /// Carry out the scenario `stream`: audio files at full rate beside conversations
    Stream(Box<run::RunOptions>),
    /// Carry out the scenario `soak`: half an hour in which nothing may grow
    Soak(Box<run::RunOptions>),
    /// Compare what two runs of a scenario wrote with --json
    Compare(compare::CompareArguments),
    /// The same as `voice` against a bare relay in a process of its own: what forwarding costs at the least
    Floor(Box<load::FloorArguments>),
    /// Put together what the faults of several runs of `voice --fault … --json FILE` led to
    Faults(faults::FaultsArguments),
    /// Measure what a frame between two nodes costs, with real relays over sockets of this machine
    Link(link::LinkArguments),
    /// Say what a cluster too large to have would carry: computed, and simulated with real relays in virtual time
    Scale(scale::ScaleArguments),
    /// Send a voice through bad networks in virtual time, and say how like itself it is with and without the server's advice
    Speech(speech::SpeechArguments),
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
            Command::Run(arguments) => arguments.run(),
            Command::Churn(options) => options.run_preset("churn"),
            Command::Storm(options) => options.run_preset("storm"),
            Command::Mixed(options) => options.run_preset("mixed"),
            Command::Webrtc(options) => options.run_preset("webrtc"),
            Command::Chat(options) => options.run_preset("chat"),
            Command::Stream(options) => options.run_preset("stream"),
            Command::Soak(options) => options.run_preset("soak"),
            Command::Compare(arguments) => arguments.run(),
            Command::Floor(arguments) => arguments.run(),
            Command::Faults(arguments) => arguments.run(),
            Command::Link(arguments) => arguments.run(),
            Command::Scale(arguments) => arguments.run(),
            Command::Speech(arguments) => arguments.run(),
            Command::Relay(arguments) => arguments.run(),
        }
    }
}

/// What could be done about an error, where it does not say so itself.
pub(crate) fn hint(error: &str) -> Option<&'static str> {
    error
        .contains("invalid peer certificate")
        .then_some("--ca FILE names the certificate of who signed the server's; --insecure believes any server")
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
