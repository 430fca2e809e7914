//! What is spoken where, for how long: a phase as the thread with the sockets needs it.

use std::time::Duration;

use antiphon_core::prng::Prng;

use super::{
    LoadError, crowd,
    schedule::{Phases, places},
    swarm::Plan,
};
use crate::scenario::{Group, Impairment, Phase, Scenario, Talk};

/// Who speaks where, for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Who is in which channels.
    pub groups: Vec<Group>,
    /// How long is measured.
    pub duration: Duration,
    /// How long is spoken before.
    pub warm_up: Duration,
    /// Bytes of each frame.
    pub frame_bytes: usize,
    /// Where in the 20 ms grid each speaks.
    pub grid: Phases,
    /// When talkers talk.
    pub talk: Talk,
    /// Chooses the places, the pauses and what gets lost.
    pub seed: u64,
    /// What everyone's way is like.
    pub impairment: Option<Impairment>,
}

impl Shape {
    /// One of a scenario's phases.
    #[must_use]
    pub fn of(scenario: &Scenario, phase: &Phase, groups: &[Group]) -> Self {
        Self {
            groups: groups.to_vec(),
            duration: phase.duration,
            warm_up: phase.warm_up,
            frame_bytes: scenario.frame_bytes,
            grid: scenario.grid,
            talk: scenario.talk_of(phase),
            seed: scenario.seed,
            impairment: phase.impairment,
        }
    }

    /// How many clients there are.
    #[must_use]
    pub fn total(&self) -> usize {
        crowd::total(&self.groups)
    }

    /// Its only group.
    pub(super) fn only_group(&self) -> Result<Group, LoadError> {
        match self.groups.as_slice() {
            [group] => Ok(*group),
            _ => Err(LoadError::Arguments("a relay has channels that are all alike".to_owned())),
        }
    }

    pub(super) fn plan(&self, pids: Vec<u32>, has_faults: bool, hint: impl Fn(usize) -> Option<u32>) -> Plan {
        let speakers = crowd::talkers(&crowd::rooms(&self.groups));
        let channels: Vec<usize> = speakers.iter().map(|(_, channel)| *channel).collect();
        let places = places(self.grid, &channels, hint, &mut Prng::new(self.seed));
        Plan {
            warm_up: self.warm_up,
            measured: self.duration,
            places,
            speakers,
            talk: self.talk,
            seed: self.seed,
            impairment: self.impairment,
            pids,
            has_faults,
        }
    }
}
