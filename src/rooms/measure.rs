//! What channels are like right now on this node.

use std::collections::{BTreeSet, HashSet};

use antiphon_core::ids::{ChannelId, NodeNumber, UserId};
use serde::{Deserialize, Serialize};

use super::{Rooms, room::Room, stats::Totals};
use crate::{cluster::VoiceSums, error::AppError};

/// How much the last second counts in what is shown of a channel's share of the work.
const WORK_WEIGHT: f64 = 0.3;

/// All channels with members here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomsFigures {
    /// Channels of which this is the first node, by number.
    pub channels: u32,
    /// People here: who is in several channels counts once.
    pub people: u32,
    /// What is measured of their voice.
    pub voice: VoiceSums,
}

/// A channel's members on one node, or the sums over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelFigures {
    /// Members here.
    pub members: u32,
    /// Of those, in a talk spurt.
    pub speaking: u32,
    /// Of those, who hear a mix instead of streams.
    pub mixed: u32,
    /// Those who hear the mix without being in the channel.
    pub listeners: u32,
    /// What is measured of the members' voice.
    pub voice: VoiceSums,
    /// The share of one processor that the channel's frames take, in percent.
    pub cpu_percent: f64,
}

/// How much of the media workers' time a channel takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Frames in and out when that was last looked at.
    frames: u64,
    cpu_percent: f64,
}

impl Work {
    /// How many frames came since the last time.
    fn advance(&mut self, frames: u64) -> u64 {
        let more = frames.saturating_sub(self.frames);
        self.frames = frames;
        more
    }

    fn take_share(&mut self, cpu_percent: f64) {
        self.cpu_percent += (cpu_percent - self.cpu_percent) * WORK_WEIGHT;
    }

    pub(super) fn cpu_percent(&self) -> f64 {
        self.cpu_percent
    }
}

impl Rooms {
    /// Looks at all channels with members here. To be called every second: since the last time the media workers were
    /// busy for `busy_percent` of one processor's time, which the channels are charged with by their frames.
    #[must_use]
    pub fn measure(&self, busy_percent: f64) -> RoomsFigures {
        let rooms = self.all_rooms();
        let me = self.inner.membership.node();
        let (mut figures, mut people, mut work) = (RoomsFigures::default(), HashSet::new(), Vec::new());
        for room in &rooms {
            let (is_first, users) = {
                let live = room.live();
                let first = live.roster.members().map(|member| member.node).min();
                (
                    first == Some(me),
                    live.members.values().map(|member| member.presence.user.id).collect::<Vec<UserId>>(),
                )
            };
            figures.channels += u32::from(is_first);
            people.extend(users);
            figures.voice += room.totals.voice();
            work.push(room.totals.more_frames());
        }
        let all: u64 = work.iter().sum();
        for (room, frames) in rooms.iter().zip(work) {
            let share = if all > 0 { frames as f64 / all as f64 } else { 0.0 };
            room.totals.charge(busy_percent * share);
        }
        figures.people = u32::try_from(people.len()).unwrap_or(u32::MAX);
        figures
    }

    /// The nodes through which a channel has members, as far as this one knows.
    pub async fn nodes_of(&self, channel: ChannelId) -> BTreeSet<NodeNumber> {
        if let Some(room) = self.room(channel) {
            return room.live().roster.members().map(|member| member.node).collect();
        }
        let found = self.inner.membership.snapshot(channel, None).await.ok().flatten();
        found.into_iter().flat_map(|found| found.members).map(|member| member.node).collect()
    }

    /// Asks what all nodes share for a sign of life.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ask_shared(&self) -> Result<(), AppError> {
        // Of a channel that cannot be: the answer is that nothing is known of it.
        self.inner.membership.snapshot(ChannelId(uuid::Uuid::nil()), None).await?;
        Ok(())
    }

    /// Gives up what was counted here and is not stored yet.
    pub fn forget_statistics(&self) {
        self.inner.ledger.clear();
    }

    /// A channel's members here, as of now.
    #[must_use]
    pub fn channel_figures(&self, channel: ChannelId) -> ChannelFigures {
        self.room(channel).map_or_else(ChannelFigures::default, |room| figures_of(&room))
    }
}

fn figures_of(room: &Room) -> ChannelFigures {
    let live = room.live();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let here = live.members.values().filter(|member| !member.departing);
    ChannelFigures {
        members: count(here.clone().count()),
        speaking: count(here.clone().filter(|member| member.sounding).count()),
        mixed: count(here.filter(|member| member.mix.is_some()).count()),
        listeners: count(live.outsiders()),
        voice: room.totals.voice(),
        cpu_percent: room.totals.cpu_percent(),
    }
}

impl std::ops::AddAssign for ChannelFigures {
    fn add_assign(&mut self, more: Self) {
        self.members += more.members;
        self.speaking += more.speaking;
        self.mixed += more.mixed;
        self.listeners += more.listeners;
        self.voice += more.voice;
        self.cpu_percent += more.cpu_percent;
    }
}

impl Totals {
    /// What is measured of the channel's voice here.
    pub(super) fn voice(&self) -> VoiceSums {
        let counters = self.lock();
        let (traffic, reported) = (counters.traffic, counters.reports.summary());
        let streams = reported.map_or(0, |reported| reported.streams);
        let sum = |mean: f32| f64::from(mean) * f64::from(streams);
        VoiceSums {
            streams,
            round_trip_ms: reported.map_or(0.0, |reported| sum(reported.round_trip_ms)),
            reported_loss: reported.map_or(0.0, |reported| sum(reported.loss)),
            frames_in: traffic.frames_in,
            frames_lost: traffic.frames_lost,
            jitter_ms_frames: f64::from(traffic.jitter_us) / 1e3 * traffic.frames_in as f64,
        }
    }

    fn more_frames(&self) -> u64 {
        let mut counters = self.lock();
        let frames = counters.traffic.frames_in + counters.traffic.frames_out;
        counters.work.advance(frames)
    }

    fn charge(&self, cpu_percent: f64) {
        self.lock().work.take_share(cpu_percent);
    }

    fn cpu_percent(&self) -> f64 {
        self.lock().work.cpu_percent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channels_share_follows_its_frames_and_fades() {
        let mut work = Work::default();
        assert_eq!((work.advance(100), work.advance(150)), (100, 50));
        for _ in 0..20 {
            work.take_share(10.0);
        }
        assert!((work.cpu_percent() - 10.0).abs() < 0.1);
        for _ in 0..20 {
            work.take_share(0.0);
        }
        assert!(work.cpu_percent() < 0.1);
    }
}
