//! `voice`, `floor` and `relay`: one phase from flags, against nodes and against the bare relay.

use std::{process::ExitCode, time::Duration};

use antiphon_loadtest::{
    load::{
        Churn, Fault, Outcome, Phases, Relay, RelayConfig, RelayProcess, Shape, measure_relay, measure_scenario,
        pin_process,
    },
    parse_duration,
    report::Report,
    scenario::{Group, Impairment, Phase, Scenario, Talk, Transports},
};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::{
    measuring::{MeasuringArguments, milliseconds, run_async},
    output,
    progress::Progress,
    target::TargetArguments,
};

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
    #[command(flatten)]
    measuring: MeasuringArguments,
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
    #[command(flatten)]
    target: TargetArguments,
    /// Do something to a node, so long after the measured time began: `3s kill owner`. One may kill, drain (SIGTERM),
    /// stop (SIGSTOP) and continue, which needs every --pid, or api-drain and api-undrain, which needs --admin; and name the
    /// owner of the only channel, an edge (the first node that does not own it), or a node by its place in the list of
    /// servers, from 1
    #[arg(long, value_name = "AT ACTION NODE")]
    fault: Vec<Fault>,
    /// Join so many clients a second [default: all at once]
    #[arg(long, value_name = "RATE")]
    ramp: Option<f64>,
    /// Meanwhile let others join, and leave, so many times a second
    #[arg(long, value_name = "RATE")]
    churn: Option<f64>,
    /// How long each of those stays
    #[arg(long, default_value = "2", value_parser = parse_duration, value_name = "DURATION")]
    churn_stay: Duration,
    /// Let talkers talk continuously, or in spurts with pauses as in a conversation (ITU-T P.59)
    #[arg(long, value_enum, default_value_t)]
    talk: TalkName,
    /// The share of clients whose voice travels in the WebSocket
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    tunnel: f64,
    /// The share of listeners who hear by WebRTC
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    webrtc: f64,
    /// Make every client's way a bad one, in each direction: `loss=0.01,loss_burst=2,delay=30ms,jitter=10ms`; there are
    /// reorder, reorder_delay and duplicate, too
    #[arg(long, value_name = "WAY")]
    impairment: Option<Impairment>,
    /// Fetch every node's metrics so often
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    scrape_every: Option<Duration>,
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

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum TalkName {
    #[default]
    Continuous,
    P59,
}

impl VoiceArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let relay_cpus = self.shape.measuring.pin()?;
        let scenario = self.scenario()?;
        if self.floor && (self.tunnel > 0.0 || self.impairment.is_some()) {
            bail!("the relay has neither WebSockets nor bad ways: --floor would compare it with something else");
        }
        run_async(self.measure(scenario, relay_cpus))
    }

    fn scenario(&self) -> Result<Scenario> {
        let phase = Phase {
            scrape_every: self.scrape_every,
            faults: self.fault.clone(),
            churn: self.churn.map(|per_second| Churn { per_second, stay: self.churn_stay }),
            impairment: self.impairment,
            ..self.shape.phase()
        };
        let mut scenario = self.shape.scenario("voice", phase)?;
        scenario.ramp_per_s = self.ramp;
        scenario.transports =
            Transports { udp: 1.0 - self.tunnel - self.webrtc, tunnel: self.tunnel, webrtc: self.webrtc };
        scenario.talk = match self.talk {
            TalkName::Continuous => Talk::Continuous,
            TalkName::P59 => Talk::P59,
        };
        scenario.check()?;
        Ok(scenario)
    }

    async fn measure(self, scenario: Scenario, relay_cpus: Vec<usize>) -> Result<ExitCode> {
        let shape = only_shape(&scenario);
        let (mut floors, mut bundled) = (Vec::new(), None);
        let sweep = self.shape.measuring.sweep_ms.map(milliseconds);
        if self.floor {
            floors.push(floor(&shape, None, &relay_cpus, sweep).await?);
        }
        let progress = Progress::new(vec!["node".to_owned()]);
        let config = self.target.config(self.shape.measuring.sweep_ms)?;
        let outcomes = measure_scenario(&scenario, &config, &|phase, stage| progress.show(phase, stage)).await?;
        drop(progress);
        if self.floor {
            floors.push(floor(&shape, None, &relay_cpus, sweep).await?);
        }
        if let Some(bundle_ms) = self.bundle_ms {
            bundled = Some(floor(&shape, Some(bundle_ms), &relay_cpus, sweep).await?);
        }
        self.shape.measuring.conclude(&Report::new(scenario, outcomes).with_relays(floors, bundled))
    }
}

impl FloorArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let relay_cpus = self.shape.measuring.pin()?;
        let scenario = self.shape.scenario("floor", self.shape.phase())?;
        run_async(async move {
            let shape = only_shape(&scenario);
            let sweep = self.shape.measuring.sweep_ms.map(milliseconds);
            let floors = vec![floor(&shape, None, &relay_cpus, sweep).await?];
            let bundled = match self.bundle_ms {
                Some(bundle_ms) => Some(floor(&shape, Some(bundle_ms), &relay_cpus, sweep).await?),
                None => None,
            };
            self.shape.measuring.conclude(&Report::new(scenario, Vec::new()).with_relays(floors, bundled))
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
    fn phase(&self) -> Phase {
        Phase {
            name: "voice".to_owned(),
            duration: self.duration,
            warm_up: self.warm_up,
            talk: None,
            scrape_every: None,
            faults: Vec::new(),
            budgets: Default::default(),
            churn: None,
            storm: None,
            chat: None,
            stream: None,
            impairment: None,
            groups: None,
        }
    }

    /// A scenario of that one phase, as far as these arguments say.
    fn scenario(&self, name: &str, phase: Phase) -> Result<Scenario> {
        let Self { channels, clients, speakers, .. } = *self;
        if channels == 0 || clients < 2 || speakers == 0 {
            bail!("there must be a channel, two clients in it, and a speaker");
        }
        if speakers > clients {
            bail!("{speakers} speakers cannot be among {clients} clients");
        }
        let mut scenario = Scenario {
            name: name.to_owned(),
            description: String::new(),
            seed: self.seed,
            frame_bytes: self.frame_bytes,
            grid: match self.phases {
                PhasesName::Random => Phases::Random,
                PhasesName::Aligned => Phases::Aligned,
            },
            talk: Talk::Continuous,
            ramp_per_s: None,
            transports: Transports::default(),
            budgets: Default::default(),
            groups: vec![Group { channels, talkers: speakers, listeners: clients - speakers }],
            phases: vec![phase],
        };
        self.measuring.add_budgets(&mut scenario);
        scenario.check()?;
        Ok(scenario)
    }
}

/// The shape of a scenario's first phase.
fn only_shape(scenario: &Scenario) -> Shape {
    Shape::of(scenario, &scenario.phases[0], &scenario.groups)
}

/// Measures a relay, which is this program again.
async fn floor(shape: &Shape, bundle_ms: Option<f64>, cpus: &[usize], sweep: Option<Duration>) -> Result<Outcome> {
    let mut arguments = vec!["relay".to_owned()];
    if !cpus.is_empty() {
        let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        arguments.extend(["--cpus".to_owned(), list.join(",")]);
    }
    if let Some(bundle_ms) = bundle_ms {
        arguments.extend(["--bundle-ms".to_owned(), bundle_ms.to_string()]);
    }
    let name = bundle_ms.map_or_else(|| "relay".to_owned(), |ms| format!("bundling relay {ms} ms"));
    let progress = Progress::new(vec![name.clone()]);
    let relay = RelayProcess { program: std::env::current_exe()?, arguments, name };
    Ok(measure_relay(shape, &relay, bundle_ms.is_none(), sweep, &|stage| progress.show(0, stage)).await?)
}
