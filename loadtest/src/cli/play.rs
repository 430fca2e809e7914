//! `play`: speak a file.

use std::{path::PathBuf, time::Duration};

use antiphon_loadtest::{
    audio::Source,
    play::{Played, play},
};
use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    access::{AccessArguments, ChannelArguments, join},
    output,
};

/// The arguments of `play`.
#[derive(Debug, Args)]
pub(crate) struct PlayArguments {
    /// An Ogg Opus file, whose packets are sent as they are, or a WAV file of 8 to 48 kHz
    file: PathBuf,
    #[command(flatten)]
    channel: ChannelArguments,
    #[command(flatten)]
    access: AccessArguments,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    channel: &'a str,
    user: &'a str,
    frames: u64,
    pauses: u64,
    seconds: f64,
    late_max_ms: f64,
    over_udp: bool,
    /// How often the connection was lost and the session resumed.
    resumed: u64,
}

impl PlayArguments {
    pub(crate) async fn run(self) -> Result<()> {
        let mut source = Source::open(&self.file).with_context(|| self.file.display().to_string())?;
        let mut joined = join(&self.access, &self.channel, Some(source.channels())).await?;
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        bar.enable_steady_tick(Duration::from_millis(200));
        let progress = |played: &Played| bar.set_message(format!("{} frames spoken", played.frames));
        let channel = joined.joined.channel_id;
        let played = play(&joined.client, &mut joined.events, channel, &mut source, progress).await;
        bar.finish_and_clear();
        let (played, stats) = (played?, joined.client.stats().await?);
        let summary = Summary {
            channel: &joined.joined.channel.name,
            user: &joined.client.user().username,
            frames: played.frames,
            pauses: played.pauses,
            seconds: played.samples as f64 / 48_000.0,
            late_max_ms: played.late_max.as_secs_f64() * 1_000.0,
            over_udp: stats.udp_works,
            resumed: played.resumed,
        };
        self.print(&summary)?;
        joined.client.close().await;
        Ok(())
    }

    fn print(&self, summary: &Summary<'_>) -> Result<()> {
        if self.json {
            output::result(format_args!("{}", serde_json::to_string(summary)?));
            return Ok(());
        }
        let Summary { channel, user, frames, seconds, late_max_ms, over_udp, resumed, .. } = summary;
        let way = if *over_udp { "UDP" } else { "the gateway" };
        output::result(format_args!(
            "{user} spoke {frames} frames ({seconds:.2} s) in {channel} over {way}, at most {late_max_ms:.1} ms late"
        ));
        if *resumed > 0 {
            output::note(format_args!(
                "the connection was lost and the session resumed ({resumed}×): a part was not heard"
            ));
        }
        Ok(())
    }
}
