//! People who come all at once: connected before, they join within a moment, and stay until the phase is over.

use std::{sync::Arc, time::Duration};

use antiphon_core::{gateway::MediaTransport, ids::ChannelId};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    LoadError,
    members::{CONNECTING_MAX, Connected, InChannel, Place, Seat, Shared},
    swarm::Role,
    tally::{Times, TimesSummary},
};
use crate::duration::written;

/// How they come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// How many.
    pub clients: usize,
    /// When the first joins, since the measured time began.
    #[serde(default, with = "written")]
    pub at: Duration,
    /// How many join in a second; all at once when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
}

/// How that went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StormOutcome {
    /// From `JoinChannel` to `ChannelJoined`, of those who got in.
    pub times: TimesSummary,
    /// From the first join to the last answer.
    pub settled_s: f64,
    /// Those who did not get in.
    pub failures: u64,
    /// Why the first of them did not.
    pub first_failure: Option<String>,
}

impl Storm {
    pub(crate) fn check(&self, duration: Duration) -> Result<(), String> {
        if self.clients == 0 {
            return Err("nobody comes".to_owned());
        }
        if self.at >= duration {
            return Err(format!("it comes at {:?}, when the phase is over", self.at));
        }
        crate::scenario::check_rate(self.per_second)
    }
}

/// Everyone at the door.
pub(super) struct Gathering {
    storm: Storm,
    clients: Vec<(Connected, Place)>,
}

impl Gathering {
    /// Connects them. Slots from `first_slot` on are theirs; `label` tells them from those of other storms.
    pub(super) async fn connect(
        shared: &Shared,
        storm: Storm,
        label: &str,
        channels: &[ChannelId],
        first_slot: usize,
    ) -> Result<Self, LoadError> {
        let limit = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut tasks = JoinSet::new();
        for number in 0..storm.clients {
            let (shared, limit, label) = (shared.clone(), Arc::clone(&limit), format!("{label}-{number}"));
            let channel = number % channels.len();
            let place = Place {
                slot: first_slot + number,
                channel,
                channel_id: channels[channel],
                role: Role::Passes,
                media: MediaTransport::Udp,
                quiet: false,
            };
            let seat = Seat { node: number % shared.servers.len(), client: number };
            tasks.spawn(async move {
                let _permit = limit.acquire().await.map_err(|_| LoadError::SwarmEnded)?;
                let (connected, _tokens) = Connected::connect_new(&shared, seat, &label).await?;
                Ok::<_, LoadError>((connected, place))
            });
        }
        let mut clients = Vec::with_capacity(storm.clients);
        while let Some(result) = tasks.join_next().await {
            clients.push(result.map_err(|_| LoadError::SwarmEnded)??);
        }
        Ok(Self { storm, clients })
    }

    /// Lets them in, and out again at `end`.
    pub(super) async fn come(self, shared: &Shared, begun: Instant, end: Instant) -> Result<StormOutcome, LoadError> {
        let first = begun + self.storm.at;
        let mut tasks = JoinSet::new();
        for (index, (client, place)) in self.clients.into_iter().enumerate() {
            let after = self.storm.per_second.map_or(0.0, |rate| index as f64 / rate);
            tokio::time::sleep_until(first + Duration::from_secs_f64(after)).await;
            let shared = shared.clone();
            tasks.spawn(async move { client.join(&shared, place).await });
        }
        let (mut times, mut failures, mut first_failure) = (Times::new(), 0, None);
        let mut inside: Vec<InChannel> = Vec::new();
        while let Some(result) = tasks.join_next().await {
            match result.map_err(|_| LoadError::SwarmEnded)? {
                Ok(joined) => {
                    times.record_us(joined.took.as_micros() as u64);
                    inside.push(joined);
                }
                Err(error) => {
                    failures += 1;
                    first_failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
        let settled_s = first.elapsed().as_secs_f64();
        tokio::time::sleep_until(end).await;
        shared.leave_all(inside).await;
        Ok(StormOutcome { times: times.summary(), settled_s, failures, first_failure })
    }
}

impl Shared {
    /// Lets all of these leave; failures change no figure.
    pub(super) async fn leave_all(&self, members: Vec<InChannel>) {
        let mut leaving = JoinSet::new();
        for member in members {
            let shared = self.clone();
            leaving.spawn(async move { member.leave(&shared).await });
        }
        while let Some(left) = leaving.join_next().await {
            if let Ok(Err(error)) = left {
                tracing::debug!(%error, "somebody left in disorder");
            }
        }
    }
}
