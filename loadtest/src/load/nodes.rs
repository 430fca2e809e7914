//! One run against a node, or against several of a cluster, from connecting to the outcome.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{
    gateway::{Cipher, Encoding},
    ids::ChannelId,
};
use tokio::time::Instant;

use super::{
    LoadError,
    account::TokenPair,
    churn::{Churn, ChurnOutcome, churn},
    faults::{self, FaultsOutcome, Injected},
    members::{InChannel, People, Place, Shared, connect_all, join_all},
    outcome::{Joins, NodeOutcome, Outcome},
    process::{CpuSample, CpuUsed, command_of},
    run::{Shape, Stage, SwarmThread},
    script::Fault,
    swarm::{Measured, Role},
    traffic::{self, BetweenNodes},
};
use crate::{
    ServerUrl,
    rest::{NewChannel, Rest},
};

/// After the last client was bound: until the node, too, knows that its datagrams arrive.
const SETTLE: Duration = Duration::from_millis(500);

/// A run against a node, or against several of a cluster.
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
    /// Joins a second; `None` is all at once.
    pub ramp_per_second: Option<f64>,
    /// Who comes and goes meanwhile.
    pub churn: Option<Churn>,
    /// What is done to nodes meanwhile.
    pub faults: Vec<Fault>,
}

/// Runs the scenario against nodes.
///
/// # Errors
/// When anything fails before there is an outcome. Loss is no error: it is in the outcome.
pub async fn measure_nodes(
    shape: &Shape,
    config: &NodesConfig,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<Outcome, LoadError> {
    shape.check()?;
    let script = config.check(shape)?;
    let subject = config.subject()?;
    let swarm = SwarmThread::start(shape)?;
    let shared = shared(config, &swarm)?;
    let mut people = gather(shape, config, &shared, stage).await?;
    swarm.bound(shape.total(), stage).await?;
    tokio::time::sleep(SETTLE).await;

    let channels = &people.channels;
    let hints = shared.phases_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let plan = shape.plan(config.pids.clone(), !script.is_empty(), |channel| hints.get(&channels[channel]).copied());
    let begun = Instant::now() + shape.warm_up;
    let faults = faults::Stage { shared: &shared, pids: &config.pids, channels };
    let ((measured, resident), visits, traffic, injected) = tokio::try_join!(
        swarm.run(plan, stage),
        visits(shape, config, &shared, channels),
        async { Ok(traffic(&shared, begun, shape.duration).await) },
        faults.carry_out(&script, &mut people.owner, begun, begun + shape.duration),
    )?;

    let mut outcome = Outcome::new(&subject, &measured);
    (outcome.joins, outcome.churn, outcome.resident) = (Some(people.joins), visits, resident);
    let spoken_per_s = measured.sent as f64 / shape.duration.as_secs_f64();
    outcome.between_nodes = traffic.map(|difference| BetweenNodes::new(difference, spoken_per_s));
    outcome.nodes = config.nodes(shape, &measured);
    outcome.sessions_ended = shared.sessions_ended.load(Ordering::Relaxed);
    clean_up(&shared, people, &injected).await;
    let from_ns = measured.tally.window_ns.start;
    outcome.faults = measured.watched.map(|watched| FaultsOutcome::new(injected, watched, from_ns));
    Ok(outcome)
}

/// Everyone in their channels.
struct Gathered {
    members: Vec<InChannel>,
    channels: Vec<ChannelId>,
    /// Whose channels they are.
    owner: TokenPair,
    joins: Joins,
}

/// Connects everyone, makes the channels, and lets everyone join.
async fn gather(
    shape: &Shape,
    config: &NodesConfig,
    shared: &Shared,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<Gathered, LoadError> {
    let total = shape.total();
    let seats = shape.seats(config.servers.len());
    let connected = connect_all(shared, seats, |count| stage(Stage::Connecting(count, total))).await?;
    let (clients, mut tokens): (Vec<_>, Vec<_>) = connected.into_iter().unzip();
    let mut owner = tokens.pop().ok_or(LoadError::SwarmEnded)?;
    let channels = make_channels(shared, &mut owner, shape, config.churn).await?;
    let places = (0..total).map(|slot| {
        let channel = slot / shape.clients;
        Place { slot, channel, channel_id: channels[channel], role: Role::Stays }
    });

    let cpu_before = config.cpu()?;
    let begun = Instant::now();
    let clients = clients.into_iter().zip(places).collect();
    let members =
        join_all(shared, clients, config.ramp_per_second, |count| stage(Stage::Joining(count, total))).await?;
    let took = begun.elapsed();
    let cpu: Vec<_> = config.cpu()?.iter().zip(&cpu_before).map(|(after, before)| Some(after.since(before))).collect();
    let joins = Joins::new(members.iter().map(|member| member.took), took, CpuUsed::sum(&cpu));
    Ok(Gathered { members, channels, owner, joins })
}

fn shared(config: &NodesConfig, swarm: &SwarmThread) -> Result<Shared, LoadError> {
    Ok(Shared {
        servers: config.servers.clone().into(),
        rests: config.servers.iter().cloned().map(Rest::new).collect::<Result<_, _>>()?,
        run: format!("lt{:06x}", uuid::Uuid::new_v4().as_u128() & 0xff_ffff),
        people: config.people.clone(),
        encoding: config.encoding,
        cipher: config.cipher,
        clock: swarm.clock,
        swarm: swarm.messages.clone(),
        phases_us: Arc::default(),
        sessions_ended: Arc::default(),
    })
}

impl NodesConfig {
    /// The script in order, when all can be carried out.
    fn check(&self, shape: &Shape) -> Result<Vec<Fault>, LoadError> {
        let (servers, pids) = (self.servers.len(), self.pids.len());
        if servers == 0 || (pids > 0 && pids != servers) {
            let text = format!("{servers} servers and {pids} processes; there must be one for each, or no process");
            return Err(LoadError::Arguments(text));
        }
        let script = faults::in_order(&self.faults);
        faults::check(&script, shape, self)?;
        Ok(script)
    }

    fn cpu(&self) -> io::Result<Vec<CpuSample>> {
        self.pids.iter().copied().map(CpuSample::take).collect()
    }

    /// What the outcome calls the nodes.
    fn subject(&self) -> io::Result<String> {
        let name = self.pids.first().copied().map(command_of).transpose()?.unwrap_or_else(|| "node".to_owned());
        Ok(if self.servers.len() > 1 { format!("{name} on {} nodes", self.servers.len()) } else { name })
    }

    fn nodes(&self, shape: &Shape, measured: &Measured) -> Vec<NodeOutcome> {
        if self.servers.len() < 2 {
            return Vec::new();
        }
        let seats = shape.seats(self.servers.len());
        let node = |(place, server): (usize, &ServerUrl)| {
            let cpu = measured.cpu.get(place).copied().flatten();
            NodeOutcome {
                server: server.to_string(),
                clients: seats.iter().filter(|seat| seat.node == place).count(),
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

async fn visits(
    shape: &Shape,
    config: &NodesConfig,
    shared: &Shared,
    channels: &[ChannelId],
) -> Result<Option<ChurnOutcome>, LoadError> {
    let Some(rate) = config.churn else { return Ok(None) };
    let until = Instant::now() + shape.warm_up + shape.duration;
    churn(shared.clone(), rate, channels.to_vec(), shape.total(), until).await.map(Some)
}

async fn make_channels(
    shared: &Shared,
    owner: &mut TokenPair,
    shape: &Shape,
    churn: Option<Churn>,
) -> Result<Vec<ChannelId>, LoadError> {
    let visitors = churn.map_or(0, |churn| churn.at_once_max());
    let max_users =
        u32::try_from(shape.clients + visitors).map_err(|_| LoadError::Arguments("too many clients".to_owned()))?;
    let mut channels = Vec::with_capacity(shape.channels);
    for number in 0..shape.channels {
        let channel =
            NewChannel { name: format!("{}-{number}", shared.run), max_users: Some(max_users), max_speakers: Some(0) };
        let rest = shared.rest();
        channels.push(rest.create_channel(&owner.access(rest).await?, &channel).await?.id);
    }
    Ok(channels)
}

/// Leaves nothing behind but the guests' names. Failures change no figure.
async fn clean_up(shared: &Shared, people: Gathered, faults: &[Injected]) {
    let Gathered { members, channels, mut owner, .. } = people;
    // A node to which something was done may not answer any more.
    let whole = (0..shared.rests.len()).find(|node| faults.iter().all(|fault| fault.node != *node));
    let rest = &shared.rests[whole.unwrap_or(0)];
    for channel in channels {
        let deleted = match owner.access(rest).await {
            Ok(access) => rest.delete_channel(&access, channel).await.map_err(LoadError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(%error, %channel, "a channel stays behind");
        }
    }
    let mut leaving = tokio::task::JoinSet::new();
    for member in members {
        leaving.spawn(async move { member.end().await });
    }
    while leaving.join_next().await.is_some() {}
}
