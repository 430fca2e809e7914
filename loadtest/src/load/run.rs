//! A run against the bare relay; against nodes it is in [`super::nodes`].

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use antiphon_core::{gateway::Cipher, ids::ChannelId, seal::Key};

use super::{
    LoadError,
    outcome::Outcome,
    shape::Shape,
    swarm::{NewClient, Role, ToSwarm},
    system::{lower_priority, pin},
    thread::{Needs, Stage, SwarmThread},
    wire::{RelayWire, Wire},
};

/// How far the threads of the gateway sessions stand back when they share a CPU with the swarm: a tenth of its share.
const GATEWAY_NICENESS: i32 = 10;

/// How a relay is started: this program, told to be one.
#[derive(Clone, Debug)]
pub struct RelayProcess {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; to these are added `--clients` and `--per-channel`.
    pub arguments: Vec<String>,
    /// What the outcome calls it.
    pub name: String,
}

/// Lets the calling thread stand back behind those that measure; for the threads of the runtime that holds the gateway
/// sessions.
pub fn yield_to_swarm() {
    if let Err(error) = lower_priority(GATEWAY_NICENESS) {
        tracing::debug!(%error, "the gateway's threads keep their priority");
    }
}

/// Binds the process to these CPUs; to be called before it starts threads.
///
/// # Errors
/// When the system has no such CPU.
pub fn pin_process(cpus: &[usize]) -> Result<(), LoadError> {
    Ok(pin(cpus)?)
}

/// Runs the same scenario against a relay, in a process of its own.
///
/// # Errors
/// When anything fails before there is an outcome.
pub async fn measure_relay(
    shape: &Shape,
    relay: &RelayProcess,
    sealed: bool,
    sweep_interval: Option<Duration>,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<Outcome, LoadError> {
    let (total, clients) = (shape.total(), shape.only_group()?.clients());
    let process = RunningRelay::start(relay, total, clients)?;
    let swarm = SwarmThread::start(&Needs::of(std::slice::from_ref(shape), 0, sweep_interval))?;
    let keys = sealed.then(|| session_keys(total)).transpose()?.map(Arc::new);
    for slot in 0..total {
        let id = u32::try_from(slot).map_err(|_| LoadError::Arguments("too many clients".to_owned()))?;
        let client = NewClient {
            slot,
            role: Role::Stays,
            channel: slot / clients,
            channel_id: ChannelId(uuid::Uuid::nil()),
            node: 0,
            peer: Some(process.address),
            quiet: false,
            wire: Wire::Relay(RelayWire::new(id, keys.clone())),
            gateway: None,
        };
        swarm.messages.send(ToSwarm::Add(Box::new(client))).await.map_err(|_| LoadError::SwarmEnded)?;
    }
    swarm.bound(total, stage).await?;
    let plan = shape.plan(vec![process.child.id()], false, |_| None);
    let carried = swarm.run(plan, stage).await?;
    Ok(Outcome::new(&relay.name, &carried))
}

/// A key for each client, as a node would give them.
fn session_keys(count: usize) -> Result<Vec<Key>, LoadError> {
    let cipher = Cipher::Aes128Gcm;
    let key = |_| Key::new(cipher, uuid::Uuid::new_v4().as_bytes());
    (0..count).map(key).collect::<Result<_, _>>().map_err(|error| LoadError::Arguments(error.to_string()))
}

struct RunningRelay {
    child: Child,
    address: SocketAddr,
}

impl RunningRelay {
    fn start(relay: &RelayProcess, clients: usize, per_channel: usize) -> Result<Self, LoadError> {
        let mut child = Command::new(&relay.program)
            .args(&relay.arguments)
            .args(["--clients", &clients.to_string(), "--per-channel", &per_channel.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => {
                child.kill()?;
                child.wait()?;
                Err(LoadError::Arguments(format!("{} is no relay", relay.program.display())))
            }
        }
    }
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
