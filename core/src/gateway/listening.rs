//! Who listens to audio files, for administrators who watch (docs/protocol.md, 3.8).

use serde::{Deserialize, Serialize};

use crate::ids::ListeningId;

/// Whether one is told from now on who listens; it ends with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchListening {
    /// False ends it.
    pub watch: bool,
}

/// Somebody begins to listen to a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListeningBegun {
    /// The listening session.
    pub listening_id: ListeningId,
    /// Which file.
    pub path: String,
    /// `original`, `low`, `medium` or `high`.
    pub quality: String,
    /// A number that tells networks apart on one day, and is nobody's address.
    pub network: String,
    /// RFC 3339 UTC.
    pub began_at: String,
}

/// They have not asked for anything for a while: their session is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListeningEnded {
    /// As it began.
    #[serde(flatten)]
    pub begun: ListeningBegun,
    /// The end of the last answer, RFC 3339 UTC.
    pub ended_at: String,
    /// Bytes sent, some of them perhaps again.
    pub sent_bytes: u64,
    /// How much of the file was sent, from 0 to 1.
    pub heard: f64,
}

/// How many listen now, through all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningStats {
    /// To files.
    pub listeners: u64,
    /// To channels, by links.
    pub channel_listeners: u64,
    /// The nodes that these are of.
    pub nodes: u32,
    /// Beginnings and ends that were too many to be told, since one watches.
    pub missed: u64,
}
