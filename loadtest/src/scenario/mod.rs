//! What a run consists of, as a TOML file says it: who is in which channels, and in which phases what happens to them.
//!
//! Everything is checked before anyone connects. The scenarios that come with the program ([`PRESETS`]) are such files.

mod impairment;
mod presets;
mod set;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use impairment::Impairment;
pub use presets::{PRESETS, Preset};
pub use set::Assignment;

use crate::{
    duration::{written, written_option},
    load::{Chat, Churn, FRAME_BYTES_MAX, FRAME_BYTES_MIN, Fault, Figure, Phases, Storm, Streams},
};

/// More clients in one process than this are taken for a slip of the pen.
pub const CLIENTS_MAX: usize = 100_000;

/// More phases than this are taken for one, too.
const PHASES_MAX: usize = 1_000;

/// The shortest measured time.
const DURATION_MIN: Duration = Duration::from_millis(100);

/// How often a scrape may be asked for at most.
const SCRAPE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What is not to be exceeded, or fallen short of, by figure.
pub type Budgets = BTreeMap<Figure, f64>;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What reports call it.
    pub name: String,
    /// For readers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Chooses who speaks when, who travels how, and what gets lost: the same seed chooses the same.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Bytes of each frame.
    #[serde(default = "default_frame_bytes")]
    pub frame_bytes: usize,
    /// Where in the 20 ms grid speakers speak.
    #[serde(default)]
    pub grid: Phases,
    /// When talkers talk.
    #[serde(default)]
    pub talk: Talk,
    /// Clients that join in a second at first; all at once when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_per_s: Option<f64>,
    /// How voice travels.
    #[serde(default)]
    pub transports: Transports,
    /// What every phase is held to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: Budgets,
    /// Who is in which channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// What happens, one after the other.
    pub phases: Vec<Phase>,
}

/// Channels of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many channels.
    pub channels: usize,
    /// Clients in each that speak.
    #[serde(default)]
    pub talkers: usize,
    /// Clients in each that only hear.
    #[serde(default)]
    pub listeners: usize,
}

/// When talkers talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Talk {
    /// All the time.
    #[default]
    Continuous,
    /// In spurts, with pauses as in a conversation (ITU-T P.59).
    P59,
}

/// Which share of clients travels which way; what counts is the relation of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transports {
    /// Voice in sealed datagrams.
    #[serde(default)]
    pub udp: f64,
    /// Voice inside the gateway's WebSocket, as where UDP is blocked.
    #[serde(default)]
    pub tunnel: f64,
    /// Voice by WebRTC, as browsers have it; for those who only hear. Talkers who would be among them use UDP.
    #[serde(default)]
    pub webrtc: f64,
}

/// A part of the run that is measured by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What reports call it.
    pub name: String,
    /// How long is measured.
    #[serde(with = "written")]
    pub duration: Duration,
    /// How long is spoken before.
    #[serde(default = "default_warm_up", with = "written")]
    pub warm_up: Duration,
    /// When talkers talk, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talk: Option<Talk>,
    /// The metrics of every node are fetched so often.
    #[serde(default, with = "written_option", skip_serializing_if = "Option::is_none")]
    pub scrape_every: Option<Duration>,
    /// What is done to nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What this phase is held to, over what all are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: Budgets,
    /// Who comes and goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// Who comes all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// Who writes and reads in a room of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
    /// Who listens to audio files behind signed links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Streams>,
    /// What the way between every client and its node is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impairment: Option<Impairment>,
    /// Who is in which channels from here on, where it differs from what came before: all leave, and these join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
}

const fn default_seed() -> u64 {
    1
}

const fn default_frame_bytes() -> usize {
    80
}

const fn default_warm_up() -> Duration {
    Duration::from_secs(2)
}

/// Why a text is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not the TOML of one.
    #[error("{0}")]
    Toml(String),
    /// It cannot be carried out.
    #[error("{place}: {reason}")]
    Impossible {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
}

impl Default for Transports {
    fn default() -> Self {
        Self { udp: 1.0, tunnel: 0.0, webrtc: 0.0 }
    }
}

impl Transports {
    /// What one of these comes to among all, 0 to 1.
    #[must_use]
    pub fn share(self, of: f64) -> f64 {
        of / (self.udp + self.tunnel + self.webrtc)
    }

    fn check(self) -> Result<(), String> {
        let shares = [self.udp, self.tunnel, self.webrtc];
        let valid = shares.iter().all(|share| share.is_finite() && *share >= 0.0) && shares.iter().sum::<f64>() > 0.0;
        if valid { Ok(()) } else { Err("shares are 0 or more, and one of them is more than 0".to_owned()) }
    }
}

impl Group {
    /// Clients of each channel.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.talkers + self.listeners
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    /// Reads a scenario that can be carried out.
    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        Self::of_table(text.parse().map_err(|error: toml::de::Error| ScenarioError::Toml(error.to_string()))?)
    }
}

impl fmt::Display for Scenario {
    /// As TOML that reads as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Scenario {
    /// The scenario of a parsed file.
    ///
    /// # Errors
    /// When it is none, or cannot be carried out.
    pub fn of_table(table: toml::Table) -> Result<Self, ScenarioError> {
        let scenario: Self = table.try_into().map_err(|error| ScenarioError::Toml(error.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Who is in which channels in each phase.
    pub fn groups_by_phase(&self) -> impl Iterator<Item = &[Group]> {
        self.phases.iter().scan(self.groups.as_slice(), |groups, phase| {
            *groups = phase.groups.as_deref().unwrap_or(groups);
            Some(*groups)
        })
    }

    /// The budgets of one phase.
    #[must_use]
    pub fn budgets_of(&self, phase: &Phase) -> Budgets {
        self.budgets.iter().chain(&phase.budgets).map(|(figure, limit)| (*figure, *limit)).collect()
    }

    /// When talkers talk in a phase.
    #[must_use]
    pub fn talk_of(&self, phase: &Phase) -> Talk {
        phase.talk.unwrap_or(self.talk)
    }

    /// Whether it can be carried out, as far as that is known without a server.
    ///
    /// # Errors
    /// What cannot, and where it is said.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let at = |place: &str| {
            let place = place.to_owned();
            move |reason: String| ScenarioError::Impossible { place, reason }
        };
        self.transports.check().map_err(at("transports"))?;
        check_rate(self.ramp_per_s).map_err(at("ramp_per_s"))?;
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&self.frame_bytes) {
            let reason = format!("{} bytes; {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} would do", self.frame_bytes);
            return Err(at("frame_bytes")(reason));
        }
        if !(1..=PHASES_MAX).contains(&self.phases.len()) {
            return Err(at("phases")(format!("{} of them; 1 to {PHASES_MAX} would do", self.phases.len())));
        }
        for (phase, groups) in self.phases.iter().zip(self.groups_by_phase()) {
            let place = format!("phase {}", phase.name);
            check_groups(groups, phase.has_others()).map_err(at(&place))?;
            phase.check(groups, self.talk_of(phase)).map_err(at(&place))?;
            if self.transports.webrtc > 0.0 && (phase.impairment.is_some() || !phase.faults.is_empty()) {
                let text = "what a bad way loses of WebRTC cannot be told, and such listeners do not come back after a \
                            fault: without webrtc in transports it would do";
                return Err(at(&place)(text.to_owned()));
            }
        }
        Ok(())
    }
}

impl Phase {
    fn check(&self, groups: &[Group], talk: Talk) -> Result<(), String> {
        if self.duration < DURATION_MIN {
            return Err("less than 100 ms cannot be measured".to_owned());
        }
        if self.scrape_every.is_some_and(|interval| interval < SCRAPE_INTERVAL_MIN) {
            return Err(format!("scrape_every: {SCRAPE_INTERVAL_MIN:?} is the least"));
        }
        if !self.faults.is_empty() && !groups.is_empty() && talk != Talk::Continuous {
            let text = "what a fault sounds like is only heard where all talk continuously (talk = \"continuous\")";
            return Err(text.to_owned());
        }
        if !self.faults.is_empty() && groups.iter().all(|group| group.talkers == 0) && self.chat.is_none() {
            return Err("nobody would notice a fault, since nobody talks or writes".to_owned());
        }
        self.churn.map_or(Ok(()), |churn| churn.check().map_err(|reason| format!("churn: {reason}")))?;
        self.storm.map_or(Ok(()), |storm| storm.check(self.duration).map_err(|reason| format!("storm: {reason}")))?;
        if groups.is_empty() && (self.churn.is_some() || self.storm.is_some()) {
            return Err("nobody can join where there are no groups".to_owned());
        }
        let chat = self.chat.as_ref();
        chat.map_or(Ok(()), |chat| {
            chat.check(self.warm_up + self.duration).map_err(|reason| format!("chat: {reason}"))
        })?;
        let stream = self.stream.as_ref();
        stream.map_or(Ok(()), |stream| stream.check().map_err(|reason| format!("stream: {reason}")))?;
        let impairment = self.impairment.as_ref();
        impairment.map_or(Ok(()), |way| way.check().map_err(|reason| format!("impairment: {reason}")))
    }
}

impl Phase {
    /// Whether anybody is there but those in voice.
    const fn has_others(&self) -> bool {
        self.chat.is_some() || self.stream.is_some()
    }
}

pub(crate) fn check_rate(per_s: Option<f64>) -> Result<(), String> {
    match per_s {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(format!("{rate} a second; more than 0 would do")),
        _ => Ok(()),
    }
}

fn check_groups(groups: &[Group], has_others: bool) -> Result<(), String> {
    if groups.is_empty() && !has_others {
        return Err("there is nobody: neither it nor the scenario has groups".to_owned());
    }
    let mut clients = 0_usize;
    for group in groups {
        if group.channels == 0 || group.clients() == 0 || (group.talkers > 0 && group.clients() < 2) {
            let text = "a group has a channel and a client at least, and where one talks another hears it";
            return Err(text.to_owned());
        }
        clients = clients.saturating_add(group.channels.saturating_mul(group.clients()));
    }
    if clients > CLIENTS_MAX {
        return Err(format!("{clients} clients; {CLIENTS_MAX} are the most"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
