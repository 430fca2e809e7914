//! Logs: structured, one span for each session or request, and nothing private in them.
//!
//! What may be logged: random ids (of users, channels, sessions, requests), error codes, counts, durations, route
//! templates (`/api/invites/{code}`, never the path as sent) and networks ([`MaskedAddress`]). What may not: names, tokens,
//! keys, invite codes, passwords, query strings, message bodies, audio, a client's whole address.

use std::{
    fmt,
    io::IsTerminal as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt as lines, prelude::*};

use crate::settings::LogFormat;

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
#[error("the log filter `{filter}` is malformed: {reason}; write for example `info` or `info,antiphon::gateway=debug`")]
pub struct LogFilterError {
    filter: String,
    reason: String,
}

/// Begins to log to standard error. Does nothing where something logs already, as in tests.
///
/// # Errors
///
/// When `filter` is none.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogFilterError> {
    let parsed = parse_filter(filter)?;
    let registry = tracing_subscriber::registry().with(parsed);
    let writer = std::io::stderr;
    let _ = match format {
        LogFormat::Text => {
            let layer = lines::layer().with_ansi(writer().is_terminal()).with_writer(writer);
            registry.with(layer).try_init()
        }
        LogFormat::Json => registry
            .with(lines::layer().json().flatten_event(true).with_span_list(false).with_writer(writer))
            .try_init(),
    };
    Ok(())
}

/// Checks a filter without beginning to log.
///
/// # Errors
///
/// When `filter` is none.
pub fn check_filter(filter: &str) -> Result<(), LogFilterError> {
    parse_filter(filter).map(drop)
}

/// Libraries that log what they carry, down to messages and tokens, at `debug` and `trace`: a filter such as `trace`
/// does not open them, only one that names them. Of symphonia, which has much to say of damaged files, we say what matters.
const DISCREET: &str = "axum=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,sqlx=info,str0m=off,\
                        is=off,dimpl=off,sctp_proto=off,symphonia=off,tokio_tungstenite=info,tungstenite=info";

fn parse_filter(filter: &str) -> Result<EnvFilter, LogFilterError> {
    let malformed = |reason| LogFilterError { filter: filter.to_owned(), reason };
    // The library takes a space for a part of a name.
    let filter = &filter.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    if let Some(word) = levels_in(filter).find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(malformed(format!("`{word}` is none of off, error, warn, info, debug and trace")));
    }
    EnvFilter::try_new(format!("{DISCREET},{filter}")).map_err(|error| malformed(error.to_string()))
}

/// The parts of a filter that are to be a level for all. A word that is none would stand for all that a part of the program of that name
/// logs, and turn everything else off.
fn levels_in(filter: &str) -> impl Iterator<Item = &str> {
    filter.split(',').filter(|part| !part.is_empty() && !part.contains(['=', '[']))
}

/// An address as logs show it: the network it is in (an IPv4 /24, an IPv6 /48), which is enough to see where trouble
/// comes from and not enough to see who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedAddress(pub IpAddr);

impl fmt::Display for MaskedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(address) if address.is_loopback() => write!(f, "loopback"),
            IpAddr::V6(address) if address.is_loopback() => write!(f, "loopback"),
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0))
            }
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                write!(f, "{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_only_its_network() {
        for (address, shown) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:aa:bb:1:2:3:4", "2001:db8:aa::/48"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
        ] {
            assert_eq!(MaskedAddress(address.parse().expect("an address")).to_string(), shown);
        }
    }

    #[test]
    fn libraries_that_log_what_they_carry_open_only_by_name() {
        let shown = parse_filter("trace").expect("a filter").to_string();
        assert!(shown.contains("tungstenite=info") && shown.contains("trace"), "{shown}");
        let shown = parse_filter("info,tungstenite=trace").expect("a filter").to_string();
        assert!(shown.contains("tungstenite=trace") && !shown.contains(",tungstenite=info"), "{shown}");
    }

    #[test]
    fn a_malformed_filter_says_what_would_be_right() {
        assert!(check_filter("info,antiphon=debug").is_ok());
        assert!(check_filter("antiphon::gateway[session{id=7}]=debug,warn").is_ok());
        for filter in ["warn,inof", "warn, inof", "antiphon[session{id=7}]=debug,inof"] {
            let error = check_filter(filter).expect_err("no such level").to_string();
            assert!(error.contains("`inof` is none of off, error"), "{error}");
        }
        assert!(check_filter("antiphon[session{id=7,name=anna}]=debug,warn").is_err());
        let (spaced, plain) = (parse_filter(" warn , antiphon=debug "), parse_filter("warn,antiphon=debug"));
        assert_eq!(spaced.expect("a filter").to_string(), plain.expect("a filter").to_string());
        let error = check_filter("antiphon=loud").expect_err("no such level").to_string();
        assert!(error.contains("antiphon=loud") && error.contains("write for example"), "{error}");
    }
}
