//! What the way between a client and its node is like when it is bad.

use std::{str::FromStr, time::Duration};

use antiphon_core::{clock::Micros, netsim::NetworkConfig};
use serde::{Deserialize, Serialize};

use crate::duration::written;

/// Nothing is held back for longer: more would need room without end.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Datagrams of one client that may be under way in each direction: 10 s of twenty speakers.
const IN_FLIGHT_MAX: usize = 10_000;

/// How every client's way behaves, in each direction by itself. What is not given is as on a perfect one. It concerns
/// datagrams: what travels in a WebSocket arrives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Impairment {
    /// The share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// How many are lost in a row on average; 1 is each by itself.
    pub loss_burst: f64,
    /// What every datagram takes.
    #[serde(with = "written")]
    pub delay: Duration,
    /// Up to so much more.
    #[serde(with = "written")]
    pub jitter: Duration,
    /// The share of datagrams that later ones overtake, 0 to 1.
    pub reorder: f64,
    /// How long those are held back.
    #[serde(with = "written")]
    pub reorder_delay: Duration,
    /// The share of datagrams that arrive twice, 0 to 1.
    pub duplicate: f64,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: 0.0,
            loss_burst: 1.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(30),
            duplicate: 0.0,
        }
    }
}

impl Impairment {
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, share) in [("loss", self.loss), ("reorder", self.reorder), ("duplicate", self.duplicate)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} is a share from 0 to 1, not {share}"));
            }
        }
        if !(self.loss_burst >= 1.0 && self.loss_burst.is_finite()) {
            return Err(format!("loss_burst is 1 or more, not {}", self.loss_burst));
        }
        let delays = [("delay", self.delay), ("jitter", self.jitter), ("reorder_delay", self.reorder_delay)];
        match delays.iter().find(|(_, delay)| *delay > DELAY_MAX) {
            Some((name, delay)) => Err(format!("{name} is at most {DELAY_MAX:?}, not {delay:?}")),
            None => Ok(()),
        }
    }

    /// One direction of it.
    pub(crate) fn network(&self) -> NetworkConfig {
        let micros = |duration: Duration| Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        NetworkConfig {
            loss: self.loss,
            loss_burst_mean: self.loss_burst,
            delay: micros(self.delay),
            jitter: micros(self.jitter),
            reorder: self.reorder,
            reorder_delay: micros(self.reorder_delay),
            duplicate: self.duplicate,
            in_flight_max: IN_FLIGHT_MAX,
        }
    }
}

impl FromStr for Impairment {
    type Err = String;

    /// Reads `loss=0.01,delay=20ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut table = toml::Table::new();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is no NAME=VALUE"))?;
            let number = value.trim().parse().map(toml::Value::Float);
            table.insert(name.trim().to_owned(), number.unwrap_or_else(|_| value.trim().into()));
        }
        let way: Self = table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        way.check()?;
        Ok(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_can_be_typed_in_one_line() {
        let way: Impairment = "loss=0.01, delay=20ms,jitter=5ms,loss_burst=3".parse().expect("a way");
        let expected = Impairment {
            loss: 0.01,
            loss_burst: 3.0,
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            ..Impairment::default()
        };
        assert_eq!(way, expected);
        assert_eq!(way.network().delay, Micros::from_millis(20));
    }

    #[test]
    fn what_is_no_way_says_why() {
        for (text, hint) in [
            ("loss", "NAME=VALUE"),
            ("lost=1", "expected one of"),
            ("loss=2", "0 to 1"),
            ("delay=soon", "no duration"),
            ("delay=11s", "at most"),
            ("loss_burst=0.5", "1 or more"),
        ] {
            let error = text.parse::<Impairment>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
