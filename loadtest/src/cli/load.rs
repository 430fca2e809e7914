//! `voice`, `floor` and `relay`: measure.

use std::{process::ExitCode, time::Duration};

use antiphon_core::gateway::{Cipher, Encoding};
use antiphon_loadtest::{
    ServerUrl,
    load::{
        Churn, Fault, NodesConfig, Outcome, People, Phases, Relay, RelayConfig, RelayProcess, Shape, measure_nodes,
        measure_relay, pin_process, yield_to_swarm,
    },
    parse_duration,
};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::{
    access::{CipherName, EncodingName},
    output,
    report::{Progress, Report},
};

/// The exit code when the load client was the bottleneck.
const EXIT_BOTTLENECK: u8 = 3;

/// The exit code when something was lost, altered or delivered twice, where that was asked for.
const EXIT_LOSS: u8 = 2;

/// Who speaks where, for how long.
#[derive(Debug, Args)]
struct ShapeArguments {
    /// Clients in each channel
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How many of each channel's clients speak, 50 frames a second each
    #[arg(long, default_value_t = 20)]
    speakers: usize,
    /// How many channels; there are CHANNELS × CLIENTS clients in all
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// How long is measured: seconds, or with a unit (s, ms, m)
    #[arg(long, default_value = "30", value_parser = parse_duration)]
    duration: Duration,
    /// How long is spoken before that
    #[arg(long, default_value = "2", value_parser = parse_duration)]
    warm_up: Duration,
    /// Bytes of each frame
    #[arg(long, default_value_t = 80)]
    frame_bytes: usize,
    /// Where in the 20 ms grid speakers speak: each anywhere, or all of a channel together, where the server says
    #[arg(long, value_enum, default_value_t)]
    phases: PhasesName,
    /// Chooses where
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds between two sweeps over the sockets [default: 3, more for thousands of clients]
    #[arg(long, value_name = "MS")]
    sweep_ms: Option<f64>,
    /// Refuse to report when one frame in a hundred was sent later than this
    #[arg(long, value_name = "MS", default_value_t = 5.0)]
    lateness_max_ms: f64,
    /// Bind the load client to this CPU; the server belongs on the others
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,
    /// Bind the relay to these CPUs [default: all but the load client's]
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    floor_pin: Vec<usize>,
    /// Write everything as JSON into this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Exit with 2 when anything was lost, altered or delivered twice
    #[arg(long)]
    fail_on_loss: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PhasesName {
    #[default]
    Random,
    Aligned,
}

/// The arguments of `voice`.
#[derive(Debug, Args)]
pub(crate) struct VoiceArguments {
    #[command(flatten)]
    shape: ShapeArguments,
    /// The server's HTTP address, or those of several nodes of a cluster, over which each channel's clients are spread
    #[arg(
        long,
        env = "ANTIPHON_URL",
        default_value = "http://127.0.0.1:3000",
        value_name = "URL",
        value_delimiter = ','
    )]
    server: Vec<ServerUrl>,
    /// The server's process, or those of the nodes in the same order, to read CPU time and memory; they must run on this
    /// machine
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Do something to a node, so long after the measured time began: `3s kill owner`. One may kill, drain (SIGTERM),
    /// stop (SIGSTOP) and continue, and name the owner of the only channel, an edge (the first node that does not own it),
    /// or a node by its place in the list of servers, from 1. Needs every --pid
    #[arg(long, value_name = "AT ACTION NODE")]
    fault: Vec<Fault>,
    /// Let the clients be accounts PREFIX-0, PREFIX-1 … instead of guests; those that do not exist are registered
    #[arg(long, requires = "password", value_name = "PREFIX")]
    accounts: Option<String>,
    /// The accounts' password
    #[arg(long, env = "ANTIPHON_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// Join so many clients a second [default: all at once]
    #[arg(long, value_name = "RATE")]
    ramp: Option<f64>,
    /// Meanwhile let others join, and leave, so many times a second
    #[arg(long, value_name = "RATE")]
    churn: Option<f64>,
    /// How long each of those stays
    #[arg(long, default_value = "2", value_parser = parse_duration, value_name = "DURATION")]
    churn_stay: Duration,
    /// What seals datagrams
    #[arg(long, value_enum)]
    cipher: Option<CipherName>,
    /// How the gateway's messages are encoded
    #[arg(long, value_enum, default_value = "msgpack")]
    encoding: EncodingName,
    /// Measure the relay, too, before and after, and print the ratio
    #[arg(long)]
    floor: bool,
    /// With `--floor`: measure a relay that bundles frames over so many milliseconds, too
    #[arg(long, value_name = "MS", requires = "floor")]
    bundle_ms: Option<f64>,
}

/// The arguments of `floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArguments {
    #[command(flatten)]
    shape: ShapeArguments,
    /// Measure a relay that bundles frames over so many milliseconds, too
    #[arg(long, value_name = "MS")]
    bundle_ms: Option<f64>,
}

/// The arguments of `relay`.
#[derive(Debug, Args)]
pub(crate) struct RelayArguments {
    #[arg(long)]
    clients: u32,
    #[arg(long)]
    per_channel: u32,
    #[arg(long)]
    bundle_ms: Option<f64>,
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
}

impl VoiceArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let relay_cpus = self.shape.pin()?;
        run_async(self.measure(relay_cpus))
    }

    async fn measure(self, relay_cpus: Vec<usize>) -> Result<ExitCode> {
        let shape = self.shape.shape();
        let nodes = NodesConfig {
            servers: self.server.clone(),
            people: match self.accounts.clone().zip(self.password.clone()) {
                Some((prefix, password)) => People::Accounts { prefix, password },
                None => People::Guests,
            },
            encoding: Encoding::from(self.encoding),
            cipher: self.cipher.map(Cipher::from),
            pids: self.pid.clone(),
            ramp_per_second: self.ramp,
            churn: self.churn.map(|per_second| Churn { per_second, stay: self.churn_stay }),
            faults: self.fault.clone(),
        };
        let mut report = Report::new(&shape);
        if self.floor {
            report.floors.push(floor(&shape, None, &relay_cpus).await?);
        }
        let progress = Progress::new("node");
        report.node = Some(measure_nodes(&shape, &nodes, &|stage| progress.show(stage)).await?);
        drop(progress);
        if self.floor {
            report.floors.push(floor(&shape, None, &relay_cpus).await?);
        }
        if let Some(bundle_ms) = self.bundle_ms {
            report.bundled = Some(floor(&shape, Some(bundle_ms), &relay_cpus).await?);
        }
        self.shape.conclude(&report)
    }
}

impl FloorArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let relay_cpus = self.shape.pin()?;
        run_async(async move {
            let shape = self.shape.shape();
            let mut report = Report::new(&shape);
            report.floors.push(floor(&shape, None, &relay_cpus).await?);
            if let Some(bundle_ms) = self.bundle_ms {
                report.bundled = Some(floor(&shape, Some(bundle_ms), &relay_cpus).await?);
            }
            self.shape.conclude(&report)
        })
    }
}

impl RelayArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if !self.cpus.is_empty() {
            pin_process(&self.cpus)?;
        }
        let relay = Relay::bind(RelayConfig {
            clients: self.clients,
            clients_per_channel: self.per_channel,
            bundle: self.bundle_ms.map(milliseconds),
        })?;
        output::result(format_args!("{}", relay.local_addr()?));
        relay.run()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ShapeArguments {
    fn shape(&self) -> Shape {
        Shape {
            channels: self.channels,
            clients: self.clients,
            speakers: self.speakers,
            duration: self.duration,
            warm_up: self.warm_up,
            frame_bytes: self.frame_bytes,
            phases: match self.phases {
                PhasesName::Random => Phases::Random,
                PhasesName::Aligned => Phases::Aligned,
            },
            seed: self.seed,
            sweep_interval: self.sweep_ms.map(milliseconds),
        }
    }

    /// Binds this process to its CPU and says which ones the relay gets.
    fn pin(&self) -> Result<Vec<usize>> {
        let all = std::thread::available_parallelism()?.get();
        let Some(own) = self.pin else { return Ok(self.floor_pin.clone()) };
        pin_process(&[own]).with_context(|| format!("CPU {own}"))?;
        let others: Vec<usize> = (0..all).filter(|cpu| *cpu != own).collect();
        let relay_cpus = if self.floor_pin.is_empty() { others } else { self.floor_pin.clone() };
        // On a machine with one CPU the relay has to share it.
        Ok(if relay_cpus.is_empty() { vec![own] } else { relay_cpus })
    }

    /// Prints the report, unless it would say more of the load client than of what it measured.
    fn conclude(&self, report: &Report) -> Result<ExitCode> {
        let lateness_max = milliseconds(self.lateness_max_ms);
        let reason = report.outcomes().find_map(|outcome| {
            outcome.bottleneck(lateness_max).map(|reason| format!("against {}: {reason}", outcome.subject))
        });
        if let Some(reason) = reason {
            output::note(format_args!("not reported, since the load client was the bottleneck: {reason}"));
            return Ok(ExitCode::from(EXIT_BOTTLENECK));
        }
        if self.json.as_deref() != Some("-") {
            output::result(format_args!("{}", report.table()));
        }
        match self.json.as_deref() {
            Some("-") => output::result(format_args!("{}", report.json()?)),
            Some(file) => std::fs::write(file, report.json()? + "\n").with_context(|| file.to_owned())?,
            None => {}
        }
        let flawed = report.node.as_ref().is_some_and(|node| node.lost + node.duplicated + node.corrupt > 0);
        Ok(if self.fail_on_loss && flawed { ExitCode::from(EXIT_LOSS) } else { ExitCode::SUCCESS })
    }
}

/// Measures a relay, which is this program again.
async fn floor(shape: &Shape, bundle_ms: Option<f64>, cpus: &[usize]) -> Result<Outcome> {
    let mut arguments = vec!["relay".to_owned()];
    if !cpus.is_empty() {
        let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        arguments.extend(["--cpus".to_owned(), list.join(",")]);
    }
    if let Some(bundle_ms) = bundle_ms {
        arguments.extend(["--bundle-ms".to_owned(), bundle_ms.to_string()]);
    }
    let name = bundle_ms.map_or_else(|| "relay".to_owned(), |ms| format!("bundling relay {ms} ms"));
    let progress = Progress::new(&name);
    let relay = RelayProcess { program: std::env::current_exe()?, arguments, name };
    Ok(measure_relay(shape, &relay, bundle_ms.is_none(), &|stage| progress.show(stage)).await?)
}

fn run_async(future: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(yield_to_swarm)
        .enable_all()
        .build()?;
    runtime.block_on(future)
}

fn milliseconds(count: f64) -> Duration {
    Duration::try_from_secs_f64(count / 1_000.0).unwrap_or_default()
}
