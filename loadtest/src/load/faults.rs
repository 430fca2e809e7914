//! Carries out the script: at its time each line finds its node, tells the swarm, and sends the signal.

use std::time::Duration;

use antiphon_core::ids::ChannelId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    LoadError,
    account::TokenPair,
    admin::Admin,
    counts::Counts,
    members::Shared,
    nodes::NodesConfig,
    ownership::owner_of,
    script::{Action, Fault, Target},
    shape::Shape,
    silence::{LostBySeat, Silences, Watched},
    swarm::ToSwarm,
    system::{realtime_ns, signal},
};

/// After a fault there must be so much time to see what follows.
const AFTERMATH_MIN: Duration = Duration::from_secs(1);

/// What the faults of a run led to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultsOutcome {
    /// The longest time without a frame of each listener and speaker before the first fault, in µs: what is usual.
    pub before_us: Counts,
    /// Each fault.
    pub faults: Vec<FaultOutcome>,
    /// What was lost in all.
    pub lost: LostBySeat,
}

/// One fault and what followed until the next, or until the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultOutcome {
    /// `kill`, `drain`, `stop` or `api-drain`.
    pub action: String,
    /// As it was asked for: `owner`, `edge`, or the node's place.
    pub target: String,
    /// The place of the node that was meant, from 1.
    pub node: usize,
    /// Since the measured time began.
    pub at_s: f64,
    /// What it sounded like.
    #[serde(flatten)]
    pub silences: Silences,
}

/// A fault as it happened.
pub(super) struct Injected {
    fault: Fault,
    /// The place of its node.
    pub(super) node: usize,
}

/// Whether the script can be carried out.
pub(super) fn check(script: &[Fault], shape: &Shape, config: &NodesConfig) -> Result<(), LoadError> {
    let wrong = |text: String| Err(LoadError::Arguments(text));
    let nodes = config.servers.len();
    let (by_signal, by_api): (Vec<Fault>, Vec<Fault>) =
        script.iter().partition(|fault| fault.action.signal().is_some());
    if !by_signal.is_empty() && config.pids.len() != nodes {
        return wrong("to do something to nodes, each server's --pid must be given".to_owned());
    }
    if !by_api.is_empty() && config.admin.is_none() {
        return wrong(
            "to drain a node by the API an administrator's --admin and --admin-password must be given".to_owned(),
        );
    }
    let channels: usize = shape.groups.iter().map(|group| group.channels).sum();
    let mut next_at = shape.duration;
    for fault in script.iter().rev() {
        let Fault { at, action, target } = fault;
        let text = format!("{} {}", action.as_str(), target.name());
        match target {
            Target::Node(place) if *place >= nodes => return wrong(format!("`{text}`: there are {nodes} servers")),
            Target::Owner | Target::Edge if channels > 1 => {
                return wrong(format!("`{text}`: with more than one channel name the node by its place"));
            }
            Target::Owner | Target::Edge if channels == 0 => {
                return wrong(format!("`{text}`: nobody is in voice; name the node by its place"));
            }
            Target::Edge if nodes < 2 => return wrong(format!("`{text}`: the only node owns the channel")),
            _ => {}
        }
        if action.is_fault() {
            if *at + AFTERMATH_MIN > next_at {
                return wrong(format!("`{text}` at {at:?} leaves less than {AFTERMATH_MIN:?} to see what follows"));
            }
            next_at = *at;
        }
    }
    Ok(())
}

/// The lines in the order of their times.
pub(super) fn in_order(script: &[Fault]) -> Vec<Fault> {
    let mut script = script.to_vec();
    script.sort_by_key(|fault| fault.at);
    script
}

/// Nodes that were stopped go on at the latest when the run is over, however it ends.
#[derive(Default)]
struct Stopped(Vec<u32>);

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has ended meanwhile needs no help.
            let _ended = signal(*pid, libc::SIGCONT);
        }
    }
}

/// Whom the script is carried out on.
pub(super) struct Stage<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pids: &'a [u32],
    pub(super) admin: Option<&'a Admin>,
    pub(super) channels: &'a [ChannelId],
}

impl Stage<'_> {
    /// Does all that the script says, and waits until `end`.
    pub(super) async fn carry_out(
        &self,
        script: &[Fault],
        account: &mut TokenPair,
        gone: &mut Vec<usize>,
        begun: Instant,
        end: Instant,
    ) -> Result<Vec<Injected>, LoadError> {
        let mut stopped = Stopped::default();
        let mut injected = Vec::new();
        for &fault in script {
            tokio::time::sleep_until(begun + fault.at).await;
            let node = self.find(fault.target, account).await?;
            // The system may have given its number to another process.
            if gone.contains(&node) {
                return Err(LoadError::Arguments(format!("node {} was ended before", node + 1)));
            }
            if fault.action.is_fault() {
                self.shared.send(ToSwarm::Fault { node, at_ns: realtime_ns() }).await?;
                injected.push(Injected { fault, node });
            }
            self.inject(fault.action, node, &mut stopped).await?;
            if matches!(fault.action, Action::Kill | Action::Drain) {
                gone.push(node);
            }
        }
        tokio::time::sleep_until(end).await;
        Ok(injected)
    }

    async fn inject(&self, action: Action, node: usize, stopped: &mut Stopped) -> Result<(), LoadError> {
        let Some(number) = action.signal() else {
            let admin = self.admin.ok_or(LoadError::SwarmEnded)?;
            return admin.drain(&self.shared.rests, node, action == Action::ApiDrain).await;
        };
        let pid = self.pids[node];
        signal(pid, number)?;
        match action {
            Action::Stop => stopped.0.push(pid),
            Action::Continue => stopped.0.retain(|known| *known != pid),
            _ => {}
        }
        Ok(())
    }

    async fn find(&self, target: Target, account: &mut TokenPair) -> Result<usize, LoadError> {
        let Target::Node(place) = target else {
            let access = account.access(self.shared.rest()).await?;
            let channel = *self.channels.first().ok_or(LoadError::SwarmEnded)?;
            let owner = owner_of(&self.shared.rests, &access, channel).await?;
            return Ok(if target == Target::Owner { owner } else { usize::from(owner == 0) });
        };
        Ok(place)
    }
}

impl FaultsOutcome {
    /// The longest silence among those whom no fault hit, of 99 in 100, in ms.
    pub(super) fn silence_p99_ms(&self) -> Option<f64> {
        let silences = Silences::all(self.faults.iter().map(|fault| &fault.silences));
        (silences.survivors_us.total() > 0).then(|| silences.survivors_us.quantile(0.99) as f64 / 1_000.0)
    }

    /// How long 99 in 100 of those whom a fault hit heard nobody, or were not heard, in ms; `None` when one never was again.
    pub(super) fn back_p99_ms(&self) -> Option<f64> {
        let Silences { mut heard_again_us, hear_again_us, never_heard_again, never_hear_again, .. } =
            Silences::all(self.faults.iter().map(|fault| &fault.silences));
        heard_again_us.merge(&hear_again_us);
        let known = heard_again_us.total() > 0 && never_heard_again + never_hear_again == 0;
        known.then(|| heard_again_us.quantile(0.99) as f64 / 1_000.0)
    }

    /// Puts together what was done with what was heard.
    pub(super) fn new(injected: Vec<Injected>, watched: Watched, measured_from_ns: u64) -> Self {
        let faults = injected.into_iter().zip(watched.faults).map(|(Injected { fault, node }, (at_ns, silences))| {
            let at_s = at_ns.saturating_sub(measured_from_ns) as f64 / 1e9;
            let (action, target) = (fault.action.as_str().to_owned(), fault.target.name());
            FaultOutcome { action, target, node: node + 1, at_s, silences }
        });
        Self { before_us: watched.before_us, faults: faults.collect(), lost: watched.lost }
    }
}
