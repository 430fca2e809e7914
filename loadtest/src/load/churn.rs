//! People who come and go while others talk.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_core::{gateway::MediaTransport, ids::ChannelId};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    LoadError,
    account::TokenPair,
    members::{Connected, Place, Seat, Shared},
    swarm::Role,
    tally::{Times, TimesSummary},
};
use crate::{
    duration::written,
    gateway::Identity,
    scenario::{CLIENTS_MAX, check_rate},
};

/// Comers and goers beyond those that stay at once: connecting, joining and leaving take their time.
const UNDER_WAY_EXTRA: f64 = 4.0;

/// How they come and go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Joins a second, and as many leaves.
    pub per_second: f64,
    /// How long each stays.
    #[serde(with = "written")]
    pub stay: Duration,
}

impl Churn {
    pub(crate) fn check(&self) -> Result<(), String> {
        let at_once = self.per_second * (self.stay.as_secs_f64() + UNDER_WAY_EXTRA);
        if at_once > CLIENTS_MAX as f64 {
            return Err(format!("{at_once:.0} would be there at once, {CLIENTS_MAX} are the most"));
        }
        check_rate(Some(self.per_second))
    }

    /// How many may be in the channel at once because of this.
    pub(super) fn at_once_max(&self) -> usize {
        (self.per_second * (self.stay.as_secs_f64() + UNDER_WAY_EXTRA)).ceil() as usize
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChurnOutcome {
    /// From `JoinChannel` to `ChannelJoined`.
    pub times: TimesSummary,
    /// Joins that succeeded.
    pub joins: u64,
    /// Leaves that succeeded.
    pub leaves: u64,
    /// Visits that failed somewhere.
    pub failures: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
    /// Visits not begun, since as many as may be were under way.
    pub skipped: u64,
}

#[derive(Default)]
struct Counters {
    joins: AtomicU64,
    leaves: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
}

struct Visits {
    shared: Shared,
    churn: Churn,
    channels: Vec<ChannelId>,
    /// Tells them from those of other phases.
    label: String,
    /// Who was there before and is not visiting.
    idle: Mutex<Vec<TokenPair>>,
    /// Slots of the swarm that are free.
    slots: Mutex<Vec<usize>>,
    made: AtomicUsize,
    counters: Counters,
    times: Mutex<Times>,
    first_failure: Mutex<Option<String>>,
}

/// Lets people come and go until `until`, and waits for the last to go. Slots from `first_slot` on are theirs.
pub(super) async fn churn(
    shared: Shared,
    churn: Churn,
    channels: Vec<ChannelId>,
    first_slot: usize,
    label: String,
    until: Instant,
) -> Result<ChurnOutcome, LoadError> {
    let limit = Arc::new(Semaphore::new(churn.at_once_max()));
    let slots = Mutex::new((first_slot..first_slot + churn.at_once_max()).collect());
    let visits = Arc::new(Visits {
        shared,
        churn,
        channels,
        label,
        idle: Mutex::default(),
        slots,
        made: AtomicUsize::new(0),
        counters: Counters::default(),
        times: Mutex::new(Times::new()),
        first_failure: Mutex::default(),
    });
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / churn.per_second));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let mut number = 0;
    while Instant::now() < until {
        tick.tick().await;
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else {
            visits.counters.skipped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let visits = Arc::clone(&visits);
        tasks.spawn(async move {
            if let Err(error) = visits.visit(number).await {
                visits.counters.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "a visit failed");
                lock(&visits.first_failure).get_or_insert_with(|| error.to_string());
            }
            drop(permit);
        });
        number += 1;
    }
    while tasks.join_next().await.is_some() {}
    Ok(visits.outcome())
}

impl Visits {
    fn outcome(&self) -> ChurnOutcome {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ChurnOutcome {
            times: lock(&self.times).summary(),
            joins: read(&self.counters.joins),
            leaves: read(&self.counters.leaves),
            failures: read(&self.counters.failures),
            first_failure: lock(&self.first_failure).take(),
            skipped: read(&self.counters.skipped),
        }
    }

    /// Connects, joins, stays, leaves.
    async fn visit(&self, number: usize) -> Result<(), LoadError> {
        let seat = Seat { node: number % self.shared.servers.len(), client: number };
        let (guest, tokens) = self.connect(seat).await?;
        let slot = lock(&self.slots).pop().ok_or(LoadError::Protocol("lets more visit than there are places"))?;
        // Channels go round more slowly than nodes, so that all meet.
        let channel = number / self.shared.servers.len() % self.channels.len();
        let place = Place {
            slot,
            channel,
            channel_id: self.channels[channel],
            role: Role::Passes,
            media: MediaTransport::Udp,
            quiet: false,
        };
        let left = self.stay(guest, place).await;
        lock(&self.slots).push(slot);
        lock(&self.idle).push(tokens);
        left
    }

    async fn stay(&self, guest: Connected, place: Place) -> Result<(), LoadError> {
        let joined = guest.join(&self.shared, place).await?;
        self.counters.joins.fetch_add(1, Ordering::Relaxed);
        lock(&self.times).record_us(joined.took.as_micros() as u64);
        tokio::time::sleep(self.churn.stay).await;
        joined.leave(&self.shared).await?;
        self.counters.leaves.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// As somebody who was there before, or as somebody new.
    async fn connect(&self, seat: Seat) -> Result<(Connected, TokenPair), LoadError> {
        let idle = lock(&self.idle).pop();
        if let Some(mut tokens) = idle {
            let access = tokens.access(self.shared.rest()).await?;
            return Ok((Connected::connect(&self.shared, seat, Identity::Token(access)).await?, tokens));
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Connected::connect_new(&self.shared, seat, &format!("{}v{number}", self.label)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
