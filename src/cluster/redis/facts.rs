//! What a Redis says of itself, for whoever sets it up.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fred::{
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand},
};

use super::{
    RedisError,
    connection::{Connection, Target, within},
};

/// How long connecting and each answer may take: whoever asks once wants to hear of a server that is merely slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct RedisFacts {
    /// Its release, such as `7.0.15`.
    pub version: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `slave`.
    pub role: String,
    /// What it does with data that exceeds its memory, such as `noeviction`.
    pub eviction: String,
    /// How much memory it may use; 0 for all there is.
    pub memory_bytes_max: u64,
    /// Whether it keeps its data in an append-only file.
    pub is_appending: bool,
    /// How far its clock is ahead of this machine's, in seconds, half a round trip more or less.
    pub clock_ahead_s: f64,
}

impl RedisFacts {
    /// Asks the server at `url`; `ca_file` holds the certificates that its own must be signed by, when not the system's.
    /// In a cluster one of the servers answers.
    ///
    /// # Errors
    /// When the settings are wrong, or it cannot be reached.
    pub async fn ask(url: &str, ca_file: Option<&Path>) -> Result<Self, RedisError> {
        let target = Target::new(url, ca_file)?.with_patience(PATIENCE);
        let connection = Connection::open(&target).await?;
        let client = connection.client();
        let info: String = within(PATIENCE, client.info(None)).await?;
        let asked = now_s();
        let time = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let time: Vec<String> = within(PATIENCE, client.custom(time, Vec::<String>::new())).await?;
        let middle = f64::midpoint(asked, now_s());
        Ok(Self::read(&info, moment_s(&time).map_or(0.0, |there| there - middle)))
    }

    fn read(info: &str, clock_ahead_s: f64) -> Self {
        let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let text = |key: &str| fields.get(key).copied().unwrap_or("unknown").to_owned();
        Self {
            version: text("redis_version"),
            mode: text("redis_mode"),
            role: text("role"),
            eviction: text("maxmemory_policy"),
            memory_bytes_max: text("maxmemory").parse().unwrap_or(0),
            is_appending: text("aof_enabled") == "1",
            clock_ahead_s,
        }
    }

    /// The release's first number; 0 where it says none.
    #[must_use]
    pub fn version_major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The answer to `TIME`: seconds and microseconds.
fn moment_s(parts: &[String]) -> Option<f64> {
    let [seconds, micros] = parts else { return None };
    Some(seconds.parse::<f64>().ok()? + micros.parse::<f64>().ok()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n# Memory\r\nmaxmemory:1024\r\n\
                    maxmemory_policy:allkeys-lru\r\n# Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:master\r\n";
        let facts = RedisFacts::read(info, 0.5);
        assert_eq!((facts.version_major(), facts.mode.as_str(), facts.role.as_str()), (7, "standalone", "master"));
        assert_eq!((facts.eviction.as_str(), facts.memory_bytes_max, facts.is_appending), ("allkeys-lru", 1_024, true));
        assert_eq!(moment_s(&["10".to_owned(), "500000".to_owned()]), Some(10.5));
        assert_eq!(moment_s(&[]), None);
    }
}
