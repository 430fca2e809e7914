//! `record`: write what is heard.

use std::{path::PathBuf, time::Duration};

use antiphon_core::{clock::Micros, gateway::ServerMessage};
use antiphon_loadtest::{
    client::{ClientEvent, ClientStats},
    gateway::Closed,
    parse_duration,
    record::{Recorded, Recorder, TICK},
};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::{
    access::{AccessArguments, ChannelArguments, Joined, join},
    output,
};

/// The arguments of `record`.
#[derive(Debug, Args)]
pub(crate) struct RecordArguments {
    #[command(flatten)]
    channel: ChannelArguments,
    /// Where to: NAME.ogg keeps the Opus packets bit for bit (several speakers: NAME-<user>.ogg each), NAME.wav is the
    /// decoded mix
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// End once somebody has spoken and then nobody for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration)]
    until_silence: Option<Duration>,
    /// End after so many frames
    #[arg(long, value_name = "COUNT")]
    frames: Option<u64>,
    /// Print frames, lost, late and duplicates
    #[arg(long)]
    stats: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArguments,
}

#[derive(Serialize)]
struct Summary {
    files: Vec<PathBuf>,
    speakers: usize,
    frames: u64,
    lost: u64,
    late: u64,
    duplicates: u64,
    over_gateway: u64,
    over_udp: bool,
    /// How often the connection was lost and the session resumed.
    resumed: u64,
}

impl RecordArguments {
    pub(crate) async fn run(self) -> Result<()> {
        // First, so that nobody listens for what cannot be kept.
        let mut recorder = Recorder::new(&self.out)?;
        let mut joined = join(&self.access, &self.channel, None).await?;
        for (stream, username) in joined.names() {
            recorder.name(stream, username);
        }
        let user = &joined.client.user().username;
        output::note(format_args!("{user} listens in {}; interrupt to end", joined.joined.channel.name));
        let mut way = Way::default();
        let closed = self.listen(&mut joined, &mut recorder, &mut way).await?;
        let stats = joined.client.stats().await.unwrap_or_default();
        let recorded = recorder.finish(joined.client.clock().now(), stats.reception.duplicates)?;
        joined.client.close().await;
        if recorded.speakers == 0 {
            bail!("nothing was heard");
        }
        self.print(recorded, stats, way.resumed)?;
        match closed {
            Some(closed) => bail!("the recording ends early, the session was closed: {closed}"),
            None if way.is_lost => bail!("the recording ends early, the connection was lost"),
            None => Ok(()),
        }
    }

    /// Records until an end is reached; `Some` when the server was the reason.
    async fn listen(&self, joined: &mut Joined, recorder: &mut Recorder, way: &mut Way) -> Result<Option<Closed>> {
        let clock = joined.client.clock();
        let begun = clock.now();
        let mut tick = tokio::time::interval(Duration::from_micros(TICK.0));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        let mut interrupted = std::pin::pin!(interrupted()?);
        loop {
            tokio::select! {
                event = joined.events.recv() => match event {
                    Some(ClientEvent::Frame(frame)) => recorder.push(&frame)?,
                    Some(ClientEvent::Closed(closed)) => return Ok(Some(closed)),
                    Some(ClientEvent::Message(message)) => match *message {
                        ServerMessage::UserJoined(user) => recorder.name(user.stream_id, &user.user.username),
                        ServerMessage::Removed(_) => bail!("removed from the channel"),
                        _ => {}
                    },
                    Some(ClientEvent::Disconnected) => way.lost(),
                    Some(ClientEvent::Resumed(_)) => way.had_again(clock.now()),
                    Some(ClientEvent::UdpWorks(_)) => {}
                    None => bail!("the session is over"),
                },
                _ = tick.tick() => {
                    let now = clock.now();
                    recorder.tick(now)?;
                    bar.set_message(format!("{} frames heard", recorder.arrived()));
                    bar.tick();
                    if self.is_over(now - begun, now, recorder, way) {
                        break;
                    }
                }
                () = &mut interrupted => break,
            }
        }
        bar.finish_and_clear();
        Ok(None)
    }

    fn is_over(&self, lasted: Micros, now: Micros, recorder: &Recorder, way: &Way) -> bool {
        let micros = |duration: Duration| Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        let silent = |limit| way.silence(now, recorder.last_arrival()).is_some_and(|lasted| lasted >= micros(limit));
        self.duration.is_some_and(|limit| lasted >= micros(limit))
            || self.until_silence.is_some_and(silent)
            || self.frames.is_some_and(|limit| recorder.arrived() >= limit)
    }

    fn print(&self, recorded: Recorded, stats: ClientStats, resumed: u64) -> Result<()> {
        let Recorded { files, speakers, frames, lost, late, duplicates } = recorded;
        let summary = Summary {
            files,
            speakers,
            frames,
            lost,
            late,
            duplicates,
            over_gateway: stats.tunnelled,
            over_udp: stats.udp_works,
            resumed,
        };
        if self.json {
            output::result(format_args!("{}", serde_json::to_string(&summary)?));
            return Ok(());
        }
        for file in &summary.files {
            output::result(format_args!("{}", file.display()));
        }
        if self.stats {
            let (gateway, noun) = (summary.over_gateway, if speakers == 1 { "speaker" } else { "speakers" });
            output::result(format_args!(
                "{frames} frames of {speakers} {noun}, {lost} lost, {late} late, {duplicates} duplicates, {gateway} over the gateway"
            ));
        }
        Ok(())
    }
}

/// The connection that frames come by: whoever is cut off hears nothing, which is no silence.
#[derive(Debug, Default)]
struct Way {
    is_lost: bool,
    had_again_at: Option<Micros>,
    resumed: u64,
}

impl Way {
    fn lost(&mut self) {
        self.is_lost = true;
        output::note(format_args!("the connection is lost; trying to resume the session"));
    }

    fn had_again(&mut self, now: Micros) {
        self.is_lost = false;
        self.had_again_at = Some(now);
        self.resumed += 1;
        output::note(format_args!("the session is resumed"));
    }

    /// For how long nobody has spoken whom one could have heard; `None` when that is not known, or nobody has spoken yet.
    fn silence(&self, now: Micros, last_arrival: Option<Micros>) -> Option<Micros> {
        let last = last_arrival.filter(|_| !self.is_lost)?;
        Some(now - self.had_again_at.map_or(last, |again| again.max(last)))
    }
}

/// Ends when the user or the system asks for it.
fn interrupted() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_no_silence() {
        let at = Micros::from_millis;
        let mut way = Way::default();
        assert_eq!(way.silence(at(9_000), None), None, "nobody has spoken yet");
        assert_eq!(way.silence(at(9_000), Some(at(8_000))), Some(at(1_000)));
        way.lost();
        assert_eq!(way.silence(at(20_000), Some(at(8_000))), None);
        way.had_again(at(20_000));
        assert_eq!(way.silence(at(21_000), Some(at(8_000))), Some(at(1_000)), "since one hears again");
        assert_eq!(way.silence(at(23_000), Some(at(22_500))), Some(at(500)));
    }
}
