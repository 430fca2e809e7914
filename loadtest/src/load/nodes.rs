//! A scenario against a node, or against several of a cluster: who is needed comes, phase after phase is measured.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use antiphon_core::gateway::{Cipher, Encoding};
use tokio::time::Instant;

use super::{
    LoadError,
    admin::Admin,
    beside::{Beside, readers, visitors},
    chat, crowd,
    faults::{self, FaultsOutcome, Injected},
    gathering::{Gathered, gather, send_home},
    members::{People, Shared},
    outcome::{Joins, NodeOutcome, Outcome},
    process::{self, CpuSample, command_of, resident_bytes},
    shape::Shape,
    swarm::Measured,
    thread::{Carried, Needs, Stage, SwarmThread},
    traffic::{self, BetweenNodes},
};
use crate::{
    ServerUrl,
    rest::Rest,
    scenario::{Group, Phase, Scenario},
};

/// After the last client was bound: until the node, too, knows that its datagrams arrive.
const SETTLE: Duration = Duration::from_millis(500);

/// The nodes of a run, and how they are used.
#[derive(Clone, Debug)]
pub struct NodesConfig {
    /// The nodes; each channel's clients are spread over them.
    pub servers: Vec<ServerUrl>,
    /// Who the clients are.
    pub people: People,
    /// How gateway messages are encoded.
    pub encoding: Encoding,
    /// What seals; `None` is the server's choice.
    pub cipher: Option<Cipher>,
    /// The nodes' processes in the same order, to read their CPU times and memory; or none.
    pub pids: Vec<u32>,
    /// Who drains nodes by the API.
    pub admin: Option<Admin>,
    /// Between two sweeps over the sockets; `None` is a few ms, more for very many clients.
    pub sweep_interval: Option<Duration>,
}

/// Carries out a scenario and returns what each phase came to; `stage` hears the phase's number and how far it is.
///
/// # Errors
/// When anything fails before there is an outcome. Loss is no error: it is in the outcome.
pub async fn measure_scenario(
    scenario: &Scenario,
    config: &NodesConfig,
    stage: &(dyn Fn(usize, Stage) + Sync),
) -> Result<Vec<Outcome>, LoadError> {
    config.check()?;
    let groups = scenario.groups_by_phase();
    let shapes: Vec<Shape> =
        scenario.phases.iter().zip(groups).map(|(phase, groups)| Shape::of(scenario, phase, groups)).collect();
    for (phase, shape) in scenario.phases.iter().zip(&shapes) {
        faults::check(&faults::in_order(&phase.faults), shape, config)?;
    }
    config.check_processes(scenario)?;
    let visitors = scenario.phases.iter().map(visitors).max().unwrap_or(0);
    let readers = scenario.phases.iter().map(readers).max().unwrap_or(0);
    let swarm = SwarmThread::start(&Needs::of(&shapes, visitors + readers, config.sweep_interval))?;
    let shared = shared(config, &swarm)?;
    let mut run =
        Run { scenario, config, swarm, shared, subject: config.subject()?, visitors, here: None, gone: Vec::new() };
    let mut outcomes = Vec::with_capacity(shapes.len());
    for (number, (phase, shape)) in scenario.phases.iter().zip(&shapes).enumerate() {
        let stage = |at| stage(number, at);
        outcomes.push(run.phase(number, phase, shape, &stage).await?);
    }
    run.leave().await;
    Ok(outcomes)
}

/// A run under way.
struct Run<'a> {
    scenario: &'a Scenario,
    config: &'a NodesConfig,
    swarm: SwarmThread,
    shared: Shared,
    subject: String,
    /// Room for those who come and go in any phase.
    visitors: usize,
    /// Everyone in their channels, and what groups they are.
    here: Option<(Vec<Group>, Gathered)>,
    /// Nodes that were ended.
    gone: Vec<usize>,
}

impl Run<'_> {
    async fn phase(
        &mut self,
        number: usize,
        phase: &Phase,
        shape: &Shape,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Outcome, LoadError> {
        let joins = self.assemble(shape, stage).await?;
        let Self { config, swarm, shared, here: Some((_, people)), gone, .. } = self else {
            return Err(LoadError::SwarmEnded);
        };
        let channels = &people.channels;
        let beside = Beside::prepare(shared, phase, number, channels, shape.total(), stage).await?;
        let hints = shared.phases_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let script = faults::in_order(&phase.faults);
        let plan =
            shape.plan(config.pids.clone(), !script.is_empty(), |channel| hints.get(&channels[channel]).copied());
        let ended_before = shared.sessions_ended.load(Ordering::Relaxed);
        let begun = Instant::now() + shape.warm_up;
        let end = begun + shape.duration;
        let stage_of_faults = faults::Stage { shared, pids: &config.pids, admin: config.admin.as_ref(), channels };
        let (carried, happened, traffic, injected) = tokio::try_join!(
            swarm.run(plan, stage),
            // On the heap: it is of many kinds, each with a state of its own.
            Box::pin(beside.happen(begun, end)),
            async { Ok(traffic(shared, begun, shape.duration).await) },
            stage_of_faults.carry_out(&script, &mut people.owner, gone, begun, end),
        )?;
        let mut outcome = Outcome::new(&self.subject, &carried);
        happened.add_to(&mut outcome);
        outcome.joins = joins;
        outcome.sessions_ended = self.shared.sessions_ended.load(Ordering::Relaxed) - ended_before;
        self.conclude(&mut outcome, (shape, phase), carried, traffic, injected);
        Ok(outcome)
    }

    /// What there is to say of several nodes, and of faults.
    fn conclude(
        &self,
        outcome: &mut Outcome,
        (shape, phase): (&Shape, &Phase),
        carried: Carried,
        traffic: Option<Result<traffic::Difference, String>>,
        injected: Vec<Injected>,
    ) {
        let measured = carried.measured;
        let spoken_per_s = measured.sent as f64 / shape.duration.as_secs_f64();
        outcome.between_nodes = traffic.map(|difference| BetweenNodes::new(difference, spoken_per_s));
        outcome.nodes = self.config.nodes(shape, phase, &measured);
        let from_ns = measured.tally.window_ns.start;
        outcome.faults = measured.watched.map(|watched| FaultsOutcome::new(injected, watched, from_ns));
    }

    /// Sees to it that those are there whom the phase needs; how they joined, where they had to.
    async fn assemble(&mut self, shape: &Shape, stage: &(dyn Fn(Stage) + Sync)) -> Result<Option<Joins>, LoadError> {
        if self.here.as_ref().is_some_and(|(groups, _)| *groups == shape.groups) {
            return Ok(None);
        }
        self.leave().await;
        let Self { scenario, config, shared, visitors, .. } = self;
        let before = config.memory_bytes().ok();
        let (people, mut joins) = gather(scenario, config, shared, &shape.groups, *visitors, stage).await?;
        self.here = Some((shape.groups.clone(), people));
        self.swarm.bound(shape.total(), stage).await?;
        tokio::time::sleep(SETTLE).await;
        // A node that an earlier phase has ended has no memory.
        joins.remembers(before.zip(self.config.memory_bytes().ok()).filter(|_| !self.config.pids.is_empty()));
        Ok((joins.times.count > 0).then_some(joins))
    }

    /// Sends everyone home.
    async fn leave(&mut self) {
        let Some((_, people)) = self.here.take() else { return };
        // A node to which something was done may not answer any more.
        let whole = (0..self.shared.rests.len()).find(|node| !self.gone.contains(node));
        send_home(&self.shared, people, whole.unwrap_or(0)).await;
    }
}

fn shared(config: &NodesConfig, swarm: &SwarmThread) -> Result<Shared, LoadError> {
    Ok(Shared {
        servers: config.servers.clone().into(),
        rests: config.servers.iter().cloned().map(Rest::new).collect::<Result<_, _>>()?,
        run: format!("lt{:06x}", uuid::Uuid::new_v4().as_u128() & 0xff_ffff),
        people: config.people.clone(),
        encoding: config.encoding,
        cipher: config.cipher,
        sweep_interval: config.sweep_interval,
        clock: swarm.clock,
        swarm: swarm.messages.clone(),
        progress: Arc::clone(&swarm.progress),
        phases_us: Arc::default(),
        sessions_ended: Arc::default(),
    })
}

impl NodesConfig {
    fn check(&self) -> Result<(), LoadError> {
        let (servers, pids) = (self.servers.len(), self.pids.len());
        if servers == 0 || (pids > 0 && pids != servers) {
            let text = format!("{servers} servers and {pids} processes; there must be one for each, or no process");
            return Err(LoadError::Arguments(text));
        }
        Ok(())
    }

    /// Whether the processes are there, and take signals where the scenario has any sent.
    fn check_processes(&self, scenario: &Scenario) -> Result<(), LoadError> {
        let signalled =
            scenario.phases.iter().flat_map(|phase| &phase.faults).any(|fault| fault.action.signal().is_some());
        self.pids.iter().try_for_each(|pid| process::check(*pid, signalled).map_err(LoadError::Arguments))
    }

    pub(super) fn cpu(&self) -> io::Result<Vec<CpuSample>> {
        self.pids.iter().copied().map(CpuSample::take).collect()
    }

    /// All nodes' resident memory.
    fn memory_bytes(&self) -> io::Result<u64> {
        self.pids.iter().copied().map(resident_bytes).sum()
    }

    /// What the outcome calls the nodes.
    fn subject(&self) -> io::Result<String> {
        let name = self.pids.first().copied().map(command_of).transpose()?.unwrap_or_else(|| "node".to_owned());
        Ok(if self.servers.len() > 1 { format!("{name} on {} nodes", self.servers.len()) } else { name })
    }

    fn nodes(&self, shape: &Shape, phase: &Phase, measured: &Measured) -> Vec<NodeOutcome> {
        let nodes = self.servers.len();
        if nodes < 2 {
            return Vec::new();
        }
        let seats = crowd::seats(&crowd::rooms(&shape.groups), nodes);
        let in_voice = |place| seats.iter().filter(|seat| seat.node == place).count();
        let members = phase.chat.as_ref().map_or(0, |chat| chat.members);
        let in_chat = |place| (0..members).filter(|member| chat::node_of(*member, nodes) == place).count();
        let node = |(place, server): (usize, &ServerUrl)| {
            let cpu = measured.cpu.get(place).copied().flatten();
            NodeOutcome {
                server: server.to_string(),
                clients: in_voice(place) + in_chat(place),
                cpu,
                cpu_cores: cpu.map(|cpu| cpu.seconds / shape.duration.as_secs_f64()),
            }
        };
        self.servers.iter().enumerate().map(node).collect()
    }
}

/// What went between the nodes, where there are several.
async fn traffic(shared: &Shared, begun: Instant, measured: Duration) -> Option<Result<traffic::Difference, String>> {
    if shared.rests.len() < 2 {
        return None;
    }
    Some(traffic::watch(&shared.rests, begun, measured).await)
}
