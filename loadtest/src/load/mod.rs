//! The load tester: many clients in one process, who speak, and verify and count every frame they hear.
//!
//! ```text
//!  gateway sessions (tokio) ──── who joined, keys, hints ────▶ swarm: one thread, all sockets, no wake-ups
//!        one task each      ◀──── frames without UDP ────────       schedule · sweep · verify · count
//! ```
//!
//! [`measure_scenario`] carries out a [`Scenario`](crate::scenario::Scenario) against a server or the nodes of a
//! cluster, [`measure_relay`] one of its phases against a bare [`Relay`] in a process of its own, with the same sockets,
//! schedule and counting; so that the two can be compared. What happens in a phase beside talking is a module each
//! ([`Churn`], [`Storm`], [`Fault`], [`Chat`], [`Streams`], scrapes): it runs along with the swarm and adds what it found to the [`Outcome`].

mod account;
mod admin;
mod beside;
mod chat;
mod churn;
mod counts;
mod crowd;
mod faults;
mod figures;
mod gathering;
mod members;
mod nodes;
mod outcome;
mod ownership;
mod payload;
mod peer;
mod process;
mod quality;
mod relay;
mod run;
mod schedule;
mod scrape;
mod script;
mod series;
mod shape;
mod silence;
mod spread;
mod storm;
mod streams;
mod swarm;
mod system;
mod talk;
mod tally;
mod thread;
mod traffic;
mod way;
mod wire;

use std::io;

use antiphon_core::gateway::Error;

pub use admin::Admin;
pub use chat::{Chat, ChatOutcome};
pub use churn::{Churn, ChurnOutcome};
pub use counts::Counts;
pub use faults::{FaultOutcome, FaultsOutcome};
pub use figures::{Better, Figure, UnknownFigure};
pub use members::People;
pub use nodes::{NodesConfig, measure_scenario};
pub use outcome::{ClientHealth, Joins, NodeOutcome, Outcome, Resident};
pub use process::CpuUsed;
pub use quality::Quality;
pub use relay::{Relay, RelayConfig};
pub use run::{RelayProcess, measure_relay, pin_process, yield_to_swarm};
pub use schedule::Phases;
pub use scrape::ScrapesOutcome;
pub use script::{Action, Fault, FaultError, Target};
pub use series::Step;
pub use shape::Shape;
pub use silence::{Lost, LostBySeat, Silences};
pub use storm::{Storm, StormOutcome};
pub use streams::{Pace, Streams, StreamsOutcome};
pub use tally::TimesSummary;
pub use thread::{Live, Stage};
pub use traffic::{BetweenNodes, Traffic};

use crate::{
    gateway::{Closed, GatewayClosed, GatewayError},
    rest::RestError,
    voice::SetupError,
};

/// The longest frame: with its headers it fits the usual datagram.
pub const FRAME_BYTES_MAX: usize = 1_100;

/// The shortest frame: it holds what proves it.
pub const FRAME_BYTES_MIN: usize = payload::FRAME_BYTES_MIN;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The HTTP API.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// A gateway session.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The server refused a join.
    #[error("joining: {} ({})", .0.error, .0.error_code.as_str())]
    Refused(Error),
    /// The server closed a session.
    #[error("the server closed a session: {0}")]
    Closed(Closed),
    /// A session had ended.
    #[error(transparent)]
    Ended(#[from] GatewayClosed),
    /// The server's keys cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The server did something unexpected.
    #[error("the server {0}")]
    Protocol(&'static str),
    /// Not everyone's way worked in time.
    #[error("of {total} clients only {working} could bind within {seconds} s")]
    NotBound {
        /// Whose way worked.
        working: usize,
        /// All.
        total: usize,
        /// How long was waited.
        seconds: u64,
    },
    /// The arguments contradict each other.
    #[error("{0}")]
    Arguments(String),
    /// The thread with the sockets ended.
    #[error("the load client's own thread ended early")]
    SwarmEnded,
}
