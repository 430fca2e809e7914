//! A room in which some write and everybody reads: who is told of what, once and in order, how late, and what it costs.
//!
//! Members are connections without tasks, read by one thread ([`mod@sweep`]); of each message they read no more than proves
//! it ([`message`]), so that one process can take two hundred thousand deliveries a second. Whoever loses their node, or is
//! asked to go, resumes elsewhere ([`returning`]): what was missed meanwhile is heard then, and what was not answered written
//! again.

mod member;
mod message;
mod resuming;
mod returning;
mod stream;
mod sweep;
mod tally;

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use antiphon_core::ids::ChannelId;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::Instant,
};

use self::{
    member::{Door, Member},
    message::MESSAGE_BYTES_MIN,
    sweep::{Plan, Sweeper, Swept},
};
use super::{
    LoadError,
    account::{TokenPair, sign_in},
    members::{ATTEMPTS_MAX, CONNECTING_MAX, Shared},
    process::CpuUsed,
    spread,
    tally::TimesSummary,
    thread::Stage,
};
use crate::{
    rest::NewChannel,
    scenario::{CLIENTS_MAX, check_rate},
};

/// As long as a server with default settings takes them.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// What members remember of messages takes at most so many bits in all, an eighth of a gibibyte.
const REMEMBERED_MAX: f64 = (1_u64 << 30) as f64;

/// After the last message was written so long is waited for whoever was not told yet.
const LINGER: Duration = Duration::from_secs(10);

/// More than this between two sweeps, and the kernel may have had no room for what the server had to say.
const PILED_UP_BYTES_MAX: usize = 64 * 1_024;

/// Who is in the room, and what they write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// How many are in the room, spread over the nodes.
    pub members: usize,
    /// How many of them write, in turn. A server limits what each account may send.
    pub writers: usize,
    /// Messages a second, of all writers together.
    pub per_second: f64,
    /// Bytes of each message's content.
    #[serde(default = "default_message_bytes")]
    pub message_bytes: usize,
}

const fn default_message_bytes() -> usize {
    100
}

/// What came of it. Messages count that were due in the measured time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatOutcome {
    /// How many were in the room.
    pub members: usize,
    /// Messages written.
    pub sent: u64,
    /// Of those, acknowledged: their writers got them with their requests' numbers.
    pub acknowledged: u64,
    /// Of those, refused, by error code.
    pub refused: BTreeMap<String, u64>,
    /// Of those, never answered.
    pub unanswered: u64,
    /// Deliveries to others that these should have led to: of whatever was acknowledged, or came to anybody.
    pub expected: u64,
    /// Deliveries verified, each once.
    pub delivered: u64,
    /// Expected and not delivered.
    pub lost: u64,
    /// Deliveries that were there before.
    pub doubled: u64,
    /// Deliveries after one that the server numbered higher.
    pub out_of_order: u64,
    /// Messages that are none of those written.
    pub corrupt: u64,
    /// Times that a member's session went on, after its connection was lost or its node had asked it to go elsewhere.
    pub returned: u64,
    /// From then until it went on.
    pub away: TimesSummary,
    /// Of these, the ones whose journal did not reach back: what was missed was read from the room's history.
    pub from_history: u64,
    /// Messages, those of the warm-up and one's own included, that were told when a session went on.
    pub caught_up: u64,
    /// Messages written when their writer's session went on: due meanwhile, or written before and not answered.
    pub written_again: u64,
    /// Members' sessions that ended though nobody wanted it.
    pub sessions_ended: u64,
    /// How the first of them ended.
    pub first_end: Option<String>,
    /// Deliveries a second.
    pub delivered_per_s: f64,
    /// From just before the message was written to the kernel's stamp of its arrival at another member.
    pub latency: TimesSummary,
    /// The same as a curve: so many ms or less took that share of them.
    pub latency_distribution: Vec<(f64, f64)>,
    /// From just before the message was written to the arrival of its acknowledgement.
    pub acknowledgement: TimesSummary,
    /// The nodes' CPU time in the measured time for each delivery, whatever else they did then.
    pub cpu_us_per_delivery: Option<f64>,
    /// How much later than due messages were written.
    pub lateness: TimesSummary,
    /// How much later than planned the members' sockets were read.
    pub sweep_lateness: TimesSummary,
    /// The most that had piled up at one member's socket between two looks.
    pub piled_up_bytes_max: usize,
    /// Sessions that the server ended since we read too slowly.
    pub too_slow: u64,
}

impl Chat {
    /// Whether it can be, in a phase that long, warm-up included.
    pub(crate) fn check(&self, duration: Duration) -> Result<(), String> {
        let Self { members, writers, per_second, message_bytes } = *self;
        if !(2..=CLIENTS_MAX).contains(&members) || !(1..=members).contains(&writers) {
            let text = format!("{writers} of {members} write; at least one of 2 to {CLIENTS_MAX} members would do");
            return Err(text);
        }
        check_rate(Some(per_second))?;
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&message_bytes) {
            let text = format!("{message_bytes} bytes; {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX} would do");
            return Err(text);
        }
        if per_second * duration.as_secs_f64() * members as f64 > REMEMBERED_MAX {
            return Err("more deliveries than one process can keep apart; shorter phases would do".to_owned());
        }
        Ok(())
    }

    /// How many messages are due in that time.
    fn due_in(&self, time: Duration) -> u32 {
        (self.per_second * time.as_secs_f64()).round() as u32
    }
}

/// Everyone in the room.
pub(super) struct Room {
    chat: Chat,
    channel: ChannelId,
    owner: TokenPair,
    members: Vec<Member>,
}

impl Room {
    /// Makes the room and lets everyone enter; `label` tells them from those of other phases.
    pub(super) async fn gather(
        shared: &Shared,
        chat: Chat,
        label: &str,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Self, LoadError> {
        let mut owner = TokenPair::of(sign_in(shared, 0, &format!("{label}-owner")).await?);
        let channel = NewChannel { name: format!("{}-{label}", shared.run), ..NewChannel::default() };
        let channel = shared.rest().create_channel(&owner.access(shared.rest()).await?, &channel).await?.id;
        let limit = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut entering = JoinSet::new();
        for number in 0..chat.members {
            let (shared, limit, label) = (shared.clone(), Arc::clone(&limit), format!("{label}-{number}"));
            entering.spawn(async move {
                let _permit = limit.acquire().await.map_err(|_| LoadError::SwarmEnded)?;
                Ok::<_, LoadError>((number, enter(&shared, number, &label, channel).await?))
            });
        }
        let mut members = BTreeMap::new();
        while let Some(entered) = entering.join_next().await {
            members.extend([entered.map_err(|_| LoadError::SwarmEnded)??]);
            stage(Stage::Connecting(members.len(), chat.members));
        }
        Ok(Self { chat, channel, owner, members: members.into_values().collect() })
    }

    /// Lets them write from now on, and counts what is due between `begun` and `end`.
    pub(super) async fn write(
        self,
        shared: &Shared,
        warm_up: Duration,
        begun: Instant,
        end: Instant,
    ) -> Result<ChatOutcome, LoadError> {
        let Self { chat, channel, mut owner, members } = self;
        let count = members.len();
        let plan = Plan {
            writers: chat.writers,
            message_bytes: chat.message_bytes,
            from: (begun - warm_up).into_std(),
            per_second: chat.per_second,
            messages: chat.due_in(warm_up) + chat.due_in(end - begun),
            first_counted: chat.due_in(warm_up),
            linger: LINGER,
            interval: shared.sweep_interval.unwrap_or_else(|| interval(count)),
        };
        let swept = sweep(Sweeper::new(plan, members)).await?;
        shared.sessions_ended.fetch_add(swept.sessions_ended, Ordering::Relaxed);
        remove(shared, &mut owner, channel).await;
        Ok(ChatOutcome::new(count, swept, end - begun))
    }
}

/// Deletes the room at the first node that does it: others may have been ended by a fault.
async fn remove(shared: &Shared, owner: &mut TokenPair, channel: ChannelId) {
    for rest in shared.rests.iter() {
        let deleted = match owner.access(rest).await {
            Ok(access) => rest.delete_channel(&access, channel).await.map_err(LoadError::from),
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "a node does not delete a channel"),
        }
    }
    tracing::warn!(%channel, "a channel stays behind");
}

/// The place among `nodes` of the member with that number.
pub(super) fn node_of(number: usize, nodes: usize) -> usize {
    spread::node_of(0, number, nodes)
}

/// Lets one enter, patiently where the server asks for it.
async fn enter(shared: &Shared, number: usize, label: &str, channel: ChannelId) -> Result<Member, LoadError> {
    let node = node_of(number, shared.servers.len());
    let account = sign_in(shared, node, label).await?;
    let others = spread::others(node, number, shared.servers.len());
    let door = Door {
        server: shared.servers[node].clone(),
        others: others.into_iter().map(|other| shared.servers[other].clone()).collect(),
        encoding: shared.encoding,
        token: account.access_token,
        room: channel,
    };
    let mut attempt = 0;
    loop {
        let door = door.clone();
        let joining = tokio::task::spawn_blocking(move || Member::join(door, number));
        match joining.await.map_err(|_| LoadError::SwarmEnded)? {
            Err(LoadError::Gateway(error)) if attempt < ATTEMPTS_MAX && error.is_passing() => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
            }
            joined => return joined,
        }
    }
}

/// In a thread of its own, which ends early when this is not waited for.
async fn sweep(sweeper: Sweeper) -> Result<Swept, LoadError> {
    let (done, swept) = oneshot::channel();
    std::thread::Builder::new().name("chat".to_owned()).spawn(move || {
        let swept = sweeper.run(&|| !done.is_closed());
        // Nobody may wait any more.
        let _unwanted = done.send(swept);
    })?;
    swept.await.map_err(|_| LoadError::SwarmEnded)
}

/// A few milliseconds; for very many sockets as long as reading them takes several times over.
fn interval(members: usize) -> Duration {
    let by_sockets = Duration::from_micros(members as u64 * 5 / 2);
    by_sockets.clamp(Duration::from_millis(3), Duration::from_millis(40))
}

impl ChatOutcome {
    fn new(members: usize, swept: Swept, measured: Duration) -> Self {
        let (tally, counts) = (&swept.tally, swept.tally.counts.clone());
        Self {
            members,
            sent: counts.sent,
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            unanswered: counts.unanswered,
            expected: counts.expected,
            delivered: counts.delivered,
            lost: counts.lost,
            doubled: counts.doubled,
            out_of_order: counts.out_of_order,
            corrupt: counts.corrupt,
            returned: swept.returned,
            away: swept.away.summary(),
            from_history: swept.from_history,
            caught_up: swept.caught_up,
            written_again: counts.again,
            sessions_ended: swept.sessions_ended,
            first_end: swept.first_end,
            delivered_per_s: counts.delivered as f64 / measured.as_secs_f64().max(f64::EPSILON),
            latency: tally.latency.summary(),
            latency_distribution: tally.latency.distribution(),
            acknowledgement: tally.acknowledgement.summary(),
            cpu_us_per_delivery: None,
            lateness: swept.lateness.summary(),
            sweep_lateness: swept.sweep_lateness.summary(),
            piled_up_bytes_max: swept.piled_up_bytes_max,
            too_slow: swept.too_slow,
        }
    }

    /// Takes note of what the nodes used meanwhile.
    pub(super) fn that_cost(self, cpu: Option<CpuUsed>) -> Self {
        let each = |cpu: CpuUsed| cpu.seconds * 1e6 / self.delivered as f64;
        Self { cpu_us_per_delivery: cpu.filter(|_| self.delivered > 0).map(each), ..self }
    }

    /// Messages that were refused or never answered.
    pub(super) fn failures(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.unanswered
    }

    /// Deliveries that were not as they should have been.
    #[must_use]
    pub fn flaws(&self) -> u64 {
        self.lost + self.doubled + self.out_of_order + self.corrupt
    }

    /// Why the figures say more of the load client than of what it measured, where they do.
    pub(super) fn bottleneck(&self, lateness_max: Duration) -> Option<String> {
        if self.too_slow > 0 {
            return Some(format!("it read chat so slowly that the server ended {} of its sessions", self.too_slow));
        }
        if self.piled_up_bytes_max > PILED_UP_BYTES_MAX {
            return Some(format!("{} bytes of chat piled up at one of its sockets", self.piled_up_bytes_max));
        }
        let max_ms = lateness_max.as_secs_f64() * 1_000.0;
        let late =
            [("message in a hundred was written", self.lateness), ("sweep in a hundred came", self.sweep_lateness)];
        late.iter().find(|(_, times)| times.p99_ms > max_ms).map(|(what, times)| {
            format!(
                "of chat, one {what} {:.1} ms or more after its time, {max_ms} ms is the limit; use a core of its own \
                 (--pin), fewer members, or allow it (--lateness-max-ms)",
                times.p99_ms
            )
        })
    }
}

#[cfg(test)]
mod tests;
