//! Which servers are measured, and as whom.

use antiphon_core::gateway::{Cipher, Encoding};
use antiphon_loadtest::{
    ServerUrl,
    load::{Admin, NodesConfig, People},
};
use anyhow::Result;
use clap::Args;

use super::{
    access::{CipherName, EncodingName, TrustArguments},
    measuring::milliseconds,
};

/// The nodes under test.
#[derive(Debug, Args)]
pub(crate) struct TargetArguments {
    /// The server's HTTP address, or those of several nodes of a cluster with commas between them, over which each
    /// channel's clients are spread
    #[arg(
        long,
        env = "ANTIPHON_URL",
        default_value = "http://127.0.0.1:3000",
        value_name = "URL",
        value_delimiter = ','
    )]
    server: Vec<ServerUrl>,
    #[command(flatten)]
    trust: TrustArguments,
    /// The server's process, or those of the nodes in the same order with commas between them, to read CPU time and memory;
    /// they must run on this machine
    #[arg(long, value_delimiter = ',', value_parser = process_id)]
    pid: Vec<u32>,
    /// Let the clients be accounts PREFIX-0, PREFIX-1 … instead of guests; those that do not exist are registered
    #[arg(long, requires = "password", value_name = "PREFIX")]
    accounts: Option<String>,
    /// The accounts' password
    #[arg(long, env = "ANTIPHON_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// An administrator's account, to drain nodes by the API
    #[arg(long, requires = "admin_password", value_name = "NAME")]
    admin: Option<String>,
    /// The administrator's password
    #[arg(long, env = "ANTIPHON_ADMIN_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    admin_password: Option<String>,
    /// What seals datagrams
    #[arg(long, value_enum)]
    cipher: Option<CipherName>,
    /// How the gateway's messages are encoded
    #[arg(long, value_enum, default_value = "msgpack")]
    encoding: EncodingName,
}

/// A process' id. What `pidof` answers where several run is refused with a word on what to do: which of them is which node
/// cannot be told from it.
fn process_id(text: &str) -> Result<u32, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("there is no such process: is the server running on this machine?".to_owned());
    }
    if text.split_ascii_whitespace().count() > 1 {
        return Err(
            "these are several processes: name the one of --server, or one for each --server, in their order and with \
                    commas between"
                .to_owned(),
        );
    }
    text.parse().map_err(|_| format!("`{text}` is no process' id"))
}

impl TargetArguments {
    /// Says how the nodes are used; which certificates they are believed by is in force from then on.
    pub(crate) fn config(&self, sweep_ms: Option<f64>) -> Result<NodesConfig> {
        self.trust.apply()?;
        Ok(NodesConfig {
            servers: self.server.clone(),
            people: match self.accounts.clone().zip(self.password.clone()) {
                Some((prefix, password)) => People::Accounts { prefix, password },
                None => People::Guests,
            },
            encoding: Encoding::from(self.encoding),
            cipher: self.cipher.map(Cipher::from),
            pids: self.pid.clone(),
            admin: self.admin.clone().zip(self.admin_password.clone()).map(|(name, password)| Admin { name, password }),
            sweep_interval: sweep_ms.map(milliseconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pidof_answers_is_a_process_or_a_word_on_what_to_do() {
        assert_eq!(process_id(" 4711\n"), Ok(4_711));
        for (text, wanted) in [("4711 4712", "several processes"), ("", "no such process"), ("x", "`x` is no")] {
            let refused = process_id(text).expect_err(text);
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}
